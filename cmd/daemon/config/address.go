package config

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/carpd/carpd/carp"
)

// addresses reads virtual addresses, at most so many, and returns those that are sound.
func (r *reader) addresses(n *node, most int) (all []placedPrefix) {
	items := r.list(n, "addresses", most)
	if n.kind == list && len(items) == 0 {
		r.fault(n.at, "", "%s is empty: want at least one", n.key)
	}
	for _, item := range items {
		text, ok := r.str(item, "an address like 192.0.2.10/24")
		if !ok {
			continue
		}
		p, fault, hint := parsePrefix(text)
		if fault != "" {
			r.fault(item.at, hint, "%s: %s", n.key, fault)
			continue
		}
		all = append(all, placedPrefix{p, item.at})
	}
	return all
}

// addressesFit takes the addresses over, whichever list came first, and checks
// that each is there once.
func (r *reader) addressesFit(d *draft) {
	seen := make(map[netip.Addr]pos, len(d.addresses)+len(d.excluded))
	fits := func(key string, a placedPrefix) bool {
		first, twice := seen[a.value.Addr()]
		if twice {
			r.fault(a.at, "keep one of them", "%s: %v is given twice, first in line %d", key, a.value.Addr(), first.line)
			return false
		}
		seen[a.value.Addr()] = a.at
		return true
	}
	d.addresses = slices.DeleteFunc(d.addresses, func(a placedPrefix) bool { return !fits("addresses", a) })
	d.excluded = slices.DeleteFunc(d.excluded, func(a placedPrefix) bool { return !fits("addresses_excluded", a) })
	if len(seen) > MaxAddresses {
		r.fault(d.at["addresses_excluded"], "", "more than %d addresses, those of addresses_excluded included", MaxAddresses)
	}
	for _, a := range d.addresses {
		d.Addresses = append(d.Addresses, a.value)
	}
	for _, a := range d.excluded {
		d.Excluded = append(d.Excluded, a.value)
	}
}

// parsePrefix reads an address with or without a prefix length and says why it
// cannot be a virtual one.
func parsePrefix(text string) (p netip.Prefix, fault, hint string) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return p, fmt.Sprintf("%q is not an address", text), "write 192.0.2.10/24 or 2001:db8::10/64"
		}
		p = netip.PrefixFrom(a.WithZone(""), a.BitLen())
		if a.Zone() != "" {
			return p, fmt.Sprintf("%q has a zone", text), "leave out the part from % on: the interface is known"
		}
	}
	fault, hint = unusable(p)
	if fault != "" {
		fault = fmt.Sprintf("%s %s", text, fault)
	}
	return p, fault, hint
}

// unusable says why no host can have the address, or nothing.
func unusable(p netip.Prefix) (fault, hint string) {
	a := p.Addr()
	room := a.BitLen() - p.Bits()
	switch {
	case a.Is4In6():
		return "is an IPv4 address in IPv6 form", "write " + a.Unmap().String()
	case a.IsUnspecified() || a.Is4() && a.As4()[0] == 0:
		return "is not the address of a host", ""
	case a.IsLoopback():
		return "is a loopback address", ""
	case a.IsMulticast():
		return "is a multicast address", ""
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "is the broadcast address", ""
	case p.Bits() == 0:
		return "would be in a subnet with the whole internet", "write the prefix length of the subnet"
	case room > 1 && a == p.Masked().Addr() && a.Is4():
		return "is the address of the subnet itself", "write the address of the host in it"
	case room > 1 && a == p.Masked().Addr():
		return "is the anycast address of the subnet's routers", "write the address of the host in it"
	case room > 1 && a.Is4() && a == lastOf(p):
		return "is the broadcast address of its subnet", "write the address of the host in it"
	}
	return "", ""
}

// lastOf returns the last address of an IPv4 prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}

func (r *reader) peers(n *node, d *draft) {
	for _, item := range r.list(n, "addresses", MaxPeers) {
		if item.kind == mapping {
			r.peer(item, d)
		} else if a, ok := r.peerAddress(item, d); ok {
			d.Peers = append(d.Peers, a)
			d.peers = append(d.peers, placed[netip.Addr]{a, item.at})
		}
	}
}

// peer reads a peer that is written with bounds of its TTL.
func (r *reader) peer(n *node, d *draft) {
	var a netip.Addr
	var sound bool
	bounds := carp.TTLBounds{Max: 255}
	at := r.fields(n, peerKeys, setters{
		"address": func(n *node) { a, sound = r.peerAddress(n, d) },
		"min_ttl": func(n *node) { r.number(n, 0, 255, &bounds.Min) },
		"max_ttl": func(n *node) { r.number(n, 1, 255, &bounds.Max) },
	})
	if _, given := at["address"]; !given {
		r.fault(n.at, "write {address: 192.0.2.3, min_ttl: 255}", "peers: address is missing")
	}
	if bounds.Min > bounds.Max {
		r.fault(at["min_ttl"], "swap the two", "peers: min_ttl %d is above max_ttl %d: nothing would be accepted", bounds.Min, bounds.Max)
	}
	if !sound {
		return
	}
	d.Peers = append(d.Peers, a)
	d.peers = append(d.peers, placed[netip.Addr]{a, n.at})
	for _, key := range []string{"min_ttl", "max_ttl"} {
		if where, given := at[key]; given {
			d.bounds = append(d.bounds, placed[string]{key, where})
			if d.PeerTTL == nil {
				d.PeerTTL = make(map[netip.Addr]carp.TTLBounds)
			}
			d.PeerTTL[a] = bounds
		}
	}
}

// peerAddress reads the address of one peer.
func (r *reader) peerAddress(n *node, d *draft) (a netip.Addr, ok bool) {
	text, ok := r.str(n, "the address of a node")
	if !ok {
		return a, false
	}
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		r.fault(n.at, "write an address without a prefix length; names are not looked up", "peers: %q is not an address", text)
	case a.Zone() != "":
		r.fault(n.at, "leave out the part from % on: the interface is known", "peers: %q has a zone", text)
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Is4In6() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		r.fault(n.at, "write the other node's own address; leave peers out for multicast", "peers: %s is not the address of another node", text)
	case slices.Contains(d.Peers, a):
		r.fault(n.at, "keep one of them", "peers: %v is given twice", a)
	default:
		return a, true
	}
	return a, false
}

// peersFit checks the peers against the addresses, whichever came first.
func (r *reader) peersFit(d *draft) {
	held := d.Held()
	for _, peer := range d.peers {
		same := func(p netip.Prefix) bool { return p.Addr().Is4() == peer.value.Is4() }
		switch {
		case slices.ContainsFunc(held, func(p netip.Prefix) bool { return p.Addr() == peer.value }):
			r.fault(peer.at, "write the other node's own address", "peers: %v is one of the virtual addresses", peer.value)
		case len(d.Addresses) > 0 && !slices.ContainsFunc(d.Addresses, same):
			r.fault(peer.at, "adverts go out in the families of the addresses",
				"peers: %v is of another family than all addresses, and would hear nothing", peer.value)
		}
	}
}
