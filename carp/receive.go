package carp

import (
	"net/netip"
	"time"
)

// sighting is the last advert of one master.
type sighting struct {
	src     netip.Addr
	bid     bid
	sum     Checksum
	refused Drop    // VRRP: alive, but incompatible
	at      Instant // when the engine heard it
	came    Instant // when the kernel got it
}

// hearing is an advert of any protocol as the election needs it.
type hearing struct {
	bid     bid
	path    uint8  // the number of the path
	leaves  bool   // a bow-out
	counter uint64 // CARP
	sum     Checksum
	alive   bool // VRRP: refused, and yet a living master of this virtual router
	refused Drop // then: why

	duplicate bool // another machine has this node's address

	message Message // CARP: a companion message; its type is 0 if it is none
}

// Receive takes one packet as it came off the wire. A good advert costs no
// allocation. A refused one changes nothing but its counter, unless it shows that
// another VRRP master lives whose settings differ from ours.
func (e *Engine) Receive(now Instant, p Packet) Effects {
	stalled := e.begin(now)
	var h hearing
	drop := e.check(now, &h, &p)
	switch {
	case drop != Accepted && h.alive && !stalled:
		if h.refused = drop; e.isCopy(now, &h, &p) {
			e.settleCopy(now, &h, &p)
		} else {
			e.heardIncompatible(now, &h, &p)
		}
	case drop != Accepted:
	case stalled:
		drop = DropStalled
	default:
		drop = e.take(now, &h, &p)
	}
	if drop == Accepted && h.duplicate {
		drop = DropDuplicate // and used all the same
	}
	if drop != Accepted {
		e.drops[drop]++
		s := sighting{src: p.Src, bid: h.bid, sum: h.sum, refused: drop, at: now}
		e.refused[drop] = s.public()
		if h.counter != 0 {
			e.refused[drop].NodeID = unseal(h.counter).id
		}
		e.out.Drop = drop
	}
	return e.finish()
}

// take hands on what is authentic: companion messages to who waits for them, adverts
// to the election unless they may be recordings.
func (e *Engine) take(now Instant, h *hearing, p *Packet) (drop Drop) {
	if h.message.Type != 0 {
		drop = e.heardMessage(now, h, p)
	} else if drop = e.checkFresh(now, h, p); drop == Accepted {
		return e.believe(now, h, p)
	}
	if drop != Accepted && e.guard.doubted == now {
		e.doubtedAsMaster(now)
	}
	return drop
}

// believe gives what is fresh to the election, unless it was heard over another path
// already.
func (e *Engine) believe(now Instant, h *hearing, p *Packet) Drop {
	e.counters.Received++
	e.guard.waiting = false
	if e.isCopy(now, h, p) {
		e.settleCopy(now, h, p)
		return Accepted
	}
	return e.accept(now, h, p)
}

func (e *Engine) check(now Instant, h *hearing, p *Packet) Drop {
	if e.cfg.Protocol.VRRP() {
		return e.checkVRRP(now, h, p)
	}
	return e.checkCARP(h, p)
}

// checkCARP is the order of the receive path: what is cheap and needs no secret
// comes first, and the first refusal counts.
func (e *Engine) checkCARP(h *hearing, p *Packet) Drop {
	multicast := p.Broadcast || p.Dst.IsMulticast()
	bsd := e.cfg.Compat == CompatBSD
	path, peers := e.pathOf(p)
	h.path = path
	if len(peers) == 0 && p.TTL != 255 {
		return DropTTL
	}
	if !bsd && multicast == (len(peers) > 0) {
		return DropDestination
	}
	if !bsd && !multicast && !isPeer(peers, p.Src) {
		return DropPeer
	}
	if !sendable(p.Src) {
		return DropSource
	}
	if p.AH {
		return DropAuth
	}
	src, dst := p.Src, p.Dst
	if bsd {
		src = netip.Addr{} // no pseudo-header, as FreeBSD
	}
	var a Advert
	if d := a.Decode(p.Payload, src, dst); d != Accepted {
		return e.foreignProtocol(d, p)
	}
	h.bid, h.leaves, h.counter = bid{timing: a.timing()}, a.BowOut(), a.Counter
	switch {
	case a.VHID != e.cfg.VHID:
		return DropVHID
	case len(peers) == 0 && !e.cfg.has(FamilyOf(p.Src)):
		return DropFamily
	case e.isMessage(&a, &h.message, p.Payload):
		if !e.waitsFor(MessageType(a.Type)) {
			return DropType
		}
	case !e.authentic(&a) && a.Counter == e.lastHeard: // one counter serves a round
		return DropRolling
	case !e.authentic(&a):
		return e.foreignProtocol(DropHash, p)
	}
	switch {
	case e.isOwn(a.Counter) && (!bsd || p.Src == e.local.IPv4 || p.Src == e.local.IPv6):
		return DropOwn // BSD counters go on from each other's, so that a peer may use the same ones
	case e.state == Init:
		return DropState
	}
	h.duplicate = !bsd && e.isDuplicate(p)
	return Accepted
}

