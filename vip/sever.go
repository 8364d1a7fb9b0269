package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// A session outlives its address: when that has gone to another node, this one keeps
// the socket, and with it the server's transaction and locks, without end. So the
// sockets go with the addresses: first the sockets, since then the client is told
// (RST) at once. With the address gone there is no way for that to leave by.
const (
	// severPlanned and severHurried are how long addresses may stay on for the sake of
	// their sockets: the first where they go by plan, the second where another master
	// lives or the permit has ended. A thousand sockets take about 10 ms. The rest is
	// destroyed when the addresses are off, severAfter in one go, so that an Up or a
	// renewal need not wait longer, and severEvery apart.
	severPlanned = 100 * time.Millisecond
	severHurried = 20 * time.Millisecond
	severAfter   = 100 * time.Millisecond
	severEvery   = 20 * time.Millisecond
	// severTries bounds how often the rest is tried.
	severTries = 100
)

// severBudget is how long the addresses may stay on for their sockets' sake.
func severBudget(why EventKind) time.Duration {
	if why == EventDown {
		return severPlanned
	}
	return severHurried
}

// sever destroys the sockets of placed, which are about to leave the interface with
// this index, or have left it, and takes no longer than budget. It reports whether
// some may be left. That it cannot be done is told once.
func (s *Set) sever(index int, placed []netip.Prefix, budget time.Duration) (more bool) {
	if len(placed) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), budget)
	defer cancel()
	n, err := s.k.Sever(ctx, index, addrsOf(placed))
	more = errors.Is(err, context.DeadlineExceeded)
	if n > 0 {
		s.tell(Event{Kind: EventSevered, Addresses: placed, Text: fmt.Sprintf("%d sessions with the addresses were ended, so that they hold nothing here", n)})
	}
	if err == nil || more {
		return more
	}
	s.mu.Lock()
	told := s.state.unsevered
	s.state.unsevered = true
	s.mu.Unlock()
	if !told {
		s.tell(Event{Kind: EventFailed, Addresses: placed, Err: err,
			Text: "sessions with the addresses could not be ended: clients hang, and what the sessions hold on this node stays held until the server ends them"})
	}
	return false
}

// linger plans that the worker destroys the sockets that are left.
func (s *Set) linger(placed []netip.Prefix) {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.serving {
		return
	}
	s.state.lingering, s.state.severTry, s.state.severAt = placed, 0, now
	s.stir()
}

// severRest is the worker's part: another go at what is left. The caller has the token.
func (s *Set) severRest() {
	s.mu.Lock()
	placed, index := s.state.lingering, s.state.on.Index
	idle := s.state.serving
	s.mu.Unlock()
	if idle {
		return // sessions with a master are none of what is left
	}
	more := s.sever(index, placed, severAfter)
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.severTry++
	s.state.severAt = now.Add(severEvery)
	if !more || s.state.severTry >= severTries || s.state.serving {
		s.state.lingering = nil
	}
}

// severStale destroys what an earlier run of this node left: the kernel has taken the
// addresses off since, but not ended the sessions.
func (s *Set) severStale(ctx context.Context) {
	if s.take(ctx) != nil {
		return
	}
	defer s.release()
	s.mu.Lock()
	want, idle := s.state.want, !s.state.serving && len(s.state.placed) == 0
	s.mu.Unlock()
	if idle && s.sever(0, want, severAfter) {
		s.linger(want)
	}
}

// severDropped destroys the sockets of addresses that a Reconfigure takes off.
func (s *Set) severDropped(on Link, old, now []netip.Prefix) {
	stay := addrSet(now)
	s.sever(on.Index, slices.DeleteFunc(slices.Clone(old), func(p netip.Prefix) bool { return stay[p.Addr()] }), severHurried)
}

func addrsOf(prefixes []netip.Prefix) []netip.Addr {
	out := make([]netip.Addr, len(prefixes))
	for i, p := range prefixes {
		out[i] = p.Addr()
	}
	return out
}
