package replicator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// flushPoll is how often Flush looks how far it is.
const flushPoll = 5 * time.Millisecond

// ErrNotFlushed is the error of a role that is given up with changes that others do not
// have.
var ErrNotFlushed = errors.New("replicator: left with changes that not every peer has")

// Flush takes a snapshot of what has changed until now, without waiting for more, and
// returns once it is with every peer that can be served: for a role that is given up
// with time to spare. It is called while Run runs, and may be called by anybody. The
// error is ErrNotFlushed, and says what is where.
func (m *Master) Flush(ctx context.Context) error {
	m.mu.Lock()
	before := m.copies // the last of these may have missed what was committed just now
	m.wanted = before + 1
	m.mu.Unlock()
	select {
	case m.hurry <- struct{}{}:
	default:
	}
	tick := time.NewTicker(flushPoll)
	defer tick.Stop()
	for {
		done, left := m.flushed(before)
		if done {
			return left
		}
		select {
		case <-ctx.Done():
			return left
		case <-tick.C:
		}
	}
}

// flushed reports whether nothing more comes of waiting, and what is left.
func (m *Master) flushed(before uint64) (done bool, left error) {
	m.mu.Lock()
	seen := m.stored > before
	m.mu.Unlock()
	s := m.Status()
	switch {
	case !s.Superseded.IsZero():
		return true, fmt.Errorf("%w: %v of a greater mastership is in the own store", ErrNotFlushed, s.Superseded)
	case !seen && s.LastError != "":
		return false, fmt.Errorf("%w: the last changes are in no snapshot: %s", ErrNotFlushed, s.LastError)
	case !seen:
		return false, fmt.Errorf("%w: the last changes are in no snapshot", ErrNotFlushed)
	}
	done = true
	var without []string
	for _, p := range s.Peers {
		if p.State == PeerCurrent && p.There == s.Newest.Version {
			continue
		}
		without = append(without, p.Name)
		done = done && (p.State == PeerFailing || p.State == PeerOlder)
	}
	if len(without) > 0 {
		return done, fmt.Errorf("%w: %v is not with %s", ErrNotFlushed, s.Newest.Version, strings.Join(without, ", "))
	}
	return true, nil
}