// foreignProtocol names a packet that is a sound one of the other protocol: both
// have IP protocol 112, and CARP and VRRP version 2 the same first byte. A CARP
// advert of version 3 would be one of VRRP with seven addresses; the BSDs count it
// as a bad version.
func (e *Engine) foreignProtocol(d Drop, p *Packet) Drop {
	switch {
	case e.cfg.Protocol.VRRP() && looksLikeCARP(p.Payload),
		e.cfg.Protocol == CARP && d != DropVersion && looksLikeVRRP(p.Payload, p.Src, p.Dst):
		return DropProtocol
	}
	return d
}

func isPeer(peers []netip.Addr, src netip.Addr) bool {
	for _, p := range peers {
		if p.WithZone("") == src {
			return true
		}
	}
	return false
}

// isMessage reports whether a packet is an authentic companion message, of this
// or an earlier configuration. With any other digest it is what everybody else
// takes it for: an advert, whose type is not looked at.
func (e *Engine) isMessage(a *Advert, m *Message, payload []byte) bool {
	t := MessageType(a.Type)
	if !t.companion() || m.Decode(payload) != Accepted {
		return false
	}
	if e.secret.verifyMessage(t, m) {
		return true
	}
	for i := range e.rolling {
		if e.rolling[i].verifyMessage(t, m) {
			return true
		}
	}
	*m = Message{}
	return false
}

func (e *Engine) authentic(a *Advert) bool {
	if e.secret.verify(a) {
		return true
	}
	for i := range e.rolling {
		if e.rolling[i].verify(a) {
			return true
		}
	}
	return false
}

func (e *Engine) accept(now Instant, h *hearing, p *Packet) Drop {
	e.lastHeard = h.counter
	if e.cfg.Compat == CompatBSD {
		e.heardBy, e.clock = true, h.counter
	}
	switch {
	case e.state == Backup && h.leaves && e.cfg.Compat != CompatBSD:
		return e.offered(now, p)
	case e.state == Backup:
		e.heardAsBackup(now, h, p)
	case e.state == Master:
		e.heardAsMaster(now, h, p, ReasonBetterMaster)
	case e.state == Releasing && e.asMaster(e.held, h.bid) != stay:
		e.lose(now, h, p, ReasonBetterMaster) // the role is taken: nobody is left to bow to
	}
	return Accepted
}

// heardAsBackup follows a master, or takes over from it.
func (e *Engine) heardAsBackup(now Instant, h *hearing, p *Packet) {
	e.remind(now, h, p)
	e.see(now, h, p)
	switch e.asBackup(now, h.bid) {
	case preempt:
		if !e.sealedGroup() {
			e.takeOver(now, ReasonPreempting, p)
			return
		}
		e.request(now, h)
	case expire:
		e.takeOver(now, ReasonWillTimeOut, p)
		return
	case outlast:
		e.handing = false // somebody has the role
		if at := e.timers[timerBowOut]; at != 0 {
			e.disarm(timerBowOut) // so that it is preempted when it is this node's turn
			e.arm(timerDown, at)
		}
		return
	}
	e.follow(now, h, p)
}

// follow waits for the next advert of a master that was heard.
func (e *Engine) follow(now Instant, h *hearing, p *Packet) {
	e.handing = false
	if e.cfg.Protocol.VRRP() || e.sealedGroup() || e.compare(h.bid, e.bid()) <= 0 { // who was named may be worse
		e.disarm(timerBowOut)
	}
	down := timerDown
	if e.cfg.Families == FamiliesEach && FamilyOf(p.Src) == IPv6 {
		down = timerDown6
	}
	e.arm(down, now.Add(e.masterDown(h.bid)))
	if e.sealedGroup() {
		e.plan.follows = unseal(h.counter).id
		e.armState(now)
	}
}

// offered handles a bow-out: only that of a master which is followed counts, and
// a node with a greater advskew leaves a better one time to be first.
func (e *Engine) offered(now Instant, p *Packet) Drop {
	gone, alone, followed := e.gone(now, p)
	switch {
	case !followed:
		return DropBowOut
	case alone && e.timers[timerBowOut] == 0 && !e.passedOn(now):
		e.arm(timerBowOut, now.Add(e.afterBowOut(gone)))
	}
	return Accepted
}

