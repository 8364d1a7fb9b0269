package hooks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
)

// thing is a Resource with a plan of several steps. What the steps do lives outside of
// it, in a world that outlasts the process.
type thing struct {
	name  string
	world *world

	mu     sync.Mutex
	inside string // the call that runs
	faults []string

	// step is called within each step, after its mark and before its effect. Its error is
	// that of the step; errLie leaves the effect out and says that all is well.
	step func(ctx context.Context, call, step string) error
	// told is called at each instant at which a process could die.
	told func()
	// look, if given, is what Monitor does.
	look func(ctx context.Context) (Report, error)
}

// world is what the steps of a thing have an effect on.
type world struct {
	mu                     sync.Mutex
	fenced, opened, serves bool
	source                 string // where it gets its data from; promoting it destroys that
	diary                  []string
}

const origin = "192.0.2.9, after transaction 41"

var errLie = errors.New("a lie")

func newThing(name string) *thing { return &thing{name: name, world: &world{source: origin}} }

// reboot is what a restart of the machine leaves.
func (w *world) reboot() *world {
	return &world{opened: w.opened, source: w.source} // what is on the disk
}

func (w *world) copy() *world {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &world{fenced: w.fenced, opened: w.opened, serves: w.serves, source: w.source}
}

func (w *world) role() Role {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.fenced && w.opened && w.serves && w.source == "":
		return RolePromoted
	case !w.fenced && !w.opened && !w.serves && w.source == origin:
		return RoleDemoted
	}
	return RoleUnknown
}

func (w *world) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("fenced %v, opened %v, serves %v, source %q", w.fenced, w.opened, w.serves, w.source)
}

// enter notes that a call runs, and a breach if another one does.
func (th *thing) enter(call string) (leave func()) {
	th.mu.Lock()
	defer th.mu.Unlock()
	if th.inside != "" {
		th.faults = append(th.faults, fmt.Sprintf("%s: %s while %s runs", th.name, call, th.inside))
	}
	th.inside = call
	return func() {
		th.mu.Lock()
		defer th.mu.Unlock()
		th.inside = ""
	}
}

func (th *thing) at() {
	if th.told != nil {
		th.told()
	}
}

// take is one step: the mark, and what it does unless it is done already.
func (th *thing) take(ctx context.Context, call, step string, mark func(context.Context, string) error, done func() bool, do func(w *world)) error {
	th.world.mu.Lock()
	already := done()
	th.world.mu.Unlock()
	if already {
		return nil
	}
	if err := mark(ctx, step); err != nil {
		return err
	}
	th.at()
	if th.step != nil {
		if err := th.step(ctx, call, step); errors.Is(err, errLie) {
			return nil
		} else if err != nil {
			return err
		}
	}
	th.world.mu.Lock()
	do(th.world)
	th.world.diary = append(th.world.diary, th.name+" "+step)
	th.world.mu.Unlock()
	th.at()
	return nil
}

func (th *thing) Promote(ctx context.Context, ev Event) error {
	defer th.enter("promote")()
	w := th.world
	if err := th.take(ctx, "promote", "fence", Mark, func() bool { return w.fenced }, func(w *world) { w.fenced = true }); err != nil {
		return err
	}
	w.mu.Lock()
	source := w.source
	w.mu.Unlock()
	if source != "" {
		if err := Remember(ctx, "source", source); err != nil {
			return err
		}
		th.at()
	}
	if err := th.take(ctx, "promote", "reset", MarkNoReturn, func() bool { return w.source == "" }, func(w *world) { w.source = "" }); err != nil {
		return err
	}
	if err := th.take(ctx, "promote", "open", MarkNoReturn, func() bool { return w.opened }, func(w *world) { w.opened = true }); err != nil {
		return err
	}
	return th.take(ctx, "promote", "serve", Mark, func() bool { return w.serves }, func(w *world) { w.serves = true })
}

func (th *thing) Demote(ctx context.Context, ev Event) error {
	defer th.enter("demote")()
	w := th.world
	if err := th.take(ctx, "demote", "stop", Mark, func() bool { return !w.serves }, func(w *world) { w.serves = false }); err != nil {
		return err
	}
	if err := th.take(ctx, "demote", "close", Mark, func() bool { return !w.opened }, func(w *world) { w.opened = false }); err != nil {
		return err
	}
	source := Recall(ctx, "source")
	if err := th.take(ctx, "demote", "rejoin", Mark, func() bool { return w.source != "" }, func(w *world) { w.source = source }); err != nil {
		return err
	}
	return th.take(ctx, "demote", "unfence", Mark, func() bool { return !w.fenced }, func(w *world) { w.fenced = false })
}

func (th *thing) Monitor(ctx context.Context) (Report, error) {
	defer th.enter("monitor")()
	if th.look != nil {
		return th.look(ctx)
	}
	return Report{Role: th.world.role(), Text: th.world.String()}, nil
}

func (th *thing) sound(t testing.TB) {
	t.Helper()
	th.mu.Lock()
	defer th.mu.Unlock()
	if len(th.faults) > 0 {
		t.Fatal(strings.Join(th.faults, "\n"))
	}
}

// resource makes a step of a thing.
func (th *thing) resource() Step {
	return Step{
		Name: th.name, Kind: "thing", Resource: th, Timeout: 20 * time.Second, Release: 20 * time.Second,
		Watch: Watch{Interval: time.Second, Timeout: 5 * time.Second},
	}
}

func withEpoch(e carp.Epoch) Event { return Event{Name: "9@eth0", Epoch: e} }

// runner makes a Runner with a journal whose disk loses no time.
func runner(t testing.TB, path string, o Options, steps ...Step) *Runner {
	t.Helper()
	if o.Journal == nil {
		o.Journal = openJournal(t, path)
		o.Journal.file = unsynced{o.Journal.file}
	}
	r, err := NewRunner(steps, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
