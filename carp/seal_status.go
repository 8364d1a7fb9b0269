package carp

import (
	"net/netip"
	"slices"
	"time"
)

// SealStatus is what an engine knows of clocks and recordings.
type SealStatus struct {
	Replay   Replay        // the mode in force
	Window   time.Duration // ReplaySealed: how far behind an advert may be
	Clock    uint64        // group clock, milliseconds since 2020-01-01: the greatest that was sent, or the present one
	Offset   time.Duration // of the group clock from BOOTTIME
	Start    uint64        // where this run began because of what was saved; 0: nothing was saved
	Anchored bool          // the clock does not step by more than MaxClockStep for an advert any more
	Nodes    []SealNode    // ReplaySealed: the members that were heard, by node id

	Twin    netip.Addr    // who uses this node's id too,
	TwinAt  Instant       // and when it was heard last; 0: nobody
	Ahead   Sighting      // the last that was refused because its clock is too far ahead; At 0: none
	AheadBy time.Duration // how far

	// Constant are the sources whose counter has never changed, heard within three
	// master-down times: their adverts are accepted without a look at the counter.
	Constant []netip.Addr

	Probes, Answers uint64 // clock probes and answers sent
}

// SealNode is one member of a sealed group.
type SealNode struct {
	ID      uint8
	Clock   uint64 // the highest that was accepted
	Address netip.Addr
	At      Instant // when
}

func (e *Engine) sealStatus(now Instant) SealStatus {
	g := &e.guard
	s := SealStatus{
		Replay: e.cfg.replay(), Window: e.cfg.window(), Clock: e.GroupClock(now), Offset: g.clock.offset,
		Start: g.clock.start, Anchored: g.clock.anchored(now),
		Twin: g.twin, TwinAt: g.twinAt, Ahead: g.ahead, AheadBy: g.aheadBy, Probes: g.probes, Answers: g.answers,
	}
	if s.Replay == ReplaySealed {
		for _, n := range g.sealed.nodes {
			if at := slices.IndexFunc(s.Nodes, func(m SealNode) bool { return m.ID == n.id }); at < 0 {
				s.Nodes = append(s.Nodes, SealNode{n.id, n.clock, n.src, n.at})
			} else if n.clock > s.Nodes[at].Clock {
				s.Nodes[at] = SealNode{n.id, n.clock, n.src, n.at}
			}
		}
		slices.SortFunc(s.Nodes, func(a, b SealNode) int { return int(a.ID) - int(b.ID) })
	}
	if s.Replay == ReplayWindow {
		s.Constant = g.window.constants(now, 3*e.masterDown(bid{}))
	}
	return s
}
