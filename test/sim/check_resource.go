package sim

import (
	"fmt"
	"time"

	"github.com/carpd/carpd/carp"
)

// Primaries checks the resource that hosts share. A host is a primary from the step
// without return of its promotion until that step is taken back.
//
// Of one host: the step without return begins under a live permit, but where the daemon
// was frozen between the look at the permit and the step; it is ended when the host leaves
// the role, and may take what it has left when its permit lapses. The address is on only
// when the resource is promoted for this mastership; no bow-out leaves a step in effect,
// nor is the election joined with one that an earlier daemon left.
//
// Of two: nobody becomes a primary beside another one, unless one of the following is true
// of that one. This list is what can go wrong, and docs/resources.md says the same.
//
//   - Its daemon is dead, or was and has not settled yet.
//   - It stands still, or only its loop does.
//   - It is master too, for as long as something is or was harmed between the two: a cut, a
//     lost or altered advert, a send that failed, a stop.
//   - Both were elected before one could hear the other: two backups, at the bow-out or the
//     silence of a third node. One yields at once; its step may have begun by then.
//   - An operator told one of the two to be MASTER, whatever the other one is.
//   - It has left the role out of order (it yielded, woke up late, lost its link, or its
//     release budget was over) and is demoting it, no longer than that takes at worst;
//     or that demotion has failed, of which there is an alarm.
type Primaries struct {
	permits map[*Host]carp.Permit
	ended   map[*Host]time.Duration // when the last permit was withdrawn
	lives   map[*Host]uint32        // of the daemon whose last transition was seen
	// Excused counts second primaries, by why they were let pass.
	Excused    map[string]int
	Promotions int // how often a host became a primary
}

// Name implements Checker.
func (*Primaries) Name() string { return "primaries" }

// Look implements Checker.
func (*Primaries) Look(*World) {}

// Observe implements Checker.
func (c *Primaries) Observe(w *World, e *Event) {
	if c.permits == nil {
		c.permits, c.ended, c.Excused = map[*Host]carp.Permit{}, map[*Host]time.Duration{}, map[string]int{}
		c.lives = map[*Host]uint32{}
	}
	h, p := e.Host, &w.opts.Plan
	switch e.Kind {
	case KindPermit:
		c.permits[h] = e.Permit
	case KindTransition:
		if c.lives[h] != h.life && h.resource.level > 0 {
			w.Fail(c, "%s joins the election with %d of %d steps in effect", h.Name, h.resource.level, p.Steps)
		}
		c.lives[h] = h.life
		if e.Change.From == carp.Releasing && e.Change.Reason == carp.ReasonReleased && h.resource.level > 0 {
			w.Fail(c, "%s bows out with %d of %d steps in effect", h.Name, h.resource.level, p.Steps)
		}
		if e.Change.To != carp.Master && e.Change.To != carp.Releasing {
			c.permits[h], c.ended[h] = carp.Permit{}, w.now
		}
	case KindHookStart:
		if e.Text == fmt.Sprintf("promote %d", p.NoReturn) && h.stoppedAt < h.resource.marked && !c.permits[h].Live(h.boot()) {
			w.Fail(c, "%s begins the step without return and has no permit", h.Name)
		}
	case KindAddrOn:
		if e.Text == "" && !e.Late && h.life != 0 && h.state == carp.Master && (h.resource.level < p.Steps || h.worker.passed != h.promoted) {
			w.Fail(c, "%s puts the address on with %d of %d steps in effect, promoted for the mastership of %v, and this is that of %v",
				h.Name, h.resource.level, p.Steps, h.worker.passed, h.promoted)
		}
	case KindPrimary:
		c.Promotions++
		c.permitted(w, e)
		for _, a := range w.hosts {
			if a != h && a.Primary() {
				c.second(w, a, h)
			}
		}
	}
}

// permitted: the step has ended.
func (c *Primaries) permitted(w *World, e *Event) {
	h, grace := e.Host, w.opts.HookStopTime.Max+2*w.opts.LoopLate.Max+permitPoll+slack
	permit := c.permits[h]
	lapsed := h.boot().Sub(permit.Until)
	switch {
	case h.life == 0 || h.still() || h.hung || e.Late:
	case permit.Epoch != 0 && lapsed > longest(grace, maxRate) && h.stoppedAt < w.now-grace:
		w.Fail(c, "%s became a primary %v after its permit lapsed, and did not stand still", h.Name, lapsed)
	case permit.Epoch != 0 || w.now <= c.ended[h]+grace:
	default:
		w.Fail(c, "%s became a primary %v after its permit was withdrawn, and did not stand still", h.Name, w.now-c.ended[h])
	}
}

// second: b becomes a primary beside a.
func (c *Primaries) second(w *World, a, b *Host) {
	o := &w.opts
	down := longest(max(b.Status().MasterDown, b.Config.FastestDown()), maxRate) + 2*a.interval() + a.seg.Latency.Max + 4*o.LoopLate.Max
	off, _ := a.offWorst()
	work := off + o.Plan.longest(o) + o.Plan.Timeout + 2*o.HookStopTime.Max + 8*o.LoopLate.Max
	hears := a.seg.Latency.Max + 4*o.LoopLate.Max // of another one that is elected with it
	in := a.state == carp.Master || a.state == carp.Releasing
	switch {
	case a.life == 0:
		c.Excused["dead"]++
	case !a.resource.settled:
		c.Excused["not settled"]++
	case a.still() || a.hung:
		c.Excused["stands still"]++
	case in && a.unharmed(b) >= b.promoted-down:
		c.Excused["master too, harmed"]++
	case !in && a.resource.stuck:
		c.Excused["stuck"]++
	case !in && w.now <= max(a.left, a.stoppedAt)+work:
		c.Excused["demoting"]++
	case b.life == 0:
		c.Excused["the second one is dead"]++
	case max(a.promoted-b.promoted, b.promoted-a.promoted) <= hears+slack && hears >= carp.DefaultGrace:
		c.Excused["elected together"]++
	case a.reason == carp.ReasonOperator && a.promoted >= b.promoted-down || b.reason == carp.ReasonOperator:
		c.Excused["forced"]++
	default:
		w.Fail(c, "%s (%v, promoted %v ago because %v) becomes a primary, and %s (%v, left %v ago, harmed %v ago) is one",
			b.Name, b.state, w.now-b.promoted, b.reason, a.Name, a.state, w.now-a.left, w.now-a.unharmed(b))
	}
}

// rests checks that each resource is where the role is.
func (c *Convergence) rests(w *World, holder *Host) {
	for _, h := range w.hosts {
		want := 0
		if h == holder {
			want = w.opts.Plan.Steps
		}
		if h.resource.level != want {
			w.Fail(c, "%s is %v and %d of %d steps of its resource are in effect%s", h.Name, h.state, h.resource.level, w.opts.Plan.Steps, states(w))
		}
	}
}
