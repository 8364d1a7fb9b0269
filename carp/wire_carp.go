package carp

import (
	"encoding/binary"
	"net/netip"
)

// IPProtocol is the IP protocol number of CARP and VRRP.
const IPProtocol = 112

// HeaderLen is the length of a CARP header; it has no options.
const HeaderLen = 36

var (
	group4 = netip.AddrFrom4([4]byte{224, 0, 0, 18})
	group6 = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 0x12})
)

// Group returns the multicast group of family f: 224.0.0.18 or ff02::12.
func Group(f Family) netip.Addr {
	if f == IPv4 {
		return group4
	}
	return group6
}

// Append encodes a as 36 bytes behind dst, with the checksum it computes over
// them: no pseudo-header, for either family.
func (a *Advert) Append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, a.Version<<4|a.Type&0xf, a.VHID, a.AdvSkew, a.AuthLen, a.Demote, a.AdvBase, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, a.Counter)
	dst = append(dst, a.Digest[:]...)
	binary.BigEndian.PutUint16(dst[start+6:], ^fold(sum(0, dst[start:])))
	return dst
}

// Decode reads the 36 bytes of an advert from the front of b, whose further
// bytes are ignored as every other implementation ignores them. It checks what
// can be checked without knowing the group: length, checksum and version, in
// this order. src and dst are needed for the one sender that sums a
// pseudo-header (NetBSD over IPv6, carp6_cksum); give zero values to refuse it.
func (a *Advert) Decode(b []byte, src, dst netip.Addr) Drop {
	if len(b) < HeaderLen {
		return DropLength
	}
	b = b[:HeaderLen]
	s := sum(0, b)
	if fold(s) != 0xffff && fold(s+pseudoSum(src, dst)) != 0xffff {
		return DropChecksum
	}
	*a = Advert{
		Version: b[0] >> 4, Type: b[0] & 0xf, VHID: b[1], AdvSkew: b[2], AuthLen: b[3], Demote: b[4], AdvBase: b[5],
		Checksum: binary.BigEndian.Uint16(b[6:]),
		Counter:  binary.BigEndian.Uint64(b[8:]),
		Digest:   [20]byte(b[16:]),
	}
	if a.Version != 2 {
		return DropVersion
	}
	return Accepted
}

// sum adds b as big-endian 16-bit words (RFC 1071) without folding.
func sum(acc uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		acc += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		acc += uint32(b[0]) << 8
	}
	return acc
}

func fold(acc uint32) uint16 {
	for acc > 0xffff {
		acc = acc>>16 + acc&0xffff
	}
	return uint16(acc)
}

// pseudoSum is the IPv6 pseudo-header of a CARP packet (RFC 8200, 8.1), or 0 if
// the addresses are not both IPv6.
func pseudoSum(src, dst netip.Addr) uint32 {
	if !src.Is6() || !dst.Is6() {
		return 0
	}
	s, d := src.As16(), dst.As16()
	return sum(sum(HeaderLen+IPProtocol, s[:]), d[:])
}
