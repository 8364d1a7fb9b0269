package link_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/test/lab"
)

// isCARP finds a frame of protocol 112, of either family and without options.
func isCARP(f lab.Frame) bool {
	return len(f.Data) > 34 && (f.Data[12] == 0x08 && f.Data[13] == 0 && f.Data[23] == 112 ||
		f.Data[12] == 0x86 && f.Data[20] == 112)
}

func TestLabAdvertsLeaveAsAppendFrameBuildsThem(t *testing.T) {
	lan, a, _ := hosts(t)
	capture := lan.Capture()
	i := open(t, a)
	for _, tt := range []struct {
		name   string
		config link.PortConfig
		mac    carp.MAC
		tos    uint8
	}{
		{"virtual MAC", link.PortConfig{VHID: vhid}, carp.VirtualMAC(vhid), 0x10},
		{"own MAC, FreeBSD's TOS", link.PortConfig{VHID: vhid, SourceMAC: link.InterfaceMAC, TOS: 0xe0}, carp.MAC{2, 0, 0, 0, 0, 1}, 0xe0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := attach(t, a, i, tt.config)
			defer l.Close()
			local := awaitUp(t, l, complete)
			if local.IPv4 != addrA || local.MAC != (carp.MAC{2, 0, 0, 0, 0, 1}) {
				t.Errorf("own side %+v", local)
			}
			for _, dst := range []netip.Addr{group4, group6} {
				mark := capture.Len()
				send(t, l, dst, 1)
				got, ok := capture.WaitAfter(mark, wait, isCARP)
				if !ok {
					t.Fatalf("nothing to %v on the wire", dst)
				}
				want := carp.AppendFrame(nil, tt.mac, local, carp.Frame{Dst: dst, Payload: advert(1)}, carp.IPHeader{TOS: tt.tos})
				if !bytes.Equal(got.Data, want) {
					t.Errorf("on the wire %x\nwant        %x", got.Data, want)
				}
			}
		})
	}
}

func TestLabUnicastReachesThePeerAlone(t *testing.T) {
	lan, a, b := hosts(t)
	c := lan.Host("c", "192.0.2.3/24", "2001:db8::3/64")
	config := link.PortConfig{VHID: vhid, Peers: []netip.Addr{addrB, addrB6}}
	sender, receiver := attach(t, a, open(t, a), config), attach(t, b, open(t, b), config)
	third := attach(t, c, open(t, c), both)
	awaitUp(t, sender, complete)
	local := awaitUp(t, receiver, complete)
	capture := lan.Capture()
	for _, tt := range []struct{ src, dst netip.Addr }{
		{addrA, addrB}, {addrA6, addrB6}, {netip.Addr{}, local.IPv6},
	} {
		mark := capture.Len()
		send(t, sender, tt.dst, 3)
		p := next(t, receiver, true).Packet
		if p.Dst != tt.dst || p.TTL != 255 || p.Broadcast || !bytes.Equal(p.Payload, advert(3)) {
			t.Errorf("to %v: got %+v", tt.dst, p)
		}
		if tt.src.IsValid() && p.Src != tt.src {
			t.Errorf("to %v: from %v, want %v", tt.dst, p.Src, tt.src)
		}
		if tt.dst.IsLinkLocalUnicast() && !p.Src.IsLinkLocalUnicast() {
			t.Errorf("to %v: from %v, want a link-local address", tt.dst, p.Src)
		}
		f, ok := capture.WaitAfter(mark, wait, isCARP)
		if !ok {
			t.Fatal("not captured")
		}
		if ip := f.Data[14:]; tt.dst.Is4() && (ip[1] != 0x10 || ip[6] != 0x40) {
			t.Errorf("TOS %#x, flags %#x, want 0x10 and DF", ip[1], ip[6])
		} else if tt.dst.Is6() && binary.BigEndian.Uint16(ip)>>4&0xff != 0x10 {
			t.Errorf("IPv6 header begins %x, want traffic class 0x10", ip[:4])
		}
	}
	send(t, sender, group4, 4)
	if p := next(t, third, true).Packet; p.Payload[35] != 4 {
		t.Errorf("the third node got %+v, which was not for it", p)
	}
	err := third.Send(carp.Frame{VHID: vhid, Dst: addrB, Payload: advert(0)})
	if err == nil || !strings.Contains(err.Error(), "link: send vhid 9 on eth0: no unicast peer") {
		t.Errorf("unicast without peers: %v", err)
	}
}

// injector sends frames as they are.
func injector(t *testing.T, h *lab.Host) func(frame []byte) {
	t.Helper()
	var fd int
	var to unix.SockaddrLinklayer
	h.Do(func() {
		var err error
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		to.Ifindex = i.Index
	})
	t.Cleanup(func() { unix.Close(fd) })
	return func(frame []byte) {
		t.Helper()
		if err := unix.Sendto(fd, frame, 0, &to); err != nil {
			t.Fatal(err)
		}
	}
}

