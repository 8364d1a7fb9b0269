package hooks_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/hooks"
)

// looker is a Monitor made of a function.
type looker func(ctx context.Context) (hooks.Report, error)

func (l looker) Monitor(ctx context.Context) (hooks.Report, error) { return l(ctx) }

// waker is a looker that wakes.
type waker struct {
	looker
	wake func(ctx context.Context, look func())
}

func (w waker) Wake(ctx context.Context, look func()) { w.wake(ctx, look) }

// verdicts collects what Watch comes to.
type verdicts struct {
	mu  sync.Mutex
	all []hooks.Verdict
}

func (v *verdicts) judge(one hooks.Verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all = append(v.all, one)
}

func (v *verdicts) words() (words []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, one := range v.all {
		word := fmt.Sprintf("%v/%d", one.Health, one.Weight)
		if one.Apart {
			word += " apart"
		}
		words = append(words, word)
	}
	return words
}

// watching watches the steps in a bubble for as long as while runs.
func watching(t *testing.T, steps []hooks.Step, o hooks.Options, while func(r *hooks.Runner, v *verdicts)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var v verdicts
		o.Judge = v.judge
		r, err := hooks.NewRunner(steps, o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var ended sync.WaitGroup
		ended.Go(func() { r.Watch(ctx) })
		while(r, &v)
		stop()
		ended.Wait()
		after(2 * time.Hour) // for what was left behind
	})
}

// until waits in the bubble for somebody else.
func until(is *atomic.Bool) {
	for !is.Load() {
		<-time.After(10 * time.Millisecond)
	}
}

// after waits in the bubble, and for all that is due then.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func monitorStep(m hooks.Monitor, w hooks.Watch) hooks.Step {
	return hooks.Step{Name: "m", Kind: "test", Monitor: m, Watch: w}
}

