package carp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Replay says which adverts are refused because they may be recordings. CARP
// only; adverts are sent in the same form whatever it is (CompatBSD excepted).
type Replay uint8

// The modes.
const (
	// ReplayWindow refuses what was heard before, and works with every other
	// implementation. It is no proof against an attacker: see docs/security.md.
	ReplayWindow Replay = iota
	// ReplaySealed refuses everything that is not fresh. All members of the group
	// must be carpd, each with a NodeID of its own.
	ReplaySealed
	// ReplayOff refuses nothing, as the BSDs and ucarp do.
	ReplayOff
)

var replayNames = [...]string{"window", "sealed", "off"}

func (r Replay) String() string { return name(replayNames[:], int(r), "Replay") }

// ParseReplay returns the mode with the given name: window, sealed or off.
func ParseReplay(s string) (Replay, error) {
	for i, n := range replayNames {
		if n == s {
			return Replay(i), nil
		}
	}
	return ReplayWindow, fmt.Errorf("carp: unknown replay mode %q: use sealed, window or off", s)
}

const (
	// DefaultWindow is how far behind the own group clock an advert may be.
	DefaultWindow = 30 * time.Second
	MinWindow     = time.Second // of Config.Window
	MaxWindow     = time.Hour   // of Config.Window
	// MaxClockStep is how far ahead of the own group clock an advert may be, once a
	// node has any state.
	MaxClockStep = time.Hour
	// maxLivingStep is the same for a node that has proved that it lives.
	maxLivingStep = 366 * 24 * time.Hour
	// anchorTime is how long after its start a node without saved state follows any
	// clock.
	anchorTime = time.Minute
	// maxClock is the last group clock that a counter can carry, in 2054.
	maxClock = 1<<40 - 1
)

// seal is what the counter of an advert of ours carries. The digest covers it,
// while it does not cover the header's timing fields.
type seal struct {
	clock  uint64 // milliseconds of group clock, 40 bits
	id     uint8  // node id
	timing timing // as in the header
}

func (s seal) counter() uint64 {
	return s.clock<<24 | uint64(s.id)<<16 | uint64(s.timing.base)<<8 | uint64(s.timing.skew)
}

func unseal(counter uint64) seal {
	return seal{counter >> 24, uint8(counter >> 16), timing{uint8(counter >> 8), uint8(counter)}}
}

// groupClock is milliseconds since 2020-01-01 as the group agrees on them: BOOTTIME
// and an offset that only grows, by what members say. It need not be right, only
// never go back.
type groupClock struct {
	offset time.Duration
	start  uint64 // the clock at which this run begins, above everything of earlier ones
	born   uint64 // the clock at the first link up; 0 before
	bornAt Instant
	saved  bool // it goes on from what was saved
}

// newGroupClock begins at what was reserved by earlier runs, or at the wall clock if
// that is later. A wall clock that no counter could carry is not believed.
func newGroupClock(c *Config) groupClock {
	g := groupClock{offset: c.ClockOffset, start: min(c.SavedClock, maxClock), saved: c.SavedClock > 0}
	if g.offset/time.Millisecond > maxClock {
		g.offset = 0
	}
	return g
}

// begin is called at the first link up: the clock runs on from what was reserved.
func (g *groupClock) begin(now Instant) {
	if g.born != 0 {
		return
	}
	if g.start > 0 && now.Add(g.offset) < Instant(g.start)*Instant(time.Millisecond) {
		g.offset = time.Duration(g.start)*time.Millisecond - time.Duration(now)
	}
	g.born, g.bornAt = max(g.at(now), 1), now
}

// at reads the clock. It never is behind what was reserved.
func (g *groupClock) at(now Instant) uint64 {
	return min(max(uint64(max(now.Add(g.offset), 0))/uint64(time.Millisecond), g.start), maxClock)
}

// anchored reports whether the clock is not to step far any more: it goes on from
// saved state, or runs for so long that every member has been heard.
func (g *groupClock) anchored(now Instant) bool {
	return g.saved || g.born != 0 && now.Sub(g.bornAt) > anchorTime
}

