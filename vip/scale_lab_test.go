package vip_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/vip"
)

// permits gives permits each 100 ms, as a loop with advbase 1 does at best, until stop.
func (n *node) permits() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	give := func() { n.set.Permit(carp.Permit{Epoch: 1, Until: bootTime().Add(2900 * time.Millisecond)}) }
	give()
	done.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				give()
			case <-ctx.Done():
				return
			}
		}
	})
	stop = func() { cancel(); done.Wait() }
	n.Cleanup(stop)
	return stop
}

// sharedOf returns which of the addresses an interface has.
func sharedOf(h *lab.Host, prefixes []netip.Prefix) (n int) {
	have := make(map[netip.Prefix]bool)
	for _, p := range h.Addrs("eth0") {
		have[p] = true
	}
	for _, p := range prefixes {
		if have[p] {
			n++
		}
	}
	return n
}

// A node that yields while it puts ten thousand addresses on has none of them from
// then on that the kernel can help: the step under way ends, and all go.
func TestLabYieldAmidTenThousandAddressesLeavesNone(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long, and a machine that is not too busy")
	}
	const count = 10_000
	for name, yield := range map[string]func(n *node){
		"down": func(n *node) {
			if err := n.set.Down(context.Background()); err != nil {
				n.Errorf("Down: %v", err)
			}
		},
		"withdrawn": func(n *node) {
			n.set.Permit(carp.Permit{})
			lab.Eventually(n, 20*time.Second, "the addresses to be off", func() bool { return n.heard(vip.EventWithdrawn) || n.heard(vip.EventDown) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := lab.New(t).Host("a", "192.0.2.1/24")
			all := many(count, false)
			n := newNode(t, h, vip.Config{Addresses: all, Lease: vip.PlanLease(3*time.Second, time.Second)})
			stop := n.permits()
			up := make(chan error, 1)
			go func() { up <- n.set.Up(context.Background(), 1) }()
			lab.Eventually(t, 20*time.Second, "thousands of addresses", func() bool { return sharedOf(h, all) > count/3 })
			stop()
			began, amid := time.Now(), sharedOf(h, all)
			yield(n)
			took := time.Since(began)
			if left := sharedOf(h, all); left != 0 {
				t.Errorf("%d addresses are left", left)
			}
			if err := <-up; !errors.Is(err, vip.ErrSuperseded) {
				t.Errorf("Up: %v, want ErrSuperseded", err)
			}
			t.Logf("%d were on, all gone after %v", amid, took)
			// Nothing comes back: three times what a renewal or a look may take.
			for end := time.Now().Add(time.Second); time.Now().Before(end); {
				if back := sharedOf(h, all); back != 0 {
					t.Fatalf("%d addresses came back", back)
				}
			}
		})
	}
}

// The loop that gives permits hangs, the worker lives, and a foreign address is
// refreshed beside it at the worst of times: by the end of the permit plus what the
// permit leaves, nothing answers.
func TestLabHungLoopWithALivingWorkerAnswersNothingInTime(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long, and a machine that is not too busy")
	}
	for _, phase := range []time.Duration{0, 300, 600, 900} {
		t.Run((phase * time.Millisecond).String(), func(t *testing.T) {
			t.Parallel()
			const down = 3 * time.Second
			lan := lab.New(t)
			h, client := lan.Host("a", "192.0.2.1/24"), lan.Host("client", "192.0.2.100/24")
			n := newNode(t, h, vip.Config{Addresses: prefixesOf("192.0.2.9/24"), Lease: vip.PlanLease(down, time.Second)})
			refresh, end := context.WithCancel(context.Background())
			defer end()
			var refreshing sync.WaitGroup
			defer refreshing.Wait()
			defer end()
			n.set.Permit(carp.Permit{Epoch: 1, Until: bootTime().Add(down - 100*time.Millisecond)})
			last := time.Now() // of the adverts
			if err := n.set.Up(context.Background(), 1); err != nil {
				t.Fatal(err)
			}
			refreshing.Go(func() {
				for wait := phase * time.Millisecond; ; wait = 950 * time.Millisecond {
					select {
					case <-time.After(wait):
					case <-refresh.Done():
						return
					}
					if out, err := h.RunErr("ip", "addr", "replace", "192.0.2.201/24", "dev", "eth0", "valid_lft", "3600", "preferred_lft", "3600"); err != nil {
						t.Errorf("refresh: %v %s", err, out)
					}
				}
			})
			p := client.ProbeEvery(netip.MustParseAddr("192.0.2.9"), 2*time.Millisecond)
			lab.Eventually(t, 10*time.Second, "the end of the permit", func() bool { return n.heard(vip.EventLapsed) })
			<-time.After(time.Until(last.Add(down + 500*time.Millisecond))) // the promise is about this very time
			if p.Last().IsZero() {
				t.Fatal("the address never answered")
			}
			gone := p.Last().Sub(last)
			t.Logf("the last answer came %v after the last advert", gone)
			if gone >= down {
				t.Errorf("it answered %v after the last advert; a backup takes over after %v", gone, down)
			}
		})
	}
}

