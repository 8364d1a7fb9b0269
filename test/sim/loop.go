package sim

import (
	"time"

	"github.com/carpd/carpd/carp"
)

// maxInbox is what a loop that stands still keeps for later, as the Speaker's
// link: the oldest packet makes room.
const maxInbox = 64

// command runs f in the loop: now, or when the loop goes on.
func (h *Host) command(f func()) {
	switch {
	case h.life == 0:
	case !h.ready():
		h.commands = append(h.commands, f)
	default:
		f()
	}
}

// arrive is a packet at the host's interface.
func (h *Host) arrive(p *packet) {
	switch {
	case !p.on.reaches(h):
		p.on.harm(p.on.path(p.src, h), p.src, h)
	case h.life == 0:
	case !h.ready():
		if len(h.inbox) == maxInbox {
			oldest := h.inbox[0].pkt
			oldest.on.harm(oldest.on.path(oldest.src, h), oldest.src, h)
			h.inbox = append(h.inbox[:0], h.inbox[1:]...)
		}
		h.inbox = append(h.inbox, arrival{p, h.now()})
	default:
		h.receive(p, h.now())
	}
}

// receive takes a packet that reached the kernel at the given instant.
func (h *Host) receive(p *packet, at carp.Instant) {
	in := p.Packet
	in.At = at
	e := h.engine.Receive(h.now(), in)
	way := p.on.path(p.src, h)
	if p.replay { // nothing of the sender's; but late, if it is taken
		way = &path{}
		if e.Drop == carp.Accepted && p.src != h {
			p.on.harm(p.on.path(p.src, h), p.src, h)
		}
	}
	again := h.lastPkt == p && h.lastAt == h.w.now
	if h.heard(e.Drop) && p.sent >= way.heard && !p.bad && !isMessage(p) {
		way.heard = p.sent
		if p.bowOut {
			way.left = p.sent
		}
	}
	told := Event{Kind: KindHeard, Host: h, Peer: p.src, Drop: e.Drop, Own: p.src == h && !p.replay, Copy: again,
		Bad: p.bad, BowOut: p.bowOut, Sent: p.sent, packet: p}
	if e.Change != nil {
		told.Change = *e.Change
	}
	h.w.tell(told)
	h.apply(e)
	if e.Drop == carp.Accepted && h.deaf == 0 && h.carrier == 0 { // a send that fails may demote the host meanwhile
		h.lastPkt, h.lastAt = p, h.w.now
	}
}

// isMessage reports whether a packet is a companion message of CARP and no advert.
func isMessage(p *packet) bool { return p.Payload[0]>>4 == 2 && p.Payload[0]&0xf > 1 }

// arm plans the next tick.
func (h *Host) arm() {
	if h.deadline == 0 || h.opts.Mutant == TimerStops && h.state == carp.Master {
		return
	}
	at := max(h.clock.when(h.deadline)+h.lateness(), h.w.now)
	if h.tickAt != 0 && h.tickAt <= at {
		return // it will look again
	}
	h.tickAt = at
	h.w.queue.push(task{at: at, what: taskTick, life: h.life, host: h})
}

// timer is the loop's timer, planned for the instant planned.
func (h *Host) timer(planned time.Duration) {
	if planned != h.tickAt {
		return // another one was planned since
	}
	h.tickAt = 0
	if !h.ready() {
		return // the loop looks when it goes on
	}
	if h.now() < h.deadline {
		if h.opts.Mutant == ClockBack { // look again soon: the clock does not tell when
			h.tickAt = h.w.now + slack
			h.w.queue.push(task{at: h.tickAt, what: taskTick, life: h.life, host: h})
			return
		}
		h.arm()
		return
	}
	h.apply(h.engine.Tick(h.now()))
}

// resumeLoop is the loop's first turn after it stood still: what it was in the
// middle of, then packets before the timer, with commands before or after.
func (h *Host) resumeLoop() {
	if h.hung {
		return
	}
	h.behind = false
	if h.unsent != nil {
		e, ok := h.transmit()
		if !ok {
			return
		}
		h.apply(e)
	}
	first := h.w.loop.IntN(2) == 0
	if first {
		h.runCommands()
	}
	for len(h.inbox) > 0 && h.ready() {
		p := h.inbox[0]
		h.inbox = h.inbox[1:]
		h.receive(p.pkt, p.at)
	}
	if !first {
		h.runCommands()
	}
	if h.ready() && h.deadline != 0 && h.now() >= h.deadline {
		h.apply(h.engine.Tick(h.now()))
	}
	if h.ready() {
		h.arm()
	}
}

