package carp

import (
	"net/netip"
	"testing"
	"time"
)

func TestVRRPSkewAndMasterDownAreExactToTheNanosecond(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		protocol   Protocol
		priority   uint8
		every      time.Duration
		skew, down time.Duration
	}{
		{VRRP3, 100, 10 * ms, 6_093_750, 36_093_750},
		{VRRP3, 101, 10 * ms, 6_054_687, 36_054_687}, // 39 us before its neighbour
		{VRRP3, 254, 10 * ms, 78_125, 30_078_125},
		{VRRP3, 255, 10 * ms, 39_062, 30_039_062},
		{VRRP3, 1, 10 * ms, 9_960_937, 39_960_937},
		{VRRP3, 100, 100 * ms, 60_937_500, 360_937_500},
		{VRRP3, 100, time.Second, 609_375_000, 3_609_375_000},
		{VRRP3, 254, time.Second, 7_812_500, 3_007_812_500},
		{VRRP3, 1, MaxInterval3, 40_790_039_062, 163_640_039_062},
		{VRRP2, 100, time.Second, 609_375_000, 3_609_375_000},
		{VRRP2, 100, 5 * time.Second, 609_375_000, 15_609_375_000}, // the skew is of a second, whatever the interval
		{VRRP2, 254, 255 * time.Second, 7_812_500, 765_007_812_500},
	} {
		if got := vrrpSkew(test.protocol, test.priority, test.every); got != test.skew {
			t.Errorf("%v priority %d interval %v: skew %v, want %v", test.protocol, test.priority, test.every, got, test.skew)
		}
		if got := vrrpDown(test.protocol, test.priority, test.every, test.every); got != test.down {
			t.Errorf("%v priority %d interval %v: master-down time %v, want %v", test.protocol, test.priority, test.every, got, test.down)
		}
	}
}

func TestEffectivePriority(t *testing.T) {
	for _, test := range []struct {
		priority uint8
		demotion int
		want     uint8
	}{
		{100, 0, 100}, {100, 30, 70}, {100, 99, 1}, {100, 240, 1}, {1, 240, 1},
		{100, -30, 130}, {200, -200, 254}, {254, -1, 254},
		{255, 0, 255}, {255, -10, 255}, {255, 1, 254}, {255, 240, 15}, {255, 300, 1},
	} {
		if got := effectivePriority(test.priority, test.demotion); got != test.want {
			t.Errorf("priority %d demoted by %d: %d, want %d", test.priority, test.demotion, got, test.want)
		}
	}
}

func TestAHeardIntervalIsFollowedWithinBounds(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		protocol   Protocol
		own, heard time.Duration
		want       time.Duration
	}{
		{VRRP3, time.Second, 0, time.Second},
		{VRRP3, time.Second, 2 * time.Second, 2 * time.Second},
		{VRRP3, time.Second, 500 * ms, 500 * ms},
		{VRRP3, time.Second, 10 * ms, 100 * ms},
		{VRRP3, time.Second, MaxInterval3, 10 * time.Second},
		{VRRP3, 10 * ms, 10 * ms, 10 * ms},
		{VRRP3, 10 * ms, time.Second, time.Second},
		{VRRP3, 10 * ms, MaxInterval3, 4 * time.Second},
		{VRRP3, 50 * ms, 10 * ms, 10 * ms},
		{VRRP2, time.Second, time.Second, time.Second},
		{VRRP2, time.Second, 2 * time.Second, 2 * time.Second}, // incompatible, and yet alive
		{VRRP2, 2 * time.Second, time.Second, 2 * time.Second},
		{VRRP2, time.Second, 255 * time.Second, 10 * time.Second},
	} {
		if got := follows(test.protocol, test.own, test.heard); got != test.want {
			t.Errorf("%v own %v heard %v: follows %v, want %v", test.protocol, test.own, test.heard, got, test.want)
		}
	}
}

func TestTheHigherAddressWinsATieOfVRRP(t *testing.T) {
	local := Local{IPv4: netip.MustParseAddr("192.0.2.5"), IPv6: netip.MustParseAddr("fe80::5%eth0"), MAC: MAC{2, 0, 0, 0, 0, 5}}
	group4, group6 := Group(IPv4).String(), Group(IPv6).String()
	for _, test := range []struct {
		src, dst string
		mac      MAC
		wins, ok bool
	}{
		{"192.0.2.4", group4, MAC{}, true, true},
		{"192.0.2.6", group4, MAC{}, false, true},
		{"191.255.255.255", group4, MAC{}, true, true}, // as a big-endian number, not as ucarp compares
		{"193.0.0.0", group4, MAC{}, false, true},
		{"fe80::4", group6, MAC{}, true, true},
		{"fe80::6", group6, MAC{}, false, true},
		{"fe80::1:0", group6, MAC{}, false, true},
		// A unicast peer compares the address that it knows this node by.
		{"2001:db8::9", "2001:db8::a", MAC{}, true, true},
		{"2001:db8::9", "2001:db8::8", MAC{}, false, true},
		{"10.0.0.9", "10.0.0.10", MAC{}, true, true},
		// One address on two nodes.
		{"192.0.2.5", group4, MAC{2, 0, 0, 0, 0, 4}, true, true},
		{"192.0.2.5", group4, MAC{2, 0, 0, 0, 0, 6}, false, true},
		{"192.0.2.5", group4, VirtualMAC(9), false, false},
		{"192.0.2.5", group4, MAC{}, false, false},
	} {
		p := Packet{Src: netip.MustParseAddr(test.src), Dst: netip.MustParseAddr(test.dst), SrcMAC: test.mac}
		if wins, ok := vrrpWinsTie(local, &p); wins != test.wins || ok != test.ok {
			t.Errorf("%s to %s from %v: wins %v, decided %v", test.src, test.dst, test.mac, wins, ok)
		}
	}
}

func TestTheFastestBackupOfVRRPWaitsThreeIntervals(t *testing.T) {
	for _, test := range []struct {
		c           Config
		down, every time.Duration
	}{
		{Config{Protocol: VRRP3}, 3 * time.Second, time.Second},
		{Config{Protocol: VRRP3, Interval: 10 * time.Millisecond, Priority: 1}, 30 * time.Millisecond, 10 * time.Millisecond},
		{Config{Protocol: VRRP2, Interval: 4 * time.Second}, 12 * time.Second, 4 * time.Second},
		{Config{AdvBase: 1, AdvSkew: 128}, 3 * time.Second, 1500 * time.Millisecond},
		{Config{AdvBase: 1, AdvSkew: 128, Leased: true}, 3 * time.Second, time.Second},
	} {
		if got := test.c.FastestDown(); got != test.down {
			t.Errorf("%+v: fastest master-down time %v, want %v", test.c, got, test.down)
		}
		if got := test.c.AdvertInterval(); got != test.every {
			t.Errorf("%+v: interval %v, want %v", test.c, got, test.every)
		}
	}
}
