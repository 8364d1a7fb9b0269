package vip_test

import (
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/vip"
	"golang.org/x/sys/unix"
)

// shouter sends frames on a host's eth0.
func shouter(t testing.TB, h *lab.Host) func(frame []byte) error {
	t.Helper()
	k := openOn(t, h)
	l, err := k.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	if err := h.DoErr(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "shouter")
	t.Cleanup(func() { file.Close() })
	return func(frame []byte) error {
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Index, Halen: 6})
	}
}

// Shout implements viptest.Neighbour.
func (d dialer) Shout(frame []byte) {
	if err := shouter(d.TB, d.client)(frame); err != nil {
		d.Error(err)
	}
}

func arpOf(mac carp.MAC, addr netip.Addr) []byte {
	a := addr.As4()
	f := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac[:]...)
	f = append(f, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
	f = append(append(f, mac[:]...), a[:]...)
	return append(f, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
}

// TestLabStormOfARPIsReadSlowlyAndCounted sends 20 000 claims in a second: a tenth is
// read at most, what was not is counted, and afterwards claims are heard as before.
func TestLabStormOfARPIsReadSlowlyAndCounted(t *testing.T) {
	lan := lab.New(t)
	h, other := lan.Host("a", "192.0.2.1/24"), lan.Host("b", "192.0.2.2/24")
	k, shout := openOn(t, h), shouter(t, other)
	l, err := k.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	var read, skipped, last atomic.Uint64
	final := netip.MustParseAddr("192.0.2.200")
	stop, err := k.WatchNeighbours(l.Index, func(c vip.Claim) {
		read.Add(1)
		skipped.Add(c.Skipped)
		if c.Addr == final {
			last.Add(1)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	const storm = 20_000
	frame := arpOf(carp.MAC{2, 0, 0, 0, 0, 0x99}, netip.MustParseAddr("192.0.2.99"))
	began := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for sent := 0; sent < storm; <-tick.C {
		for due := min(storm, int(time.Since(began).Milliseconds())*storm/1000); sent < due; sent++ {
			if err := shout(frame); err != nil {
				t.Fatal(err)
			}
		}
	}
	took := time.Since(began)
	n := read.Load()
	// A half of the rate is ARP's; a slot at each end, and what one holds back.
	if most := uint64(took.Seconds()*vip.ClaimRate/2) + 2*vip.ClaimRate/20; n > most {
		t.Errorf("%d claims were read in %v, want %d at most", n, took, most)
	}
	lab.Eventually(t, 5*time.Second, "a claim after the storm to be heard", func() bool {
		if err := shout(arpOf(carp.MAC{2, 0, 0, 0, 0, 0x98}, final)); err != nil {
			t.Fatal(err)
		}
		return last.Load() > 0
	})
	if skipped.Load() == 0 {
		t.Error("nothing was counted as skipped")
	}
	t.Logf("%d claims in %v: %d read, %d counted as skipped", storm, took.Round(time.Millisecond), n, skipped.Load())
}

// TestLabWatchedInterfacesAreToldApart watches two interfaces, of which one
// hears claims.
func TestLabWatchedInterfacesAreToldApart(t *testing.T) {
	lan := lab.New(t)
	h, other := lan.Host("a", "192.0.2.1/24"), lan.Host("b", "192.0.2.2/24")
	lab.New(t).Join(h, "eth1", "198.51.100.1/24")
	k, shout := openOn(t, h), shouter(t, other)
	heard := map[string]*atomic.Uint64{"eth0": {}, "eth1": {}}
	for name, n := range heard {
		l, err := k.Link(name)
		if err != nil {
			t.Fatal(err)
		}
		stop, err := k.WatchNeighbours(l.Index, func(c vip.Claim) {
			if c.Addr == netip.MustParseAddr("192.0.2.99") {
				n.Add(1)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
	}
	for range 3 {
		if err := shout(arpOf(carp.MAC{2, 0, 0, 0, 0, 0x99}, netip.MustParseAddr("192.0.2.99"))); err != nil {
			t.Fatal(err)
		}
	}
	lab.Eventually(t, 3*time.Second, "eth0 to hear all", func() bool { return heard["eth0"].Load() == 3 })
	if n := heard["eth1"].Load(); n != 0 {
		t.Errorf("eth1 was told of %d claims of eth0", n)
	}
}
