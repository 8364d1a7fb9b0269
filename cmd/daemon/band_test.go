package daemon

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
)

// mate is a member of a group whose engine is the test.
type mate struct {
	name string
	d    *diary
}

// diary is what happened to the members and the resource of a group, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

// take returns what happened since the last take.
func (d *diary) take() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := strings.Join(d.lines, ", ")
	d.lines = nil
	return all
}

func (m *mate) label() string        { return m.name }
func (m *mate) resign(r carp.Reason) { m.d.note("%s resigns: %v", m.name, r) }
func (m *mate) demoteBy(o string, n int) {
	m.d.note("%s demoted %d", m.name, n)
}
func (m *mate) mayAct() error { return nil }

// shared is the resource of a group.
type shared struct {
	d       *diary
	fail    error
	role    hooks.Role
	gate    chan struct{} // promotion waits for it to be closed; nil: it does not
	demoted int
	slow    time.Duration // how long a cancelled promotion takes to end
}

func (s *shared) Promote(ctx context.Context, ev hooks.Event) error {
	s.d.note("promote %d", ev.Epoch)
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			end := time.NewTimer(s.slow)
			<-end.C
			s.d.note("promotion cancelled")
			return ctx.Err()
		}
	}
	if s.fail != nil {
		return s.fail
	}
	s.role = hooks.RolePromoted
	return nil
}

func (s *shared) Demote(context.Context, hooks.Event) error {
	s.d.note("demote")
	if s.demoted++; s.demoted > 1000 {
		return errors.New("it is demoted without end")
	}
	s.role = hooks.RoleDemoted
	return nil
}

func (s *shared) Monitor(context.Context) (hooks.Report, error) {
	return hooks.Report{Role: s.role}, nil
}

// bench is a group of two members, in BACKUP.
type bandBench struct {
	*band
	*diary
	*shared
	a, b    *mate
	journal *hooks.Journal
}

func inBand(t *testing.T, test func(t *testing.T, x *bandBench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		x := &bandBench{diary: d, shared: &shared{d: d, role: hooks.RoleDemoted}, a: &mate{"a", d}, b: &mate{"b", d}}
		journal, err := hooks.OpenJournal(filepath.Join(t.TempDir(), "journal"), "boot")
		if err != nil {
			t.Fatal(err)
		}
		defer journal.Close()
		runner, err := hooks.NewRunner([]hooks.Step{{Name: "db", Kind: "test", Resource: x.shared}}, hooks.Options{Journal: journal})
		if err != nil {
			t.Fatal(err)
		}
		x.journal = journal
		x.band = newBand("g", runner, func(t carp.Transition) hooks.Event { return hooks.Event{Epoch: t.Epoch} })
		x.join(x.a)
		x.join(x.b)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go x.run(ctx)
		for _, m := range []*mate{x.a, x.b} {
			x.observe(m, carp.Transition{From: carp.Init, To: carp.Backup, Reason: carp.ReasonLinkUp})
		}
		synctest.Wait()
		x.take()
		test(t, x)
		synctest.Wait()
	})
}

// elected tells that a member is MASTER, and what its up returns.
func (x *bandBench) elected(ctx context.Context, m *mate, epoch carp.Epoch) <-chan error {
	t := carp.Transition{From: carp.Backup, To: carp.Master, Reason: carp.ReasonTimedOut, Epoch: epoch}
	x.observe(m, t)
	return x.ups(ctx, m, t)
}

func (x *bandBench) ups(ctx context.Context, m *mate, t carp.Transition) <-chan error {
	done := make(chan error, 1)
	go func() {
		err := x.up(ctx, m, t)
		if err == nil {
			x.note("%s up", m.name)
		}
		done <- err
	}()
	return done
}

// leaves tells that a member leaves, and what its down returns.
func (x *bandBench) goes(m *mate, to carp.State, why carp.Reason) <-chan error {
	t := carp.Transition{From: carp.Master, To: to, Reason: why}
	x.observe(m, t)
	done := make(chan error, 1)
	go func() { done <- x.down(context.Background(), m, t) }()
	return done
}

