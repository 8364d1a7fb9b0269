package sim

import (
	"errors"
	"time"

	"github.com/carpd/carpd/carp"
)

// worker carries out transitions, one at a time, as carp.Speaker and the daemon's
// Handler do: the newest wins, those between are skipped, a newer one cancels.
type worker struct {
	h       *Host
	full    bool
	busy    bool
	next    carp.Transition
	job     *job
	holding bool          // the address may be up
	owing   bool          // after-down has not run since
	passed  time.Duration // began the mastership whose gate was passed; 0: none
	hooks   int           // hooks that run
}

// job is one run of the handler.
type job struct {
	t         carp.Transition
	cancelled bool
	cancel    func() // stops what runs; nil if nothing can be stopped
}

var (
	errCancelled  = errors.New("sim: cancelled by a newer transition")
	errHook       = errors.New("sim: the hook failed")
	errKernel     = errors.New("sim: the kernel refused")
	errLapsed     = errors.New("sim: no permit")
	errSuperseded = errors.New("sim: superseded")
)

// put is the mailbox: it replaces what waits and cancels what runs.
func (k *worker) put(t carp.Transition) {
	if k.full && k.h.opts.Mutant == OldestWins {
		return
	}
	k.full, k.next = true, t
	if k.job != nil {
		k.job.cancelled = true
		if stop := k.job.cancel; stop != nil {
			k.job.cancel = nil
			stop()
		}
	}
	if !k.busy {
		k.busy = true
		k.h.after(k.h.lateness(), k.begin)
	}
}

func (k *worker) begin() {
	j := &job{t: k.next}
	k.full, k.job = false, j
	if j.t.To == carp.Master {
		k.up(j)
	} else {
		k.down(j)
	}
}

// done ends a job and tells the loop, as Speaker.work does.
func (k *worker) done(j *job, err error) {
	h := k.h
	switch {
	case j.t.To == carp.Master && err != nil && k.h.opts.Mutant == FailureUntold:
	case j.t.To == carp.Master && err != nil && !j.cancelled:
		h.command(func() { h.apply(h.engine.Failed(h.now(), j.t.Epoch)) })
	case j.t.To != carp.Master:
		k.released(j.t, err)
	}
	k.job = nil
	if k.full {
		h.after(h.lateness(), k.begin)
		return
	}
	k.busy = false
}

func (k *worker) released(t carp.Transition, err error) {
	h := k.h
	h.command(func() {
		if t == h.latest {
			h.apply(h.engine.Released(h.now(), err))
		}
	})
}

// up: gates, addresses, hooks after.
func (k *worker) up(j *job) {
	k.holding, k.owing = true, true
	place := func() {
		k.h.set.up(j, func(err error) {
			if err != nil {
				k.undo(j, err)
				return
			}
			k.hook(j, "after-up", func(error) { k.done(j, nil) })
		})
	}
	regate, began := k.h.w.opts.Plan.Steps > 0 && j.t.From == carp.Master, k.h.promoted
	if k.passed == began && !regate || k.h.opts.Mutant == GateOnce && k.passed != 0 {
		place() // a contest finds the gates passed already
		return
	}
	k.hook(j, "before-up", func(err error) {
		if err != nil {
			k.undo(j, err)
			return
		}
		gated := func(err error) {
			if err != nil {
				k.undo(j, err)
				return
			}
			k.passed = began
			place()
		}
		if k.h.opts.Mutant == AddressFirst {
			gated(nil)
			return
		}
		k.promote(j, gated)
	})
}

func (k *worker) undo(j *job, err error) {
	if j.cancelled {
		k.done(j, err) // the newer transition continues from here
		return
	}
	k.h.set.setPermit(carp.Permit{})
	k.h.set.down(func(downErr error) {
		k.holding, k.passed = downErr != nil, 0
		k.demote(j, func(error) {
			k.afterDown(j, func() { k.done(j, err) })
		})
	})
}

