package sim

import (
	"time"

	"github.com/carpd/carpd/carp"
)

// Permits checks that the address is put on and renewed under a live permit only,
// in time for the kernel to remove it before the permit ends; that no permit
// outlasts the fastest backup's master-down time after the last advert; and that
// a host that left the role lets the address go.
type Permits struct{}

// Name implements Checker.
func (*Permits) Name() string { return "permits" }

// Look implements Checker.
func (*Permits) Look(*World) {}

// Observe implements Checker.
func (c *Permits) Observe(w *World, e *Event) {
	h := e.Host
	switch e.Kind {
	case KindPermit:
		down := h.Config.FastestDown()
		if most := h.clock.read(h.lastOK).Add(down + slack); e.Permit.Until > most {
			w.Fail(c, "%s has a permit for %v longer than %v after its last advert", h.Name, e.Permit.Until.Sub(most), down)
		}
	case KindAddrOn, KindRenewed:
		now := h.clock.read(w.now)
		if e.Text == "" && !e.Late && !h.opts.Lease.allows(h.permit, now) {
			w.Fail(c, "%s put the address on, or renewed it, with %v left of its permit and a lease of %v",
				h.Name, h.permit.Until.Sub(now), h.opts.Lease.Valid)
		}
	case KindAddrOff:
		worst, ok := h.offWorst()
		if d := w.now - max(h.left, h.stoppedAt); ok && h.life != 0 && (h.state == carp.Backup || h.state == carp.Init) && e.Text == "" && d > worst+h.w.opts.LoopLate.Max*2 {
			w.Fail(c, "%s let the address go %v after it left the role; the bound is %v", h.Name, d, worst)
		}
	}
}

// Hooks checks that a host never runs two hooks at once: not of two roles, and
// not of one.
type Hooks struct{ running map[*Host]string }

// Name implements Checker.
func (*Hooks) Name() string { return "hooks" }

// Look implements Checker.
func (*Hooks) Look(*World) {}

// Observe implements Checker.
func (c *Hooks) Observe(w *World, e *Event) {
	switch e.Kind {
	case KindHookStart:
		if other := c.running[e.Host]; other != "" {
			w.Fail(c, "%s runs hook %s while hook %s runs", e.Host.Name, e.Text, other)
		}
		if c.running == nil {
			c.running = map[*Host]string{}
		}
		c.running[e.Host] = e.Text
	case KindHookEnd:
		delete(c.running, e.Host)
	}
}

// Adverts checks that a master whose loop runs is never silent for longer than
// its interval.
type Adverts struct{ last []time.Duration }

// Name implements Checker.
func (*Adverts) Name() string { return "adverts" }

// Observe implements Checker.
func (c *Adverts) Observe(w *World, e *Event) {
	switch e.Kind {
	case KindSent, KindUnsent:
		c.judge(w, e.Host)
		c.last[e.Host.index] = w.now
	case KindTransition:
		if e.Change.From == carp.Master && e.Change.Reason != carp.ReasonStalled {
			c.judge(w, e.Host)
		}
		c.room(w)
		c.last[e.Host.index] = w.now
	}
}

// Look implements Checker.
func (c *Adverts) Look(w *World) {
	for _, h := range w.hosts {
		c.judge(w, h)
	}
}

func (c *Adverts) room(w *World) {
	for len(c.last) < len(w.hosts) {
		c.last = append(c.last, 0)
	}
}

func (c *Adverts) judge(w *World, h *Host) {
	c.room(w)
	if h.state != carp.Master || !h.ready() {
		return
	}
	silent := w.now - max(c.last[h.index], h.stoppedAt)
	if bound := h.interval() + 2*w.opts.LoopLate.Max + slack; silent > bound {
		w.Fail(c, "%s is master, runs, and was silent for %v; the bound is %v", h.Name, silent, bound)
	}
}

// Packets checks what is taken from the wire: altered packets are refused, a
// host's own packets are known as such for as long as its daemon lives, and a
// second copy of a packet changes nothing; in VRRP, where nothing tells a copy from
// another advert, it can count as a master's that has not let go. What else was recorded and comes again
// later is the business of Fresh.
type Packets struct{}

// Name implements Checker.
func (*Packets) Name() string { return "packets" }

// Look implements Checker.
func (*Packets) Look(*World) {}

// Observe implements Checker.
func (c *Packets) Observe(w *World, e *Event) {
	if e.Kind != KindHeard {
		return
	}
	switch {
	case e.Bad:
		switch e.Drop {
		case carp.DropLength, carp.DropChecksum, carp.DropVersion, carp.DropVHID, carp.DropHash, carp.DropProtocol:
		case carp.DropRolling: // its counter was accepted before, in a copy that is whole
		default:
			w.Fail(c, "%s took an altered packet of %s: %v", e.Host.Name, e.Peer.Name, e.Drop)
		}
	case e.Own && e.Sent >= e.Host.startedAt && e.Drop != carp.DropOwn:
		w.Fail(c, "%s took its own packet for another's: %v", e.Host.Name, e.Drop)
	case e.Copy && e.Change != (carp.Transition{}) && !(e.Host.Config.Protocol.VRRP() && e.Change.Reason == carp.ReasonContested):
		w.Fail(c, "%s changed its state (%v) at the second copy of a packet of %s", e.Host.Name, e.Change, e.Peer.Name)
	}
}