func want(t *testing.T, x *bandBench, lines string) {
	t.Helper()
	synctest.Wait()
	if got := x.take(); got != lines {
		t.Errorf("got  %s\nwant %s", got, lines)
	}
}

func TestNoAddressOfAGroupComesUpBeforeAllAreElectedAndItsResourcePromoted(t *testing.T) {
	inBand(t, func(t *testing.T, x *bandBench) {
		first := x.elected(t.Context(), x.a, 7)
		want(t, x, "")
		x.gate = make(chan struct{})
		second := x.elected(t.Context(), x.b, 9)
		want(t, x, "promote 9")
		close(x.gate)
		if err := errors.Join(<-first, <-second); err != nil {
			t.Fatal(err)
		}
		x.take()
		gone := x.goes(x.a, carp.Backup, carp.ReasonBetterMaster)
		want(t, x, "b resigns: group")
		select {
		case <-gone:
			t.Error("the resource is said to be demoted while b has its address")
		default:
		}
		also := x.goes(x.b, carp.Releasing, carp.ReasonGroup)
		want(t, x, "demote")
		if err := errors.Join(<-gone, <-also); err != nil {
			t.Error(err)
		}
	})
}

func TestAGroupThatDoesNotBecomeWholeGivesUp(t *testing.T) {
	inBand(t, func(t *testing.T, x *bandBench) {
		began := time.Now()
		err := <-x.elected(t.Context(), x.a, 7)
		if err == nil || !strings.Contains(err.Error(), "b is BACKUP") || time.Since(began) != bandWait {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		want(t, x, "")
	})
}

func TestAFailedPromotionFailsAllAndIsTriedAgainInTheNextMastership(t *testing.T) {
	inBand(t, func(t *testing.T, x *bandBench) {
		x.fail = errors.New("no such disk")
		first, second := x.elected(t.Context(), x.a, 7), x.elected(t.Context(), x.b, 8)
		for _, err := range []error{<-first, <-second} {
			if err == nil || !strings.Contains(err.Error(), "no such disk") {
				t.Errorf("got %v", err)
			}
		}
		want(t, x, "promote 8")
		gone, also := x.goes(x.a, carp.Backup, carp.ReasonFailed), x.goes(x.b, carp.Backup, carp.ReasonFailed)
		if err := errors.Join(<-gone, <-also); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := x.take(); !strings.Contains(got, "demote") || !strings.Contains(got, "b demoted 240") {
			t.Errorf("got %s", got)
		}
		x.fail = nil
		if err := errors.Join(<-x.elected(t.Context(), x.a, 9), nil); err == nil {
			t.Error("up without the other one")
		}
	})
}

func TestWhoLeavesDuringThePromotionEndsIt(t *testing.T) {
	inBand(t, func(t *testing.T, x *bandBench) {
		x.gate = make(chan struct{})
		first, second := x.elected(t.Context(), x.a, 7), x.elected(t.Context(), x.b, 8)
		want(t, x, "promote 8")
		gone := x.goes(x.b, carp.Backup, carp.ReasonBetterMaster)
		synctest.Wait()
		if got := x.take(); !strings.Contains(got, "promotion cancelled") || !strings.Contains(got, "a resigns: group") || !strings.Contains(got, "demote") {
			t.Errorf("got %s", got)
		}
		if <-first == nil || <-second == nil {
			t.Error("an address comes up though the promotion was cancelled")
		}
		if err := <-gone; err != nil {
			t.Error(err)
		}
	})
}

func TestALeaverThatIsElectedAgainMayBeServedAfterTheCancelledPromotion(t *testing.T) {
	inBand(t, func(t *testing.T, x *bandBench) {
		x.gate, x.slow = make(chan struct{}), 2*time.Second
		ctx, newer := context.WithCancel(t.Context())
		first, second := x.elected(ctx, x.a, 7), x.elected(ctx, x.b, 8)
		want(t, x, "promote 8")
		newer() // both are told to leave, and are elected again before anybody has let go
		for _, m := range []*mate{x.b, x.a} {
			x.observe(m, carp.Transition{From: carp.Master, To: carp.Backup, Reason: carp.ReasonBetterMaster})
		}
		if <-first == nil || <-second == nil {
			t.Error("an address comes up though the promotion was cancelled")
		}
		first, second = x.elected(t.Context(), x.a, 9), x.elected(t.Context(), x.b, 10)
		synctest.Wait()
		close(x.gate)
		if err := errors.Join(<-first, <-second); err != nil {
			t.Error(err)
		}
		if got := x.take(); !strings.Contains(got, "promotion cancelled, promote 10") {
			t.Errorf("got %s", got)
		}
	})
}

func TestAMemberWaitsForTheGateOfAnotherThatIsElected(t *testing.T) {
	inBand(t, func(t *testing.T, x *bandBench) {
		first := x.elected(t.Context(), x.a, 7)
		slow := carp.Transition{From: carp.Backup, To: carp.Master, Reason: carp.ReasonTimedOut, Epoch: 8}
		x.observe(x.b, slow)
		gate := time.NewTimer(2 * bandWait)
		<-gate.C
		if err := errors.Join(<-x.ups(t.Context(), x.b, slow), <-first); err != nil {
			t.Error(err)
		}
	})
}

// Whether it is demoted says the resource, and not the disk.
func TestAGroupLetsGoOnceThoughItsJournalCannotBeWritten(t *testing.T) {
	inBand(t, func(t *testing.T, x *bandBench) {
		first, second := x.elected(t.Context(), x.a, 7), x.elected(t.Context(), x.b, 8)
		if err := errors.Join(<-first, <-second); err != nil {
			t.Fatal(err)
		}
		if err := x.journal.Close(); err != nil {
			t.Fatal(err)
		}
		x.take()
		gone, also := x.goes(x.a, carp.Backup, carp.ReasonBetterMaster), x.goes(x.b, carp.Backup, carp.ReasonBetterMaster)
		if err := errors.Join(<-gone, <-also); err != nil {
			t.Error(err)
		}
		if n := strings.Count(x.take(), "demote"); n == 0 || n > 2 {
			t.Errorf("demoted %d times", n)
		}
	})
}

func TestOneInInitDemotesTheOthersUntilItIsBack(t *testing.T) {
	inBand(t, func(t *testing.T, x *bandBench) {
		x.observe(x.a, carp.Transition{From: carp.Backup, To: carp.Init, Reason: carp.ReasonLinkDown})
		want(t, x, "b demoted 240")
		x.observe(x.a, carp.Transition{From: carp.Init, To: carp.Backup, Reason: carp.ReasonLinkUp})
		want(t, x, "b demoted 0")
	})
}

func TestAResourceIsDemotedThoughAnotherAddressDoesNotGo(t *testing.T) {
	inBand(t, func(t *testing.T, x *bandBench) {
		if err := errors.Join(func() error {
			first, second := x.elected(t.Context(), x.a, 7), x.elected(t.Context(), x.b, 8)
			return errors.Join(<-first, <-second)
		}()); err != nil {
			t.Fatal(err)
		}
		x.take()
		began := time.Now()
		if err := <-x.goes(x.a, carp.Backup, carp.ReasonBetterMaster); err != nil || time.Since(began) != bandLeave {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		want(t, x, "b resigns: group, demote")
	})
}

func TestAHandoverOfOneIsAHandoverOfAll(t *testing.T) {
	inBand(t, func(t *testing.T, x *bandBench) {
		first, second := x.elected(t.Context(), x.a, 7), x.elected(t.Context(), x.b, 8)
		if err := errors.Join(<-first, <-second); err != nil {
			t.Fatal(err)
		}
		x.take()
		x.observe(x.a, carp.Transition{From: carp.Master, To: carp.Releasing, Reason: carp.ReasonHandover})
		want(t, x, "b resigns: handover")
	})
}
