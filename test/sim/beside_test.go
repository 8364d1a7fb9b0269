package sim_test

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/sim"
)

// two is a world of three hosts on two segments, and a client on the first.
type two struct {
	*sim.World
	front, back *sim.Segment
	hosts       []*sim.Host
}

// newTwo makes hosts that are apart by this much, 80 of advskew or 40 of priority
// for an apart of 1; with 0 they are equal.
func newTwo(seed uint64, o sim.Options, protocol carp.Protocol, apart int, preempt bool) *two {
	o.Latency = sim.Span(100*time.Microsecond, time.Millisecond)
	d := &two{World: sim.New(seed, o)}
	var ports []sim.Port
	for i, name := range []string{"a", "b", "c"} {
		c := config(uint8(80 * apart * i))
		if protocol.VRRP() {
			c.Protocol, c.AdvBase, c.AdvSkew, c.Passphrase = protocol, 0, 0, nil
			c.Interval, c.Priority = time.Second, uint8(200-40*apart*i)
		}
		c.Paths, c.Preempt = []carp.Path{{Link: 1}}, preempt
		d.hosts = append(d.hosts, d.Host(name, c, sim.HostOptions{}))
		ports = append(ports, d.hosts[i])
	}
	d.front = d.Segment("front", append(ports, d.Client("client"))...)
	d.back = d.Beside("back", d.hosts...)
	d.Require(&sim.Paths{})
	if apart > 0 { // a tie over two paths may last some rounds longer than the others allow: see Paths
		d.Require(sim.Standard()...)
	}
	return d
}

func each(t *testing.T, f func(t *testing.T, d *two)) {
	for _, protocol := range []carp.Protocol{carp.CARP, carp.VRRP3} {
		t.Run(protocol.String(), func(t *testing.T) {
			d := newTwo(1, sim.Options{}, protocol, 1, false)
			run(t, d.World, 10*time.Second)
			want(t, d.World, "a")
			f(t, d)
		})
	}
}

func TestCutOfOneSegmentOfTwoMovesNothing(t *testing.T) {
	each(t, func(t *testing.T, d *two) {
		for _, s := range []*sim.Segment{d.back, d.front} {
			for _, ways := range [][2]bool{{true, true}, {true, false}, {false, true}} { // both ways, and one
				cut := func(f func(from, to sim.Port)) {
					if ways[0] {
						f(d.hosts[0], d.hosts[1])
						f(d.hosts[0], d.hosts[2])
					}
					if ways[1] {
						f(d.hosts[1], d.hosts[0])
						f(d.hosts[2], d.hosts[0])
					}
				}
				cut(s.Cut)
				run(t, d.World, 20*time.Second)
				want(t, d.World, "a")
				cut(s.Join)
				run(t, d.World, 3*time.Second)
			}
		}
		if n := d.hosts[0].Status().Counters.Transitions; n > 2 {
			t.Errorf("a has moved %d times", n)
		}
	})
}

func TestCutOfBothSegmentsIsAPartitionAndHeals(t *testing.T) {
	each(t, func(t *testing.T, d *two) {
		one, rest := []sim.Port{d.hosts[0]}, []sim.Port{d.hosts[1], d.hosts[2]}
		joinFront, joinBack := d.front.Partition(one, rest), d.back.Partition(one, rest)
		run(t, d.World, 10*time.Second)
		want(t, d.World, "a b")
		joinBack() // the clients' segment stays cut
		run(t, d.World, 5*time.Second)
		want(t, d.World, "a")
		joinFront()
		run(t, d.World, 10*time.Second)
		want(t, d.World, "a")
	})
}

