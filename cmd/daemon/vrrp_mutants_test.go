package daemon

import (
	"strings"
	"testing"

	"github.com/carpd/carpd/carp"
)

// CARP has one virtual MAC for both families, VRRP has two (RFC 9568, 7.3).
func TestThePlanOfIPv6HasTheVirtualMACOfIPv6(t *testing.T) {
	p := planned(t, strings.Replace(oneRouter, "192.0.2.50/24", "fe80::50/64", 1)+"    mac: virtual\n")
	if a := p.addresses; a.Device != "vrrp6-51" || a.VirtualMAC != (carp.MAC{0, 0, 0x5e, 0, 2, 51}) {
		t.Errorf("device %q with %v", a.Device, a.VirtualMAC)
	}
}
