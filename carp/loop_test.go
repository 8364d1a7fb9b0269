package carp_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/carptest"
)

// fast is a group that advertises every 3/256 s.
func fast(vhid uint8) carp.Config {
	c := group(3)
	c.VHID, c.AdvBase = vhid, 0
	return c
}

const fastInterval = 3 * time.Second / 256

// gaps returns the times between the adverts that a port sent, but for the last
// one if it is a bow-out.
func gaps(p *carptest.Port) (gaps []time.Duration) {
	sent := p.Sent()
	for n := 1; n < len(sent); n++ {
		if sent[n].Payload[2] != 255 {
			gaps = append(gaps, sent[n].At.Sub(sent[n-1].At))
		}
	}
	return gaps
}

// slot is how late a shared loop may be.
const slot = 200 * time.Microsecond

// inTime checks that a port sent at its interval, late by a slot at most, for about
// as long as d.
func inTime(t *testing.T, p *carptest.Port, d time.Duration) {
	t.Helper()
	all := gaps(p)
	if want := int(d / fastInterval); len(all) < want*9/10 {
		t.Errorf("%d adverts in %v, want about %d", len(all), d, want)
	}
	for _, gap := range all {
		if gap < fastInterval || gap > fastInterval+slot {
			t.Errorf("%v between two adverts, want %v and at most %v more", gap, fastInterval, slot)
			return
		}
	}
}

// alone runs a speaker on a bus of its own, on the loop.
func alone(t *testing.T, clock *carptest.Bus, loop *carp.Loop, c carp.Config, set func(*node)) *node {
	t.Helper()
	return join(t, segment{clock.Beside(), loop}, fmt.Sprintf("192.0.2.%d", c.VHID), c, set)
}

func TestManySpeakersOfOneLoopElectAndAdvertiseInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := carptest.NewBus()
		loop := startLoop(t, clock)
		var masters, backups []*node
		for n := range 60 {
			seg := segment{clock.Beside(), loop}
			c := fast(uint8(n + 1))
			masters = append(masters, join(t, seg, "192.0.2.1", c, nil))
			c.AdvSkew = 50
			backups = append(backups, join(t, seg, "192.0.2.2", c, nil))
			<-time.After(137 * time.Microsecond) // each in another phase
		}
		pass(2 * time.Second)
		for n := range masters {
			if masters[n].state() != carp.Master || backups[n].state() != carp.Backup {
				t.Fatalf("pair %d: %v, %v", n, masters[n].state(), backups[n].state())
			}
			inTime(t, masters[n].port, 2*time.Second-10*fastInterval)
			if st, _ := backups[n].Status(); st.Counters.Received < 150 {
				t.Errorf("pair %d: the backup heard %d adverts", n, st.Counters.Received)
			}
		}
		stopAll(t, masters...)
		stopAll(t, backups...)
	})
}

func TestHangingObserverOrHandlerStallsNobody(t *testing.T) {
	onLoops(t, func(t *testing.T, bus segment) {
		hang := make(chan struct{})
		hanging := alone(t, bus.Bus, bus.loop, fast(1), func(n *node) {
			n.handle = func(ctx context.Context, tr carp.Transition) error {
				if tr.To == carp.Master {
					<-hang
				}
				return nil
			}
		})
		blind := alone(t, bus.Bus, bus.loop, fast(2), func(n *node) { n.observe = func(carp.Transition) { <-hang } })
		free := alone(t, bus.Bus, bus.loop, fast(3), nil)
		pass(2 * time.Second)
		for which, n := range []*node{hanging, blind, free} {
			if n.state() != carp.Master || !n.holds() {
				t.Errorf("node %d: %v, holds %v", which, n.state(), n.holds())
			}
			inTime(t, n.port, 2*time.Second-10*fastInterval)
		}
		if !slices.Contains(blind.notes(), "handle MASTER") {
			t.Error("the handler waits for an observer for ever")
		}
		close(hang)
		stopAll(t, hanging, blind, free)
	})
}

