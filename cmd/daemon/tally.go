package daemon

import (
	"sync"
	"time"

	"github.com/carpd/carpd/hooks"
)

// tally counts the calls of hooks by name. It is safe for concurrent use, and its zero
// value has counted nothing. A hook that a reload removed keeps its entry: a file has so
// many names only.
type tally struct {
	mu  sync.Mutex
	all map[string]calls
}

// calls are those of one hook.
type calls struct {
	runs, failures uint64
	last           time.Duration // how long the last one took
}

// add counts a call.
func (t *tally) add(r hooks.Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = map[string]calls{}
	}
	c := t.all[r.Step.Name]
	c.runs++
	c.last = r.Duration
	if r.Err != nil {
		c.failures++
	}
	t.all[r.Step.Name] = c
}

func (t *tally) of(name string) calls {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all[name]
}
