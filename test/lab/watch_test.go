package lab

import (
	"net/netip"
	"sync"
	"testing"
	"time"
)

func TestOverlapsAreWhatIsSureAndWhatMayBe(t *testing.T) {
	zero, addr, more := time.Now(), netip.MustParseAddr("192.0.2.50"), netip.MustParseAddr("192.0.2.51")
	const ms = time.Millisecond
	change := func(host string, addr netip.Addr, on bool, after, at time.Duration) AddrChange {
		return AddrChange{host, addr, on, zero.Add(after * ms), zero.Add(at * ms)}
	}
	for name, c := range map[string]struct {
		changes []AddrChange
		want    []Together
	}{
		"nobody": {nil, nil},
		"one after the other": {[]AddrChange{
			change("a", addr, true, 0, 1), change("a", addr, false, 10, 11), change("b", addr, true, 11, 12),
		}, nil},
		"not to be told apart": {[]AddrChange{
			change("a", addr, true, 0, 1), change("a", addr, false, 10, 13), change("b", addr, true, 11, 12),
		}, []Together{{addr, [2]string{"a", "b"}, 0, 2 * ms}}},
		"both for sure": {[]AddrChange{
			change("b", addr, true, 4, 5), change("a", addr, true, 0, 1), change("a", addr, false, 10, 11),
		}, []Together{{addr, [2]string{"a", "b"}, 5 * ms, 7 * ms}}},
		"refreshed": {[]AddrChange{
			change("a", addr, true, 0, 1), change("a", addr, true, 2, 3), change("a", addr, false, 4, 5), change("b", addr, true, 6, 7),
		}, nil},
		"to the end": {[]AddrChange{change("a", addr, true, 0, 1), change("b", addr, true, 4, 5)},
			[]Together{{addr, [2]string{"a", "b"}, 15 * ms, 16 * ms}}},
		"two addresses": {[]AddrChange{change("a", addr, true, 0, 1), change("b", more, true, 4, 5)}, nil},
	} {
		got := Overlaps(c.changes, zero.Add(20*ms))
		if len(got) != len(c.want) || len(got) > 0 && got[0] != c.want[0] {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestAddressesThatComeAndGoAreSeen(t *testing.T) {
	lan := New(t)
	var mu sync.Mutex
	var seen []AddrChange
	a, b := lan.Host("a", "192.0.2.1/24"), lan.Host("b", "192.0.2.2/24")
	for _, h := range []*Host{a, b} {
		h.WatchAddrs(func(c AddrChange) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, c)
		})
	}
	began := time.Now()
	a.Run("ip", "addr", "add", "192.0.2.50/24", "dev", "eth0")
	b.Run("ip", "addr", "add", "192.0.2.50/24", "dev", "eth0")
	Eventually(t, 5*time.Second, "both to have it for a while", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(seen) == 2 && time.Since(seen[1].At) > 50*time.Millisecond
	})
	a.Run("ip", "addr", "del", "192.0.2.50/24", "dev", "eth0")
	a.Run("ip", "addr", "add", "2001:db8::51/64", "dev", "eth0", "nodad")
	held := func() []Together {
		mu.Lock()
		defer mu.Unlock()
		return Overlaps(seen, time.Now())
	}
	Eventually(t, 5*time.Second, "four changes", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(seen) >= 4
	})
	both := held()
	if len(both) != 1 || both[0].Addr != netip.MustParseAddr("192.0.2.50") || both[0].Sure <= 0 || both[0].Most > time.Since(began) {
		t.Errorf("%+v of %+v", both, seen)
	}
	mu.Lock()
	defer mu.Unlock()
	for i, c := range seen {
		if c.At.Before(began) || c.At.Before(c.After) {
			t.Errorf("change %d: %+v", i, c)
		}
	}
}
