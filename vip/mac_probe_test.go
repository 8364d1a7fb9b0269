package vip_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/vip"
)

// prober is a neighbour that asks by raw frames, so that no cache of its own keeps
// quiet about who answers, and who not.
type prober struct {
	testing.TB
	k    vip.Kernel
	link vip.Link
	c    *lab.Capture
	at   string // the host that is asked
}

func newProber(t testing.TB, lan *lab.LAN, from, at *lab.Host) prober {
	k := openOn(t, from)
	l, err := k.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return prober{t, k, l, lan.Capture(), at.Name}
}

// ask sends a question and returns the Ethernet sources of the answers from the
// host within the time; the first is enough if wait is not until the end.
func (p prober) ask(frame []byte, within time.Duration, all bool, answer func(f []byte) bool) (from []carp.MAC) {
	p.Helper()
	mark := p.c.Len()
	if err := p.k.Send(p.Context(), p.link.Index, [][]byte{frame}, nil); err != nil {
		p.Fatalf("Send: %v", err)
	}
	p.c.WaitAfter(mark, within, func(f lab.Frame) bool {
		if f.Host == p.at && answer(f.Data) {
			from = append(from, carp.MAC(f.Data[6:12]))
		}
		return len(from) > 0 && !all
	})
	return from
}

// question returns a request for the neighbour who has addr, and its answer.
func (p prober) question(src, addr netip.Addr) (frame []byte, answer func([]byte) bool) {
	if addr.Is4() {
		s, a := src.As4(), addr.As4()
		frame = append(unhexed("ffffffffffff"), p.link.MAC[:]...)
		frame = append(frame, unhexed("0806 0001080006040001")...)
		frame = append(append(frame, p.link.MAC[:]...), s[:]...)
		frame = append(append(frame, 0, 0, 0, 0, 0, 0), a[:]...)
		return frame, func(f []byte) bool {
			return len(f) >= 42 && bytes.Equal(f[12:22], unhexed("0806 0001080006040002")) && bytes.Equal(f[28:32], a[:])
		}
	}
	s, a := src.As16(), addr.As16()
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	copy(group[13:], a[13:])
	body := append(unhexed("8700 0000 00000000"), a[:]...)
	body = append(append(body, 1, 1), p.link.MAC[:]...)
	frame = append(append([]byte{0x33, 0x33}, group[12:]...), p.link.MAC[:]...)
	return ipv6(frame, s, group, body), func(f []byte) bool {
		return len(f) >= 78 && f[12] == 0x86 && f[20] == 58 && f[54] == 136 && bytes.Equal(f[62:78], a[:])
	}
}

// echo returns an echo request for addr at mac, and its answer.
func (p prober) echo(mac carp.MAC, src, addr netip.Addr) (frame []byte, answer func([]byte) bool) {
	frame = append(append([]byte(nil), mac[:]...), p.link.MAC[:]...)
	if addr.Is6() {
		a := addr.As16()
		return ipv6(frame, src.As16(), a, unhexed("8000 0000 00010001")), func(f []byte) bool {
			return len(f) >= 62 && f[12] == 0x86 && f[20] == 58 && f[54] == 129 && bytes.Equal(f[22:38], a[:])
		}
	}
	s, a := src.As4(), addr.As4()
	head := append(append(unhexed("4500 001c 0001 0000 4001 0000"), s[:]...), a[:]...)
	binary.BigEndian.PutUint16(head[10:], internetSum(head))
	body := unhexed("0800 0000 00010001")
	binary.BigEndian.PutUint16(body[2:], internetSum(body))
	frame = append(append(append(frame, 0x08, 0x00), head...), body...)
	return frame, func(f []byte) bool {
		return len(f) >= 42 && f[12] == 0x08 && f[13] == 0 && f[23] == 1 && f[34] == 0 && bytes.Equal(f[26:30], a[:])
	}
}

func ipv6(frame []byte, src, dst [16]byte, body []byte) []byte {
	pseudo := append(append(append([]byte(nil), src[:]...), dst[:]...), 0, 0, 0, byte(len(body)), 0, 0, 0, 58)
	binary.BigEndian.PutUint16(body[2:], internetSum(append(pseudo, body...)))
	frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(body)), 58, 255)
	return append(append(append(frame, src[:]...), dst[:]...), body...)
}

func internetSum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
