package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
)

// Convergence checks the second phase: after World.Heal there is one holder in
// time, then the right one, and then nothing happens any more. Begin starts it.
type Convergence struct {
	quiet bool // from now on nothing may happen
	// OneHolder and RightHolder are how long after Begin the first and the second
	// promise are due; Begin reckons them from what holds nodes back.
	OneHolder, RightHolder time.Duration
	// Took is when there was one holder for good, after Begin.
	Took  time.Duration
	begun time.Duration
	moved time.Duration // the last transition, after that
	on    bool
}

// Name implements Checker.
func (*Convergence) Name() string { return "convergence" }

// unheard is how long a member of a sealed group does not ask for a role that it let go
// because it was not heard (docs/protocol.md).
const unheard = time.Minute

// Begin reckons the deadlines.
//
// One holder: whoever is not held back (startup delay, failed takeovers) has the
// role within the longest master-down time; a second master, and a better one
// that preempts, cost an interval each with a grace; then gate and address.
//
// The right one: besides, when send errors are forgiven (30 s), failed takeovers
// no longer hold anybody back, the preempt delay is over, and a member of a sealed
// group that was not heard asks for the role again.
func (c *Convergence) Begin(w *World) {
	c.on, c.begun = true, w.now
	o := &w.opts
	var down, interval, hold, start, preempt, work time.Duration
	for _, h := range w.hosts {
		st := h.Status()
		down = max(down, longest(st.MasterDown, maxRate))
		interval = max(interval, h.interval())
		if h.Config.Protocol.VRRP() { // who follows another interval waits by that
			down = max(down, 4*h.interval())
		}
		hold = max(hold, longest(st.HeldUntil.Sub(h.now()), maxRate))
		start = max(start, longest(h.Config.StartupDelay, maxRate))
		preempt = max(preempt, longest(h.Config.PreemptDelay, maxRate))
		if h.Config.Replay == carp.ReplaySealed {
			preempt = max(preempt, longest(unheard, maxRate))
		}
		worst, _ := h.offWorst()
		work = max(work, worst)
	}
	lat := o.Latency.Max
	for _, s := range w.segments {
		lat = max(lat, s.Latency.Max)
	}
	work += o.AddTime.Max + 2*o.HookTime.Max + 2*o.HookStopTime.Max + o.GuardTime.Max + 8*o.LoopLate.Max + carp.DefaultGrace + 4*lat +
		carp.DefaultReleaseBudget + clearAgain
	if o.Plan.Steps > 0 { // one that was demoted is promoted again, and both may have to begin anew
		work += 2*(o.Plan.longest(o)+o.Plan.Timeout) + longestPause + o.HookSlowTime.Max
	}
	c.OneHolder = start + hold + down + 3*interval + 2*work
	c.RightHolder = c.OneHolder + max(preempt, 30*time.Second) + down + 3*interval + 2*work
}

// Observe implements Checker.
func (c *Convergence) Observe(w *World, e *Event) {
	if !c.on {
		return
	}
	switch e.Kind {
	case KindAddrOn, KindAddrOff:
		c.Took = w.now - c.begun
		c.moved = c.Took
	case KindTransition:
		c.moved = w.now - c.begun
	}
	if c.quiet && (e.Kind == KindTransition || e.Kind == KindAddrOn || e.Kind == KindAddrOff) {
		w.Fail(c, "%s: %s, though all has been whole for %v", e.Host.Name, e, w.now-c.begun)
	}
}

// Look implements Checker.
func (c *Convergence) Look(w *World) {
	if !c.on {
		return
	}
	since := w.now - c.begun
	if since < c.OneHolder || since < c.RightHolder && since < c.moved+3*time.Second {
		return // too early, or in the middle of a preemption whose delay ended just now
	}
	var holders []string
	var holder *Host
	for _, h := range w.hosts {
		if h.Answers() {
			holders, holder = append(holders, h.Name), h
		}
	}
	if len(holders) != 1 {
		w.Fail(c, "%d holders [%s] %v after all was made whole%s", len(holders), strings.Join(holders, " "), since, states(w))
		return
	}
	for _, h := range w.hosts {
		if want := h == holder; want != (h.state == carp.Master) {
			w.Fail(c, "%s is %v and %s answers%s", h.Name, h.state, holder.Name, states(w))
		}
	}
	if since < c.RightHolder {
		return
	}
	for _, h := range w.hosts {
		if h.preempts() && h.better(holder) && h.understands(holder) {
			w.Fail(c, "%s answers, but %s is better and preempts%s", holder.Name, h.Name, states(w))
		}
	}
	c.rests(w, holder)
	for _, client := range w.clients {
		if client.Server() != holder && c.quiet {
			w.Fail(c, "client %s does not get its answers from %s", client.Name, holder.Name)
		}
	}
	c.quiet = true
}

// speed is by what masters of CARP are compared: the smaller the better.
func (h *Host) speed() int { return int(h.Config.AdvBase)<<8 + int(h.Config.AdvSkew) }

func states(w *World) string {
	var b strings.Builder
	for _, h := range w.hosts {
		st := h.Status()
		fmt.Fprintf(&b, "; %s %v, demoted %d", h.Name, h.state, st.Demotion)
	}
	return b.String()
}
