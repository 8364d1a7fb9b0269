package sim

import (
	"time"

	"github.com/carpd/carpd/carp"
)

// Checker judges a world. Observe sees every event in order and must not change
// the world; Look is called at the end of each Run. Both report by World.Fail. A
// Checker belongs to one world.
type Checker interface {
	Name() string               // in violations
	Observe(w *World, e *Event) // e is valid during the call
	Look(w *World)              // World.Run has come to its end
}

// Standard returns all checkers that hold at any time, whatever is broken.
func Standard() []Checker {
	return []Checker{&Overlap{}, &Promise{}, &Silence{}, &Permits{}, &Hooks{}, &Adverts{}, &Packets{}}
}

// Overlap checks that two hosts of one segment answer for the address together
// no longer than their bound, counted from the last harm to one of them or to the
// paths between them.
type Overlap struct {
	since map[[2]int]time.Duration
	// Longest is the longest overlap without harm so far.
	Longest time.Duration
}

// Name implements Checker.
func (*Overlap) Name() string { return "overlap" }

// Observe implements Checker.
func (c *Overlap) Observe(w *World, e *Event) {
	switch e.Kind {
	case KindAddrOn:
		for _, other := range w.hosts {
			if other != e.Host && other.seg == e.Host.seg && other.Answers() {
				if c.since == nil {
					c.since = map[[2]int]time.Duration{}
				}
				c.since[pair(e.Host, other)] = w.now
			}
		}
	case KindAddrOff:
		for _, other := range w.hosts {
			c.judge(w, e.Host, other)
			delete(c.since, pair(e.Host, other))
		}
	case KindHarm:
		if len(c.since) > 0 {
			c.judge(w, e.Host, e.Peer)
		}
	}
}

// Look implements Checker.
func (c *Overlap) Look(w *World) {
	for i, a := range w.hosts {
		for _, b := range w.hosts[i+1:] {
			c.judge(w, a, b)
		}
	}
}

func pair(a, b *Host) [2]int { return [2]int{min(a.index, b.index), max(a.index, b.index)} }

// judge looks at an overlap that ends now, or is harmed now and counts anew.
func (c *Overlap) judge(w *World, a, b *Host) {
	since, on := c.since[pair(a, b)]
	if !on {
		return
	}
	from := max(since, a.unharmed(b))
	together := w.now - from
	c.since[pair(a, b)] = w.now
	bound, ok := overlapBound(a, b)
	if !a.seg.Whole(a, b) || !ok {
		return
	}
	c.Longest = max(c.Longest, together)
	if together > bound {
		w.Fail(c, "%s and %s both answered for %v, with nothing broken between them; the bound is %v", a.Name, b.Name, together, bound)
	}
}

// unharmed returns since when nothing was harmed between two hosts.
func (h *Host) unharmed(other *Host) time.Duration {
	if h.seg == nil || h.seg != other.seg {
		return 0
	}
	return max(h.seg.path(h, other).harmed, h.seg.path(other, h).harmed)
}

// overlapBound is how long two hosts may answer together while nothing is done to
// them. ok is false if nothing bounds it: a node without lease and without a
// daemon that runs.
//
// Both run: within an interval one has heard the better one and yields; then it
// takes the address off. One does not: its lease ends, or, if only the loop
// hangs, its permit and then its lease.
func overlapBound(a, b *Host) (time.Duration, bool) {
	o := &a.w.opts
	bound := max(a.interval(), b.interval()) + a.seg.Latency.Max + 4*o.LoopLate.Max + slack
	worst := time.Duration(0)
	for _, h := range []*Host{a, b} {
		d, ok := h.offWorst()
		if !h.Alive() {
			l := h.opts.Lease
			if l.Valid == 0 && (h.life == 0 || h.still()) {
				return 0, false
			}
			d = longest(l.Valid+kernelLate, maxRate)
			if h.hung {
				d += longest(h.Config.FastestDown(), maxRate)
			}
		} else if !ok {
			return 0, false
		}
		worst = max(worst, d)
	}
	return bound + worst, true
}

// Promise checks the takeover itself. When a host puts the address on after
//
//   - the master-down time or a bow-out: no host whose last advert it had heard
//     answers any more, be that host dead, killed, frozen, hung or alive, if its
//     lease keeps the promise (clocks may differ by their rates, no more);
//   - preempting: it waited for its grace, or the old master has let go.
type Promise struct{}

// Name implements Checker.
func (*Promise) Name() string { return "promise" }

// Look implements Checker.
func (*Promise) Look(*World) {}

// Observe implements Checker.
func (c *Promise) Observe(w *World, e *Event) {
	if e.Kind != KindAddrOn || e.Text != "" || e.Late || e.Host.state != carp.Master {
		return
	}
	b := e.Host
	for _, a := range w.hosts {
		if a == b || a.seg != b.seg || !a.Answers() || a.index >= len(b.known) || a.promoted > b.promoted {
			continue
		}
		switch b.reason {
		case carp.ReasonTimedOut, carp.ReasonBowOut:
			c.dead(w, a, b)
		case carp.ReasonPreempting, carp.ReasonWillTimeOut, carp.ReasonOwner:
			c.grace(w, a, b)
		}
	}
}

