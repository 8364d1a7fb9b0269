package carp

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// VRRPAdvert holds the fields of a VRRP advertisement of version 2 (RFC 3768, 5.1)
// or 3 (RFC 9568, 5.1). The zero value is not valid; NewVRRPAdvert fills in the
// constants. It may be copied; after Decode its addresses are those in the packet.
type VRRPAdvert struct {
	Version  uint8 // 2 or 3
	Type     uint8 // 1
	VRID     uint8
	Priority uint8         // 255: the sender owns the addresses; 0: it leaves as master
	Interval time.Duration // wire units: seconds (version 2) or centiseconds, at most 4095 (version 3)
	AuthType uint8         // version 2: 0 none, 1 text password, 2 authentication header
	Password [8]byte       // version 2: filled up with zeroes, all zero without a password
	Checksum uint16        // as decoded
	Sum      Checksum      // version 3 over IPv4: which form the checksum has; else ChecksumPseudo
	addrs    []byte        // 4 or 16 bytes each; after Decode within the packet
	width    int           // of one address
}

// NewVRRPAdvert returns an advert without authentication. The addresses must be of
// one family, IPv4 for version 2, and at most 255; they are copied, without zone.
func NewVRRPAdvert(version, vrid, priority uint8, interval time.Duration, addrs []netip.Addr) VRRPAdvert {
	a := VRRPAdvert{Version: version, Type: 1, VRID: vrid, Priority: priority, Interval: interval, width: 4}
	if len(addrs) > 0 && FamilyOf(addrs[0]) == IPv6 {
		a.width = 16
	}
	a.addrs = make([]byte, 0, len(addrs)*a.width)
	for _, addr := range addrs {
		addr = addr.Unmap()
		a.addrs = append(a.addrs, addr.AsSlice()...)
	}
	return a
}

// Count is the number of addresses.
func (a *VRRPAdvert) Count() int {
	if a.width == 0 {
		return 0
	}
	return len(a.addrs) / a.width
}

// Address returns address number i, in the order of the wire: 0 to Count()-1.
func (a *VRRPAdvert) Address(i int) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.addrs[i*a.width:][:a.width])
	return addr
}

// Leaves reports whether the sender leaves as master (RFC 9568, 5.2.4: priority 0).
func (a *VRRPAdvert) Leaves() bool { return a.Priority == 0 }

const (
	vrrpHeaderLen = 8
	vrrpAuthLen   = 8 // there in version 2 even without authentication
	centisecond   = 10 * time.Millisecond
)

// Append encodes a behind dst and returns the longer slice. The checksum is that of
// Sum. Where it covers a pseudo-header it is right only if src and to are the
// addresses of the IP header; give zero values to leave it to Frame.Finish.
func (a *VRRPAdvert) Append(dst []byte, src, to netip.Addr) []byte {
	start := len(dst)
	dst = append(dst, a.Version<<4|a.Type&0xf, a.VRID, a.Priority, uint8(a.Count()))
	if a.Version == 2 {
		dst = append(dst, a.AuthType, uint8(a.Interval/time.Second), 0, 0)
	} else {
		dst = binary.BigEndian.AppendUint16(dst, uint16(a.Interval/centisecond)&0xfff)
		dst = append(dst, 0, 0)
	}
	dst = append(dst, a.addrs...)
	if a.Version == 2 {
		dst = append(dst, a.Password[:]...)
	}
	var acc uint32
	if a.Version == 3 && (a.width == 16 || a.Sum != ChecksumRFC9568) {
		if a.width == 4 && a.Sum == ChecksumOldUnicast {
			to = group4
		}
		acc = vrrpPseudoSum(src, to, len(dst)-start)
	}
	putVRRPSum(dst[start:], acc)
	return dst
}

// putVRRPSum sets the checksum of an encoded advert, on top of acc.
func putVRRPSum(b []byte, acc uint32) {
	b[6], b[7] = 0, 0
	binary.BigEndian.PutUint16(b[6:], ^fold(sum(acc, b)))
}

// Decode reads an advert of either version and checks what can be checked without
// knowing the virtual router: whether there is such a version, then length, checksum
// and type. Version 2 has no form for IPv6 and is refused there; a count of zero, an
// interval of zero and every authentication decode, for the engine to judge. src and
// to are the addresses of the IP header; the family of src is that of the addresses.
//
// The length must be that of the addresses counted. More is refused: Ethernet
// padding has been cut off by the IP length, and the 28 bytes of HMAC that
// keepalived 2.4 can put behind version 3 (auth_hmac) come with a setting that we do
// not have. An advert with them is DropLength, as it is for most receivers.
//
// After Accepted the addresses point into b; after a refusal the fields mean nothing.
// Decode does not allocate.
func (a *VRRPAdvert) Decode(b []byte, src, to netip.Addr) Drop {
	if len(b) < vrrpHeaderLen {
		return DropLength
	}
	*a = VRRPAdvert{
		Version: b[0] >> 4, Type: b[0] & 0xf, VRID: b[1], Priority: b[2],
		Checksum: binary.BigEndian.Uint16(b[6:]), width: 4,
	}
	if FamilyOf(src) == IPv6 && src.IsValid() {
		a.width = 16
	}
	trailer := 0
	switch {
	case a.Version == 2 && a.width == 4:
		trailer = vrrpAuthLen
		a.AuthType, a.Interval = b[4], time.Duration(b[5])*time.Second
	case a.Version == 3:
		a.Interval = time.Duration(binary.BigEndian.Uint16(b[4:])&0xfff) * centisecond // the reserved nibble is ignored
	default:
		return DropVersion
	}
	end := vrrpHeaderLen + int(b[3])*a.width
	if len(b) != end+trailer {
		return DropLength
	}
	a.addrs = b[vrrpHeaderLen:end:end]
	if trailer > 0 {
		a.Password = [8]byte(b[end:])
	}
	if !a.sumHolds(b, src, to) {
		return DropChecksum
	}
	if a.Type != 1 {
		return DropVersion
	}
	return Accepted
}

// sumHolds checks the checksum and notes its form. Version 2 has none but over the
// packet alone, version 3 over IPv6 none but with a pseudo-header; over IPv4 there
// are three. To take them all opens nothing: the checksum is no secret.
func (a *VRRPAdvert) sumHolds(b []byte, src, to netip.Addr) bool {
	plain := sum(0, b)
	if a.Version == 2 {
		return fold(plain) == 0xffff
	}
	if fold(plain+vrrpPseudoSum(src, to, len(b))) == 0xffff {
		return true
	}
	if a.width == 16 {
		return false
	}
	if fold(plain) == 0xffff {
		a.Sum = ChecksumRFC9568
		return true
	}
	a.Sum = ChecksumOldUnicast
	return !to.IsMulticast() && fold(plain+vrrpPseudoSum(src, group4, len(b))) == 0xffff
}

// vrrpPseudoSum is the pseudo-header of either family: addresses, length, protocol
// (RFC 5798, 5.2.8; RFC 8200, 8.1).
func vrrpPseudoSum(src, to netip.Addr, length int) uint32 {
	src, to = src.Unmap(), to.Unmap()
	acc := uint32(length) + IPProtocol
	for _, addr := range [...]netip.Addr{src, to} {
		if addr.Is4() {
			b := addr.As4()
			acc = sum(acc, b[:])
		} else if addr.Is6() {
			b := addr.As16()
			acc = sum(acc, b[:])
		}
	}
	return acc
}
