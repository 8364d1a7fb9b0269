package hooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/carpd/carpd/carp"
)

const (
	// DefaultTimeout is the deadline of a step that names none.
	DefaultTimeout = 20 * time.Second
	// MaxTimeout is the longest deadline that a step may have.
	MaxTimeout = time.Hour
	// CancelGrace is how long a step may take to return after its context ended.
	// A step that takes longer is left behind: it has failed, and it is not
	// started again while its old call lives.
	CancelGrace = 5 * time.Second
)

// Options are the optional parts of a Runner; the zero value is fine.
type Options struct {
	// Log gets a line for each step that ran, and what hooks log. nil is silent.
	Log *slog.Logger
	// Observe is called after each step that ran, by the goroutine of Run or Demote.
	Observe func(Result)
	// Cgroup is the directory of a cgroup (version 2) that kinds start processes in, so
	// that somebody can end them all when this process has died. The caller keeps it
	// open. nil: there is none.
	Cgroup *os.File
	// Journal is where actions on resources are recorded. Required if there are any.
	Journal *Journal
	// Permit returns an error when this node may not act as master at this moment. It is
	// asked again and again. nil: it always may.
	Permit func() error
	// Judge is called by Watch after the first look at a resource or monitor, and when what
	// it says has changed.
	Judge func(Verdict)
}

// Result is one call of one step.
type Result struct {
	Step     Step
	Action   Action // of a resource; "" for a hook
	Event    Event
	Start    time.Time
	Duration time.Duration
	Err      error // nil, or why the step failed or was cancelled
}

// StepError says that a step failed, and what its policy makes of that.
type StepError struct {
	Step   string
	Kind   string
	Place  string // a phase, or "resource"
	Policy Policy // never Continue
	Err    error
}

func (e *StepError) Error() string {
	return fmt.Sprintf("hooks: run %s (%s, %s): %v (policy: %v)", e.Step, e.Kind, e.Place, e.Err, e.Policy)
}

// Unwrap returns the hook's own error.
func (e *StepError) Unwrap() error { return e.Err }

// StepState is what a step did last. Its text is part of the interface.
type StepState string

// The states of a step.
const (
	Idle    StepState = "idle" // has not run yet
	Running StepState = "running"
	OK      StepState = "ok"
	Failed  StepState = "failed" // also: cancelled
)

// StepStatus is one step and its last run.
type StepStatus struct {
	Name  string
	Kind  string
	Place string // a phase, "resource" or "monitor"
	State StepState
	Error string // why State is Failed

	// Of a resource or monitor: what was seen last, when, and whether it could be.
	Report
	Seen    time.Time // zero: not looked at yet
	Blind   string    // why it could not be looked at
	Graded  Health    // after Rise and Fall
	Wished  Role      // of a resource: what it should be
	Apart   time.Time // since when Role is not Wished; zero: it is
	Epoch   carp.Epoch
	Current string // the step of its plan that was begun last
}

// Runner runs the steps of one instance. Run, Demote and Settle may be called from any
// goroutine; calls take turns. Watch runs beside them. Status is safe for concurrent
// use. A Runner holds nothing that needs closing.
type Runner struct {
	o     Options
	turn  chan struct{} // held by the call that is at work
	slots []slot

	mu     sync.Mutex // guards status
	status []StepStatus
}

// slot is a step and the right to call it. That of a hook goes with the turn.
type slot struct {
	Step
	*hold
}

// NewRunner returns a Runner of the given steps, in the order of going up. It
// reports all faults of the plan at once.
func NewRunner(steps []Step, o Options) (*Runner, error) {
	r := &Runner{o: o, turn: make(chan struct{}, 1)}
	if r.o.Log == nil {
		r.o.Log = slog.New(slog.DiscardHandler)
	}
	var faults []error
	for i, s := range steps {
		err := s.validate()
		if err == nil && s.Resource != nil && o.Journal == nil {
			err = errors.New("there is no journal, which a resource needs")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("hooks: plan: step %d (%q): %w", i+1, s.Name, err))
			continue
		}
		s.fill()
		right := newHold()
		if s.Resource != nil {
			right = o.Journal.hold(s.Name)
		}
		r.slots = append(r.slots, slot{s, right})
		status := StepStatus{Name: s.Name, Kind: s.Kind, Place: s.Place(), State: Idle}
		if s.Resource != nil {
			status.Epoch = o.Journal.Past(s.Name).Epoch
		}
		r.status = append(r.status, status)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return r, nil
}

