package track_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/track"
)

func TestMain(m *testing.M) { lab.Main(m) }

// watched is a node that probes a gateway on a switched LAN.
type watched struct {
	lan           *lab.LAN
	node, gateway *lab.Host
	probe         *track.Gateway

	mu   sync.Mutex
	side track.Side
	said []track.Verdict
}

const soon = 5 * time.Second

func watch(t *testing.T, address string, sources ...string) *watched {
	t.Helper()
	w := &watched{lan: lab.New(t, lab.Switched(1))}
	w.node = w.lan.Host("node", "192.0.2.5/24", "2001:db8::5/64")
	w.gateway = w.lan.Host("gateway", "192.0.2.1/24", "2001:db8::1/64")
	w.side.Up = true
	for _, s := range sources {
		w.side.Addresses = append(w.side.Addresses, netip.MustParseAddr(s))
	}
	err := w.node.DoErr(func() (err error) {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		w.side.Index, w.side.MAC = i.Index, carp.MAC(i.HardwareAddr)
		w.probe, err = track.Open(track.Config{
			Address: netip.MustParseAddr(address), Interval: 20 * time.Millisecond, Side: w.now,
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.probe.Run(ctx, w.report) })
	t.Cleanup(func() {
		stop()
		running.Wait()
		if err := w.probe.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *watched) now() track.Side {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.side
}

func (w *watched) set(change func(*track.Side)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.side)
}

func (w *watched) report(v track.Verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, v)
}

func (w *watched) await(t *testing.T, want track.Verdict) {
	t.Helper()
	lab.Eventually(t, soon, "the verdict "+want.String(), func() bool { return w.probe.Status().Verdict == want })
}

func (w *watched) says(t *testing.T, want ...track.Verdict) {
	t.Helper()
	lab.Eventually(t, soon, "all reports", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.Equal(w.said, want)
	})
}

func TestGatewayIsGoodWhileItAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		address string
		sources []string
	}{
		"IPv4":                             {"192.0.2.1", []string{"192.0.2.5"}},
		"IPv4 without an address":          {"192.0.2.1", nil},
		"IPv6":                             {"2001:db8::1", []string{"2001:db8::5"}},
		"IPv6 from the link-local address": {"2001:db8::1", []string{"fe80::ff:fe00:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t, c.address, c.sources...)
			w.await(t, track.Good)
			for _, cut := range []*lab.Link{
				w.lan.Link(w.node, w.gateway), w.lan.Link(w.gateway, w.node), w.lan.Between(w.node, w.gateway),
			} {
				cut.Cut()
				w.await(t, track.Failed)
				cut.Join()
				w.await(t, track.Good)
			}
			w.says(t, track.Good, track.Failed, track.Good, track.Failed, track.Good, track.Failed, track.Good)
			if s := w.probe.Status(); s.Trouble != "" || s.RTT <= 0 || s.Answered.IsZero() || s.Missed < 9 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestProbeSaysNothingOfAnInterfaceThatIsDown(t *testing.T) {
	w := watch(t, "192.0.2.1", "192.0.2.5")
	w.await(t, track.Good)
	w.set(func(s *track.Side) { s.Up = false })
	before := w.probe.Status().Missed
	lab.Eventually(t, soon, "ten rounds", func() bool { return w.probe.Status().Missed > before+10 })
	w.says(t, track.Good)
	if s := w.probe.Status(); !strings.Contains(s.Trouble, "down") {
		t.Errorf("%+v", s)
	}
	w.set(func(s *track.Side) { s.Up = true })
	lab.Eventually(t, soon, "an answer", func() bool { return w.probe.Status().Trouble == "" })
}

func TestProbeWithoutAnIPv6AddressFailsAndSaysWhy(t *testing.T) {
	w := watch(t, "2001:db8::1")
	w.await(t, track.Failed)
	if s := w.probe.Status(); !strings.Contains(s.Trouble, "no IPv6 address") {
		t.Errorf("%+v", s)
	}
}

// The probe must not claim an address, whichever it is asked from.
func TestProbeAnnouncesNoSharedAddress(t *testing.T) {
	w := watch(t, "192.0.2.1")
	wire := w.lan.Capture()
	w.node.Run("ip", "addr", "add", "192.0.2.50/24", "dev", "eth0") // shared, so not among Side.Addresses
	w.await(t, track.Good)
	w.lan.Between(w.node, w.gateway).Cut()
	w.await(t, track.Failed)
	w.lan.Between(w.node, w.gateway).Join()
	w.await(t, track.Good)
	requests := 0
	for _, f := range wire.Packets() {
		if f.Host != "node" || len(f.Data) < 42 || f.Data[12] != 8 || f.Data[13] != 6 || f.Data[21] != 1 {
			continue
		}
		if netip.AddrFrom4([4]byte(f.Data[38:])) != netip.MustParseAddr("192.0.2.1") {
			continue
		}
		requests++
		if from := netip.AddrFrom4([4]byte(f.Data[28:])); !from.IsUnspecified() {
			t.Fatalf("a request from %v", from)
		}
	}
	if requests < 5 {
		t.Errorf("%d requests", requests)
	}
	if out := w.gateway.Run("ip", "neigh"); strings.Contains(out, "192.0.2.50") {
		t.Errorf("the gateway learned the shared address: %s", out)
	}
}

func TestProbeSurvivesTheGatewayBeingReplaced(t *testing.T) {
	w := watch(t, "192.0.2.1", "192.0.2.5")
	w.await(t, track.Good)
	w.gateway.Run("ip", "addr", "del", "192.0.2.1/24", "dev", "eth0")
	w.await(t, track.Failed)
	w.lan.Host("other", "192.0.2.1/24") // with another MAC
	w.await(t, track.Good)
}
