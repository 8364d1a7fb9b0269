package hookstest

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
)

// World is a resource of one node, and what it acts on: made for the test.
type World struct {
	// Open returns a new Resource over what there is, as a daemon that starts does.
	Open func() hooks.Resource
	// Reset makes what there is healthy and demoted, as on a backup whose master has
	// just let go in order. It is called before each subtest and may take long.
	Reset func(t testing.TB)
	// Check looks at what Monitor does not: that data is there, that nothing is left
	// over. It is called whenever the resource has reached a role. nil: nothing.
	Check func(role hooks.Role) error
	// Bound is how long one call may take that is let run; 0 means 20 s.
	Bound time.Duration
}

// Resources checks that the resources of a World keep the contract of hooks.Resource:
//
//	roles      promoted and demoted, each twice; Monitor says so, and Check agrees
//	marked     a promotion marks its steps, and one of them has no return
//	crash      abandoned before each step of promotion and demotion: a new Resource can
//	           be demoted, promoted again, and demoted
//	cancelled  the same after a cancellation, which is obeyed in time
//	permit     without a permit it is not promoted, and says so
//	journal    likewise when a step cannot be recorded
//	looking    Monitor changes nothing
//	bounded    calls with an ended context return in time
func Resources(t *testing.T, w World) {
	t.Helper()
	if w.Bound == 0 {
		w.Bound = runTime
	}
	for _, c := range []struct {
		name string
		run  func(*testing.T, World)
	}{
		{"roles", roles}, {"marked", marked}, {"crash", crashes}, {"cancelled", cancels},
		{"permit", permits}, {"journal", journals}, {"looking", looking}, {"bounded", bounded},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, w) })
	}
}

// actor makes calls of resources as a Runner does, with what a journal keeps.
type actor struct {
	World
	t *testing.T

	mu     sync.Mutex
	memory map[string]string
	epoch  carp.Epoch
}

func begin(t *testing.T, w World) *actor {
	t.Helper()
	w.Reset(t)
	return &actor{World: w, t: t, memory: map[string]string{}, epoch: 40}
}

// errAbandoned is returned by a call that never comes back.
var errAbandoned = errors.New("hookstest: abandoned")

type markFunc func(ctx context.Context, step string, final bool) error

func noMark(context.Context, string, bool) error { return nil }

// act promotes or demotes, and returns errAbandoned when mark does so: then the call
// stands still for ever, as if its process had died.
func (a *actor) act(ctx context.Context, r hooks.Resource, action hooks.Action, mark markFunc) error {
	a.epoch++
	ev, call := SampleEvent(hooks.BeforeUp), r.Promote
	ev.Reason = carp.ReasonBowOut
	if action == hooks.Demotion {
		ev, call = SampleEvent(hooks.AfterDown), r.Demote
	}
	ev.Epoch = a.epoch
	dead := make(chan struct{})
	done := make(chan error, 1)
	ctx = hooks.WithMarks(ctx, hooks.Marks{
		Mark: func(ctx context.Context, step string, final bool) error {
			err := mark(ctx, step, final)
			if errors.Is(err, errAbandoned) {
				close(dead)
				select {}
			}
			return err
		},
		Remember: func(_ context.Context, key, value string) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.memory[key] = value
			return nil
		},
		Recall: func(key string) string {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.memory[key]
		},
	})
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- &brokenError{fmt.Sprintf("panicked: %v\n%s", p, debug.Stack())}
			}
		}()
		done <- call(ctx, ev)
	}()
	late := time.NewTimer(a.Bound)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-dead:
		return errAbandoned
	case <-late.C:
		return &brokenError{fmt.Sprintf("%s has not returned within %v", action, a.Bound)}
	}
}

// reach acts without trouble, and checks the role afterwards.
func (a *actor) reach(r hooks.Resource, action hooks.Action) {
	a.t.Helper()
	if err := a.act(a.t.Context(), r, action, noMark); err != nil {
		a.t.Fatalf("%s: %v", action, err)
	}
	a.is(r, after(action))
}

// after is the role that an action leads to.
func after(action hooks.Action) hooks.Role {
	if action == hooks.Promotion {
		return hooks.RolePromoted
	}
	return hooks.RoleDemoted
}

func (a *actor) role(r hooks.Resource) (hooks.Report, error) {
	ctx, cancel := context.WithTimeout(a.t.Context(), a.Bound)
	defer cancel()
	return r.Monitor(ctx)
}

func (a *actor) is(r hooks.Resource, role hooks.Role) {
	a.t.Helper()
	report, err := a.role(r)
	if err != nil || report.Role != role {
		a.t.Fatalf("it is %v (%s), error %v; want %v", report.Role, report.Text, err, role)
	}
	if a.Check == nil {
		return
	}
	if err := a.Check(role); err != nil {
		a.t.Fatalf("as %v: %v", role, err)
	}
}

func roles(t *testing.T, w World) {
	a := begin(t, w)
	r := a.Open()
	a.is(r, hooks.RoleDemoted)
	for range 2 {
		for _, action := range []hooks.Action{hooks.Demotion, hooks.Promotion, hooks.Promotion, hooks.Demotion} {
			a.reach(r, action)
		}
	}
}

// step is a mark of a plan.
type step struct {
	name  string
	final bool
}

