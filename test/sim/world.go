package sim

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/carpd/carpd/carp"
)

// World is a set of hosts, segments and clients, and their common time. New makes
// one. It is not safe for concurrent use, and different worlds share nothing: run
// one a goroutine. It needs no closing.
type World struct {
	seed     uint64
	opts     Options
	now      time.Duration
	queue    queue
	hosts    []*Host
	segments []*Segment
	clients  []*Client
	checkers []Checker

	network, loop, work, chaos, plans source

	event     Event // scratch: the event that is being told
	log       []Event
	forgotten bool
	hash      uint64
	failed    *Violation
	busy      int // tasks performed at this instant
	faults    int
	age       int // grows with each Heal: what was broken before is whole

	payloads []byte // room for adverts, filled once and never reused
}

// maxBusy bounds what may happen at one instant.
const maxBusy = 100_000

// Violation is what a checker found. It is an error.
type Violation struct {
	At      time.Duration
	Checker string
	Text    string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("sim: at %.3f s: %s: %s", v.At.Seconds(), v.Checker, v.Text)
}

// New returns an empty world. Of o the rates, times and chances count, as
// defaults of the segments and hosts that are made; the zero Options are a perfect
// network and instant workers.
func New(seed uint64, o Options) *World {
	return &World{
		seed: seed, opts: o, hash: seed,
		network: newSource(seed, "network"), loop: newSource(seed, "loop"),
		work: newSource(seed, "work"), chaos: newSource(seed, "chaos"), plans: newSource(seed, "plans"),
	}
}

// Seed returns the seed of the world.
func (w *World) Seed() uint64 { return w.seed }

// Now returns the true time since the start.
func (w *World) Now() time.Duration { return w.now }

// Hosts returns all hosts in the order of their making.
func (w *World) Hosts() []*Host { return w.hosts }

// Segments returns all segments in the order of their making.
func (w *World) Segments() []*Segment { return w.segments }

// Require adds checkers. They see what happens from now on.
func (w *World) Require(c ...Checker) { w.checkers = append(w.checkers, c...) }

// Fail ends the run. Checkers call it; the first failure counts.
func (w *World) Fail(c Checker, format string, a ...any) {
	if w.failed == nil {
		w.failed = &Violation{At: w.now, Checker: c.Name(), Text: fmt.Sprintf(format, a...)}
	}
}

// Err returns the first Violation, or nil.
func (w *World) Err() error {
	if w.failed == nil {
		return nil
	}
	return w.failed
}

// Run lets d pass and then asks all checkers whether they are content. It stops
// early at a violation and returns it.
func (w *World) Run(d time.Duration) error {
	end := w.now + d
	for w.failed == nil {
		at, ok := w.queue.next()
		if !ok || at > end {
			break
		}
		if w.busy++; at > w.now {
			w.busy = 0
		}
		w.now = at
		t := w.queue.pop()
		w.perform(&t)
		if w.busy > maxBusy {
			w.failed = &Violation{At: w.now, Checker: "world", Text: fmt.Sprintf("%d tasks and no end at one instant", maxBusy)}
		}
	}
	if w.failed == nil {
		w.now = max(w.now, end)
		for _, c := range w.checkers {
			c.Look(w)
		}
	}
	return w.Err()
}

func (w *World) perform(t *task) {
	h := t.host
	if t.life != 0 {
		if h.life != t.life {
			return // of a daemon that is dead
		}
		if h.still() {
			h.waiting = append(h.waiting, *t)
			return
		}
	}
	switch t.what {
	case taskCall:
		t.fn()
	case taskDeliver:
		h.arrive(t.pkt)
	case taskTick:
		h.timer(t.at)
	case taskSet:
		h.set.wakeUp(t.at)
	case taskExpire:
		h.kernel.check(t.at)
	}
}

// After plans f, for scripts and for faults.
func (w *World) After(d time.Duration, f func()) {
	w.queue.push(task{at: w.now + max(d, 0), fn: f})
}

// Every calls f each d, for ever, beginning after d.
func (w *World) Every(d time.Duration, f func()) {
	w.After(d, func() { f(); w.Every(d, f) })
}

// tell hands an event to the trace and to all checkers.
func (w *World) tell(e Event) {
	w.event = e
	w.event.At = w.now
	w.record(&w.event)
	for _, c := range w.checkers {
		c.Observe(w, &w.event)
	}
}

// Note writes a line of its own in the trace; h may be nil.
func (w *World) Note(h *Host, text string) { w.tell(Event{Kind: KindMend, Host: h, Text: text}) }

func (w *World) fault(h *Host, format string, a ...any) {
	w.faults++
	w.tell(Event{Kind: KindFault, Host: h, Text: fmt.Sprintf(format, a...)})
}

func (w *World) mend(h *Host, format string, a ...any) {
	w.tell(Event{Kind: KindMend, Host: h, Text: fmt.Sprintf(format, a...)})
}

// Faults returns how many faults there were so far.
func (w *World) Faults() int { return w.faults }

// Holders returns the hosts that answer for addr now.
func (w *World) Holders(addr netip.Addr) []*Host {
	var all []*Host
	for _, h := range w.hosts {
		if h.Answers() && h.serves(addr) {
			all = append(all, h)
		}
	}
	return all
}

// Heal makes everything whole: all segments, all hosts, all workers. Operators'
// demotions are taken back.
func (w *World) Heal() {
	w.age++
	for _, s := range w.segments {
		s.Heal()
	}
	for _, h := range w.hosts {
		h.heal()
	}
	w.mend(nil, "all is whole")
}

// room returns n bytes that nobody else uses.
func (w *World) room(n int) []byte {
	if len(w.payloads) < n {
		w.payloads = make([]byte, 16<<10)
	}
	b := w.payloads[:n:n]
	w.payloads = w.payloads[n:]
	return b
}

// wallStart is what right wall clocks show at the start of a world, as time since
// 2020-01-01, where the group clock begins.
const wallStart = 6 * 365 * 24 * time.Hour

// hostLocal returns the addresses of host i.
func hostLocal(i int) carp.Local {
	return carp.Local{
		IPv4: netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}),
		IPv6: netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: byte(1 + i)}),
		MAC:  carp.MAC{2, 0, 0, 0, 0, byte(1 + i)},
	}
}
