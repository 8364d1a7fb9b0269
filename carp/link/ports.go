package link

import (
	"iter"
	"sync/atomic"

	"github.com/carpd/carpd/carp"
)

// slot holds the ports of one id, by Kind. Ports are stored under Interface.mu
// and loaded by anybody.
type slot [kinds]atomic.Pointer[port]

// portTable holds the ports of an interface by id.
type portTable [256]slot

// all walks the ports.
func (t *portTable) all() iter.Seq[*port] {
	return func(yield func(*port) bool) {
		for id := range t {
			for k := range t[id] {
				if p := t[id][k].Load(); p != nil && !yield(p) {
					return
				}
			}
		}
	}
}

// takers returns the ports that a packet is for; either may be nil. CARP and
// version 2 of VRRP begin alike (0x21), so that a packet of version 2 is for both,
// and each refuses the other's by its own rules. VRRP gets both versions of its
// family, because a router of the wrong version is there all the same. Version 3
// is none of CARP's unless there is no VRRP here: then it is told of it, and of
// versions that nobody knows, to count them. What was behind an authentication
// header is VRRP's alone (RFC 2338, 5.3.6).
func (t *portTable) takers(p *carp.Packet) (toCARP, toVRRP *port) {
	if len(p.Payload) < 2 {
		return nil, nil
	}
	s, version := &t[p.Payload[1]], p.Payload[0]>>4
	if version == 2 || version == 3 {
		toVRRP = s[KindOf(carp.VRRP3, carp.FamilyOf(p.Dst))].Load()
	}
	if !p.AH && (version != 3 || toVRRP == nil) {
		toCARP = s[KindCARP].Load()
	}
	return toCARP, toVRRP
}
