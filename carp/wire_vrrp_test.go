package carp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var (
	vrrpSrc4, vrrpPeer4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	vrrpSrc6, vrrpPeer6 = netip.MustParseAddr("fe80::1"), netip.MustParseAddr("2001:db8::2")
)

// sequence returns n addresses that follow first.
func sequence(first string, n int) []netip.Addr {
	all := make([]netip.Addr, 0, n)
	for a := netip.MustParseAddr(first); len(all) < n; a = a.Next() {
		all = append(all, a)
	}
	return all
}

// goldenPDUs are the different captured adverts, with their addresses.
func goldenPDUs(t testing.TB) map[string]Packet {
	all := map[string]Packet{}
	for _, c := range vrrpCases(t) {
		for _, f := range c.frames {
			var p Packet
			if DecodeFrame(f, &p) != Accepted {
				t.Fatal(c.name)
			}
			all[fmt.Sprintf("%s %v %x", p.Dst, p.AH, p.Payload)] = p
		}
	}
	if len(all) < 20 {
		t.Fatalf("%d different adverts", len(all))
	}
	return all
}

func TestNoPartOfAVRRPFrameIsAnAdvert(t *testing.T) {
	for _, c := range vrrpCases(t) {
		f := c.frames[0]
		for n := range len(f) {
			var p Packet
			if d := DecodeFrame(f[:n], &p); d != DropFrame {
				t.Errorf("%s cut to %d of %d bytes: %v", c.name, n, len(f), d)
			}
		}
	}
	for name, p := range goldenPDUs(t) {
		for n := range len(p.Payload) {
			var a VRRPAdvert
			if d := a.Decode(p.Payload[:n], p.Src, p.Dst); d != DropLength {
				t.Errorf("%s cut to %d bytes: %v", name, n, d)
			}
		}
	}
}

func TestWhatFollowsAVRRPAdvertWithinTheIPLengthIsRefused(t *testing.T) {
	for name, p := range goldenPDUs(t) {
		for _, n := range []int{1, 2, 4, 8, 16, 28, 46} { // 28: keepalived's HMAC
			var a VRRPAdvert
			if d := a.Decode(append(bytes.Clone(p.Payload), make([]byte, n)...), p.Src, p.Dst); d != DropLength {
				t.Errorf("%s and %d bytes: %v", name, n, d)
			}
		}
	}
}

func TestPaddingBehindAVRRPFrameIsCutOff(t *testing.T) {
	for _, c := range vrrpCases(t) {
		f := append(bytes.Clone(c.frames[0]), make([]byte, 18)...)
		var p Packet
		var a VRRPAdvert
		if d := DecodeFrame(f, &p); d != Accepted {
			t.Errorf("%s: %v", c.name, d)
		} else if d := a.Decode(p.Payload, p.Src, p.Dst); d != Accepted {
			t.Errorf("%s: %v", c.name, d)
		}
	}
}

func TestEveryFlippedBitOfAVRRPAdvertIsNoticed(t *testing.T) {
	for name, p := range goldenPDUs(t) {
		for bit := range 8 * len(p.Payload) {
			b := bytes.Clone(p.Payload)
			b[bit/8] ^= 0x80 >> (bit % 8)
			want := DropChecksum
			switch {
			case bit < 4: // version: no other is spoken, or of another length
				want = DropVersion
				if v := b[0] >> 4; v == 3 || v == 2 && p.Src.Is4() {
					want = DropLength
				}
			case bit/8 == 3:
				want = DropLength
			}
			var a VRRPAdvert
			if d := a.Decode(b, p.Src, p.Dst); d != want {
				t.Errorf("%s, bit %d: %v, want %v", name, bit, d, want)
			}
		}
	}
}

// mendVRRP sets the checksum of an advert, with a pseudo-header where the version has one.
func mendVRRP(b []byte, src, to netip.Addr) []byte {
	if b[0]>>4 == 2 {
		putVRRPSum(b, 0)
	} else {
		putVRRPSum(b, vrrpPseudoSum(src, to, len(b)))
	}
	return b
}