// down: addresses first, then the answer, then the hooks.
func (k *worker) down(j *job) {
	if j.t.To == carp.Releasing {
		k.hook(j, "before-down", func(error) { // its failure must not keep the address
			k.passed = 0
			k.lower(j, func(err error) {
				if k.h.opts.Mutant == BowOutFirst {
					k.released(j.t, err)
				}
				k.demote(j, func(stuck error) { k.done(j, errors.Join(err, stuck)) })
			})
		})
		return
	}
	if k.h.opts.Mutant != GateOnce {
		k.passed = 0
	}
	if k.h.opts.Mutant == ReleasedEarly {
		k.released(j.t, nil)
	}
	k.lower(j, func(err error) {
		if err != nil {
			k.demote(j, func(stuck error) { k.done(j, errors.Join(err, stuck)) })
			return
		}
		k.released(j.t, nil)
		k.demote(j, func(error) {
			k.afterDown(j, func() {
				if j.t.To == carp.Backup {
					k.letGoLater(j, time.Second)
					return
				}
				k.done(j, nil)
			})
		})
	})
}

func (k *worker) lower(j *job, then func(error)) {
	if !k.holding {
		then(nil)
		return
	}
	if k.h.opts.Mutant == ReleasedEarly {
		k.released(j.t, nil)
	}
	k.h.set.down(func(err error) {
		k.holding = err != nil
		then(err)
	})
}

func (k *worker) afterDown(j *job, then func()) {
	if !k.owing {
		then()
		return
	}
	k.hook(j, "after-down", func(error) {
		if !j.cancelled {
			k.owing = false
		}
		then()
	})
}

// hook runs the hooks of one phase for a drawn time. A cancelled one ends soon
// after, and is waited for.
func (k *worker) hook(j *job, phase string, then func(error)) {
	h, o, rng := k.h, &k.h.w.opts, k.h.w.work
	if o.HookTime == (Range{}) && o.HookSlowChance == 0 && o.HookFailChance == 0 {
		if j.cancelled {
			then(errCancelled)
			return
		}
		then(nil)
		return
	}
	lasts := rng.in(o.HookTime)
	var err error
	if !h.calm {
		if rng.chance(o.HookSlowChance) {
			lasts = rng.in(o.HookSlowTime)
		}
		if rng.chance(o.HookFailChance) {
			err = errHook
		}
	}
	if j.cancelled {
		then(errCancelled)
		return
	}
	k.hooks++
	h.w.tell(Event{Kind: KindHookStart, Host: h, Text: phase})
	life, over := h.life, false
	end := func(err error) func() {
		return func() { // the process ends by itself, frozen or not; the daemon hears of it
			if over || h.life != life {
				return
			}
			over, j.cancel = true, nil
			k.hooks--
			h.w.tell(Event{Kind: KindHookEnd, Host: h, Text: phase})
			h.after(0, func() { then(err) })
		}
	}
	h.w.After(lasts, end(err))
	j.cancel = func() {
		if h.opts.Mutant == TwoHooks {
			then(errCancelled)
			return
		}
		h.w.After(rng.in(o.HookStopTime), end(errCancelled))
	}
}

// hurry ends the hooks that run, at the end of all faults.
func (k *worker) hurry() {
	if k.h.w.opts.Plan.Steps == 0 && k.job != nil && k.job.cancel != nil {
		stop := k.job.cancel
		k.job.cancel = nil
		stop()
	}
}

// abandon is the end of the daemon: its hooks are killed with it. A step of a plan may
// have done its work.
func (k *worker) abandon() {
	if r := &k.h.resource; r.stepUp != 0 {
		if k.h.w.plans.IntN(2) == 0 {
			r.shift(r.stepUp)
		}
		r.stepUp = 0
	}
	if k.hooks > 0 {
		k.h.w.tell(Event{Kind: KindHookEnd, Host: k.h, Text: "killed"})
	}
}

// How often, and after which pauses, an address is tried to be taken off: the
// pause doubles each time; then the set's own worker tries each second.
const (
	clearTries = 5
	clearPause = 20 * time.Millisecond
	clearAgain = time.Second
)
