package conform

import (
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/carpd/carpd/test/decode"
)

var (
	groupMAC4 = net.HardwareAddr{0x01, 0x00, 0x5e, 0, 0, 0x12}
	groupMAC6 = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 0x12}
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

// packet is an advert on its way to the wire. It is good unless somebody changes
// it: digest, checksums and lengths are made when it is built.
type packet struct {
	eth    layers.Ethernet
	ip     layers.IPv4
	carp   decode.CARP
	frozen bool                // the digest is given and stays
	edit   func([]byte) []byte // changes the advert's bytes before the headers are made
	spoil  func([]byte)        // changes the finished frame
}

// advert returns a good advert over IPv4 with a counter that was never used.
func (t *tester) advert(src netip.Addr, base, skew uint8) *packet {
	return &packet{
		eth: layers.Ethernet{SrcMAC: virtualMAC(t.cfg.VHID), DstMAC: groupMAC4, EthernetType: layers.EthernetTypeIPv4},
		ip: layers.IPv4{
			Version: 4, IHL: 5, TOS: 0x10, TTL: 255, Flags: layers.IPv4DontFragment, Protocol: 112,
			SrcIP: src.AsSlice(), DstIP: net.IP{224, 0, 0, 18},
		},
		carp: decode.CARP{
			Version: 2, Type: 1, VHID: t.cfg.VHID, AdvSkew: skew, AuthLen: 7, AdvBase: base, Counter: t.rand.Uint64(),
		},
	}
}

// frame builds the Ethernet frame.
func (t *tester) frame(p *packet) []byte {
	if !p.frozen {
		p.carp.Digest = p.carp.Sign(t.cfg.Key, t.cfg.Addresses)
	}
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	payload := build(opts, &p.carp)
	if p.edit != nil {
		payload = p.edit(payload)
	}
	frame := build(opts, &p.eth, &p.ip, gopacket.Payload(payload))
	if p.spoil != nil {
		p.spoil(frame)
	}
	return frame
}

// build serializes layers that are known to be sound.
func build(opts gopacket.SerializeOptions, all ...gopacket.SerializableLayer) []byte {
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, opts, all...); err != nil {
		panic("conform: build a packet: " + err.Error()) // cannot happen: only fixed layers come here
	}
	return b.Bytes()
}

// frame6 builds the same advert over IPv6, from the tester's link-local address.
func (t *tester) frame6(p *packet) []byte {
	p.carp.Digest = p.carp.Sign(t.cfg.Key, t.cfg.Addresses)
	m := t.wire.mac
	eth := layers.Ethernet{SrcMAC: p.eth.SrcMAC, DstMAC: groupMAC6, EthernetType: layers.EthernetTypeIPv6}
	ip := layers.IPv6{
		Version: 6, HopLimit: 255, NextHeader: 112, DstIP: net.ParseIP("ff02::12"),
		SrcIP: net.IP{0xfe, 0x80, 0, 0, 0, 0, 0, 0, m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]},
	}
	return build(gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, &eth, &ip, &p.carp)
}

// question builds an ARP probe (RFC 5227 section 2.1.1): it asks who has the
// address and, having no sender address, changes nobody's cache.
func (t *bench) question(addr netip.Addr) []byte {
	eth := layers.Ethernet{SrcMAC: t.wire.mac, DstMAC: broadcast, EthernetType: layers.EthernetTypeARP}
	arp := layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: layers.ARPRequest, SourceHwAddress: t.wire.mac, SourceProtAddress: []byte{0, 0, 0, 0},
		DstHwAddress: make([]byte, 6), DstProtAddress: addr.AsSlice(),
	}
	return build(gopacket.SerializeOptions{}, &eth, &arp)
}

// Offsets into a frame without IP options.
const (
	offIPSum   = 14 + 10
	offCARPSum = 14 + 20 + 6
)

// flip turns a bit of a finished frame.
func flip(at int) func([]byte) { return func(frame []byte) { frame[at] ^= 1 } }
