package daemon

import (
	"context"
	"sync"

	"github.com/carpd/carpd/carp"
)

// worker is the mailbox of a speaker and what empties it, for engines that are the test:
// the newest transition wins, and cancels what runs.
type worker struct {
	mu     *sync.Mutex // of whom it works for
	latest carp.Transition
	next   *carp.Transition
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{}
}

func newWorker(mu *sync.Mutex) worker { return worker{mu: mu, wake: make(chan struct{}, 1)} }

// put replaces what waits. The caller has mu, until all know of the transition.
func (w *worker) put(t carp.Transition) {
	w.latest, w.next = t, &t
	if w.cancel != nil {
		w.cancel()
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	select {
	case w.wake <- struct{}{}:
	default: // it is woken already
	}
}

// work is Speaker.work: become, which is called with mu, is what the engine makes of the
// end of a transition that is the latest still.
func (w *worker) work(ctx context.Context, handle func(context.Context, carp.Transition) error, become func(carp.State, carp.Reason)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		w.mu.Lock()
		t, run := w.next, w.ctx
		w.next = nil
		w.mu.Unlock()
		if t == nil {
			continue
		}
		err := handle(run, *t)
		w.mu.Lock()
		switch {
		case *t != w.latest:
		case t.To == carp.Master && err != nil && run.Err() == nil:
			become(carp.Backup, carp.ReasonFailed)
		case t.To == carp.Releasing:
			become(carp.Backup, carp.ReasonReleased)
		}
		w.mu.Unlock()
	}
}
