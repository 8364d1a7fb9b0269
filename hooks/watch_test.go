package hooks

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// looks is a monitor that says what it is told to.
type looks struct {
	says chan Report
	last Report
}

func (l *looks) Monitor(context.Context) (Report, error) {
	select {
	case l.last = <-l.says:
	default:
	}
	if l.last.Text == "blind" {
		return Report{}, errors.New("no answer")
	}
	return l.last, nil
}

func TestVerdictComesAtTheFirstLookAndWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &looks{says: make(chan Report, 1)}
		var verdicts []string
		begun := time.Now()
		r := runner(t, "", Options{Journal: &Journal{}, Judge: func(v Verdict) {
			verdicts = append(verdicts, fmt.Sprintf("%v %s %v %s", time.Since(begun), v.Step.Name, v.Health, v.Text))
		}}, Step{Name: "peer", Kind: "looks", Monitor: m, Watch: Watch{Interval: time.Second, Fall: 2, Rise: 3}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { r.Watch(ctx); close(ended) }()
		after := func(d time.Duration) {
			timer := time.NewTimer(d)
			<-timer.C
			synctest.Wait()
		}
		after(2500 * time.Millisecond)
		m.says <- Report{Health: Degraded, Text: "slow"}
		after(5 * time.Second)
		m.says <- Report{Text: "blind"}
		after(5 * time.Second)
		m.says <- Report{Text: "back"}
		after(5 * time.Second)
		cancel()
		<-ended
		want := "0s peer ok |4s peer degraded slow|9s peer unfit it cannot be looked at: no answer|15s peer ok back"
		if got := strings.Join(verdicts, "|"); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// A resource that leaves its role by itself is noticed after its grace, once, and it is
// noticed that it is back.
func TestResourceInAnotherRoleIsToldAfterItsGrace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	synctest.Test(t, func(t *testing.T) {
		th := newThing("db")
		var apart []string
		begun := time.Now()
		r := runner(t, path, Options{Judge: func(v Verdict) {
			apart = append(apart, fmt.Sprint(time.Since(begun), " ", v.Apart))
			if v.Apart && (!strings.Contains(v.Text, "is unknown and should be promoted") || v.Health != Healthy) {
				t.Errorf("%+v", v)
			}
		}}, th.resource())
		go r.Watch(t.Context())
		after := func(d time.Duration) {
			timer := time.NewTimer(d)
			<-timer.C
			synctest.Wait()
		}
		after(3500 * time.Millisecond)
		if err := r.Run(t.Context(), BeforeUp, withEpoch(1)); err != nil {
			t.Fatal(err)
		}
		after(10 * time.Second)
		th.world.mu.Lock()
		th.world.serves = false
		th.world.mu.Unlock()
		after(5 * time.Second)
		if st := r.Status()[0]; st.Apart.IsZero() || st.Wished != RolePromoted || st.Role != RoleUnknown {
			t.Errorf("the status says %+v", st)
		}
		after(20 * time.Second)
		th.world.mu.Lock()
		th.world.serves = true
		th.world.mu.Unlock()
		after(20 * time.Second)
		if got, want := strings.Join(apart, "|"), "0s false|24s true|39s false"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		th.sound(t)
	})
}

// A look that hangs does not keep a resource from being let go, and is no bad look.
func TestLetGoCutsALookShort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	synctest.Test(t, func(t *testing.T) {
		th := newThing("db")
		r := runner(t, path, Options{Judge: func(v Verdict) {
			if v.Health != Healthy {
				t.Errorf("%+v", v)
			}
		}}, th.resource())
		if err := r.Run(t.Context(), BeforeUp, withEpoch(1)); err != nil {
			t.Fatal(err)
		}
		hangs := true
		th.look = func(ctx context.Context) (Report, error) {
			if hangs {
				<-ctx.Done()
				return Report{}, ctx.Err()
			}
			return Report{Role: th.world.role()}, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.Watch(ctx)
		synctest.Wait() // within a look
		hangs = false
		start := time.Now()
		if err := r.Demote(t.Context(), withEpoch(1)); err != nil || time.Since(start) > 0 {
			t.Errorf("let go in %v: %v", time.Since(start), err)
		}
		mustBe(t, RoleDemoted, th)
	})
}
