package carp

import (
	"cmp"
	"net/netip"
	"time"
)

// What differs between the protocols, for the engine: each method asks the pure
// functions of election.go or election_vrrp.go.

// bid is what an advert claims: by it masters are compared, and from it follows
// how far apart adverts are. CARP uses the timing, VRRP the rest.
type bid struct {
	timing
	priority uint8
	every    time.Duration // between adverts
}

// leave is the bid of a bow-out: 255/255 in CARP, priority 0 in VRRP.
var leave = bid{timing: timing{bowOut, bowOut}}

// bid is what this node advertises and is compared by.
func (e *Engine) bid() bid {
	if e.cfg.Protocol.VRRP() {
		return bid{priority: effectivePriority(e.cfg.Priority, e.demotion), every: e.cfg.Interval}
	}
	return bid{timing: e.timing()}
}

// compare is negative if a is the better bid.
func (e *Engine) compare(a, b bid) int {
	if e.cfg.Protocol.VRRP() {
		return cmp.Compare(b.priority, a.priority)
	}
	return cmp.Compare(a.units(), b.units())
}

// interval is how far apart this node's adverts are as a master. Under a lease it
// is never longer than advbase; an earlier advert harms nobody.
func (e *Engine) interval() time.Duration {
	switch {
	case e.cfg.Protocol.VRRP() && e.slowing > 0:
		return e.faster
	case e.cfg.Protocol.VRRP():
		return e.cfg.Interval
	}
	each := e.timing().interval()
	if e.cfg.Leased && e.cfg.AdvBase > 0 {
		each = min(each, time.Duration(e.cfg.AdvBase)*time.Second)
	}
	return each
}

// masterDown is how long a backup waits for the next advert of a master that was
// heard with this bid; the zero bid stands for none.
func (e *Engine) masterDown(heard bid) time.Duration {
	if e.cfg.Protocol.VRRP() {
		own := e.bid()
		return vrrpDown(e.cfg.Protocol, own.priority, own.every, follows(e.cfg.Protocol, own.every, heard.every))
	}
	return masterDown(e.cfg.timing(), heard.timing)
}

// afterBowOut is how long a backup leaves better ones the time to be first when
// the master with this bid has left. Nodes whose probe fails, or that are unfit, are demoted
// to the same, all of them if the probed host is dead: what is configured tells them apart,
// else two would take the role at once.
func (e *Engine) afterBowOut(gone bid) (wait time.Duration) {
	if e.cfg.Protocol.VRRP() {
		own := e.bid()
		every := follows(e.cfg.Protocol, own.every, gone.every)
		if e.cutOff || e.health.unfit {
			wait = vrrpSkew(e.cfg.Protocol, e.cfg.Priority, every) / 2
		}
		return wait + vrrpSkew(e.cfg.Protocol, own.priority, every)
	}
	if e.cutOff || e.health.unfit {
		wait = time.Duration(e.cfg.AdvSkew) * time.Millisecond / 10
	}
	return wait + time.Duration(e.timing().skew)*time.Millisecond/10
}

// fastestDown is the shortest master-down time that a backup of this group can
// have.
func (e *Engine) fastestDown() time.Duration {
	if e.cfg.Protocol.VRRP() {
		return 3 * e.interval()
	}
	return fastestDown(e.timing())
}

// permitTime is how long after a successful send the node may act as master.
func (e *Engine) permitTime() time.Duration { return PermitTime(e.fastestDown()) }

// patience is how long this node may be a master without a successful send.
func (e *Engine) patience() time.Duration {
	return patience(e.cfg.Protocol, e.fastestDown(), e.interval())
}

// owner reports whether the node acts as the owner of the addresses. A demoted
// owner does not: it could not be taken out of service otherwise.
func (e *Engine) owner() bool {
	return e.cfg.Protocol.VRRP() && e.bid().priority == OwnerPriority
}

func (e *Engine) asMaster(own, theirs bid) verdict {
	switch order := e.compare(theirs, own); {
	case order < 0:
		return yield
	case order == 0:
		return tie
	}
	return stay
}

// asBackup judges an advert. CARP judges the best master heard within the
// master-down time, not the last packet, so that one slow node beside a good one
// moves nothing; VRRP ignores the slow one, whose adverts do not stop the timer.
func (e *Engine) asBackup(now Instant, heard bid) verdict {
	preempting := (e.cfg.Preempt || e.owner()) && !e.cutOff && now.Sub(e.upAt) >= e.cfg.PreemptDelay && e.timers[timerHold] == 0
	switch {
	case e.cfg.Protocol.VRRP():
		return vrrpAsBackup(e.bid().priority, heard.priority, preempting)
	case e.cfg.Compat != CompatBSD:
		heard = e.followed(now) // there is one: the advert's own sender, or a better one
	}
	return asBackup(e.timing(), e.cfg.timing(), heard.timing, preempting)
}

// winsTie reports whether this node stays master against an equal one. ok is false
// if nothing tells the two apart.
func (e *Engine) winsTie(h *hearing, p *Packet) (wins, ok bool) {
	local := e.localOn(p.Link)
	if p.sender.IsValid() { // addresses are compared that are on one segment
		q := *p
		q.Src, p = p.sender, &q
	}
	if e.cfg.Protocol.VRRP() {
		return vrrpWinsTie(local, p)
	}
	if id := unseal(h.counter).id; e.sealedGroup() && id != e.cfg.NodeID {
		return e.cfg.NodeID < id, true
	}
	return winsTie(local, p)
}

// ownAddress is the address by which the sender of p knows this node: what it has
// sent to, if it is a unicast peer.
func ownAddress(local Local, p *Packet) netip.Addr {
	switch {
	case p.Dst.IsValid() && !p.Dst.IsMulticast() && !p.Broadcast:
		return p.Dst
	case FamilyOf(p.Src) == IPv6:
		return local.IPv6.WithZone("")
	}
	return local.IPv4
}
