package safety

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// packet is an IPv4 packet of node 0 in a frame.
func packet(pdu ...byte) []byte {
	f := append(make([]byte, 12), 8, 0, 0x45, 0, 0, byte(20+len(pdu)), 0, 0, 0, 0, 255, 112, 0, 0, 10, 9, 0, 1, 224, 0, 0, 18)
	put16(f, ipAt+10, sum(f[ipAt:]))
	return append(f, pdu...)
}

// carpAdvert has advskew 100, advbase 1 and a digest of nobody.
func carpAdvert() []byte {
	pdu := append([]byte{0x21, groupID, 100, 7, 0, 1, 0, 0}, bytes.Repeat([]byte{0xab}, 28)...)
	put16(pdu, 6, sum(pdu))
	return packet(pdu...)
}

func vrrpAdvert() []byte {
	f := packet(0x31, groupID, 100, 1, 0, 100, 0, 0, 10, 9, 16, 1)
	put16(f, sumAt, vrrpSum(f))
	return f
}

func vrrpSum(f []byte) uint16 {
	pdu := f[advertAt:]
	return sum(append(append(append([]byte(nil), f[sourceAt:advertAt]...), 0, 112, 0, byte(len(pdu))), pdu...))
}

func TestRewrittenAdvertsDifferInTimingAndSourceOnly(t *testing.T) {
	for n := range 4 {
		was, f := carpAdvert(), rewritten(carpAdvert(), n)
		if f[skewAt] != byte(n%2) || f[baseAt] != 0 || sum(f[advertAt:]) != 0 || sum(f[ipAt:advertAt]) != 0 {
			t.Errorf("CARP %d: advskew %d, advbase %d, or a bad checksum: %x", n, f[skewAt], f[baseAt], f)
		}
		if !bytes.Equal(f[advertAt+8:], was[advertAt+8:]) || f[advertAt+1] != groupID {
			t.Errorf("CARP %d: counter, digest or vhid changed: %x", n, f)
		}
		if own := f[sourceAt+3] == 1; own != (n/ownSource%2 == 0) {
			t.Errorf("CARP %d: source %v", n, f[sourceAt:sourceAt+4])
		}
		v := rewritten(vrrpAdvert(), n)
		if v[skewAt] != 255 || vrrpSum(v) != 0 || sum(v[ipAt:advertAt]) != 0 || !bytes.Equal(v[advertAt+8:], vrrpAdvert()[advertAt+8:]) {
			t.Errorf("VRRP %d: %x", n, v)
		}
	}
	if !bytes.Equal(carpAdvert(), carpAdvert()) || carpAdvert()[skewAt] != 100 {
		t.Error("the original was changed")
	}
}

// A packet of a flood that somebody had to accept would make the row one about
// something else.
func TestJunkIsNeverAGoodAdvert(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, good := range map[string][]byte{"CARP": carpAdvert(), "VRRP": vrrpAdvert()} {
		vrrp := name == "VRRP"
		for i, f := range junk(good, random) {
			if sum(f[ipAt:advertAt]) != 0 {
				t.Errorf("%s %d: the kernel refuses the IP header: %x", name, i, f)
			}
			length := int(binary.BigEndian.Uint16(f[ipAt+2:]))
			if ipAt+length != len(f) {
				t.Errorf("%s %d: a length of %d in %d bytes", name, i, length, len(f))
			}
			if len(f) < len(good) {
				continue
			}
			checks := !vrrp && sum(f[advertAt:]) == 0 || vrrp && vrrpSum(f) == 0
			changed := !bytes.Equal(f[advertAt+8:], good[advertAt+8:]) || f[advertAt+3] != good[advertAt+3]
			if f[ipAt+8] == 255 && checks && !changed {
				t.Errorf("%s %d is as good as the advert: %x", name, i, f)
			}
		}
	}
}

func TestSumIsThatOfTheRFC(t *testing.T) {
	if got, want := sum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}), ^uint16(0xddf2); got != want { // RFC 1071, 3
		t.Errorf("%x, want %x", got, want)
	}
	if got, want := sum([]byte{1, 2, 3}), ^uint16(0x0402); got != want {
		t.Errorf("an odd length: %x, want %x", got, want)
	}
}