func TestEachVRRPFieldAloneIsJudgedOrLeftToTheEngine(t *testing.T) {
	vips, vips6 := sequence("192.0.2.100", 2), sequence("fe80::100", 2)
	for _, base := range []struct {
		name    string
		advert  VRRPAdvert
		src, to netip.Addr
	}{
		{"v2", NewVRRPAdvert(2, 51, 200, time.Second, vips), vrrpSrc4, group4},
		{"v3", NewVRRPAdvert(3, 51, 200, time.Second, vips), vrrpSrc4, group4},
		{"v3 IPv6", NewVRRPAdvert(3, 51, 200, time.Second, vips6), vrrpSrc6, group6},
	} {
		for _, tt := range []struct {
			name string
			at   int
			byte byte
			only string // of this base alone
			want Drop
		}{
			{"version 0", 0, 0x01, "", DropVersion},
			{"version 1", 0, 0x11, "", DropVersion},
			{"version 2 of version 3's length", 0, 0x21, "v3", DropLength},
			{"version 2 over IPv6", 0, 0x21, "v3 IPv6", DropVersion},
			{"version 3 of version 2's length", 0, 0x31, "v2", DropLength},
			{"version 4", 0, 0x41, "", DropVersion},
			{"version 15", 0, 0xf1, "", DropVersion},
			{"type 0", 0, 0x20, "v2", DropVersion},
			{"type 2", 0, 0x22, "v2", DropVersion},
			{"type 0", 0, 0x30, "v3", DropVersion},
			{"type 15", 0, 0x3f, "v3 IPv6", DropVersion},
			{"vrid 0", 1, 0, "", Accepted},
			{"priority 0", 2, 0, "", Accepted},
			{"priority 255", 2, 255, "", Accepted},
			{"count 0", 3, 0, "", DropLength},
			{"count 1", 3, 1, "", DropLength},
			{"count 3", 3, 3, "", DropLength},
			{"count 255", 3, 255, "", DropLength},
			{"authentication 255", 4, 255, "v2", Accepted},
			{"interval 0", 5, 0, "", Accepted},
			{"reserved bits", 4, 0xf0, "v3", Accepted},
			{"reserved bits", 4, 0xf0, "v3 IPv6", Accepted},
		} {
			if tt.only != "" && tt.only != base.name {
				continue
			}
			b := base.advert.Append(nil, base.src, base.to)
			b[tt.at] = tt.byte
			var a VRRPAdvert
			if d := a.Decode(mendVRRP(b, base.src, base.to), base.src, base.to); d != tt.want {
				t.Errorf("%s, %s: %v, want %v", base.name, tt.name, d, tt.want)
			}
			if tt.name == "reserved bits" && a.Interval != time.Second {
				t.Errorf("%s: reserved bits make the interval %v", base.name, a.Interval)
			}
		}
	}
}

