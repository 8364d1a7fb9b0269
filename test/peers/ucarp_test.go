package peers

import (
	"flag"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// TestMain lets many tests run at once, however few the cores: they wait for
// timers of seconds. -parallel still has the last word.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	lab.Main(m)
}

func TestLabTwoUcarpsShareAnAddress(t *testing.T) {
	t.Parallel()
	lan := lab.New(t)
	vip := netip.MustParsePrefix("192.0.2.50/32")
	a, b := lan.Host("a", "192.0.2.1/24"), lan.Host("b", "192.0.2.2/24")
	capture := lan.Capture()
	o := UcarpOptions{VHID: 9, Password: "lab", Source: netip.MustParseAddr("192.0.2.1"), Address: vip, Shutdown: true, Preempt: true}
	pa := Ucarp(t, a, o)
	lab.Eventually(t, 10*time.Second, "a to hold the address", func() bool { return a.HasAddr(vip.Addr()) })
	o.Source, o.AdvSkew = netip.MustParseAddr("192.0.2.2"), 100
	Ucarp(t, b, o)
	if _, ok := capture.WaitFor(10*time.Second, func(f lab.Frame) bool {
		return f.Host == "a" && len(f.Data) >= 70 && f.Data[23] == 112 && f.Data[34] == 0x21 && f.Data[35] == 9
	}); !ok {
		t.Fatal("no CARP advert with vhid 9 from a")
	}
	mark := capture.Len()
	pa.Signal(syscall.SIGTERM)
	lab.Eventually(t, 10*time.Second, "b to hold the address", func() bool { return b.HasAddr(vip.Addr()) })
	if _, ok := capture.WaitAfter(mark, 5*time.Second, lab.GratuitousARP(vip.Addr())); !ok {
		t.Error("b did not announce the address")
	}
	if a.HasAddr(vip.Addr()) || !strings.Contains(pa.Output(), "vip-down") {
		t.Errorf("a still has the address after SIGTERM; it wrote:\n%s", pa.Output())
	}
}
