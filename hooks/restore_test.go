package hooks

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
)

// database is a thing that can be given a snapshot.
type database struct {
	*thing
	given string
	work  func(context.Context) error
}

func (d *database) Database() string { return "/srv/" + d.name }

func (d *database) Restore(ctx context.Context, snapshot string) error {
	defer d.enter("restore")()
	d.given = snapshot
	return d.work(ctx)
}

func newDatabase(t *testing.T) (*database, *Runner) {
	t.Helper()
	d := &database{thing: newThing("db"), work: func(context.Context) error { return nil }}
	j, err := OpenJournal(filepath.Join(t.TempDir(), "journal"), "boot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	r, err := NewRunner([]Step{{Name: "other", Kind: "fake", Resource: newThing("other")}, {Name: "db", Kind: "fake", Resource: d, Timeout: time.Minute,
		Watch: Watch{Interval: time.Millisecond}}}, Options{Journal: j})
	if err != nil {
		t.Fatal(err)
	}
	return d, r
}

func TestARestoreFindsTheResourceOfTheDatabase(t *testing.T) {
	d, r := newDatabase(t)
	if r.Restores("/srv/other") || !r.Restores("/srv/db") {
		t.Error("the wrong resource has it")
	}
	if err := r.Restore(t.Context(), "/srv/db", "/srv/snapshot"); err != nil || d.given != "/srv/snapshot" {
		t.Errorf("%q, %v", d.given, err)
	}
	if err := r.Restore(t.Context(), "/srv/other", "x"); err == nil || !strings.Contains(err.Error(), "no resource has it") {
		t.Error(err)
	}
	d.work = func(context.Context) error { return errors.New("no room") }
	if err := r.Restore(t.Context(), "/srv/db", "x"); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Error(err)
	}
}

// TestNothingElseIsAtWorkWhileADatabaseIsRestored has looks and a promotion come while it
// is under way: the promotion waits, and no look is made of the same resource.
func TestNothingElseIsAtWorkWhileADatabaseIsRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, r := newDatabase(t)
		inside, leave := make(chan struct{}), make(chan struct{})
		d.work = func(context.Context) error { close(inside); <-leave; return nil }
		ctx, stop := context.WithCancel(t.Context())
		watched, restored, promoted := make(chan struct{}), make(chan error, 1), make(chan error, 1)
		go func() { defer close(watched); r.Watch(ctx) }()
		go func() { restored <- r.Restore(ctx, "/srv/db", "x") }()
		<-inside
		go func() { promoted <- r.Run(ctx, BeforeUp, Event{Name: "9@eth0", To: carp.Master, Epoch: 5}) }()
		time.Sleep(100 * time.Millisecond) // of the bubble: many looks would come
		synctest.Wait()
		select {
		case err := <-promoted:
			t.Error("promoted meanwhile:", err)
		default:
		}
		close(leave)
		if err := errors.Join(<-restored, <-promoted); err != nil {
			t.Error(err)
		}
		stop()
		<-watched
		if len(d.faults) > 0 {
			t.Error(d.faults)
		}
	})
}

func TestWhoWaitsForARestoreGivesUpInTime(t *testing.T) {
	_, r := newDatabase(t)
	held, leave := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- r.Between(t.Context(), func(context.Context) error { close(held); <-leave; return nil })
	}()
	<-held
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.Between(ctx, func(context.Context) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
