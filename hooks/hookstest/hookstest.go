// Package hookstest holds the conformance suite of hook kinds: what package
// hooks asks of every Hook, as tests. The test of a kind is one line:
//
//	hookstest.Conformance(t, func() hooks.Hook { return newFakeBacked(t) })
//
// The hook is really run, many times and in every phase, so it should act on
// something made for the test.
package hookstest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
)

// Patience is how long a call may take that should return at once, or that was
// cancelled: what the runner grants.
const Patience = hooks.CancelGrace

// runTime bounds a call that is let run: longer and the hook is too slow to be
// tested with this suite.
const runTime = hooks.DefaultTimeout

// Conformance checks that the hooks which open returns keep the contract of
// hooks.Hook. Each call of open must return a new instance that is ready to run
// and whose runs succeed. The checks, a subtest each:
//
//	every-phase   runs succeed in all phases, with all states
//	twice         the same event twice succeeds
//	bare-event    an event without peer, addresses and names does no harm
//	cancelled     a cancelled run returns in time, whenever it is cancelled
//	slow          a run returns in time after its deadline
//	after-cancel  a run after a cancelled one succeeds
//	side-by-side  two instances run at the same time (use -race)
//	environment   working directory, environment and open files stay as they are
func Conformance(t *testing.T, open func() hooks.Hook) {
	t.Helper()
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			if err := c.run(t.Context(), open); err != nil {
				t.Error(err)
			}
		})
	}
}

// SampleEvent returns an event as a hook meets it when its node takes over.
func SampleEvent(phase hooks.Phase) hooks.Event {
	ev := hooks.Event{
		Name: "9@eth0", VHID: 9, Interface: "eth0", Node: "node-a", Phase: phase,
		From: carp.Backup, To: carp.Master, Reason: carp.ReasonTimedOut,
		Peer: netip.MustParseAddr("192.0.2.2"), Epoch: 41,
		Time:      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.50/24"), netip.MustParsePrefix("2001:db8::50/64")},
	}
	if phase.Down() {
		ev.From, ev.To, ev.Reason = carp.Master, carp.Backup, carp.ReasonBetterMaster
	}
	return ev
}

// check is one promise of the contract. It returns an error instead of failing
// a test, so that the suite can be tested itself.
type check struct {
	name string
	run  func(ctx context.Context, open func() hooks.Hook) error
}

func checks() []check {
	return []check{
		{"every-phase", everyPhase},
		{"twice", twice},
		{"bare-event", bareEvent},
		{"cancelled", cancelled},
		{"slow", slow},
		{"after-cancel", afterCancel},
		{"side-by-side", sideBySide},
		{"environment", environment},
	}
}

func phases() []hooks.Phase {
	return []hooks.Phase{hooks.BeforeUp, hooks.AfterUp, hooks.BeforeDown, hooks.AfterDown}
}

func everyPhase(ctx context.Context, open func() hooks.Hook) error {
	h := open()
	for _, p := range phases() {
		for _, to := range []carp.State{carp.Init, carp.Backup, carp.Master, carp.Releasing} {
			ev := SampleEvent(p)
			ev.To = to
			if err := call(ctx, runTime, h, ev); err != nil {
				return fmt.Errorf("phase %v to %v: %w", p, to, err)
			}
		}
	}
	return nil
}

func twice(ctx context.Context, open func() hooks.Hook) error {
	h := open()
	for _, p := range phases() {
		for _, n := range []string{"first", "second"} {
			if err := call(ctx, runTime, h, SampleEvent(p)); err != nil {
				return fmt.Errorf("%s call in phase %v: %w", n, p, err)
			}
		}
	}
	return nil
}

func bareEvent(ctx context.Context, open func() hooks.Hook) error {
	h := open()
	for _, p := range phases() {
		err := call(ctx, runTime, h, hooks.Event{Phase: p})
		if broken, ok := err.(*brokenError); ok {
			return broken // an error is an honest answer; a panic or a hang is none
		}
	}
	return nil
}

// moments are the times at which runs are cancelled.
func moments() []time.Duration {
	return []time.Duration{0, 100 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 80 * time.Millisecond}
}