func TestClientSideLostMovesTheRoleByBowOut(t *testing.T) {
	each(t, func(t *testing.T, d *two) {
		a, b := d.hosts[0], d.hosts[1]
		most := 50 * time.Millisecond
		if a.Config.Protocol.VRRP() {
			most = 500 * time.Millisecond // its skew after a bow-out (RFC 9568, 6.1)
		}
		a.Unplug()
		run(t, d.World, most)
		want(t, d.World, "b")
		a.Plug()
		run(t, d.World, 5*time.Second)
		want(t, d.World, "b")
		join := b.CutOff()
		run(t, d.World, 600*time.Millisecond+most)
		want(t, d.World, "a")
		if s := b.Status(); s.State != carp.Backup || s.Demotions[carp.OwnerTrack] != 240 {
			t.Errorf("b is %v, demoted by %v", s.State, s.Demotions)
		}
		join()
		run(t, d.World, 5*time.Second)
		want(t, d.World, "a")
		if s := b.Status(); s.Demotion != 0 {
			t.Errorf("b is demoted by %d", s.Demotion)
		}
	})
}

func TestHostThatIsCutOffAndAloneTakesTheRoleBack(t *testing.T) {
	each(t, func(t *testing.T, d *two) {
		a := d.hosts[0]
		d.hosts[1].Kill(false)
		d.hosts[2].Kill(false)
		defer a.CutOff()()
		run(t, d.World, 700*time.Millisecond)
		want(t, d.World, "")
		run(t, d.World, 2*time.Second)
		want(t, d.World, "a")
		run(t, d.World, 20*time.Second) // and keeps it: once an episode
		want(t, d.World, "a")
	})
}

var besideSeeds = flag.Int("sim.beside-seeds", 60, "seeds of the soak with two segments")

// Everything is broken at random, on both segments; the checkers say what must hold
// all the while. At the end all is whole and one host answers.
func TestSoakOfTwoSegments(t *testing.T) {
	moves := uint64(0)
	for seed := range uint64(*besideSeeds) {
		d := newTwo(seed, sim.Options{LoopLate: sim.Span(0, 2*time.Millisecond)},
			[]carp.Protocol{carp.CARP, carp.VRRP3}[seed%2], int(seed/2%2), seed/4%2 == 1)
		rng := rand.New(rand.NewPCG(seed, 2))
		for at := 5 * time.Second; at < 120*time.Second; at += time.Duration(rng.Int64N(int64(4 * time.Second))) {
			d.After(at, func() { d.strike(rng) })
		}
		err := d.Run(150 * time.Second)
		for _, h := range d.hosts {
			moves += h.Status().Counters.Transitions
		}
		if got := holders(d.World); err == nil && len(got) != 1 {
			t.Errorf("seed %d: at the end the holders are [%s]", seed, got)
			err = d.Run(0)
		}
		if err != nil || t.Failed() {
			var b bytes.Buffer
			d.Trace(&b)
			t.Fatalf("seed %d: %v\nrepeat: go test ./test/sim -run TestSoakOfTwoSegments -sim.beside-seeds=%d\n%s", seed, err, seed+1, b.String())
		}
	}
	t.Logf("%d seeds, %d transitions of the daemons that lived to the end", *besideSeeds, moves)
}

// strike breaks one thing and mends it within some seconds.
func (d *two) strike(rng *rand.Rand) {
	lasts := time.Duration(rng.Int64N(int64(8 * time.Second)))
	undo := func(f func()) { d.After(lasts, f) }
	i := rng.IntN(len(d.hosts))
	h, other := d.hosts[i], d.hosts[(i+1+rng.IntN(2))%3]
	seg := d.front
	if rng.IntN(2) == 0 {
		seg = d.back
	}
	switch rng.IntN(8) {
	case 0, 1:
		seg.Cut(h, other)
		undo(func() { seg.Join(h, other) })
	case 2:
		undo(seg.Partition([]sim.Port{h}, []sim.Port{other, d.hosts[3-i-index(d.hosts, other)]}))
	case 3:
		h.Unplug()
		undo(h.Plug)
	case 4:
		undo(h.CutOff())
	case 5:
		h.Kill(false)
		undo(h.Start)
	case 6:
		h.Freeze()
		undo(h.Resume)
	case 7:
		seg.Loss = rng.Float64() / 2
		undo(func() { seg.Loss = 0 })
	}
}

func index(all []*sim.Host, h *sim.Host) int {
	for i := range all {
		if all[i] == h {
			return i
		}
	}
	return -1
}