func TestWatchTellsTheFirstLookAndEachChange(t *testing.T) {
	looks := []hooks.Report{
		{}, {}, {Health: hooks.Degraded}, {Health: hooks.Degraded, Weight: 7}, {Health: hooks.Degraded, Weight: 7}, {Health: hooks.Unfit}, {},
	}
	n := 0
	m := looker(func(context.Context) (hooks.Report, error) {
		n++
		return looks[min(n-1, len(looks)-1)], nil
	})
	watching(t, []hooks.Step{monitorStep(m, hooks.Watch{Interval: time.Second, Weight: 60})}, hooks.Options{}, func(r *hooks.Runner, v *verdicts) {
		synctest.Wait()
		if got := v.words(); !slices.Equal(got, []string{"ok/0"}) {
			t.Fatalf("at once: %v", got)
		}
		after(10*time.Second + time.Millisecond)
		if got, want := v.words(), []string{"ok/0", "degraded/60", "degraded/7", "unfit/0", "ok/0"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if n != 11 {
			t.Errorf("%d looks in ten seconds, want 11", n)
		}
	})
}

func TestMonitorThatHangsIsUnfitAndCalledOnce(t *testing.T) {
	var calls, running, most atomic.Int32
	var release atomic.Bool
	m := looker(func(context.Context) (hooks.Report, error) {
		calls.Add(1)
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		until(&release) // whatever its context says
		return hooks.Report{}, nil
	})
	watching(t, []hooks.Step{monitorStep(m, hooks.Watch{Interval: time.Second, Timeout: 2 * time.Second})}, hooks.Options{}, func(r *hooks.Runner, v *verdicts) {
		after(2*time.Second + hooks.CancelGrace)
		if got := v.words(); !slices.Equal(got, []string{"unfit/0"}) {
			t.Fatalf("%v", got)
		}
		after(time.Minute)
		if calls.Load() != 1 {
			t.Errorf("%d calls of one that does not return", calls.Load())
		}
		if st := r.Status()[0]; !strings.Contains(st.Blind, "has not ended yet") || st.Graded != hooks.Unfit {
			t.Errorf("%+v", st)
		}
		release.Store(true)
		after(2 * time.Second)
		if got := v.words(); !slices.Equal(got, []string{"unfit/0", "ok/0"}) || most.Load() != 1 {
			t.Errorf("%v, %d at once", got, most.Load())
		}
	})
}

func TestLookThatTakesTooLongIsABadOne(t *testing.T) {
	var slow atomic.Bool
	slow.Store(true)
	m := looker(func(ctx context.Context) (hooks.Report, error) {
		if slow.Load() {
			<-ctx.Done()
			return hooks.Report{}, ctx.Err()
		}
		return hooks.Report{}, nil
	})
	watching(t, []hooks.Step{monitorStep(m, hooks.Watch{Interval: time.Second, Timeout: 3 * time.Second, Fall: 1})}, hooks.Options{}, func(r *hooks.Runner, v *verdicts) {
		after(3 * time.Second)
		if got := v.words(); !slices.Equal(got, []string{"unfit/0"}) {
			t.Errorf("%v", got)
		}
		if st := r.Status()[0]; !strings.Contains(st.Blind, "3s") {
			t.Errorf("%q", st.Blind)
		}
		slow.Store(false)
		after(5 * time.Second)
		if got := v.words(); !slices.Equal(got, []string{"unfit/0", "ok/0"}) {
			t.Errorf("%v", got)
		}
	})
}

func TestMonitorThatPanicsIsUnfit(t *testing.T) {
	m := looker(func(context.Context) (hooks.Report, error) { panic("at the monitor") })
	watching(t, []hooks.Step{monitorStep(m, hooks.Watch{})}, hooks.Options{}, func(r *hooks.Runner, v *verdicts) {
		synctest.Wait()
		if got := v.words(); !slices.Equal(got, []string{"unfit/0"}) || !strings.Contains(v.all[0].Text, "panic") {
			t.Errorf("%v: %+v", got, v.all)
		}
	})
}

func TestWakerIsLookedAtAtOnce(t *testing.T) {
	var health atomic.Int32
	var wake func()
	m := waker{
		func(context.Context) (hooks.Report, error) {
			return hooks.Report{Health: hooks.Health(health.Load())}, nil
		},
		func(ctx context.Context, look func()) { wake = look; <-ctx.Done() },
	}
	watching(t, []hooks.Step{monitorStep(m, hooks.Watch{Interval: time.Minute})}, hooks.Options{}, func(r *hooks.Runner, v *verdicts) {
		after(time.Second)
		health.Store(int32(hooks.Unfit))
		wake()
		after(50 * time.Millisecond)
		if got := v.words(); !slices.Equal(got, []string{"ok/0", "unfit/0"}) {
			t.Fatalf("%v", got)
		}
		health.Store(int32(hooks.Healthy))
		wake()
		after(10 * time.Second)
		if got := v.words(); len(got) != 2 {
			t.Fatalf("better before the interval: %v", got)
		}
		after(time.Minute)
		if got := v.words(); !slices.Equal(got, []string{"ok/0", "unfit/0", "ok/0"}) {
			t.Errorf("%v", got)
		}
	})
}

func TestFloodOfWakesCostsNoMoreThanATenth(t *testing.T) {
	for took, most := range map[time.Duration]int{0: 201, 20 * time.Millisecond: 51} {
		n := 0
		m := waker{
			func(context.Context) (hooks.Report, error) { n++; <-time.After(took); return hooks.Report{}, nil },
			func(ctx context.Context, look func()) {
				for ctx.Err() == nil {
					look()
					<-time.After(time.Millisecond)
				}
			},
		}
		watching(t, []hooks.Step{monitorStep(m, hooks.Watch{Interval: time.Minute})}, hooks.Options{}, func(*hooks.Runner, *verdicts) {
			after(10 * time.Second)
			if n > most || n < most/2 {
				t.Errorf("%d looks of %v in ten seconds, want up to %d", n, took, most)
			}
		})
	}
}

func TestWakeThatFailsLeavesTheInterval(t *testing.T) {
	for name, wake := range map[string]func(context.Context, func()){
		"returns": func(context.Context, func()) {},
		"panics":  func(context.Context, func()) { panic("at the waker") },
		"never ends": func(context.Context, func()) {
			<-time.After(time.Hour)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			m := waker{func(context.Context) (hooks.Report, error) { n++; return hooks.Report{}, nil }, wake}
			watching(t, []hooks.Step{monitorStep(m, hooks.Watch{Interval: time.Second})}, hooks.Options{}, func(*hooks.Runner, *verdicts) {
				after(10*time.Second + time.Millisecond)
				if n != 11 {
					t.Errorf("%d looks, want 11", n)
				}
			})
		})
	}
}

// slowResource is one whose next look may take as long as it is let.
type slowResource struct {
	role    atomic.Int32
	slow    atomic.Bool
	looking atomic.Int32
	worst   atomic.Int32
}

func resourceIn(role hooks.Role) *slowResource {
	s := &slowResource{}
	s.role.Store(int32(role))
	return s
}

func (s *slowResource) enter() (leave func()) {
	s.worst.Store(max(s.worst.Load(), s.looking.Add(1)))
	return func() { s.looking.Add(-1) }
}

func (s *slowResource) Promote(context.Context, hooks.Event) error {
	defer s.enter()()
	s.role.Store(int32(hooks.RolePromoted))
	return nil
}

func (s *slowResource) Demote(context.Context, hooks.Event) error {
	defer s.enter()()
	s.role.Store(int32(hooks.RoleDemoted))
	return nil
}

