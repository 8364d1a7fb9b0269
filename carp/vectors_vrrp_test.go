package carp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// vrrpCase is one file of golden VRRP packets: what its speaker was given.
type vrrpCase struct {
	name     string
	protocol Protocol
	family   Family
	vrid     uint8
	priority uint8
	interval time.Duration
	addrs    []netip.Addr
	authType uint8
	password string
	sum      Checksum
	own      netip.Addr // valid for IPv4; IPv6 speakers chose theirs themselves
	mac      MAC
	to       netip.Addr
	leaves   bool // the last advert has priority 0
	frames   [][]byte
}

var vrrpField = regexp.MustCompile(`(?m)^([a-zA-Z' ]+): (.*)$`)

func readVRRP(t testing.TB, path string) vrrpCase {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(text), "\npackets (")
	is := map[string]string{}
	for _, m := range vrrpField.FindAllStringSubmatch(head, -1) {
		is[m[1]] = m[2]
	}
	c := vrrpCase{name: is["case"], protocol: VRRP2, leaves: strings.HasSuffix(is["case"], "-shutdown")}
	scan := func(field, format string, into ...any) {
		if _, err := fmt.Sscanf(is[field], format, into...); err != nil {
			t.Fatalf("%s: %s %q: %v", path, field, is[field], err)
		}
	}
	var version, family int
	scan("protocol", "VRRP version %d, IPv%d", &version, &family)
	if version == 3 {
		c.protocol = VRRP3
	}
	c.to = Group(IPv4)
	if family == 6 {
		c.family, c.to = IPv6, Group(IPv6)
	} else {
		c.own = netip.MustParseAddr(is["sender's own address"])
	}
	scan("vrid", "%d", &c.vrid)
	scan("priority", "%d", &c.priority)
	if c.interval, err = time.ParseDuration(strings.ReplaceAll(is["interval"], " ", "")); err != nil {
		t.Fatal(err)
	}
	for a := range strings.FieldsSeq(is["virtual addresses"]) {
		c.addrs = append(c.addrs, netip.MustParseAddr(a))
	}
	if kind, password, found := strings.Cut(is["authentication"], ", password "); found {
		c.authType, c.password = map[string]uint8{"PASS": 1, "AH": 2}[kind], strings.Trim(password, "'")
	}
	if peer, found := strings.CutPrefix(is["delivery"], "unicast to "); found {
		c.to = netip.MustParseAddr(peer)
	}
	for i, s := range strings.Split(is["sender's MAC"], ":") {
		fmt.Sscanf(s, "%02x", &c.mac[i])
	}
	if is["virtual MAC"] == "yes" {
		c.mac = VirtualMACOf(c.protocol, c.family, c.vrid)
	}
	switch {
	case strings.Contains(is["note"], "without the pseudo-header"):
		c.sum = ChecksumRFC9568
	case is["further options"] == "old_unicast_checksum":
		c.sum = ChecksumOldUnicast
	}
	for _, m := range frameLine.FindAllStringSubmatch(string(text), -1) {
		if f := frameBytes(t, m[1]); isVRRP(f) {
			c.frames = append(c.frames, f)
		}
	}
	return c
}

func isVRRP(f []byte) bool { return isAdvert(f) || f[12] == 0x08 && f[13] == 0 && f[14+9] == headerAH }

func vrrpCases(t testing.TB) []vrrpCase {
	t.Helper()
	files, err := filepath.Glob("testdata/vectors/vrrp*.txt")
	if err != nil || len(files) != 39 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	var all []vrrpCase
	for _, file := range files {
		all = append(all, readVRRP(t, file))
	}
	return all
}

// advert makes what the speaker should have sent as its i-th advert.
func (c *vrrpCase) advert(i int) VRRPAdvert {
	priority := c.priority
	if c.leaves && i == len(c.frames)-1 {
		priority = 0
	}
	a := NewVRRPAdvert(uint8(c.protocol)+1, c.vrid, priority, c.interval, c.addrs)
	a.AuthType, a.Sum = c.authType, c.sum
	if c.authType == 1 {
		copy(a.Password[:], c.password) // keepalived sends the first eight bytes of a longer one
	}
	return a
}

