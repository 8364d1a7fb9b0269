// Package decode is a second opinion on packets of IP protocol 112: gopacket
// layers for CARP and VRRP versions 2 and 3, written from the descriptions of the
// protocols and not from package carp, so that a fault of our codec cannot hide
// in the tests that use it.
//
// CARP and VRRP share the protocol number, and a CARP advert looks like one of
// VRRP version 2. Nothing in a packet tells them apart, so nothing here guesses:
// the caller says what protocol 112 stands for.
//
//	p := decode.Packet(frame, decode.CARPv2)
//	if advert, ok := p.Layer(decode.LayerTypeCARP).(*decode.CARP); ok { ... }
//
// The chain of decoders is given to gopacket.NewPacket with each packet. None of
// gopacket's global tables is changed (layers.IPProtocolMetadata and the names
// of layer types among them), so that packets decoded elsewhere in the same
// process decode as before; the layer types here have numbers and no names.
//
// All functions are safe for concurrent use and never panic.
package decode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Layer types of this package. The numbers are beyond those that gopacket gives
// out; they are not registered, so they print as numbers.
const (
	LayerTypeCARP   gopacket.LayerType = 112_002
	LayerTypeVRRPv3 gopacket.LayerType = 112_003
	LayerTypeVRRPv2 gopacket.LayerType = 112_004
	LayerTypeAH     gopacket.LayerType = 112_005
)

// Protocol says what IP protocol 112 carries.
type Protocol uint8

// The protocols.
const (
	CARPv2 Protocol = iota // CARP version 2
	VRRPV3                 // VRRP version 3, over IPv4 or IPv6
	VRRPV2                 // VRRP version 2, over IPv4
)

const protocolNumber = 112

// Packet decodes an Ethernet frame whose IP protocol 112 is the given protocol.
// Other payloads (ARP, ICMPv6, ...) are decoded by gopacket's own decoders. What
// cannot be decoded ends in the packet's ErrorLayer; layers above it are absent.
//
// Decoded are IPv4 with options, IPv6 with hop-by-hop, destination and finished
// routing headers, an authentication header (AH, which is not checked) over either,
// and one 802.1Q tag. A fragment, a packet that is longer than
// its frame, and an IPv4 header with a wrong checksum are errors if the protocol
// is 112. The frame is not copied: it must not change while the packet is used.
func Packet(frame []byte, as Protocol) gopacket.Packet {
	c := chain{as: as}
	return gopacket.NewPacket(frame, gopacket.DecodeFunc(c.ethernet), gopacket.DecodeOptions{NoCopy: true})
}

// chain holds what a decoder must know of the layers below it. One serves one
// packet.
type chain struct {
	as       Protocol
	src, dst netip.Addr
}

func (c *chain) ethernet(data []byte, p gopacket.PacketBuilder) error {
	eth := &layers.Ethernet{}
	if err := eth.DecodeFromBytes(data, p); err != nil {
		return err
	}
	p.AddLayer(eth)
	p.SetLinkLayer(eth)
	if eth.EthernetType == layers.EthernetTypeDot1Q {
		return p.NextDecoder(gopacket.DecodeFunc(c.tag))
	}
	return c.network(eth.EthernetType, p)
}

func (c *chain) tag(data []byte, p gopacket.PacketBuilder) error {
	tag := &layers.Dot1Q{}
	if err := tag.DecodeFromBytes(data, p); err != nil {
		return err
	}
	p.AddLayer(tag)
	return c.network(tag.Type, p)
}

func (c *chain) network(t layers.EthernetType, p gopacket.PacketBuilder) error {
	switch t {
	case layers.EthernetTypeIPv4:
		return p.NextDecoder(gopacket.DecodeFunc(c.ipv4))
	case layers.EthernetTypeIPv6:
		return p.NextDecoder(gopacket.DecodeFunc(c.ipv6))
	case layers.EthernetTypeARP:
		return p.NextDecoder(layers.LayerTypeARP)
	}
	return p.NextDecoder(gopacket.LayerTypePayload)
}

