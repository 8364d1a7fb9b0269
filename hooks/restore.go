package hooks

import (
	"context"
	"fmt"
)

// Restorer is a Resource of a database whose program can be given a snapshot while it
// runs: an operator asked for it, and the role stays where it is.
type Restorer interface {
	Resource
	// Database returns the path of the database.
	Database() string
	// Restore has the running program use what the file snapshot holds, which was verified,
	// and looks whether it does. An error says that it may use half of it.
	Restore(ctx context.Context, snapshot string) error
}

// Between runs f while no hook, promotion or demotion of this Runner is at work, and none
// begins. Looks go on.
func (r *Runner) Between(ctx context.Context, f func(context.Context) error) error {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return fmt.Errorf("hooks: wait for what is at work: %w", context.Cause(ctx))
	}
	return f(ctx)
}

// Restores reports whether a Restorer of this Runner has the database.
func (r *Runner) Restores(database string) bool { return r.restorer(database) >= 0 }

// restorer returns the place of the Restorer that has the database, or -1.
func (r *Runner) restorer(database string) int {
	for i := range r.slots {
		if one, ok := r.slots[i].Resource.(Restorer); ok && one.Database() == database {
			return i
		}
	}
	return -1
}

// Restore calls the Restorer that has the database, when nothing else is at work.
func (r *Runner) Restore(ctx context.Context, database, snapshot string) error {
	i := r.restorer(database)
	if i < 0 {
		return fmt.Errorf("hooks: restore %s: no resource has it", database)
	}
	s := &r.slots[i]
	err := r.Between(ctx, func(ctx context.Context) error {
		if err := s.seize(ctx); err != nil {
			return err
		}
		defer func() { <-s.busy }()
		log := r.o.Log.With("hook", s.Name, "kind", s.Kind)
		return s.call(withLogger(ctx, log), s.Timeout, func(ctx context.Context) error { return s.Resource.(Restorer).Restore(ctx, snapshot) })
	})
	if err != nil {
		return fmt.Errorf("hooks: restore %s (%s): %w", s.Name, s.Kind, err)
	}
	return nil
}
