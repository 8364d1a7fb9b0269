package hooks

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A step past the point of no return is not taken without a live permit, at whichever of
// them it is lost; what is undone afterwards needs none.
func TestLostPermitStopsBeforeTheStepThatHasNoReturn(t *testing.T) {
	lost := errors.New("the permit has ended")
	for n, want := range []string{"fence", "fence|reset", "fence|reset|open|serve"} {
		path := filepath.Join(t.TempDir(), "journal")
		synctest.Test(t, func(t *testing.T) {
			th, asked := newThing("x"), 0
			r := runner(t, path, Options{Permit: func() error {
				if asked++; asked > n {
					return lost
				}
				return nil
			}}, th.resource())
			err := r.Run(t.Context(), BeforeUp, withEpoch(1))
			if errors.Is(err, lost) != (n < 2) || n < 2 && !strings.Contains(err.Error(), "before ") {
				t.Errorf("permit for %d steps: %v", n, err)
			}
			if got := strings.ReplaceAll(th.world.written(), "x ", ""); got != want {
				t.Errorf("permit for %d steps: %q was done, want %q", n, got, want)
			}
			if err := r.Demote(t.Context(), withEpoch(1)); err != nil {
				t.Error(err)
			}
			mustBe(t, RoleDemoted, th)
		})
	}
}

// The first permit of a mastership comes after the grace and the guard: a step without
// return waits for it, and a newer transition ends the waiting.
func TestStepWithoutReturnWaitsForItsFirstPermit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	synctest.Test(t, func(t *testing.T) {
		th, begun, never := newThing("x"), time.Now(), false
		r := runner(t, path, Options{Permit: func() error {
			if never || time.Since(begun) < 3*time.Second {
				return errors.New("there is no permit")
			}
			return nil
		}}, th.resource())
		if err := r.Run(t.Context(), BeforeUp, withEpoch(1)); err != nil || time.Since(begun) > 3*time.Second+permitPoll {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		mustBe(t, RolePromoted, th)
		never = true
		if err := r.Demote(t.Context(), withEpoch(1)); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := r.Run(ctx, BeforeUp, withEpoch(2)); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if th.world.opened {
			t.Error("the step was taken without a permit")
		}
	})
}

// A step without return that takes longer than its permit is cancelled when that ends, also
// where the node stays master: its adverts cannot be sent, and another one may be elected.
// With the next permit it is begun again.
func TestStepWithoutReturnIsCancelledWhenItsPermitEnds(t *testing.T) {
	for _, c := range []struct {
		step      string
		guarded   bool
		permanent bool // there is no other permit
	}{{"open", true, false}, {"reset", true, false}, {"reset", true, true}, {"serve", false, true}, {"fence", false, false}} {
		t.Run(fmt.Sprint(c.step, " ", c.permanent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				th := newThing("x")
				var ended atomic.Bool
				lost := errors.New("the permit has ended")
				var calls, cancelledAfter = 0, time.Duration(-1)
				th.step = func(ctx context.Context, _, at string) error {
					if at != c.step {
						return nil
					}
					if calls++; calls > 1 {
						return nil
					}
					ended.Store(true)
					began := time.Now()
					select {
					case <-ctx.Done():
						cancelledAfter = time.Since(began)
						if !c.permanent {
							time.AfterFunc(time.Second, func() { ended.Store(false) })
						}
						return ctx.Err()
					case <-time.After(2 * time.Second):
						ended.Store(c.permanent)
						return nil
					}
				}
				r := runner(t, filepath.Join(t.TempDir(), "journal"), Options{Permit: func() error {
					if ended.Load() {
						return lost
					}
					return nil
				}}, th.resource())
				err := r.Run(t.Context(), BeforeUp, withEpoch(1))
				switch {
				case !c.guarded:
					if err != nil || cancelledAfter >= 0 {
						t.Errorf("%s, which needs no permit: cancelled after %v: %v", c.step, cancelledAfter, err)
					}
					return
				case cancelledAfter < 0 || cancelledAfter > permitPoll:
					t.Errorf("%s: cancelled after %v, want %v at most", c.step, cancelledAfter, permitPoll)
				case c.permanent && (!errors.Is(err, lost) || th.world.serves):
					t.Errorf("%s: promoted without a permit: %v", c.step, err)
				case !c.permanent && (err != nil || calls != 2):
					t.Errorf("%s: %d calls, and %v, though the permit came back", c.step, calls, err)
				}
				if err := r.Demote(t.Context(), withEpoch(1)); err != nil {
					t.Error(err)
				}
				mustBe(t, RoleDemoted, th)
			})
		})
	}
}
