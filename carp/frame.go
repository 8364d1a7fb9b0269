package carp

import (
	"encoding/binary"
	"net/netip"
)

// Lengths and numbers of the layers around an advert: IEEE 802.3 and 802.1Q,
// RFC 791, RFC 8200, and the IANA registry of protocol numbers.
const (
	etherLen   = 14
	vlanTagLen = 4

	etherIPv4 = 0x0800
	etherVLAN = 0x8100
	etherIPv6 = 0x86dd

	ipv4Len       = 20
	ipv4DF        = 0x4000
	ipv4Fragment  = 0x3fff // more fragments, and the fragment offset
	ipv4MaxLength = 0xffff
	ipv6Len       = 40

	protocolCARP = 112
	protocolTTL  = 255

	headerHopByHop    = 0
	headerRouting     = 43
	headerDestination = 60
	headerAH          = 51

	ahMinLen = 12 // without integrity value; RFC 2402, 2
)

// DecodeFrame cuts the Ethernet and IP headers off frame and fills in p, or
// returns DropFrame and leaves p zero. It looks at lengths and at the IP header
// checksum only; TTL, addresses and the payload are the engine's business.
//
// Accepted are IPv4 with any TOS, flags and options, and IPv6 with hop-by-hop,
// destination and finished routing headers before protocol 112, as the BSD
// kernels do; one 802.1Q tag is skipped. What follows the IP length (padding, a
// trailer) is cut off. Fragments are refused: no implementation sends them, and
// the first one alone would look like a short advert.
//
// One authentication header (RFC 2402) before protocol 112, as keepalived sends
// with auth_type AH, is skipped over either family and noted in p.AH. Nobody checks
// its integrity value here.
//
// p.Payload points into frame: copy it before frame is used again. p.At is left
// zero. DecodeFrame does not allocate and keeps nothing.
func DecodeFrame(frame []byte, p *Packet) Drop {
	*p = Packet{}
	if len(frame) < etherLen {
		return DropFrame
	}
	etherType, rest := binary.BigEndian.Uint16(frame[12:]), frame[etherLen:]
	if etherType == etherVLAN {
		if len(rest) < vlanTagLen {
			return DropFrame
		}
		etherType, rest = binary.BigEndian.Uint16(rest[2:]), rest[vlanTagLen:]
	}
	ok := false
	switch etherType {
	case etherIPv4:
		ok = decodeIPv4(rest, p)
	case etherIPv6:
		ok = decodeIPv6(rest, p)
	}
	if !ok {
		*p = Packet{}
		return DropFrame
	}
	copy(p.SrcMAC[:], frame[6:12])
	p.Broadcast = frame[0]&1 != 0
	return Accepted
}

// decodeIPv4 fills in addresses, TTL and payload of an IPv4 packet (RFC 791).
func decodeIPv4(b []byte, p *Packet) bool {
	if len(b) < ipv4Len || b[0]>>4 != 4 {
		return false
	}
	header, total := int(b[0]&0x0f)*4, int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case header < ipv4Len || total < header || total > len(b):
		return false
	case b[9] != protocolCARP && b[9] != headerAH:
		return false
	case binary.BigEndian.Uint16(b[6:])&ipv4Fragment != 0:
		return false
	case headerSum(b[:header]) != 0:
		return false
	}
	p.Src, p.Dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	p.TTL = b[8]
	p.Payload = b[header:total:total]
	if b[9] == headerAH {
		next, length, ok := authHeader(p.Payload)
		if !ok || next != protocolCARP {
			return false
		}
		p.AH, p.Payload = true, p.Payload[length:]
	}
	return true
}

// authHeader reads the authentication header at the start of b: what follows it,
// and its length. The length field counts words, less two (RFC 2402, 2.2).
func authHeader(b []byte) (next byte, length int, ok bool) {
	if len(b) < ahMinLen {
		return 0, 0, false
	}
	length = (int(b[1]) + 2) * 4
	return b[0], length, length >= ahMinLen && length <= len(b)
}

// decodeIPv6 fills in addresses, hop limit and payload of an IPv6 packet (RFC
// 8200). A payload length of zero (a jumbogram) is refused, and so are
// IPv4-mapped addresses: on the wire they only serve to confuse.
func decodeIPv6(b []byte, p *Packet) bool {
	if len(b) < ipv6Len || b[0]>>4 != 6 {
		return false
	}
	total := ipv6Len + int(binary.BigEndian.Uint16(b[4:]))
	if total == ipv6Len || total > len(b) {
		return false
	}
	payload, authenticated, ok := skipExtensions(b[6], b[ipv6Len:total:total])
	if !ok {
		return false
	}
	p.Src, p.Dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	if p.Src.Is4In6() || p.Dst.Is4In6() {
		return false
	}
	p.TTL = b[7]
	p.Payload, p.AH = payload, authenticated
	return true
}

