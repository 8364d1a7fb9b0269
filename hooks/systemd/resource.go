package systemd

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/carpd/carpd/hooks"
)

// hook does one thing to a unit.
type hook struct {
	manager manager
	action  Action
}

// Run implements hooks.Hook.
func (h hook) Run(ctx context.Context, _ hooks.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return h.manager.do(ctx, h.action)
}

// resource is a unit that runs where the role is.
type resource struct {
	manager manager
	unit    string
	wished  atomic.Bool // it was promoted last, by this process
}

// pauses between looks at a unit that is on its way.
const (
	firstPause = 100 * time.Millisecond
	longPause  = 2 * time.Second
)

// Promote starts the unit, and waits until it runs. It implements hooks.Resource.
func (r *resource) Promote(ctx context.Context, _ hooks.Event) error {
	if err := hooks.Mark(ctx, "look"); err != nil {
		return err
	}
	s, err := r.manager.state(ctx)
	switch {
	case err != nil:
		return err
	case !s.there():
		return hooks.Refuse(fmt.Errorf("systemd: start %s: the unit is %s: install or unmask it", r.unit, s.load))
	case s.running():
		r.wished.Store(true)
		return nil
	}
	if err := hooks.MarkNoReturn(ctx, "start"); err != nil {
		return err
	}
	if err := r.manager.do(ctx, Start); err != nil {
		return err
	}
	if err := r.await(ctx, Start, state.running); err != nil {
		return err
	}
	r.wished.Store(true)
	return nil
}

// Demote stops the unit, and waits until nothing of it runs. It implements
// hooks.Resource.
func (r *resource) Demote(ctx context.Context, _ hooks.Event) error {
	r.wished.Store(false)
	if err := hooks.Mark(ctx, "stop"); err != nil {
		return err
	}
	if err := r.manager.do(ctx, Stop); err != nil {
		return err
	}
	return r.await(ctx, Stop, state.stopped)
}

// await looks until the unit is as it should be.
func (r *resource) await(ctx context.Context, a Action, is func(state) bool) error {
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		s, err := r.manager.state(ctx)
		switch {
		case err == nil && is(s):
			return nil
		case err == nil && a == Start && s.stopped() && s.load != "":
			// systemd knows that nothing will come any more; a status script does not.
			return fmt.Errorf("systemd: start %s: it says that it is started, and it is %v", r.unit, s)
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("systemd: %s %s: it is %v: %w", a, r.unit, s, ctx.Err())
		}
	}
}

// Monitor implements hooks.Resource.
func (r *resource) Monitor(ctx context.Context) (hooks.Report, error) {
	s, err := r.manager.state(ctx)
	if err != nil {
		return hooks.Report{Health: hooks.Unfit}, err
	}
	return s.report(r.wished.Load()), nil
}