func cancelled(ctx context.Context, open func() hooks.Hook) error {
	h := open()
	for _, after := range moments() {
		c, cancel := context.WithCancel(ctx)
		t := time.AfterFunc(after, cancel)
		if after == 0 {
			cancel()
		}
		err := call(c, after+Patience, h, SampleEvent(hooks.BeforeUp))
		t.Stop()
		cancel()
		if broken, ok := err.(*brokenError); ok {
			return fmt.Errorf("cancelled after %v: %w", after, broken)
		}
	}
	return nil
}

func slow(ctx context.Context, open func() hooks.Hook) error {
	h := open()
	for _, after := range moments() {
		c, cancel := context.WithTimeout(ctx, after)
		err := call(c, after+Patience, h, SampleEvent(hooks.BeforeUp))
		cancel()
		if broken, ok := err.(*brokenError); ok {
			return fmt.Errorf("deadline after %v: %w", after, broken)
		}
	}
	return nil
}

func afterCancel(ctx context.Context, open func() hooks.Hook) error {
	h := open()
	for _, p := range phases() {
		for _, after := range moments() {
			c, cancel := context.WithTimeout(ctx, after)
			err := call(c, after+Patience, h, SampleEvent(p))
			cancel()
			if broken, ok := err.(*brokenError); ok {
				return broken
			}
			if err := call(ctx, runTime, h, SampleEvent(p)); err != nil {
				return fmt.Errorf("phase %v, after a run that was cancelled at %v: %w", p, after, err)
			}
		}
	}
	return nil
}

func sideBySide(ctx context.Context, open func() hooks.Hook) error {
	done := make(chan error)
	for range 2 {
		h := open()
		go func() { done <- call(ctx, runTime, h, SampleEvent(hooks.AfterUp)) }()
	}
	first, second := <-done, <-done
	if first != nil {
		return first
	}
	return second
}

func environment(ctx context.Context, open func() hooks.Hook) error {
	h := open()
	// The first run may open what the process keeps, such as the poller.
	if err := call(ctx, runTime, h, SampleEvent(hooks.AfterUp)); err != nil {
		return err
	}
	return unchanged(func() error {
		for range 5 {
			if err := call(ctx, runTime, h, SampleEvent(hooks.AfterUp)); err != nil {
				return err
			}
		}
		return nil
	})
}

// unchanged checks that what is done leaves the process as it was.
func unchanged(what func() error) error {
	dir, env, files := surroundings()
	if err := what(); err != nil {
		return err
	}
	return settled(func() error {
		dir2, env2, files2 := surroundings()
		switch {
		case dir != dir2:
			return fmt.Errorf("the working directory moved from %s to %s", dir, dir2)
		case !slices.Equal(env, env2):
			return fmt.Errorf("the environment of the process changed")
		case files2 > files:
			return fmt.Errorf("open files grew from %d to %d", files, files2)
		}
		return nil
	})
}

// settled asks until ok returns nil, for at most Patience: files are closed by
// goroutines that may run a little later.
func settled(ok func() error) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(Patience)
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-late:
			return err
		}
	}
}

// surroundings is what a hook must not change in the process it runs in.
func surroundings() (dir string, env []string, files int) {
	dir, _ = os.Getwd()
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		for _, fd := range fds {
			// Sockets, pipes and files; the runtime's own event descriptors come and go.
			target, err := os.Readlink("/proc/self/fd/" + fd.Name())
			if err == nil && !strings.HasPrefix(target, "anon_inode:") {
				files++
			}
		}
	}
	return dir, os.Environ(), files
}

// brokenError is a breach of the contract that no error of a hook excuses.
type brokenError struct{ what string }

func (e *brokenError) Error() string { return e.what }

// call runs h, and returns a *brokenError if it panics or takes too long.
func call(ctx context.Context, limit time.Duration, h hooks.Hook, ev hooks.Event) error {
	return guarded(limit, "Run", func() error { return h.Run(ctx, ev) })
}

// guarded calls, and returns a *brokenError if what is called panics or takes too long.
func guarded(limit time.Duration, what string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- &brokenError{fmt.Sprintf("%s panicked: %v\n%s", what, p, debug.Stack())}
			}
		}()
		done <- f()
	}()
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return &brokenError{fmt.Sprintf("%s has not returned within %v", what, limit)}
	}
}
