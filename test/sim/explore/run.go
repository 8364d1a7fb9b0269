package explore

import (
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
)

// World says what to explore. Nodes, two or three, is required, all CARP or all VRRP
// over IPv4; Rand and
// ClockOffset of the configurations are set here.
type World struct {
	Nodes []carp.Config
	// Settled begins when one node has been master for a while; otherwise all nodes
	// have just begun.
	Settled bool
	Depth   int // moves
	// How often each fault may happen on the way to a state.
	Losses, Duplicates, Delays, Crashes, Freezes, Handovers int
	// Replays is how often an attacker may play a packet again that was sent before:
	// to one node, as it was or with another weight. All CARP nodes with ReplaySealed.
	Replays int
	// MaxStates ends the search; 0: 200 000. Result.Complete says whether it did.
	MaxStates int
	Fault     Fault // a deliberate one; the zero value is none
}

// Fault is a deliberate fault, to see that it is found.
type Fault uint8

// The faults.
const (
	NoFault      Fault = iota
	IgnorePermit       // the worker puts the address on, and keeps it, without a permit
	NoLease            // the address outlives the permit
	SentLate           // Sent is called with an instant a second late
	KeepAddress        // Released is called and the address stays
	Forget             // a node forgets what it has accepted before each packet
)

var faultNames = [...]string{"none", "ignore-permit", "no-lease", "sent-late", "keep-address", "forget"}

func (f Fault) String() string {
	if int(f) < len(faultNames) {
		return faultNames[f]
	}
	return "unknown"
}

// Result is what came of a search.
type Result struct {
	States   int   // different ones that were visited
	Moves    int   // that were tried
	Depth    int   // to which all states were visited
	ByDepth  []int // new states of each depth
	Complete bool  // Depth is the depth that was asked for
	Err      error
	Trace    []string // the moves that lead to Err, from the beginning
}

func (r *Result) String() string {
	s := fmt.Sprintf("%d states by %d moves, all to depth %d", r.States, r.Moves, r.Depth)
	if r.Err == nil {
		return s
	}
	return fmt.Sprintf("%s: %v, after %d moves:\n  %s", s, r.Err, len(r.Trace), strings.Join(r.Trace, "\n  "))
}

const defaultMaxStates = 200_000

// visit is one visited state: how it was reached.
type visit struct {
	parent int32
	move   move
}

// search is one run.
type search struct {
	w      World
	seed   maphash.Seed
	seen   map[uint64]struct{}
	visits []visit
	buf    []byte
	result Result
}

// Run explores w. It panics if a configuration is not valid. It is not
// concurrent, and the same World gives the same result.
func Run(w World) Result {
	if w.MaxStates <= 0 {
		w.MaxStates = defaultMaxStates
	}
	x := &search{w: w, seed: maphash.MakeSeed(), seen: map[uint64]struct{}{}}
	first := x.begin()
	type open struct {
		s  *state
		at int32
	}
	x.visits = append(x.visits, visit{parent: -1})
	x.fresh(first)
	level := []open{{first, 0}}
	x.result.ByDepth = []int{1}
	for depth := 1; depth <= w.Depth && len(level) > 0; depth++ {
		var next []open
		for _, o := range level {
			for _, m := range o.s.moves(w.Fault) {
				x.result.Moves++
				s := o.s.clone()
				wrong := s.make(m, w.Fault)
				if wrong == "" && !x.fresh(s) {
					continue
				}
				x.visits = append(x.visits, visit{o.at, m})
				at := int32(len(x.visits) - 1)
				if wrong == "" {
					wrong = s.wrong(o.s, w.Fault)
				}
				if wrong == "" {
					wrong = s.hopeless(w.Fault)
				}
				if wrong != "" {
					x.result.Err = fmt.Errorf("explore: %s", wrong)
					x.result.Trace = x.replay(at)
					x.result.States = len(x.visits)
					return x.result
				}
				if len(x.visits) >= w.MaxStates {
					x.result.States = len(x.visits)
					return x.result
				}
				next = append(next, open{s, at})
			}
		}
		x.result.ByDepth = append(x.result.ByDepth, len(next))
		x.result.Depth, level = depth, next
	}
	x.result.States, x.result.Depth, x.result.Complete = len(x.visits), w.Depth, true
	return x.result
}

// fresh reports whether s was not seen before, and remembers it.
func (x *search) fresh(s *state) bool {
	var k uint64
	k, x.buf = s.key(x.seed, x.buf)
	if _, seen := x.seen[k]; seen {
		return false
	}
	x.seen[k] = struct{}{}
	return true
}

// begin makes the first state.
func (x *search) begin() *state {
	if n := len(x.w.Nodes); n < 2 || n > maxNodes {
		panic(fmt.Sprintf("explore: %d nodes: use 2 or 3", n))
	}
	w := &x.w
	s := &state{
		now: carp.Instant(time.Second), losses: w.Losses, duplicates: w.Duplicates, delays: w.Delays, crashes: w.Crashes,
		freezes: w.Freezes, handovers: w.Handovers, replays: w.Replays,
	}
	for i, c := range w.Nodes {
		c.Rand, c.NodeID, c.ClockOffset, c.Leased = func() uint64 { return uint64(time.Second / 3) }, uint8(i+1), 0, true
		if c.Replay == carp.ReplaySealed {
			c.SavedClock = 1 // no member's clock moves it far
		}
		if c.Replay == carp.ReplayWindow && !c.Protocol.VRRP() { // a memory of a megabyte in each of a million states
			c.Replay = carp.ReplayOff
		}
		e, err := carp.NewEngine(c)
		if err != nil {
			panic(fmt.Sprintf("explore: node %c: %v", 'A'+i, err))
		}
		s.nodes = append(s.nodes, node{engine: e, config: c})
	}
	for i := range s.nodes {
		s.apply(i, s.nodes[i].engine.LinkUp(s.now, local(i)), NoFault)
	}
	if w.Settled {
		s.settle(10 * time.Second)
	}
	return s
}

// replay makes the moves that lead to a visit again and describes them.
func (x *search) replay(at int32) []string {
	var moves []move
	for ; x.visits[at].parent >= 0; at = x.visits[at].parent {
		moves = append(moves, x.visits[at].move)
	}
	s := x.begin()
	lines := []string{s.describe("begin")}
	for i := len(moves) - 1; i >= 0; i-- {
		text := moves[i].describe(s)
		wrong := s.make(moves[i], x.w.Fault)
		lines = append(lines, s.describe(text))
		if wrong != "" {
			lines = append(lines, wrong)
		}
	}
	return lines[1:]
}

// describe writes a line of a trace.
func (s *state) describe(what string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%8.3f  %-12s", time.Duration(s.now).Seconds(), what)
	for i := range s.nodes {
		n := &s.nodes[i]
		text := n.state.String()
		switch {
		case n.crashed:
			text = "crashed"
		case n.frozen:
			text += " frozen"
		}
		if s.answers(i, NoFault) {
			text += " answers"
		}
		if n.pending && !n.crashed {
			text += " (work)"
		}
		fmt.Fprintf(&b, "  %c %-24s", 'A'+i, text)
	}
	fmt.Fprintf(&b, "  %d under way", len(s.wire))
	return b.String()
}
