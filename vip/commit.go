package vip

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/carpd/carpd/carp"
)

const (
	// commitStep is how many changes are made between two looks at the permit. With ten
	// thousand addresses on an interface it takes the kernel 50 ms.
	commitStep = 250
	// longBatch is how many changes make a batch after whose steps something is done.
	longBatch = 2000
	// refreshMost is how many steps of a long batch are renewed between two new ones.
	refreshMost = 4
)

// room reports whether a step that is begun at now, and takes as long as the last
// ones did, ends when l still allows what it puts on: the lifetime of the last
// address begins only then.
func (st *state) room(l Lease, now carp.Instant) bool {
	if l.Promised {
		now = now.Add(st.took)
	}
	return l.Allows(st.permit, now)
}

// commit is the one function that changes the kernel's addresses for a
// mastership. Afterwards it looks at the permit again. If that has ended
// meanwhile, because the process was frozen between the check and the call, the
// addresses are taken off at once. If it lives, but the batch was so slow that
// the lease of the last address may outlive it, a fresher permit makes that good;
// where none comes at once the addresses go, and a look puts them back when there
// is room. The error is errNoRoom if not all was done, and nothing is wrong: the
// rest would have ended too late.
//
// Missing is what is placed but left out of the changes. The caller has the token
// and has asked for the permit last thing before.
func (s *Set) commit(changes []Change, missing []netip.Prefix) error {
	return s.commitEach(changes, missing, func(int, bool) bool { return true })
}

// commitEach is commit that calls between after each step but the last, with how many
// addresses are put on so far, and goes on only if that says so.
func (s *Set) commitEach(changes []Change, missing []netip.Prefix, between func(put int, long bool) bool) error {
	s.tellPlace()
	all, since, err := s.apply(changes, between)
	ended := s.clock()
	over := s.judge(ended)
	if over == ErrLate && s.fresher(ended) {
		over = s.judge(ended)
	}
	switch {
	case over == ErrLate:
		return errors.Join(over, err, s.yank())
	case over != nil:
		return errors.Join(over, err, s.clear(context.Background()))
	case err == nil && !all:
		return errNoRoom
	case err == nil:
		s.mu.Lock()
		s.state.settle(since, missing)
		s.mu.Unlock()
	}
	return err
}

// tellPlace tells Config.Place what may be on from now on, if it does not know. The
// caller has the token.
func (s *Set) tellPlace() {
	if s.place == nil {
		return
	}
	s.mu.Lock()
	index, all := s.state.on.Index, union(s.state.placed, s.state.strays)
	s.mu.Unlock()
	if index != s.told.index || !slices.Equal(all, s.told.prefixes) {
		s.told.index, s.told.prefixes = index, all
		s.place(index, all)
	}
}

// step is a part of a batch that was made at an instant.
type step struct {
	changes []Change
	at      carp.Instant
}

// apply makes the changes a step at a time. Where the permit has no room for the
// next step it asks for a fresher one, and stops if none comes. A batch of thousands
// takes longer than a short lease: what was put on first is renewed meanwhile. It
// reports whether all were tried, since when the oldest of them has its lifetime, and
// the first error.
func (s *Set) apply(changes []Change, between func(put int, long bool) bool) (all bool, since carp.Instant, err error) {
	s.mu.Lock()
	valid := s.state.lease.Valid
	s.mu.Unlock()
	var done []step
	put, slowest, long := 0, time.Duration(0), len(changes) > longBatch
	one := func(changes []Change) {
		began := s.clock()
		err = merge(err, s.k.Apply(changes))
		done = append(done, step{puttings(changes), began})
		slowest = max(slowest, s.clock().Sub(began))
		s.mu.Lock()
		s.state.took = slowest
		s.mu.Unlock()
	}
	for len(changes) > 0 {
		next := changes[:min(commitStep, len(changes))]
		changes = changes[len(next):]
		one(next)
		if put += len(puttings(next)); len(changes) > 0 && !between(put, long) {
			return false, done[0].at, err
		}
		for range refreshMost {
			// On a kernel so slow that a few steps take a lifetime it would never end.
			if valid == 0 || s.clock().Sub(done[0].at) < valid*3/4 || slowest > valid/8 {
				break
			}
			if !s.goOn(s.clock()) {
				return false, done[0].at, err
			}
			oldest := done[0]
			done = done[1:]
			one(oldest.changes)
		}
		if len(changes) > 0 && !s.goOn(s.clock()) {
			return false, done[0].at, err
		}
	}
	if len(done) == 0 {
		return true, s.clock(), err
	}
	return true, done[0].at, err
}

// puttings returns what of changes puts an address on: there is nothing else to renew.
func puttings(changes []Change) []Change {
	if !slices.ContainsFunc(changes, func(c Change) bool { return c.Op != Put }) {
		return changes
	}
	return slices.DeleteFunc(slices.Clone(changes), func(c Change) bool { return c.Op != Put })
}

// goOn reports whether another step may be made.
func (s *Set) goOn(now carp.Instant) bool {
	may := func() (serving, room bool, took time.Duration) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.state.serving, s.state.room(s.state.lease, now), s.state.took
	}
	serving, room, took := may()
	if serving && !room && s.fresher(now.Add(took)) {
		now = s.clock()
		serving, room, _ = may()
	}
	return serving && room
}

// merge returns the first of two errors of a batch, with the second counted.
func merge(first, second error) error {
	a, isOp := errors.AsType[*OpError](first)
	b, areOps := errors.AsType[*OpError](second)
	if !isOp || !areOps {
		return errors.Join(first, second)
	}
	both := *a
	both.More += 1 + b.More
	return &both
}

// judge returns what a batch that ended at this instant must be followed by: nil,
// ErrLate, or why the addresses go.
func (s *Set) judge(ended carp.Instant) error {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.state
	switch {
	case !st.serving:
		// Down waits for the token, or the worker does: do not let them wait.
		return ErrSuperseded
	case !st.permit.Live(now):
		s.end(EventLapsed)
		return ErrLapsed
	case !st.lease.Allows(st.permit, ended):
		return ErrLate
	}
	return nil
}

// fresher asks for a permit that allows what was put on at this instant, and waits
// for it a moment. It reports whether to look at the permit again; that may have
// ended as well.
func (s *Set) fresher(ended carp.Instant) bool {
	if s.needPermit == nil {
		return false
	}
	s.ask()
	late := time.NewTimer(askEvery)
	defer late.Stop()
	for {
		s.mu.Lock()
		st := &s.state
		again := !st.serving || !st.permit.Live(s.clock()) || st.lease.Allows(st.permit, ended)
		changed := s.change()
		s.mu.Unlock()
		if again {
			return true
		}
		select {
		case <-changed:
		case <-late.C:
			return true
		}
	}
}

// yank takes off all that is placed while the set serves, and plans the look that
// puts it back.
func (s *Set) yank() error {
	now := s.clock()
	s.mu.Lock()
	st := &s.state
	on, placed := st.on, st.placed
	st.present = presence(placed, placed)
	st.lookAt = now
	s.mu.Unlock()
	return s.k.Apply(removes(on, placed))
}
