package conform

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/carpd/carpd/test/decode"
)

var (
	group4 = netip.AddrFrom4([4]byte{224, 0, 0, 18})
	group6 = netip.MustParseAddr("ff02::12")
)

// vrrpPacket is an advert on its way to the wire. It is good unless somebody
// changes it: checksums and lengths are made when it is built.
type vrrpPacket struct {
	from, to          net.HardwareAddr
	src, dst          netip.Addr
	ttl, tos          uint8
	df                bool
	version, kind     uint8
	vrid, priority    uint8
	reserved          uint8
	interval          time.Duration
	addrs             []netip.Addr
	authType          uint8
	auth              [8]byte
	plain             bool                // version 3 over IPv4: no pseudo-header in the checksum
	ah                bool                // behind an authentication header
	change            func(advert []byte) // before the checksum is made
	edit              func([]byte) []byte // of the advert, before the headers are made
	spoil             func(frame []byte)  // of the finished frame
	paddingAfterFrame []byte
}

// advert returns a good advert of a peer.
func (t *vrrpTester) advert(src netip.Addr, priority uint8) *vrrpPacket {
	p := &vrrpPacket{
		from: vrrpMAC(t.cfg.VRID, t.six()), to: groupMAC4, src: src, dst: group4, ttl: 255, tos: 0xc0,
		version: t.cfg.Version, kind: 1, vrid: t.cfg.VRID, priority: priority, interval: t.cfg.Interval, addrs: slices.Clone(t.cfg.Addresses),
	}
	if t.six() {
		p.to, p.dst = groupMAC6, group6
	}
	if t.cfg.Version == 2 && t.cfg.Password != "" {
		p.authType = 1
		copy(p.auth[:], t.cfg.Password)
	}
	return p
}

// vrrpMAC is the MAC of a virtual router (RFC 9568 section 7.3).
func vrrpMAC(vrid uint8, six bool) net.HardwareAddr {
	m := net.HardwareAddr{0, 0, 0x5e, 0, 1, vrid}
	if six {
		m[4] = 2
	}
	return m
}

// frame builds the Ethernet frame.
func (p *vrrpPacket) frame() []byte {
	body := p.body()
	if p.edit != nil {
		body = p.edit(body)
	}
	protocol := layers.IPProtocolVRRP
	if p.ah {
		protocol = layers.IPProtocolAH
		body = append(p.authHeader(), body...)
	}
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	eth := layers.Ethernet{SrcMAC: p.from, DstMAC: p.to, EthernetType: layers.EthernetTypeIPv4}
	var frame []byte
	if p.src.Is4() {
		ip := layers.IPv4{Version: 4, IHL: 5, TOS: p.tos, TTL: p.ttl, Protocol: protocol, SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice()}
		if p.df {
			ip.Flags = layers.IPv4DontFragment
		}
		frame = build(opts, &eth, &ip, gopacket.Payload(body))
	} else {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip := layers.IPv6{Version: 6, TrafficClass: p.tos, HopLimit: p.ttl, NextHeader: protocol, SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice()}
		frame = build(opts, &eth, &ip, gopacket.Payload(body))
	}
	if p.spoil != nil {
		p.spoil(frame)
	}
	return append(frame, p.paddingAfterFrame...)
}

// body builds the advert.
func (p *vrrpPacket) body() []byte {
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	var b []byte
	if p.version == 2 {
		b = build(opts, &decode.VRRPv2{
			Version: 2, Type: p.kind, VRID: p.vrid, Priority: p.priority, AuthType: p.authType,
			Interval: uint8(p.interval / time.Second), Addresses: p.addrs, Auth: p.auth,
		})
	} else {
		v := decode.VRRPv3{
			Version: p.version, Type: p.kind, VRID: p.vrid, Priority: p.priority, Reserved: p.reserved,
			Interval: uint16(p.interval / (10 * time.Millisecond)), Addresses: p.addrs,
		}
		if !p.plain {
			v.Src, v.Dst = p.src, p.dst
		}
		b = build(opts, &v)
	}
	if p.change == nil {
		return b
	}
	p.change(b)
	p.sum(b)
	return b
}

// sum makes the checksum of an advert that was changed (RFC 1071).
func (p *vrrpPacket) sum(b []byte) {
	b[6], b[7] = 0, 0
	all := b
	if p.version != 2 && !p.plain {
		all = binary.BigEndian.AppendUint32(append(append(p.src.AsSlice(), p.dst.AsSlice()...), b...), uint32(len(b)))
		all = append(all, 0, 112)
	}
	var acc uint32
	for i, c := range all {
		acc += uint32(c) << (8 * (1 - i%2))
	}
	for acc > 0xffff {
		acc = acc>>16 + acc&0xffff
	}
	binary.BigEndian.PutUint16(b[6:], ^uint16(acc))
}

// authHeader makes an authentication header as keepalived's (RFC 2402), with an
// integrity value that is right under no key that anybody has.
func (p *vrrpPacket) authHeader() []byte {
	b := []byte{112, 4, 0, 0}
	b = append(b, p.src.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, 1)
	return append(b, "no such key."...)
}

// query builds a probe that asks who has an address, and changes nobody's cache
// of it: ARP (RFC 5227 section 2.1.1), or a neighbour solicitation from the
// tester's own link-local address.
func (t *vrrpTester) query(addr netip.Addr) []byte {
	if addr.Is4() {
		return t.question(addr)
	}
	a := addr.As16()
	group := netip.AddrFrom16([16]byte{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a[13], a[14], a[15]})
	eth := layers.Ethernet{
		SrcMAC: t.wire.mac, DstMAC: net.HardwareAddr{0x33, 0x33, 0xff, a[13], a[14], a[15]}, EthernetType: layers.EthernetTypeIPv6,
	}
	ip := layers.IPv6{
		Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: t.wire.own6.AsSlice(), DstIP: group.AsSlice(),
	}
	icmp := layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)}
	if err := icmp.SetNetworkLayerForChecksum(&ip); err != nil {
		panic("conform: build a solicitation: " + err.Error()) // cannot happen: it is IPv6
	}
	ns := layers.ICMPv6NeighborSolicitation{
		TargetAddress: addr.AsSlice(), Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: t.wire.mac}},
	}
	return build(gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, &eth, &ip, &icmp, &ns)
}
