package carp

import (
	"sync"
	"time"
)

const (
	// maxUntold bounds the transitions that wait for an Observe that hangs.
	maxUntold = 256
	// maxTelling is how long others wait for Observe, for the sake of order only.
	maxTelling = 100 * time.Millisecond
)

// herald tells an observer of every transition in order, in a goroutine that lives
// while there is something to tell: so a loop never waits for an observer.
type herald struct {
	mu      sync.Mutex
	untold  []telling
	telling bool
}

// telling is one transition, and what is closed when the observer knows it.
type telling struct {
	t    Transition
	done chan struct{}
}

// tell has observe called with t, and returns what is closed after that. While
// observe hangs the oldest transitions are forgotten, beyond maxUntold.
func (h *herald) tell(observe func(Transition), t Transition) (told <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.untold) == maxUntold {
		close(h.untold[0].done)
		h.untold = append(h.untold[:0], h.untold[1:]...)
	}
	next := telling{t, make(chan struct{})}
	h.untold = append(h.untold, next)
	if !h.telling {
		h.telling = true
		go h.run(observe)
	}
	return next.done
}

func (h *herald) run(observe func(Transition)) {
	for {
		h.mu.Lock()
		if len(h.untold) == 0 {
			h.telling = false
			h.mu.Unlock()
			return
		}
		next := h.untold[0]
		h.untold = h.untold[1:]
		h.mu.Unlock()
		observe(next.t)
		close(next.done)
	}
}

// await waits for what tell returned, nil included, but not for ever.
func await(told <-chan struct{}) {
	if told == nil {
		return
	}
	select {
	case <-told:
	case <-time.After(maxTelling):
	}
}
