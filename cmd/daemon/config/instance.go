package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
)

func defaultName(vhid uint8, link string) string { return fmt.Sprintf("%d@%s", vhid, link) }

// instance reads one entry of instances.
func (r *reader) instance(n *node) *draft {
	d := &draft{begin: n.at, Instance: Instance{
		Protocol: "carp", SourceMAC: "virtual", AdvBase: DefaultAdvBase, PreemptGrace: DefaultPreemptGrace,
		MAC: "interface", Replay: "off", Compat: "none", Families: "shared", Roll: DefaultRoll,
		Line: n.at.line, Column: n.at.column,
	}}
	var inline, file *node
	d.at = r.fields(n, instanceKeys, setters{
		"name":            func(n *node) { r.word(n, 64, &d.Name) },
		"protocol":        func(n *node) { r.choice(n, &d.Protocol, []string{"carp"}, plannedProtocols) },
		"vhid":            func(n *node) { r.number(n, 1, 255, &d.VHID) },
		"interface":       func(n *node) { r.link(n, &d.Interface) },
		"source_mac":      func(n *node) { r.choice(n, &d.SourceMAC, []string{"virtual", "interface"}, nil) },
		"passphrase":      func(n *node) { inline = n },
		"passphrase_file": func(n *node) { file = n },
		"advbase":         func(n *node) { r.number(n, 0, 255, &d.AdvBase) },
		"advskew":         func(n *node) { r.number(n, 0, 254, &d.AdvSkew) },
		"preempt":         func(n *node) { d.preempt = new(bool); r.yes(n, d.preempt) },
		"preempt_delay":   func(n *node) { r.duration(n, 0, time.Hour, &d.PreemptDelay) },
		"preempt_grace":   func(n *node) { r.duration(n, 0, 10*time.Second, &d.PreemptGrace) },
		"startup_delay":   func(n *node) { r.duration(n, 0, time.Hour, &d.StartupDelay) },
		"addresses":       func(n *node) { r.addresses(n, d) },
		"peers":           func(n *node) { r.peers(n, d) },
		"mac":             func(n *node) { r.choice(n, &d.MAC, []string{"interface"}, plannedMACs) },
		"lease":           func(n *node) { r.lease(n, &d.Lease) },
		"replay":          func(n *node) { r.choice(n, &d.Replay, []string{"off"}, plannedReplay) },
		"compat":          func(n *node) { r.choice(n, &d.Compat, []string{"none", "bsd"}, nil) },
		"families":        func(n *node) { r.choice(n, &d.Families, []string{"shared", "each"}, nil) },
		"roll":            func(n *node) { r.duration(n, time.Second, 24*time.Hour, &d.Roll) },
		"groups":          func(n *node) { r.memberships(n, d) },
		"hooks":           func(n *node) { d.Hooks = r.hooks(n) },
	})
	if n.kind != mapping {
		return d
	}
	for _, key := range []string{"vhid", "addresses"} {
		if _, given := d.at[key]; !given {
			r.fault(n.at, "", "%s is missing", key)
		}
	}
	if at, given := d.at["advbase"]; given && d.AdvBase == 0 && d.AdvSkew == 0 {
		r.fault(at, "give advskew too, or use advbase 1", "advbase 0 needs advskew above 0: adverts would have no interval")
	}
	r.secret(d, inline, file)
	r.peersFit(d)
	return d
}

// What a later version will have, and what it is for. Constant.
var (
	plannedProtocols = map[string]string{"vrrp2": "VRRP version 2", "vrrp3": "VRRP version 3"}
	plannedMACs      = map[string]string{"virtual": "an interface of its own with the virtual MAC"}
	plannedReplay    = map[string]string{
		"window": "refusing repeated adverts", "sealed": "adverts that cannot be replayed",
	}
)

// warnings says what is allowed and yet probably not meant.
func (r *reader) warnings(d *draft) {
	if d.AdvSkew > 240 {
		r.warn(d.at["advskew"], "use 240", "advskew: more than 240 is sent as 240, like a demoted node's")
	}
	for _, key := range []string{"preempt_delay", "preempt_grace"} {
		if at, given := d.at[key]; given && !d.Preempt {
			r.warn(at, "set preempt: true as well", "%s has no effect without preempt", key)
		}
	}
	switch at, given := d.at["families"]; {
	case given && d.Families == "shared" && d.Compat == "bsd":
		r.warn(at, "", "families: shared has no effect: compat: bsd means each")
	case given && d.Families == "each" && !d.hasBothFamilies():
		r.warn(at, "", "families: each has no effect: all addresses are of one family")
	}
}

func (d *draft) hasBothFamilies() bool {
	is4 := func(p netip.Prefix) bool { return p.Addr().Is4() }
	return slices.ContainsFunc(d.Addresses, is4) && slices.ContainsFunc(d.Addresses, func(p netip.Prefix) bool { return !is4(p) })
}

