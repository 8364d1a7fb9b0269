package decode_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/decode"
)

var frameLine = regexp.MustCompile(`(?m)^ *\d+ (?:[\d.]+ )?([0-9a-f]{60,})$`)

// frames returns the frames of the files, by name of the file.
func frames(t testing.TB, pattern string) map[string][][]byte {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	all := map[string][][]byte{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		for _, m := range frameLine.FindAllSubmatch(text, -1) {
			f, err := hex.DecodeString(string(m[1]))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			all[name] = append(all[name], f)
		}
	}
	return all
}

// The captured packets are package carp's: one case a file.
const (
	vectors      = "../../carp/testdata/vectors/"
	carpVectors  = vectors + "*.txt" // all: those of VRRP are no CARP
	vrrp2Vectors = vectors + "vrrp2-*.txt"
	vrrp3Vectors = vectors + "vrrp3-*.txt"
)

// said reads what the file of a case says of its adverts, by the number of the frame.
func said(t *testing.T, name string, line *regexp.Regexp) map[int]string {
	t.Helper()
	text, err := os.ReadFile(vectors + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	all := map[int]string{}
	for _, m := range line.FindAllStringSubmatch(string(text), -1) {
		var n int
		fmt.Sscan(m[1], &n)
		all[n] = m[2]
	}
	return all
}

// opinion is what a decoder makes of a frame.
type opinion struct {
	src, dst         netip.Addr
	ttl              uint8
	mac              [6]byte
	payload          string
	sum              bool // the checksum is right
	version, kind    uint8
	vhid, skew, base uint8
	authlen, pad     uint8
	checksum         uint16
	counter          uint64
	digest           [20]byte
	layer3, ok       bool // how far it got
}

// first is package carp's.
func first(frame []byte) (o opinion) {
	var p carp.Packet
	if carp.DecodeFrame(frame, &p) != carp.Accepted {
		return o
	}
	o.layer3 = true
	o.src, o.dst, o.ttl, o.mac, o.payload = p.Src, p.Dst, p.TTL, p.SrcMAC, string(p.Payload)
	var a carp.Advert
	drop := a.Decode(p.Payload, p.Src, p.Dst)
	if drop == carp.DropLength {
		return o
	}
	o.ok = true
	if drop == carp.DropChecksum {
		return o // it says no more then
	}
	o.sum = true
	o.version, o.kind, o.vhid, o.skew, o.base, o.authlen, o.pad = a.Version, a.Type, a.VHID, a.AdvSkew, a.AdvBase, a.AuthLen, a.Demote
	o.checksum, o.counter, o.digest = a.Checksum, a.Counter, a.Digest
	return o
}

// second is package decode's.
func second(frame []byte) (o opinion) {
	p := decode.Packet(frame, decode.CARPv2)
	eth, ok := p.LinkLayer().(*layers.Ethernet)
	if !ok {
		return o
	}
	advert, ok := p.Layer(decode.LayerTypeCARP).(*decode.CARP)
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		body := ip.Payload
		if ah, is := p.Layer(decode.LayerTypeAH).(*decode.AH); is && ip.Protocol == layers.IPProtocolAH {
			body = ah.Payload
		} else if ip.Protocol != 112 {
			return o
		}
		if !ok && !short(p) {
			return o
		}
		o.src, _ = netip.AddrFromSlice(ip.SrcIP)
		o.dst, _ = netip.AddrFromSlice(ip.DstIP)
		o.ttl, o.payload = ip.TTL, string(body)
	case *layers.IPv6:
		if ip.NextHeader != 112 || !ok && !short(p) {
			return o
		}
		o.src, _ = netip.AddrFromSlice(ip.SrcIP)
		o.dst, _ = netip.AddrFromSlice(ip.DstIP)
		o.ttl, o.payload = ip.HopLimit, string(ip.Payload)
	default:
		return o
	}
	copy(o.mac[:], eth.SrcMAC)
	o.layer3, o.ok = true, ok
	if !ok || advert.Sum() == decode.SumWrong {
		return o
	}
	o.sum = true
	o.version, o.kind, o.vhid, o.skew, o.base, o.authlen, o.pad = advert.Version, advert.Type, advert.VHID, advert.AdvSkew, advert.AdvBase, advert.AuthLen, advert.Pad
	o.checksum, o.counter, o.digest = advert.Checksum, advert.Counter, advert.Digest
	return o
}

// short reports whether the packet failed as too short for an advert.
func short(p gopacket.Packet) bool {
	return p.ErrorLayer() != nil && strings.HasPrefix(p.ErrorLayer().Error().Error(), "decode: CARP: ")
}

