package link

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
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

// sieve is a filter in the kernel, to be tried frame by frame: x/net's interpreter
// does not know the type of a frame.
type sieve struct {
	t   testing.TB
	fds [2]int
}

func newSieve(t testing.TB) *sieve {
	t.Helper()
	s := &sieve{t: t}
	var err error
	if s.fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(s.fds[0]); unix.Close(s.fds[1]) })
	return s
}

func (s *sieve) set(v *served) {
	s.t.Helper()
	program, err := v.filter()
	if err == nil {
		err = attachFilter(s.fds[1], program)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// passes reports whether a frame passes whole.
func (s *sieve) passes(frame []byte) bool {
	s.t.Helper()
	if _, err := unix.Write(s.fds[0], frame); err != nil && err != unix.EPERM {
		s.t.Fatal(err) // EPERM is the filter's no
	}
	n, _, err := unix.Recvfrom(s.fds[1], make([]byte, maxFrame+2), unix.MSG_DONTWAIT)
	if err == nil && n != min(len(frame), maxFrame+1) {
		s.t.Errorf("%d bytes of %d passed", n, len(frame))
	}
	return err == nil
}

func TestFilterPassesWhatMayBeAnAdvert(t *testing.T) {
	s := newSieve(t)
	own := &served{unicast: [2][]netip.Addr{{netip.MustParseAddr("192.0.2.9")}, {netip.IPv6Unspecified()}}}
	own.ids[carp.IPv4].add(4)
	own.ids[carp.IPv6].add(4)
	s.set(own)
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
		if pass := s.passes(tt.frame); pass != tt.pass {
			t.Errorf("%s: passed %v, want %v", tt.name, pass, tt.pass)
		}
	}
}

func TestFilterPassesTheIDsThatAreServedOverTheFamily(t *testing.T) {
	s := newSieve(t)
	for _, ids := range [][]uint8{{}, {1}, {255}, {9, 41, 73}, {31, 32, 63, 64, 127, 128, 224}, nil} {
		v := &served{}
		for id := range 256 {
			if ids == nil || slices.Contains(ids, uint8(id)) {
				v.ids[carp.IPv4].add(uint8(id))
			}
		}
		for _, id := range ids {
			v.ids[carp.IPv6].add(255 - id)
		}
		s.set(v)
		for id := range 256 {
			here4, here6 := ids == nil || slices.Contains(ids, uint8(id)), slices.Contains(ids, uint8(255-id))
			for options := range 3 {
				if got := s.passes(ip4(112, options, 0x21, byte(id), 0, 0)); got != here4 {
					t.Errorf("%d over IPv4 with %d words of options, %d served: passed %v", id, options, len(ids), got)
				}
			}
			if got := s.passes(ip6(true, 112, 0x31, byte(id), 0, 0)); got != here6 {
				t.Errorf("%d over IPv6, %d served: passed %v", id, len(ids), got)
			}
		}
	}
}

func TestFilterPassesGroupsAndOwnAddresses(t *testing.T) {
	s := newSieve(t)
	for _, more := range []int{0, 1, maxUnicast - 1, maxUnicast, 500} {
		v := &served{}
		v.ids[carp.IPv4].add(9)
		v.ids[carp.IPv6].add(9)
		for n := range more {
			v.unicast[carp.IPv4] = append(v.unicast[carp.IPv4], netip.AddrFrom4([4]byte{192, 0, byte(2 + n>>8), byte(n)}))
			v.unicast[carp.IPv6] = append(v.unicast[carp.IPv6], netip.AddrFrom16([16]byte{0x20, 1, 14: byte(n >> 8), 15: byte(n)}))
		}
		s.set(v)
		to := func(dst string) bool {
			a := netip.MustParseAddr(dst)
			frame := ip4(112, 0, 0x21, 9, 0, 0)
			at := offIPv4Dst
			if a.Is6() {
				frame, at = ip6(true, 112, 0x31, 9, 0, 0), offIPv6Dst
			}
			copy(frame[at:], a.AsSlice())
			return s.passes(frame)
		}
		for dst, want := range map[string]bool{
			"224.0.0.18": true, "224.0.0.1": true, "239.255.255.255": true, "ff02::12": true, "ff05::1": true,
			"192.0.2.0": more > 0, "2001::": more > 0, "192.0.2.14": more > 14, "2001::e": more > 14,
			"255.255.255.255": more > maxUnicast, "223.255.255.255": more > maxUnicast, "240.0.0.1": more > maxUnicast,
			"198.51.100.1": more > maxUnicast, "2001::1:0:0": more > maxUnicast, "fe80::1": more > maxUnicast,
		} {
			if got := to(dst); got != want {
				t.Errorf("to %s with %d own addresses: passed %v, want %v", dst, more, got, want)
			}
		}
	}
}

// Whatever the filter thinks of a frame, one that an engine would get must pass it:
// a frame lost here is lost without a word.
func TestFilterPassesAllThatAnEngineWouldGet(t *testing.T) {
	s := newSieve(t)
	random := rand.New(rand.NewPCG(1, 2))
	good := [][]byte{
		ip4(112, 0, make([]byte, 36)...), ip4(112, 3, make([]byte, 36)...), ip4(51, 0, append([]byte{112, 4}, make([]byte, 50)...)...),
		ip6(true, 112, make([]byte, 36)...), ip6(false, 112, make([]byte, 36)...), ip6(true, 51, append([]byte{112, 4}, make([]byte, 50)...)...),
		ip6(true, 0, append([]byte{112}, make([]byte, 50)...)...), ip6(true, 60, append([]byte{112}, make([]byte, 50)...)...),
	}
	const rounds, frames = 50, 400
	got := 0
	for range rounds {
		v := &served{unicast: [2][]netip.Addr{{netip.AddrFrom4([4]byte{192, 0, 2, 1})}, {netip.IPv6Unspecified()}}}
		for range random.IntN(4) {
			v.ids[random.IntN(2)].add(uint8(random.IntN(4)))
		}
		s.set(v)
		for range frames {
			frame := bytes.Clone(good[random.IntN(len(good))])
			for range random.IntN(5) {
				frame[offEtherType+random.IntN(len(frame)-offEtherType)] = []byte{0, 1, 2, 3, 9, 51, 60, 112, 224, 255}[random.IntN(10)]
			}
			mend(frame)
			var p carp.Packet
			ok := carp.DecodeFrame(frame, &p) == carp.Accepted && len(p.Payload) >= 2
			if ok {
				family := carp.FamilyOf(p.Dst)
				id := p.Payload[1]
				ok = v.ids[family][id>>5]&(1<<(id&31)) != 0 && (p.Dst.IsMulticast() || slices.Contains(v.unicast[family], p.Dst))
			}
			// Of IPv6 with headers between, only what goes to a group, as the doc says.
			if ok && frame[offEtherType] == 0x86 && frame[offIPv6Next] != 112 && frame[offIPv6Next] != 51 && frame[offIPv6Dst] != 0xff {
				ok = false
			}
			if ok {
				got++
			}
			if ok && !s.passes(frame) {
				t.Fatalf("an engine would get %x, and the filter of %+v drops it", frame, v)
			}
		}
	}
	if got < rounds*frames/20 {
		t.Errorf("only %d of %d frames were good", got, rounds*frames)
	}
}

// mend sets the checksum of an IPv4 header.
func mend(frame []byte) {
	header := int(frame[offIP]&15) * 4
	if frame[offEtherType] != 8 || header < 20 || offIP+header > len(frame) {
		return
	}
	b := frame[offIP:][:header]
	b[10], b[11] = 0, 0
	sum := uint32(0)
	for n := 0; n < header; n += 2 {
		sum += uint32(b[n])<<8 | uint32(b[n+1])
	}
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
}
