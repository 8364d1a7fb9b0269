package carp

import "net/netip"

// CARP and VRRP version 2 share protocol 112, group and first byte, and no field says
// which it is. What separates them is the length that byte 3 demands: CARP's is
// always 7, for 36 bytes, and would be seven addresses, so 44 bytes, for VRRP.

// looksLikeCARP reports whether payload is a whole CARP advert as everybody sends it:
// what it is to somebody who expected VRRP.
func looksLikeCARP(payload []byte) bool {
	return len(payload) == HeaderLen && payload[0] == 0x21 && payload[3] == 7 && fold(sum(0, payload)) == 0xffff
}

// looksLikeVRRP reports whether payload is a whole VRRP advert of either version: what
// it is to somebody who expected CARP.
func looksLikeVRRP(payload []byte, src, dst netip.Addr) bool {
	var a VRRPAdvert
	return a.Decode(payload, src, dst) == Accepted
}
