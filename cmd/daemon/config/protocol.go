package config

import (
	"fmt"
	"slices"
	"time"

	"github.com/carpd/carpd/carp"
)

// protocols lists the words for protocol.
func protocols() []string {
	return []string{carp.CARP.String(), carp.VRRP2.String(), carp.VRRP3.String()}
}

// misplaced is a key that only one of the protocols has.
type misplaced struct{ key, why, hint string }

// What only CARP has, and what stands for it in VRRP. Constant.
var carpKeys = []misplaced{
	{"advbase", "the interval of adverts", "use interval"},
	{"advskew", "the weight of a node", "use priority: the greatest is master"},
	{"replay", "the counter of its adverts", "remove the key: VRRP has no counter"},
	{"window", "how old its adverts may be", "remove the key: VRRP has no counter"},
	{"compat", "whose rules are followed", "remove the key: VRRP has a standard"},
	{"families", "two address families in one instance", "remove the key: write an instance for each family"},
	{"roll", "the change of what adverts are signed with", "remove the key: adverts of VRRP are not signed"},
}

// What only VRRP has, and what stands for it in CARP. Constant.
var vrrpKeys = []misplaced{
	{"priority", "the weight of a node", "use advskew: the least is master"},
	{"interval", "the interval of adverts", "use advbase, in seconds, and advskew"},
	{"checksum", "the form of the checksum", "remove the key: CARP has one form"},
}

// protocol fills in what depends on the protocol, and refuses what belongs to the
// other one. Without a sound protocol nobody can say.
func (r *reader) protocol(d *draft, interval, checksum *node) {
	if _, given := d.at["protocol"]; !given {
		d.Protocol = carp.CARP.String()
	}
	switch d.Protocol {
	case "":
	case carp.CARP.String():
		r.misplaced(d, vrrpKeys)
		r.carp(d)
	default:
		r.misplaced(d, carpKeys)
		r.vrrp(d, interval, checksum)
	}
	if d.SourceMAC == "" {
		d.SourceMAC = "virtual"
		if d.VRRP() && d.MAC == "interface" {
			d.SourceMAC = "interface" // as keepalived; RFC 9568 has no router without a virtual MAC
		}
	}
}

func (r *reader) misplaced(d *draft, keys []misplaced) {
	whose := "VRRP"
	if d.VRRP() {
		whose = "CARP"
	}
	for _, m := range keys {
		if at, given := d.at[m.key]; given {
			r.fault(at, m.hint, "%s belongs to %s (%s), and this instance speaks %s", m.key, whose, m.why, d.Protocol)
		}
	}
}

func (r *reader) carp(d *draft) {
	set := func(s *string, otherwise string) {
		if *s == "" {
			*s = otherwise
		}
	}
	set(&d.Compat, "none")
	r.replay(d)
	set(&d.Families, "shared")
	if d.Roll == 0 {
		d.Roll = DefaultRoll
	}
	at, given := d.at["advbase"]
	if !given {
		d.AdvBase = DefaultAdvBase
	} else if d.AdvBase == 0 && d.AdvSkew == 0 {
		r.fault(at, "give advskew too, or use advbase 1", "advbase 0 needs advskew above 0: adverts would have no interval")
	}
	for _, b := range d.bounds {
		r.fault(b.at, "write the address alone", "peers: %s is a key of VRRP: CARP does not look at the TTL of unicast peers", b.value)
	}
}

func (r *reader) vrrp(d *draft, interval, checksum *node) {
	if d.Priority == 0 {
		d.Priority = DefaultPriority
	}
	d.Interval = DefaultInterval
	if interval != nil {
		r.interval(interval, d)
	}
	if d.Protocol == carp.VRRP3.String() && d.Kind() == VRRP4 {
		d.Checksum = carp.ChecksumPseudo.String()
	}
	if checksum != nil {
		r.checksum(checksum, d)
	}
	r.advert(d)
}

// interval reads the time between adverts, which the wire has in whole seconds
// (RFC 3768, 5.3.7) or centiseconds (RFC 9568, 5.2.7).
func (r *reader) interval(n *node, d *draft) {
	low, high, step := carp.MinInterval, carp.MaxInterval3, carp.MinInterval
	if d.Protocol == carp.VRRP2.String() {
		low, high, step = time.Second, carp.MaxInterval2, time.Second
	}
	v, ok := r.anyDuration(n)
	switch {
	case !ok:
	case step == time.Second && v > 0 && v%step != 0:
		r.fault(n.at, "use protocol: vrrp3 on all nodes, or whole seconds from 1s",
			"interval: %s is not in whole seconds, and version 2 has no room for less on the wire", n.text)
	case v < low || v > high:
		r.outOfRange(n, v, low, high)
	case v%step != 0:
		r.fault(n.at, "use a multiple of 10ms", "interval: %s is not in steps of 10ms, which is what the wire counts in", n.text)
	default:
		d.Interval = v
	}
}

// checksum reads the form of checksum that is sent.
func (r *reader) checksum(n *node, d *draft) {
	at := d.at["checksum"]
	switch {
	case d.Protocol == carp.VRRP2.String():
		r.fault(at, "remove the key", "checksum is a key of vrrp3: version 2 has one form")
		return
	case d.Kind() == VRRP6:
		r.fault(at, "remove the key", "checksum is a key of IPv4: over IPv6 there is one form, with the pseudo-header")
		return
	case n.text == "rfc5798": // as most read it
		d.Checksum = carp.ChecksumPseudo.String()
		return
	}
	r.choice(n, &d.Checksum, []string{carp.ChecksumPseudo.String(), carp.ChecksumRFC9568.String()}, nil)
}

// advert checks what the advert has room for: addresses of one family, and not
// too many.
func (r *reader) advert(d *draft) {
	if len(d.addresses) == 0 {
		return
	}
	first := d.addresses[0]
	family, most := d.Kind().family(), carp.MaxAdvertIPv4
	if family == carp.IPv6 {
		most = carp.MaxAdvertIPv6
	}
	if family == carp.IPv6 && d.Protocol == carp.VRRP2.String() {
		r.fault(first.at, "use protocol: vrrp3", "addresses: %v is IPv6, and version 2 is for IPv4 only", first.value.Addr())
		return
	}
	for _, a := range d.addresses {
		if carp.FamilyOf(a.value.Addr()) != family {
			r.fault(a.at, "move it to addresses_excluded, or to an instance of its own with the same vrid",
				"addresses: %v is not %v as the first one is: an advert of VRRP has one family", a.value.Addr(), family)
		}
	}
	if len(d.addresses) > most {
		r.fault(d.addresses[most].at, "move the rest to addresses_excluded",
			"addresses: more than %d of %v, and an advert of VRRP has no room for more", most, family)
	}
	linkLocal := func(a placedPrefix) bool { return a.value.Addr().IsLinkLocalUnicast() }
	if family == carp.IPv6 && !slices.ContainsFunc(d.addresses, linkLocal) {
		r.warn(d.at["addresses"], "add one on all nodes, such as "+fmt.Sprintf("fe80::%x/64", int(d.VHID)),
			"addresses: no link-local one, which RFC 9568 wants first in an advert (5.2.9): routers may refuse it")
	}
}