// ipv4 reads the header by hand: gopacket refuses options that it cannot parse,
// which no receiver of adverts looks at, and mends lengths.
func (c *chain) ipv4(data []byte, p gopacket.PacketBuilder) error {
	const fixed = 20
	if len(data) < fixed {
		p.SetTruncated()
		return fmt.Errorf("decode: IPv4: %d bytes are no header", len(data))
	}
	if version := data[0] >> 4; version != 4 {
		return fmt.Errorf("decode: IPv4: the version is %d", version)
	}
	header, total := int(data[0]&15)*4, int(binary.BigEndian.Uint16(data[2:]))
	if header < fixed || total < header || total > len(data) {
		p.SetTruncated()
		return fmt.Errorf("decode: IPv4: header of %d and packet of %d bytes in %d", header, total, len(data))
	}
	offset := binary.BigEndian.Uint16(data[6:])
	ip := &layers.IPv4{
		BaseLayer: layers.BaseLayer{Contents: data[:header], Payload: data[header:total:total]},
		Version:   4, IHL: data[0] & 15, TOS: data[1], Length: uint16(total), Id: binary.BigEndian.Uint16(data[4:]),
		Flags: layers.IPv4Flag(offset >> 13), FragOffset: offset & 0x1fff, TTL: data[8], Protocol: layers.IPProtocol(data[9]),
		Checksum: binary.BigEndian.Uint16(data[10:]), SrcIP: data[12:16], DstIP: data[16:20],
	}
	p.AddLayer(ip)
	p.SetNetworkLayer(ip)
	switch {
	case ip.Protocol != protocolNumber && ip.Protocol != layers.IPProtocolAH:
		return p.NextDecoder(gopacket.LayerTypePayload)
	case ip.Flags&layers.IPv4MoreFragments != 0 || ip.FragOffset != 0:
		return errors.New("decode: IPv4: a fragment")
	case internet(ip.Contents) != 0:
		return errors.New("decode: IPv4: the header checksum is wrong")
	}
	c.src, c.dst = netip.AddrFrom4([4]byte(data[12:16])), netip.AddrFrom4([4]byte(data[16:20]))
	if ip.Protocol == layers.IPProtocolAH {
		return p.NextDecoder(gopacket.DecodeFunc(c.ah))
	}
	return c.protocol(p)
}

// ipv6 reads the fixed header by hand: gopacket takes the hop-by-hop header for
// a part of it.
func (c *chain) ipv6(data []byte, p gopacket.PacketBuilder) error {
	const fixed = 40
	if len(data) < fixed {
		p.SetTruncated()
		return fmt.Errorf("decode: IPv6: %d bytes are no header", len(data))
	}
	if version := data[0] >> 4; version != 6 {
		return fmt.Errorf("decode: IPv6: the version is %d", version)
	}
	total := fixed + int(binary.BigEndian.Uint16(data[4:]))
	if total > len(data) || total == fixed {
		p.SetTruncated()
		return fmt.Errorf("decode: IPv6: the payload has %d bytes in a packet of %d", total-fixed, len(data))
	}
	next, payload, err := skip(data[6], data[fixed:total:total])
	if err != nil {
		return err
	}
	ip := &layers.IPv6{
		BaseLayer: layers.BaseLayer{Contents: data[:total-len(payload)], Payload: payload},
		Version:   6, TrafficClass: data[0]<<4 | data[1]>>4, FlowLabel: binary.BigEndian.Uint32(data) & 0xfffff,
		Length: uint16(total - fixed), NextHeader: layers.IPProtocol(next), HopLimit: data[7],
		SrcIP: data[8:24], DstIP: data[24:40],
	}
	p.AddLayer(ip)
	p.SetNetworkLayer(ip)
	c.src, c.dst = netip.AddrFrom16([16]byte(data[8:24])), netip.AddrFrom16([16]byte(data[24:40]))
	switch next {
	case protocolNumber:
		if c.src.Is4In6() || c.dst.Is4In6() {
			return errors.New("decode: IPv6: an IPv4-mapped address on the wire")
		}
		return c.protocol(p)
	case byte(layers.IPProtocolICMPv6):
		return p.NextDecoder(layers.LayerTypeICMPv6)
	}
	return p.NextDecoder(gopacket.LayerTypePayload)
}

