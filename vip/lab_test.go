package vip_test

import (
	"testing"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

func TestMain(m *testing.M) { lab.Main(m) }

// openOn returns the kernel of a host, closed at the end of the test.
func openOn(t testing.TB, h *lab.Host) vip.Kernel {
	t.Helper()
	var k vip.Kernel
	var err error
	h.Do(func() { k, err = vip.Open() })
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func TestLabKernelConforms(t *testing.T) {
	lab.New(t) // skips once, not in each part
	viptest.Conformance(t, func(t *testing.T) vip.Kernel {
		h := lab.New(t).Host("a", viptest.Own...)
		h.Sysctl("ipv4/conf/all/promote_secondaries", "0")
		h.Sysctl("ipv4/conf/eth0/promote_secondaries", "0")
		return openOn(t, h)
	})
}

func TestFakeKernelConforms(t *testing.T) {
	viptest.Conformance(t, func(*testing.T) vip.Kernel { return viptest.NewFakeKernel(viptest.Own...) })
}
