package viptest

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/vip"
)

// Neighbour is what Conformance needs beside a vip.Kernel to see what WatchNeighbours
// hears. A FakeKernel is one.
type Neighbour interface {
	// Shout sends a frame from another host of LinkName's segment.
	Shout(frame []byte)
}

// Shout implements Neighbour.
func (k *FakeKernel) Shout(frame []byte) {
	if c, ok := vip.ParseClaim(frame); ok {
		k.Claim(LinkName, c)
	}
}

// arp returns a broadcast ARP request of a sender.
func arp(mac carp.MAC, addr [4]byte) []byte {
	f := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac[:]...)
	f = append(f, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
	f = append(append(f, mac[:]...), addr[:]...)
	f = append(append(f, 0, 0, 0, 0, 0, 0), addr[:]...)
	return f[:60]
}

// advertisement returns a neighbour advertisement to all nodes, without its checksum.
func advertisement(mac carp.MAC, addr netip.Addr) []byte {
	target, all := addr.As16(), netip.MustParseAddr("ff02::1").As16()
	f := append([]byte{0x33, 0x33, 0, 0, 0, 1}, mac[:]...)
	f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255)
	f = append(append(f, target[:]...), all[:]...)
	f = append(f, 136, 0, 0, 0, 0x20, 0, 0, 0)
	f = append(append(f, target[:]...), 2, 1)
	return append(f, mac[:]...)
}

// hearing keeps what was heard.
type hearing struct {
	mu  sync.Mutex
	all []vip.Claim
}

func (h *hearing) hear(c vip.Claim) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, c)
}

// of counts what was heard of an address.
func (h *hearing) of(addr string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.all {
		if c.Addr == netip.MustParseAddr(addr) {
			n++
		}
	}
	return n
}

func testNeighbours(s suite) {
	n, ok := s.k.(Neighbour)
	if !ok {
		s.Skip("the kernel under test has no neighbours")
	}
	if _, err := s.k.WatchNeighbours(987654, func(vip.Claim) {}); err == nil {
		s.Error("WatchNeighbours of no interface: no error")
	}
	mac := carp.MAC{2, 0, 0, 0, 0, 0x77}
	var first, second hearing
	stop, err := s.k.WatchNeighbours(s.link.Index, first.hear)
	if err != nil {
		s.Fatalf("WatchNeighbours: %v", err)
	}
	stopSecond, err := s.k.WatchNeighbours(s.link.Index, second.hear)
	if err != nil {
		s.Fatalf("WatchNeighbours again: %v", err)
	}
	defer stopSecond()
	own := arp(s.link.MAC, [4]byte{192, 0, 2, 70})
	if err := s.k.Send(context.Background(), s.link.Index, [][]byte{own}, nil); err != nil {
		s.Fatal(err)
	}
	n.Shout(arp(mac, [4]byte{})) // a probe
	n.Shout(arp(mac, [4]byte{192, 0, 2, 71}))
	n.Shout(advertisement(mac, netip.MustParseAddr("2001:db8::71")))
	for _, addr := range []string{"192.0.2.71", "2001:db8::71"} {
		eventually(s.T, 2*time.Second, addr+" to be heard twice", func() bool { return first.of(addr) == 1 && second.of(addr) == 1 })
	}
	stop()
	n.Shout(arp(mac, [4]byte{192, 0, 2, 72}))
	eventually(s.T, 2*time.Second, "the second watcher to hear", func() bool { return second.of("192.0.2.72") == 1 })
	if first.of("192.0.2.72") != 0 {
		s.Error("a claim came after stop")
	}
	if second.of("192.0.2.70") != 0 || second.of("0.0.0.0") != 0 {
		s.Errorf("heard %v, want neither what the host sent itself nor a probe", second.all)
	}
	for _, c := range second.all {
		if c.Addr == netip.MustParseAddr("2001:db8::71") && (c.MAC != mac || c.From != mac) {
			s.Errorf("heard %v, want the MAC %v", c, mac)
		}
	}
}
