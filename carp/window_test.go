package carp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// bsdCounter counts as FreeBSD, NetBSD and ucarp do (carp_prepare_ad): at random
// until an advert was heard, then on from the last one heard.
type bsdCounter struct {
	rng     *rand.Rand
	counter uint64
	heard   bool
}

func (b *bsdCounter) next() uint64 {
	if !b.heard {
		return b.rng.Uint64()
	}
	b.counter++
	return b.counter
}

func (b *bsdCounter) hear(counter uint64) { b.counter, b.heard = counter, true }

func newBSD(seed uint64) *bsdCounter { return &bsdCounter{rng: rand.New(rand.NewPCG(seed, 1))} }

func way(src netip.Addr) ways { return wayOf(&Packet{Src: src}, 0) }

// Two BSDs that heard one master and were parted have counted through the same
// numbers, each. Whoever heard whom first after the heal, and who stays master: the
// third node hears both, but for one advert of each line of numbers.
func TestBSDsThatCountedThroughTheSameNumbersAreHeardAfterAHeal(t *testing.T) {
	a4, b4 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for _, apart := range []int{0, 1, 5, 500} { // rounds that a is ahead of b
		for _, heal := range []string{"a hears b", "b hears a", "both hear", "nobody hears"} {
			m, now := newWindowMemory(windowCounters), Instant(time.Hour)
			a, b := newBSD(1), newBSD(2)
			a.hear(1 << 60)
			b.hear(1 << 60)
			refused := map[netip.Addr]int{}
			row := map[netip.Addr]int{}
			send := func(src netip.Addr, c uint64, timing timing) {
				if m.judge(now, src, way(src), c, timing) == Accepted {
					row[src] = 0
					return
				}
				refused[src]++
				if row[src]++; row[src] > 2 || row[src] > 1 && refused[src] > 2 {
					t.Errorf("a ahead by %d, %s: %d adverts in a row of %v are refused", apart, heal, row[src], src)
				}
			}
			for i := range 1000 { // parted; the listener is on the side of a
				now = now.Add(time.Second)
				send(a4, a.next(), timing{1, 0})
				if i >= apart {
					b.next()
				}
			}
			for range 2000 {
				now = now.Add(time.Second)
				ca, cb := a.next(), b.next()
				if heal == "a hears b" || heal == "both hear" {
					a.hear(cb)
				}
				if heal == "b hears a" || heal == "both hear" {
					b.hear(ca)
				}
				send(a4, ca, timing{1, 0})
				send(b4, cb, timing{1, 100})
			}
			if refused[a4]+refused[b4] > 3 {
				t.Errorf("a ahead by %d, %s: %v refused", apart, heal, refused)
			}
		}
	}
}

// Whatever two BSDs hear of each other, over both families: three adverts of a living
// one are never refused in a row, so that nobody takes it for dead.
func TestNoLivingBSDIsRefusedForAMasterDownTime(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 7))
		m, now := newWindowMemory(4096), Instant(time.Hour)
		type bsd struct {
			*bsdCounter
			addrs  [2]netip.Addr
			timing timing
			row    int
			master bool
		}
		var all []*bsd
		for i := range 2 {
			all = append(all, &bsd{newBSD(seed*2 + uint64(i)), [2]netip.Addr{
				netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: byte(i + 1)}),
			}, timing{1, uint8(100 * i)}, 0, true})
		}
		families := 1 + rng.IntN(2)
		var hears [2]bool
		for second := range 3000 {
			now = now.Add(time.Second)
			if rng.IntN(100) == 0 {
				hears[rng.IntN(2)] = rng.IntN(2) == 0
				all[rng.IntN(2)].master = rng.IntN(3) > 0
			}
			for i, x := range all {
				if !x.master || rng.IntN(20) == 0 && second > 0 { // silent, or lost on its way to everybody
					continue
				}
				ok := false
				for f := range families {
					c := x.next()
					if hears[1-i] {
						all[1-i].hear(c)
					}
					ok = m.judge(now, x.addrs[f], way(x.addrs[f]), c, x.timing) == Accepted || ok
				}
				if x.row++; ok {
					x.row = 0
				}
				if x.row > 2 {
					t.Fatalf("seed %d, second %d: %d rounds of node %d are refused", seed, second, x.row, i+1)
				}
			}
		}
	}
}