func TestBothDecodersAgreeAboutEveryCapturedFrame(t *testing.T) {
	adverts := 0
	for name, all := range frames(t, carpVectors) {
		for i, f := range all {
			a, b := first(f), second(f)
			if a != b {
				t.Errorf("%s, frame %d:\npackage carp   %+v\npackage decode %+v", name, i+1, a, b)
			}
			if b.ok {
				adverts++
			}
		}
	}
	if adverts < 300 {
		t.Errorf("%d adverts: some are not read", adverts)
	}
	t.Logf("%d adverts", adverts)
}

func TestVRRPFramesAreNoCARPAndAgreedUpon(t *testing.T) {
	for name, all := range frames(t, vrrp3Vectors) {
		for i, f := range all {
			if a, b := first(f), second(f); a != b {
				t.Errorf("%s, frame %d:\npackage carp   %+v\npackage decode %+v", name, i+1, a, b)
			}
		}
	}
}

// Vectors V1, V2 and V4a: made with a third implementation of HMAC.
func TestSignMakesTheDigestsOfAThirdImplementation(t *testing.T) {
	for _, tc := range []struct {
		vhid  uint8
		addrs []string
		want  string
	}{
		{1, []string{"192.168.1.1"}, "6dde1abd2d604dbb93a53897d7275ee19c3fe9a9"},
		{7, []string{"10.0.0.10", "10.0.0.9", "9.255.255.255", "10.0.0.9"}, "ede5a9a118f5c72874365dd1f2af6557459fe3f5"},
		{3, []string{"fe80::1", "2001:db8::1", "192.0.2.1"}, "d4fbd11ad33696a82b43613719f1494a5a202490"},
	} {
		var addrs []netip.Addr
		for _, a := range tc.addrs {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		c := decode.CARP{VHID: tc.vhid, Counter: 0x0123456789abcdef}
		if d := c.Sign([]byte("mekmitasdigoat"), addrs); hex.EncodeToString(d[:]) != tc.want {
			t.Errorf("vhid %d: %x, want %s", tc.vhid, d, tc.want)
		}
	}
}

func TestSerializedAdvertIsTheVectorByteForByte(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("192.168.1.1")}
	c := &decode.CARP{Version: 2, Type: 1, VHID: 1, AdvSkew: 100, AuthLen: 7, AdvBase: 1, Counter: 0x0123456789abcdef}
	c.Digest = c.Sign([]byte("mekmitasdigoat"), addrs)
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{ComputeChecksums: true}, c); err != nil {
		t.Fatal(err)
	}
	want, _ := hex.DecodeString("21016407000150ea0123456789abcdef6dde1abd2d604dbb93a53897d7275ee19c3fe9a9")
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("\n got %x\nwant %x", b.Bytes(), want)
	}
}

// A frame that gopacket itself reads as VRRPv2 must go on being read so, after
// this package has decoded it as CARP.
func TestGopacketsOwnTablesStayAsTheyWere(t *testing.T) {
	frame := frames(t, carpVectors)["bsd-freebsd-v4-one"][0]
	before := layers.IPProtocolMetadata[layers.IPProtocolVRRP]
	if second(frame).ok != true {
		t.Fatal("the frame is no advert")
	}
	after := layers.IPProtocolMetadata[layers.IPProtocolVRRP]
	if before.Name != after.Name || before.LayerType != after.LayerType {
		t.Errorf("protocol 112 was %v, is %v", before, after)
	}
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if p.Layer(layers.LayerTypeVRRP) == nil {
		t.Error("gopacket no longer reads the frame as VRRPv2")
	}
	if name := decode.LayerTypeCARP.String(); name != "112002" {
		t.Errorf("the layer type has the name %q: it was registered", name)
	}
}

func FuzzBothDecodersAgree(f *testing.F) {
	for _, all := range frames(f, carpVectors) {
		f.Add(all[0])
	}
	for _, frame := range frames(f, carpVectors)["bsd-oracle-input-v4"] {
		f.Add(frame)
	}
	// What neither takes for an advert the two may describe differently: gopacket asks
	// nobody about an empty payload or a fragment.
	agree := func(t *testing.T, frame []byte) {
		if a, b := first(frame), second(frame); a != b && (a.ok || b.ok) {
			t.Errorf("%x\npackage carp   %+v\npackage decode %+v", frame, a, b)
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		agree(t, frame)
		frame = bytes.Clone(frame)
		mend(frame)
		agree(t, frame)
	})
}

// mend makes the IPv4 header checksum right, so that the fuzzer gets past it.
func mend(frame []byte) {
	const ip = 14
	if len(frame) < ip+20 || frame[12] != 8 || frame[13] != 0 {
		return
	}
	header := frame[ip:min(len(frame), ip+int(frame[ip]&15)*4)]
	if len(header) < 20 {
		return
	}
	header[10], header[11] = 0, 0
	var sum uint32
	for i := 0; i+1 < len(header); i += 2 {
		sum += uint32(header[i])<<8 | uint32(header[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	header[10], header[11] = byte(^sum>>8), byte(^sum)
}
