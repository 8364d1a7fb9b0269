package modules

import (
	"fmt"
	"slices"
	"time"
)

// module is what a node knows of one of its modules.
type module struct {
	spec Module
	Saved
	look    *Summary // what the database held at the latest look; nil: not known
	change  change
	want    want
	task    task
	refused refusal
	allow   bool      // an operator lets tables be emptied, once
	seed    bool      // an operator makes this content that of the cluster
	broken  bool      // the latest install failed, perhaps half-way: the same content is not enough
	revert  bool      // the holder did not take the change that is in the database
	unheld  time.Time // since when nobody who can be reached holds what is wanted; zero: somebody does
	retry   time.Time
	fails   int
	reason  string // why it is not as it should be
}

// change is a content of the database that has no stamp yet.
type change struct {
	sum   Sum
	looks int       // in a row in which it was this one
	since time.Time // that it was first another than the stamp's
	same  time.Time // that it is this one
}

// want is a newer stamp of others.
type want struct {
	stamp Stamp
	seen  int   // observations
	from  uint8 // who pushed it; 0: nobody
}

// refusal is what was refused, so that it is told once.
type refusal struct {
	sum    Sum
	tables []string
}

// task is what is under way. One at a time in each module.
type task struct {
	kind  taskKind
	peer  uint8
	stamp Stamp
	meta  Meta // of an install
	keep  bool
	offer uint8 // the node whose change is installed
	until time.Time
}

type taskKind uint8

const (
	idle taskKind = iota
	fetching
	installing
	offering // to the holder
)

// sound reports whether the database holds what the stamp says.
func (m *module) sound() bool {
	return m.entry().sound()
}

// entry is what is told of the module.
func (m *module) entry() Entry {
	e := Entry{Module: m.spec.Name, Stamp: m.Stamp}
	if m.look != nil && m.task.kind != installing {
		e.Holds, e.Rows = m.look.Sum, len(m.look.Filled) > 0
	}
	return e
}

// fresh reports whether this node has never had a state of the cluster.
func (m *module) fresh() bool { return m.Stamp.IsZero() }

// looked takes what the database holds.
func (m *module) looked(now time.Time, s Summary, err error) {
	if err != nil {
		m.look, m.change = nil, change{}
		m.reason = cut(err.Error())
		return
	}
	if m.look == nil && m.task.kind == idle {
		m.reason = ""
	}
	if m.look != nil && m.look.Sum != s.Sum {
		m.refused = refusal{}
	}
	m.look = &s
	switch {
	case s.Sum == m.Stamp.Sum && !m.fresh():
		m.change = change{}
		m.revert = false
	case m.change.looks == 0:
		m.change = change{s.Sum, 1, now, now}
	case m.change.sum != s.Sum:
		m.change = change{s.Sum, 1, m.change.since, now}
	default:
		m.change.looks++
	}
}

// giveUp ends a task that led to nothing, for a while.
func (m *module) giveUp(now time.Time, interval time.Duration, format string, args ...any) {
	m.task = task{}
	m.fails++
	m.retry = now.Add(backOff(interval/2, m.fails-1))
	m.reason = cut(fmt.Sprintf(format, args...))
}

// settled reports whether a change of the holder is complete, as far as one can see.
func (m *module) settled(now time.Time, looks int) bool {
	return m.change.looks >= looks || m.change.looks > 0 && now.Sub(m.change.since) >= burst
}

func (c *Core) considerAll(now time.Time) {
	for _, m := range c.modules {
		c.consider(now, m)
	}
}

// consider decides what is to be done for a module now, if anything.
func (c *Core) consider(now time.Time, m *module) {
	if m.task.kind != idle && now.After(m.task.until) {
		m.giveUp(now, c.cfg.Interval, "no answer in time")
	}
	if m.look == nil || m.task.kind != idle || now.Before(m.retry) {
		return
	}
	c.lookAround(now, m)
	switch c.judge(now, m) {
	case doStamp:
		c.stamp(now, m)
	case doPull:
		c.pull(m, now, m.want.stamp)
	case doRevert:
		c.pull(m, now, m.Stamp)
	case doForward:
		c.forward(now, m)
	}
}

// deed is what is to be done for a module.
type deed uint8

const (
	doNothing deed = iota
	doStamp
	doPull
	doRevert
	doForward
)

// judge decides what is to be done for a module whose database was read.
func (c *Core) judge(now time.Time, m *module) deed {
	newer := m.want.stamp.Compare(m.Stamp) > 0
	switch {
	case m.seed && c.holding != 0:
		return doStamp
	case newer && c.abandoned(now, m):
		if m.look.Sum == m.Stamp.Sum || !m.look.Found && m.settled(now, c.cfg.Settle) {
			return doStamp
		}
		return doRevert
	case newer && m.refused.sum == m.want.stamp.Sum && len(m.refused.tables) > 0:
		return doNothing
	case newer && m.spec.Diffs > 0 && (m.want.from != 0 || m.want.seen >= m.spec.Diffs):
		return doPull
	case newer:
		return doNothing
	case m.fresh():
		if c.mayStamp() && m.settled(now, c.cfg.Settle) && c.nobodyLoses(m) {
			return doStamp
		}
		return doNothing
	case m.look.Sum == m.Stamp.Sum:
		return doNothing
	case c.holding != 0 && !m.look.Found:
		if c.mayStamp() && m.settled(now, c.cfg.Settle) {
			return doStamp
		}
		return doNothing
	case m.spec.Diffs == 0:
		return doNothing
	case c.cfg.Policy == Forward && !m.revert && !m.look.Found:
		if m.settled(now, c.cfg.Settle) && c.claim.Node != 0 && c.claim.Node != c.cfg.Self {
			return doForward
		}
		return doNothing
	case now.Sub(m.change.since) >= time.Duration(m.spec.Diffs)*c.cfg.Interval:
		return doRevert
	}
	return doNothing
}