func TestVRRPAddressesOfTheIPHeaderBelongToTheChecksumOfVersion3(t *testing.T) {
	vips, vips6 := sequence("192.0.2.100", 1), sequence("fe80::100", 1)
	v2, v3, v6 := NewVRRPAdvert(2, 1, 100, time.Second, vips), NewVRRPAdvert(3, 1, 100, time.Second, vips), NewVRRPAdvert(3, 1, 100, time.Second, vips6)
	plain, old := v3, v3
	plain.Sum, old.Sum = ChecksumRFC9568, ChecksumOldUnicast
	plain6 := v6.Append(nil, vrrpSrc6, group6)
	putVRRPSum(plain6, 0)
	for _, tt := range []struct {
		name    string
		b       []byte
		src, to netip.Addr
		want    Drop
		sum     Checksum
	}{
		{"v2 from another", v2.Append(nil, vrrpSrc4, group4), vrrpPeer4, group4, Accepted, ChecksumPseudo},
		{"v3", v3.Append(nil, vrrpSrc4, group4), vrrpSrc4, group4, Accepted, ChecksumPseudo},
		{"v3 unicast", v3.Append(nil, vrrpSrc4, vrrpPeer4), vrrpSrc4, vrrpPeer4, Accepted, ChecksumPseudo},
		{"v3, the addresses changed places", v3.Append(nil, vrrpSrc4, vrrpPeer4), vrrpPeer4, vrrpSrc4, Accepted, ChecksumPseudo},
		{"v3 from another", v3.Append(nil, vrrpSrc4, group4), vrrpPeer4, group4, DropChecksum, 0},
		{"v3 for another", v3.Append(nil, vrrpSrc4, vrrpPeer4), vrrpSrc4, group4, DropChecksum, 0},
		{"v3 without pseudo-header", plain.Append(nil, vrrpSrc4, group4), vrrpPeer4, vrrpSrc4, Accepted, ChecksumRFC9568},
		{"v3 of the group to a peer", old.Append(nil, vrrpSrc4, vrrpPeer4), vrrpSrc4, vrrpPeer4, Accepted, ChecksumOldUnicast},
		{"v3 of the group to another group", old.Append(nil, vrrpSrc4, group4), vrrpSrc4, netip.MustParseAddr("224.0.0.19"), DropChecksum, 0},
		{"v3 IPv6", v6.Append(nil, vrrpSrc6, group6), vrrpSrc6, group6, Accepted, ChecksumPseudo},
		{"v3 IPv6 without pseudo-header", plain6, vrrpSrc6, group6, DropChecksum, 0},
		{"v3 IPv6 of the group to a peer", v6.Append(nil, vrrpSrc6, group6), vrrpSrc6, vrrpPeer6, DropChecksum, 0},
	} {
		var a VRRPAdvert
		if d := a.Decode(tt.b, tt.src, tt.to); d != tt.want || d == Accepted && a.Sum != tt.sum {
			t.Errorf("%s: %v and %v, want %v and %v", tt.name, d, a.Sum, tt.want, tt.sum)
		}
	}
}

func TestVRRPAdvertsOfEveryCountAndIntervalComeBack(t *testing.T) {
	type row struct {
		version  uint8
		addrs    []netip.Addr
		interval time.Duration
		length   int
	}
	rows := []row{
		{2, nil, time.Second, 16}, {3, nil, time.Second, 8},
		{2, sequence("10.0.0.1", 255), time.Second, 1036}, {3, sequence("10.0.0.1", 255), time.Second, 1028},
		{3, sequence("2001:db8::1", MaxAdvertIPv6), time.Second, 1448}, {3, sequence("2001:db8::1", 255), time.Second, 4088},
	}
	for _, cs := range []time.Duration{0, 1, 255, 256, 4095} {
		rows = append(rows, row{3, sequence("10.0.0.1", 1), cs * 10 * time.Millisecond, 12})
	}
	for _, s := range []time.Duration{0, 1, 255} {
		rows = append(rows, row{2, sequence("10.0.0.1", 1), s * time.Second, 20})
	}
	for _, r := range rows {
		src, to := vrrpSrc4, group4
		if len(r.addrs) > 0 && r.addrs[0].Is6() {
			src, to = vrrpSrc6, group6
		}
		want := NewVRRPAdvert(r.version, 7, 100, r.interval, r.addrs)
		b := want.Append([]byte("kept"), src, to)
		if len(b) != 4+r.length || string(b[:4]) != "kept" || int(b[4+3]) != len(r.addrs) {
			t.Fatalf("version %d, %d addresses: %d bytes", r.version, len(r.addrs), len(b))
		}
		var a VRRPAdvert
		if d := a.Decode(b[4:], src, to); d != Accepted {
			t.Fatalf("version %d, %d addresses, %v: %v", r.version, len(r.addrs), r.interval, d)
		}
		checkSameVRRP(t, &a, &want)
		if again := a.Append(nil, src, to); !bytes.Equal(again, b[4:]) {
			t.Errorf("version %d, %d addresses, %v:\n%x became\n%x", r.version, len(r.addrs), r.interval, b[4:], again)
		}
	}
}

