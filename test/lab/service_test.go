package lab

import (
	"net/netip"
	"testing"
	"time"
)

// A host serves an address while it has it, and not before or after.
func TestServiceIsThereWhileTheHostHasTheAddress(t *testing.T) {
	lan, a, b := pair(t)
	wire, shared := lan.Capture(), netip.MustParseAddr("192.0.2.50")
	b.Serve(shared)
	a.AskARP(shared)
	replies := func(f Frame) bool {
		return f.Host == "b" && len(f.Data) >= 42 && f.Data[12] == 8 && f.Data[13] == 6 && f.Data[21] == 2 &&
			netip.AddrFrom4([4]byte(f.Data[28:])) == shared
	}
	probes := map[string]*Prober{"udp": a.ProbeUDP(shared), "tcp": a.ProbeTCP(netip.MustParseAddr("192.0.2.1"), shared), "icmp": a.Probe(shared)}
	for name, p := range probes {
		if sent, answered := p.Counts(); answered > 0 {
			t.Errorf("%s: %d of %d answered without the address", name, answered, sent)
		}
	}
	b.Run("ip", "addr", "add", "192.0.2.50/24", "dev", "eth0")
	for name, p := range probes {
		awaitAnswer(t, p, name+" to be answered")
	}
	if _, ok := wire.WaitFor(5*time.Second, replies); !ok {
		t.Error("the ARP probe was not answered")
	}
	b.Run("ip", "addr", "del", "192.0.2.50/24", "dev", "eth0")
	for name, p := range probes {
		awaitSilence(t, p, name+" to be silent")
	}
}
