package check_test

import (
	"net/netip"
	"testing"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/check"
	"github.com/carpd/carpd/test/lab"
)

func addrs(all ...string) (list []netip.Addr) {
	for _, a := range all {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}

// labSays looks from a host.
func labSays(t *testing.T, h *lab.Host, m hooks.Monitor, want hooks.Health, words string) {
	t.Helper()
	h.Do(func() { says(t, m, want, words) })
}

func TestInterfaceIsWhatTheKernelSays(t *testing.T) {
	lan := lab.New(t)
	h := lan.Host("a", "192.0.2.5/24", "2001:db8::5/64")
	of := func(name string, addresses ...string) hooks.Monitor {
		m, err := check.NewInterface(check.InterfaceConfig{Interface: name, Addresses: addrs(addresses...)})
		return opened(t, m, err)
	}
	plain, addressed := of("eth0"), of("eth0", "192.0.2.5", "2001:db8::5")
	looks := awake(t, addressed, func(f func()) error { return h.DoErr(func() error { f(); return nil }) })
	labSays(t, h, plain, hooks.Healthy, "eth0 is up")
	labSays(t, h, addressed, hooks.Healthy, "has 192.0.2.5, 2001:db8::5")
	labSays(t, h, of("eth9"), hooks.Unfit, "there is no interface eth9")
	labSays(t, h, of("eth0", "192.0.2.6"), hooks.Unfit, "192.0.2.6 is not on eth0")
	labSays(t, h, of("lo"), hooks.Healthy, "lo is up")

	noticed := func(what string, change func()) {
		t.Helper()
		before := looks()
		change()
		lab.Eventually(t, soon, "a look after "+what, func() bool { return looks() > before })
	}
	noticed("an address went", func() { h.Run("ip", "addr", "del", "192.0.2.5/24", "dev", "eth0") })
	labSays(t, h, plain, hooks.Healthy, "up")
	labSays(t, h, addressed, hooks.Unfit, "192.0.2.5 is not on eth0")
	noticed("an address came", func() { h.Run("ip", "addr", "add", "192.0.2.5/24", "dev", "eth0") })
	labSays(t, h, addressed, hooks.Healthy, "")

	noticed("the carrier went", h.Unplug)
	lab.Eventually(t, soon, "no carrier", func() bool {
		unfit := false
		h.Do(func() { r, err := plain.Monitor(t.Context()); unfit = err == nil && r.Health == hooks.Unfit })
		return unfit
	})
	labSays(t, h, plain, hooks.Unfit, "no carrier")
	noticed("the carrier came", h.Plug)
	lab.Eventually(t, soon, "the carrier", func() bool {
		fit := false
		h.Do(func() { r, err := plain.Monitor(t.Context()); fit = err == nil && r.Health == hooks.Healthy })
		return fit
	})
	noticed("it went down", func() { h.SetLink(false) })
	labSays(t, h, plain, hooks.Unfit, "it is down")
}

func TestAddressThatDuplicateDetectionHasNotPassedIsNotThere(t *testing.T) {
	lan := lab.New(t)
	h := lan.Host("a", "192.0.2.5/24")
	h.Sysctl("ipv6/conf/eth0/accept_dad", "1")
	h.Sysctl("ipv6/conf/eth0/dad_transmits", "100")
	h.Run("ip", "addr", "add", "2001:db8::9/64", "dev", "eth0")
	m, err := check.NewInterface(check.InterfaceConfig{Interface: "eth0", Addresses: addrs("2001:db8::9")})
	labSays(t, h, opened(t, m, err), hooks.Unfit, "not fit for use")
}

func TestRouteIsWhatTheKernelWouldUse(t *testing.T) {
	lan := lab.New(t)
	h := lan.Host("a", "192.0.2.5/24", "2001:db8::5/64")
	of := func(destination, gateway, name string, table uint32) hooks.Monitor {
		c := check.RouteConfig{Destination: destination, Interface: name, Table: table}
		if gateway != "" {
			c.Gateway = netip.MustParseAddr(gateway)
		}
		m, err := check.NewRoute(c)
		return opened(t, m, err)
	}
	default4, any4 := of("0.0.0.0/0", "192.0.2.1", "eth0", 0), of("198.51.100.7", "", "", 0)
	looks := awake(t, default4, func(f func()) error { return h.DoErr(func() error { f(); return nil }) })
	labSays(t, h, default4, hooks.Unfit, "no route to 0.0.0.0/0")
	labSays(t, h, any4, hooks.Unfit, "no route to 198.51.100.7")
	labSays(t, h, of("192.0.2.77", "", "eth0", 0), hooks.Healthy, "there is a route")
	labSays(t, h, of("192.0.2.0/24", "", "", 0), hooks.Healthy, "there is a route")
	labSays(t, h, of("192.0.2.0/25", "", "", 0), hooks.Unfit, "no route")
	labSays(t, h, of("192.0.2.77", "192.0.2.1", "", 0), hooks.Unfit, "another way")
	labSays(t, h, of("::/0", "", "", 0), hooks.Unfit, "no route to ::/0")
	labSays(t, h, of("192.0.2.77", "", "eth9", 0), hooks.Unfit, "there is no interface eth9")

	before := looks()
	h.Run("ip", "route", "add", "default", "via", "192.0.2.1")
	lab.Eventually(t, soon, "a look", func() bool { return looks() > before })
	labSays(t, h, default4, hooks.Healthy, "through 192.0.2.1 over eth0")
	labSays(t, h, any4, hooks.Healthy, "there is a route")
	labSays(t, h, of("0.0.0.0/0", "192.0.2.2", "", 0), hooks.Unfit, "another way")
	labSays(t, h, of("0.0.0.0/0", "", "lo", 0), hooks.Unfit, "another way")
	h.Run("ip", "-6", "route", "add", "default", "via", "2001:db8::1")
	labSays(t, h, of("::/0", "2001:db8::1", "eth0", 0), hooks.Healthy, "")
	labSays(t, h, of("2001:db8:ff::1", "2001:db8::1", "", 0), hooks.Healthy, "")

	h.Run("ip", "route", "replace", "default", "nexthop", "via", "192.0.2.1", "nexthop", "via", "192.0.2.2")
	labSays(t, h, of("0.0.0.0/0", "192.0.2.2", "", 0), hooks.Healthy, "")
	h.Run("ip", "route", "add", "203.0.113.0/24", "via", "192.0.2.9", "table", "77")
	labSays(t, h, of("203.0.113.0/24", "192.0.2.9", "", 77), hooks.Healthy, "")
	labSays(t, h, of("203.0.113.0/24", "", "", 0), hooks.Unfit, "no route")
	labSays(t, h, of("203.0.113.0/24", "", "", 78), hooks.Unfit, "no route")
	h.Run("ip", "route", "replace", "blackhole", "198.51.100.0/24")
	labSays(t, h, any4, hooks.Unfit, "no route")
	labSays(t, h, of("198.51.100.0/24", "", "", 0), hooks.Unfit, "refuses")
	h.Run("ip", "route", "replace", "unreachable", "198.51.100.0/24")
	labSays(t, h, any4, hooks.Unfit, "no route")

	h.Unplug()
	lab.Eventually(t, soon, "the route without a carrier to be no route", func() bool {
		unfit := false
		h.Do(func() { r, err := default4.Monitor(t.Context()); unfit = err == nil && r.Health == hooks.Unfit })
		return unfit
	})
	labSays(t, h, default4, hooks.Unfit, "no carrier")
}