// skipExtensions follows the extension headers from one of type next at the
// start of b, and returns what follows the last if that is protocol 112, and
// whether an authentication header was among them. Each header takes at least
// eight bytes, so the length bounds the loop. A routing header with segments left
// names another destination than this node. An authentication header is a multiple
// of eight bytes long here (RFC 2402, 2.2), and there is one at most.
func skipExtensions(next byte, b []byte) (payload []byte, authenticated, ok bool) {
	for next != protocolCARP {
		after, length := byte(0), 0
		switch next {
		case headerHopByHop, headerDestination, headerRouting:
			if len(b) < 8 || next == headerRouting && b[3] != 0 {
				return nil, false, false
			}
			after, length = b[0], (int(b[1])+1)*8
		case headerAH:
			after, length, ok = authHeader(b)
			if !ok || authenticated || length%8 != 0 {
				return nil, false, false
			}
			authenticated = true
		default:
			return nil, false, false
		}
		if length > len(b) {
			return nil, false, false
		}
		next, b = after, b[length:]
	}
	return b, authenticated, true
}

// IPHeader is what a sender may choose of an advert's IP header. The zero value is
// identification 0, TOS 0 and DF set.
type IPHeader struct {
	ID           uint16 // IPv4 identification
	TOS          uint8  // TOS byte or traffic class: 0x10 for CARP, 0xc0 for VRRP
	Fragmentable bool   // IPv4 without DF, as keepalived sends
}

// AppendFrame appends to dst the whole Ethernet frame of an advert to a
// multicast group, without the frame check sequence and padding, and returns
// the longer slice. The destination MAC is that of the group (RFC 1112, RFC
// 2464). TTL or hop limit is 255, the IPv6 flow label 0. The source address is
// that of the group's family in local, or the unspecified one if there is none.
// Where f.Pseudo is set the checksum is finished for that address, in the frame
// alone: f.Payload may be shared and stays as it is.
//
// If f.Dst is no multicast group, or the payload is longer than an IPv4 packet
// can carry, nothing is appended. AppendFrame does not allocate if dst has room.
func AppendFrame(dst []byte, srcMAC MAC, local Local, f Frame, h IPHeader) []byte {
	f.Dst = f.Dst.Unmap()
	if !f.Dst.IsMulticast() {
		return dst
	}
	b := f.Dst.AsSlice()
	to, src := MAC{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}, local.IPv4.Unmap()
	if f.Dst.Is6() {
		to, src = MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}, local.IPv6
	}
	return appendFrame(dst, to, srcMAC, src, f, h)
}

// appendFrame is AppendFrame to any address, whose MAC is to.
func appendFrame(dst []byte, to, srcMAC MAC, src netip.Addr, f Frame, h IPHeader) []byte {
	if len(f.Payload) > ipv4MaxLength-ipv4Len {
		return dst
	}
	dst = append(append(dst, to[:]...), srcMAC[:]...)
	if f.Dst.Is4() {
		dst = appendIPv4(dst, src, f.Dst, len(f.Payload), h)
	} else {
		dst = appendIPv6(dst, src, f.Dst, len(f.Payload), h.TOS)
	}
	start := len(dst)
	dst = append(dst, f.Payload...)
	f.Payload = dst[start:]
	f.Finish(src)
	return dst
}

func appendIPv4(dst []byte, src, to netip.Addr, payload int, h IPHeader) []byte {
	dst = binary.BigEndian.AppendUint16(dst, etherIPv4)
	start, flags := len(dst), uint16(ipv4DF)
	if h.Fragmentable {
		flags = 0
	}
	dst = append(dst, 0x45, h.TOS)
	dst = binary.BigEndian.AppendUint16(dst, uint16(ipv4Len+payload))
	dst = binary.BigEndian.AppendUint16(dst, h.ID)
	dst = binary.BigEndian.AppendUint16(dst, flags)
	dst = append(dst, protocolTTL, protocolCARP, 0, 0)
	from := [4]byte{}
	if src.Is4() {
		from = src.As4()
	}
	b := to.As4()
	dst = append(append(dst, from[:]...), b[:]...)
	binary.BigEndian.PutUint16(dst[start+10:], headerSum(dst[start:]))
	return dst
}

func appendIPv6(dst []byte, src, to netip.Addr, payload int, tos uint8) []byte {
	dst = binary.BigEndian.AppendUint16(dst, etherIPv6)
	dst = binary.BigEndian.AppendUint32(dst, 6<<28|uint32(tos)<<20)
	dst = binary.BigEndian.AppendUint16(dst, uint16(payload))
	dst = append(dst, protocolCARP, protocolTTL)
	from := [16]byte{}
	if src.Is6() && !src.Is4In6() {
		from = src.As16()
	}
	b := to.As16()
	return append(append(dst, from[:]...), b[:]...)
}

// headerSum is the Internet checksum (RFC 1071) of an IPv4 header, whose length
// is even; over a header with its checksum in place it is zero.
func headerSum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	return ^uint16(sum)
}
