package carp

import (
	"net/netip"
	"time"
)

// sighting is the last advert of one master.
type sighting struct {
	src    netip.Addr
	timing timing
	at     Instant
}

// Receive takes one packet as it came off the wire. A good advert costs no
// allocation. A refused one changes nothing but its counter.
func (e *Engine) Receive(now Instant, p Packet) Effects {
	stalled := e.begin(now)
	var a Advert
	drop := e.check(&a, &p)
	switch {
	case drop != Accepted:
	case stalled:
		drop = DropStalled
	default:
		e.counters.Received++
		drop = e.accept(now, &a, &p)
	}
	if drop != Accepted {
		e.drops[drop]++
		e.refused[drop] = Sighting{Address: p.Src, AdvBase: a.AdvBase, AdvSkew: a.AdvSkew, At: now}
		e.out.Drop = drop
	}
	return e.finish()
}

// check is the order of DESIGN's receive path: what is cheap and needs no secret
// comes first, and the first refusal counts.
func (e *Engine) check(a *Advert, p *Packet) Drop {
	multicast := p.Broadcast || p.Dst.IsMulticast()
	bsd := e.cfg.Compat == CompatBSD
	if len(e.cfg.Peers) == 0 && p.TTL != 255 {
		return DropTTL
	}
	if !bsd && multicast == (len(e.cfg.Peers) > 0) {
		return DropDestination
	}
	if !bsd && !multicast && !e.isPeer(p.Src) {
		return DropPeer
	}
	src, dst := p.Src, p.Dst
	if bsd {
		src = netip.Addr{} // no pseudo-header, as FreeBSD
	}
	if d := a.Decode(p.Payload, src, dst); d != Accepted {
		return d
	}
	switch {
	case a.VHID != e.cfg.VHID:
		return DropVHID
	case len(e.cfg.Peers) == 0 && !e.cfg.has(FamilyOf(p.Src)):
		return DropFamily
	case !e.authentic(a) && a.Counter == e.lastHeard: // one counter serves a round
		return DropRolling
	case !e.authentic(a):
		return DropHash
	case e.isOwn(a.Counter) && (!bsd || p.Src == e.local.IPv4 || p.Src == e.local.IPv6):
		return DropOwn // BSD counters go on from each other's, so that a peer may use the same ones
	case e.state == Init:
		return DropState
	}
	return Accepted
}

