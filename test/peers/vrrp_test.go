package peers

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
)

var (
	shared4 = []netip.Prefix{netip.MustParsePrefix("10.9.0.50/16")}
	shared6 = []netip.Prefix{netip.MustParsePrefix("fe80::9:50/64"), netip.MustParsePrefix("fd00:9::50/64")}
)

// tenth is the shortest interval that a loaded machine keeps.
const tenth = 100 * time.Millisecond

// TestLabKeepalivedAndFRRShareAnAddress proves the foreign speakers against each
// other, before ours meets them: both begin as told, the better one is master, says
// so with what it was told, and the other takes over when it leaves or dies.
func TestLabKeepalivedAndFRRShareAnAddress(t *testing.T) {
	t.Parallel()
	type start func(lab.TB, *lab.Host, ...VRRP) *Speaker
	for _, c := range []struct {
		name          string
		first, second start
		with          VRRP
	}{
		{"two keepalived, version 3, IPv4", Keepalived, Keepalived, VRRP{Addresses: shared4, Interval: tenth}},
		{"two keepalived, version 3, IPv6", Keepalived, Keepalived, VRRP{Addresses: shared6, Interval: tenth}},
		{"two keepalived, version 2", Keepalived, Keepalived, VRRP{Addresses: shared4, Version: 2, Password: "secret"}},
		{"two keepalived, virtual MAC", Keepalived, Keepalived, VRRP{Addresses: shared4, Interval: tenth, VirtualMAC: true}},
		{"two FRR, version 3, IPv4", FRR, FRR, VRRP{Addresses: shared4, Interval: tenth}},
		{"two FRR, version 3, IPv6", FRR, FRR, VRRP{Addresses: shared6, Interval: tenth}},
		{"keepalived and FRR, version 3, IPv4", Keepalived, FRR, VRRP{Addresses: shared4, Interval: tenth}},
		{"keepalived and FRR, version 3, IPv6", Keepalived, FRR, VRRP{Addresses: shared6, Interval: tenth}},
		{"FRR and keepalived, version 3, IPv6", FRR, Keepalived, VRRP{Addresses: shared6, Interval: tenth}},
		{"two keepalived, authentication header", Keepalived, Keepalived, VRRP{Addresses: shared4, Version: 2, Password: "secret", AH: true}},
		{"FRR and keepalived, version 2", FRR, Keepalived, VRRP{Addresses: shared4, Version: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lan := lab.New(t)
			a, b := lan.Host("a", "10.9.0.1/16", "fd00:9::1/64"), lan.Host("b", "10.9.0.2/16", "fd00:9::2/64")
			capture := lan.Capture()
			v := c.with
			v.VRID, v.Priority = 9, 200
			first := c.first(t, a, v)
			interval := v.interval()
			heard := first.Advertises(capture, 10*interval+2*time.Second)
			if heard.Priority != 200 || heard.VRID != 9 || heard.Version != v.version() || heard.Interval != interval || heard.Count() != len(v.Addresses) {
				t.Errorf("a advertises %+v, want what it was told: %+v", heard, v)
			}
			v.Priority = 100
			second := c.second(t, b, v)
			lab.Eventually(t, 5*time.Second, "b to be a backup", func() bool { return second.State(9) == "BACKUP" && first.State(9) == "MASTER" })
			mark := time.Now()
			quiet := time.NewTimer(5 * interval)
			defer quiet.Stop()
			<-quiet.C
			for _, f := range capture.Packets() {
				if heard, ok := Heard(f); ok && f.Time.After(mark) && heard.Host != "a" {
					t.Fatalf("%s advertises while a does", heard.Host)
				}
			}
			first.Stop()
			lab.Eventually(t, 5*interval, "b to be master", func() bool { return second.State(9) == "MASTER" })
			if !slices.ContainsFunc(capture.Packets(), func(f lab.Frame) bool { heard, ok := Heard(f); return ok && f.Host == "a" && heard.Leaves() }) {
				t.Error("a stopped without an advert of priority 0")
			}
			v.Priority = 200
			third := c.first(t, a, v)
			third.Advertises(capture, 10*interval+2*time.Second)
			lab.Eventually(t, 5*time.Second, "b to give way", func() bool { return second.State(9) == "BACKUP" })
			third.Kill()
			if third.Running() {
				t.Error("a runs after it was killed")
			}
			lab.Eventually(t, 5*interval+time.Second, "b to be master again", func() bool { return second.State(9) == "MASTER" })
		})
	}
}
