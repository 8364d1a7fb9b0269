package carp

import "net/netip"

// sendable reports whether a host can have sent from this address: not from a group,
// to itself, or from the limited broadcast address (RFC 1122, 3.2.1.3). The
// unspecified address is legal, NetBSD sends from it where the interface has no other;
// and so is an address of the group, OpenBSD's and FreeBSD's choice there.
func sendable(src netip.Addr) bool {
	return !src.IsMulticast() && !src.IsLoopback() && src != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// has reports whether src is an address that this node sends from.
func (l *Local) has(src netip.Addr) bool {
	return usable(src) && (src == l.IPv4 || src == l.IPv6.WithZone(""))
}

// isReflected reports whether a VRRP packet is our own, come back. One from our address
// and another host's MAC is not: it is from a node that has the same address. Nor is
// one that comes when this node has sent nothing for a master-down time: all nodes of
// a group share the virtual MAC.
func (e *Engine) isReflected(now Instant, p *Packet) bool {
	if e.isFrom(now, &e.local, p) {
		return true
	}
	for i := range e.cfg.Paths { // two links may be on one segment
		if link := e.cfg.Paths[i].Link; link > 0 && e.isFrom(now, &e.beside[link].local, p) {
			return true
		}
	}
	return false
}

// isFrom is isReflected for one of this node's links.
func (e *Engine) isFrom(now Instant, local *Local, p *Packet) bool {
	if p.Src.IsUnspecified() && p.SrcMAC == local.MAC {
		return true
	}
	switch {
	case !local.has(p.Src):
		return false
	case p.SrcMAC == VirtualMACOf(e.cfg.Protocol, e.cfg.Family(), e.cfg.VHID):
		return e.lastSent != 0 && now.Sub(e.lastSent) < e.masterDown(bid{})
	}
	return p.SrcMAC == MAC{} || p.SrcMAC == local.MAC
}

// isDuplicate reports whether a packet that is not our own comes from our address: two
// machines have it. The packet counts all the same, else there would be two masters.
func (e *Engine) isDuplicate(p *Packet) bool {
	local := e.localOn(p.Link)
	return local.has(p.Src) && p.SrcMAC != MAC{} && p.SrcMAC != local.MAC
}
