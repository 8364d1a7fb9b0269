package hooks

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	firstPause = 250 * time.Millisecond // before a resource is tried again
	longPause  = 5 * time.Second
)

// promote promotes one resource: recorded before and after, tried again as long as it
// asks for that, and looked at when it says that it is done.
func (r *Runner) promote(ctx context.Context, i int, ev Event) error {
	return r.action(ctx, i, Promotion, ev, func(ctx context.Context, s *slot) error {
		err := r.insist(ctx, s.Timeout, func(ctx context.Context, left time.Duration) error {
			return r.underPermit(ctx, func(ctx context.Context) error {
				return s.call(ctx, left, func(ctx context.Context) error { return s.Resource.Promote(ctx, ev) })
			})
		})
		return r.lookAgain(ctx, i, err, RolePromoted)
	})
}

// Demote lets go of all resources that may be promoted, in the reverse order of going up.
// The addresses are off. One that cannot be demoted does not keep the others from it. It
// returns the gravest failure as a *StepError, or an error that wraps ctx.Err if a newer
// transition came.
func (r *Runner) Demote(ctx context.Context, ev Event) error {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return cancelled(ctx, "demotion")
	}
	ev.Phase = AfterDown
	var worst *StepError
	for i := len(r.slots) - 1; i >= 0; i-- {
		s := &r.slots[i]
		if s.Resource == nil {
			continue
		}
		if !r.o.Journal.Past(s.Name).Promoted {
			r.wish(i, RoleDemoted) // also of one whose promotion never began
			continue
		}
		if ctx.Err() != nil {
			return cancelled(ctx, "demotion")
		}
		err := r.demote(ctx, i, ev)
		if err != nil && ctx.Err() != nil {
			return cancelled(ctx, "demotion")
		}
		if err != nil && (worst == nil || s.OnStuck > worst.Policy) {
			worst = &StepError{Step: s.Name, Kind: s.Kind, Place: s.Place(), Policy: s.OnStuck, Err: err}
		}
	}
	if worst != nil {
		return worst
	}
	return nil
}

func (r *Runner) demote(ctx context.Context, i int, ev Event) error {
	return r.action(ctx, i, Demotion, ev, func(ctx context.Context, s *slot) error {
		err := r.insist(ctx, s.Release, func(ctx context.Context, left time.Duration) error {
			return s.call(ctx, left, func(ctx context.Context) error { return s.Resource.Demote(ctx, ev) })
		})
		return r.lookAgain(ctx, i, err, RoleDemoted)
	})
}

// Settle is called before this node stands for election, and again until it returns nil:
// whatever the last run of this or another process left behind, afterwards each resource
// is demoted. What the journal knows nothing of is looked at, too; what it knows to have
// been promoted is demoted even if it says that it is not promoted any more. It opens the
// journal if that is not open yet; without it nothing is touched.
func (r *Runner) Settle(ctx context.Context, ev Event) error {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return cancelled(ctx, "settling")
	}
	if j := r.o.Journal; j != nil {
		if err := j.Open(); err != nil {
			return err
		}
	}
	ev.Phase = AfterDown
	var faults []error
	for i := len(r.slots) - 1; i >= 0; i-- {
		s := &r.slots[i]
		if s.Resource == nil {
			continue
		}
		r.wish(i, RoleDemoted)
		past := r.o.Journal.Past(s.Name)
		r.change(i, func(st *StepStatus) { st.Epoch = max(st.Epoch, past.Epoch) })
		if !past.Unfinished && !past.Promoted && r.isDemoted(ctx, i) {
			continue
		}
		if ctx.Err() != nil {
			return cancelled(ctx, "settling")
		}
		if err := r.demote(ctx, i, ev); err != nil {
			faults = append(faults, fmt.Errorf("%s (%s): %w", s.Name, s.Kind, err))
		}
	}
	return errors.Join(faults...)
}

func (r *Runner) isDemoted(ctx context.Context, i int) bool {
	s := &r.slots[i]
	if s.seize(ctx) != nil {
		return false
	}
	defer func() { <-s.busy }()
	report, err := r.look(ctx, i)
	return err == nil && report.Role == RoleDemoted
}

// Held returns the steps of the resources that are promoted, or may be.
func (r *Runner) Held() (held []Step) {
	for i := range r.slots {
		if s := &r.slots[i]; s.Resource != nil && r.o.Journal.Past(s.Name).Promoted {
			held = append(held, s.Step)
		}
	}
	return held
}

// Holds reports whether there are such.
func (r *Runner) Holds() bool { return len(r.Held()) > 0 }

