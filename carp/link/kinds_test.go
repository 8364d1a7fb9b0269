package link_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/test/lab"
)

var (
	vip4  = netip.MustParseAddr("192.0.2.100")
	vip6  = netip.MustParseAddr("2001:db8::100")
	vipLL = netip.MustParseAddr("fe80::9:100")

	vrrp2   = link.PortConfig{Protocol: carp.VRRP2, VHID: vhid, IPv4: true}
	vrrp3   = link.PortConfig{Protocol: carp.VRRP3, VHID: vhid, IPv4: true}
	vrrp3v6 = link.PortConfig{Protocol: carp.VRRP3, Family: carp.IPv6, VHID: vhid, IPv6: true}
)

// vrrpAdvert is an advert without a pseudo-header in its checksum yet.
func vrrpAdvert(version uint8, vips ...netip.Addr) carp.VRRPAdvert {
	return carp.NewVRRPAdvert(version, vhid, 150, time.Second, vips)
}

// vrrpFrame is what an engine asks to send: where the checksum covers the source
// it is not right yet.
func vrrpFrame(version uint8, dst netip.Addr, vips ...netip.Addr) carp.Frame {
	a := vrrpAdvert(version, vips...)
	return carp.Frame{VHID: vhid, Dst: dst, Pseudo: version == 3, Payload: a.Append(nil, netip.Addr{}, netip.Addr{})}
}

// endLength is the length of the packets that end a test; their third byte says
// which.
const endLength = 99

// received empties the ports in turn, until the end of the test comes, and returns
// how many packets each got.
func received(t *testing.T, end byte, ports ...carp.Link) string {
	t.Helper()
	var counts []string
	for _, l := range ports {
		n := 0
		for p := next(t, l, true).Packet; len(p.Payload) != endLength || p.Payload[2] != end; p = next(t, l, true).Packet {
			if len(p.Payload) != endLength {
				n++
			}
		}
		counts = append(counts, fmt.Sprint(n))
	}
	return strings.Join(counts, " ")
}