func TestNinetyIPv6AddressesAreAsManyAsFitAnEthernetFrame(t *testing.T) {
	for n, fits := range map[int]bool{MaxAdvertIPv6: true, MaxAdvertIPv6 + 1: false} {
		a := NewVRRPAdvert(3, 1, 100, time.Second, sequence("2001:db8::1", n))
		f := AppendFrame(nil, MAC{2}, Local{IPv6: vrrpSrc6}, Frame{Dst: group6, Pseudo: true, Payload: a.Append(nil, netip.Addr{}, netip.Addr{})}, IPHeader{})
		if got := len(f)-etherLen <= 1500; got != fits {
			t.Errorf("%d addresses make an IP packet of %d bytes", n, len(f)-etherLen)
		}
	}
}

func TestOverIPv6ThereIsOneChecksum(t *testing.T) {
	a := NewVRRPAdvert(3, 1, 100, time.Second, sequence("fe80::100", 1))
	want := a.Append(nil, vrrpSrc6, vrrpPeer6)
	for _, a.Sum = range []Checksum{ChecksumRFC9568, ChecksumOldUnicast} {
		if got := a.Append(nil, vrrpSrc6, vrrpPeer6); !bytes.Equal(got, want) {
			t.Errorf("%v: %x, want %x", a.Sum, got, want)
		}
	}
}

func TestAVRRPAdvertKeepsNeitherZoneNorTheCallersSlice(t *testing.T) {
	given := []netip.Addr{netip.MustParseAddr("fe80::100%eth0"), netip.MustParseAddr("2001:db8::1")}
	a := NewVRRPAdvert(3, 1, 100, time.Second, given)
	given[0] = netip.Addr{}
	if got := addressesOf(&a); len(got) != 2 || got[0] != netip.MustParseAddr("fe80::100") {
		t.Errorf("%v", got)
	}
	a = NewVRRPAdvert(2, 1, 100, time.Second, []netip.Addr{netip.MustParseAddr("::ffff:10.0.0.1")})
	if a.Count() != 1 || a.Address(0) != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("%v", addressesOf(&a))
	}
	if (&VRRPAdvert{}).Count() != 0 {
		t.Error("the zero advert has addresses")
	}
}

func TestAFrameIsFinishedForItsSenderAndLeavesThePayloadAlone(t *testing.T) {
	a := NewVRRPAdvert(3, 51, 200, time.Second, sequence("192.0.2.100", 1))
	payload := a.Append(nil, netip.Addr{}, netip.Addr{})
	shared := bytes.Clone(payload)
	for _, src := range []netip.Addr{vrrpSrc4, vrrpPeer4, {}} {
		f := AppendFrame(nil, MAC{2}, Local{IPv4: src}, Frame{Dst: group4, Payload: payload, Pseudo: true}, IPHeader{TOS: 0xc0})
		var p Packet
		var got VRRPAdvert
		if d := DecodeFrame(f, &p); d != Accepted {
			t.Fatal(d)
		}
		if d := got.Decode(p.Payload, p.Src, p.Dst); d != Accepted || got.Sum != ChecksumPseudo {
			t.Errorf("from %v: %v, %v", src, d, got.Sum)
		}
		if !bytes.Equal(payload, shared) {
			t.Fatalf("from %v: the shared payload became %x", src, payload)
		}
	}
	f := Frame{Dst: vrrpPeer4, Payload: bytes.Clone(payload)}
	if f.Finish(vrrpSrc4); !bytes.Equal(f.Payload, payload) {
		t.Error("a payload whose checksum knows no addresses was changed")
	}
}