// action does something to a resource, alone, between two records of the journal.
func (r *Runner) action(ctx context.Context, i int, a Action, ev Event, work func(context.Context, *slot) error) error {
	s := &r.slots[i]
	if err := s.seize(ctx); err != nil {
		return err
	}
	defer func() { <-s.busy }()
	r.wish(i, map[Action]Role{Promotion: RolePromoted, Demotion: RoleDemoted}[a])
	return r.told(ctx, i, a, ev, func(ctx context.Context) error {
		if past := r.o.Journal.Past(s.Name).Epoch; a == Promotion && ev.Epoch < past {
			return Refuse(fmt.Errorf("epoch %d is older than %d, which it has seen: a newer mastership exists", ev.Epoch, past))
		}
		entry := func(state EntryState) Entry { return Entry{Resource: s.Name, Action: a, State: state, Epoch: ev.Epoch} }
		if err := r.record(ctx, entry(Begun)); err != nil {
			return err
		}
		r.change(i, func(st *StepStatus) { st.Epoch = max(st.Epoch, ev.Epoch) })
		err := work(WithMarks(ctx, r.marks(i, entry)), s)
		ended := entry(Done)
		if err != nil {
			ended.State, ended.Error = Broken, err.Error()
			if ctx.Err() != nil {
				ended.State = Cancelled
			}
		}
		if fault := r.o.Journal.add(ctx, ended); fault != nil {
			Logger(ctx).Warn("the journal does not say how it ended", "err", fault)
			if a == Demotion && err == nil {
				r.o.Journal.owe(ended)
			}
		}
		return err
	})
}

// wish notes the role that a resource should be in from now on, for all Runners that have
// it: one from before a reload may still be at work.
func (r *Runner) wish(i int, role Role) {
	r.slots[i].wished.Store(uint32(role))
	r.change(i, func(st *StepStatus) { st.Apart, st.Current = time.Time{}, "" })
}

// wish is what was noted last.
func (s *slot) wish() Role { return Role(s.wished.Load()) }

// record makes an entry durable. Letting go waits for no disk: a demotion goes on without.
func (r *Runner) record(ctx context.Context, e Entry) error {
	err := r.o.Journal.add(ctx, e)
	if err != nil && e.Action == Demotion {
		Logger(ctx).Warn("the journal is not written, and the resource is demoted without it", "err", err)
		return nil
	}
	return err
}

// marks is what an action of a resource gets.
func (r *Runner) marks(i int, entry func(EntryState) Entry) Marks {
	return Marks{
		Mark: func(ctx context.Context, step string, final bool) error {
			t := tetherOf(ctx)
			t.held.Store(false)
			r.change(i, func(st *StepStatus) { st.Current = step })
			e := entry(Marked)
			e.Step = step
			if err := r.record(ctx, e); err != nil {
				return err
			}
			if !final || r.o.Permit == nil {
				return nil
			}
			if err := r.permitted(ctx); err != nil {
				return err
			}
			t.held.Store(true)
			return nil
		},
		Remember: func(ctx context.Context, key, value string) error {
			e := entry(Remembered)
			e.Key, e.Value = key, value
			return r.o.Journal.add(ctx, e)
		},
		Recall: func(key string) string { return r.o.Journal.recall(r.slots[i].Name, key) },
	}
}

// insist calls until it works, fails for good, or the time is over; a call is told how much
// of that is left. One before that was left behind is waited for as long.
func (r *Runner) insist(ctx context.Context, timeout time.Duration, call func(ctx context.Context, left time.Duration) error) error {
	late := time.Now().Add(timeout)
	for n, pause := 1, firstPause; ; n, pause = n+1, min(2*pause, longPause) {
		err := call(ctx, time.Until(late))
		if err == nil || ctx.Err() != nil || !tryAgain(err) && !errors.Is(err, errLeftBehind) {
			return err
		}
		if time.Until(late) <= pause {
			return fmt.Errorf("tried %d times within its timeout of %v: %w", n, timeout, err)
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return fmt.Errorf("%w after %d tries: %w", ctx.Err(), n, err)
		}
	}
}

// lookAgain compares what a resource says of itself with what the call said. The caller
// holds busy.
func (r *Runner) lookAgain(ctx context.Context, i int, err error, want Role) error {
	report, blind := Report{}, ctx.Err()
	if blind == nil {
		report, blind = r.look(ctx, i)
	}
	switch {
	case err != nil:
		return err
	case blind != nil:
		return fmt.Errorf("it says that it is %v, and cannot be looked at: %w", want, blind)
	case report.Role != want:
		return fmt.Errorf("it says that it is %v, and is %v: %s", want, report.Role, report.Text)
	}
	return nil
}
