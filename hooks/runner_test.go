package hooks_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/hooks"
)

// hookFunc makes a hook of a function.
type hookFunc func(ctx context.Context, ev hooks.Event) error

func (f hookFunc) Run(ctx context.Context, ev hooks.Event) error { return f(ctx, ev) }

// diary collects what ran, in order.
type diary struct{ lines []string }

func (d *diary) step(name string, phase hooks.Phase, err error) hooks.Step {
	return hooks.Step{Name: name, Kind: "test", Phase: phase, Hook: hookFunc(func(context.Context, hooks.Event) error {
		d.lines = append(d.lines, name)
		return err
	})}
}

func newRunner(t *testing.T, steps ...hooks.Step) *hooks.Runner {
	t.Helper()
	r, err := hooks.NewRunner(steps, hooks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestStepsRunInOrderGoingUpAndInReverseGoingDown(t *testing.T) {
	var d diary
	var steps []hooks.Step
	for _, p := range []hooks.Phase{hooks.BeforeUp, hooks.AfterUp, hooks.BeforeDown, hooks.AfterDown} {
		for _, n := range []string{"a", "b", "c"} {
			steps = append(steps, d.step(n+" "+p.String(), p, nil))
		}
	}
	r := newRunner(t, steps...)
	for phase, want := range map[hooks.Phase]string{
		hooks.BeforeUp:   "a before-up|b before-up|c before-up",
		hooks.AfterUp:    "a after-up|b after-up|c after-up",
		hooks.BeforeDown: "c before-down|b before-down|a before-down",
		hooks.AfterDown:  "c after-down|b after-down|a after-down",
	} {
		d.lines = nil
		if err := r.Run(t.Context(), phase, hooks.Event{}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(d.lines, "|"); got != want {
			t.Errorf("%v ran %s, want %s", phase, got, want)
		}
	}
}

func TestPolicyDecidesWhetherTheRestRunsAndWhatIsReturned(t *testing.T) {
	bad := errors.New("broken")
	for _, tc := range []struct {
		phase    hooks.Phase
		policies []hooks.Policy // of failing steps; a good step follows
		ran      int
		want     hooks.Policy // PhaseDefault: no error
	}{
		{hooks.BeforeUp, []hooks.Policy{hooks.PhaseDefault}, 1, hooks.Retreat},
		{hooks.BeforeUp, []hooks.Policy{hooks.Continue}, 2, hooks.PhaseDefault},
		{hooks.AfterUp, []hooks.Policy{hooks.PhaseDefault}, 2, hooks.PhaseDefault},
		{hooks.AfterUp, []hooks.Policy{hooks.Demote}, 2, hooks.Demote},
		{hooks.AfterUp, []hooks.Policy{hooks.Demote, hooks.Continue}, 3, hooks.Demote},
		{hooks.AfterUp, []hooks.Policy{hooks.Demote, hooks.Retreat}, 2, hooks.Retreat},
		{hooks.BeforeDown, []hooks.Policy{hooks.PhaseDefault}, 2, hooks.PhaseDefault},
		{hooks.AfterDown, []hooks.Policy{hooks.PhaseDefault}, 2, hooks.Alarm},
	} {
		t.Run(fmt.Sprint(tc.phase, tc.policies), func(t *testing.T) {
			var d diary
			var steps []hooks.Step
			for i, p := range tc.policies {
				s := d.step(fmt.Sprint("bad", i), tc.phase, bad)
				s.OnFailure = p
				steps = append(steps, s)
			}
			steps = append(steps, d.step("good", tc.phase, nil))
			if tc.phase.Down() {
				slices.Reverse(steps)
			}
			err := newRunner(t, steps...).Run(t.Context(), tc.phase, hooks.Event{})
			if len(d.lines) != tc.ran {
				t.Errorf("ran %v, want %d steps", d.lines, tc.ran)
			}
			var se *hooks.StepError
			switch {
			case tc.want == hooks.PhaseDefault && err != nil:
				t.Errorf("got %v, want no error", err)
			case tc.want != hooks.PhaseDefault && (!errors.As(err, &se) || se.Policy != tc.want || !errors.Is(err, bad)):
				t.Errorf("got %v, want a StepError with policy %v", err, tc.want)
			}
		})
	}
}

func TestStepIsEndedAtItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r := newRunner(t, hooks.Step{
			Name: "slow", Kind: "test", Phase: hooks.BeforeUp, Timeout: 3 * time.Second,
			Hook: hookFunc(func(ctx context.Context, _ hooks.Event) error { <-ctx.Done(); return ctx.Err() }),
		})
		err := r.Run(t.Context(), hooks.BeforeUp, hooks.Event{})
		var se *hooks.StepError
		if !errors.As(err, &se) || !strings.Contains(err.Error(), "timeout of 3s") {
			t.Errorf("got %v, want a StepError that names the timeout", err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %v, want 3s", took)
		}
	})
}

func TestStepWithoutTimeoutGetsTheDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left time.Duration
		r := newRunner(t, hooks.Step{
			Name: "s", Phase: hooks.AfterUp,
			Hook: hookFunc(func(ctx context.Context, _ hooks.Event) error {
				end, _ := ctx.Deadline()
				left = time.Until(end)
				return nil
			}),
		})
		if err := r.Run(t.Context(), hooks.AfterUp, hooks.Event{}); err != nil || left != hooks.DefaultTimeout {
			t.Errorf("deadline in %v (%v), want %v", left, err, hooks.DefaultTimeout)
		}
	})
}

