package carp

import "net/netip"

// timing is what this node advertises and is compared by.
func (e *Engine) timing() timing {
	return timing{e.cfg.AdvBase, effectiveSkew(e.cfg.AdvSkew, e.demotion)}
}

// claim is what this node's adverts say: its bid, and while it lets go what it said
// last as a master.
func (e *Engine) claim() bid {
	if e.state == Releasing {
		return e.held
	}
	return e.bid()
}

// advertise sends a round of adverts and schedules the next. A node that is
// letting go repeats what it said last as a master, so that a demotion meanwhile
// calls nobody in early.
func (e *Engine) advertise(now Instant) {
	b := e.claim()
	e.emit(now, b)
	e.claimed = true
	e.tellStateInTurn(now, b.timing)
	e.arm(timerAdvert, now.Add(e.interval()))
}

// emit makes the frames of one round: each family (IPv4 first) or each peer,
// under the digests still rolling and then the present one, so that a node which
// knows only an old one has accepted the round before it meets the other form. One
// counter serves the round.
func (e *Engine) emit(now Instant, b bid) {
	if e.cfg.Protocol.VRRP() {
		e.emitVRRP(b)
		return
	}
	counter := e.nextCounter(now, b.timing)
	for i := range e.rolling {
		e.emitUnder(&e.rolling[i], b.timing, counter)
	}
	e.emitUnder(&e.secret, b.timing, counter)
}

// emitVRRP makes the frames of one round. An advert's interval is always the own,
// also that of a node which follows another one as a backup (RFC 9568, 6.4.3).
func (e *Engine) emitVRRP(b bid) {
	a := e.router.advert
	a.Priority = b.priority
	start := len(e.wire)
	e.wire = a.Append(e.wire, netip.Addr{}, netip.Addr{})
	payload := e.wire[start:len(e.wire):len(e.wire)]
	e.spread(payload)
}

func (e *Engine) emitUnder(s *secret, t timing, counter uint64) {
	a := NewAdvert(e.cfg.VHID, t.base, t.skew)
	a.Counter = counter
	a.Digest = s.send.Sum(counter)
	start := len(e.wire)
	e.wire = a.Append(e.wire)
	e.spread(e.wire[start:len(e.wire):len(e.wire)])
}

// spread makes the frames of one payload: for each path its peers or its groups.
func (e *Engine) spread(payload []byte) {
	if e.linkUp(0) {
		e.along(0, e.cfg.Peers, payload)
	}
	for i := range e.cfg.Paths {
		if p := &e.cfg.Paths[i]; e.linkUp(p.Link) {
			e.along(uint8(i+1), p.Peers, payload)
		}
	}
}

func (e *Engine) along(path uint8, peers []netip.Addr, payload []byte) {
	for _, p := range peers {
		e.frame(path, p, payload)
	}
	if len(peers) > 0 {
		return
	}
	for _, f := range []Family{IPv4, IPv6} {
		if e.cfg.has(f) { // VRRP has addresses of one
			e.frame(path, Group(f), payload)
		}
	}
}

func (e *Engine) frame(path uint8, dst netip.Addr, payload []byte) {
	e.frames = append(e.frames, Frame{VHID: e.cfg.VHID, Path: path, Dst: dst, Payload: payload, Pseudo: e.router.pseudo})
}

// nextCounter is 40 bits of group clock, 8 of node id, advbase and advskew: the
// eight bytes that every other implementation carries unread, and that the HMAC
// covers while it leaves the timing fields open. A node without an id draws one for
// each advert: two equal masters that send in the same millisecond would take each
// other's adverts for their own. With CompatBSD it is random until an advert was
// heard, then that counter plus one (carp_prepare_ad).
func (e *Engine) nextCounter(now Instant, t timing) uint64 {
	var counter uint64
	switch {
	case e.cfg.Compat != CompatBSD:
		e.clock = min(max(e.guard.clock.at(now), e.clock+1), maxClock)
		id := e.cfg.NodeID
		if id == 0 {
			id = uint8(e.cfg.random())
		}
		counter = seal{e.clock, id, t}.counter()
		if e.guard.window != nil {
			e.guard.window.sent(counter, t)
		}
	case e.heardBy:
		e.clock++
		counter = e.clock
	default:
		counter = e.cfg.random()
	}
	e.recent[e.sent%len(e.recent)] = counter
	e.sent++
	return counter
}

// isOwn reports whether counter is one of the last that this engine sent.
func (e *Engine) isOwn(counter uint64) bool {
	for _, c := range e.recent[:min(e.sent, len(e.recent))] {
		if c == counter {
			return true
		}
	}
	return false
}

// permit renews the right to act as master, counted from the last successful
// send: it ends a little before the fastest backup may take over, so that addresses
// which are taken off when it lapses are gone by then. While letting go
// it goes on for what is still held, and is not given anew.
func (e *Engine) permit() {
	switch {
	case e.state == Master && e.timers[timerGrace] == 0 && !e.asking && e.spoken:
		e.permitted = true
	case e.state == Releasing && e.permitted:
	default:
		return
	}
	e.out.Permit = Permit{Epoch: e.epoch, Until: e.lastSent.Add(e.permitTime())}
}

// Renew asks for an advert before it is due, and so for a fresh permit: for a worker
// that must put back a lost address and may not under the one it has. An earlier
// advert harms nobody; there are at most twenty an interval.
func (e *Engine) Renew(now Instant) Effects {
	if !e.begin(now) && e.state == Master && now.Sub(e.lastSent) >= e.interval()/20 {
		e.advertise(now)
	}
	return e.finish()
}

// Stale reports whether what was decided at an earlier instant must not be sent any
// more: the node has stood still since.
func (e *Engine) Stale(decided, now Instant) bool {
	return e.Stalled(now) || now.Sub(decided) > e.patience()
}

// Sent tells that the frames of the last Effects went out. at is an instant from
// before the first of them was sent, since a backup counts from when it hears.
func (e *Engine) Sent(at Instant) Effects {
	claimed := e.claimed
	e.out, e.claimed = Effects{}, false
	e.frames = e.frames[:0]
	e.counters.Sent++
	if e.errors > 0 {
		if e.successes++; e.successes >= sendErrorLimit || e.errors < sendErrorLimit {
			e.heal(at)
		}
	}
	if claimed && (e.state == Master || e.state == Releasing) {
		e.lastSent, e.spoken = max(e.lastSent, at), true
		e.slowing = max(e.slowing-1, 0)
		if e.failures > 0 && at.Sub(e.since) > failureHold {
			e.failures = 0
		}
		e.permit()
	}
	return e.finish()
}

// SendFailed tells that none of the frames of the last Effects went out. The third
// failure in a row demotes the node, so that a peer which can send takes over
// (FreeBSD carp_send_ad_error). It is forgiven after three successes, at a link
// up, or after 30 s without another failure: a node that lost the role because of
// it sends nothing, and would otherwise stay demoted for ever.
func (e *Engine) SendFailed(now Instant) Effects {
	if e.begin(now) {
		return e.finish()
	}
	e.counters.SendErrors++
	e.errors++
	e.successes = 0
	if e.errors >= sendErrorLimit {
		e.arm(timerHeal, now.Add(sendErrorHeal))
		if e.demotions[OwnerSendErrors] == 0 {
			e.setDemotion(now, OwnerSendErrors, sendErrorDemote)
		}
	}
	return e.finish()
}

func (e *Engine) heal(now Instant) {
	e.errors, e.successes = 0, 0
	e.disarm(timerHeal)
	e.setDemotion(now, OwnerSendErrors, 0)
}
