package explore

import (
	"fmt"
	"slices"
	"time"

	"github.com/carpd/carpd/carp"
)

// move is one thing that may happen next. n is the packet's place on the wire, or
// the node.
type move struct {
	kind   moveKind
	n      uint8
	to, as uint8 // of a replay
}

type moveKind uint8

const (
	deliver moveKind = iota
	lose
	double
	work
	timer
	crash
	freeze
	resume
	handover
	replay
)

var moveNames = [...]string{"deliver", "lose", "double", "work", "timer", "crash", "freeze", "resume", "handover", "replay"}

func (m move) describe(s *state) string {
	if m.kind <= double {
		p := s.wire[m.n]
		return fmt.Sprintf("%s %c>%c", moveNames[m.kind], 'A'+p.from, 'A'+p.to)
	}
	if m.kind == replay {
		return s.describeReplay(m)
	}
	return fmt.Sprintf("%s %c", moveNames[m.kind], 'A'+m.n)
}

// moves lists what may happen next.
func (s *state) moves(fault Fault) []move {
	var all []move
	add := func(k moveKind, n int) { all = append(all, move{kind: k, n: uint8(n)}) }
	for i := range s.wire {
		add(deliver, i)
		if s.losses > 0 {
			add(lose, i)
		}
		if s.duplicates > 0 {
			add(double, i)
		}
	}
	if s.replays > 0 {
		all = s.attacks(all)
	}
	due := s.due()
	for i := range s.nodes {
		n := &s.nodes[i]
		if n.crashed {
			continue
		}
		if n.frozen {
			add(resume, i)
		} else {
			if s.able(i, fault) {
				add(work, i)
			}
			if n.deadline != 0 && n.deadline <= due && (due <= s.now || s.late(fault) <= s.delays) {
				add(timer, i)
			}
			if s.freezes > 0 {
				add(freeze, i)
			}
			if s.handovers > 0 && n.state == carp.Master {
				add(handover, i)
			}
		}
		if s.crashes > 0 {
			add(crash, i)
		}
	}
	return all
}

// late counts what is delayed if time goes on now.
func (s *state) late(fault Fault) int {
	n := len(s.wire)
	for i := range s.nodes {
		if s.able(i, fault) {
			n++
		}
	}
	return n
}

// make carries out a move. It returns what went wrong, or "".
func (s *state) make(m move, fault Fault) string {
	switch m.kind {
	case deliver, lose, double:
		return s.carry(m, fault)
	case work:
		return s.labour(int(m.n), fault)
	case timer:
		if due := s.nodes[m.n].deadline; due > s.now {
			s.delays -= s.late(fault)
			s.now = due
		}
		return s.tick(int(m.n), fault)
	case crash:
		s.crashes--
		s.nodes[m.n].crashed, s.nodes[m.n].frozen, s.nodes[m.n].inbox = true, false, nil
		s.wire = slices.DeleteFunc(s.wire, func(p packet) bool { return p.to == m.n })
	case freeze:
		s.freezes--
		s.nodes[m.n].frozen = true
	case resume:
		return s.resume(int(m.n), fault)
	case replay:
		s.replays--
		return s.play(m, fault)
	case handover:
		s.handovers--
		return s.apply(int(m.n), s.nodes[m.n].engine.Resign(s.now, carp.Backup, carp.ReasonHandover), fault)
	}
	return ""
}

func (s *state) carry(m move, fault Fault) string {
	p := s.wire[m.n]
	switch m.kind {
	case lose:
		s.losses--
	case double:
		s.duplicates--
	}
	if m.kind != double {
		s.wire = slices.Delete(s.wire, int(m.n), int(m.n)+1)
	}
	if m.kind == lose {
		return ""
	}
	if n := &s.nodes[p.to]; n.frozen {
		n.inbox = append(n.inbox, p)
		return ""
	}
	return s.handle(p, fault)
}

