package carp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// capture is one file of golden packets.
type capture struct {
	name   string
	key    []byte
	addrs  []netip.Addr
	frames [][]byte
	text   string
}

var (
	lineBSD   = regexp.MustCompile(`(?m)^(password|IPv4 VIPs|IPv6 VIPs)\s*: ([^\n]*)$`)
	lineUcarp = regexp.MustCompile(`(?m)^password: '.*' \(\d+ bytes: ([0-9a-f]*)\)$`)
	addrUcarp = regexp.MustCompile(`(?m)^virtual address: (\S+)$`)
	frameLine = regexp.MustCompile(`(?m)^ *\d+ (?:[\d.]+ )?([0-9a-f]{60,})$`)
)

func readCapture(t *testing.T, path string) capture {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := capture{name: strings.TrimSuffix(filepath.Base(path), ".txt"), text: string(b)}
	for _, m := range lineBSD.FindAllStringSubmatch(c.text, -1) {
		value, _, _ := strings.Cut(m[2], "  (")
		switch {
		case m[1] == "password" && !strings.HasPrefix(value, "(none"):
			c.key = []byte(value)
		case m[1] != "password" && value != "none":
			for a := range strings.SplitSeq(value, ", ") {
				c.addrs = append(c.addrs, netip.MustParseAddr(a))
			}
		}
	}
	if m := lineUcarp.FindStringSubmatch(c.text); m != nil {
		c.key, _ = hex.DecodeString(m[1])
		c.addrs = []netip.Addr{netip.MustParseAddr(addrUcarp.FindStringSubmatch(c.text)[1])}
	}
	for _, m := range frameLine.FindAllStringSubmatch(c.text, -1) {
		f, err := hex.DecodeString(m[1])
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		c.frames = append(c.frames, f)
	}
	return c
}

// isAdvert reports whether a frame carries IP protocol 112.
func isAdvert(f []byte) bool {
	switch binary.BigEndian.Uint16(f[12:]) {
	case 0x0800:
		return f[14+9] == IPProtocol
	case 0x86dd:
		return f[14+6] == IPProtocol
	}
	return false
}

func TestEveryCapturedAdvertDecodesVerifiesAndIsBuiltAgainToTheSameBytes(t *testing.T) {
	files, err := filepath.Glob("testdata/vectors/[bc]*.txt") // bsd-*, carp-*
	if err != nil || len(files) < 60 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	total := 0
	for _, file := range files {
		c := readCapture(t, file)
		if strings.Contains(c.name, "oracle") {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			n := 0
			for i, f := range c.frames {
				if isAdvert(f) {
					checkCaptured(t, c, i, f)
					n++
				}
			}
			if n == 0 && !strings.Contains(c.name, "reply") {
				t.Error("no advert in the file")
			}
			total += n
		})
	}
	if total < 250 {
		t.Errorf("%d adverts in all: some are not read", total)
	}
	t.Logf("%d adverts of %d files", total, len(files))
}

func checkCaptured(t *testing.T, c capture, i int, f []byte) {
	t.Helper()
	var p Packet
	if d := DecodeFrame(f, &p); d != Accepted {
		t.Fatalf("frame %d: %v", i, d)
	}
	var a Advert
	if d := a.Decode(p.Payload, p.Src, p.Dst); d != Accepted {
		t.Fatalf("frame %d: %v", i, d)
	}
	addrs := c.addrs
	if c.name == "bsd-netbsd-demotion" && a.VHID == 21 {
		addrs = nil // the group on the second link has no address
	}
	digest := NewDigest(a.VHID, c.key, addrs, DigestOptions{})
	if !digest.Verify(&a) {
		t.Fatalf("frame %d: HMAC does not verify", i)
	}
	again := NewAdvert(a.VHID, a.AdvBase, a.AdvSkew)
	again.Counter = a.Counter
	again.Digest = digest.Sum(a.Counter)
	payload := again.Append(nil)
	if !bytes.Equal(payload, p.Payload[:HeaderLen]) {
		t.Errorf("frame %d:\n built %x\n  seen %x", i, payload, p.Payload)
	}
	local := Local{}
	id, tos := uint16(0), f[15]
	if FamilyOf(p.Src) == IPv4 {
		local.IPv4, id = p.Src, binary.BigEndian.Uint16(f[18:])
	} else {
		local.IPv6, tos = p.Src, f[14]<<4|f[15]>>4
	}
	if f[0] == 0xff {
		return // ucarp's broadcast option, which we do not speak
	}
	frame := AppendFrame(nil, p.SrcMAC, local, Frame{VHID: a.VHID, Dst: p.Dst, Payload: payload}, IPHeader{ID: id, TOS: tos})
	if !bytes.Equal(frame, f) {
		t.Errorf("frame %d:\n built %x\n  seen %x", i, frame, f)
	}
}