func TestObserverKnowsATransitionBeforeItsHandlerAndAllOfThemAtTheEnd(t *testing.T) {
	onLoops(t, func(t *testing.T, bus segment) {
		var mu sync.Mutex
		var seen []carp.Transition
		a := join(t, bus, "192.0.2.1", fast(1), func(n *node) {
			n.observe = func(tr carp.Transition) {
				<-time.After(10 * time.Millisecond)
				n.note(fmt.Sprintf("observe %v", tr.To))
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, tr)
			}
		})
		pass(time.Second)
		for range 10 {
			a.SetState(carp.Backup)
			mu.Lock()
			if n := len(seen); n == 0 || seen[n-1].To != carp.Releasing {
				t.Errorf("%d were observed when a method returned", n)
			}
			mu.Unlock()
			pass(60 * time.Millisecond)
		}
		stopAll(t, a)
		for n, tr := range seen {
			if n > 0 && tr.From != seen[n-1].To {
				t.Errorf("%v follows %v", tr, seen[n-1])
			}
		}
		if last := seen[len(seen)-1]; last.To != carp.Init || len(seen) < 20 {
			t.Errorf("%d were observed, the last: %v", len(seen), last)
		}
		notes := slices.DeleteFunc(a.notes(), func(s string) bool { return s == "announce" })
		if want := []string{"observe BACKUP", "handle BACKUP", "observe MASTER", "handle MASTER"}; !slices.Equal(notes[:4], want) {
			t.Errorf("%q, want %q first", notes[:4], want)
		}
	})
}

func TestSpeakersComeAndGoWhileOthersAdvertise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := carptest.NewBus()
		loop := startLoop(t, clock)
		steady := alone(t, clock, loop, fast(1), nil)
		pass(time.Second)
		var coming sync.WaitGroup
		for n := range 20 {
			coming.Go(func() {
				for range 10 {
					<-time.After(time.Duration(n+1) * 997 * time.Microsecond)
					guest := alone(t, clock, loop, fast(uint8(n+2)), nil)
					<-time.After(50 * time.Millisecond)
					guest.stop()
					if err := <-guest.err; err != nil {
						t.Error(err)
					}
					if st := guest.state(); st != carp.Init { // answered at once, as one that has ended
						t.Errorf("a guest that has gone is %v", st)
					}
				}
			})
		}
		coming.Wait()
		if steady.state() != carp.Master {
			t.Errorf("the steady one is %v", steady.state())
		}
		inTime(t, steady.port, 1500*time.Millisecond)
		stopAll(t, steady)
	})
}

// In a bubble time passes only when everybody waits. A call or a packet that is
// overlooked waits for the loop's next deadline, or a quarter of a second.
func TestNoCallAndNoPacketIsOverlooked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := carptest.NewBus()
		loop := startLoop(t, clock)
		var nodes []*node
		for n := range 5 {
			nodes = append(nodes, alone(t, clock, loop, group(uint8(n)), nil))
		}
		start := time.Now()
		var injected atomic.Int64
		var callers sync.WaitGroup
		for n := range 10 {
			callers.Go(func() {
				for i := range 300 {
					to := nodes[(n+i)%len(nodes)]
					if n%2 == 0 {
						to.port.Inject(carp.Packet{TTL: 255, Payload: []byte{0}})
						injected.Add(1)
					}
					to.Status()
				}
			})
		}
		callers.Wait()
		pass(slot)
		if took := time.Since(start); took > 301*slot {
			t.Errorf("300 calls in a row waited %v, more than a slot each", took)
		}
		heard := uint64(0)
		for _, n := range nodes {
			st, _ := n.Status()
			for _, count := range st.Drops {
				heard += count
			}
		}
		if heard != uint64(injected.Load()) {
			t.Errorf("%d packets were injected and %d seen", injected.Load(), heard)
		}
		stopAll(t, nodes...)
	})
}

func TestLoopEndsWithItsLastSpeakerAndTakesNoNewOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := carptest.NewBus()
		loop := carp.NewLoop(carp.TimeWaiter(bus.Now))
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { loop.Run(ctx); close(ended) }()
		a := alone(t, bus, loop, fast(1), nil)
		pass(time.Second)
		stop()
		pass(time.Second)
		late := alone(t, bus, loop, fast(2), nil)
		if err := <-late.err; err == nil {
			t.Error("a speaker joined a loop that is about to end")
		}
		if late.Demote("somebody", 1); late.port.Send(carp.Frame{}) == nil {
			t.Error("the link of a speaker that never ran is open")
		}
		if a.state() != carp.Master {
			t.Errorf("the loop ended under a speaker: %v", a.state())
		}
		stopAll(t, a)
		<-ended
	})
}
