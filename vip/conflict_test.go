package vip

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
)

func TestConflictIsWhatPersistsWithoutAnotherMaster(t *testing.T) {
	const start = carp.Instant(1000 * time.Second)
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	for _, tc := range []struct {
		name  string
		seen  []float64 // seconds after the start
		since float64   // last sign of another master
		calm  float64
		now   float64
		want  bool
	}{
		{"nothing", nil, -1, 3, 5, false},
		{"one claim", []float64{0}, -1, 0, 5, false},
		{"two at once", []float64{0, 0.5, 1}, -1, 0, 5, false},
		{"two, more than 1 s apart", []float64{0, 1.1}, -1, 0, 1.2, true},
		{"many in a row, 0.6 s apart", []float64{0, 0.6, 1.2}, -1, 0, 1.3, true},
		{"within 10 s", []float64{0, 10}, -1, 0, 10, true},
		{"further apart than 10 s", []float64{0, 10.1}, -1, 0, 10.2, false},
		{"not before another master would have been heard", []float64{0, 1.1}, -1, 3, 2.9, false},
		{"but then", []float64{0, 1.1}, -1, 3, 3, true},
		{"though adverts are slow", []float64{0, 1.1}, -1, 60, 31, false},
		{"and the claims go on", []float64{0, 9, 18, 27, 36, 45, 54}, -1, 60, 60, true},
		{"burst of a takeover", []float64{0, 0.2, 1, 5}, 5, 3, 6, false},
		{"burst, and one claim later", []float64{0, 0.2, 1, 5.1}, 5, 3, 8.2, false},
		{"burst, and two claims later", []float64{0, 0.2, 1, 5.1, 6.3}, 5, 3, 9, true},
		{"contest that is still on", []float64{0, 2, 4}, 7, 0, 5, false},
		{"stands 30 s", []float64{0, 2}, -1, 0, 10, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var c claims
			addr := netip.MustParseAddr("192.0.2.9")
			for i, s := range tc.seen {
				if i > 0 { // it is looked at once a second
					c.judge(start.Add(seconds(s)-1), start.Add(seconds(min(s, tc.since))), seconds(tc.calm))
				}
				c.see(start.Add(seconds(s)), addr, carp.MAC{2, 9})
			}
			got := c.judge(start.Add(seconds(tc.now)), start.Add(seconds(tc.since)), seconds(tc.calm))
			if (len(got) > 0) != tc.want {
				t.Errorf("got %v, want a conflict: %v", got, tc.want)
			}
			if len(got) > 0 && (got[0].Addr != addr || got[0].MAC != carp.MAC{2, 9} || got[0].Count == 0) {
				t.Errorf("got %+v, want address, MAC and a count", got[0])
			}
		})
	}
}

func TestConflictEndsWhenNothingWasSeenOrAnotherMasterIsHeard(t *testing.T) {
	const start = carp.Instant(1000 * time.Second)
	addr := netip.MustParseAddr("192.0.2.9")
	for _, tc := range []struct {
		name       string
		now, since time.Duration
		want       int
	}{
		{"29 s later", 31 * time.Second, 0, 1},
		{"31 s later", 33 * time.Second, 0, 0},
		{"another master at once", 3 * time.Second, 2500 * time.Millisecond, 0},
	} {
		var c claims
		c.see(start, addr, carp.MAC{2})
		c.see(start.Add(2*time.Second), addr, carp.MAC{2})
		if got := c.judge(start.Add(2*time.Second), start-1, 0); len(got) != 1 {
			t.Fatalf("%s: got %v, want one", tc.name, got)
		}
		if got := c.judge(start.Add(tc.now), start.Add(tc.since)-1, 0); len(got) != tc.want {
			t.Errorf("%s: got %v, want %d", tc.name, got, tc.want)
		}
	}
}