func (e *Engine) isPeer(src netip.Addr) bool {
	for _, p := range e.cfg.Peers {
		if p.WithZone("") == src {
			return true
		}
	}
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

func (e *Engine) accept(now Instant, a *Advert, p *Packet) Drop {
	e.lastHeard = a.Counter
	if e.cfg.Compat == CompatBSD {
		e.heardBy, e.clock = true, a.Counter
	}
	switch {
	case e.state == Backup && a.BowOut() && e.cfg.Compat != CompatBSD:
		return e.offered(now, p)
	case e.state == Backup:
		e.heardAsBackup(now, a, p)
	case e.state == Master:
		e.heardAsMaster(now, a, p)
	case e.state == Releasing && asMaster(e.held, a.timing()) != stay:
		e.lose(now, a, p, ReasonBetterMaster) // the role is taken: nobody is left to bow to
	}
	return Accepted
}

// heardAsBackup follows the best master heard within the master-down time, not
// the last packet, so that one slow node beside a good one moves nothing.
func (e *Engine) heardAsBackup(now Instant, a *Advert, p *Packet) {
	e.see(now, p.Src, a.timing())
	judged := a.timing()
	if e.cfg.Compat != CompatBSD {
		judged = e.best(now)
	}
	preempting := e.cfg.Preempt && now.Sub(e.upAt) >= e.cfg.PreemptDelay && e.timers[timerHold] == 0
	switch asBackup(e.timing(), e.cfg.timing(), judged, preempting) {
	case preempt:
		e.takeOver(now, ReasonPreempting, p)
		return
	case expire:
		e.takeOver(now, ReasonWillTimeOut, p)
		return
	}
	e.handing = false
	if a.timing().units() <= e.timing().units() {
		e.disarm(timerBowOut)
	}
	down := timerDown
	if e.cfg.Families == FamiliesEach && FamilyOf(p.Src) == IPv6 {
		down = timerDown6
	}
	e.arm(down, now.Add(masterDown(e.cfg.timing(), a.timing())))
}

// offered handles a bow-out: only that of a master which is followed counts, and
// a node with a greater advskew leaves a better one time to be first.
func (e *Engine) offered(now Instant, p *Packet) Drop {
	leaving := -1
	for i := range e.heard {
		if s := &e.heard[i]; s.src == p.Src && e.fresh(now, s) {
			leaving = i
		}
	}
	if leaving < 0 {
		return DropBowOut
	}
	gone := e.heard[leaving].timing
	for i := range e.heard { // with it goes what it said over the other family
		if s := &e.heard[i]; s.src == p.Src || s.timing == gone && FamilyOf(s.src) != FamilyOf(p.Src) {
			*s = sighting{}
		}
	}
	for i := range e.heard {
		if e.fresh(now, &e.heard[i]) {
			return Accepted // there is another master
		}
	}
	if e.timers[timerBowOut] == 0 {
		e.arm(timerBowOut, now.Add(time.Duration(e.timing().skew)*time.Millisecond/10))
	}
	return Accepted
}

// heardAsMaster decides between two masters.
func (e *Engine) heardAsMaster(now Instant, a *Advert, p *Packet) {
	bsd := e.cfg.Compat == CompatBSD
	switch asMaster(e.timing(), a.timing()) {
	case yield:
		e.lose(now, a, p, ReasonBetterMaster)
	case tie:
		e.settle(now, a, p, bsd)
	case stay:
		if !bsd {
			e.keep(now, a, p)
		}
	}
}

// settle decides a tie. The BSDs yield, and with a peer that yields too they flap
// for ever; so the lower address stays, on one family alone where there are two.
func (e *Engine) settle(now Instant, a *Advert, p *Packet, bsd bool) {
	if bsd {
		e.lose(now, a, p, ReasonTieLost)
		return
	}
	if FamilyOf(p.Src) == IPv6 && e.cfg.has(IPv4) && len(e.cfg.Peers) == 0 {
		return
	}
	if wins, ok := winsTie(e.local, p); ok && wins {
		e.keep(now, a, p)
		return
	}
	e.lose(now, a, p, ReasonTieLost)
}

func (e *Engine) lose(now Instant, a *Advert, p *Packet, why Reason) {
	var extra time.Duration // random, so that two that both yield do not meet again
	if why == ReasonTieLost && e.cfg.Compat != CompatBSD {
		extra = time.Duration(e.cfg.random() % uint64(e.timing().interval()))
	}
	e.see(now, p.Src, a.timing())
	e.yield(now, why, p.Src, extra)
}

// keep stays master against another that should yield. While the grace of a
// preemption runs, the old master's next advert is its farewell: it has let go.
// Otherwise clients may have been drawn to the other node, so this one announces
// again; the first time of a contest is a new epoch, which hooks are told.
func (e *Engine) keep(now Instant, a *Advert, p *Packet) {
	if e.timers[timerGrace] != 0 {
		if p.Src == e.old && e.lastHeard != e.oldCounter && (p.At == 0 || p.At > e.lastSent) {
			e.disarm(timerGrace)
			e.oldCounter = e.lastHeard
			e.permit()
		}
		return
	}
	if e.oldCounter != 0 && e.lastHeard == e.oldCounter {
		return // the farewell again: another family, another digest, or a duplicate
	}
	first := now >= e.contested && !a.BowOut() && !e.asking
	if !first && now.Sub(e.lastReply) < e.interval()/4 {
		return // an attacker's packets must not set the pace
	}
	e.lastReply = now
	e.out.Announce = true
	if a.BowOut() { // it leaves; or it has left, and this is the other family's form of what made this node master
		return
	}
	if first {
		e.newEpoch(now)
		e.move(now, Master, ReasonContested, p.Src)
		e.permit() // nobody may serve the new epoch without one, and the next advert may be an interval away
	}
	e.contested = now.Add(masterDown(e.cfg.timing(), timing{}))
	if now.Sub(e.lastSent) >= e.interval()/4 {
		e.advertise(now)
	}
}

// Overflow counts n packets that were dropped before they reached the engine.
func (e *Engine) Overflow(n int) { e.drops[DropOverflow] += uint64(n) }

// see remembers what a master promised, in place of what it said before, of
// nothing, or of the master that was silent the longest.
func (e *Engine) see(now Instant, src netip.Addr, t timing) {
	slot := &e.heard[0]
	for i := range e.heard {
		s := &e.heard[i]
		if s.src == src {
			slot = s
			break
		}
		if s.at < slot.at {
			slot = s
		}
	}
	*slot = sighting{src, t, now}
}

func (e *Engine) fresh(now Instant, s *sighting) bool {
	return s.at != 0 && now.Sub(s.at) < masterDown(e.cfg.timing(), s.timing)
}

// best is the shortest interval among the masters that live.
func (e *Engine) best(now Instant) timing {
	best := timing{255, 255}
	for i := range e.heard {
		if s := &e.heard[i]; e.fresh(now, s) && s.timing.units() < best.units() {
			best = s.timing
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
