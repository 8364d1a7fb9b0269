package track

import (
	"encoding/binary"
	"net/netip"

	"github.com/carpd/carpd/carp"
)

// Numbers of the frames that are sent and read here (RFC 826, RFC 4861).
const (
	etherARP  = 0x0806
	etherIPv6 = 0x86dd
	etherLen  = 14

	arpLen     = 28
	arpRequest = 1
	arpReply   = 2

	ipv6Len        = 40
	nextICMP       = 58
	ndpHopLimit    = 255
	solicitation   = 135
	advertisement  = 136
	ndpLen         = 24 // without options
	optionSource   = 1
	linkOptionLen  = 8
	offICMPv6Type  = etherLen + ipv6Len
	offARPOperator = etherLen + 6
	offIPv6Next    = etherLen + 6
)

var broadcast = carp.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// appendRequest appends the frame that asks for target: an ARP request or a
// neighbour solicitation. It goes to the MAC in to, or where that is zero to all
// who may have the address. source is an own address of the family of target; for
// IPv4 it may be zero: then it is the probe of RFC 5227, which tells nobody
// anything.
func appendRequest(b []byte, mac, to carp.MAC, source, target netip.Addr) []byte {
	if target.Is4() {
		return appendARP(b, mac, to, source, target)
	}
	return appendSolicitation(b, mac, to, source, target)
}

func appendARP(b []byte, mac, to carp.MAC, source, target netip.Addr) []byte {
	if to == (carp.MAC{}) {
		to = broadcast
	}
	from := [4]byte{}
	if source.Is4() {
		from = source.As4()
	}
	for4 := target.As4()
	b = append(append(b, to[:]...), mac[:]...)
	b = binary.BigEndian.AppendUint16(b, etherARP)
	b = append(b, 0, 1, 0x08, 0, 6, 4, 0, arpRequest) // Ethernet, IPv4
	b = append(append(b, mac[:]...), from[:]...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, for4[:]...)
}

func appendSolicitation(b []byte, mac, to carp.MAC, source, target netip.Addr) []byte {
	from, for6 := source.As16(), target.As16()
	dst := for6
	if to == (carp.MAC{}) { // the solicited-node group (RFC 4291, 2.7.1; RFC 2464, 7)
		dst = [16]byte{0xff, 0x02, 11: 0x01, 12: 0xff, 13: for6[13], 14: for6[14], 15: for6[15]}
		to = carp.MAC{0x33, 0x33, dst[12], dst[13], dst[14], dst[15]}
	}
	b = append(append(b, to[:]...), mac[:]...)
	b = binary.BigEndian.AppendUint16(b, etherIPv6)
	b = append(b, 0x60, 0, 0, 0, 0, ndpLen+linkOptionLen, nextICMP, ndpHopLimit)
	b = append(append(b, from[:]...), dst[:]...)
	start := len(b)
	b = append(b, solicitation, 0, 0, 0, 0, 0, 0, 0)
	b = append(b, for6[:]...)
	b = append(append(b, optionSource, 1), mac[:]...)
	binary.BigEndian.PutUint16(b[start+2:], ^icmpSum(from, dst, b[start:]))
	return b
}

// icmpSum sums an ICMPv6 message of even length with its pseudo-header (RFC 8200,
// 8.1); over a sound one it is 0xffff.
func icmpSum(src, dst [16]byte, message []byte) uint16 {
	sum := uint32(len(message)) + nextICMP
	for _, part := range [][]byte{src[:], dst[:], message} {
		for ; len(part) >= 2; part = part[2:] {
			sum += uint32(binary.BigEndian.Uint16(part))
		}
		if len(part) == 1 {
			sum += uint32(part[0]) << 8
		}
	}
	sum = sum>>16 + sum&0xffff
	return uint16(sum + sum>>16)
}

// answers reports whether a frame is target's answer to mac, and from which MAC.
func answers(frame []byte, mac carp.MAC, target netip.Addr) (from carp.MAC, ok bool) {
	if len(frame) < etherLen || carp.MAC(frame[:6]) != mac {
		return from, false
	}
	from = carp.MAC(frame[6:12])
	switch body := frame[etherLen:]; binary.BigEndian.Uint16(frame[12:]) {
	case etherARP:
		return from, target.Is4() && isReply(body, mac, target)
	case etherIPv6:
		return from, target.Is6() && isAdvertisement(body, target)
	}
	return from, false
}

func isReply(b []byte, mac carp.MAC, target netip.Addr) bool {
	return len(b) >= arpLen && [8]byte(b) == [8]byte{0, 1, 0x08, 0, 6, 4, 0, arpReply} &&
		netip.AddrFrom4([4]byte(b[14:])) == target && carp.MAC(b[18:24]) == mac
}

func isAdvertisement(b []byte, target netip.Addr) bool {
	if len(b) < ipv6Len+ndpLen || b[0]>>4 != 6 || b[6] != nextICMP || b[7] != ndpHopLimit {
		return false
	}
	end := ipv6Len + int(binary.BigEndian.Uint16(b[4:]))
	if end < ipv6Len+ndpLen || end > len(b) {
		return false
	}
	message := b[ipv6Len:end]
	return message[0] == advertisement && message[1] == 0 && netip.AddrFrom16([16]byte(message[8:])) == target &&
		icmpSum([16]byte(b[8:]), [16]byte(b[24:]), message) == 0xffff
}
