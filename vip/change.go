package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/carpd/carpd/carp"
)

// Up waits for a live permit of this epoch, puts all addresses on in one batch
// and sends the first round of announcements. On an error nothing is left
// behind, with two exceptions. A call that is superseded by Down, Leave, a
// withdrawn permit or another Up leaves a set that was up before to them. And the end of
// ctx under a live permit, as when a mastership is contested, leaves on what is
// on: the caller goes on with another Up or with Down, and the end of the permit
// takes the addresses off as ever. To call Up while the set is up is harmless:
// the addresses stay and are announced again.
func (s *Set) Up(ctx context.Context, epoch carp.Epoch) error {
	s.mu.Lock()
	s.state.turn++
	turn := s.state.turn
	was := s.state.serving
	s.mu.Unlock()

	for raised := false; !raised; {
		if err := s.awaitPermit(ctx, epoch, turn); err != nil {
			return s.upError(err)
		}
		if err := s.take(ctx); err != nil {
			return s.upError(err)
		}
		err := s.raise(epoch, turn)
		s.release()
		if err != nil && !errors.Is(err, errNoRoom) {
			return s.upError(err)
		}
		raised = err == nil
	}
	s.mu.Lock()
	announced := s.state.announced
	s.mu.Unlock()
	if err := s.firstRound(ctx, turn, announced); err != nil {
		if !was && (ctx.Err() == nil || !s.serves(epoch)) {
			_ = s.take(context.Background())
			s.drop(turn)
			s.release()
		}
		return s.upError(err)
	}
	s.mu.Lock()
	placed := s.state.placed
	if s.state.turn == turn {
		s.state.burst(s.clock(), s.announce, 1)
		s.stir()
	}
	s.mu.Unlock()
	s.tell(Event{Kind: EventUp, Epoch: epoch, Addresses: placed, Text: "addresses are on and announced"})
	return nil
}

// serves reports whether the addresses are on under a live permit of epoch or a
// later one, which carries it on.
func (s *Set) serves(epoch carp.Epoch) bool {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.serving && s.state.permit.Epoch >= epoch && s.state.permit.Live(now)
}

// Leave ends an Up that is under way, which then is superseded: its rest does not go on
// any more, and what is on stays until Down. For a node that leaves the role while
// thousands of addresses go on, and has to let go of them in time. It never blocks.
func (s *Set) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.turn++
	s.stir()
}

// isTurn reports whether nothing has superseded the Up of this turn.
func (s *Set) isTurn(turn uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.turn == turn
}

func (s *Set) upError(err error) error {
	if _, ok := errors.AsType[*OpError](err); ok {
		return err
	}
	return &OpError{Op: "add", Link: s.link, Err: err}
}

