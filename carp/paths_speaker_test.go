package carp_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/carptest"
)

// pathPair is two nodes on two segments that can be cut.
type pathPair struct {
	a, b *node
	cut  [2]*atomic.Bool
}

func newPathPair(t *testing.T, bus segment) *pathPair {
	p := &pathPair{cut: [2]*atomic.Bool{{}, {}}}
	second := bus.Bus.Beside()
	for i, b := range []*carptest.Bus{bus.Bus, second} {
		b.Drop = func(_, _ *carptest.Port, _ carp.Packet) bool { return p.cut[i].Load() }
	}
	with := func(n int, skew uint8) *node {
		c := group(skew)
		c.Paths = []carp.Path{{Link: 1}}
		return join(t, bus, fmt.Sprintf("192.0.2.%d", n), c, func(node *node) {
			node.beside = second.Join(carptest.IPv4(fmt.Sprintf("198.51.100.%d", n)))
		})
	}
	p.a, p.b = with(1, 0), with(2, 100)
	within(t, 4*time.Second, "a is master", func() bool { return p.a.state() == carp.Master })
	within(t, 4*time.Second, "b follows a", func() bool { st, _ := p.b.Status(); return st.Master.At != 0 })
	return p
}

func TestCutOfOneOfTwoPathsIsNoFailover(t *testing.T) {
	onLoops(t, func(t *testing.T, bus segment) {
		p := newPathPair(t, bus)
		for i := range p.cut {
			p.cut[i].Store(true)
			pass(20 * time.Second)
			st, _ := p.b.Status()
			if p.a.state() != carp.Master || st.State != carp.Backup {
				t.Errorf("path %d cut: a is %v, b is %v", i, p.a.state(), st.State)
			}
			if !st.Paths[i].Silent || st.Paths[1-i].Silent {
				t.Errorf("path %d cut: b says %+v", i, st.Paths)
			}
			if len(st.Drops) > 0 {
				t.Errorf("path %d cut: b dropped %v", i, st.Drops)
			}
			p.cut[i].Store(false)
			pass(2 * time.Second)
		}
		stopAll(t, p.a, p.b)
	})
}

func TestPartitionOfAllPathsHeals(t *testing.T) {
	onLoops(t, func(t *testing.T, bus segment) {
		p := newPathPair(t, bus)
		p.cut[0].Store(true)
		p.cut[1].Store(true)
		within(t, 4*time.Second, "b is master too", func() bool { return p.b.state() == carp.Master })
		p.cut[1].Store(false) // the path that is not the clients'
		within(t, 2*time.Second, "b yields", func() bool { return p.b.state() == carp.Backup })
		if p.a.state() != carp.Master || p.b.holds() {
			t.Errorf("a is %v, b holds %v", p.a.state(), p.b.holds())
		}
		stopAll(t, p.a, p.b)
	})
}

func TestClientSideDownMovesTheRoleAtOnce(t *testing.T) {
	onLoops(t, func(t *testing.T, bus segment) {
		p := newPathPair(t, bus)
		p.a.port.Down()
		took := within(t, time.Second, "b is master", func() bool { return p.b.state() == carp.Master })
		if took > 15*time.Millisecond { // advskew 100: 10 ms
			t.Errorf("b took over after %v", took)
		}
		if p.a.state() != carp.Init || p.a.holds() {
			t.Errorf("a is %v, holds %v", p.a.state(), p.a.holds())
		}
		if !slices.Contains(p.b.notes(), "BACKUP -> MASTER (the master said that it leaves)") {
			t.Errorf("b: %q", p.b.notes())
		}
		p.a.port.Up()
		within(t, time.Second, "a is backup", func() bool { return p.a.state() == carp.Backup })
		stopAll(t, p.a, p.b)
	})
}

func TestRoundCountsAsSentIfOnePathTookIt(t *testing.T) {
	onLoops(t, func(t *testing.T, bus segment) {
		p := newPathPair(t, bus)
		p.a.port.Fail(fmt.Errorf("full"))
		pass(20 * time.Second)
		st, _ := p.a.Status()
		if st.State != carp.Master || st.Counters.SendErrors != 0 || !p.a.holds() {
			t.Errorf("a is %v with %d send errors, holds %v", st.State, st.Counters.SendErrors, p.a.holds())
		}
		if first, second := st.Paths[0], st.Paths[1]; first.Failed < 15 || second.Failed != 0 || second.Sent < first.Failed {
			t.Errorf("frames: %+v and %+v", first, second)
		}
		p.a.beside.Fail(fmt.Errorf("full"))
		within(t, 4*time.Second, "a is no longer master", func() bool { return p.a.state() != carp.Master })
		stopAll(t, p.a, p.b)
	})
}
