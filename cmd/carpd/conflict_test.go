package main_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
)

const conflict = "address-conflict"

// noConflict ends the test if a node has ever raised the alarm.
func (n *node) noConflict() {
	n.t.Helper()
	for _, e := range n.events(0) {
		if e.Kind == "alarm" && e.Reason == conflict {
			n.t.Errorf("%s: %s", n.Name, e.Text)
		}
	}
}

// squat gives a stranger addresses of the group, as a machine with an old network
// configuration has them, and lets it use the IPv4 one: each second it asks for a host
// that is not there, which every host of the segment hears. quiet ends that.
func squat(t *testing.T, lan *lab.LAN, prefixes ...string) (s *lab.Host, quiet func()) {
	t.Helper()
	s = lan.Host("squatter", append([]string{"192.0.2.66/24", "2001:db8::66/64"}, prefixes...)...)
	var c net.Conn
	err := s.DoErr(func() (err error) {
		c, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(shared4, 0)), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 222), Port: 9})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var using sync.WaitGroup
	using.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for ctx.Err() == nil {
			_, _ = c.Write([]byte("x")) // nobody answers
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	quiet = sync.OnceFunc(func() {
		cancel()
		using.Wait()
		c.Close()
	})
	t.Cleanup(quiet)
	return s, quiet
}

// macOf returns what a host believes to be the MAC of an address, "" if nothing.
func macOf(h *lab.Host, addr netip.Addr) string {
	out, _ := h.RunErr("ip", "neigh", "show", "to", addr.String(), "dev", "eth0")
	if _, rest, ok := strings.Cut(out, "lladdr "); ok {
		return strings.Fields(rest)[0]
	}
	return ""
}

func ownMAC(h *lab.Host) string {
	_, rest, _ := strings.Cut(h.Run("ip", "link", "show", "eth0"), "link/ether ")
	return strings.Fields(rest)[0]
}

func TestSomebodyElseWithTheAddressIsAnAlarmAndClientsComeBack(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.elect(settings{}, settings{advskew: 100})
	seq := p.a.seq()
	own := ownMAC(p.a.Host)
	began := time.Now()
	s, quiet := squat(t, p.lan, "192.0.2.50/24")
	e := p.a.awaitEvent(seq, "alarm", conflict)
	t.Logf("alarm %v after the stranger came", e.Time.Sub(began).Round(time.Millisecond))
	theirs := ownMAC(s)
	if !strings.Contains(e.Text, theirs) || !strings.Contains(e.Text, shared4.String()) || strings.Contains(e.Text, shared6.String()) {
		t.Errorf("alarm %q, want %s at %s", e.Text, shared4, theirs)
	}
	// The client follows the stranger, who then falls silent, until the next defence.
	p.client.Run("ip", "neigh", "replace", shared4.String(), "lladdr", own, "dev", "eth0", "nud", "stale")
	lab.Eventually(t, soon, "the client to follow the stranger", func() bool { return macOf(p.client, shared4) == theirs })
	quiet()
	silent := time.Now()
	lab.Eventually(t, 13*time.Second, "the client to come back", func() bool { return macOf(p.client, shared4) == own })
	t.Logf("the client came back %v after the stranger was last heard", time.Since(silent).Round(time.Millisecond))
	if st := p.a.instance(); st.State != "MASTER" || p.b.instance().State != "BACKUP" {
		t.Errorf("a is %s and b %s: a conflict moves nothing", st.State, p.b.instance().State)
	}
	p.b.noConflict()
}

func TestConflictIsSeenBesideAVirtualMAC(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	virtual := settings{more: []string{"mac: virtual"}}
	p.elect(virtual, settings{advskew: 100, more: virtual.more})
	p.a.post("/v1/handover", map[string]string{}, nil)
	p.b.await("MASTER") // with the same MAC
	seq := p.b.seq()
	s, _ := squat(t, p.lan, "192.0.2.50/24")
	if e := p.b.awaitEvent(seq, "alarm", conflict); !strings.Contains(e.Text, ownMAC(s)) {
		t.Errorf("alarm %q, want %s", e.Text, ownMAC(s))
	}
	p.a.noConflict()
}

func TestAlarmPolicyDefendsNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	quiet := settings{more: []string{"on_conflict: alarm", "announce_refresh: 0"}}
	p.elect(quiet, settings{advskew: 100})
	seq := p.a.seq()
	lab.Eventually(t, takeover, "the burst of the takeover to be over", func() bool {
		return time.Since(p.a.instance().Since) > 6*time.Second
	})
	mark := p.wire.Len()
	squat(t, p.lan, "192.0.2.50/24")
	p.a.awaitEvent(seq, "alarm", conflict)
	ours := func(f lab.Frame) bool { return f.Host == "a" && lab.GratuitousARP(shared4)(f) }
	if f, ok := p.wire.WaitAfter(mark, 3*time.Second, ours); ok {
		t.Errorf("a announced the address at %v, want no defence", f.Time)
	}
}

func TestTakeoversHandoversAndContestsAreNoConflict(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.elect(settings{}, settings{advskew: 100})
	p.a.post("/v1/handover", map[string]string{}, nil) // planned
	p.b.await("MASTER")
	p.a.post("/v1/resume", map[string]string{}, nil)
	p.b.post("/v1/handover", map[string]string{}, nil)
	p.a.await("MASTER")
	p.b.post("/v1/resume", map[string]string{}, nil)
	p.a.Isolate(true) // two masters
	p.b.await("MASTER")
	p.a.Isolate(false) // a contest, and bursts of both
	p.b.await("BACKUP")
	lab.Eventually(t, takeover, "the contest to be over", func() bool { return p.a.alarm("contested") == "" })
	p.a.noConflict()
	p.a.crash() // a takeover
	p.b.await("MASTER")
	lab.Eventually(t, takeover, "the burst of b to be over", func() bool { return time.Since(p.b.instance().Since) > 7*time.Second })
	p.b.noConflict()
}

// TestStormOfARPDelaysNoAdvert sends 20 000 claims of the shared address in a second.
func TestStormOfARPDelaysNoAdvert(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.elect(settings{}, settings{advskew: 100})
	stranger := p.lan.Host("stranger", "192.0.2.66/24")
	frame := append([]byte{255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 0x99, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0x99, 192, 0, 2, 50}, make([]byte, 28)...)
	e := listen(t, p.b.Host, [4]byte{192, 0, 2, 1})
	from, seq, cpu := e.mark(), p.a.seq(), p.a.cpu()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	sent := inject(ctx, t, stranger, [][]byte{frame}, 20_000, 20_000)
	lab.Eventually(t, takeover, "a few adverts after the storm", func() bool { return e.gaps(from, 9).n >= 6 })
	g := e.gaps(from, 9)
	t.Logf("%d claims; a used %v of a core; adverts: %v", sent, p.a.cpu()-cpu, g)
	if g.max > lateAdvert {
		t.Errorf("an advert came %v after the one before, want %v at most", g.max, lateAdvert)
	}
	if moves := p.a.transitions(seq); len(moves) > 0 || p.b.instance().State != "BACKUP" {
		t.Errorf("the storm moved the role: %v", moves)
	}
}