// ready reports whether the loop takes another input at once.
func (h *Host) ready() bool {
	return h.life != 0 && !h.still() && !h.hung && !h.behind && h.unsent == nil
}

func (h *Host) runCommands() {
	for len(h.commands) > 0 && h.ready() {
		f := h.commands[0]
		h.commands = h.commands[1:]
		f()
	}
}

// apply carries out effects until the engine asks for nothing more, as
// carp.Speaker does: leaving the role is made known before anything is sent.
func (h *Host) apply(e carp.Effects) {
	h.lastPkt, h.decided = nil, h.now()
	h.reserve()
	for {
		h.deadline = e.Deadline
		if e.Change != nil {
			h.changed(*e.Change, e.Ask)
		}
		if e.Permit.Epoch != 0 {
			h.permit = e.Permit
			h.w.tell(Event{Kind: KindPermit, Host: h, Permit: e.Permit})
			h.set.setPermit(e.Permit)
		}
		if e.Announce {
			h.set.burst(0)
		}
		if len(e.Send) == 0 {
			h.arm()
			return
		}
		h.unsent, h.unsentAt = e.Send, 0
		if h.springs(trapBeforeNow) {
			return
		}
		var ok bool
		if e, ok = h.transmit(); !ok {
			return
		}
	}
}

// springs stops the daemon if a trap lies at this point.
func (h *Host) springs(at trapPoint) bool {
	if h.trap.where != at {
		return false
	}
	stop := h.trap.stop
	h.trap = trap{}
	stop()
	return true
}

// transmit sends what is unsent and reports it to the engine. ok is false if the
// loop stands still before that.
func (h *Host) transmit() (e carp.Effects, ok bool) {
	if h.unsentAt == 0 {
		h.unsentAt = h.now()
		if h.engine.Stale(h.decided, h.now()) {
			h.unsent, h.decided = nil, h.now()
			return h.engine.Tick(h.now()), true
		}
	}
	if h.springs(trapBeforeSend) {
		return e, false
	}
	frames, before := h.unsent, h.unsentAt
	h.unsent = nil
	if !h.sendAll(frames) {
		h.linkChanged()
		h.w.tell(Event{Kind: KindUnsent, Host: h})
		if h.opts.Mutant != SentThoughNot {
			return h.engine.SendFailed(h.now()), true
		}
		return h.engine.Sent(before), true
	}
	h.spoke()
	h.w.tell(Event{Kind: KindSent, Host: h})
	if h.engine.Stalled(h.now()) { // as carp.Speaker: frozen while sending
		h.decided = h.now()
		return h.engine.Tick(h.now()), true
	}
	if h.opts.Mutant == SentLate {
		before = before.Add(time.Second)
	}
	return h.engine.Sent(before), true
}

// changed hands a transition to the worker, the newest in place of an older one.
func (h *Host) changed(t carp.Transition, ask bool) {
	h.latest = t
	h.worker.put(t)
	if t.To != carp.Master && t.To != carp.Releasing && h.opts.Mutant != KeepPermit {
		h.permit = carp.Permit{}
		h.set.setPermit(carp.Permit{})
	}
	switch {
	case t.To == carp.Master && t.From != carp.Master:
		h.saved = max(h.saved, t.Epoch)
		h.promoted, h.reason, h.rival = h.w.now, t.Reason, t.Peer
		h.remember()
	case t.To == carp.Backup || t.To == carp.Init:
		h.left = h.w.now
	}
	h.state = t.To
	h.w.tell(Event{Kind: KindTransition, Host: h, Change: t})
	if ask {
		h.after(h.w.work.in(h.w.opts.GuardTime), func() {
			h.command(func() {
				if !h.calm && h.w.work.chance(h.w.opts.GuardDenyChance) {
					h.apply(h.engine.Denied(h.now(), t.Epoch))
				} else {
					h.apply(h.engine.Granted(h.now(), t.Epoch))
				}
			})
		})
	}
}

// remember notes, at a promotion, when each of the others had sent its last
// advert, and whether this host had heard it.
func (h *Host) remember() {
	h.known = h.known[:0]
	for _, other := range h.w.hosts {
		k := known{sent: other.lastOK}
		if other != h && other.seg == h.seg && h.seg != nil {
			k.missed = other.lastOK > h.seg.path(other, h).heard
		}
		h.known = append(h.known, k)
	}
}