// tooFarAhead reports whether the clock must not follow another one.
func (g *groupClock) tooFarAhead(now Instant, clock uint64) bool {
	return g.anchored(now) && clock > g.at(now)+uint64(MaxClockStep/time.Millisecond)
}

// follow takes over the clock of another member if it is ahead.
func (g *groupClock) follow(now Instant, clock uint64) {
	if clock > g.at(now) && !g.tooFarAhead(now, clock) {
		g.offset = time.Duration(clock)*time.Millisecond - time.Duration(now)
	}
}

// followLiving does the same for a member that has proved that it lives: it may be
// further ahead, but not as far as to bring the end of all clocks near.
func (g *groupClock) followLiving(now Instant, clock uint64) {
	if clock > g.at(now) && (!g.anchored(now) || clock-g.at(now) < uint64(maxLivingStep/time.Millisecond)) {
		g.offset = time.Duration(clock)*time.Millisecond - time.Duration(now)
	}
}

// ways are families and paths over which a round comes, a bit each: once over each of
// them it is no duplicate.
type ways uint16

func wayOf(p *Packet, path uint8) ways { return 1 << (2*ways(path) + ways(FamilyOf(p.Src))) }

// nodeMark is what a receiver remembers of one node id: of its adverts, or of its
// companion messages. Each have their own order, since a message may overtake the
// advert that was sent just before.
type nodeMark struct {
	id       uint8
	messages bool
	ways     ways   // over which its latest round was accepted
	clock    uint64 // of its latest round
	probe    uint64 // its latest that was fresh
	answered uint64 // the probe of ours that it has answered last
	src      netip.Addr
	at       Instant
}

// sealedMemory is the highest accepted clock of each node id: what ReplaySealed
// needs to know for ever. One value serves all packets of a round: both families,
// all digests, all paths. It grows with the number of node ids, to two for each.
type sealedMemory struct {
	nodes  []nodeMark
	probed [256]uint64 // by node id: the highest clock of a probe, fresh or not
}

func newSealedMemory() *sealedMemory { return &sealedMemory{nodes: make([]nodeMark, 0, 8)} }

func (m *sealedMemory) clone() *sealedMemory {
	if m == nil {
		return nil
	}
	return &sealedMemory{slices.Clone(m.nodes), m.probed}
}

// find returns the mark of a node id, or nil.
func (m *sealedMemory) find(id uint8, messages bool) *nodeMark {
	for i := range m.nodes {
		if n := &m.nodes[i]; n.id == id && n.messages == messages {
			return &m.nodes[i]
		}
	}
	return nil
}

// latestProbe remembers a probe, and reports whether it is later than all others of
// its node.
func (m *sealedMemory) latestProbe(s seal) bool {
	if s.clock <= m.probed[s.id] {
		return false
	}
	m.probed[s.id] = s.clock
	return true
}

// judge says whether a round is fresh. timing is that of the header, floor the
// clock up to which nothing is fresh. It changes nothing.
func (m *sealedMemory) judge(s seal, messages bool, header timing, over ways, now Instant, g *groupClock, floor uint64, window time.Duration) Drop {
	switch {
	case s.id == 0:
		return DropUnsealed
	case s.timing != header:
		return DropTiming
	}
	if known := m.find(s.id, messages); known != nil {
		switch {
		case s.clock == known.clock && known.ways&over == 0:
			return Accepted // the latest round, over another family or path
		case s.clock == known.clock:
			return DropRepeat
		}
		floor = max(floor, known.clock)
	}
	switch {
	case s.clock <= floor:
		return DropReplay
	case g.at(now) > s.clock+uint64(window/time.Millisecond):
		return DropOld
	case g.tooFarAhead(now, s.clock):
		return DropAhead
	}
	return Accepted
}

// accept remembers a round.
func (m *sealedMemory) accept(s seal, messages bool, over ways, src netip.Addr, now Instant) {
	known := m.find(s.id, messages)
	if known == nil {
		m.nodes = append(m.nodes, nodeMark{id: s.id, messages: messages})
		known = &m.nodes[len(m.nodes)-1]
	}
	if s.clock > known.clock {
		known.clock, known.ways = s.clock, 0
	}
	if s.clock == known.clock {
		known.ways |= over
	}
	known.src, known.at = src, now
}
