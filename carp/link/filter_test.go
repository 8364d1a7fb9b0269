package link

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// ip4 is a frame of IPv4 to a group: the protocol, words of options, and what
// follows.
func ip4(protocol byte, options int, rest ...byte) []byte {
	frame := []byte{1, 0, 0x5e, 0, 0, 0x12, 2, 0, 0, 0, 0, 1, 8, 0, 0x45 + byte(options), 0xc0}
	frame = binary.BigEndian.AppendUint16(frame, uint16(20+4*options+len(rest)))
	frame = append(frame, 0, 1, 0, 0, 255, protocol, 0, 0, 192, 0, 2, 1, 224, 0, 0, 18)
	return append(append(frame, make([]byte, 4*options)...), rest...)
}

// ip6 is a frame of IPv6, to a group or not: the next header, and what follows.
func ip6(group bool, next byte, rest ...byte) []byte {
	frame := []byte{0x33, 0x33, 0, 0, 0, 0x12, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x6c, 0, 0, 0}
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(rest)))
	frame = append(append(frame, next, 255), make([]byte, 32)...)
	if group {
		frame[38] = 0xff
	}
	return append(frame, rest...)
}

func TestFilterPassesWhatMayBeAnAdvert(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	if err := attachFilter(fds[1], advertFilter); err != nil {
		t.Fatal(err)
	}
	// The beginning of a header of 8 bytes, or of an authentication header, by what
	// comes next. No other byte is 112.
	before := func(next byte) []byte { return append([]byte{next, 4}, make([]byte, 40)...) }
	for _, tt := range []struct {
		name  string
		frame []byte
		pass  bool
	}{
		{"IPv4", ip4(112, 0, before(9)...), true},
		{"IPv4 with options", ip4(112, 10, before(9)...), true},
		{"AH over IPv4", ip4(51, 0, before(112)...), true},
		{"AH behind IPv4 options", ip4(51, 3, before(112)...), true},
		{"AH over IPv4 before UDP", ip4(51, 0, before(17)...), false},
		{"AH over IPv4 before UDP, 112 where it would be with an option", ip4(51, 0, 17, 4, 0, 0, 112, 0, 0, 0), false},
		{"AH over IPv4 cut off", ip4(51, 0), false},
		{"AH over IPv4, header length beyond the frame", ip4(51, 10)[:40], false},
		{"ESP over IPv4", ip4(50, 0, before(112)...), false},
		{"UDP over IPv4", ip4(17, 0, before(112)...), false},
		{"IPv6", ip6(true, 112, before(9)...), true},
		{"unicast IPv6", ip6(false, 112, before(9)...), true},
		{"AH over IPv6", ip6(true, 51, before(112)...), true},
		{"AH over unicast IPv6", ip6(false, 51, before(112)...), true},
		{"AH over IPv6 before UDP", ip6(true, 51, before(17)...), false},
		{"AH over IPv6 before options", ip6(true, 51, before(60)...), false},
		{"AH over IPv6 cut off", ip6(true, 51), false},
		{"ESP over IPv6", ip6(true, 50, before(112)...), false},
		{"ICMPv6", ip6(true, 58, before(112)...), false},
		{"hop-by-hop options", ip6(true, 0, before(112)...), true},
		{"destination options", ip6(true, 60, before(112)...), true},
		{"hop-by-hop, then destination options", ip6(true, 0, before(60)...), true},
		{"hop-by-hop options, then a routing header", ip6(true, 0, before(43)...), true},
		{"two of hop-by-hop options", ip6(true, 0, before(0)...), true},
		{"hop-by-hop options before ICMPv6", ip6(true, 0, before(58)...), false},
		{"hop-by-hop options of unicast", ip6(false, 0, before(112)...), false},
		{"a routing header first", ip6(true, 43, before(112)...), false},
		{"ARP", append(ip4(112, 0)[:12], 8, 6), false},
		{"ARP with 112 where the protocols would be", append(append(ip4(112, 0)[:12], 8, 6), bytes.Repeat([]byte{112}, 46)...), false},
		{"cut off before the protocol", ip4(112, 0)[:23], false},
		{"cut off before the type", ip4(112, 0)[:12], false},
	} {
		if _, err := unix.Write(fds[0], tt.frame); err != nil && err != unix.EPERM {
			t.Fatal(err) // EPERM is the filter's no
		}
		n, _, err := unix.Recvfrom(fds[1], make([]byte, maxFrame), unix.MSG_DONTWAIT)
		if pass := err == nil; pass != tt.pass || pass && n != len(tt.frame) {
			t.Errorf("%s: %d bytes passed, %v, want pass %v", tt.name, n, err, tt.pass)
		}
	}
}