func (s *slowResource) Monitor(ctx context.Context) (hooks.Report, error) {
	defer s.enter()()
	if s.slow.Swap(false) { // what the runner looks at itself is quick
		<-ctx.Done()
		return hooks.Report{}, ctx.Err()
	}
	return hooks.Report{Role: hooks.Role(s.role.Load())}, nil
}

func journalled(t *testing.T) hooks.Options {
	t.Helper()
	j, err := hooks.OpenJournal(filepath.Join(t.TempDir(), "journal"), "boot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return hooks.Options{Journal: j}
}

func TestMoveOfAResourceDoesNotWaitForALook(t *testing.T) {
	s := resourceIn(hooks.RoleDemoted)
	step := hooks.Step{Name: "r", Kind: "test", Resource: s, Watch: hooks.Watch{Interval: time.Second, Timeout: time.Minute}}
	watching(t, []hooks.Step{step}, journalled(t), func(r *hooks.Runner, v *verdicts) {
		after(time.Millisecond)
		for n, move := range []func() error{
			func() error { return r.Run(context.Background(), hooks.BeforeUp, hooks.Event{Epoch: 1}) },
			func() error { return r.Demote(context.Background(), hooks.Event{Epoch: 1}) },
		} {
			s.slow.Store(true)
			after(1100 * time.Millisecond) // it is being looked at, for a minute
			if s.looking.Load() != 1 {
				t.Fatalf("move %d: %d looks", n, s.looking.Load())
			}
			began := time.Now()
			if err := move(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Errorf("move %d waited %v for a look", n, took)
			}
		}
		if s.worst.Load() != 1 {
			t.Errorf("%d calls at the same time", s.worst.Load())
		}
		if got := v.words(); !slices.Equal(got, []string{"ok/0"}) {
			t.Errorf("a look that was cancelled counts: %v", got)
		}
		if st := r.Status()[0]; st.Blind != "" {
			t.Errorf("%q", st.Blind)
		}
	})
}

func TestMoveWaitsForALookThatIgnoresItsEnd(t *testing.T) {
	s := resourceIn(hooks.RoleDemoted)
	stuck := &stuckLook{slowResource: s}
	step := hooks.Step{Name: "r", Kind: "test", Resource: stuck, Timeout: time.Minute, Watch: hooks.Watch{Interval: time.Second, Timeout: time.Second}}
	watching(t, []hooks.Step{step}, journalled(t), func(r *hooks.Runner, v *verdicts) {
		after(time.Second + hooks.CancelGrace + time.Millisecond) // left behind
		go func() {
			<-time.After(10 * time.Second)
			stuck.release.Store(true)
		}()
		if err := r.Run(context.Background(), hooks.BeforeUp, hooks.Event{Epoch: 1}); err != nil {
			t.Fatal(err)
		}
		if s.worst.Load() != 1 {
			t.Errorf("%d calls at the same time", s.worst.Load())
		}
	})
}

// stuckLook is one whose first look ends when it is let.
type stuckLook struct {
	*slowResource
	release atomic.Bool
	looked  atomic.Bool
}

func (s *stuckLook) Monitor(ctx context.Context) (hooks.Report, error) {
	defer s.enter()()
	if !s.looked.Swap(true) {
		until(&s.release)
		return hooks.Report{}, errors.New("too late")
	}
	return hooks.Report{Role: hooks.Role(s.role.Load())}, nil
}

func TestRoleThatIsNotTheNodesIsToldAfterItsGrace(t *testing.T) {
	s := resourceIn(hooks.RolePromoted)
	step := hooks.Step{Name: "r", Kind: "test", Resource: s, Watch: hooks.Watch{Interval: time.Second, Grace: 5 * time.Second}}
	watching(t, []hooks.Step{step}, journalled(t), func(r *hooks.Runner, v *verdicts) {
		after(4500 * time.Millisecond)
		if got := v.words(); !slices.Equal(got, []string{"ok/0"}) {
			t.Fatalf("within its grace: %v", got)
		}
		after(time.Second)
		if got := v.words(); !slices.Equal(got, []string{"ok/0", "ok/0 apart"}) {
			t.Fatalf("after it: %v", got)
		}
		s.role.Store(int32(hooks.RoleDemoted))
		after(time.Second)
		if got := v.words(); !slices.Equal(got, []string{"ok/0", "ok/0 apart", "ok/0"}) {
			t.Errorf("as it should be: %v", got)
		}
	})
}

func TestWatchEndsWithItsContextAndLooksNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		m := looker(func(context.Context) (hooks.Report, error) { n++; return hooks.Report{}, nil })
		r := newRunner(t, monitorStep(m, hooks.Watch{Interval: time.Second}))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { r.Watch(ctx); close(ended) }()
		after(2500 * time.Millisecond)
		stop()
		<-ended
		if after(time.Minute); n != 3 {
			t.Errorf("%d looks, want 3", n)
		}
	})
}
