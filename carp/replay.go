package carp

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// What the engine does with seal.go and window.go: it refuses recordings before the
// election sees them, and asks a node that it had to refuse whether it lives.

// guard is the engine's part of the defence against recordings.
type guard struct {
	clock  groupClock
	sealed *sealedMemory // nil unless ReplaySealed
	window *windowMemory // nil unless ReplayWindow

	doubted Instant // when an authentic advert of another node was refused last
	waiting bool    // a promotion has been put off for an answer
	asked   uint64  // the counter of the latest probe, 0 if there was none
	askedAt Instant
	stale   Instant // when a probe that was not fresh was answered last

	twin    netip.Addr // who used this node's id,
	twinAt  Instant    // and when
	ahead   Sighting   // who was too far ahead, last
	aheadBy time.Duration

	probes, answers uint64 // sent
	echo            [answerLen]byte
}

func newGuard(c *Config) guard {
	g := guard{clock: newGroupClock(c)}
	g.adopt(c)
	return g
}

// adopt makes the memories that a configuration needs. What is known stays.
func (g *guard) adopt(c *Config) {
	switch r := c.replay(); {
	case r == ReplaySealed && g.sealed == nil:
		g.sealed = newSealedMemory()
	case r == ReplayWindow && g.window == nil:
		g.window = newWindowMemory(windowCounters)
	}
}

// replay is the mode that is in force: the kernels' rules know none, nor does VRRP.
func (c *Config) replay() Replay {
	if c.Protocol != CARP || c.Compat == CompatBSD {
		return ReplayOff
	}
	return c.Replay
}

func (c *Config) window() time.Duration {
	if c.Window == 0 {
		return DefaultWindow
	}
	return c.Window
}

// sealedGroup reports whether all members are ours.
func (e *Engine) sealedGroup() bool { return e.cfg.replay() == ReplaySealed }

// checkFresh is the last check of an authentic packet, and remembers it if it
// passes.
func (e *Engine) checkFresh(now Instant, h *hearing, p *Packet) Drop {
	s := unseal(h.counter)
	switch e.cfg.replay() {
	case ReplayWindow:
		d := e.guard.window.judge(now, p.Src, wayOf(p, h.path), h.counter, h.bid.timing)
		if d == Accepted && s.timing == h.bid.timing { // it looks like ours
			e.followInWindow(now, s.clock)
		}
		return d
	case ReplaySealed:
		return e.checkSealed(now, s, h, p)
	}
	return Accepted
}

// followInWindow follows the clock of a counter that looks like ours. One of a BSD
// may by chance, so a step is never long.
func (e *Engine) followInWindow(now Instant, clock uint64) {
	if own := e.guard.clock.at(now); clock > own && clock-own < uint64(MaxClockStep/time.Millisecond) {
		e.guard.clock.follow(now, clock)
	}
}

func (e *Engine) checkSealed(now Instant, s seal, h *hearing, p *Packet) Drop {
	g := &e.guard
	floor, twin := g.clock.start, s.id == e.cfg.NodeID
	if twin {
		if floor = max(floor, g.clock.born); !e.neverSent(s.clock, floor) {
			return DropReplay
		}
	}
	d := g.sealed.judge(s, h.message.Type != 0, h.bid.timing, wayOf(p, h.path), now, &g.clock, floor, e.cfg.window())
	switch d {
	case Accepted:
		g.clock.follow(now, s.clock)
		g.sealed.accept(s, h.message.Type != 0, wayOf(p, h.path), p.Src, now)
	case DropAhead:
		g.ahead = Sighting{Address: p.Src, NodeID: s.id, AdvBase: s.timing.base, AdvSkew: s.timing.skew, At: now}
		g.aheadBy = time.Duration(s.clock-g.clock.at(now)) * time.Millisecond
	}
	if twin && (d == Accepted || d == DropAhead) {
		g.twin, g.twinAt = p.Src, now
	}
	if d == DropOld || d == DropAhead || d == DropReplay {
		g.doubted = now
	}
	return d
}

// neverSent reports whether a clock with this node's id is surely another node's:
// above everything of earlier runs, and not among what this run has sent. What is
// older than the counters that are remembered may be ours.
func (e *Engine) neverSent(clock, floor uint64) bool {
	if clock <= floor {
		return false
	}
	oldest, n := uint64(0), min(e.sent, len(e.recent))
	for i, c := range e.recent[:n] {
		switch sent := unseal(c).clock; {
		case sent == clock:
			return false
		case i == 0 || sent < oldest:
			oldest = sent
		}
	}
	return n < len(e.recent) || clock > oldest
}

// answerTime is how long a probe may be answered: how long a promotion waits for an
// answer, a quarter of an interval and a second at most.
func (e *Engine) answerTime() time.Duration { return min(e.interval()/4, time.Second) }

// ask sends a clock probe: who lives? A master sends an advert with it, which tells the
// other one of this node.
func (e *Engine) ask(now Instant) {
	if e.state == Master {
		e.advertise(now)
	}
	e.guard.asked = e.say(now, TypeClockProbe, e.bid().timing, nil)
	e.guard.askedAt = now
	e.guard.probes++
}

// askFirst sends a probe in place of a promotion, if a master that is taken for dead
// may be one that was refused, and puts the promotion off by as long as an answer may
// take. It does so once until an advert is accepted: recordings delay nothing longer.
func (e *Engine) askFirst(now Instant) bool {
	g := &e.guard
	if g.waiting || !e.sealedGroup() || g.doubted == 0 || now.Sub(g.doubted) >= e.masterDown(bid{}) {
		g.waiting = false
		return false
	}
	g.waiting = true
	e.ask(now)
	e.armDown(now.Add(e.answerTime()))
	return true
}

