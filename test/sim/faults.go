package sim

import (
	"time"

	"github.com/carpd/carpd/carp"
)

// nemesis breaks things on one segment, at random.
type nemesis struct {
	w    *World
	seg  *Segment
	ends time.Duration // nothing is broken from then on
}

// begin plans the first fault.
func (n *nemesis) begin() {
	if n.w.opts.FaultEvery > 0 {
		n.later()
	}
}

func (n *nemesis) later() {
	n.w.After(n.w.chaos.around(n.w.opts.FaultEvery), func() {
		if n.w.now < n.ends {
			n.strike()
			n.later()
		}
	})
}

// undo plans what takes a fault back. A Heal before that makes it needless.
func (n *nemesis) undo(f func()) {
	age := n.w.age
	n.w.After(n.w.chaos.in(n.w.opts.FaultTime), func() {
		if n.w.age == age {
			f()
		}
	})
}

// strike breaks one thing, in the order of Options.weights.
func (n *nemesis) strike() {
	rng := n.w.chaos
	total := 0.0
	for _, weight := range n.w.opts.weights() {
		total += *weight
	}
	at, kind := rng.Float64()*total, 0
	for i, weight := range n.w.opts.weights() {
		if at -= *weight; at < 0 {
			kind = i
			break
		}
	}
	i, all := rng.IntN(len(n.seg.hosts)), len(n.seg.hosts)
	h, other := n.seg.hosts[i], n.seg.hosts[(i+1+rng.IntN(max(all-1, 1)))%all]
	deeds := [...]func(a, b *Host){
		n.cut, n.partition, n.swizzle, n.clog, n.storm, n.flap, n.deaf, n.kill, n.power, n.freeze, n.pause, n.hang,
		n.drift, n.wall, n.demote, n.handover, n.state, n.stop,
	}
	deeds[kind](h, other)
}

func (n *nemesis) cut(a, b *Host) {
	n.w.fault(nil, "cut %s -> %s", a.Name, b.Name)
	n.seg.Cut(a, b)
	n.undo(func() { n.seg.Join(a, b); n.w.mend(nil, "join %s -> %s", a.Name, b.Name) })
}

func (n *nemesis) partition(*Host, *Host) {
	var sides [2][]Port
	text := ""
	for _, h := range n.seg.hosts {
		i := n.w.chaos.IntN(2)
		sides[i] = append(sides[i], h)
		text += " " + h.Name + ":" + string(rune('1'+i))
	}
	for _, c := range n.w.clients {
		i := n.w.chaos.IntN(2)
		sides[i] = append(sides[i], c)
	}
	n.w.fault(nil, "partition%s", text)
	join := n.seg.Partition(sides[0], sides[1])
	n.undo(func() { join(); n.w.mend(nil, "partition ends") })
}

// swizzle cuts all links one by one and joins them in another order.
func (n *nemesis) swizzle(*Host, *Host) {
	n.w.fault(nil, "swizzle")
	for _, a := range n.seg.hosts {
		for _, b := range n.seg.hosts {
			if a == b {
				continue
			}
			age := n.w.age
			n.w.After(n.w.chaos.in(n.w.opts.FaultTime), func() {
				if n.w.age == age {
					n.seg.Cut(a, b)
					n.undo(func() { n.seg.Join(a, b) })
				}
			})
		}
	}
}

func (n *nemesis) clog(a, b *Host) {
	n.w.fault(nil, "clog %s -> %s", a.Name, b.Name)
	n.seg.Clog(a, b)
	n.undo(func() { n.seg.Unclog(a, b); n.w.mend(nil, "unclog %s -> %s", a.Name, b.Name) })
}

func (n *nemesis) storm(*Host, *Host) {
	loss := n.w.chaos.Float64()
	n.w.fault(nil, "loss %.0f %%", 100*loss)
	n.seg.Loss = loss
	n.undo(func() { n.seg.Loss = n.w.opts.LossChance; n.w.mend(nil, "loss ends") })
}

