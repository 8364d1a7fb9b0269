package vip

import (
	"context"
	"net/netip"
	"time"

	"github.com/carpd/carpd/carp"
)

// shutWithin bounds the wait for a gate to close before addresses are taken off: they
// go in any case, and a gate that nobody closes ends with its permit.
const shutWithin = 50 * time.Millisecond

// Fence puts the set behind a gate of g, or behind none if g is nil, whether it serves
// or not. No address of a living master is cut by it: the gate is open before an address
// is behind it. On an error the set is as it was. Config.Fence does the same for a set
// that begins.
func (s *Set) Fence(ctx context.Context, g *Gates) error {
	if err := s.take(ctx); err != nil {
		return &OpError{Op: "fence", Link: s.link, Err: err}
	}
	defer s.release()
	s.mu.Lock()
	was := s.state.fence
	s.state.fence = g
	s.mu.Unlock()
	if g == was {
		return nil
	}
	err := s.leaveGate()
	if err == nil {
		err = s.protect()
	}
	if err != nil {
		s.mu.Lock()
		s.state.fence = was
		s.mu.Unlock()
	}
	return err
}

// makeGate makes the gate if there is none yet, open if the set serves. The caller has
// the token.
func (s *Set) makeGate() (*Gate, error) {
	s.mu.Lock()
	g, gate, permit, serving := s.state.fence, s.state.gate, s.state.permit, s.state.serving
	s.mu.Unlock()
	if g == nil || gate != nil {
		return gate, nil
	}
	gate = g.add()
	if err := g.fence.Protect(gate.mark, s.links(), nil); err != nil {
		_ = g.remove(gate) // of which nothing was made
		return nil, err
	}
	gate.permit(permit)
	if serving {
		gate.wish(true)
		_ = gate.await(context.Background(), true) // if the permit has ended it stays closed, as it should
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.gate = gate
	gate.permit(s.state.permit) // as it is now
	gate.wish(s.state.serving)
	return gate, nil
}

// leaveGate removes the gate; its addresses pass from then on.
func (s *Set) leaveGate() error {
	s.mu.Lock()
	gate := s.state.gate
	s.state.gate, s.state.fenced = nil, nil
	s.mu.Unlock()
	if gate == nil {
		return nil
	}
	return gate.g.remove(gate)
}

// Fenced reports whether the set is behind a gate, and whether that is open.
func (s *Set) Fenced() (fenced, open bool) {
	s.mu.Lock()
	gate := s.state.gate
	s.mu.Unlock()
	if gate == nil {
		return false, false
	}
	gate.mu.Lock()
	defer gate.mu.Unlock()
	return true, gate.state.open && gate.want.Load() && gate.until.Load() > int64(s.clock())
}

// links are the interfaces on which a link-local address of the set may be.
func (s *Set) links() []string {
	if s.device.Name == "" {
		return []string{s.link}
	}
	return []string{s.link, s.device.Name}
}

// beginFence makes the gate when the worker begins, closed, so that it is there before
// any address is. What stands in its way is told at once, and again by the Up that fails
// of it.
func (s *Set) beginFence(ctx context.Context) {
	if s.take(ctx) != nil {
		return
	}
	defer s.release()
	if err := s.protect(); err != nil {
		s.tell(Event{Kind: EventFailed, Err: err, Text: "the addresses could not be fenced: this node cannot serve until that is mended"})
	}
}

// protect brings what is behind the gate into line with what is wanted and what is on.
// The caller has the token.
func (s *Set) protect() error {
	gate, err := s.makeGate()
	if err != nil || gate == nil {
		return err
	}
	s.mu.Lock()
	addrs := addresses(s.state.want, s.state.placed, s.state.strays)
	same := s.state.fenced != nil && sameAddresses(s.state.fenced, addrs)
	s.mu.Unlock()
	if same {
		return nil
	}
	if err := gate.g.fence.Protect(gate.mark, s.links(), addrs); err != nil {
		return err
	}
	s.mu.Lock()
	s.state.fenced = addrs
	s.mu.Unlock()
	return nil
}

// addresses returns the addresses of all lists, each once.
func addresses(lists ...[]netip.Prefix) []netip.Addr {
	out, seen := []netip.Addr{}, map[netip.Addr]bool{}
	for _, list := range lists {
		for _, p := range list {
			if a := p.Addr(); !seen[a] {
				seen[a] = true
				out = append(out, a)
			}
		}
	}
	return out
}

func sameAddresses(a, b []netip.Addr) bool {
	if len(a) != len(b) {
		return false
	}
	has := make(map[netip.Addr]bool, len(a))
	for _, x := range a {
		has[x] = true
	}
	for _, x := range b {
		if !has[x] {
			return false
		}
	}
	return true
}

// openGate opens the gate of a turn whose addresses are about to go on, and waits for
// it: each is announced as soon as it is on, and has to answer then. The caller has the
// token.
func (s *Set) openGate(turn uint64) error {
	s.mu.Lock()
	gate, mine := s.state.gate, s.state.turn == turn && s.state.serving
	if gate != nil && mine {
		gate.wish(true) // here, so that whatever ends the turn comes after it
	}
	s.mu.Unlock()
	switch {
	case gate == nil:
		return nil
	case !mine:
		return ErrSuperseded
	}
	return gate.await(context.Background(), true) // which ends with the permit
}

// shutGate closes the gate and waits a moment for it.
func (s *Set) shutGate() {
	s.mu.Lock()
	gate := s.state.gate
	if gate != nil {
		gate.wish(false)
	}
	s.mu.Unlock()
	if gate == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutWithin)
	defer cancel()
	_ = gate.await(ctx, false)
}

// allow hands a permit to the gate. s.mu is held.
func (st *state) allow(p carp.Permit) {
	if st.gate != nil {
		st.gate.permit(p)
	}
}