func TestNewerTransitionStopsTheRunningHookAndSkipsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		ctx, cancel := context.WithCancel(t.Context())
		running := hooks.Step{Name: "running", Kind: "test", Phase: hooks.BeforeUp,
			Hook: hookFunc(func(ctx context.Context, _ hooks.Event) error { <-ctx.Done(); return ctx.Err() })}
		r := newRunner(t, running, d.step("next", hooks.BeforeUp, nil))
		done := make(chan error)
		go func() { done <- r.Run(ctx, hooks.BeforeUp, hooks.Event{}) }()
		synctest.Wait()
		if got := r.Status()[0].State; got != hooks.Running {
			t.Errorf("state %q while it runs", got)
		}
		cancel()
		err := <-done
		var se *hooks.StepError
		if !errors.Is(err, context.Canceled) || errors.As(err, &se) {
			t.Errorf("got %v, want a plain cancellation: a policy must not act on it", err)
		}
		if len(d.lines) != 0 {
			t.Errorf("ran %v after the cancellation", d.lines)
		}
		if got := r.Status(); got[0].State != hooks.Failed || got[1].State != hooks.Idle {
			t.Errorf("status %v", got)
		}
	})
}

func TestHookThatIgnoresItsContextIsLeftBehindAndNotStartedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		release := make(chan struct{})
		r := newRunner(t, hooks.Step{
			Name: "deaf", Kind: "test", Phase: hooks.AfterUp, Timeout: time.Second, OnFailure: hooks.Demote,
			Hook: hookFunc(func(context.Context, hooks.Event) error { calls.Add(1); <-release; return nil }),
		})
		start := time.Now()
		if err := r.Run(t.Context(), hooks.AfterUp, hooks.Event{}); err == nil {
			t.Error("no error of a hook that did not return")
		}
		if took := time.Since(start); took != time.Second+hooks.CancelGrace {
			t.Errorf("took %v", took)
		}
		if err := r.Run(t.Context(), hooks.AfterUp, hooks.Event{}); err == nil || calls.Load() != 1 {
			t.Errorf("second call: %v, %d calls at once", err, calls.Load())
		}
		close(release)
		synctest.Wait()
		if err := r.Run(t.Context(), hooks.AfterUp, hooks.Event{}); err != nil || calls.Load() != 2 {
			t.Errorf("after the old call ended: %v, %d calls", err, calls.Load())
		}
	})
}

func TestTwoPhasesOfOneRunnerNeverOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := 0
		slow := hookFunc(func(context.Context, hooks.Event) error {
			if busy++; busy > 1 {
				t.Error("two steps at once")
			}
			<-time.After(time.Second) // in the bubble: the other Run gets its chance
			busy--
			return nil
		})
		r := newRunner(t,
			hooks.Step{Name: "up", Phase: hooks.AfterUp, Hook: slow},
			hooks.Step{Name: "down", Phase: hooks.AfterDown, Hook: slow})
		done := make(chan error)
		for _, p := range []hooks.Phase{hooks.AfterUp, hooks.AfterDown} {
			go func() { done <- r.Run(t.Context(), p, hooks.Event{}) }()
		}
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
		// A Run that waits for its turn gives up when it is passed over.
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- r.Run(t.Context(), hooks.AfterUp, hooks.Event{}) }()
		synctest.Wait()
		go func() { done <- r.Run(ctx, hooks.AfterDown, hooks.Event{}) }()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("waiting Run returned %v", err)
		}
		<-done
	})
}

func TestPanicOfAHookIsItsFailure(t *testing.T) {
	r := newRunner(t, hooks.Step{Name: "p", Phase: hooks.BeforeUp,
		Hook: hookFunc(func(context.Context, hooks.Event) error { panic("no such map") })})
	err := r.Run(t.Context(), hooks.BeforeUp, hooks.Event{})
	if err == nil || !strings.Contains(err.Error(), "panic: no such map") {
		t.Errorf("got %v", err)
	}
}

func TestObserverSeesEveryRunAndHooksSeeTheirPhase(t *testing.T) {
	var seen []string
	note := hookFunc(func(ctx context.Context, ev hooks.Event) error {
		hooks.Logger(ctx).Info("here")
		if ev.Phase == hooks.BeforeDown {
			return errors.New("no")
		}
		return nil
	})
	r, err := hooks.NewRunner([]hooks.Step{
		{Name: "u", Phase: hooks.AfterUp, Hook: note},
		{Name: "d", Phase: hooks.BeforeDown, Hook: note},
	}, hooks.Options{Observe: func(res hooks.Result) {
		seen = append(seen, fmt.Sprint(res.Step.Name, " ", res.Event.Phase, " ", res.Err))
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []hooks.Phase{hooks.AfterUp, hooks.BeforeDown} {
		if err := r.Run(t.Context(), p, hooks.Event{}); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"u after-up <nil>", "d before-down no"}; !slices.Equal(seen, want) {
		t.Errorf("observed %q, want %q", seen, want)
	}
	if s := r.Status(); s[0].State != hooks.OK || s[1].State != hooks.Failed || s[1].Error != "no" {
		t.Errorf("status %+v", s)
	}
}

func TestPlanThatCannotWorkIsRefusedWithAllItsFaults(t *testing.T) {
	ok := hookFunc(func(context.Context, hooks.Event) error { return nil })
	_, err := hooks.NewRunner([]hooks.Step{
		{Name: "", Hook: ok},
		{Name: "nohook"},
		{Name: "phase", Hook: ok, Phase: 9},
		{Name: "long", Hook: ok, Timeout: 2 * time.Hour},
		{Name: "late", Hook: ok, Phase: hooks.AfterDown, OnFailure: hooks.Retreat},
		{Name: "gate", Hook: ok, Phase: hooks.BeforeUp, OnFailure: hooks.Alarm},
		{Name: "fine", Hook: ok},
	}, hooks.Options{})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"name is empty", "no hook", "phase", "timeout 2h", "retreat cannot be carried out", "alarm cannot be carried out"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "fine") {
		t.Errorf("complains about a good step: %v", err)
	}
}