// alter returns frame with bytes replaced, and the IPv4 header checksum made
// right again.
func alter(frame []byte, offset int, with ...byte) []byte {
	frame = bytes.Clone(frame)
	copy(frame[offset:], with)
	if frame[12] == 0x08 && offset >= 14 {
		frame[24], frame[25] = 0, 0
		var sum uint32
		for i := 14; i < 34; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(frame[i:]))
		}
		sum = sum>>16 + sum&0xffff
		binary.BigEndian.PutUint16(frame[24:], ^uint16(sum>>16+sum))
	}
	return frame
}

func tagged(frame []byte, tci uint16) []byte {
	out := append(bytes.Clone(frame[:12]), 0x81, 0x00, byte(tci>>8), byte(tci))
	return append(out, frame[12:]...)
}

func TestLabFramesThatAreNotOursAreRefused(t *testing.T) {
	_, a, b := hosts(t)
	inject, i := injector(t, a), open(t, b)
	l := attach(t, b, i, both)
	awaitUp(t, l, complete)
	good := carp.AppendFrame(nil, carp.VirtualMAC(vhid), carp.Local{IPv4: addrA, IPv6: addrA6}, carp.Frame{Dst: group4, Payload: advert(1)}, carp.IPHeader{})
	good6 := carp.AppendFrame(nil, carp.VirtualMAC(vhid), carp.Local{IPv4: addrA, IPv6: addrA6}, carp.Frame{Dst: group6, Payload: advert(1)}, carp.IPHeader{})
	toB := alter(alter(good, 0, 2, 0, 0, 0, 0, 2), 30, addrB.AsSlice()...)
	extended := func(first, second byte) []byte {
		frame := append(bytes.Clone(good6[:54]), second, 0, 1, 4, 0, 0, 0, 0)
		frame = append(frame, good6[54:]...)
		frame[19], frame[20] = 44, first
		return frame
	}
	b.Run("ip", "link", "set", "eth0", "promisc", "on")
	// Frames with a wrong header checksum are the decoder's test: a bridge may
	// keep them back.
	tests := []struct {
		name  string
		frame []byte
		want  link.Stats
	}{
		{"an advert", good, link.Stats{Received: 1}},
		{"an IPv6 advert", good6, link.Stats{Received: 1}},
		{"behind destination options", extended(60, 112), link.Stats{Received: 1}},
		{"behind hop-by-hop options", extended(0, 112), link.Stats{Received: 1}},
		{"no advert behind hop-by-hop options", extended(0, 58), link.Stats{}},
		{"to an own address", toB, link.Stats{Received: 1}},
		{"to own MAC, for another address", alter(toB, 30, 203, 0, 113, 9), link.Stats{}},
		{"to another MAC", alter(toB, 0, 2, 0, 0, 0, 0, 9), link.Stats{}},
		{"another vhid", alter(good, 35, vhid+1), link.Stats{}},
		{"another vhid over IPv6", alter(good6, 55, vhid+1), link.Stats{}},
		{"one byte of payload", alter(good, 16, 0, 21), link.Stats{}}, // a bridge has cut off the rest
		{"a fragment", alter(good, 20, 0x20, 0), link.Stats{BadFrames: 1}},
		{"UDP", alter(good, 23, 17), link.Stats{}},
		{"UDP over IPv6", alter(good6, 20, 17), link.Stats{}},
		{"ARP", alter(good, 12, 8, 6), link.Stats{}},
		{"priority tag", tagged(good, 5<<13), link.Stats{Received: 1}},
		{"of a VLAN", tagged(good, 5<<13|7), link.Stats{}},
	}
	var before link.Stats
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inject(tt.frame)
			inject(good) // when this one is there, so was the other
			tt.want.Received++
			for range tt.want.Received {
				next(t, l, true)
			}
			after := i.Stats()
			got := link.Stats{
				Received: after.Received - before.Received, UnknownVHID: after.UnknownVHID - before.UnknownVHID,
				BadFrames: after.BadFrames - before.BadFrames, Foreign: after.Foreign - before.Foreign,
			}
			before = after
			if got != tt.want {
				t.Errorf("counted %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestLabMissingCapabilityIsNamed(t *testing.T) {
	_, a, _ := hosts(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread goes with its capabilities
		done <- a.DoErr(func() error {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var data [2]unix.CapUserData
			if err := unix.Capget(&header, &data[0]); err != nil {
				return err
			}
			data[0].Effective &^= 1 << unix.CAP_NET_RAW
			if err := unix.Capset(&header, &data[0]); err != nil {
				return err
			}
			i, err := link.Open("eth0", link.Options{})
			if err == nil {
				i.Close()
			}
			return err
		})
	}()
	err := <-done
	if !errors.Is(err, os.ErrPermission) {
		t.Fatalf("got %v, want os.ErrPermission", err)
	}
	if s := err.Error(); !strings.HasPrefix(s, "link: open eth0: operation not permitted (CAP_NET_RAW is missing") {
		t.Errorf("message %q", s)
	}
}

func TestOpenRefusesImpossibleNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a b", "a/b", "sixteen-bytes-xx", "x\n"} {
		i, err := link.Open(name, link.Options{})
		var e *link.OpError
		if !errors.As(err, &e) {
			t.Errorf("%q: %v, want an OpError", name, err)
		}
		if err == nil {
			i.Close()
		}
	}
}

