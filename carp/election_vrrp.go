package carp

import (
	"bytes"
	"time"
)

// effectivePriority is the priority that is advertised and compared. A demotion
// lowers it, down to 1: 0 would mean that the node leaves. Only a node that is not
// demoted can be the owner (RFC 9568, 5.2.4).
func effectivePriority(priority uint8, demotion int) uint8 {
	if priority == OwnerPriority && demotion <= 0 {
		return OwnerPriority
	}
	return uint8(min(max(int(priority)-demotion, 1), MaxPriority))
}

// vrrpSkew is Skew_Time: (256 - priority) / 256 of the master's interval (RFC 9568,
// 6.1), in version 2 of a second (RFC 3768, 6.1).
func vrrpSkew(p Protocol, priority uint8, every time.Duration) time.Duration {
	if p == VRRP2 {
		every = time.Second
	}
	return time.Duration(256-int(priority)) * every / 256
}

// vrrpDown is Active_Down_Interval: three intervals of the master and the skew. It is
// never less than one own interval and its skew: a forged advert with a short interval
// must not make a backup fire between two true ones.
func vrrpDown(p Protocol, priority uint8, own, every time.Duration) time.Duration {
	return max(3*every+vrrpSkew(p, priority, every), own+vrrpSkew(p, priority, own))
}

// intervalBounds are within which a heard interval is believed: one forged advert
// must not blind a backup for minutes.
func intervalBounds(own time.Duration) (floor, ceiling time.Duration) {
	return max(own/10, MinInterval), max(10*own, 4*time.Second)
}

// follows is the interval by which a backup waits: in version 3 the master's
// (RFC 9568, 6.4.2), in version 2 the own, which all must have, or that of a master
// with another one, if it is longer. heard is 0 if there is no master yet.
func follows(p Protocol, own, heard time.Duration) time.Duration {
	if heard == 0 {
		return own
	}
	floor, ceiling := intervalBounds(own)
	every := min(max(heard, floor), ceiling)
	if p == VRRP2 {
		every = max(own, every)
	}
	return every
}

// vrrpAsBackup judges an advert heard by a backup (RFC 9568, 6.4.2): a worse master
// is let be until the timer fires, which its adverts do not stop.
func vrrpAsBackup(own, theirs uint8, preempting bool) verdict {
	if preempting && theirs < own {
		return outlast
	}
	return follow
}

// vrrpWinsTie decides between two masters of equal priority: the higher address
// stays, compared as a big-endian number (RFC 9568, 6.4.3). Where the addresses are
// one and the same, the higher MAC does.
func vrrpWinsTie(local Local, p *Packet) (wins, ok bool) {
	if own := ownAddress(local, p); usable(own) && usable(p.Src) && own != p.Src {
		return own.Compare(p.Src) > 0, true
	}
	if p.SrcMAC == (MAC{}) || virtual(p.SrcMAC) {
		return false, false
	}
	order := bytes.Compare(local.MAC[:], p.SrcMAC[:])
	return order > 0, order != 0
}
