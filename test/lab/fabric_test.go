package lab

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// sink is a host that remembers what it got, and when.
type sink struct {
	now  *time.Duration
	got  []string
	deaf bool
}

func (s *sink) send(data []byte) error {
	if s.deaf {
		return errors.New("down")
	}
	s.got = append(s.got, fmt.Sprintf("%d@%v", data[ethernetHeader], *s.now))
	return nil
}

// bench is a fabric with sinks named a, b, c and a clock that is turned by hand.
type bench struct {
	*fabric
	now   time.Duration
	sinks map[string]*sink
}

func newBench(seed uint64) *bench {
	b := &bench{fabric: newFabric(seed), sinks: map[string]*sink{}}
	for _, name := range []string{"a", "b", "c"} {
		b.sinks[name] = &sink{now: &b.now}
		b.port(name).wire = b.sinks[name]
	}
	return b
}

func (b *bench) path(from, to string) *path { return b.port(from).paths[b.port(to).slot] }

var everybody = hwaddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func mac(name string) hwaddr { return hwaddr{2, 0, 0, 0, 0, name[0]} }

// send sends a frame with a number.
func (b *bench) send(from string, dst hwaddr, number byte) {
	src := mac(from)
	b.receive(b.port(from), Frame{Data: append(append(append([]byte{}, dst[:]...), src[:]...), 8, 0, number)}, b.now)
}

// run turns the clock on, stopping where something is due.
func (b *bench) run(d time.Duration) {
	end := b.now + d
	for {
		next, ok := b.release(b.now)
		if !ok || next > end {
			b.now = end
			return
		}
		b.now = next
	}
}

func (b *bench) want(t *testing.T, name string, want ...string) {
	t.Helper()
	if got := b.sinks[name].got; !slices.Equal(got, want) {
		t.Errorf("%s got %v, want %v", name, got, want)
	}
	b.sinks[name].got = nil
}

func TestFabricFloodsUntilItHasLearned(t *testing.T) {
	b := newBench(1)
	b.send("a", mac("b"), 1)
	b.want(t, "b", "1@0s")
	b.want(t, "c", "1@0s")
	b.send("b", mac("a"), 2)
	b.want(t, "a", "2@0s")
	b.want(t, "c")
	b.send("a", everybody, 3)
	b.want(t, "a")
	b.want(t, "b", "3@0s")
	b.want(t, "c", "3@0s")
	b.send("a", mac("a"), 4) // to itself: the switch keeps it
	b.want(t, "a")
	b.want(t, "b")
	b.now += aging + 1
	b.send("a", mac("b"), 5)
	b.want(t, "c", "5@5m0.000000001s")
	b.want(t, "b", "5@5m0.000000001s")
}

func TestFabricForgetsAPortThatGoesDown(t *testing.T) {
	b := newBench(1)
	b.send("b", everybody, 1)
	b.sinks["b"].deaf = true
	b.send("a", mac("b"), 2)
	b.want(t, "c", "1@0s")
	b.send("a", mac("b"), 3)
	b.want(t, "c", "3@0s")
	if s := b.path("a", "b").stats; s.Refused != 2 || s.Delivered != 0 || s.Offered != 2 {
		t.Errorf("stats %+v, want 2 refused of 2", s)
	}
}

// Two nodes may send from one address (a virtual MAC): each side of a partition
// follows the one that it hears.
func TestFabricSidesOfAPartitionLearnForThemselves(t *testing.T) {
	b := newBench(1)
	d := &sink{now: &b.now}
	b.port("d").wire = d
	for _, from := range []string{"a", "b"} {
		for _, to := range []string{"c", "d"} {
			cut := (from == "a") != (to == "c")
			b.path(from, to).cut, b.path(to, from).cut = cut, cut
		}
	}
	virtual := hwaddr{0, 0, 0x5e, 0, 1, 9}
	for i, from := range []string{"a", "b"} {
		b.receive(b.port(from), Frame{Data: append(append(append([]byte{}, everybody[:]...), virtual[:]...), 8, 0, byte(i))}, 0)
	}
	b.sinks["a"].got, b.sinks["b"].got = nil, nil
	b.send("c", virtual, 3)
	b.send("d", virtual, 4)
	b.want(t, "a", "3@0s")
	b.want(t, "b", "4@0s")
}

func TestFabricDelaysInOrder(t *testing.T) {
	b := newBench(1)
	f := &b.path("a", "b").faults
	f.delay, f.jitter = 5*time.Millisecond, 20*time.Millisecond
	for i := range 50 {
		b.send("a", everybody, byte(i))
		b.run(time.Millisecond)
	}
	b.want(t, "c", func() (all []string) {
		for i := range 50 {
			all = append(all, fmt.Sprintf("%d@%v", i, time.Duration(i)*time.Millisecond))
		}
		return all
	}()...)
	b.run(time.Second)
	for i, got := range b.sinks["b"].got {
		var number int
		var at string
		if _, err := fmt.Sscanf(got, "%d@%s", &number, &at); err != nil || number != i {
			t.Fatalf("place %d: %s", i, got)
		}
		when, _ := time.ParseDuration(at)
		if d := when - time.Duration(i)*time.Millisecond; d < 5*time.Millisecond || d > 25*time.Millisecond {
			t.Errorf("frame %d took %v", i, d)
		}
	}
}

