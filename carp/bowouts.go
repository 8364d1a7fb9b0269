package carp

import (
	"slices"
	"time"
)

// BowOuts makes the frames of a bow-out for somebody else to send later: a process
// that outlives this one and speaks for it when it has died or hangs. There are none
// unless this node is master. The payloads belong to the caller.
//
// Their counter is that of the group clock at now plus ahead, so that they are newer
// than every advert that this engine sends until then, and a receiver that refuses
// what is old takes them: make new ones before that. ahead must be less than what a
// receiver lets adverts differ by (30 s). After a stall, during which they may have
// been sent, this engine goes on above that counter. VRRP has no counter.
func (e *Engine) BowOuts(now Instant, ahead time.Duration) []Frame {
	if e.state != Master && e.state != Releasing {
		return nil
	}
	frames, wire := e.frames, e.wire // of the last effects: not to be written over
	clock := e.clock
	defer func() { e.frames, e.wire = frames, wire }()
	e.frames, e.wire = nil, nil
	e.emit(now.Add(ahead), leave)
	if e.cfg.Compat != CompatBSD {
		e.reserved, e.clock = max(e.reserved, e.clock), clock
	}
	for i := range e.frames {
		e.frames[i].Payload = slices.Clone(e.frames[i].Payload)
	}
	return e.frames
}

// skipReserved goes on above the counters of the bow-outs that somebody may have
// sent.
func (e *Engine) skipReserved() { e.clock = max(e.clock, e.reserved) }

// BowOuts is Engine.BowOuts. It returns none after Run has ended.
func (s *Speaker) BowOuts(ahead time.Duration) []Frame {
	var frames []Frame
	s.do(func() { frames = s.engine.BowOuts(s.link.Now(), ahead) })
	return frames
}
