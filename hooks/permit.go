package hooks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// permitPoll is between two looks at the permit.
const permitPoll = 20 * time.Millisecond

// permitted waits until this node may act as master, no longer than the call may take: the
// first permit of a mastership comes after its first advert, its grace and its guard. One
// that has ended comes back when the loop goes on and finds the node master still; if it
// finds that it is not, the call is cancelled.
func (r *Runner) permitted(ctx context.Context) error {
	each := time.NewTicker(permitPoll)
	defer each.Stop()
	for {
		err := r.o.Permit()
		if err == nil {
			return nil
		}
		select {
		case <-each.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// tether ties a call to the permit while a step without return is under way: from
// MarkNoReturn to the next mark, or the end of the call.
type tether struct{ held atomic.Bool }

type tetherKey struct{}

// tetherOf returns one that ties nothing if the call needs no permit.
func tetherOf(ctx context.Context) *tether {
	if t, ok := ctx.Value(tetherKey{}).(*tether); ok {
		return t
	}
	return &tether{}
}

// permitLost is why a call was cancelled.
type permitLost struct{ error }

func (p permitLost) Unwrap() error { return p.error }

// underPermit makes a call, and cancels it if the permit ends during a step without
// return, though the node may be master still: its adverts cannot be sent, and another one
// may be elected. Such a call may be made again, which waits for the next permit.
func (r *Runner) underPermit(ctx context.Context, call func(context.Context) error) error {
	if r.o.Permit == nil {
		return call(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	t := &tether{}
	var watch sync.WaitGroup
	watch.Go(func() { r.holdTo(ctx, t, cancel) })
	err := call(context.WithValue(ctx, tetherKey{}, t))
	cancel(nil)
	watch.Wait()
	if lost, ok := errors.AsType[permitLost](context.Cause(ctx)); ok && err != nil {
		return TryAgain(fmt.Errorf("cancelled within a step without return: %w: %w", lost, err))
	}
	return err
}

// holdTo looks at the permit until ctx ends.
func (r *Runner) holdTo(ctx context.Context, t *tether, cancel context.CancelCauseFunc) {
	each := time.NewTicker(permitPoll)
	defer each.Stop()
	for {
		select {
		case <-each.C:
		case <-ctx.Done():
			return
		}
		if !t.held.Load() {
			continue
		}
		if err := r.o.Permit(); err != nil {
			cancel(permitLost{err})
			return
		}
	}
}