func TestVRRPCostsNoAllocation(t *testing.T) {
	for name, p := range goldenPDUs(t) {
		buf := make([]byte, 0, len(p.Payload))
		var a VRRPAdvert
		n := testing.AllocsPerRun(20, func() {
			if a.Decode(p.Payload, p.Src, p.Dst) != Accepted {
				t.Fatal("refused")
			}
			for i := range a.Count() {
				if !a.Address(i).IsValid() {
					t.Fatal("no address")
				}
			}
			buf = a.Append(buf[:0], p.Src, p.Dst)
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// FuzzVRRPAdvert looks for panics, for addresses outside the packet, and for adverts
// that do not become the same bytes again. Reserved bits are not kept, and a checksum
// of ffff is written as 0, which counts the same.
func FuzzVRRPAdvert(f *testing.F) {
	for _, p := range goldenPDUs(f) {
		f.Add(p.Payload, p.Src.Is6(), !p.Dst.IsMulticast())
	}
	f.Add(emptyVRRP(2), false, false)
	f.Add(emptyVRRP(3), false, false)
	f.Fuzz(func(t *testing.T, b []byte, v6, unicast bool) {
		src, to, peer := vrrpSrc4, group4, vrrpPeer4
		if v6 {
			src, to, peer = vrrpSrc6, group6, vrrpPeer6
		}
		if unicast {
			to = peer
		}
		if len(b) >= vrrpHeaderLen && b[6] == 0 && b[7] == 0 {
			b = mendVRRP(bytes.Clone(b), src, to) // lets the fuzzer get behind the checksum
		}
		var a VRRPAdvert
		if a.Decode(b, src, to) != Accepted {
			return
		}
		if a.Count() != int(b[3]) || a.Count() > 0 && a.Address(a.Count()-1).Is6() != v6 {
			t.Fatalf("%d addresses of %x", a.Count(), b)
		}
		if a.Version == 3 && b[4]&0xf0 != 0 || binary.BigEndian.Uint16(b[6:]) == 0xffff {
			return
		}
		if again := a.Append(nil, src, to); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x (%+v)", b, again, a)
		}
	})
}

// emptyVRRP is an advert of the version without addresses.
func emptyVRRP(version uint8) []byte {
	a := NewVRRPAdvert(version, 1, 100, time.Second, nil)
	return a.Append(nil, vrrpSrc4, group4)
}

func BenchmarkVRRPDecode(b *testing.B) {
	for _, bb := range benchVRRP() {
		b.Run(bb.name, func(b *testing.B) {
			payload := bb.advert.Append(nil, bb.src, bb.to)
			var a VRRPAdvert
			b.ReportAllocs()
			for b.Loop() {
				if a.Decode(payload, bb.src, bb.to) != Accepted {
					b.Fatal("refused")
				}
			}
		})
	}
}

func BenchmarkVRRPAppend(b *testing.B) {
	for _, bb := range benchVRRP() {
		b.Run(bb.name, func(b *testing.B) {
			buf := make([]byte, 0, 2048)
			b.ReportAllocs()
			for b.Loop() {
				buf = bb.advert.Append(buf[:0], bb.src, bb.to)
			}
		})
	}
}

type vrrpBench struct {
	name    string
	advert  VRRPAdvert
	src, to netip.Addr
}

func benchVRRP() []vrrpBench {
	plain := NewVRRPAdvert(3, 51, 200, time.Second, sequence("192.0.2.100", 1))
	plain.Sum = ChecksumRFC9568
	return []vrrpBench{
		{"v2", NewVRRPAdvert(2, 51, 200, time.Second, sequence("192.0.2.100", 1)), vrrpSrc4, group4},
		{"v3", NewVRRPAdvert(3, 51, 200, time.Second, sequence("192.0.2.100", 1)), vrrpSrc4, group4},
		{"v3 RFC 9568", plain, vrrpSrc4, group4},
		{"v3 IPv6", NewVRRPAdvert(3, 51, 200, time.Second, sequence("fe80::100", 2)), vrrpSrc6, group6},
		{"v3 255 addresses", NewVRRPAdvert(3, 51, 200, time.Second, sequence("192.0.2.100", 255)), vrrpSrc4, group4},
	}
}