// Run runs the steps of one phase, one after the other: in the order of the
// plan, or in reverse if phase.Down(). Before-up promotes the resources too, each in its
// place among the hooks. What was promoted stays so when a later step fails: the caller
// takes the addresses off and calls Demote.
//
// When ctx ends (a newer transition), the running step is cancelled, the rest
// is skipped, and Run returns an error that wraps ctx.Err and is no StepError.
// A step that failed by itself is treated by its policy: Retreat skips the rest;
// with the others all steps run. Run then returns the gravest failure as a
// *StepError, or nil if there was none or only those that Continue forgives.
func (r *Runner) Run(ctx context.Context, phase Phase, ev Event) error {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return cancelled(ctx, phase.String())
	}
	ev.Phase = phase
	var worst *StepError
	for _, i := range r.order(phase) {
		if ctx.Err() != nil {
			return cancelled(ctx, phase.String())
		}
		err := r.act(ctx, i, ev)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return cancelled(ctx, phase.String())
		}
		s := &r.slots[i]
		if s.OnFailure != Continue && (worst == nil || s.OnFailure > worst.Policy) {
			worst = &StepError{Step: s.Name, Kind: s.Kind, Place: s.Place(), Policy: s.OnFailure, Err: err}
		}
		if s.OnFailure == Retreat {
			break
		}
	}
	if worst != nil {
		return worst
	}
	return nil
}

// Status returns all steps in the order of the plan.
func (r *Runner) Status() []StepStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := append([]StepStatus(nil), r.status...)
	for i := range all {
		all[i].Wished = r.slots[i].wish()
	}
	return all
}

// order returns the indices of the phase's steps in the order they run.
func (r *Runner) order(phase Phase) []int {
	var order []int
	for n := range r.slots {
		i := n
		if phase.Down() {
			i = len(r.slots) - 1 - n
		}
		if r.slots[i].runsAt(phase) {
			order = append(order, i)
		}
	}
	return order
}

// act runs one step of a phase: a hook, or the promotion of a resource.
func (r *Runner) act(ctx context.Context, i int, ev Event) error {
	s := &r.slots[i]
	if s.Resource != nil {
		return r.promote(ctx, i, ev)
	}
	return r.told(ctx, i, "", ev, func(ctx context.Context) error {
		return s.call(ctx, s.Timeout, func(ctx context.Context) error { return s.Hook.Run(ctx, ev) })
	})
}

// told does the work of one step and tells status, log and observer.
func (r *Runner) told(ctx context.Context, i int, action Action, ev Event, work func(context.Context) error) error {
	s := &r.slots[i]
	log := r.o.Log.With("instance", ev.Name, "hook", s.Name, "kind", s.Kind, "phase", ev.Phase.String())
	r.set(i, Running, nil)
	start := time.Now()
	err := work(withCgroup(withLogger(ctx, log), r.o.Cgroup))
	took := time.Since(start)
	if err != nil {
		r.set(i, Failed, err)
		log.Warn("hook failed", "took", took, "policy", s.OnFailure.String(), "err", err)
	} else {
		r.set(i, OK, nil)
		log.Info("hook done", "took", took)
	}
	if r.o.Observe != nil {
		r.o.Observe(Result{Step: s.Step, Action: action, Event: ev, Start: start, Duration: took, Err: err})
	}
	return err
}

func (r *Runner) set(i int, state StepState, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status[i].State, r.status[i].Error = state, ""
	if err != nil {
		r.status[i].Error = err.Error()
	}
}

// call does the work under a deadline. What ignores the end of its context is left
// behind, so that neither a stop of the daemon nor the next transition hangs on it.
func (s *slot) call(ctx context.Context, timeout time.Duration, work func(context.Context) error) error {
	if s.left != nil {
		select {
		case <-s.left:
			s.left = nil
		default:
			return errLeftBehind
		}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- protect(ctx, work) }()

	select {
	case err := <-done:
		return explain(ctx, timeout, err)
	case <-ctx.Done():
	}
	grace := time.NewTimer(CancelGrace)
	defer grace.Stop()
	select {
	case err := <-done:
		return explain(ctx, timeout, err)
	case <-grace.C:
		s.left = done
		return fmt.Errorf("did not return within %v of being cancelled: %w", CancelGrace, ctx.Err())
	}
}

var errLeftBehind = errors.New("the last call has not ended yet, though it was cancelled")

// explain adds to an error that the deadline is its likely cause.
func explain(ctx context.Context, timeout time.Duration, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("not done within its timeout of %v: %w", timeout, err)
	}
	return err
}

// protect turns a panic of what is called into an error.
func protect(ctx context.Context, work func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			Logger(ctx).Error("hook panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	return work(ctx)
}

func cancelled(ctx context.Context, what string) error {
	return fmt.Errorf("hooks: run %s: cancelled: %w", what, ctx.Err())
}
