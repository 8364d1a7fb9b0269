package carp

import (
	"fmt"
	"net/netip"
	"time"
)

// Protocol is what an instance speaks. All three are IP protocol 112 and are told
// apart by the first nibble of a packet; CARP and VRRP version 2 share theirs.
type Protocol uint8

// The protocols.
const (
	CARP  Protocol = iota
	VRRP2          // RFC 3768: IPv4, intervals of whole seconds, optionally a text password (RFC 2338)
	VRRP3          // RFC 9568 and 5798: IPv4 or IPv6, intervals of 10 ms to 40.95 s
)

var protocolNames = [...]string{"carp", "vrrp2", "vrrp3"}

func (p Protocol) String() string { return name(protocolNames[:], int(p), "Protocol") }

// VRRP reports whether p is a version of VRRP.
func (p Protocol) VRRP() bool { return p == VRRP2 || p == VRRP3 }

// ParseProtocol returns the protocol with the given name: carp, vrrp2 or vrrp3.
func ParseProtocol(s string) (Protocol, error) {
	for i, n := range protocolNames {
		if n == s {
			return Protocol(i), nil
		}
	}
	return CARP, fmt.Errorf("carp: unknown protocol %q: use carp, vrrp2 or vrrp3", s)
}

// Checksum is the form of checksum that VRRP version 3 has over IPv4. Every form is
// accepted, and over IPv6 there is only the first.
type Checksum uint8

// The checksums.
const (
	// ChecksumPseudo covers a pseudo-header too, as keepalived and FRR send and, by
	// default, demand (RFC 5798 as most read it).
	ChecksumPseudo Checksum = iota
	// ChecksumRFC9568 covers the VRRP packet alone (RFC 9568, 5.2.8), as routers do.
	ChecksumRFC9568
	// ChecksumOldUnicast is only heard, never configured: a unicast advert whose
	// pseudo-header names the group 224.0.0.18 in place of the peer, as keepalived
	// up to 1.3.6 sends, and later ones with old_unicast_checksum.
	ChecksumOldUnicast
)

var checksumNames = [...]string{"pseudo-header", "rfc9568", "old-unicast"}

func (c Checksum) String() string { return name(checksumNames[:], int(c), "Checksum") }

// TTLBounds are the TTLs or hop limits that are accepted from a unicast peer. A
// zero Max is 255.
type TTLBounds struct{ Min, Max uint8 }

// holds reports whether ttl is within the bounds.
func (b TTLBounds) holds(ttl uint8) bool { return ttl >= b.Min && (b.Max == 0 || ttl <= b.Max) }

// Limits and defaults of VRRP (RFC 9568, 5.2 and 6.1; RFC 3768, 5.3).
const (
	DefaultPriority = 100
	MaxPriority     = 254 // of a node that does not own the addresses
	OwnerPriority   = 255
	DefaultInterval = time.Second
	MinInterval     = 10 * time.Millisecond // version 3
	MaxInterval2    = 255 * time.Second
	MaxInterval3    = 4095 * 10 * time.Millisecond
	MaxPassword     = 8   // bytes of a text password, version 2
	MaxAdvertIPv4   = 255 // addresses in an advert: the count is one byte
	MaxAdvertIPv6   = 90  // as many as fit an Ethernet frame
)

// VirtualMACOf returns the virtual MAC of a virtual router: 00:00:5e:00:01:ID, and
// for VRRP over IPv6 00:00:5e:00:02:ID (RFC 9568, 7.3). CARP has one for both
// families.
func VirtualMACOf(p Protocol, f Family, vhid uint8) MAC {
	m := VirtualMAC(vhid)
	if p.VRRP() && f == IPv6 {
		m[4] = 2
	}
	return m
}

// Family returns the family of a VRRP instance: that of its first address.
func (c *Config) Family() Family {
	if len(c.Addresses) == 0 {
		return IPv4
	}
	return FamilyOf(c.Addresses[0])
}

// inAdvert returns the addresses in the order of the advert: IPv6 link-local ones
// first, since the first must be one (RFC 9568, 5.2.9).
func (c *Config) inAdvert() []netip.Addr {
	list := make([]netip.Addr, 0, len(c.Addresses))
	for _, linkLocal := range []bool{true, false} {
		for _, a := range c.Addresses {
			if a.Is6() && a.IsLinkLocalUnicast() == linkLocal || a.Is4() && linkLocal {
				list = append(list, a.WithZone(""))
			}
		}
	}
	return list
}
