package hooks

import (
	"context"
	"sync/atomic"
)

// hold is the right to call a resource, hook or monitor: one call at a time. That of a
// resource belongs to its journal, so that the Runners before and after a reload share it.
type hold struct {
	busy   chan struct{}                      // held by who calls
	left   <-chan error                       // of the holder: where a call ends that was left behind
	wanted atomic.Int32                       // actions that wait for busy
	stop   atomic.Pointer[context.CancelFunc] // ends the look that is under way
	wished atomic.Uint32                      // the Role that a resource should be in, as the last action says
}

func newHold() *hold { return &hold{busy: make(chan struct{}, 1)} }

// seize takes the right for an action. A look that is under way is cut short: letting go
// of a resource does not wait for a monitor.
func (h *hold) seize(ctx context.Context) error {
	h.wanted.Add(1)
	defer h.wanted.Add(-1)
	if stop := h.stop.Load(); stop != nil {
		(*stop)()
	}
	select {
	case h.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// spare takes the right for a look, if nobody has or wants it. The context that it
// returns ends when somebody wants it; release gives it back.
func (h *hold) spare(ctx context.Context) (look context.Context, release func(), ok bool) {
	select {
	case h.busy <- struct{}{}:
	default:
		return nil, nil, false
	}
	look, stop := context.WithCancel(ctx)
	h.stop.Store(&stop)
	if h.wanted.Load() > 0 { // it came before it could see stop
		stop()
	}
	return look, func() {
		h.stop.Store(nil)
		stop()
		<-h.busy
	}, true
}
