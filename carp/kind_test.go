package carp

import (
	"net/netip"
	"testing"
	"time"
)

// Five addresses of version 2 and seven of version 3 make 36 bytes, as CARP has.
func TestCARPAndVRRPAreToldApart(t *testing.T) {
	vrrp := func(version uint8, n int, password string) []byte {
		a := NewVRRPAdvert(version, 7, 100, time.Second, sequence("192.0.2.100", n))
		copy(a.Password[:], password)
		return a.Append(nil, vrrpSrc4, group4)
	}
	broken := vrrp(2, 5, "")
	broken[35] ^= 1
	other := NewAdvert(7, 1, 100)
	other.AuthLen = 5
	carp3 := NewAdvert(7, 1, 100)
	carp3.Version = 3
	pseudo := testCARP(7)
	pseudo[7] ^= 1
	for _, tt := range []struct {
		name       string
		b          []byte
		length     int
		carp, vrrp bool
	}{
		{"CARP", testCARP(7), 36, true, false},
		{"CARP with bytes behind", append(testCARP(7), 0, 0, 0, 0, 0, 0, 0, 0), 44, false, true}, // the same as seven addresses
		{"CARP cut", testCARP(7)[:35], 35, false, false},
		{"CARP with a wrong checksum", pseudo, 36, false, false},
		{"CARP of another authlen", other.Append(nil), 36, false, true}, // 36 bytes are then five addresses and a password
		{"CARP of version 3", carp3.Append(nil), 36, false, true},       // and seven addresses of version 3
		{"VRRPv2, one address", vrrp(2, 1, ""), 20, false, true},
		{"VRRPv2, five addresses", vrrp(2, 5, ""), 36, false, true},
		{"VRRPv2, five addresses and a password", vrrp(2, 5, "s3cret"), 36, false, true},
		{"VRRPv2, five addresses, one bit wrong", broken, 36, false, false},
		{"VRRPv2, seven addresses", vrrp(2, 7, ""), 44, false, true},
		{"VRRPv3, seven addresses", vrrp(3, 7, ""), 36, false, true},
		{"nothing", nil, 0, false, false},
	} {
		if len(tt.b) != tt.length {
			t.Errorf("%s: %d bytes, want %d", tt.name, len(tt.b), tt.length)
		}
		if got := looksLikeCARP(tt.b); got != tt.carp {
			t.Errorf("%s: looks like CARP: %v", tt.name, got)
		}
		if got := looksLikeVRRP(tt.b, vrrpSrc4, group4); got != tt.vrrp {
			t.Errorf("%s: looks like VRRP: %v", tt.name, got)
		}
	}
}

func testCARP(vhid uint8) []byte {
	a := NewAdvert(vhid, 1, 100)
	a.Counter = 0x0123456789abcdef
	a.Digest = NewDigest(vhid, []byte("secret"), []netip.Addr{vrrpPeer4}, DigestOptions{}).Sum(a.Counter)
	return a.Append(nil)
}

func TestEveryCapturedAdvertLooksLikeItsOwnProtocolAlone(t *testing.T) {
	for name, p := range goldenPDUs(t) {
		if looksLikeCARP(p.Payload) || !looksLikeVRRP(p.Payload, p.Src, p.Dst) {
			t.Errorf("%s: taken for CARP %v, for VRRP %v", name, looksLikeCARP(p.Payload), looksLikeVRRP(p.Payload, p.Src, p.Dst))
		}
	}
	for _, name := range []string{"carp-vhid1", "carp-pass19", "bsd-freebsd-v4-one", "bsd-freebsd-v6-only", "bsd-netbsd-v4-one", "bsd-netbsd-bowout"} {
		c := readCapture(t, "testdata/vectors/"+name+".txt")
		seen := 0
		for _, f := range c.frames {
			var p Packet
			if DecodeFrame(f, &p) != Accepted {
				continue
			}
			seen++
			if !looksLikeCARP(p.Payload) || looksLikeVRRP(p.Payload, p.Src, p.Dst) {
				t.Errorf("%s: %x is not taken for CARP alone", name, p.Payload)
			}
		}
		if seen == 0 {
			t.Errorf("%s: no advert", name)
		}
	}
}