// A thread that comes late finds a frame that is due and one that was just sent.
func TestFabricKeepsTheOrderWhenItIsLate(t *testing.T) {
	b := newBench(1)
	f := &b.path("a", "b").faults
	f.delay = 5 * time.Millisecond
	b.send("a", everybody, 1)
	f.delay = 0
	b.now = 6 * time.Millisecond
	b.send("a", everybody, 2)
	b.want(t, "b", "1@6ms", "2@6ms")
}

func TestFabricReordersAndDuplicates(t *testing.T) {
	b := newBench(1)
	f := &b.path("a", "b").faults
	f.reorder, f.reorderLater = 0.3, 10*time.Millisecond
	f.duplicate, f.duplicateLater = 0.3, 10*time.Millisecond
	for i := range 100 {
		b.send("a", everybody, byte(i))
		b.run(time.Millisecond)
	}
	b.run(time.Second)
	s := b.path("a", "b").stats
	overtaken, seen, last := 0, map[string]int{}, -1
	for _, got := range b.sinks["b"].got {
		var number int
		_, _ = fmt.Sscanf(got, "%d@", &number)
		if number < last {
			overtaken++
		}
		last = number
		seen[fmt.Sprint(number)]++
	}
	if len(seen) != 100 || len(b.sinks["b"].got) != 100+int(s.Duplicated) || s.Duplicated < 15 || s.Reordered < 15 || overtaken < 10 {
		t.Errorf("%d different frames, %d in all, %d overtaken, %+v", len(seen), len(b.sinks["b"].got), overtaken, s)
	}
}

func TestFabricClogHoldsAndBounds(t *testing.T) {
	b := newBench(1)
	p := b.path("a", "b")
	p.faults.delay = 5 * time.Millisecond
	b.send("a", everybody, 1) // under way: arrives
	p.clogged, p.faults.limit = true, 3
	for i := byte(2); i < 6; i++ {
		b.send("a", everybody, i)
	}
	b.run(time.Second)
	b.want(t, "b", "1@5ms")
	b.unclog(p, b.now)
	b.send("a", everybody, 9)
	b.run(time.Second)
	b.want(t, "b", "2@1s", "3@1s", "9@1.005s")
	if p.stats.Overflow != 2 || p.waiting != 0 {
		t.Errorf("%+v, %d waiting: want 2 overflown, none waiting", p.stats, p.waiting)
	}
	// Unclogged early: not before its own delay.
	p.clogged = true
	b.send("a", everybody, 10)
	b.unclog(p, b.now)
	b.run(time.Second)
	b.want(t, "b", "10@2.005s")
}

func TestFabricEchoes(t *testing.T) {
	b := newBench(1)
	b.path("a", "a").faults.echo = 1
	b.send("a", everybody, 1)
	b.want(t, "a", "1@0s")
	b.send("b", everybody, 2)
	b.want(t, "b", "1@0s")
}

func TestFabricOnlySparesAndDoesNotCountTheRest(t *testing.T) {
	lost := func(noise bool) (got []string) {
		b := newBench(9)
		f := &b.path("a", "b").faults
		f.lose, f.only = 0.5, func(f Frame) bool { return f.Data[ethernetHeader] < 100 }
		for i := range byte(50) {
			b.send("a", everybody, i)
			if noise {
				b.send("a", everybody, 200)
			}
		}
		return slices.DeleteFunc(b.sinks["b"].got, func(s string) bool { return s == "200@0s" })
	}
	quiet, loud := lost(false), lost(true)
	if !slices.Equal(quiet, loud) || len(quiet) < 15 || len(quiet) > 35 {
		t.Errorf("without noise %v\nwith noise %v", quiet, loud)
	}
}

// The same sequence of frames meets the same fate; that of another link does not matter.
func TestFabricRepeatsItself(t *testing.T) {
	play := func(seed uint64, other bool) []string {
		b := newBench(seed)
		p := b.path("a", "b")
		p.faults = bad()
		p.faults.limit = 10
		for i := range 250 {
			b.send("a", everybody, byte(i))
			if other {
				b.send("c", everybody, 255)
			}
			b.run(time.Millisecond / 4)
		}
		b.run(time.Second)
		return slices.DeleteFunc(b.sinks["b"].got, func(s string) bool { return s[:3] == "255" })
	}
	want := play(1, false)
	if got := play(1, false); !slices.Equal(got, want) {
		t.Errorf("%v\nthen %v", want, got)
	}
	if got := play(1, true); !slices.Equal(got, want) {
		t.Errorf("%v\nwith other traffic %v", want, got)
	}
	if got := play(2, false); slices.Equal(got, want) {
		t.Error("another seed changes nothing")
	}
}