// hasty checks that nobody calls a master dead that runs, whose last advert it has
// heard, and whose next one is not late. before is the state before this one.
func (s *state) hasty(before *state) string {
	for j := range s.nodes {
		b := &s.nodes[j]
		if b.state != carp.Master || before.nodes[j].state != carp.Backup || b.reason != carp.ReasonTimedOut {
			continue
		}
		for i := range s.nodes {
			a := &before.nodes[i]
			runs := i != j && !a.crashed && !a.frozen && a.state == carp.Master
			if runs && before.nodes[j].heard[i] == a.round && s.now.Sub(a.spoke) <= a.config.AdvertInterval() {
				return fmt.Sprintf("%c says that nobody is master, though it has heard the last advert of %c", 'A'+j, 'A'+i)
			}
		}
	}
	return ""
}

// wrong checks what must hold in every state. before is the state before it.
func (s *state) wrong(before *state, fault Fault) string {
	if hasty := s.hasty(before); hasty != "" {
		return hasty
	}
	for i := range s.nodes {
		for j := range s.nodes {
			if i == j || !s.answers(i, fault) || !s.answers(j, fault) {
				continue
			}
			a, b := &s.nodes[i], &s.nodes[j]
			switch {
			case s.sealed() && i < j && s.whole():
				return fmt.Sprintf("%c and %c both answer", 'A'+i, 'A'+j)
			case (a.crashed || a.frozen) && !before.answers(j, fault) && !b.crashed:
				waited := b.reason == carp.ReasonTimedOut || b.reason == carp.ReasonBowOut
				if waited && a.rank < b.rank && b.missed&(1<<i) == 0 {
					return fmt.Sprintf("%c answers, and so does %c, which has stopped and whose last advert %c had heard", 'A'+j, 'A'+i, 'A'+j)
				}
			case i < j && !a.crashed && !a.frozen && !b.crashed && !b.frozen:
				known := b.heard[i] == a.round && a.heard[j] == b.round
				if known && !a.pending && !b.pending {
					return fmt.Sprintf("%c and %c answer, though each has heard the other", 'A'+i, 'A'+j)
				}
			}
		}
	}
	return ""
}

// settle lets d pass without a fault: packets arrive and workers work at once.
func (s *state) settle(d time.Duration) string {
	for end := s.now.Add(d); ; {
		for i := range s.nodes {
			if s.able(i, NoFault) {
				if wrong := s.labour(i, NoFault); wrong != "" {
					return wrong
				}
			}
		}
		if len(s.wire) > 0 {
			if wrong := s.carry(move{kind: deliver}, NoFault); wrong != "" {
				return wrong
			}
			continue
		}
		due := s.due()
		if due == 0 || due > end {
			s.now = end
			return ""
		}
		s.now = max(s.now, due)
		for i := range s.nodes {
			if n := &s.nodes[i]; !n.crashed && n.deadline != 0 && n.deadline <= s.now {
				if wrong := s.tick(i, NoFault); wrong != "" {
					return wrong
				}
			}
		}
	}
}

// patience is how long a whole world may take to have one master.
const patience = 12 * time.Second

// hopeless checks that the state finds its way back when nothing is broken any
// more.
func (s *state) hopeless(fault Fault) string {
	if fault != NoFault {
		return ""
	}
	c := s.clone()
	for i := range c.nodes {
		if c.nodes[i].frozen {
			if wrong := c.resume(i, NoFault); wrong != "" {
				return wrong
			}
		}
	}
	if wrong := c.settle(patience); wrong != "" {
		return wrong
	}
	before := c.masters()
	alive := slices.ContainsFunc(c.nodes, func(n node) bool { return !n.crashed })
	if !alive {
		return ""
	}
	if len(before) != 1 || !c.answers(before[0], NoFault) {
		return fmt.Sprintf("%v after all has been whole there is not one master that answers, but %d", patience, len(before))
	}
	if wrong := c.settle(3 * time.Second); wrong != "" {
		return wrong
	}
	if after := c.masters(); !slices.Equal(before, after) {
		return fmt.Sprintf("the master changes though all has been whole for %v", patience)
	}
	return ""
}

// masters lists the nodes that answer or, running, are master.
func (s *state) masters() []int {
	var all []int
	for i := range s.nodes {
		n := &s.nodes[i]
		if s.answers(i, NoFault) || !n.crashed && n.state == carp.Master {
			all = append(all, i)
		}
	}
	return all
}
