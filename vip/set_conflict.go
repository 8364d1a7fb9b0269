package vip

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/carpd/carpd/carp"
)

// Conflicts returns for which addresses somebody else answers while they are up here,
// and how many claims were not looked at. What was seen up to since, the last sign of
// another master, does not count: that was a takeover or a contest. A conflict begins
// calm after its first claim at the earliest, the master-down time: a master that can
// be heard was heard by then. It ends when nothing was seen for 30 s. A MAC of this
// host is none of somebody else. It is for one caller, once a second or so.
func (s *Set) Conflicts(since carp.Instant, calm time.Duration) (found []Conflict, missed uint64) {
	now := s.clock()
	s.mu.Lock()
	st := &s.state
	if !st.serving {
		st.claims.forget()
	}
	found, missed = st.claims.judge(now, since, calm), st.claims.missed
	s.mu.Unlock()
	if len(found) == 0 {
		return nil, missed
	}
	links, _ := s.k.Links() // what cannot be listed is taken for somebody else
	return slices.DeleteFunc(found, func(c Conflict) bool {
		return slices.ContainsFunc(links, func(l Link) bool { return l.MAC == c.MAC })
	}), missed
}

// Defend announces the addresses of conflicts that were claimed since the last
// defence, once, so that clients come back, and at most each DefendEvery. It never
// blocks, and does nothing while the addresses are down.
func (s *Set) Defend(found []Conflict) {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.state.serving {
		return
	}
	if addrs := s.state.claims.defend(now, found); len(addrs) > 0 {
		s.state.defend = addrs
		s.stir()
	}
}

// claim hears the kernel. Our own MAC is a switch or bridge that sends our frames
// back; another node that has our virtual MAC cannot be told from that.
func (s *Set) claim(c Claim) {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.state
	if !st.serving {
		return
	}
	st.claims.missed += c.Skipped
	if _, ours := st.present[c.Addr]; ours && c.MAC != st.on.MAC && c.From != st.on.MAC {
		st.claims.see(now, c.Addr, c.MAC)
	}
}

// defendOnce sends what Defend asked for.
func (s *Set) defendOnce(ctx context.Context) {
	s.mu.Lock()
	addrs, link, epoch := s.state.defend, s.state.on, s.state.epoch
	s.state.defend = nil
	s.mu.Unlock()
	_ = s.sendThese(ctx, link, epoch, addrs) // told there; the next claim brings the next defence
}

// ear is the watch of the interface that has the addresses. Run has it.
type ear struct {
	index   int
	stop    func()
	retryAt carp.Instant
	mute    bool // the last attempt failed: told once
}

// listen watches the interface that the addresses are on, while they are on.
func (s *Set) listen(e *ear) {
	now := s.clock()
	s.mu.Lock()
	index := 0
	if s.state.serving && s.state.on.MAC != (carp.MAC{}) {
		index = s.state.on.Index
	}
	s.mu.Unlock()
	if index == e.index || now < e.retryAt {
		return
	}
	e.end()
	if index == 0 {
		return
	}
	stop, err := s.k.WatchNeighbours(index, s.claim)
	if err == nil {
		e.index, e.stop, e.mute = index, stop, false
		return
	}
	e.retryAt = now.Add(relook)
	if !e.mute && !errors.Is(err, ErrNoLink) { // the look says that better
		s.tell(Event{Kind: EventFailed, Err: err, Text: "whether somebody else answers for the addresses is not watched"})
	}
	e.mute = true
}

func (e *ear) end() {
	if e.stop != nil {
		e.stop()
	}
	e.index, e.stop = 0, nil
}
