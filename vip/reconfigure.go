package vip

import (
	"context"
	"errors"
	"net/netip"
	"slices"
)

// Reconfigure changes the addresses and the lease. While the set is up it waits
// for a permit, puts the new addresses on and takes the old ones off in one
// batch, and announces; addresses in both lists stay as they are. On an error
// the set keeps its old configuration.
func (s *Set) Reconfigure(ctx context.Context, addresses []netip.Prefix, lease Lease) error {
	want := normal(addresses)
	for {
		if err := s.awaitRoom(ctx, lease); err != nil {
			return &OpError{Op: "change addresses", Link: s.link, Err: err}
		}
		if err := s.take(ctx); err != nil {
			return &OpError{Op: "change addresses", Link: s.link, Err: err}
		}
		err := s.reshape(want, lease)
		s.release()
		if !errors.Is(err, errNoRoom) {
			return err
		}
	}
}

// awaitRoom waits until the set is down or may put addresses on under lease.
func (s *Set) awaitRoom(ctx context.Context, lease Lease) error {
	for {
		s.mu.Lock()
		ready := !s.state.serving || s.state.room(lease, s.clock())
		changed := s.change()
		s.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// reshape takes on a configuration, and brings the addresses into line with it
// if they are on. The caller has the token.
func (s *Set) reshape(want []netip.Prefix, lease Lease) error {
	s.mu.Lock()
	oldWant, oldLease, old, on := s.state.want, s.state.lease, s.state.placed, s.state.on
	s.state.want, s.state.lease = want, lease
	serving := s.state.serving
	s.mu.Unlock()
	if err := s.protect(); err != nil { // what is old and what is new, until one of them is off
		s.mu.Lock()
		defer s.mu.Unlock()
		s.state.want, s.state.lease = oldWant, oldLease
		return err
	}
	if !serving {
		return nil
	}
	err := s.reshapeOn(old)
	if err == nil {
		return s.protect()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.state.serving {
		return nil // ended meanwhile, and all is off: the next Up takes the new list
	}
	s.state.want, s.state.lease = oldWant, oldLease
	s.state.placed, s.state.on = old, on
	s.state.lookAt = s.clock() // the worker puts back what the attempt took
	s.stir()
	return err
}

func (s *Set) reshapeOn(old []netip.Prefix) error {
	v, err := s.prepare()
	if err != nil {
		return err
	}
	s.mu.Lock()
	st := &s.state
	room := st.room(st.lease, s.clock())
	if st.serving && room {
		// Both, so that they are taken off together if the permit ends meanwhile.
		st.on, st.placed = v.link, union(v.placed, old)
	}
	serving := st.serving
	s.mu.Unlock()
	switch {
	case !serving:
		return ErrSuperseded
	case !room:
		return errNoRoom
	}
	s.severDropped(v.link, old, v.placed)
	if err := s.commit(v.changes, nil); err != nil {
		// Off with what is new; the addresses that were there before stay.
		s.mu.Lock()
		st.strays = union(st.strays, without(v.placed, old))
		if st.serving {
			st.placed = old
		}
		s.mu.Unlock()
		return errors.Join(err, s.sweep(v.link))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.serving {
		now := s.clock()
		s.state.placed = v.placed
		s.state.settle(now, nil)
		s.state.burst(now, s.announce, 0)
		s.stir()
	}
	return nil
}

// sweep takes off what a Reconfigure that failed may have left. Until that works
// it is remembered: neither the old configuration nor the next one names it. The
// caller has the token.
func (s *Set) sweep(on Link) error {
	s.mu.Lock()
	strays := without(s.state.strays, s.state.placed)
	s.mu.Unlock()
	if len(strays) > 0 {
		if err := s.k.Apply(removes(on, strays)); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.state.strays = nil
	s.mu.Unlock()
	return nil
}

func union(a, b []netip.Prefix) []netip.Prefix { return append(slices.Clone(a), without(b, a)...) }

func without(a, b []netip.Prefix) []netip.Prefix {
	not := make(map[netip.Prefix]bool, len(b))
	for _, p := range b {
		not[p] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(p netip.Prefix) bool { return not[p] })
}