// steps returns what an action marks, and does it.
func (a *actor) steps(r hooks.Resource, action hooks.Action) (all []step) {
	a.t.Helper()
	err := a.act(a.t.Context(), r, action, func(_ context.Context, name string, final bool) error {
		all = append(all, step{name, final})
		return nil
	})
	if err != nil {
		a.t.Fatalf("%s: %v", action, err)
	}
	return all
}

func marked(t *testing.T, w World) {
	a := begin(t, w)
	up := a.steps(a.Open(), hooks.Promotion)
	final := 0
	for _, s := range up {
		if s.final {
			final++
		}
	}
	if final == 0 {
		t.Errorf("promotion marks %v: no step without return", up)
	}
}

// at returns a mark that does something at the step with this number, from 0 on.
func at(number int, what func(ctx context.Context) error) markFunc {
	n := -1
	return func(ctx context.Context, _ string, _ bool) error {
		if n++; n == number {
			return what(ctx)
		}
		return nil
	}
}

// eachStep runs a subtest for each step of promotion and demotion. interrupt acts and is
// stopped there; what follows must be able to go on.
func eachStep(t *testing.T, w World, interrupt func(a *actor, r hooks.Resource, action hooks.Action, n int)) {
	t.Helper()
	all := map[hooks.Action][]step{}
	a := begin(t, w)
	for _, action := range []hooks.Action{hooks.Promotion, hooks.Demotion} {
		all[action] = a.steps(a.Open(), action)
	}
	for _, action := range []hooks.Action{hooks.Promotion, hooks.Demotion} {
		for n, s := range all[action] {
			for _, next := range []hooks.Action{hooks.Demotion, hooks.Promotion} {
				t.Run(fmt.Sprintf("%s/%d-%s/then-%s", action, n+1, s.name, next), func(t *testing.T) {
					a := begin(t, w)
					r := a.Open()
					if action == hooks.Demotion {
						a.reach(r, hooks.Promotion)
					}
					interrupt(a, r, action, n)
					r = a.Open()
					a.reach(r, next)
					if next == hooks.Demotion {
						a.reach(r, hooks.Promotion)
					}
					a.reach(r, hooks.Demotion)
				})
			}
		}
	}
}

func crashes(t *testing.T, w World) {
	eachStep(t, w, func(a *actor, r hooks.Resource, action hooks.Action, n int) {
		err := a.act(context.WithoutCancel(a.t.Context()), r, action, at(n, func(context.Context) error { return errAbandoned }))
		if !errors.Is(err, errAbandoned) {
			a.t.Fatalf("the step was not reached: %v", err)
		}
	})
}

func cancels(t *testing.T, w World) {
	eachStep(t, w, func(a *actor, r hooks.Resource, action hooks.Action, n int) {
		ctx, cancel := context.WithCancel(a.t.Context())
		defer cancel()
		began := time.Time{}
		err := a.act(ctx, r, action, at(n, func(ctx context.Context) error {
			cancel()
			began = time.Now()
			return ctx.Err()
		}))
		if broken, ok := err.(*brokenError); ok {
			a.t.Fatal(broken)
		}
		if took := time.Since(began); took > Patience {
			a.t.Fatalf("it took %v to return after the cancellation", took)
		}
		if err == nil && action == hooks.Promotion {
			a.t.Fatal("a cancelled promotion says that it is done")
		}
	})
}

// refused checks a promotion of which the steps that are wanted fail.
func refused(t *testing.T, w World, fails func(n int, final bool) bool) {
	t.Helper()
	a := begin(t, w)
	up := a.steps(a.Open(), hooks.Promotion)
	for n, s := range up {
		if !fails(n, s.final) {
			continue
		}
		t.Run(fmt.Sprintf("%d-%s", n+1, s.name), func(t *testing.T) {
			a := begin(t, w)
			r := a.Open()
			lost := errors.New("lost")
			if err := a.act(t.Context(), r, hooks.Promotion, at(n, func(context.Context) error { return lost })); !errors.Is(err, lost) {
				t.Errorf("promotion says %v", err)
			}
			if report, _ := a.role(r); report.Role == hooks.RolePromoted && s.final {
				t.Error("it is promoted all the same")
			}
			a.reach(a.Open(), hooks.Demotion)
		})
	}
}

func permits(t *testing.T, w World) {
	refused(t, w, func(_ int, final bool) bool { return final })
}

func journals(t *testing.T, w World) {
	refused(t, w, func(_ int, final bool) bool { return !final })
}

func looking(t *testing.T, w World) {
	a := begin(t, w)
	r := a.Open()
	for _, action := range []hooks.Action{hooks.Demotion, hooks.Promotion} {
		a.reach(r, action)
		for range 3 {
			if report, err := a.role(r); err != nil || report.Role != after(action) {
				t.Errorf("some looks after %s it says %+v (%v)", action, report, err)
			}
		}
	}
	a.reach(r, hooks.Demotion)
}

func bounded(t *testing.T, w World) {
	a := begin(t, w)
	r := a.Open()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"Promote": func() error { return a.act(ended, r, hooks.Promotion, noMark) },
		"Demote":  func() error { return a.act(ended, r, hooks.Demotion, noMark) },
		"Monitor": func() error { _, err := r.Monitor(ended); return err },
	} {
		began := time.Now()
		err := call()
		if took := time.Since(began); took > Patience {
			t.Errorf("%s with an ended context took %v", name, took)
		}
		if broken, ok := err.(*brokenError); ok {
			t.Errorf("%s: %v", name, broken)
		}
	}
	a.reach(a.Open(), hooks.Demotion)
}