func TestLabEachProtocolOfOneIDGetsItsOwnPackets(t *testing.T) {
	_, a, b := hosts(t)
	inject, i := injector(t, a), open(t, b)
	raw := func(dst netip.Addr, payload []byte) []byte {
		return carp.AppendFrame(nil, carp.VirtualMAC(vhid), carp.Local{IPv4: addrA, IPv6: addrA6}, carp.Frame{Dst: dst, Payload: payload}, carp.IPHeader{})
	}
	first := func(b byte) []byte { return append([]byte{b, vhid}, make([]byte, 34)...) }
	type set struct{ carp, vrrp4, vrrp6 bool }
	all := set{true, true, true}
	for n, tt := range []struct {
		name  string
		ports set
		frame []byte
		want  string // packets at CARP, VRRP/IPv4, VRRP/IPv6 as far as there
	}{
		{"CARP or VRRP2", all, raw(group4, first(0x21)), "1 1 0"},
		{"CARP over IPv6", all, raw(group6, first(0x21)), "1 0 1"},
		{"another type of version 2", all, raw(group4, first(0x27)), "1 1 0"},
		{"VRRP3", all, raw(group4, first(0x31)), "0 1 0"},
		{"VRRP3 over IPv6", all, raw(group6, first(0x31)), "0 0 1"},
		{"a version that nobody knows", all, raw(group4, first(0x41)), "1 0 0"},
		{"another id", all, raw(group4, append([]byte{0x21, vhid + 1}, make([]byte, 34)...)), "0 0 0"},
		{"VRRP2 behind an authentication header", all, behindAH(raw(group4, first(0x21))), "0 1 0"},
		{"VRRP3 behind an authentication header", all, behindAH(raw(group6, first(0x31))), "0 0 1"},
		{"VRRP3 where CARP is alone", set{carp: true}, raw(group4, first(0x31)), "1"},
		{"VRRP3 where VRRP is of the other family", set{carp: true, vrrp6: true}, raw(group4, first(0x31)), "1 0"},
		{"CARP where VRRP is alone", set{vrrp4: true}, raw(group4, first(0x21)), "1"},
		{"the other family where VRRP is alone", set{vrrp4: true}, raw(group6, first(0x31)), "0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var ports []carp.Link
			for _, c := range []struct {
				there  bool
				config link.PortConfig
			}{{tt.ports.carp, both}, {tt.ports.vrrp4, vrrp3}, {tt.ports.vrrp6, vrrp3v6}} {
				if c.there {
					ports = append(ports, attach(t, b, i, c.config))
				}
			}
			for _, l := range ports {
				defer l.Close()
				awaitUp(t, l, complete)
			}
			end := append([]byte{0x21, vhid, byte(n)}, make([]byte, endLength-3)...) // CARP and VRRP get it
			inject(tt.frame)
			inject(raw(group4, end))
			inject(raw(group6, end))
			if got := received(t, byte(n), ports...); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// behindAH puts an authentication header of keepalived's length before the payload
// of a frame.
func behindAH(frame []byte) []byte {
	header, protocol := 34, 23
	if frame[12] == 0x86 {
		header, protocol = 54, 20
	}
	out := append(bytes.Clone(frame[:header]), 112, 4, 0, 0, 10, 9, 0, 1, 0, 0, 0, 1)
	out = append(append(out, make([]byte, 12)...), frame[header:]...)
	if frame[12] == 0x86 {
		binary.BigEndian.PutUint16(out[18:], uint16(len(out)-54))
	} else {
		binary.BigEndian.PutUint16(out[16:], uint16(len(out)-14))
	}
	return alter(out, protocol, 51)
}

func TestLabAuthenticationHeaderIsTakenOffAndNoted(t *testing.T) {
	_, a, b := hosts(t)
	inject := injector(t, a)
	l := attach(t, b, open(t, b), vrrp2)
	awaitUp(t, l, complete)
	advert := vrrpAdvert(2, vip4)
	payload := advert.Append(nil, netip.Addr{}, netip.Addr{})
	frame := carp.AppendFrame(nil, carp.VirtualMAC(vhid), carp.Local{IPv4: addrA}, carp.Frame{Dst: group4, Payload: payload}, carp.IPHeader{TOS: 0xc0})
	inject(behindAH(frame))
	inject(frame)
	for _, ah := range []bool{true, false} {
		if p := next(t, l, true).Packet; p.AH != ah || p.Src != addrA || p.TTL != 255 || !bytes.Equal(p.Payload, payload) {
			t.Errorf("got %+v, want AH %v and payload %x", p, ah, payload)
		}
	}
}

func TestLabAPacketForTwoPortsIsCopiedForEach(t *testing.T) {
	_, a, b := hosts(t)
	sender, i := attach(t, a, open(t, a), both), open(t, b)
	one, two := attach(t, b, i, both), attach(t, b, i, vrrp2)
	awaitUp(t, sender, complete)
	awaitUp(t, one, complete)
	awaitUp(t, two, complete)
	send(t, sender, group4, 7)
	clear(next(t, one, true).Packet.Payload)
	kept := next(t, two, true).Packet
	send(t, sender, group4, 8)
	next(t, one, true)
	next(t, two, true)
	if !bytes.Equal(kept.Payload, advert(7)) {
		t.Errorf("the other port's reader or the next packet made it %x", kept.Payload)
	}
}

func TestLabVRRPAdvertsLeaveByteExact(t *testing.T) {
	lan, a, _ := hosts(t)
	capture, i := lan.Capture(), open(t, a)
	own, tos4, tos6 := carp.MAC{2, 0, 0, 0, 0, 1}, []byte{0x45, 0xc0}, []byte{0x6c, 0}
	virtual := func(c link.PortConfig) link.PortConfig { c.SourceMAC = link.Virtual; return c }
	many := make([]netip.Addr, 90)
	for n := range many {
		many[n] = netip.AddrFrom16([16]byte{0xfe, 0x80, 14: 9, 15: byte(n)})
	}
	for _, tt := range []struct {
		name   string
		config link.PortConfig
		frame  carp.Frame
		sum    carp.VRRPAdvert // the same, to be finished by the test
		mac    carp.MAC
		ip     []byte
	}{
		{"version 2", vrrp2, vrrpFrame(2, group4, vip4), vrrpAdvert(2, vip4), own, tos4},
		{"version 2, virtual MAC", virtual(vrrp2), vrrpFrame(2, group4, vip4), vrrpAdvert(2, vip4), carp.MAC{0, 0, 0x5e, 0, 1, vhid}, tos4},
		{"version 3", vrrp3, vrrpFrame(3, group4, vip4), vrrpAdvert(3, vip4), own, tos4},
		{"version 3, virtual MAC", virtual(vrrp3), vrrpFrame(3, group4, vip4), vrrpAdvert(3, vip4), carp.MAC{0, 0, 0x5e, 0, 1, vhid}, tos4},
		{"IPv6", vrrp3v6, vrrpFrame(3, group6, vipLL, vip6), vrrpAdvert(3, vipLL, vip6), own, tos6},
		{"IPv6, virtual MAC", virtual(vrrp3v6), vrrpFrame(3, group6, vipLL, vip6), vrrpAdvert(3, vipLL, vip6), carp.MAC{0, 0, 0x5e, 0, 2, vhid}, tos6},
		{"IPv6, as many addresses as fit", vrrp3v6, vrrpFrame(3, group6, many...), vrrpAdvert(3, many...), own, tos6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := attach(t, a, i, tt.config)
			defer l.Close()
			local := awaitUp(t, l, func(l carp.Local) bool { return l.IPv4.IsValid() && l.IPv6.IsLinkLocalUnicast() })
			mark := capture.Len()
			if err := l.Send(tt.frame); err != nil {
				t.Fatal(err)
			}
			got, ok := capture.WaitAfter(mark, wait, isCARP)
			if !ok {
				t.Fatal("nothing on the wire")
			}
			src, header := local.IPv4, 34
			if tt.frame.Dst.Is6() {
				src, header = local.IPv6, 54
			}
			if !bytes.Equal(got.Data[6:12], tt.mac[:]) || !bytes.HasPrefix(got.Data[14:], tt.ip) {
				t.Errorf("from %x, IP header %x, want %x and %x", got.Data[6:12], got.Data[14:16], tt.mac, tt.ip)
			}
			if header == 34 && got.Data[20] != 0x40 {
				t.Errorf("flags %#x, want DF", got.Data[20])
			}
			var p carp.Packet
			if d := carp.DecodeFrame(got.Data, &p); d != carp.Accepted || p.Src != src || p.Dst != tt.frame.Dst || p.TTL != 255 {
				t.Errorf("%v: %+v, want from %v to %v", d, p, src, tt.frame.Dst)
			}
			if want := tt.sum.Append(nil, src, tt.frame.Dst); !bytes.Equal(got.Data[header:], want) {
				t.Errorf("payload %x\nwant    %x", got.Data[header:], want)
			}
		})
	}
}

func TestLabUnicastVRRPHasTheChecksumOfTheSourceUsed(t *testing.T) {
	_, a, b := hosts(t)
	// A second address of each family, which is nearer to no peer.
	a.Run("ip", "addr", "add", "198.51.100.1/24", "dev", "eth0")
	a.Run("ip", "addr", "add", "2001:db8:1::1/64", "dev", "eth0", "nodad")
	ia, ib := open(t, a), open(t, b)
	for _, tt := range []struct {
		name     string
		config   link.PortConfig
		src, dst netip.Addr
		vip      netip.Addr
	}{
		{"IPv4", vrrp3, addrA, addrB, vip4},
		{"IPv6", vrrp3v6, addrA6, addrB6, vip6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.IPv4, tt.config.IPv6 = false, false
			tt.config.Peers = []netip.Addr{tt.dst}
			sender, receiver := attach(t, a, ia, tt.config), attach(t, b, ib, tt.config)
			defer sender.Close()
			defer receiver.Close()
			awaitUp(t, sender, complete)
			awaitUp(t, receiver, complete)
			if err := sender.Send(vrrpFrame(3, tt.dst, tt.vip)); err != nil {
				t.Fatal(err)
			}
			p := next(t, receiver, true).Packet
			want := vrrpAdvert(3, tt.vip)
			if p.Src != tt.src || p.Dst != tt.dst || !bytes.Equal(p.Payload, want.Append(nil, tt.src, tt.dst)) {
				t.Errorf("got %v > %v %x, want %v > %v and the checksum that goes with it", p.Src, p.Dst, p.Payload, tt.src, tt.dst)
			}
		})
	}
}

// Where every address is to be avoided, one of them is the source all the same; an
// interface without any says so, and sends nothing with a checksum that is wrong.
func TestLabUnicastVRRPWithoutAnOwnAddress(t *testing.T) {
	lan := lab.New(t)
	a, b := lan.Host("a", "192.0.2.100/24"), lan.Host("b", "192.0.2.2/24")
	config := vrrp3
	config.IPv4, config.Peers, config.Avoid = false, []netip.Addr{addrB}, []netip.Addr{vip4}
	sender, receiver := attach(t, a, open(t, a), config), attach(t, b, open(t, b), config)
	awaitUp(t, sender, func(l carp.Local) bool { return l.IPv4 == vip4 })
	awaitUp(t, receiver, func(l carp.Local) bool { return l.IPv4.IsValid() })
	if err := sender.Send(vrrpFrame(3, addrB, vip4)); err != nil {
		t.Fatal(err)
	}
	want := vrrpAdvert(3, vip4)
	if p := next(t, receiver, true).Packet; p.Src != vip4 || !bytes.Equal(p.Payload, want.Append(nil, vip4, addrB)) {
		t.Errorf("got %+v", p)
	}
	a.Run("ip", "addr", "flush", "dev", "eth0")
	awaitUp(t, sender, func(l carp.Local) bool { return !l.IPv4.IsValid() })
	err := sender.Send(vrrpFrame(3, addrB, vip4))
	if want := "link: send vrid 9 of VRRP over IPv4 on eth0: the interface has no address to send from (give"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLabVRRPIsNeverSentFromAVirtualLinkLocalAddress(t *testing.T) {
	lan := lab.New(t)
	h := lan.Host("a", "2001:db8::1/64")
	capture, i := lan.Capture(), open(t, h)
	config := vrrp3v6
	config.Avoid = []netip.Addr{vipLL}
	l, other := attach(t, h, i, config), attach(t, h, i, link.PortConfig{VHID: vhid, IPv6: true})
	own := awaitUp(t, l, func(l carp.Local) bool { return l.IPv6.IsLinkLocalUnicast() }).IPv6
	// First in the kernel's list, as an address that came later is.
	h.Run("ip", "addr", "add", vipLL.String()+"/128", "dev", "eth0", "nodad")
	h.Run("ip", "addr", "add", "192.0.2.7/24", "dev", "eth0") // tells when the list was read again
	for _, l := range []carp.Link{l, other} {
		if got := awaitUp(t, l, func(l carp.Local) bool { return l.IPv4.IsValid() }).IPv6; got != own {
			t.Errorf("adverts come from %v, want %v", got, own)
		}
	}
	if err := l.Send(vrrpFrame(3, group6, vipLL)); err != nil {
		t.Fatal(err)
	}
	if f, ok := capture.WaitAfter(0, wait, isCARP); !ok || !bytes.Equal(f.Data[22:38], own.AsSlice()) {
		t.Errorf("sent %x, want from %v", f.Data, own)
	}
	// What is avoided is a property of that very port.
	i.SetAvoid(other, []netip.Addr{own})
	i.SetAvoid(l, []netip.Addr{netip.MustParseAddr("2001:db8::1"), own})
	awaitUp(t, l, func(l carp.Local) bool { return l.IPv6 == vipLL })
	i.SetAvoid(l, []netip.Addr{vipLL})
	awaitUp(t, l, func(l carp.Local) bool { return l.IPv6 == netip.MustParseAddr("2001:db8::1") })
	other.Close()
	awaitUp(t, l, func(l carp.Local) bool { return l.IPv6 == own })
	i.SetAvoid(other, []netip.Addr{own, own}) // closed: nothing happens
	i.SetAvoid(attach(t, h, open(t, h), link.PortConfig{VHID: 1}), []netip.Addr{own})
	i.SetAvoid(l, nil)
	awaitUp(t, l, func(l carp.Local) bool { return l.IPv6 == vipLL })
	i.SetAvoid(l, []netip.Addr{vipLL})
	awaitUp(t, l, func(l carp.Local) bool { return l.IPv6 == own })
}

// A macvlan takes a frame to a group that comes with its own MAC away from the
// interface below: only a socket for every protocol sees it before.
func TestLabAdvertsFromOurVirtualMACArriveBesideAMacvlan(t *testing.T) {
	_, a, b := hosts(t)
	for n, c := range []struct {
		config link.PortConfig
		frame  carp.Frame
	}{
		{link.PortConfig{VHID: vhid, IPv4: true}, carp.Frame{Dst: group4, Payload: advert(1)}},
		{vrrp3, vrrpFrame(3, group4, vip4)},
		{vrrp3v6, vrrpFrame(3, group6, vipLL)},
	} {
		t.Run(link.KindOf(c.config.Protocol, c.config.Family).String(), func(t *testing.T) {
			mac := net.HardwareAddr(macOf(c.config)).String()
			for _, h := range []*lab.Host{a, b} {
				h.Run("ip", "link", "add", "link", "eth0", "name", fmt.Sprint("virtual", n), "address", mac, "type", "macvlan", "mode", "private")
				h.Run("ip", "link", "set", fmt.Sprint("virtual", n), "up")
				defer h.Run("ip", "link", "del", fmt.Sprint("virtual", n))
			}
			c.config.SourceMAC = link.Virtual
			sender, receiver := attach(t, a, open(t, a), c.config), attach(t, b, open(t, b), c.config)
			defer sender.Close()
			defer receiver.Close()
			awaitUp(t, sender, complete)
			awaitUp(t, receiver, complete)
			for range 3 {
				if err := sender.Send(c.frame); err != nil {
					t.Fatal(err)
				}
				if p := next(t, receiver, true).Packet; net.HardwareAddr(p.SrcMAC[:]).String() != mac || p.Dst != c.frame.Dst {
					t.Errorf("got %+v, want from %s", p, mac)
				}
			}
		})
	}
}

func macOf(c link.PortConfig) []byte {
	mac := carp.VirtualMACOf(c.Protocol, c.Family, c.VHID)
	return mac[:]
}

func TestLabClaimsExcludeTheSameKindOnly(t *testing.T) {
	_, a, _ := hosts(t)
	i := open(t, a)
	// What an older carpd binds for CARP.
	var older net.Listener
	if err := a.DoErr(func() (err error) { older, err = net.Listen("unix", "@carpd/eth0/9"); return err }); err != nil {
		t.Fatal(err)
	}
	two, six := attach(t, a, i, vrrp2), attach(t, a, i, vrrp3v6)
	refused := func(config link.PortConfig, kind link.Kind, message string) {
		t.Helper()
		err := a.DoErr(func() error { _, err := i.Attach(config); return err })
		var e *link.BusyError
		if !errors.As(err, &e) || e.Kind != kind || e.VHID != vhid || !strings.HasPrefix(err.Error(), "link: attach "+message+": already in use by process") {
			t.Errorf("got %v, want %s busy", err, message)
		}
	}
	refused(both, link.KindCARP, "vhid 9 on eth0")
	refused(vrrp3, link.KindVRRP4, "vrid 9 of VRRP over IPv4 on eth0")
	refused(vrrp3v6, link.KindVRRP6, "vrid 9 of VRRP over IPv6 on eth0")
	if got := held(a); fmt.Sprint(got) != "[eth0/9 eth0/vrrp4/9 eth0/vrrp6/9]" {
		t.Errorf("held are %v", got)
	}
	older.Close()
	two.Close()
	attach(t, a, i, both)
	attach(t, a, i, vrrp3)
	six.Close()
	if got := held(a); fmt.Sprint(got) != "[eth0/9 eth0/vrrp4/9]" {
		t.Errorf("held are %v", got)
	}
}

func TestLabVRRPJoinsTheGroupOfItsFamilyAlone(t *testing.T) {
	_, a, _ := hosts(t)
	i := open(t, a)
	config := vrrp3v6
	config.IPv4 = true
	attach(t, a, i, config)
	lab.Eventually(t, wait, "the membership", func() bool {
		return strings.Contains(a.Run("ip", "maddr", "show", "dev", "eth0"), "ff02::12")
	})
	if list := a.Run("ip", "maddr", "show", "dev", "eth0"); strings.Contains(list, "224.0.0.18") {
		t.Errorf("memberships:\n%s", list)
	}
}
