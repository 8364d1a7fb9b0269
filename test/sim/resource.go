package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/carpd/carpd/carp"
)

// Plan is the resource that the hosts of a world share: so many steps promote it, the
// same steps in reverse demote it. The zero value is none.
type Plan struct {
	Steps    int
	NoReturn int // the step, from 0, past which a host is a primary; it needs a live permit

	MarkTime    Range // of a record in the journal, before each step
	StepTime    Range
	SlowChance  float64
	SlowTime    Range
	FailChance  float64       // of a step of a promotion
	StuckChance float64       // of a step of a demotion
	Timeout     time.Duration // of a promotion, and of a demotion
}

// resource is what a host uses while it has the role: a database that is written to, a
// disk that is mounted. It is no part of the daemon, and outlives it.
type resource struct {
	h       *Host
	level   int           // so many steps are in effect
	held    bool          // what the journal knows: it is promoted, or may be
	marked  time.Duration // when the step that runs was allowed
	stepUp  int           // 1: a step of a promotion runs, -1: of a demotion
	stuck   bool          // a demotion has failed since it was demoted last
	settled bool          // the daemon knows that nothing is left of an earlier one
}

// Primary reports whether the host is past the step without return and has not taken it
// back: another one that is, too, is a second primary.
func (h *Host) Primary() bool { return h.resource.level > h.w.opts.Plan.NoReturn }

var (
	errPermit  = errors.New("sim: the step without return has no permit")
	errStep    = errors.New("sim: the step failed")
	errTimeout = errors.New("sim: the plan took too long")
)

// promote runs what is left of the plan.
func (k *worker) promote(j *job, then func(error)) {
	r := &k.h.resource
	if k.h.w.opts.Plan.Steps == 0 {
		then(nil)
		return
	}
	r.held = true
	k.move(j, 1, then)
}

// demote takes back all that is in effect.
func (k *worker) demote(j *job, then func(error)) {
	r := &k.h.resource
	if !r.held && r.level == 0 || k.h.opts.Mutant == StayPromoted {
		then(nil)
		return
	}
	k.move(j, -1, func(err error) {
		if err != nil && !errors.Is(err, errCancelled) {
			r.stuck = true
		}
		then(err)
	})
}

// move goes step by step to one end of the plan, as a call of a Resource does.
func (k *worker) move(j *job, dir int, then func(error)) {
	k.step(j, dir, k.h.w.now+k.h.w.opts.Plan.Timeout, then)
}

func (k *worker) step(j *job, dir int, late time.Duration, then func(error)) {
	h, r, p := k.h, &k.h.resource, &k.h.w.opts.Plan
	switch {
	case j.cancelled:
		then(errCancelled)
		return
	case dir > 0 && r.level == p.Steps:
		then(nil)
		return
	case dir < 0 && r.level == 0:
		r.held, r.stuck = false, false
		then(nil)
		return
	}
	h.after(h.w.plans.in(p.MarkTime), func() {
		switch {
		case j.cancelled:
			then(errCancelled)
			return
		case dir > 0 && r.level == p.NoReturn:
			k.await(j, late, func(err error) {
				if err != nil {
					then(err)
					return
				}
				k.begun(j, dir, late, then)
			})
			return
		}
		k.begun(j, dir, late, then)
	})
}

// await waits for a permit: the first one of a mastership comes after its first advert,
// the grace and the guard.
func (k *worker) await(j *job, late time.Duration, then func(error)) {
	switch {
	case j.cancelled:
		then(errCancelled)
	case k.mayAct():
		then(nil)
	case k.h.w.now >= late:
		then(errPermit)
	default:
		k.h.after(permitPoll, func() { k.await(j, late, then) })
	}
}

const permitPoll = 20 * time.Millisecond

func (k *worker) begun(j *job, dir int, late time.Duration, then func(error)) {
	h := k.h
	h.resource.marked = h.w.now
	if h.springs(trapBeforeStep) {
		h.after(0, func() { k.run(j, dir, late, then) })
		return
	}
	k.run(j, dir, late, then)
}

// mayAct reports whether a step without return may be taken.
func (k *worker) mayAct() bool {
	return k.h.opts.Mutant == StepUnpermitted || k.h.set.live(k.h.boot())
}