var oracleRow = regexp.MustCompile(`(?m)^ *(\d+)  (\S.*?) {2,}(?:[NF] )?(accepted|dropped) *(?:\((\w+)\+1\))?.*$`)

// The drop that stands for each counter of the kernels.
var oracleDrops = map[string]Drop{
	"badttl": DropTTL, "badver": DropVersion, "badsum": DropChecksum,
	"badauth": DropHash, "badvhid": DropVHID, "badlen": DropLength,
}

func TestBSDOracleAcceptsAndDropsAsTheKernelsDo(t *testing.T) {
	for _, test := range []struct {
		file string
		addr string
		rows int
	}{
		{"bsd-oracle-input-v4.txt", "10.0.0.100", 37},
		{"bsd-oracle-input-v6.txt", "2001:db8::100", 17},
	} {
		c := readCapture(t, "testdata/vectors/"+test.file)
		rows := oracleRow.FindAllStringSubmatch(c.text, -1)
		if len(rows) != test.rows || len(c.frames) != test.rows {
			t.Fatalf("%s: %d rows and %d frames, want %d", test.file, len(rows), len(c.frames), test.rows)
		}
		for i, row := range rows {
			t.Run(fmt.Sprintf("%s/%s %s", test.addr, row[1], row[2]), func(t *testing.T) {
				checkOracle(t, test.addr, c.frames[i], row[3] == "accepted", row[4])
			})
		}
	}
}

// checkOracle feeds one packet to a master with advbase 1, advskew 100: what is
// accepted makes it BACKUP.
func checkOracle(t *testing.T, addr string, frame []byte, accepted bool, counter string) {
	t.Helper()
	e, now := bsdMaster(t, addr, false)
	var p Packet
	drop := DecodeFrame(frame, &p)
	if drop == Accepted {
		drop = e.Receive(now, p).Drop
	}
	if got := e.state == Backup; got != accepted {
		t.Errorf("state %v and drop %v, but the kernels accept: %v", e.state, drop, accepted)
	}
	switch want, known := oracleDrops[counter]; {
	case accepted && drop != Accepted, !accepted && drop == Accepted:
		t.Errorf("drop %v", drop)
	case drop == DropFamily && (counter == "badvhid" || counter == ""): // an address of the other family only
	case known && drop != want:
		t.Errorf("drop %v, the kernels count %s", drop, counter)
	}
}

func bsdMaster(t *testing.T, addr string, preempt bool) (*Engine, Instant) {
	t.Helper()
	e, now := bsdBackup(t, addr, preempt)
	now = now.Add(4e9)
	e.Tick(now)
	if e.state != Master {
		t.Fatalf("state %v", e.state)
	}
	return e, now
}

func bsdBackup(t *testing.T, addr string, preempt bool) (*Engine, Instant) {
	t.Helper()
	e, err := NewEngine(Config{
		VHID: 7, AdvBase: 1, AdvSkew: 100, Passphrase: []byte("testpass"), Preempt: preempt,
		Addresses: []netip.Addr{netip.MustParseAddr(addr)}, Compat: CompatBSD, Rand: func() uint64 { return 42 },
	})
	if err != nil {
		t.Fatal(err)
	}
	now := Instant(1e9)
	e.LinkUp(now, Local{IPv4: netip.MustParseAddr("10.0.0.11"), IPv6: netip.MustParseAddr("fe80::21")})
	return e, now
}

var decisionRow = regexp.MustCompile(`(?m)^(\d+)/(\d+)( bad HMAC)?(?: \(.*?\))?\s+(restart|takeover|ignored)\s+(restart|takeover|ignored)\s+(yield|stay)$`)

func TestBSDOracleDecidesByIntervalAsTheKernelsDo(t *testing.T) {
	c := readCapture(t, "testdata/vectors/bsd-oracle-input-v4.txt")
	rows := decisionRow.FindAllStringSubmatch(c.text, -1)
	if len(rows) != 16 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		var base, skew int
		fmt.Sscan(row[1], &base)
		fmt.Sscan(row[2], &skew)
		for i, preempt := range []bool{false, true} {
			if got := asBSDBackup(t, preempt, base, skew, row[3] != ""); got != row[4+i] {
				t.Errorf("%s: BACKUP with preempt %v: %s, the kernels %s", row[0], preempt, got, row[4+i])
			}
		}
		e, now := bsdMaster(t, "10.0.0.100", false)
		e.Receive(now, oracleAdvert(base, skew, row[3] != ""))
		got := "stay"
		if e.state == Backup {
			got = "yield"
		}
		if got != row[6] {
			t.Errorf("%s: MASTER: %s, the kernels %s", row[0], got, row[6])
		}
	}
}

func asBSDBackup(t *testing.T, preempt bool, base, skew int, bad bool) string {
	t.Helper()
	e, now := bsdBackup(t, "10.0.0.100", preempt)
	before := e.timers[timerDown]
	now = now.Add(1e9)
	e.Receive(now, oracleAdvert(base, skew, bad))
	switch {
	case e.state == Master:
		return "takeover"
	case e.timers[timerDown] != before:
		return "restart"
	}
	return "ignored"
}