func TestOpenBSDIsHeardAndNamed(t *testing.T) {
	src := [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1")}
	m, now := newWindowMemory(windowCounters), Instant(time.Hour)
	say := func(cookie uint64, t timing) (all [2]Drop) {
		now = now.Add(time.Second)
		for f := range all {
			all[f] = m.judge(now, src[f], way(src[f]), cookie, t)
		}
		return all
	}
	for i, tt := range []struct {
		cookie uint64
		t      timing
	}{
		{77, timing{1, 0}}, {77, timing{1, 0}}, {77, timing{1, 0}},
		{77, timing{1, 100}}, {77, timing{1, 100}}, // demoted
		{77, timing{255, 255}},                                     // leaves
		{78, timing{1, 0}}, {78, timing{1, 0}}, {78, timing{1, 0}}, // started again
		{79, timing{1, 0}}, {79, timing{1, 0}},
	} {
		if got := say(tt.cookie, tt.t); got != [2]Drop{} {
			t.Errorf("%d: %v", i, got)
		}
	}
	if all := m.constants(now, time.Minute); len(all) != 2 || all[0] != src[0] {
		t.Errorf("constant are %v", all)
	}
	if all := m.constants(now.Add(time.Hour), time.Minute); len(all) != 0 {
		t.Errorf("constant are %v, after an hour of silence", all)
	}
	// What anybody makes of it from elsewhere is refused.
	if d := m.judge(now, peerHigh, way(peerHigh), 79, timing{0, 0}); d != DropTiming {
		t.Errorf("its cookie from another source: %v", d)
	}
}

func TestWindowRefuses(t *testing.T) {
	a, x := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.66")
	ours := func(round uint64, t timing) uint64 { return seal{1<<37 + round*1000, 7, t}.counter() }
	type step struct {
		src     netip.Addr
		counter uint64
		t       timing
		after   time.Duration
		want    Drop
	}
	good, zero := timing{1, 0}, timing{}
	for name, steps := range map[string][]step{
		"one captured advert, for ever": {
			{a, ours(1, good), good, time.Second, Accepted},
			{a, ours(2, good), good, time.Second, Accepted},
			{a, ours(3, good), good, time.Second, Accepted},
			{x, ours(2, good), zero, time.Second, DropTiming},
			{x, ours(2, good), zero, time.Second, DropTiming},
			{a, ours(2, good), zero, time.Second, DropTiming},
			{a, ours(2, good), leave.timing, time.Second, DropTiming},
			{a, ours(2, good), good, time.Second, DropReplay},
			{x, ours(3, good), good, time.Second, DropReplay},
			{a, ours(4, good), good, time.Second, Accepted},
		},
		"the last advert of a dead master, for ever": {
			{a, ours(1, good), good, time.Second, Accepted},
			{a, ours(2, good), good, time.Second, Accepted},
			{a, ours(2, good), good, time.Second, DropReplay},
			{a, ours(2, good), good, time.Second, DropReplay},
			{a, ours(2, good), zero, time.Second, DropTiming},
		},
		"all that carpd ever sent, in order": {
			{a, ours(1, good), good, time.Second, Accepted},
			{a, ours(2, good), good, time.Second, Accepted},
			{a, ours(3, good), good, time.Second, Accepted},
			{a, ours(1, good), good, time.Second, DropReplay},
			{a, ours(2, good), good, time.Second, DropReplay},
			{a, ours(3, good), good, time.Second, DropReplay},
		},
		"a duplicate": {
			{a, ours(1, good), good, time.Second, Accepted},
			{a, ours(1, good), good, time.Millisecond, DropRepeat},
			{a, ours(2, good), good, time.Second, Accepted},
			{a, ours(2, good), good, time.Millisecond, DropRepeat},
			{a, ours(3, good), good, time.Second, Accepted},
		},
		"a round in another order": {
			{a, ours(2, good), good, time.Second, Accepted},
			{a, ours(1, good), good, time.Millisecond, Accepted}, // never seen
			{a, ours(2, good), good, time.Millisecond, DropReplay},
			{a, ours(3, good), good, time.Second, Accepted},
		},
		"a bow-out from before": {
			{a, ours(1, good), good, time.Second, Accepted},
			{a, ours(3, good), good, time.Second, Accepted},
			{a, ours(2, leave.timing), leave.timing, time.Second, DropReplay},
			{a, ours(4, leave.timing), leave.timing, time.Second, Accepted},
			{a, ours(4, leave.timing), leave.timing, time.Second, DropReplay},
		},
		"a bow-out made of a BSD's next": {
			{a, 100, good, time.Second, Accepted},
			{a, 101, good, time.Second, Accepted},
			{a, 102, good, time.Second, Accepted},
			{a, 101, leave.timing, time.Second, DropTiming},
			{a, 102, leave.timing, time.Second, DropTiming},
			{a, 103, leave.timing, time.Second, Accepted},
		},
	} {
		m, now := newWindowMemory(256), Instant(time.Hour)
		for i, s := range steps {
			now = now.Add(s.after)
			if got := m.judge(now, s.src, way(s.src), s.counter, s.t); got != s.want {
				t.Errorf("%s, step %d: %v, want %v", name, i+1, got, s.want)
			}
		}
	}
}

func TestOwnAdvertsFromElsewhereAreKnownInWindow(t *testing.T) {
	r := newRig(t, func(c *Config) { c.ClockOffset, c.NodeID = wallNow, 5 }).master()
	var tape []Packet
	for range 100 { // more than are known as `own`
		r.now = r.now.Add(r.deadline().Sub(r.now))
		e := r.e.Tick(r.now)
		tape = append(tape, Packet{Src: peerHigh, Dst: Group(IPv4), TTL: 255, Broadcast: true, Payload: append([]byte(nil), e.Send[0].Payload...)})
		r.do(e)
	}
	r.take()
	r.do(r.e.Receive(r.now, rewritten(tape[0], 0, 0)))
	r.do(r.e.Receive(r.now, tape[1]))
	r.want("drop timing, drop replay")
	r.state(Master)
}

// What cannot be told from a BSD that was parted is worn out in the end.
func TestRecordingOfABSDIsWornOut(t *testing.T) {
	m, now := newWindowMemory(256), Instant(time.Hour)
	hear := func(c uint64, t timing) Drop {
		now = now.Add(time.Second)
		return m.judge(now, peerHigh, way(peerHigh), c, t)
	}
	for c := range uint64(10) {
		if d := hear(100+c, timing{1, 0}); d != Accepted {
			t.Fatalf("counter %d: %v", c, d)
		}
	}
	accepted := 0
	for range 1000 {
		for c := range uint64(10) {
			if hear(100+c, timing{1, 0}) == Accepted {
				accepted++
			}
		}
	}
	if accepted > 10*windowAgain {
		t.Errorf("ten adverts that were recorded were accepted %d times", accepted)
	}
	if d := hear(110, timing{1, 0}); d != Accepted {
		t.Errorf("the living one's next: %v", d)
	}
}

// An attacker has any number of source addresses.
func TestStrangersDoNotMakeAMemberForgotten(t *testing.T) {
	m, now := newWindowMemory(256), Instant(time.Hour)
	cookie := func() Drop {
		now = now.Add(time.Second)
		return m.judge(now, peerLow, way(peerLow), 4711, timing{1, 0})
	}
	cookie()
	cookie()
	for i := range 100 {
		m.judge(now, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 1, 4711, timing{})
	}
	if d := cookie(); d != Accepted {
		t.Errorf("OpenBSD is refused: %v", d)
	}
}

func TestWindowRemembersTheLatestCountersExactly(t *testing.T) {
	for _, size := range []int{1, 2, 8, 64} {
		m, rng := newWindowMemory(max(size, 1)), rand.New(rand.NewPCG(uint64(size), 3))
		var order []uint64
		for range 5000 {
			c := rng.Uint64N(uint64(4 * size))
			want := -1
			for i, o := range order {
				if o == c {
					want = i
				}
			}
			if _, known := m.lookup(c); known != (want >= 0) {
				t.Fatalf("size %d: %d is known: %v, want %v of %v", size, c, known, want >= 0, order)
			}
			m.remember(c, timing{1, uint8(c)})
			if want < 0 {
				if order = append(order, c); len(order) > size {
					order = order[1:]
				}
			}
			for _, o := range order {
				if got, known := m.lookup(o); !known || got != (timing{1, uint8(o)}) {
					t.Fatalf("size %d: %d is lost", size, o)
				}
			}
			used := 0
			for _, at := range m.index {
				if at != 0 {
					used++
				}
			}
			if used != len(order) {
				t.Fatalf("size %d: %d places for %d counters", size, used, len(order))
			}
		}
	}
}

func BenchmarkReplay(b *testing.B) {
	b.Run("window", func(b *testing.B) {
		m, now := newWindowMemory(windowCounters), Instant(time.Hour)
		for i := range 2 * windowCounters {
			m.judge(now, peerHigh, 1, uint64(i)<<24, timing{1, 0})
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			m.judge(now, peerHigh, 1, uint64(i+2*windowCounters)<<24, timing{1, 0})
		}
	})
	b.Run("sealed", func(b *testing.B) {
		m, g, now := newSealedMemory(), groupClock{}, Instant(time.Hour)
		for id := range 8 {
			m.accept(seal{1, uint8(id + 1), timing{1, 0}}, false, 1, peerHigh, now)
		}
		b.ReportAllocs()
		for i := uint64(2); b.Loop(); i++ {
			s := seal{3600_000 + i%1000_000, 8, timing{1, 0}}
			if m.judge(s, false, s.timing, 1, now, &g, 0, DefaultWindow) == Accepted {
				m.accept(s, false, 1, peerHigh, now)
			}
		}
	})
}

func ExampleReplay() {
	r, err := ParseReplay("sealed")
	fmt.Println(r, err)
	// Output: sealed <nil>
}