func TestLabAttachRefusesWhatCannotBe(t *testing.T) {
	_, a, _ := hosts(t)
	i := open(t, a)
	if _, err := i.Attach(link.PortConfig{}); err == nil || !strings.Contains(err.Error(), "vhid 0 is not allowed") {
		t.Errorf("vhid 0: %v", err)
	}
	i.Close()
	if _, err := i.Attach(both); !errors.Is(err, link.ErrClosed) {
		t.Errorf("attach to a closed interface: %v", err)
	}
}

// descriptors lists the open descriptors of this process with their flags.
func descriptors(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	paths, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		target, err1 := os.Readlink(path)
		info, err2 := os.ReadFile(strings.Replace(path, "/fd/", "/fdinfo/", 1))
		if err1 == nil && err2 == nil && strings.HasPrefix(target, "socket:") {
			found[target] = string(info)
		}
	}
	return found
}

func TestLabSocketsAreCloseOnExecAndClosedByClose(t *testing.T) {
	_, a, _ := hosts(t)
	before := descriptors(t)
	i := open(t, a)
	l := attach(t, a, i, link.PortConfig{VHID: vhid, IPv4: true, IPv6: true, Peers: []netip.Addr{addrB, addrB6}})
	opened := 0
	for socket, info := range descriptors(t) {
		if _, old := before[socket]; old {
			continue
		}
		opened++
		var flags int
		_, line, _ := strings.Cut(info, "flags:")
		if _, err := fmt.Sscanf(line, "%o", &flags); err != nil || flags&unix.O_CLOEXEC == 0 {
			t.Errorf("%s is not close-on-exec: %s (%v)", socket, info, err)
		}
	}
	if opened < 8 { // packet, two netlink, two groups, claim, two raw
		t.Errorf("%d sockets found, want 8", opened)
	}
	for range 2 {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	}
	for range l.Events() { // Close of the interface closes its ports
	}
	for socket := range descriptors(t) {
		if _, old := before[socket]; !old {
			t.Errorf("%s is still open", socket)
		}
	}
}

func BenchmarkLabSend(b *testing.B) {
	_, a, _ := hosts(b)
	l := attach(b, a, open(b, a), link.PortConfig{VHID: vhid, Peers: []netip.Addr{addrB}})
	awaitUp(b, l, complete)
	for _, dst := range []netip.Addr{group4, group6, addrB} {
		b.Run(dst.String(), func(b *testing.B) {
			f := carp.Frame{VHID: vhid, Dst: dst, Payload: advert(0)}
			b.ReportAllocs()
			for b.Loop() {
				if err := l.Send(f); err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS) {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestLabFilterFollowsThePorts: while ports come and go, not one advert of those
// that stay is lost, and what is for nobody does not come up from the kernel.
func TestLabFilterFollowsThePorts(t *testing.T) {
	_, a, b := hosts(t)
	inject, i := injector(t, a), open(t, b)
	stays := attach(t, b, i, link.PortConfig{VHID: vhid, IPv4: true})
	awaitUp(t, stays, func(l carp.Local) bool { return l.IPv4.IsValid() })
	frame := func(id, n byte) []byte {
		payload := advert(n)
		payload[1] = id
		return carp.AppendFrame(nil, carp.VirtualMAC(id), carp.Local{IPv4: addrA}, carp.Frame{Dst: group4, Payload: payload}, carp.IPHeader{})
	}
	for n := range 100 {
		id := byte(100 + n)
		inject(frame(id, 0)) // nobody's yet
		inject(frame(vhid, byte(n)))
		comes := attach(t, b, i, link.PortConfig{VHID: id, IPv4: true, Peers: []netip.Addr{addrA}})
		inject(frame(id, 1)) // its own from the moment that Attach returns
		if got := next(t, comes, true).Packet.Payload; got[1] != id || got[35] != 1 {
			t.Fatalf("the new port got %d of %d", got[35], got[1])
		}
		if err := comes.Close(); err != nil {
			t.Fatal(err)
		}
		inject(frame(id, 2)) // nobody's again
		if got := next(t, stays, true).Packet.Payload[35]; got != byte(n) {
			t.Fatalf("advert %d was lost: %d came", n, got)
		}
	}
	if s := i.Stats(); s.Received != 200 || s.UnknownVHID > 0 {
		t.Errorf("%+v, want 200 received and none that is nobody's", s)
	}
}