// doubtedAsMaster asks another node whose adverts a master had to refuse: it may be
// a master too. Not more often than once an interval.
func (e *Engine) doubtedAsMaster(now Instant) {
	if e.state == Master && now.Sub(e.guard.askedAt) >= e.interval() {
		e.ask(now)
	}
}

// say sends a companion message to whom adverts go, under each digest in use, and
// returns its counter. It is no advert: Sent gives no permit for it.
func (e *Engine) say(now Instant, t MessageType, claim timing, body []byte) uint64 {
	counter := e.nextCounter(now, claim)
	for i := range e.rolling {
		e.sayUnder(&e.rolling[i], t, claim, counter, body)
	}
	e.sayUnder(&e.secret, t, claim, counter, body)
	return counter
}

func (e *Engine) sayUnder(s *secret, t MessageType, claim timing, counter uint64, body []byte) {
	m := NewMessage(t, e.cfg.VHID, claim.base, claim.skew, body)
	m.Counter, m.Digest = counter, s.companions[t].SumMessage(counter, body)
	start := len(e.wire)
	e.wire = m.Append(e.wire)
	e.spread(e.wire[start:len(e.wire):len(e.wire)])
}

// heardMessage handles an authentic companion message of a type that is waited for.
func (e *Engine) heardMessage(now Instant, h *hearing, p *Packet) Drop {
	switch MessageType(h.message.Type) {
	case TypeClockProbe:
		return e.heardProbe(now, h, p)
	case TypeClockAnswer:
		return e.heardAnswer(now, h, p)
	case TypePeerState, TypeHandover:
		d := e.checkSealed(now, unseal(h.counter), h, p)
		if d != Accepted {
			return d
		}
		if MessageType(h.message.Type) == TypePeerState {
			return e.heardState(now, h, p)
		}
		return e.heardHandover(now, h, p)
	}
	return DropType
}

// The body of an answer: the counter of the probe, and whether a master answers.
const (
	answerLen        = 9
	answeredByMaster = 1
)

// heardProbe answers. A probe that is not fresh may be a recording, or that of a node
// whose clock is far off: it is answered too, but less often, unless it is later than
// every other one with its node id.
func (e *Engine) heardProbe(now Instant, h *hearing, p *Packet) Drop {
	s := unseal(h.counter)
	d := e.checkSealed(now, s, h, p)
	latest := (d == Accepted || d == DropOld || d == DropAhead || d == DropReplay) && e.guard.sealed.latestProbe(s)
	switch d {
	case Accepted:
		from := e.guard.sealed.find(s.id, true)
		if from.probe == h.counter { // over the other family
			return Accepted
		}
		from.probe = h.counter
	case DropOld, DropAhead, DropReplay:
		if !latest { // recordings must not use up the answers of who lives
			if now.Sub(e.guard.stale) < e.answerTime() {
				return d
			}
			e.guard.stale = now
		}
	default:
		return d
	}
	echo := &e.guard.echo
	binary.BigEndian.PutUint64(echo[:], h.counter)
	if echo[8] = 0; e.state == Master || e.state == Releasing {
		echo[8] = answeredByMaster
		e.advertise(now)
	}
	e.say(now, TypeClockAnswer, e.claim().timing, echo[:])
	e.guard.answers++
	return d
}

// heardAnswer believes a node that has answered this node's own probe, whatever its
// clock says: a recording cannot know what was asked. Of a master it counts as its
// advert.
func (e *Engine) heardAnswer(now Instant, h *hearing, p *Packet) Drop {
	g, s := &e.guard, unseal(h.counter)
	mine := g.asked != 0 && len(h.message.Body) == answerLen && binary.BigEndian.Uint64(h.message.Body) == g.asked && now.Sub(g.askedAt) <= e.answerTime()
	if known := g.sealed.find(s.id, true); !mine || known != nil && known.answered == g.asked {
		return e.checkSealed(now, s, h, p) // another's, or over another family: its clock counts
	}
	switch {
	case s.id == 0:
		return DropUnsealed
	case s.timing != h.bid.timing || h.leaves:
		return DropTiming
	}
	if s.id == e.cfg.NodeID {
		g.twin, g.twinAt = p.Src, now
	}
	master := h.message.Body[answerLen-1] == answeredByMaster
	g.clock.followLiving(now, s.clock)
	g.sealed.accept(s, h.message.Type != 0, wayOf(p, h.path), p.Src, now)
	g.sealed.find(s.id, true).answered = g.asked
	if !master || e.timers[timerGrace] != 0 { // in a grace it would pass for the farewell of the master that is preempted
		return Accepted
	}
	h.message = Message{}
	return e.believe(now, h, p)
}

// ResetSeal makes the node what it would be without saved state: the group clock
// begins again at offset (Config.ClockOffset), may follow any member's, however far
// ahead, once, and what was accepted of whom is forgotten. What was recorded within the window
// may be accepted again after it.
func (e *Engine) ResetSeal(now Instant, offset time.Duration) Effects {
	if e.begin(now) {
		return e.finish()
	}
	e.cfg.ClockOffset, e.cfg.SavedClock = offset, 0
	e.guard = newGuard(&e.cfg)
	if e.up {
		e.guard.clock.begin(now)
	}
	if e.cfg.Compat != CompatBSD {
		e.clock = 0
	}
	return e.finish()
}

// GroupClock reads the group clock, or the greatest that was sent if that is more:
// what must be reserved before it is used.
func (e *Engine) GroupClock(now Instant) uint64 {
	if e.cfg.Compat == CompatBSD {
		return e.guard.clock.at(now)
	}
	return max(e.guard.clock.at(now), e.clock)
}