// gone forgets a master that has left, if it is one that is followed, and reports
// what it bid, and whether there is no other.
func (e *Engine) gone(now Instant, p *Packet) (was bid, alone, followed bool) {
	leaving := e.sighting(p.Src)
	if leaving == nil || !e.fresh(now, leaving) {
		return bid{}, false, false
	}
	was, e.plan.follows = leaving.bid, 0
	for i := range e.heard { // with it goes what it said over the other family
		if s := &e.heard[i]; s.src == p.Src || s.bid == was && FamilyOf(s.src) != FamilyOf(p.Src) {
			*s = sighting{}
		}
	}
	for i := range e.heard {
		if s := &e.heard[i]; e.fresh(now, s) && !e.overdue(now, s) {
			return was, false, true
		}
	}
	return was, true, true
}

// heardAsMaster decides between two masters.
func (e *Engine) heardAsMaster(now Instant, h *hearing, p *Packet, better Reason) {
	bsd := e.cfg.Compat == CompatBSD
	switch e.asMaster(e.bid(), h.bid) {
	case yield:
		e.lose(now, h, p, better)
	case tie:
		e.settle(now, h, p, bsd)
	case stay:
		if !bsd {
			e.keep(now, h, p)
		}
	}
}

// settle decides a tie. The BSDs yield, and with a peer that yields too they flap
// for ever; so one of the two addresses decides, on one family alone where there
// are two.
func (e *Engine) settle(now Instant, h *hearing, p *Packet, bsd bool) {
	if bsd {
		e.lose(now, h, p, ReasonTieLost)
		return
	}
	switch {
	case e.sealedGroup(): // the node ids decide, whatever it came over
	case FamilyOf(p.Src) == IPv6 && e.cfg.has(IPv4) && p.Dst.IsMulticast():
		return
	case h.path > 0 && e.primaryDecides(now, p):
		return
	case h.path > 0 && e.overstays(now):
		e.lose(now, h, p, ReasonTieLost)
		return
	}
	if wins, ok := e.winsTie(h, p); ok && wins {
		e.keep(now, h, p)
		return
	}
	e.lose(now, h, p, ReasonTieLost)
}

func (e *Engine) lose(now Instant, h *hearing, p *Packet, why Reason) {
	wait := e.masterDown(bid{})
	if e.cfg.Protocol.VRRP() {
		wait = e.masterDown(h.bid)
	}
	if why == ReasonTieLost && e.cfg.Compat != CompatBSD && !e.decides(h, p) { // random, so that two that both yield do not meet again
		wait += time.Duration(e.cfg.random() % uint64(e.interval()))
	}
	even := e.state == Releasing && e.compare(h.bid, e.held) == 0
	e.see(now, h, p)
	e.yield(now, why, p.Src, wait)
	if even { // a farewell might win the tie against the node that rightly took over
		e.farewell = false
	}
}

// decides reports whether the other one will surely see a tie as this node does: a
// VRRP master compares as we do, and so does carpd, while others of CARP may yield as
// well.
func (e *Engine) decides(h *hearing, p *Packet) bool {
	_, ok := e.winsTie(h, p)
	return ok && (e.cfg.Protocol.VRRP() || e.sealedGroup())
}

// keep stays master against another that should yield. While the grace of a
// preemption runs, the old master's farewell says that it has let go.
func (e *Engine) keep(now Instant, h *hearing, p *Packet) {
	switch {
	case e.timers[timerGrace] != 0:
		e.inGrace(now, h, p)
	case e.oldCounter != 0 && e.lastHeard == e.oldCounter: // the farewell again: another family, another digest, or a duplicate
	default:
		e.contest(now, h, p)
	}
}

func (e *Engine) inGrace(now Instant, h *hearing, p *Packet) {
	sure := p.Src == e.old && e.isFarewell(now, h, p)
	if sure {
		e.disarm(timerGrace)
		e.oldCounter = e.lastHeard
		e.permit()
	}
	if !h.leaves && (sure || e.cfg.Protocol.VRRP()) {
		e.answer(now, sure) // or it is said again
	}
	if s := e.sighting(p.Src); h.leaves && s != nil {
		*s = sighting{}
	} else if !h.leaves && e.cfg.Protocol.VRRP() {
		e.see(now, h, p)
	}
}