// linkNameMax is IFNAMSIZ without the zero at its end.
const linkNameMax = 15

// link reads the name of an interface by the kernel's rule (dev_valid_name).
// The interface need not exist: it may come later.
func (r *reader) link(n *node, into *string) {
	text, ok := r.str(n, "the name of an interface")
	if !ok {
		return
	}
	bad := func(c rune) bool { return c == '/' || c == ':' || unicode.IsSpace(c) || !unicode.IsPrint(c) }
	switch {
	case len(text) > linkNameMax:
		r.fault(n.at, "", "interface: %q is longer than %d bytes, which no interface's name is", text, linkNameMax)
	case text == "." || text == ".." || strings.ContainsFunc(text, bad):
		r.fault(n.at, "see ip link for the names", "interface: %q is not the name of an interface", text)
	case text == "lo":
		r.fault(n.at, "name the interface that the other nodes are reached by", "interface: adverts on lo reach no other node")
	default:
		*into = text
	}
}

// addresses reads the virtual addresses and keeps those that are sound.
func (r *reader) addresses(n *node, d *draft) {
	items := r.list(n, "addresses", MaxAddresses)
	if n.kind == list && len(items) == 0 {
		r.fault(n.at, "", "addresses is empty: want at least one")
	}
	seen := make(map[netip.Addr]pos, len(items))
	for _, item := range items {
		text, ok := r.str(item, "an address like 192.0.2.10/24")
		if !ok {
			continue
		}
		p, fault, hint := parsePrefix(text)
		if fault != "" {
			r.fault(item.at, hint, "addresses: %s", fault)
			continue
		}
		if first, twice := seen[p.Addr()]; twice {
			r.fault(item.at, "keep one of them", "addresses: %v is given twice, first in line %d", p.Addr(), first.line)
			continue
		}
		seen[p.Addr()] = item.at
		d.Addresses = append(d.Addresses, p)
		d.addresses = append(d.addresses, placed[netip.Prefix]{p, item.at})
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
		text, ok := r.str(item, "the address of a node")
		if !ok {
			continue
		}
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil:
			r.fault(item.at, "write an address without a prefix length; names are not looked up", "peers: %q is not an address", text)
		case a.Zone() != "":
			r.fault(item.at, "leave out the part from % on: the interface is known", "peers: %q has a zone", text)
		case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Is4In6() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			r.fault(item.at, "write the other node's own address; leave peers out for multicast", "peers: %s is not the address of another node", text)
		case slices.Contains(d.Peers, a):
			r.fault(item.at, "keep one of them", "peers: %v is given twice", a)
		default:
			d.Peers = append(d.Peers, a)
			d.peers = append(d.peers, placed[netip.Addr]{a, item.at})
		}
	}
}

// peersFit checks the peers against the addresses, whichever came first.
func (r *reader) peersFit(d *draft) {
	for _, peer := range d.peers {
		same := func(p netip.Prefix) bool { return p.Addr().Is4() == peer.value.Is4() }
		switch {
		case slices.ContainsFunc(d.Addresses, func(p netip.Prefix) bool { return p.Addr() == peer.value }):
			r.fault(peer.at, "write the other node's own address", "peers: %v is one of the virtual addresses", peer.value)
		case len(d.Addresses) > 0 && !slices.ContainsFunc(d.Addresses, same):
			r.fault(peer.at, "adverts go out in the families of the addresses",
				"peers: %v is of another family than all addresses, and would hear nothing", peer.value)
		}
	}
}

func (r *reader) memberships(n *node, d *draft) {
	for _, item := range r.list(n, "names", MaxGroups) {
		var name string
		r.group(item, &name)
		if slices.Contains(d.Groups, name) {
			r.fault(item.at, "keep one of them", "groups: %s is given twice", name)
		} else if name != "" {
			d.Groups = append(d.Groups, name)
			d.groups = append(d.groups, placed[string]{name, item.at})
		}
	}
}

func (r *reader) lease(n *node, into *LeaseSetting) {
	text, ok := r.str(n, "on, off or whole seconds")
	if !ok {
		return
	}
	if on, ok := truth(text); ok {
		*into = LeaseSetting{Off: !on}
		return
	}
	v, err := parseDuration(text)
	switch {
	case err != nil:
		r.fault(n.at, "write on, off, or whole seconds like 2s", "lease: %q is not a lease", text)
	case v%time.Second != 0:
		r.fault(n.at, "write whole seconds like 2s", "lease: %s has a fraction: the kernel counts lifetimes in whole seconds", text)
	case v < time.Second || v > time.Hour:
		r.fault(n.at, "", "lease: %s is out of range: want 1s to 1h", text)
	default:
		*into = LeaseSetting{Valid: v}
	}
}
