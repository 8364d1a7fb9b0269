package carp

import (
	"net/netip"
	"slices"
	"time"
)

const (
	// windowCounters is how many counters ReplayWindow remembers: 18 hours of adverts
	// a second apart, in 1 MiB of memory.
	windowCounters = 65536
	// windowSources is how many source addresses it knows apart.
	windowSources = 16
	// windowStride is how far a counter may be ahead of the last one of its source and
	// still go on from it: a BSD counts each packet, over both families, and some
	// are lost.
	windowStride = 8
	// windowAgain is how often a counter is accepted once more, whoever has it: as
	// often as two BSDs may be parted within the memory.
	windowAgain = 7
	// reorderSpan bounds what counts as an older counter of the same source: a random
	// one is rarely so near.
	reorderSpan = 1 << 56
)

// windowMemory is what ReplayWindow knows: the counters of late, whoever sent them
// or seemed to, each with the timing fields it came with, and a few sources.
//
// A counter that was seen before is refused. That alone would refuse living peers,
// because the counters of others do repeat:
//
//   - FreeBSD, NetBSD and ucarp go on counting from the last counter they heard, so
//     that two which were apart count through the same numbers, and one that hears the
//     other may go back to a number it had itself. So a known counter is accepted if it
//     goes on from one of the same source with the same timing, refused or not, or
//     from the counter that another source has now; but no more than windowAgain times.
//     A living peer loses the first advert of a line by that, and it takes three to
//     be missed.
//   - OpenBSD has one counter for as long as it runs. A source whose counter has never
//     changed is not judged at all (constant).
//   - A round of ours has one counter for both families and all paths.
//
// All memory is made at the start.
type windowMemory struct {
	ring  []uint64 // 45 bits of a counter's hash, 3 of how often it was accepted again, 16 of timing; 0 is free
	index []uint32 // open addressing: a place in ring plus one, 0 is free
	next  int

	latest uint64 // the counter accepted last,
	over   ways   // and over what

	sources [windowSources]windowSource
}

// windowSource is what is known of one source address.
type windowSource struct {
	addr     netip.Addr
	accepted bool // at least once
	changed  bool // it has changed its counter from one advert to the next
	repeats  int  // how often last was repeated
	last     uint64
	claim    timing  // with last
	at       Instant // when last came
	lines    [3]windowLine
	oldest   int // of lines
}

// windowLine is a counter that a source may go on from: it alternates between lines
// while it hears others that count elsewhere.
type windowLine struct {
	counter uint64
	claim   timing
	used    bool
}

func newWindowMemory(size int) *windowMemory {
	return &windowMemory{ring: make([]uint64, size), index: make([]uint32, 2*size)}
}

func (m *windowMemory) clone() *windowMemory {
	if m == nil {
		return nil
	}
	c := *m
	c.ring, c.index = slices.Clone(m.ring), slices.Clone(m.index)
	return &c
}

// constant reports whether the source is an OpenBSD, for all that is known.
func (s *windowSource) constant() bool { return !s.changed && s.repeats > 0 }

// judge says whether a packet may be fresh, and remembers it.
func (m *windowMemory) judge(now Instant, src netip.Addr, over ways, counter uint64, t timing) Drop {
	s, leaves := m.source(src), t == leave.timing
	before, known := m.lookup(counter)
	same, latest := before == t, s != nil && s.accepted && s.last == counter
	switch {
	case !known && leaves && s != nil && s.accepted && s.last > counter && s.last-counter < reorderSpan:
		return DropReplay // a bow-out from before its sender's latest advert
	case !known:
		m.remember(counter, t)
	case latest && same && counter == m.latest && m.over&over == 0:
		// the round that was just accepted, over another path from the same address
	case latest && same && now.Sub(s.at) < min(t.interval(), time.Second)/2:
		return DropRepeat
	case latest && !s.changed:
		s.repeats++
		s.at, s.claim, m.latest = now, t, counter
		return Accepted
	case same && counter == m.latest && m.over&over == 0:
		// the round that was just accepted, over another family or path
	case s != nil && !leaves && (s.continues(counter, t) || m.joins(now, s, counter, t)) && m.again(counter):
	default:
		if s = m.learn(src, false); s != nil {
			s.follow(counter, t)
		}
		if same {
			return DropReplay
		}
		return DropTiming
	}
	m.accept(now, src, over, counter, t)
	return Accepted
}

// continues reports whether a counter goes on from an earlier one of the source, with
// the same timing.
func (s *windowSource) continues(counter uint64, t timing) bool {
	for i := range s.lines {
		if l := &s.lines[i]; l.used && l.claim == t && counter-l.counter-1 < windowStride {
			return true
		}
	}
	return false
}

// joins reports whether a counter goes on from the one that another source has now,
// or is the same: this source has heard it, and counts on.
func (m *windowMemory) joins(now Instant, s *windowSource, counter uint64, t timing) bool {
	for i := range m.sources {
		z := &m.sources[i]
		if z != s && z.accepted && s.accepted && s.claim == t && counter-z.last < windowStride && now.Sub(z.at) < 3*z.claim.interval() {
			return true
		}
	}
	return false
}