// dead: b waited for a's silence.
func (c *Promise) dead(w *World, a, b *Host) {
	k := b.known[a.index]
	promised := a.opts.Lease.Late > 0 || a.Alive() && a.stoppedAt <= k.sent && a.opts.Lease.Valid > 0 && a.offInTime()
	paused := a.kernel.pausedAt > 0 && a.kernel.pausedAt >= k.sent
	until := k.sent + longest(a.Config.FastestDown(), maxRateOf(a, b)) + slack
	if k.missed || k.sent < a.promoted || !promised || paused || a.kernel.late || w.now <= until || a.lastOK <= until && a.lastOK > b.promoted {
		return
	}
	w.Fail(c, "%s put the address on (%v) %v after %s's last advert, which it had heard, and %s still answers",
		b.Name, b.reason, w.now-k.sent, a.Name, a.Name)
}

// offInTime reports whether the address is off within what a permit leaves for
// that: a tenth of a second, or a tenth of the time that it lasts.
func (h *Host) offInTime() bool {
	worst, ok := h.offWorst()
	return ok && worst <= min(100*time.Millisecond, h.Config.FastestDown()/10)
}

// maxRateOf returns the sum of what two clocks may be off.
func maxRateOf(a, b *Host) int64 {
	return max(a.clock.rate, -a.clock.rate) + max(b.clock.rate, -b.clock.rate)
}

// grace: b said that it preempts a. An advert of a that crosses b's on the wire
// looks like the farewell; in CARP nothing tells them apart, in VRRP the farewell is
// known by coming out of turn.
func (c *Promise) grace(w *World, a, b *Host) {
	grace := b.Config.PreemptGrace
	if grace == 0 || b.opts.Mutant == NoGrace {
		grace = carp.DefaultGrace
	}
	waited := w.now - b.promoted
	heard := heardLast(a, b)
	crossed := heard >= b.promoted-a.seg.delay() && (a.state == carp.Master || a.state == carp.Releasing || heard <= a.left) && !a.inTurn(b.promoted-a.seg.delay())
	rival := b.rival == a.local.IPv4 || b.rival == a.local.IPv6 || !b.rival.IsValid()
	if !crossed && waited < grace-longest(grace, maxRate)/50 && rival && !b.Config.Guarded {
		w.Fail(c, "%s put the address on %v after it preempted %s, which still answers: it must wait for its farewell or for %v",
			b.Name, waited, a.Name, grace)
	}
}

// Silence checks that nobody is called dead who is not. A host that becomes master
// because a master was silent has not heard the latest advert of one that runs and
// is not late with the next, whether or not it understands its settings. What it
// had heard before it was BACKUP does not count: it waits by its own interval then.
type Silence struct{}

// Name implements Checker.
func (*Silence) Name() string { return "silence" }

// Look implements Checker.
func (*Silence) Look(*World) {}

// Observe implements Checker.
func (c *Silence) Observe(w *World, e *Event) {
	if e.Kind != KindTransition || e.Change.To != carp.Master || e.Change.From == carp.Master {
		return
	}
	b := e.Host
	for _, a := range w.hosts {
		if a == b || a.seg != b.seg || !a.Alive() || a.state != carp.Master || a.deaf > 0 {
			continue
		}
		k := b.known[a.index]
		if k.missed || k.sent < max(a.promoted, b.left) || b.seg.path(a, b).left == k.sent || w.now-k.sent > a.Config.AdvertInterval() {
			continue
		}
		switch why := e.Change.Reason; {
		case why == carp.ReasonTimedOut:
			w.Fail(c, "%s says that nobody is master, %v after an advert of %s that it had heard", b.Name, w.now-k.sent, a.Name)
		case why == carp.ReasonPreempting && b.rival.IsValid() && !b.understands(a):
			w.Fail(c, "%s preempts, though %s, whose settings differ, is master and was heard %v ago", b.Name, a.Name, w.now-k.sent)
		}
	}
}

// inTurn reports whether each advert of a VRRP master since then came so long after
// the one before that nobody may take it for a farewell. One out of turn can also be
// the answer to a third node.
func (h *Host) inTurn(since time.Duration) bool {
	o := &h.w.opts
	again := o.DuplicateChance > 0 || o.ReorderChance > 0 // a second copy comes out of turn
	return h.Config.Protocol.VRRP() && !again && h.sooner < since
}

// spoke notes a successful send.
func (h *Host) spoke() {
	if h.w.now-h.lastOK-h.seg.Latency.Max < h.interval()*3/4 {
		h.sooner = h.w.now
	}
	h.lastOK = h.w.now
}
