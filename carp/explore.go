package carp

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// Clone returns a copy of the engine in its present state, for tools that explore
// what may happen next. Both share the prepared digests and Config.Rand, so they
// must not be used at the same time. The effects of the last input stay with the
// original.
func (e *Engine) Clone() *Engine {
	c := *e
	c.demotions, c.rolling = maps.Clone(e.demotions), slices.Clone(e.rolling)
	c.out, c.frames, c.wire = Effects{}, nil, nil
	c.guard.sealed, c.guard.window = e.guard.sealed.clone(), e.guard.window.clone()
	return &c
}

// AppendState appends to dst all that the next decisions depend on, but for the
// configuration: two engines of one configuration with equal bytes decide alike
// from now on. Instants are relative to now; what only counts or names (counters,
// epochs, the group clock) is left out, and so is by what an own packet that comes
// back is known. Of a sealed group the clocks are there, relative to the own.
func (e *Engine) AppendState(dst []byte, now Instant) []byte {
	number := func(n int64) { dst = binary.BigEndian.AppendUint64(dst, uint64(n)) }
	flag := func(b bool) {
		if b {
			dst = append(dst, 1)
		} else {
			dst = append(dst, 0)
		}
	}
	ahead := func(at Instant) { number(max(int64(at.Sub(now)), 0)) } // what is over is all the same

	claim := func(b bid) {
		dst = append(dst, b.base, b.skew, b.priority)
		number(int64(b.every))
	}
	dst = append(dst, byte(e.state), byte(e.target))
	claim(e.held)
	for _, b := range []bool{e.knows, e.up, e.cutOff, e.stopped, e.permitted, e.asking, e.farewell, e.handing, e.spoken, e.ready, e.health.unfit, e.plan.turnAfter == e.lastHeard+1} {
		flag(b)
	}
	for t, at := range e.timers {
		flag(at != 0)
		ahead(at)
		if at != 0 && at < now && timer(t).silence() { // see slept
			number(int64(min(now.Sub(at), e.masterDown(bid{})+1)))
		}
	}
	ahead(e.upAt.Add(e.cfg.PreemptDelay))
	ahead(e.startAt)
	ahead(e.contested)
	ahead(e.health.next)
	if e.lastReply == 0 {
		number(0)
	} else {
		ahead(e.lastReply.Add(e.interval() / 4))
		ahead(e.announced.Add(max(e.interval()/4, announcePace)))
	}
	if e.state == Master || e.state == Releasing {
		number(int64(now.Sub(e.lastSent)))
	}
	for _, n := range []int{
		e.errors, e.successes, int(e.failures), int(e.health.tries), e.demotion, e.demotions[OwnerSendErrors], e.demotions[OwnerFailure],
		e.demotions[OwnerHandover], len(e.rolling), e.slowing, e.ties,
	} {
		number(int64(n))
	}
	address := func(a netip.Addr) {
		b := a.As16()
		dst = append(dst, b[:]...)
	}
	for i := range e.heard {
		if s := &e.heard[i]; e.fresh(now, s) {
			address(s.src)
			claim(s.bid)
			dst = append(dst, byte(s.refused))
			number(int64(now.Sub(s.at)))
			number(int64(now.Sub(s.came)))
		}
	}
	if len(e.cfg.Paths) > 0 {
		e.appendPaths(now, address, number, flag)
	}
	if e.sealedGroup() {
		dst = e.appendGuard(dst, now)
	}
	dst = e.plan.appendState(dst, now, memberRounds*e.stateTime(), e.interval())
	if e.reminder.left > 0 {
		number(int64(e.reminder.left))
		address(e.reminder.winner)
		ahead(e.reminder.said.Add(e.paceOf(e.held) / 4))
	}
	if e.timers[timerGrace] != 0 {
		address(e.old)
		flag(e.lastHeard == e.oldCounter)
	}
	return dst
}

// appendGuard appends what a sealed group refuses recordings by, relative to the own
// group clock. What is further behind it than the window is all the same.
func (e *Engine) appendGuard(dst []byte, now Instant) []byte {
	g := &e.guard
	number := func(n int64) { dst = binary.BigEndian.AppendUint64(dst, uint64(n)) }
	flag := func(b bool) { number(int64(len(strconv.FormatBool(b)))) }
	ahead := func(at Instant, after time.Duration) {
		if at != 0 {
			at = at.Add(after)
		}
		number(max(int64(at.Sub(now)), 0))
	}
	own := int64(g.clock.at(now))
	clock := func(c uint64) { number(max(int64(c)-own, -e.cfg.window().Milliseconds()-1)) }
	number(own - int64(now)/int64(time.Millisecond))
	clock(max(e.clock, uint64(own)))
	clock(g.clock.start)
	clock(g.clock.born)
	if !g.clock.saved {
		ahead(g.clock.bornAt, anchorTime)
	}
	ahead(g.doubted, e.masterDown(bid{}))
	ahead(g.stale, e.answerTime())
	ahead(g.askedAt, e.interval())
	flag(g.waiting)
	if g.asked != 0 && now.Sub(g.askedAt) <= e.answerTime() {
		clock(g.asked >> 24)
	}
	marks := slices.Clone(g.sealed.nodes)
	slices.SortFunc(marks, func(a, b nodeMark) int {
		if a.messages == b.messages {
			return int(a.id) - int(b.id)
		} else if b.messages {
			return -1
		}
		return 1
	})
	for i := range marks {
		m := &marks[i]
		number(int64(m.id)<<16 | int64(m.ways))
		flag(m.messages)
		clock(m.clock)
		clock(m.probe >> 24)
		flag(m.answered != 0 && m.answered == g.asked)
	}
	return dst
}
