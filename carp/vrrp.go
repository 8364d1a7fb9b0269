package carp

import (
	"bytes"
	"net/netip"
)

// router is what all adverts of a VRRP instance have in common.
type router struct {
	advert VRRPAdvert
	pseudo bool                 // the checksum covers a pseudo-header
	ours   map[netip.Addr]uint8 // the addresses in the advert, numbered
}

// newRouter prepares the adverts of c; CARP needs nothing.
func newRouter(c *Config) router {
	if !c.Protocol.VRRP() {
		return router{}
	}
	list := c.inAdvert()
	r := router{
		advert: NewVRRPAdvert(version(c.Protocol), c.VHID, c.Priority, c.Interval, list),
		pseudo: c.Protocol == VRRP3 && (c.Family() == IPv6 || c.Checksum == ChecksumPseudo),
		ours:   map[netip.Addr]uint8{},
	}
	r.advert.Sum = ChecksumRFC9568 // where it is not, the link completes it
	if c.Protocol == VRRP2 && len(c.Passphrase) > 0 {
		r.advert.AuthType = authText
		copy(r.advert.Password[:], c.Passphrase)
	}
	for i, a := range list {
		r.ours[a] = uint8(i)
	}
	return r
}

// authText is version 2's authentication type of a text password (RFC 2338, 5.3.6).
const authText = 1

func version(p Protocol) uint8 {
	if p == VRRP2 {
		return 2
	}
	return 3
}

// checkVRRP is the order of the receive path for VRRP. What follows on the id shows
// a living router of this id: if it has an address of ours, differences in the rest
// are no silence (h.alive).
func (e *Engine) checkVRRP(now Instant, h *hearing, p *Packet) Drop {
	path, peers := e.pathOf(p)
	h.path = path
	multicast, unicast := p.Broadcast || p.Dst.IsMulticast(), len(peers) > 0
	switch {
	case !unicast && p.TTL != 255 || unicast && !e.cfg.PeerTTL[p.Src].holds(p.TTL):
		return DropTTL
	case multicast == unicast:
		return DropDestination
	case unicast && !isPeer(peers, p.Src):
		return DropPeer
	case !sendable(p.Src):
		return DropSource
	}
	var a VRRPAdvert
	if d := a.Decode(p.Payload, p.Src, p.Dst); d != Accepted {
		return e.foreignProtocol(d, p)
	}
	h.bid, h.leaves, h.sum = bid{priority: a.Priority, every: a.Interval}, a.Leaves(), a.Sum
	switch {
	case a.VRID != e.cfg.VHID:
		return DropVHID
	case FamilyOf(p.Src) != e.cfg.Family():
		return DropFamily
	case e.isReflected(now, p):
		return DropOwn
	case a.Version == 3 && a.Interval == 0: // RFC 9568, erratum 8301
		return DropInterval
	case e.state == Init:
		return DropState
	}
	shared := e.router.shared(&a)
	if shared == 0 {
		return DropForeign
	}
	h.duplicate = e.isDuplicate(p)
	d := e.differs(&a, p, shared)
	h.alive = d != Accepted
	return d
}

// differs names the first setting in which a peer differs from this node: DropVersion,
// DropAuth, DropInterval or DropAddresses.
func (e *Engine) differs(a *VRRPAdvert, p *Packet, shared int) Drop {
	ours := &e.router.advert
	floor, ceiling := intervalBounds(e.cfg.Interval)
	switch {
	case a.Version != ours.Version:
		return DropVersion
	case p.AH || a.Version == 2 && (a.AuthType != ours.AuthType || a.AuthType == authText && a.Password != ours.Password):
		return DropAuth
	case a.Version == 2 && a.Interval != e.cfg.Interval, a.Interval < floor, a.Interval > ceiling:
		return DropInterval
	case shared != ours.Count() || a.Count() != ours.Count():
		return DropAddresses
	}
	return Accepted
}

// shared counts the addresses of an advert that are ours, each once.
func (r *router) shared(a *VRRPAdvert) (n int) {
	if bytes.Equal(a.addrs, r.advert.addrs) {
		return a.Count()
	}
	var seen [256]bool
	for i := range a.Count() {
		if at, ours := r.ours[a.Address(i)]; ours && !seen[at] {
			seen[at] = true
			n++
		}
	}
	return n
}

// heardIncompatible handles the advert of a master that lives, though its settings
// differ: read as silence, it would make two masters. A backup does not take over
// while it lives, however bad; a master yields to a better one, and else stays.
func (e *Engine) heardIncompatible(now Instant, h *hearing, p *Packet) {
	switch {
	case e.state == Backup && h.leaves:
		e.offered(now, p)
	case e.state == Backup:
		e.see(now, h, p)
		e.follow(now, h, p)
	case e.state == Master:
		e.heardAsMaster(now, h, p, ReasonIncompatible)
	case e.state == Releasing && e.asMaster(e.held, h.bid) != stay:
		e.lose(now, h, p, ReasonIncompatible)
	}
}

// overdue reports whether a VRRP master has let an advert out: it may have left the
// role, or it may stand still with a permit in its hand.
func (e *Engine) overdue(now Instant, s *sighting) bool {
	return e.cfg.Protocol.VRRP() && now.Sub(s.at) > s.bid.every*3/2
}

// followedUntil is when the last of the masters is dead that this backup follows, or
// that has fallen silent under a permit: one with a longer interval than that of the
// advert heard last may still live.
func (e *Engine) followedUntil(now Instant) (until Instant) {
	for i := range e.heard {
		s := &e.heard[i]
		if e.fresh(now, s) && (s.refused != Accepted || e.overdue(now, s) || e.asBackup(now, s.bid) == follow) {
			until = max(until, s.at.Add(e.masterDown(s.bid)))
		}
	}
	return until
}

// hasten shortens a backup's wait, of which priority and interval are parts, after
// one of them has changed.
func (e *Engine) hasten(now Instant) {
	if !e.cfg.Protocol.VRRP() || e.timers[timerDown] == 0 {
		return
	}
	since, heard := now, bid{}
	if s := e.bestSighting(now); s != nil {
		since, heard = s.at, s.bid
	}
	e.arm(timerDown, min(e.timers[timerDown], since.Add(e.masterDown(heard))))
}