// skip follows the extension headers before a payload. Each has at least eight
// bytes, so the length bounds the loop. One may be an authentication header, whose
// length is a multiple of eight here (RFC 2402 section 2.2).
func skip(next byte, b []byte) (byte, []byte, error) {
	authenticated := false
	for {
		switch layers.IPProtocol(next) {
		case layers.IPProtocolAH:
			after, length, err := authHeader(b)
			if err != nil {
				return 0, nil, err
			}
			if authenticated || length%8 != 0 {
				return 0, nil, errors.New("decode: IPv6: a second authentication header, or one that is not aligned")
			}
			authenticated = true
			next, b = after, b[length:]
			continue
		case layers.IPProtocolIPv6HopByHop, layers.IPProtocolIPv6Destination, layers.IPProtocolIPv6Routing:
		default:
			return next, b, nil
		}
		if len(b) < 8 || len(b) < (int(b[1])+1)*8 {
			return 0, nil, errors.New("decode: IPv6: an extension header is longer than the packet")
		}
		if layers.IPProtocol(next) == layers.IPProtocolIPv6Routing && b[3] != 0 {
			return 0, nil, errors.New("decode: IPv6: a routing header with segments left")
		}
		next, b = b[0], b[(int(b[1])+1)*8:]
	}
}

// AH is an authentication header over IPv4 (RFC 2402), of which nothing is checked.
type AH struct {
	layers.BaseLayer
	SPI, Seq uint32
	ICV      []byte // integrity value
}

// LayerType returns LayerTypeAH.
func (*AH) LayerType() gopacket.LayerType { return LayerTypeAH }

// authHeader returns the type and the length of an authentication header (RFC 2402
// section 2.2: its length counts words, less two).
func authHeader(b []byte) (next byte, length int, err error) {
	const least = 12
	if len(b) < least {
		return 0, 0, errors.New("decode: AH: too short")
	}
	if length = (int(b[1]) + 2) * 4; length < least || length > len(b) {
		return 0, 0, fmt.Errorf("decode: AH: a header of %d bytes in %d", length, len(b))
	}
	return b[0], length, nil
}

// ah reads an authentication header over IPv4 and checks nothing of it.
func (c *chain) ah(data []byte, p gopacket.PacketBuilder) error {
	next, length, err := authHeader(data)
	if err != nil {
		return err
	}
	p.AddLayer(&AH{
		BaseLayer: layers.BaseLayer{Contents: data[:length:length], Payload: data[length:]},
		SPI:       binary.BigEndian.Uint32(data[4:]), Seq: binary.BigEndian.Uint32(data[8:]), ICV: data[12:length],
	})
	if next != protocolNumber {
		return p.NextDecoder(gopacket.LayerTypePayload)
	}
	return c.protocol(p)
}

func (c *chain) protocol(p gopacket.PacketBuilder) error {
	switch c.as {
	case VRRPV3:
		return p.NextDecoder(gopacket.DecodeFunc(c.vrrp))
	case VRRPV2:
		return p.NextDecoder(gopacket.DecodeFunc(c.vrrp2))
	}
	return p.NextDecoder(gopacket.DecodeFunc(c.carp))
}

func (c *chain) carp(data []byte, p gopacket.PacketBuilder) error {
	advert := &CARP{Src: c.src, Dst: c.dst}
	if err := advert.DecodeFromBytes(data, p); err != nil {
		return err
	}
	p.AddLayer(advert)
	return nil
}

func (c *chain) vrrp(data []byte, p gopacket.PacketBuilder) error {
	advert := &VRRPv3{Src: c.src, Dst: c.dst}
	if err := advert.DecodeFromBytes(data, p); err != nil {
		return err
	}
	p.AddLayer(advert)
	return nil
}

func (c *chain) vrrp2(data []byte, p gopacket.PacketBuilder) error {
	if c.src.Is6() {
		return errors.New("decode: VRRPv2: over IPv6, for which there is none")
	}
	advert := &VRRPv2{}
	if err := advert.DecodeFromBytes(data, p); err != nil {
		return err
	}
	p.AddLayer(advert)
	return nil
}

// internet is the Internet checksum (RFC 1071) over some pieces, each of even
// length but the last: 0 if a right checksum is among them.
func internet(pieces ...[]byte) uint16 {
	var sum uint64
	for _, b := range pieces {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint64(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint64(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// pseudo is the pseudo-header of a packet of protocol 112: RFC 8200 section 8.1
// for IPv6, the form of RFC 793 for IPv4.
func pseudo(src, dst netip.Addr, length int) []byte {
	b := append(src.AsSlice(), dst.AsSlice()...)
	if src.Is4() {
		return append(b, 0, protocolNumber, byte(length>>8), byte(length))
	}
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	return append(b, 0, 0, 0, protocolNumber)
}