func (n *nemesis) flap(h, _ *Host) {
	n.w.fault(h, "link flaps")
	for range 1 + n.w.chaos.IntN(3) {
		age := n.w.age
		n.w.After(n.w.chaos.in(n.w.opts.FaultTime), func() {
			if n.w.age == age {
				h.Unplug()
				n.undo(h.Plug)
			}
		})
	}
}

func (n *nemesis) deaf(h, _ *Host) {
	n.w.fault(h, "sends fail")
	h.FailSends(true)
	n.undo(func() { h.FailSends(false); n.w.mend(h, "sends work") })
}

func (n *nemesis) kill(h, _ *Host) {
	h.Kill(n.w.chaos.chance(0.2))
	n.undo(h.Start)
}

func (n *nemesis) power(h, _ *Host) {
	h.PowerOff()
	n.undo(h.Start)
}

// stopAt stops a daemon now, or at one of the worst instants of its work. The
// time until it goes on counts from the stop.
func (n *nemesis) stopAt(h *Host, points []trapPoint, stop, resume func()) {
	deed := func() { stop(); n.undo(resume) }
	where := points[n.w.chaos.IntN(len(points))]
	if where == trapNone || !h.ready() {
		deed()
		return
	}
	age := n.w.age
	h.trap = trap{where, func() {
		if n.w.age == age {
			deed()
		}
	}}
}

// traps are where a daemon is stopped; half of the time in its plan, if there is one.
func (n *nemesis) traps() []trapPoint {
	all := []trapPoint{trapNone, trapBeforeNow, trapBeforeSend, trapBeforePut}
	if n.w.opts.Plan.Steps > 0 {
		all = append(all, trapBeforeStep, trapBeforeStep, trapBeforeStep)
	}
	return all
}

func (n *nemesis) freeze(h, _ *Host) {
	n.stopAt(h, n.traps(), h.Freeze, h.Resume)
}

func (n *nemesis) pause(h, _ *Host) {
	n.stopAt(h, n.traps(), h.Pause, h.Unpause)
}

func (n *nemesis) hang(h, _ *Host) {
	n.stopAt(h, []trapPoint{trapNone, trapBeforeNow, trapBeforeSend}, h.Hang, h.Unhang)
}

func (n *nemesis) drift(h, _ *Host) {
	most := n.w.opts.ClockRate
	if most == 0 {
		most = 1000
	}
	rate := n.w.chaos.Int64N(2*most+1) - most
	n.w.fault(h, "clock runs at %+.1f ppm", float64(rate)/1000)
	h.Drift(rate)
}

func (n *nemesis) wall(h, _ *Host) {
	by := time.Duration(n.w.chaos.Int64N(int64(4*time.Hour))) - 2*time.Hour
	n.w.fault(h, "wall clock steps by %v", by.Round(time.Second))
	h.StepWall(by)
}

func (n *nemesis) demote(h, _ *Host) {
	by := n.w.chaos.IntN(300) - 50
	n.w.fault(h, "demoted by %d", by)
	h.Demote(operator, by)
	n.undo(func() { h.Demote(operator, 0); n.w.mend(h, "no longer demoted") })
}

func (n *nemesis) handover(h, _ *Host) {
	n.w.fault(h, "asked to hand over")
	h.Resign(carp.Backup, carp.ReasonHandover)
	n.undo(func() { h.Demote(carp.OwnerHandover, 0); n.w.mend(h, "resumes after a handover") })
}

func (n *nemesis) state(h, _ *Host) {
	to := carp.Master
	if n.w.chaos.IntN(2) == 0 {
		to = carp.Backup
	}
	n.w.fault(h, "asked to be %v", to)
	h.SetState(to)
}

// stop is an orderly end, and a start: a daemon that has let go exits.
func (n *nemesis) stop(h, _ *Host) {
	n.w.fault(h, "asked to stop")
	h.Resign(carp.Init, carp.ReasonStopping)
	n.undo(func() {
		if h.resigned {
			h.die()
		}
		h.Start()
	})
}
