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

// Step is one hook at its place in the plan.
type Step struct {
	Name      string        // for logs and status; required
	Kind      string        // as registered
	Phase     Phase         // when it runs
	Timeout   time.Duration // of one call; 0 means DefaultTimeout
	OnFailure Policy        // the zero value is the phase's default
	Hook      Hook          // of this step alone: not shared with another one
}

// Options are the optional parts of a Runner; the zero value is fine.
type Options struct {
	// Log gets a line for each step that ran, and what hooks log. nil is silent.
	Log *slog.Logger
	// Observe is called after each step that ran, by the goroutine of Run.
	Observe func(Result)
	// Cgroup is the directory of a cgroup (version 2) that kinds start processes in, so
	// that somebody can end them all when this process has died. The caller keeps it
	// open. nil: there is none.
	Cgroup *os.File
}

// Result is one call of one hook.
type Result struct {
	Step     Step
	Event    Event
	Start    time.Time
	Duration time.Duration
	Err      error // nil, or why the step failed or was cancelled
}

// StepError says that a step failed, and what its policy makes of that.
type StepError struct {
	Step   string
	Kind   string
	Phase  Phase
	Policy Policy // Alarm, Demote or Retreat: Run returns no others
	Err    error
}

func (e *StepError) Error() string {
	return fmt.Sprintf("hooks: run %s (%s, %v): %v (policy: %v)", e.Step, e.Kind, e.Phase, e.Err, e.Policy)
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
	Phase Phase
	State StepState
	Error string // why State is Failed
}

// Runner runs the steps of one instance. Run may be called from any goroutine;
// calls take turns. Status is safe for concurrent use. A Runner holds nothing
// that needs closing.
type Runner struct {
	log     *slog.Logger
	observe func(Result)
	cgroup  *os.File
	turn    chan struct{} // held by the Run that is at work
	slots   []slot

	mu     sync.Mutex // guards status
	status []StepStatus
}

// slot is a step and, if a call of it was left behind, where that call ends.
// Only the holder of the turn touches it.
type slot struct {
	Step
	left <-chan error
}

// NewRunner returns a Runner of the given steps, in the order of going up. It
// reports all faults of the plan at once.
func NewRunner(steps []Step, o Options) (*Runner, error) {
	r := &Runner{log: o.Log, observe: o.Observe, cgroup: o.Cgroup, turn: make(chan struct{}, 1)}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	var faults []error
	for i, s := range steps {
		if err := s.validate(); err != nil {
			faults = append(faults, fmt.Errorf("hooks: plan: step %d (%q): %w", i+1, s.Name, err))
			continue
		}
		if s.Timeout == 0 {
			s.Timeout = DefaultTimeout
		}
		if s.OnFailure == PhaseDefault {
			s.OnFailure = s.Phase.Policies()[0]
		}
		r.slots = append(r.slots, slot{Step: s})
		r.status = append(r.status, StepStatus{Name: s.Name, Kind: s.Kind, Phase: s.Phase, State: Idle})
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return r, nil
}

func (s Step) validate() error {
	switch {
	case s.Name == "":
		return errors.New("the name is empty")
	case s.Hook == nil:
		return errors.New("there is no hook")
	case s.Phase > AfterDown:
		return fmt.Errorf("unknown phase %v", s.Phase)
	case s.Timeout < 0 || s.Timeout > MaxTimeout:
		return fmt.Errorf("timeout %v: use more than 0 and at most %v", s.Timeout, MaxTimeout)
	case !s.Phase.Allows(s.OnFailure):
		return fmt.Errorf("failure policy %v cannot be carried out in phase %v", s.OnFailure, s.Phase)
	}
	return nil
}

// Run runs the steps of one phase, one after the other: in the order of the
// plan, or in reverse if phase.Down().
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
		return cancelled(ctx, phase)
	}
	ev.Phase = phase
	var worst *StepError
	for _, i := range r.order(phase) {
		if ctx.Err() != nil {
			return cancelled(ctx, phase)
		}
		err := r.step(ctx, i, ev)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return cancelled(ctx, phase)
		}
		s := &r.slots[i]
		if s.OnFailure != Continue && (worst == nil || s.OnFailure > worst.Policy) {
			worst = &StepError{Step: s.Name, Kind: s.Kind, Phase: phase, Policy: s.OnFailure, Err: err}
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
	return append([]StepStatus(nil), r.status...)
}

// order returns the indices of the phase's steps in the order they run.
func (r *Runner) order(phase Phase) []int {
	var order []int
	for n := range r.slots {
		i := n
		if phase.Down() {
			i = len(r.slots) - 1 - n
		}
		if r.slots[i].Phase == phase {
			order = append(order, i)
		}
	}
	return order
}

// step runs one step and tells status, log and observer.
func (r *Runner) step(ctx context.Context, i int, ev Event) error {
	s := &r.slots[i]
	log := r.log.With("instance", ev.Name, "hook", s.Name, "kind", s.Kind, "phase", ev.Phase.String())
	r.set(i, Running, nil)
	start := time.Now()
	err := s.call(withCgroup(withLogger(ctx, log), r.cgroup), ev)
	took := time.Since(start)
	if err != nil {
		r.set(i, Failed, err)
		log.Warn("hook failed", "took", took, "policy", s.OnFailure.String(), "err", err)
	} else {
		r.set(i, OK, nil)
		log.Info("hook done", "took", took)
	}
	if r.observe != nil {
		r.observe(Result{Step: s.Step, Event: ev, Start: start, Duration: took, Err: err})
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

// call runs the hook under its deadline. A hook that ignores the end of its
// context is left behind, so that neither a stop of the daemon nor the next
// transition hangs on it.
func (s *slot) call(ctx context.Context, ev Event) error {
	if s.left != nil {
		select {
		case <-s.left:
			s.left = nil
		default:
			return errors.New("the last call has not ended yet, though it was cancelled")
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- protect(ctx, s.Hook, ev) }()

	select {
	case err := <-done:
		return s.explain(ctx, err)
	case <-ctx.Done():
	}
	grace := time.NewTimer(CancelGrace)
	defer grace.Stop()
	select {
	case err := <-done:
		return s.explain(ctx, err)
	case <-grace.C:
		s.left = done
		return fmt.Errorf("did not return within %v of being cancelled: %w", CancelGrace, ctx.Err())
	}
}

// explain adds to an error that the deadline is its likely cause.
func (s *slot) explain(ctx context.Context, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("not done within its timeout of %v: %w", s.Timeout, err)
	}
	return err
}

// protect turns a panic of the hook into an error.
func protect(ctx context.Context, h Hook, ev Event) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			Logger(ctx).Error("hook panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	return h.Run(ctx, ev)
}

func cancelled(ctx context.Context, phase Phase) error {
	return fmt.Errorf("hooks: run %v: cancelled: %w", phase, ctx.Err())
}
