package carptest_test

import (
	"net/netip"
	"testing"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/carptest"
)

func TestBusIsALink(t *testing.T) {
	carptest.Conformance(t, func(*testing.T) (a, b carp.Link) {
		bus := carptest.NewBus()
		one, two := carptest.IPv4("192.0.2.1"), carptest.IPv4("192.0.2.2")
		one.IPv6, two.IPv6 = netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::2")
		return bus.Join(one), bus.Join(two)
	})
}