// run is one step: a program that goes on though the daemon is frozen, that is ended when
// it is cancelled or the daemon dies, and that may have done its work by then.
func (k *worker) run(j *job, dir int, late time.Duration, then func(error)) {
	h, r, rng, p := k.h, &k.h.resource, k.h.w.plans, &k.h.w.opts.Plan
	text := fmt.Sprintf("promote %d", r.level)
	if dir < 0 {
		text = fmt.Sprintf("demote %d", r.level-1)
	}
	lasts := rng.in(p.StepTime)
	var fails error
	if !h.calm {
		if rng.chance(p.SlowChance) {
			lasts = rng.in(p.SlowTime)
		}
		if dir > 0 && rng.chance(p.FailChance) || dir < 0 && rng.chance(p.StuckChance) {
			fails = errStep
		}
	}
	k.hooks++
	r.stepUp = dir
	h.w.tell(Event{Kind: KindHookStart, Host: h, Text: text})
	life, over := h.life, false
	end := func(err error, works bool) func() {
		return func() {
			if over || h.life != life {
				return
			}
			over, j.cancel, r.stepUp = true, nil, 0
			if h.calm && errors.Is(err, errStep) {
				err, works = nil, true
			}
			k.hooks--
			h.w.tell(Event{Kind: KindHookEnd, Host: h, Text: text})
			if works {
				r.shift(dir)
			}
			h.after(0, func() {
				if err != nil {
					then(err)
					return
				}
				k.step(j, dir, late, then)
			})
		}
	}
	h.w.After(lasts, end(fails, fails == nil))
	stop := func(err error) {
		h.w.After(rng.in(h.w.opts.HookStopTime), end(err, rng.IntN(2) == 0))
	}
	j.cancel = func() {
		if h.opts.Mutant != TwoHooks {
			stop(errCancelled)
			return
		}
		then(errCancelled)
	}
	h.after(late-h.w.now, func() {
		if !over && !h.calm {
			stop(errTimeout)
		}
	})
}

// shift is the effect of a step.
func (r *resource) shift(dir int) {
	was := r.h.Primary()
	r.level += dir
	if is := r.h.Primary(); is != was {
		kind := KindSecondary
		if is {
			kind = KindPrimary
		}
		r.h.w.tell(Event{Kind: kind, Host: r.h, Late: r.h.stoppedAt >= r.marked})
	}
}

// lose is the end of what does not outlive the machine.
func (r *resource) lose() {
	for r.level > 0 {
		r.shift(-1)
	}
}

// settle lets go of what an earlier daemon left, and then opens the start gate.
func (k *worker) settle() {
	h := k.h
	if h.w.opts.Plan.Steps == 0 {
		return
	}
	ready := func() {
		h.resource.settled = true
		h.command(func() { h.apply(h.engine.Ready(h.now())) })
	}
	if h.opts.Mutant == Unsettled {
		h.after(0, ready)
		return
	}
	j := &job{t: carp.Transition{To: carp.Init}}
	k.busy, k.job = true, j
	var again func()
	again = func() {
		j.cancelled = false
		k.demote(j, func(err error) {
			if err != nil {
				h.after(time.Second, again)
				return
			}
			k.job, k.busy = nil, k.full
			if k.full {
				h.after(h.lateness(), k.begin)
			}
			ready()
		})
	}
	h.after(h.lateness(), again)
}

// letGoLater tries again to let go of what could not be, until it is or a newer transition
// comes.
func (k *worker) letGoLater(j *job, pause time.Duration) {
	h := k.h
	if j.cancelled || !h.resource.held || h.opts.Mutant == TriedOnce {
		k.done(j, nil)
		return
	}
	waits := true
	j.cancel = func() {
		waits = false
		h.after(0, func() { k.done(j, nil) })
	}
	h.after(pause, func() {
		if !waits {
			return
		}
		waits, j.cancel = false, nil
		k.demote(j, func(error) { k.letGoLater(j, min(2*pause, longestPause)) })
	})
}

// longestPause is between two tries to let go.
const longestPause = 30 * time.Second

// promoting and demoting are how long a plan may take on a daemon that runs, from the
// first step to the last.
func (p *Plan) longest(o *Options) time.Duration {
	return time.Duration(p.Steps)*(p.MarkTime.Max+2*o.LoopLate.Max+max(p.StepTime.Max, p.SlowTime.Max)) + o.HookStopTime.Max + slack
}