// With the authentication header only the advert is built again: the header and its
// HMAC-MD5 are not spoken here.
func TestEveryCapturedVRRPAdvertDecodesAndIsBuiltAgainFromItsParameters(t *testing.T) {
	total := 0
	for _, c := range vrrpCases(t) {
		t.Run(c.name, func(t *testing.T) {
			if len(c.frames) == 0 {
				t.Error("no advert in the file")
			}
			for i, f := range c.frames {
				checkVRRP(t, &c, i, f)
			}
		})
		total += len(c.frames)
	}
	if total != 176 {
		t.Errorf("%d adverts in all, want 176: some are not read", total)
	}
}

func checkVRRP(t *testing.T, c *vrrpCase, i int, f []byte) {
	t.Helper()
	var p Packet
	if d := DecodeFrame(f, &p); d != Accepted {
		t.Fatalf("advert %d: %v", i, d)
	}
	if p.AH != (c.authType == 2) || p.Dst != c.to || p.SrcMAC != c.mac || c.own.IsValid() && p.Src != c.own {
		t.Errorf("advert %d: %+v", i, p)
	}
	var a VRRPAdvert
	if d := a.Decode(p.Payload, p.Src, p.Dst); d != Accepted {
		t.Fatalf("advert %d: %v", i, d)
	}
	want := c.advert(i)
	checkSameVRRP(t, &a, &want)
	payload := want.Append(nil, p.Src, p.Dst)
	if !bytes.Equal(payload, p.Payload) {
		t.Errorf("advert %d:\n built %x\n  seen %x", i, payload, p.Payload)
	}
	if p.AH {
		return
	}
	frame := Frame{VHID: c.vrid, Dst: p.Dst, Payload: payload}
	if c.protocol == VRRP3 && c.sum == ChecksumPseudo {
		frame.Payload, frame.Pseudo = want.Append(nil, netip.Addr{}, netip.Addr{}), true
	}
	h, seen := ipHeaderOf(f)
	// AppendFrame knows the MACs of groups only; unicast is the kernel's to address.
	built := appendFrame(nil, MAC(f[:6]), p.SrcMAC, p.Src, frame, h)
	if p.Dst.IsMulticast() {
		built = AppendFrame(nil, p.SrcMAC, Local{IPv4: p.Src, IPv6: p.Src}, frame, h)
	}
	if !bytes.Equal(built, seen) {
		t.Errorf("advert %d:\n built %x\n  seen %x", i, built, seen)
	}
}

// ipHeaderOf returns the parameters of a captured frame's IP header, and the frame
// without what its kernel chose and we do not: the flow label, and the hop limit 64
// of keepalived's unicast over IPv6.
func ipHeaderOf(f []byte) (IPHeader, []byte) {
	f = bytes.Clone(f)
	if f[12] == 0x08 {
		return IPHeader{ID: binary.BigEndian.Uint16(f[18:]), TOS: f[15], Fragmentable: f[20]&0x40 == 0}, f
	}
	h := IPHeader{TOS: f[14]<<4 | f[15]>>4}
	f[15], f[16], f[17] = f[15]&0xf0, 0, 0
	if f[38] != 0xff {
		f[21] = 255
	}
	return h, f
}

func checkSameVRRP(t *testing.T, got, want *VRRPAdvert) {
	t.Helper()
	if got.Version != want.Version || got.Type != want.Type || got.VRID != want.VRID || got.Priority != want.Priority ||
		got.Interval != want.Interval || got.AuthType != want.AuthType || got.Password != want.Password || got.Sum != want.Sum ||
		got.Leaves() != (want.Priority == 0) {
		t.Errorf("decoded %+v, want %+v", got, want)
	}
	if !slices.Equal(addressesOf(got), addressesOf(want)) {
		t.Errorf("decoded %v, want %v", addressesOf(got), addressesOf(want))
	}
}

func addressesOf(a *VRRPAdvert) (all []netip.Addr) {
	for i := range a.Count() {
		all = append(all, a.Address(i))
	}
	return all
}