// follow remembers a counter as one that the next may go on from: in the place of
// the one that it went on from itself, or of the oldest.
func (s *windowSource) follow(counter uint64, t timing) {
	next := windowLine{counter, t, true}
	for i := range s.lines {
		if l := &s.lines[i]; l.used && l.claim == t && counter-l.counter < windowStride {
			*l = next
			return
		}
	}
	s.lines[s.oldest] = next
	s.oldest = (s.oldest + 1) % len(s.lines)
}

func (m *windowMemory) accept(now Instant, src netip.Addr, over ways, counter uint64, t timing) {
	if counter != m.latest {
		m.latest, m.over = counter, 0
	}
	m.over |= over
	s := m.learn(src, true)
	if s.accepted && s.last != counter {
		s.changed = s.changed || s.repeats == 0 // else an OpenBSD has started again
		s.repeats = 0
	}
	s.accepted, s.last, s.claim, s.at = true, counter, t, now
	s.follow(counter, t)
}

// source finds a source address, or returns nil.
func (m *windowMemory) source(src netip.Addr) *windowSource {
	for i := range m.sources {
		if s := &m.sources[i]; s.addr == src && src.IsValid() {
			return s
		}
	}
	return nil
}

// learn finds a source or makes room for it. One that was never accepted pushes out
// only others of that kind, so that an attacker cannot make us forget a member;
// then there may be no room, and nil is returned.
func (m *windowMemory) learn(src netip.Addr, accepted bool) *windowSource {
	if s := m.source(src); s != nil {
		return s
	}
	oldest := &m.sources[0]
	for i := range m.sources {
		switch s := &m.sources[i]; {
		case oldest.accepted && !s.accepted:
			oldest = s
		case oldest.accepted == s.accepted && s.at < oldest.at:
			oldest = s
		}
	}
	if oldest.accepted && !accepted {
		return nil
	}
	*oldest = windowSource{addr: src}
	return oldest
}

// sent lets a counter of our own be known, so that it is refused when it comes back
// from anywhere.
func (m *windowMemory) sent(counter uint64, t timing) { m.remember(counter, t) }

// mix spreads a counter over all bits (the finalizer of MurmurHash3). It is no
// secret: who could choose counters has the passphrase.
func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func (m *windowMemory) entry(counter uint64, t timing) uint64 {
	return (mix(counter)|1<<63)&^0x7ffff | uint64(t.base)<<8 | uint64(t.skew)
}

func (m *windowMemory) slot(e uint64) int { return int(e >> 19 & uint64(len(m.index)-1)) }

// place returns where in index a counter is, or where it would be.
func (m *windowMemory) place(e uint64) (at int, ok bool) {
	for at = m.slot(e); m.index[at] != 0; at = (at + 1) & (len(m.index) - 1) {
		if m.ring[m.index[at]-1]>>19 == e>>19 {
			return at, true
		}
	}
	return at, false
}

func (m *windowMemory) lookup(counter uint64) (t timing, known bool) {
	at, known := m.place(m.entry(counter, timing{}))
	if !known {
		return timing{}, false
	}
	e := m.ring[m.index[at]-1]
	return timing{uint8(e >> 8), uint8(e)}, true
}

// again counts that a known counter is accepted once more, and reports false if that
// was often enough.
func (m *windowMemory) again(counter uint64) bool {
	at, known := m.place(m.entry(counter, timing{}))
	if !known {
		return false
	}
	e := &m.ring[m.index[at]-1]
	if *e>>16&7 == windowAgain {
		return false
	}
	*e += 1 << 16
	return true
}

// remember puts a counter in place of the oldest, unless it is there.
func (m *windowMemory) remember(counter uint64, t timing) {
	e := m.entry(counter, t)
	if _, known := m.place(e); known {
		return
	}
	if old := m.ring[m.next]; old != 0 {
		m.remove(old)
	}
	m.ring[m.next] = e
	at, _ := m.place(e)
	m.index[at] = uint32(m.next) + 1
	m.next = (m.next + 1) % len(m.ring)
}

// remove takes an entry out of index, and moves those up that it had pushed on.
func (m *windowMemory) remove(e uint64) {
	hole, ok := m.place(e)
	if !ok {
		return
	}
	last := len(m.index) - 1
	for at := (hole + 1) & last; m.index[at] != 0; at = (at + 1) & last {
		home := m.slot(m.ring[m.index[at]-1])
		if (at-home)&last >= (at-hole)&last {
			m.index[hole] = m.index[at]
			hole = at
		}
	}
	m.index[hole] = 0
}

// constants returns the sources whose counter is constant, of those that were heard
// within the time given.
func (m *windowMemory) constants(now Instant, quiet time.Duration) (all []netip.Addr) {
	for i := range m.sources {
		if s := &m.sources[i]; s.constant() && now.Sub(s.at) < quiet {
			all = append(all, s.addr)
		}
	}
	return all
}