func oracleAdvert(base, skew int, bad bool) Packet {
	a := NewAdvert(7, uint8(base), uint8(skew))
	a.Counter = 0x1122334455667788
	key := "testpass"
	if bad {
		key = "another"
	}
	a.Digest = NewDigest(7, []byte(key), []netip.Addr{netip.MustParseAddr("10.0.0.100")}, DigestOptions{}).Sum(a.Counter)
	return Packet{
		Src: netip.MustParseAddr("10.0.0.66"), Dst: Group(IPv4), TTL: 255, Broadcast: true, Payload: a.Append(nil),
	}
}

func TestPublishedVectors(t *testing.T) {
	const counter = 0x0123456789abcdef
	v4 := func(s ...string) (out []netip.Addr) {
		for _, a := range s {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	key := "mekmitasdigoat"
	mixed := v4("192.0.2.1", "2001:db8::1", "fe80::1")
	for _, v := range []struct {
		name             string
		vhid, base, skew uint8
		demote           uint8
		key              string
		addrs            []netip.Addr
		opt              DigestOptions
		header           string
	}{
		{"V1", 1, 1, 100, 0, key, v4("192.168.1.1"), DigestOptions{}, "21016407000150ea0123456789abcdef6dde1abd2d604dbb93a53897d7275ee19c3fe9a9"},
		{"V2", 7, 1, 0, 0, key, v4("10.0.0.10", "10.0.0.9", "9.255.255.255"), DigestOptions{}, "21070007000175810123456789abcdefede5a9a118f5c72874365dd1f2af6557459fe3f5"},
		{"V3", 1, 1, 0, 0, key, v4("2001:db8::1"), DigestOptions{}, "21010007000171770123456789abcdefb335c1d7f0646c1503cc05f9d461e7a11c5e1bab"},
		{"V4a", 3, 1, 50, 0, key, mixed, DigestOptions{}, "21033207000190720123456789abcdefd4fbd11ad33696a82b43613719f1494a5a202490"},
		{"V4b", 3, 1, 50, 0, key, mixed, DigestOptions{SkipLinkLocal: true}, "21033207000159310123456789abcdeff8898bcc62ebd57b366f630a750a43609e960865"},
		{"V5", 1, 1, 100, 32, key, v4("192.168.1.1"), DigestOptions{}, "21016407200130ea0123456789abcdef6dde1abd2d604dbb93a53897d7275ee19c3fe9a9"},
		{"V6", 1, 255, 255, 0, key, v4("192.168.1.1"), DigestOptions{}, "2101ff0700ffb4eb0123456789abcdef6dde1abd2d604dbb93a53897d7275ee19c3fe9a9"},
		{"V7", 1, 1, 100, 0, key, v4("192.168.1.1"), DigestOptions{LinkAddress: &MAC{2, 0, 0, 0, 0, 0x99}}, "2101640700011d4e0123456789abcdefd9a5307ee45647442b46bdde4b9f21c0c2b77087"},
		{"V8", 1, 1, 0, 0, "", v4("192.168.1.1"), DigestOptions{}, "21010007000167310123456789abcdefb40738b26d13ee0b4a6cc5ca5c3a38429d3b4fd7"},
		{"V9", 1, 1, 0, 0, "abcdefghijklmnopqrs", v4("192.168.1.1"), DigestOptions{}, "210100070001098d0123456789abcdefda13fa01f6a499b9fe2e4218b3f60ce440ef90be"},
		{"V11", 1, 1, effectiveSkew(250, 0), 0, key, v4("192.168.1.1"), DigestOptions{}, "2101f0070001c4e90123456789abcdef6dde1abd2d604dbb93a53897d7275ee19c3fe9a9"},
	} {
		a := NewAdvert(v.vhid, v.base, v.skew)
		a.Demote, a.Counter = v.demote, counter
		a.Digest = NewDigest(v.vhid, []byte(v.key), v.addrs, v.opt).Sum(counter)
		if got := hex.EncodeToString(a.Append(nil)); got != v.header {
			t.Errorf("%s:\n got %s\nwant %s", v.name, got, v.header)
		}
	}
	// V10: NetBSD sums an IPv6 pseudo-header. It is accepted where the addresses
	// are known, and not by CompatBSD, which gives none.
	v10, _ := hex.DecodeString("210100070001734b0123456789abcdefb335c1d7f0646c1503cc05f9d461e7a11c5e1bab")
	var a Advert
	if d := a.Decode(v10, netip.MustParseAddr("fe80::2"), Group(IPv6)); d != Accepted {
		t.Errorf("V10: %v", d)
	}
	if d := a.Decode(v10, netip.Addr{}, netip.Addr{}); d != DropChecksum {
		t.Errorf("V10 without addresses: %v", d)
	}
}