// The files for people and for Wireshark hold the same frames.
func TestEveryCapturedVRRPFrameIsThatOfItsPcap(t *testing.T) {
	for _, c := range vrrpCases(t) {
		b, err := os.ReadFile("testdata/vectors/" + c.name + ".pcap")
		if err != nil {
			t.Fatal(err)
		}
		var frames [][]byte
		for b = b[24:]; len(b) >= 16; {
			n := 16 + int(binary.LittleEndian.Uint32(b[8:]))
			if f := b[16:n]; isVRRP(f) {
				frames = append(frames, f)
			}
			b = b[n:]
		}
		if !slices.EqualFunc(frames, c.frames, bytes.Equal) {
			t.Errorf("%s: the files differ", c.name)
		}
	}
}

// Adverts that were written down beside their parameters, from other speakers' runs
// than those of the files.
func TestWrittenDownVRRPAdverts(t *testing.T) {
	addrs := func(s ...string) (all []netip.Addr) {
		for _, a := range s {
			all = append(all, netip.MustParseAddr(a))
		}
		return all
	}
	one, two := addrs("10.9.128.1"), addrs("10.9.128.1", "10.9.128.2")
	linkLocal := addrs("fe80::5:33", "fd00:9::51")
	src, src6, peer := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fe80::4ca3:c7ff:fe80:a56c"), netip.MustParseAddr("10.9.0.2")
	with := func(a VRRPAdvert, authType uint8, password string, sum Checksum) VRRPAdvert {
		a.AuthType, a.Sum = authType, sum
		copy(a.Password[:], password)
		return a
	}
	second, fast := time.Second, 10*time.Millisecond
	for _, v := range []struct {
		name    string
		advert  VRRPAdvert
		src, to netip.Addr
		want    string
	}{
		{"v2", NewVRRPAdvert(2, 51, 150, second, one), src, group4, "213396010001bebf0a0980010000000000000000"},
		{"v2 priority 0", NewVRRPAdvert(2, 51, 0, second, one), src, group4, "21330001000154c00a0980010000000000000000"},
		{"v2 password", with(NewVRRPAdvert(2, 51, 150, second, one), 1, "s3cret", 0), src, group4, "21339601010181a50a0980017333637265740000"},
		{"v2 AH", with(NewVRRPAdvert(2, 51, 150, second, one), 2, "", 0), src, group4, "213396010201bcbf0a0980010000000000000000"},
		{"v3 two", NewVRRPAdvert(3, 51, 150, second, two), src, group4, "31339602006439b30a0980010a098002"},
		{"v3 two, RFC 9568", with(NewVRRPAdvert(3, 51, 150, second, two), 0, "", ChecksumRFC9568), src, group4, "31339602006424500a0980010a098002"},
		{"v3 unicast", NewVRRPAdvert(3, 51, 150, second, one), src, peer, "31339601006499cb0a098001"},
		{"v3 unicast, RFC 9568", with(NewVRRPAdvert(3, 51, 150, second, one), 0, "", ChecksumRFC9568), src, peer, "313396010064ae5c0a098001"},
		{"v3 multicast", NewVRRPAdvert(3, 51, 150, second, one), src, group4, "313396010064c3c30a098001"},
		{"v3 IPv6", NewVRRPAdvert(3, 51, 150, second, linkLocal), src6, group6, "3133960200648593fe800000000000000000000000050033fd000009000000000000000000000051"},
		{"v3 FRR", NewVRRPAdvert(3, 1, 200, fast, one), src, group4, "3101c801000192580a098001"},
	} {
		t.Run(v.name, func(t *testing.T) {
			want := frameBytes(t, v.want)
			if got := v.advert.Append(nil, v.src, v.to); !bytes.Equal(got, want) {
				t.Errorf("\n got %x\nwant %x", got, want)
			}
			var a VRRPAdvert
			if d := a.Decode(want, v.src, v.to); d != Accepted {
				t.Fatal(d)
			}
			checkSameVRRP(t, &a, &v.advert)
		})
	}
}