// awaitPermit waits until an add is allowed. A permit of a later epoch ends the
// wait with ErrSuperseded.
func (s *Set) awaitPermit(ctx context.Context, epoch carp.Epoch, turn uint64) error {
	if epoch == 0 {
		return ErrLapsed
	}
	for {
		s.mu.Lock()
		st, changed := &s.state, s.change()
		allowed := st.permit.Epoch == epoch && st.room(st.lease, s.clock())
		over := st.turn != turn || st.permit.Epoch > epoch
		s.mu.Unlock()
		if err := ctx.Err(); err != nil {
			return err
		}
		if over {
			return ErrSuperseded
		}
		if allowed {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// raise puts the addresses on. The caller has the token.
func (s *Set) raise(epoch carp.Epoch, turn uint64) error {
	err := s.protect()
	var v survey
	if err == nil {
		v, err = s.prepare()
	}
	if err == nil {
		err = s.refuseForeign(v)
	}
	if err != nil {
		s.drop(turn)
		return err
	}
	// The look above took time: ask again, last thing before the call.
	s.mu.Lock()
	st := &s.state
	mine := st.turn == turn
	allowed := st.permit.Epoch >= epoch && st.room(st.lease, s.clock())
	if mine && allowed {
		st.serving, st.epoch, st.lingering = true, epoch, nil
		st.slow, st.failing, st.gone, st.mute = false, false, false, false
		st.lostAt, st.owed = 0, nil
		st.on, st.placed, st.tokens = v.link, v.placed, tokens{}
		st.raised, st.lowerAt, st.announced = s.device.Name != "", 0, 0
	}
	s.mu.Unlock()
	switch {
	case !mine:
		return ErrSuperseded
	case !allowed:
		return errNoRoom
	}
	if err := s.openGate(turn); err != nil {
		s.drop(turn)
		return err
	}
	between := func(put int, long bool) bool {
		if long {
			s.announceUpTo(put)
		}
		return s.isTurn(turn)
	}
	if err := s.commitEach(v.changes, nil, between); errors.Is(err, errNoRoom) {
		return err // what is on stays within the permit, the rest comes with the next
	} else if err != nil {
		s.drop(turn)
		return err
	}
	s.warnSecondaries(v)
	return nil
}

// refuseForeign keeps a set from taking over an address that somebody else put on
// the interface for good: it would go when the mastership ends, and if it was the
// node's own, the node with it.
func (s *Set) refuseForeign(v survey) error {
	s.mu.Lock()
	placed := s.state.placed
	s.mu.Unlock()
	found, where := permanent(v.have, v.placed, placed), v.link.Name
	if len(found) == 0 {
		found, where = permanent(v.own, v.placed, placed), s.link
	}
	if len(found) == 0 {
		return nil
	}
	return &OpError{
		Op: "add", Addr: found[0], Link: where, Err: ErrForeign, More: len(found) - 1,
		Hint: fmt.Sprintf("take it out of the network configuration, ip address del %v dev %s; if it is the node's own, out of addresses", found[0], where),
	}
}

// errNoRoom: the permit has too little left for a lease; the next one may do.
var errNoRoom = errors.New("the permit has too little left")

// survey is a look at the interface, and what to do to have the addresses on.
type survey struct {
	base    Link           // the interface
	link    Link           // where the addresses go: base, or our device on it; zero: that is not as it must be
	own     []Addr         // of base
	have    []Addr         // of link
	placed  []netip.Prefix // forms of the wanted addresses
	changes []Change
}

func (s *Set) survey() (survey, error) {
	var v survey
	var err error
	if v.base, err = s.k.Link(s.link); err != nil {
		return survey{}, err
	}
	if v.own, err = s.k.Addrs(v.base.Index); err != nil {
		return survey{}, err
	}
	v.link, v.have = v.base, v.own
	if s.device.Name != "" {
		if v.link, v.have, err = s.surveyDevice(v.base); err != nil {
			return survey{}, err
		}
	}
	s.mu.Lock()
	want, on, lease := s.state.want, s.state.on, s.state.lease
	old := union(s.state.placed, s.state.strays)
	s.mu.Unlock()
	// The form is kept also on an interface that was made anew: its own addresses
	// may come back after ours.
	if s.device.Name == "" {
		v.placed = forms(want, v.own, old)
	} else {
		v.placed = deviceForms(want, v.own, old)
	}
	if v.link.Index == 0 {
		return v, nil
	}
	if on.Index != v.link.Index {
		// Renamed, or made anew: in the first case ours are still on the other one.
		v.changes, old = removes(on, old), nil
	}
	if s.device.Name != "" {
		old = union(old, marked(v.have)) // nobody else's are there
		if !v.link.Up {
			v.changes = append(v.changes, Change{Op: SetUp, Index: v.link.Index, Link: v.link.Name})
		}
	}
	v.changes = append(v.changes, plan(v.link, v.have, v.placed, old, lease)...)
	return v, nil
}

func (s *Set) warnSecondaries(v survey) {
	if v.link.PromoteSecondaries || s.device.Name != "" {
		return
	}
	var wide []netip.Prefix
	for _, p := range v.placed {
		if p.Addr().Is4() && !p.IsSingleIP() {
			wide = append(wide, p)
		}
	}
	if len(wide) > 0 {
		s.tell(Event{Kind: EventSecondaries, Addresses: wide, Text: fmt.Sprintf(
			"%v goes up as written and may be the first of its subnet; when it goes the kernel removes the others of the subnet too: sysctl net.ipv4.conf.%s.promote_secondaries=1",
			wide[0], s.link)})
	}
}

// drop ends the turn, unless it is over, and takes off what it put on. The caller
// has the token.
func (s *Set) drop(turn uint64) {
	s.mu.Lock()
	if s.state.turn == turn {
		s.end(EventFailed)
	}
	over := !s.state.serving && len(s.state.placed) > 0
	s.mu.Unlock()
	if over {
		_ = s.clear(context.Background()) // what is left is retried, and told, by the worker
	}
}

// take waits for the token that allows its holder to change the kernel.
func (s *Set) take(ctx context.Context) error {
	select {
	case s.op <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Set) release() { <-s.op }

// pause waits for d and reports whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