func TestConflictsAreBounded(t *testing.T) {
	const start = carp.Instant(1000 * time.Second)
	var c claims
	for round := range 3 {
		for n := range 200 {
			c.see(start.Add(time.Duration(round)*time.Second), netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), carp.MAC{2})
		}
	}
	now := start.Add(3 * time.Second)
	if got := c.judge(now, start-1, 0); len(got) != MaxConflicts || !slices.IsSortedFunc(got, func(a, b Conflict) int { return a.Addr.Compare(b.Addr) }) {
		t.Errorf("%d conflicts, want %d in order", len(got), MaxConflicts)
	}
	if want := uint64(3 * (200 - MaxConflicts)); c.missed != want {
		t.Errorf("%d were counted as missed, want %d", c.missed, want)
	}
	c.judge(now.Add(time.Minute), start-1, 0)
	c.see(now.Add(time.Minute), netip.MustParseAddr("192.0.2.199"), carp.MAC{2})
	if len(c.seen) != 1 {
		t.Errorf("%d addresses are remembered a minute later, want the new one", len(c.seen))
	}
}

func TestDefenceIsOnceEach10sAndOnlyOfWhatWasClaimedSince(t *testing.T) {
	const start = carp.Instant(1000 * time.Second)
	var c claims
	at := func(s int) carp.Instant { return start.Add(time.Duration(s) * time.Second) }
	found := func(last int) []Conflict { return []Conflict{{Addr: netip.MustParseAddr("192.0.2.9"), Last: at(last)}} }
	for _, tc := range []struct{ now, last, want int }{{0, 0, 1}, {1, 1, 0}, {9, 9, 0}, {10, 9, 1}, {21, 9, 0}, {22, 21, 1}, {31, 31, 0}, {32, 31, 1}} {
		if got := c.defend(at(tc.now), found(tc.last)); len(got) != tc.want {
			t.Errorf("after %d s, claimed at %d s: %v, want %d", tc.now, tc.last, got, tc.want)
		}
	}
}

func TestClaimIsReadFromARPAndNA(t *testing.T) {
	mac, other := carp.MAC{2, 0, 0, 0, 0, 9}, carp.MAC{2, 0, 0, 0, 0, 8}
	v4, v6 := netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")
	change := func(f []byte, at int, b ...byte) []byte {
		f = slices.Clone(f)
		copy(f[at:], b)
		return f
	}
	arp, na := gratuitousARP(mac, v4), unsolicitedNA(mac, v6)
	for _, tc := range []struct {
		name  string
		frame []byte
		want  Claim
	}{
		{"ARP request", arp, Claim{Addr: v4, MAC: mac, From: mac}},
		{"ARP reply", change(arp, 21, 2), Claim{Addr: v4, MAC: mac, From: mac}},
		{"ARP sent by another", change(arp, 6, other[:]...), Claim{Addr: v4, MAC: mac, From: other}},
		{"ARP probe", change(arp, 28, 0, 0, 0, 0), Claim{}},
		{"ARP of nobody", change(arp, 22, 0, 0, 0, 0, 0, 0), Claim{}},
		{"ARP of another hardware", change(arp, 14, 0, 6), Claim{}},
		{"ARP cut short", arp[:41], Claim{}},
		{"NA", na, Claim{Addr: v6, MAC: mac, From: mac}},
		{"NA of another", change(na, 6, other[:]...), Claim{Addr: v6, MAC: mac, From: other}},
		{"NA without option", change(na, 6, other[:]...)[:78], Claim{Addr: v6, MAC: other, From: other}},
		{"NA with an option of no length", change(na, 79, 0), Claim{Addr: v6, MAC: mac, From: mac}},
		{"NA through a router", change(na, 21, 254), Claim{}},
		{"neighbour solicitation", change(na, 54, 135), Claim{}},
		{"TCP", change(na, 20, 6), Claim{}},
		{"NA cut short", na[:77], Claim{}},
		{"IPv4", change(arp, 12, 8, 0), Claim{}},
	} {
		got, ok := ParseClaim(tc.frame)
		if ok != (tc.want != Claim{}) || ok && got != tc.want {
			t.Errorf("%s: got %+v, %v, want %+v", tc.name, got, ok, tc.want)
		}
	}
}

func FuzzParseClaim(f *testing.F) {
	f.Add(gratuitousARP(carp.MAC{2}, netip.MustParseAddr("192.0.2.9")))
	f.Add(unsolicitedNA(carp.MAC{2}, netip.MustParseAddr("2001:db8::9")))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if c, ok := ParseClaim(frame); ok && (!c.Addr.IsValid() || c.MAC == carp.MAC{}) {
			t.Error(fmt.Sprint("a claim of nothing: ", c))
		}
	})
}
