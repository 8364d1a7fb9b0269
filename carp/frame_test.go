package carp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"
)

// frameOracle are input packets given to FreeBSD's and NetBSD's kernels. What
// they refused for their IP header alone is DropFrame here; what they refused
// for TTL, length or contents decodes, and is the engine's to refuse.
var frameOracle = []struct {
	name, frame string
	drop        Drop
	src, dst    string
	ttl         uint8
	payload     int
}{
	{"v4 1: valid advert, base 1 skew 0", "01005e00001200005e00010708004510003800004000ff7090f10a000042e0000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "10.0.0.66", "224.0.0.18", 255, 36},
	{"v4 5: TTL 254", "01005e00001200005e00010708004510003800004000fe7091f10a000042e0000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "10.0.0.66", "224.0.0.18", 254, 36},
	{"v4 21: truncated by 1 byte (IP length 55)", "01005e00001200005e00010708004510003700004000ff7090f20a000042e0000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d0852", Accepted, "10.0.0.66", "224.0.0.18", 255, 35},
	{"v4 22: 8 trailing bytes inside the IP length (IP length 64)", "01005e00001200005e00010708004510004000004000ff7090e90a000042e0000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d0852090000000000000000", Accepted, "10.0.0.66", "224.0.0.18", 255, 44},
	{"v4 23: IP header with router alert option (ihl 6)", "01005e00001200005e00010708004610003c00004000ff70fbe80a000042e000001294040000210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "10.0.0.66", "224.0.0.18", 255, 36},
	{"v4 24: IP TOS 0", "01005e00001200005e00010708004500003800004000ff7091010a000042e0000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "10.0.0.66", "224.0.0.18", 255, 36},
	{"v4 25: IP TOS 0xe0", "01005e00001200005e000107080045e0003800004000ff7090210a000042e0000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "10.0.0.66", "224.0.0.18", 255, 36},
	{"v4 26: IP DF clear", "01005e00001200005e00010708004510003800000000ff70d0f10a000042e0000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "10.0.0.66", "224.0.0.18", 255, 36},
	{"v4 27: IP header checksum wrong", "01005e00001200005e00010708004510003800004000ff7091f00a000042e0000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", DropFrame, "", "", 0, 0},
	{"v4 28: IP destination unicast (own physical address), multicast MAC", "01005e00001200005e00010708004510003800004000ff7066f90a0000420a00000b210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "10.0.0.66", "10.0.0.11", 255, 36},
	{"v4 29: IP destination 224.0.0.1", "01005e00000100005e00010708004510003800004000ff7091020a000042e0000001210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "10.0.0.66", "224.0.0.1", 255, 36},
	{"v4 30: IP source = receiver's own physical address", "01005e00001200005e00010708004510003800004000ff7091280a00000be0000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "10.0.0.11", "224.0.0.18", 255, 36},
	{"v4 31: IP source = the VIP", "01005e00001200005e00010708004510003800004000ff7090cf0a000064e0000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "10.0.0.100", "224.0.0.18", 255, 36},
	{"v4 32: IP source 0.0.0.0", "01005e00001200005e00010708004510003800004000ff709b3300000000e0000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "0.0.0.0", "224.0.0.18", 255, 36},
	{"v4 33: IP source of a foreign network", "01005e00001200005e00010708004510003800004000ff70d931c0000201e0000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "192.0.2.1", "224.0.0.18", 255, 36},
	{"v4 34: Ethernet source an ordinary MAC", "01005e00001202000000006608004510003800004000ff7090f10a000042e0000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "10.0.0.66", "224.0.0.18", 255, 36},
	{"v4 35: Ethernet broadcast destination", "ffffffffffff00005e00010708004510003800004000ff7090f10a000042e0000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "10.0.0.66", "224.0.0.18", 255, 36},
	{"v4 36: advbase 0 skew 0", "01005e00001200005e00010708004510003800004000ff7090f10a000042e0000012210700070000f76b1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "10.0.0.66", "224.0.0.18", 255, 36},
	{"v4 37: IPv6 advert, valid HMAC (group has only IPv4 VIPs)", "33330000001200005e00010786dd60000000002470fffe800000000000000000000000000066ff020000000000000000000000000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", Accepted, "fe80::66", "ff02::12", 255, 36},
	{"v6 1: valid advert, base 1 skew 0", "33330000001200005e00010786dd60000000002470fffe800000000000000000000000000066ff020000000000000000000000000012210700070001b02011223344556677888c22634b28f5187cc5cab2607aeca66200c7525a", Accepted, "fe80::66", "ff02::12", 255, 36},
	{"v6 2: hop limit 254", "33330000001200005e00010786dd60000000002470fefe800000000000000000000000000066ff020000000000000000000000000012210700070001b02011223344556677888c22634b28f5187cc5cab2607aeca66200c7525a", Accepted, "fe80::66", "ff02::12", 254, 36},
	{"v6 7: IPv6 source global 2001:db8::66", "33330000001200005e00010786dd60000000002470ff20010db8000000000000000000000066ff020000000000000000000000000012210700070001b02011223344556677888c22634b28f5187cc5cab2607aeca66200c7525a", Accepted, "2001:db8::66", "ff02::12", 255, 36},
	{"v6 9: IPv6 source unspecified (::)", "33330000001200005e00010786dd60000000002470ff00000000000000000000000000000000ff020000000000000000000000000012210700070001b02011223344556677888c22634b28f5187cc5cab2607aeca66200c7525a", Accepted, "::", "ff02::12", 255, 36},
	{"v6 10: IPv6 destination ff02::1", "33330000000100005e00010786dd60000000002470fffe800000000000000000000000000066ff020000000000000000000000000001210700070001b02011223344556677888c22634b28f5187cc5cab2607aeca66200c7525a", Accepted, "fe80::66", "ff02::1", 255, 36},
	{"v6 11: IPv6 destination = own link-local unicast, multicast MAC", "33330000001200005e00010786dd60000000002470fffe800000000000000000000000000066fe800000000000000000000000000021210700070001b02011223344556677888c22634b28f5187cc5cab2607aeca66200c7525a", Accepted, "fe80::66", "fe80::21", 255, 36},
	{"v6 12: truncated by 1 byte", "33330000001200005e00010786dd60000000002370fffe800000000000000000000000000066ff020000000000000000000000000012210700070001b02011223344556677888c22634b28f5187cc5cab2607aeca66200c752", Accepted, "fe80::66", "ff02::12", 255, 35},
	{"v6 13: 8 trailing bytes", "33330000001200005e00010786dd60000000002c70fffe800000000000000000000000000066ff020000000000000000000000000012210700070001b02011223344556677888c22634b28f5187cc5cab2607aeca66200c7525a0000000000000000", Accepted, "fe80::66", "ff02::12", 255, 44},
	{"v6 14: with a destination options header", "33330000001200005e00010786dd60000000002c3cfffe800000000000000000000000000066ff0200000000000000000000000000127000010400000000210700070001b02011223344556677888c22634b28f5187cc5cab2607aeca66200c7525a", Accepted, "fe80::66", "ff02::12", 255, 36},
	{"v6 17: IPv4 advert, valid HMAC (group has only IPv6 VIPs)", "01005e00001200005e00010708004510003800004000ff7090f10a000042e0000012210700070001b02011223344556677888c22634b28f5187cc5cab2607aeca66200c7525a", Accepted, "10.0.0.66", "224.0.0.18", 255, 36},
}

func frameBytes(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeFrameReadsWhatTheBSDKernelsRead(t *testing.T) {
	for _, tt := range frameOracle {
		t.Run(tt.name, func(t *testing.T) {
			frame := frameBytes(t, tt.frame)
			var p Packet
			if got := DecodeFrame(frame, &p); got != tt.drop {
				t.Fatalf("drop %v, want %v", got, tt.drop)
			}
			if tt.drop != Accepted {
				if p.Src.IsValid() || p.Payload != nil {
					t.Errorf("a refused frame left %+v", p)
				}
				return
			}
			if p.Src != netip.MustParseAddr(tt.src) || p.Dst != netip.MustParseAddr(tt.dst) || p.TTL != tt.ttl {
				t.Errorf("got %v > %v ttl %d, want %s > %s ttl %d", p.Src, p.Dst, p.TTL, tt.src, tt.dst, tt.ttl)
			}
			if want := frame[len(frame)-tt.payload:]; !bytes.Equal(p.Payload, want) {
				t.Errorf("payload %x, want %x", p.Payload, want)
			}
			if want := MAC(frame[6:12]); p.SrcMAC != want {
				t.Errorf("source MAC %x, want %x", p.SrcMAC, want)
			}
			if !p.Broadcast {
				t.Error("a group destination is not marked as such")
			}
		})
	}
}

// editFrame returns frame with the bytes at offset replaced, and a right IPv4 header
// checksum if the frame is IPv4 with a plain header.
func editFrame(frame []byte, offset int, with ...byte) []byte {
	frame = bytes.Clone(frame)
	copy(frame[offset:], with)
	if frame[12] == 0x08 && frame[14] == 0x45 {
		frame[24], frame[25] = 0, 0
		sum := headerSum(frame[14:34])
		frame[24], frame[25] = byte(sum>>8), byte(sum)
	}
	return frame
}

func insertBytes(frame []byte, offset int, with ...byte) []byte {
	return append(append(bytes.Clone(frame[:offset]), with...), frame[offset:]...)
}

func TestDecodeFrameLooksAtLengthsOnly(t *testing.T) {
	v4, v6 := frameBytes(t, frameOracle[0].frame), frameBytes(t, frameOracle[19].frame)
	// extended returns v6 with extension headers of the first one's type.
	extended := func(first byte, headers ...byte) []byte {
		return insertBytes(editFrame(v6, 18, 0, byte(36+len(headers)), first), 54, headers...)
	}
	hop8 := []byte{112, 0, 1, 4, 0, 0, 0, 0}
	tests := []struct {
		name  string
		frame []byte
		drop  Drop
		size  int
	}{
		{"empty", nil, DropFrame, 0},
		{"Ethernet header only", v4[:14], DropFrame, 0},
		{"ARP", editFrame(v4, 12, 8, 6), DropFrame, 0},
		{"VLAN tag", insertBytes(v4, 12, 0x81, 0, 0, 9), Accepted, 36},
		{"VLAN tag, IPv6", insertBytes(v6, 12, 0x81, 0, 0, 9), Accepted, 36},
		{"VLAN tag cut off", insertBytes(v4, 12, 0x81, 0, 0, 9)[:17], DropFrame, 0},
		{"two VLAN tags", insertBytes(v4, 12, 0x81, 0, 0, 9, 0x81, 0, 0, 9), DropFrame, 0},
		{"padding is cut off", append(bytes.Clone(v4), make([]byte, 10)...), Accepted, 36},
		{"padding is cut off, IPv6", append(bytes.Clone(v6), make([]byte, 10)...), Accepted, 36},
		{"IP version 6 in an IPv4 frame", editFrame(v4, 14, 0x65), DropFrame, 0},
		{"IP version 4 in an IPv6 frame", editFrame(v6, 14, 0x4d), DropFrame, 0},
		{"header shorter than 20 bytes", editFrame(v4, 14, 0x44), DropFrame, 0},
		{"total length beyond the frame", editFrame(v4, 16, 0, 57), DropFrame, 0},
		{"total length inside the header", editFrame(v4, 16, 0, 19), DropFrame, 0},
		{"no payload", editFrame(v4, 16, 0, 20), Accepted, 0},
		{"UDP", editFrame(v4, 23, 17), DropFrame, 0},
		{"more fragments", editFrame(v4, 20, 0x20, 0), DropFrame, 0},
		{"fragment offset", editFrame(v4, 20, 0, 1), DropFrame, 0},
		{"reserved flag", editFrame(v4, 20, 0x80, 0), Accepted, 36},
		{"payload length beyond the frame", editFrame(v6, 18, 0, 37), DropFrame, 0},
		{"jumbogram", editFrame(v6, 18, 0, 0), DropFrame, 0},
		{"UDP, IPv6", editFrame(v6, 20, 17), DropFrame, 0},
		{"no next header", editFrame(v6, 20, 59), DropFrame, 0},
		{"IPv4-mapped source", editFrame(v6, 22, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff), DropFrame, 0},
		{"hop-by-hop", extended(0, hop8...), Accepted, 36},
		{"hop-by-hop of 16 bytes", extended(0, append([]byte{112, 1, 1, 12}, make([]byte, 12)...)...), Accepted, 36},
		{"hop-by-hop, then destination", extended(0, append([]byte{60, 0, 1, 4, 0, 0, 0, 0}, hop8...)...), Accepted, 36},
		{"finished routing header", extended(43, 112, 0, 0, 0, 0, 0, 0, 0), Accepted, 36},
		{"routing header with a segment left", extended(43, 112, 0, 0, 1, 0, 0, 0, 0), DropFrame, 0},
		{"fragment header", extended(44, 112, 0, 0, 0, 0, 0, 0, 0), DropFrame, 0},
		{"extension longer than the packet", extended(0, 112, 9, 1, 4, 0, 0, 0, 0), DropFrame, 0},
		{"extension cut off", editFrame(v6, 18, 0, 7, 0), DropFrame, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p Packet
			if got := DecodeFrame(tt.frame, &p); got != tt.drop || len(p.Payload) != tt.size {
				t.Errorf("got %v and %d bytes, want %v and %d", got, len(p.Payload), tt.drop, tt.size)
			}
		})
	}
}

func TestDecodeFrameMarksUnicast(t *testing.T) {
	var p Packet
	frame := editFrame(frameBytes(t, frameOracle[0].frame), 0, 2, 0, 0, 0, 0, 1)
	if DecodeFrame(frame, &p) != Accepted || p.Broadcast {
		t.Errorf("a frame to one station: %+v", p)
	}
}

// withAH puts an authentication header of ah bytes, whose length field says words,
// behind the IP header of a frame.
func withAH(frame []byte, next, words byte, ah int) []byte {
	header := etherLen + ipv4Len
	if frame[12] == 0x86 {
		header = etherLen + ipv6Len
	}
	extra := append([]byte{next, words}, make([]byte, ah-2)...)
	f := append(bytes.Clone(frame[:header]), extra...)
	f = append(f, frame[header:]...)
	if frame[12] == 0x86 {
		binary.BigEndian.PutUint16(f[18:], uint16(len(f)-header))
		f[20] = headerAH
		return f
	}
	binary.BigEndian.PutUint16(f[16:], uint16(len(f)-etherLen))
	return editFrame(f, 23, headerAH)
}

func TestOneAuthenticationHeaderIsSkippedAndNoted(t *testing.T) {
	v4, v6 := frameBytes(t, frameOracle[0].frame), frameBytes(t, frameOracle[19].frame)
	payload := v4[etherLen+ipv4Len:]
	const carp = protocolCARP
	options := append(append(bytes.Clone(v6[:etherLen+ipv6Len]), carp, 0, 1, 4, 0, 0, 0, 0), v6[etherLen+ipv6Len:]...)
	for _, tt := range []struct {
		name  string
		frame []byte
		want  Drop
	}{
		{"96 bits of integrity value, as keepalived", withAH(v4, carp, 4, 24), Accepted},
		{"none", withAH(v4, carp, 1, 12), Accepted},
		{"256 bits", withAH(v4, carp, 9, 44), Accepted},
		{"length 0", withAH(v4, carp, 0, 8), DropFrame},
		{"longer than the packet", withAH(v4, carp, 14, 24), DropFrame},
		{"as long as a header can be", withAH(v4, carp, 255, 24), DropFrame},
		{"another protocol behind", withAH(v4, 6, 4, 24), DropFrame},
		{"another one behind", withAH(withAH(v4, carp, 4, 24), headerAH, 4, 24), DropFrame},
		{"a fragment", editFrame(withAH(v4, carp, 4, 24), 20, 0x20, 0), DropFrame},
		{"cut within", editFrame(withAH(v4, carp, 4, 24), 16, 0, 20+11), DropFrame},
		{"cut behind", editFrame(withAH(v4, carp, 4, 24), 16, 0, 20+23), DropFrame},
		{"IPv6", withAH(v6, carp, 4, 24), Accepted},
		{"IPv6, no multiple of eight", withAH(v6, carp, 3, 20), DropFrame},
		{"IPv6, length 0", withAH(v6, carp, 0, 8), DropFrame},
		{"IPv6, longer than the packet", withAH(v6, carp, 14, 24), DropFrame},
		{"IPv6, another protocol behind", withAH(v6, 6, 4, 24), DropFrame},
		{"IPv6, another one behind", withAH(withAH(v6, carp, 4, 24), headerAH, 4, 24), DropFrame},
		{"IPv6, options behind", withAH(options, headerDestination, 4, 24), Accepted},
	} {
		var p Packet
		drop := DecodeFrame(tt.frame, &p)
		if drop != tt.want || p.AH != (drop == Accepted) {
			t.Errorf("%s: %v, noted %v", tt.name, drop, p.AH)
		}
		if drop == Accepted && len(p.Payload) != len(payload) {
			t.Errorf("%s: payload %x", tt.name, p.Payload)
		}
	}
	var p Packet
	if DecodeFrame(v4, &p); p.AH {
		t.Error("noted where there is none")
	}
}

func TestTheIPHeaderIsAsAskedFor(t *testing.T) {
	local := Local{IPv4: netip.MustParseAddr("10.0.0.1"), IPv6: netip.MustParseAddr("fe80::1")}
	f := AppendFrame(nil, MAC{}, local, Frame{Dst: group4}, IPHeader{ID: 0x1234, TOS: 0xc0, Fragmentable: true})
	if want := frameBytes(t, "45c00014123400")[1:]; !bytes.Equal(f[15:21], want) {
		t.Errorf("%x, want %x", f[15:21], want)
	}
	f = AppendFrame(nil, MAC{}, local, Frame{Dst: group4}, IPHeader{})
	if want := frameBytes(t, "45000014000040"); !bytes.Equal(f[14:21], want) {
		t.Errorf("%x, want %x", f[14:21], want)
	}
	f = AppendFrame(nil, MAC{}, local, Frame{Dst: group6}, IPHeader{ID: 1, TOS: 0xc5, Fragmentable: true})
	if want := frameBytes(t, "6c500000000070ff"); !bytes.Equal(f[14:22], want) {
		t.Errorf("%x, want %x", f[14:22], want)
	}
}

func TestAppendFrameRebuildsCapturedFrames(t *testing.T) {
	tests := []struct {
		speaker string
		frame   string
		tos     uint8
	}{
		{"ucarp", "01005e00001200005e000001080045100038f41f4000ff70e511c0000201e0000012210100070001ae653b8754c2988caf854cfe41a6623e42c4ab61d7a825b1df299f44fd63", 0x10},
		{"ucarp", "01005e00001200005e00002a080045100038d83d4000ff70b8910a630001e0000012212a11070001eda8a3833eeed0a2db722305bade461a0c10e1fcac6e5c98b47467c81a4e", 0x10},
		{"FreeBSD", "01005e00001200005e000107080045e0003800004000ff70904e0a000015e00000122107000700012fdc509455e1212abba352390ce899705416d3b57b0775d2170cb4084f84", 0xe0},
		{"FreeBSD IPv6", "33330000001200005e00011686dd6e000000002470fffe800000000000000000000000000021ff02000000000000000000000000001221160007000131950332c7297e99103154b0fb00b4dba576eb652b653b22eb636ab90218", 0xe0},
		{"source 0.0.0.0", "01005e00001200005e00010708004510003800004000ff709b3300000000e0000012210700070001f76a1122334455667788a08f67cb968c9b7faaf0cd89131b71224d085209", 0x10},
		{"source ::", "33330000001200005e00010786dd60000000002470ff00000000000000000000000000000000ff020000000000000000000000000012210700070001b02011223344556677888c22634b28f5187cc5cab2607aeca66200c7525a", 0},
	}
	for _, tt := range tests {
		t.Run(tt.speaker, func(t *testing.T) {
			want := frameBytes(t, tt.frame)
			var p Packet
			if drop := DecodeFrame(want, &p); drop != Accepted {
				t.Fatal(drop)
			}
			var local Local
			var ipid uint16
			if p.Src.Is4() {
				ipid = uint16(want[18])<<8 | uint16(want[19])
			}
			if !p.Src.IsUnspecified() {
				local = Local{IPv4: p.Src, IPv6: p.Src}
			}
			got := AppendFrame([]byte("kept"), p.SrcMAC, local, Frame{Dst: p.Dst, Payload: p.Payload}, IPHeader{ID: ipid, TOS: tt.tos})
			if !bytes.Equal(got, append([]byte("kept"), want...)) {
				t.Errorf("built    %x\ncaptured %x", got[4:], want)
			}
		})
	}
}

func TestAppendFrameAppendsNothingItCannotSend(t *testing.T) {
	for _, f := range []Frame{
		{},
		{Dst: netip.MustParseAddr("10.0.0.1"), Payload: make([]byte, 36)},
		{Dst: netip.MustParseAddr("fe80::1"), Payload: make([]byte, 36)},
		{Dst: netip.MustParseAddr("224.0.0.18"), Payload: make([]byte, 65516)},
	} {
		if got := AppendFrame(nil, MAC{}, Local{}, f, IPHeader{}); got != nil {
			t.Errorf("to %v, %d bytes: %d bytes were appended", f.Dst, len(f.Payload), len(got))
		}
	}
}

func TestFramesCostNoAllocation(t *testing.T) {
	frame := frameBytes(t, frameOracle[0].frame)
	var p Packet
	buf := make([]byte, 0, 128)
	local := Local{IPv4: netip.MustParseAddr("10.0.0.1")}
	n := testing.AllocsPerRun(100, func() {
		DecodeFrame(frame, &p)
		buf = AppendFrame(buf[:0], p.SrcMAC, local, Frame{Dst: p.Dst, Payload: p.Payload}, IPHeader{TOS: 0x10})
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzDecodeFrame looks for panics, for payloads outside the frame, and for
// packets that do not survive being built and decoded again.
func FuzzDecodeFrame(f *testing.F) {
	for _, tt := range frameOracle {
		f.Add(frameBytes(f, tt.frame))
		f.Add(withAH(frameBytes(f, tt.frame), protocolCARP, 4, 24))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		var p Packet
		if drop := DecodeFrame(frame, &p); drop != Accepted {
			if drop != DropFrame || p.Payload != nil || p.Src.IsValid() {
				t.Fatalf("%v and %+v", drop, p)
			}
			return
		}
		if p.Src.Is4() != p.Dst.Is4() || !bytes.Contains(frame, p.Payload) {
			t.Fatalf("%+v of %x", p, frame)
		}
		if !p.Dst.IsMulticast() || p.TTL != 255 {
			return
		}
		built := AppendFrame(nil, p.SrcMAC, Local{IPv4: p.Src, IPv6: p.Src}, Frame{Dst: p.Dst, Payload: p.Payload}, IPHeader{ID: 7, TOS: 0x10})
		if p.Src.Is6() && len(p.Payload) == 0 {
			return // such a packet needs an extension header to be told from a jumbogram
		}
		var again Packet
		if drop := DecodeFrame(built, &again); drop != Accepted {
			t.Fatalf("%v: %x built of %x", drop, built, frame)
		}
		if again.Src != p.Src || again.Dst != p.Dst || !bytes.Equal(again.Payload, p.Payload) {
			t.Fatalf("%+v became %+v", p, again)
		}
	})
}

func BenchmarkDecodeFrame(b *testing.B) {
	for _, bb := range []struct {
		name  string
		frame string
	}{{"IPv4", frameOracle[0].frame}, {"IPv6", frameOracle[19].frame}} {
		b.Run(bb.name, func(b *testing.B) {
			frame := frameBytes(b, bb.frame)
			var p Packet
			b.ReportAllocs()
			for b.Loop() {
				DecodeFrame(frame, &p)
			}
		})
	}
}

func BenchmarkAppendFrame(b *testing.B) {
	local := Local{IPv4: netip.MustParseAddr("10.0.0.1")}
	f := Frame{VHID: 9, Dst: netip.MustParseAddr("224.0.0.18"), Payload: make([]byte, 36)}
	buf := make([]byte, 0, 128)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendFrame(buf[:0], VirtualMAC(9), local, f, IPHeader{TOS: 0x10})
	}
}