// contest answers another master, to which clients may have been drawn: this node
// announces again. The first time of a contest is a new epoch, which hooks are told.
// An attacker's packets, or a peer with other settings, must not set the pace.
func (e *Engine) contest(now Instant, h *hearing, p *Packet) {
	first := now >= e.contested && !h.leaves && !e.asking
	if !first && now.Sub(e.lastReply) < e.interval()/4 {
		if !h.leaves {
			e.answer(now, false)
		}
		return
	}
	e.lastReply = now
	if first || now.Sub(e.announced) >= max(e.interval()/4, announcePace) {
		e.announced, e.out.Announce = now, true
	}
	if h.leaves { // CARP: it leaves; or it has left, and this is the other family's form of what made this node master
		if e.cfg.Protocol.VRRP() { // RFC 9568, 6.4.3: answered at once
			e.advertise(now)
		}
		return
	}
	if first {
		e.newEpoch(now)
		e.move(now, Master, ReasonContested, p.Src)
		e.permit() // nobody may serve the new epoch without one, and the next advert may be an interval away
	}
	e.contested = now.Add(max(e.masterDown(bid{}), contestLeast))
	e.answer(now, first)
}

// answer tells another master of this one: at once the first time of a contest (RFC
// 9568, 6.4.3), else a quarter of an interval after the last advert. That one may be
// lost, or have passed the other's on its way; the other holds the addresses until it
// hears the next.
func (e *Engine) answer(now Instant, first bool) {
	soonest := e.lastSent.Add(e.interval() / 4)
	if first || now >= soonest {
		e.advertise(now)
		return
	}
	e.arm(timerAdvert, min(e.timers[timerAdvert], soonest))
}

// isFarewell tells the last advert of the master that was preempted, which has let
// go, from one that it sent before it heard of this node. CARP preempts as it hears
// an advert, so the next round is the farewell. VRRP may preempt just before the
// next one is due: only an advert out of turn is a farewell, else the grace runs on. A
// farewell says what the master said last: with another weight it is the word of one that
// has just been demoted, and may not have heard anything.
func (e *Engine) isFarewell(now Instant, h *hearing, p *Packet) bool {
	last := e.sighting(p.Src)
	if p.At != 0 && p.At <= e.lastSent || last != nil && e.compare(last.bid, h.bid) != 0 {
		return false
	}
	if !e.cfg.Protocol.VRRP() {
		return e.lastHeard != e.oldCounter
	}
	if last == nil {
		return false
	}
	since := arrival(now, p).Sub(last.came)
	return since > last.bid.every/50 && since < last.bid.every*3/4
}

// Overflow counts n packets that were dropped before they reached the engine.
func (e *Engine) Overflow(n int) { e.drops[DropOverflow] += uint64(n) }

// sighting finds what is known of one master, or nil.
func (e *Engine) sighting(src netip.Addr) *sighting {
	for i := range e.heard {
		if s := &e.heard[i]; s.src == src && s.at != 0 {
			return s
		}
	}
	return nil
}

// see remembers what a master promised, in place of what it said before, of nothing,
// of one that is dead, or of the worst: strangers must not push out the one that is
// followed.
func (e *Engine) see(now Instant, h *hearing, p *Packet) {
	slot := e.sighting(p.Src)
	for i := 0; i < len(e.heard) && slot == nil; i++ {
		if s := &e.heard[i]; !e.fresh(now, s) {
			slot = s
		}
	}
	if slot == nil {
		slot = &e.heard[0]
		for i := range e.heard {
			if order := e.compare(slot.bid, e.heard[i].bid); order < 0 || order == 0 && e.heard[i].at < slot.at {
				slot = &e.heard[i]
			}
		}
		if e.compare(slot.bid, h.bid) < 0 {
			return
		}
	}
	*slot = sighting{src: p.Src, bid: h.bid, sum: h.sum, refused: h.refused, at: now, came: arrival(now, p)}
}

// arrival is when the kernel got a packet, which may have waited for the loop.
func arrival(now Instant, p *Packet) Instant {
	if p.At != 0 {
		return p.At
	}
	return now
}

func (e *Engine) fresh(now Instant, s *sighting) bool {
	return s.at != 0 && now.Sub(s.at) < e.masterDown(s.bid)
}

// followed is the bid of the best master that lives, the zero bid if there is none.
func (e *Engine) followed(now Instant) bid {
	if s := e.bestSighting(now); s != nil {
		return s.bid
	}
	return bid{}
}

// bestSighting is the best master that lives, or nil.
func (e *Engine) bestSighting(now Instant) *sighting {
	var best *sighting
	for i := range e.heard {
		if s := &e.heard[i]; e.fresh(now, s) && (best == nil || e.compare(s.bid, best.bid) < 0) {
			best = s
		}
	}
	return best
}

// livingMaster returns a packet that stands for the master heard last, or nil.
func (e *Engine) livingMaster(now Instant) *Packet {
	var last *sighting
	for i := range e.heard {
		if s := &e.heard[i]; e.fresh(now, s) && (last == nil || s.at > last.at) {
			last = s
		}
	}
	if last == nil {
		return nil
	}
	return &Packet{Src: last.src}
}