// lookAround notes since when nobody who can be reached holds what is newest.
func (c *Core) lookAround(now time.Time, m *module) {
	for _, p := range c.peers {
		if e := p.entries[m.spec.Name]; e.Stamp == m.want.stamp && e.sound() && p.failures == 0 {
			m.unheld = time.Time{}
			return
		}
	}
	if m.unheld.IsZero() {
		m.unheld = now
	}
}

// abandoned reports whether the holder goes on without the newest state. It died with its
// maker, or that has changed it, before anybody had it: no node could make a change any
// more if all waited for it.
func (c *Core) abandoned(now time.Time, m *module) bool {
	return c.mayStamp() && !m.fresh() && m.spec.Diffs > 0 && !m.unheld.IsZero() && now.Sub(m.unheld) >= unheldTime
}

// nobodyLoses reports whether a fresh holder may begin: every node of the cluster was
// heard, is fresh, too, and has no rows, or the same.
func (c *Core) nobodyLoses(m *module) bool {
	if len(m.look.Filled) == 0 {
		return false
	}
	for _, p := range c.peers {
		e, ok := p.entries[m.spec.Name]
		if p.last.IsZero() || !ok || !e.Stamp.IsZero() || e.Holds == (Sum{}) || e.Rows && e.Holds != m.look.Sum {
			return false
		}
	}
	return true
}

// stamp makes the database's content that of the cluster.
func (c *Core) stamp(now time.Time, m *module) {
	empty := emptied(m.spec.Guarded, m.Filled, m.look.Filled, m.Allowed)
	if len(empty) > 0 && !m.allow {
		c.refuse(m, m.look.Sum, m.Stamp, 0, empty)
		return
	}
	s := c.nextStamp(now, m, m.look.Sum)
	lost := Stamp{}
	if m.want.stamp.Compare(m.Stamp) > 0 { // a seed over what others have
		lost = m.want.stamp
	}
	m.Saved = Saved{m.Meta.next(s, allowedNow(m.spec.Guarded, m.look.Filled, append(slices.Clone(m.Allowed), empty...))), m.look.Filled}
	c.event(Event{Kind: Stamped, Module: m.spec.Name, Stamp: s, Lost: lost, Text: "a change of this node, the holder"})
	if !lost.IsZero() && !m.seed {
		c.event(Event{Kind: Conflict, Module: m.spec.Name, Node: lost.Node, Stamp: s, Lost: lost, Text: fmt.Sprintf("nobody who can be reached holds the newest state, of node %d: that of this node, the holder, stands", lost.Node)})
	}
	m.done()
	c.push(now, m, 0)
}

// nextStamp counts the logical clock on. A holder that does not know yet that there is a
// later one may have taken that one's state: what follows from it is never older.
func (c *Core) nextStamp(now time.Time, m *module, sum Sum) Stamp {
	c.seen = max(c.seen+1, min(uint64(max(now.UnixMilli(), 0)), maxEpoch/2))
	c.out.Save = true
	term := max(c.holding, m.Stamp.Term, m.want.stamp.Term)
	return Stamp{c.seen, term, c.cfg.Self, min(m.Stamp.Version+1, maxEpoch-1), sum}
}

// allowedNow returns which of the tables that may be empty still are.
func allowedNow(guarded, filled, allowed []string) (names []string) {
	for _, g := range guarded {
		if slices.Contains(allowed, g) && !slices.Contains(filled, g) {
			names = append(names, g)
		}
	}
	return names
}

// done forgets all that a module waited for.
func (m *module) done() {
	m.change, m.task, m.refused = change{}, task{}, refusal{}
	m.allow, m.seed, m.revert, m.broken = false, false, false, false
	m.fails, m.retry, m.reason = 0, time.Time{}, ""
	if m.want.stamp.Compare(m.Stamp) <= 0 {
		m.want = want{}
	}
}

// refuse leaves tables as they are, and says so once.
func (c *Core) refuse(m *module, sum Sum, s Stamp, from uint8, tables []string) {
	m.reason = cut(fmt.Sprintf("would empty %v", tables))
	if m.refused.sum == sum && slices.Equal(m.refused.tables, tables) {
		return
	}
	m.refused = refusal{sum, tables}
	c.event(Event{Kind: Refused, Module: m.spec.Name, Node: from, Stamp: s, Text: fmt.Sprintf("%v would become empty: allow it if that is meant", tables)})
}

// push tells those around that this node has something newer. What they are known to
// have already is not said to them.
func (c *Core) push(now time.Time, m *module, but uint8) {
	r := Report{Pushed, c.claim, []Entry{m.entry()}}
	for _, id := range c.listeners(now) {
		if id != but && c.peers[id].entries[m.spec.Name].Stamp.Compare(m.Stamp) < 0 {
			c.send(id, r)
		}
	}
}

// observe counts what a peer has against what is wanted.
func (c *Core) observe(now time.Time, from uint8, entries []Entry, why Why) {
	for _, e := range entries {
		m := c.find(e.Module)
		if m == nil {
			continue
		}
		switch order := e.Stamp.Compare(m.want.stamp); {
		case e.Stamp.Compare(m.Stamp) <= 0:
		case order > 0:
			m.want = want{stamp: e.Stamp, seen: 1}
			m.unheld = time.Time{}
			m.retry, m.fails = time.Time{}, 0
			fallthrough
		case order == 0 && why == Pushed:
			if why == Pushed {
				m.want.from = from
			}
		case order == 0:
			m.want.seen++
		}
		c.consider(now, m)
	}
}