// One bucket for the interface: five thousand addresses of one set do not keep the
// first announcement of another waiting, and both together are no faster than stated.
func TestLabSetsOfAnInterfaceShareItsPaceInTurns(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long, and a machine that is not too busy")
	}
	lan := lab.New(t)
	h := lan.Host("a", "192.0.2.1/24")
	wire := lan.Capture()
	big := newNode(t, h, vip.Config{Addresses: many(5000, false), Announce: vip.Announce{Repeat: []time.Duration{}}})
	small := &node{TB: t, host: h, k: big.k}
	small.set = vip.New(big.k, vip.Config{Interface: "eth0", VHID: 2, Addresses: prefixesOf("192.0.2.9/24"), Announce: vip.Announce{Repeat: []time.Duration{}}})
	big.up(time.Minute)
	big.set.Announce() // all five thousand again, with the bucket all but empty
	lab.Eventually(t, 5*time.Second, "the second round to begin", func() bool { return len(announcedAt(wire.Packets(), netip.MustParseAddr("10.1.0.0"))) > 1 })
	began := time.Now()
	small.up(time.Minute)
	first, ok := wire.WaitFor(5*time.Second, lab.GratuitousARP(netip.MustParseAddr("192.0.2.9")))
	if !ok {
		t.Fatal("the small set was never announced")
	}
	if wait := first.Time.Sub(began); wait > 100*time.Millisecond { // 3.2 ms a turn, and a busy machine
		t.Errorf("the small set was announced after %v", wait)
	}
	last := netip.MustParseAddr("10.1.19.135")
	lab.Eventually(t, 5*time.Second, "the second round to end", func() bool { return len(announcedAt(wire.Packets(), last)) > 1 })
	var all []time.Time
	for _, f := range wire.Packets() {
		if f.Host == "a" && len(f.Data) >= 42 && binary.BigEndian.Uint16(f.Data[12:]) == 0x0806 {
			all = append(all, f.Time)
		}
	}
	slices.SortFunc(all, time.Time.Compare)
	if len(all) < 10_001 {
		t.Fatalf("%d frames on the wire", len(all))
	}
	for i := vip.FrameBurst; i < len(all); i += 100 {
		for j := i + 2000; j < len(all); j += 1000 {
			if rate := float64(j-i-vip.FrameBurst) / all[j].Sub(all[i]).Seconds(); rate > 1.2*vip.FrameRate {
				t.Fatalf("%d frames within %v", j-i, all[j].Sub(all[i]))
			}
		}
	}
	_ = small.set.Down(context.Background())
}

func announcedAt(frames []lab.Frame, addr netip.Addr) (at []time.Time) {
	is := lab.GratuitousARP(addr)
	for _, f := range frames {
		if is(f) {
			at = append(at, f.Time)
		}
	}
	return at
}
