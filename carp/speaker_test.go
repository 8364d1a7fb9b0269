package carp_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/carptest"
)

// node is a speaker on a bus with a handler that notes what it is told.
type node struct {
	*carp.Speaker
	port   *carptest.Port
	beside *carptest.Port // the link of a second path, or nil
	stop   context.CancelFunc
	err    chan error

	mu     sync.Mutex
	log    []string
	permit carp.Permit
	handle func(context.Context, carp.Transition) error

	observe func(carp.Transition)
}

func (n *node) Handle(ctx context.Context, t carp.Transition) error {
	n.note(fmt.Sprintf("handle %v", t.To))
	if n.handle != nil {
		return n.handle(ctx, t)
	}
	return nil
}

func (n *node) Permit(p carp.Permit) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.permit = p
}

func (n *node) Announce() { n.note("announce") }

func (n *node) note(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.log = append(n.log, s)
}

func (n *node) notes() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.log)
}

func (n *node) state() carp.State {
	st, _ := n.Status()
	return st.State
}

// holds reports whether the node may answer for its addresses now.
func (n *node) holds() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.permit.Live(n.port.Now())
}

func group(skew uint8) carp.Config {
	return carp.Config{
		VHID: 9, AdvBase: 1, AdvSkew: skew, Passphrase: []byte("secret"),
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.50")},
		Rand:      func() uint64 { return 1 << 40 },
	}
}

// segment is a bus, and the loop of the speakers on it; nil: each has its own.
type segment struct {
	*carptest.Bus
	loop *carp.Loop
}

// onLoops runs a test in a bubble, once with a loop for each speaker and once with
// one for all.
func onLoops(t *testing.T, f func(t *testing.T, bus segment)) {
	t.Run("own loops", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, segment{Bus: carptest.NewBus()}) })
	})
	t.Run("one loop", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := carptest.NewBus()
			f(t, segment{bus, startLoop(t, bus)})
		})
	})
}

// startLoop runs a loop for many speakers until the end of the test, and waits for
// it.
func startLoop(t *testing.T, bus *carptest.Bus) *carp.Loop {
	loop := carp.NewLoop(carp.TimeWaiter(bus.Now))
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { loop.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	return loop
}

func join(t *testing.T, bus segment, addr string, c carp.Config, set func(*node)) *node {
	t.Helper()
	n := &node{port: bus.Join(carptest.IPv4(addr)), err: make(chan error, 1)}
	if set != nil {
		set(n)
	}
	s, err := carp.NewSpeaker(c, n.port, n)
	if err != nil {
		t.Fatal(err)
	}
	if s.Observe = n.observe; s.Observe == nil {
		s.Observe = func(tr carp.Transition) { n.note(fmt.Sprintf("%v", tr)) }
	}
	if s.Loop = bus.loop; n.beside != nil {
		s.Beside = []carp.Link{n.beside}
	}
	n.Speaker = s
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	go func() { n.err <- s.Run(ctx) }()
	t.Cleanup(stop)
	return n
}

// within runs time on until cond holds, and fails if it does not within d.
func within(t *testing.T, d time.Duration, what string, cond func() bool) time.Duration {
	t.Helper()
	for start := time.Now(); ; {
		synctest.Wait()
		if cond() {
			return time.Since(start)
		}
		if time.Since(start) > d {
			t.Fatalf("not within %v: %s", d, what)
		}
		<-time.After(time.Millisecond)
	}
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestLowerSkewBecomesMasterAndBackupFollows(t *testing.T) {
	onLoops(t, func(t *testing.T, bus segment) {
		a := join(t, bus, "192.0.2.1", group(0), nil)
		b := join(t, bus, "192.0.2.2", group(100), nil)
		took := within(t, 4*time.Second, "a is master", func() bool { return a.state() == carp.Master })
		if took < 3*time.Second || took > 3010*time.Millisecond {
			t.Errorf("master after %v, want 3 s", took)
		}
		for range 600 {
			pass(100 * time.Millisecond)
			if b.state() != carp.Backup {
				t.Fatalf("b is %v: %q", b.state(), b.notes())
			}
		}
		st, _ := b.Status()
		if st.Master.Address != netip.MustParseAddr("192.0.2.1") || len(st.Drops) != 0 {
			t.Errorf("b follows %v with drops %v", st.Master, st.Drops)
		}
		if !a.holds() || b.holds() {
			t.Errorf("a holds %v, b holds %v", a.holds(), b.holds())
		}
		stopAll(t, a, b)
	})
}

func TestOrderlyStopHandsOverAtOnce(t *testing.T) {
	onLoops(t, func(t *testing.T, bus segment) {
		a := join(t, bus, "192.0.2.1", group(0), func(n *node) {
			n.handle = func(ctx context.Context, tr carp.Transition) error {
				if tr.To == carp.Releasing {
					<-time.After(200 * time.Millisecond) // the addresses take a while
				}
				return nil
			}
		})
		b := join(t, bus, "192.0.2.2", group(100), nil)
		within(t, 4*time.Second, "a is master", func() bool { return a.state() == carp.Master })
		pass(1500 * time.Millisecond)
		a.stop()
		took := within(t, time.Second, "b is master", func() bool { return b.state() == carp.Master })
		if took < 200*time.Millisecond || took > 215*time.Millisecond {
			t.Errorf("b is master after %v, want 200 ms of letting go and 10 ms of its own skew", took)
		}
		if err := <-a.err; err != nil {
			t.Error(err)
		}
		stopAll(t, b)
	})
}

func TestReleaseBudgetEndsAStopWithoutBowOut(t *testing.T) {
	onLoops(t, func(t *testing.T, bus segment) {
		a := join(t, bus, "192.0.2.1", group(0), func(n *node) {
			n.handle = func(ctx context.Context, tr carp.Transition) error {
				if tr.To == carp.Releasing {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}
		})
		within(t, 4*time.Second, "a is master", func() bool { return a.state() == carp.Master })
		start := time.Now()
		a.stop()
		if err := <-a.err; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != carp.DefaultReleaseBudget {
			t.Errorf("the stop took %v", took)
		}
		for _, p := range a.port.Sent() {
			if p.Payload[2] == 255 {
				t.Error("a bow-out was sent although the addresses may still be there")
			}
		}
	})
}

func TestFailedTakeoverBowsOutAndIsHeldBack(t *testing.T) {
	onLoops(t, func(t *testing.T, bus segment) {
		a := join(t, bus, "192.0.2.1", group(0), func(n *node) {
			n.handle = func(ctx context.Context, tr carp.Transition) error {
				if tr.To == carp.Master {
					return errors.New("no address")
				}
				return nil
			}
		})
		b := join(t, bus, "192.0.2.2", group(100), nil)
		within(t, 4*time.Second, "b is master", func() bool { return b.state() == carp.Master })
		if st, _ := a.Status(); st.EffectiveAdvSkew != 240 || st.Demotions[carp.OwnerFailure] != 240 {
			t.Errorf("a is not demoted: %+v", st)
		}
		b.stop() // nobody else is left, but a is held back
		<-b.err
		pass(4 * time.Second)
		if a.state() == carp.Master {
			t.Error("a took over again at once")
		}
		stopAll(t, a)
	})
}

// A handler that could not undo all of a takeover keeps the others waiting until it has.
func TestNobodyIsCalledInWhileATakeoverThatFailedIsNotUndone(t *testing.T) {
	onLoops(t, func(t *testing.T, bus segment) {
		undone := make(chan struct{})
		a := join(t, bus, "192.0.2.1", group(0), func(n *node) {
			n.handle = func(ctx context.Context, tr carp.Transition) error {
				switch tr.To {
				case carp.Master:
					return fmt.Errorf("no disk: %w", carp.ErrHeld)
				case carp.Releasing:
					select {
					case <-undone:
					case <-ctx.Done():
					}
				}
				return ctx.Err()
			}
		})
		b := join(t, bus, "192.0.2.2", group(100), nil)
		within(t, 4*time.Second, "a lets go", func() bool { return a.state() == carp.Releasing })
		pass(500 * time.Millisecond)
		if s := b.state(); s != carp.Backup {
			t.Errorf("b is %v while a lets go", s)
		}
		close(undone)
		within(t, time.Second, "b is master", func() bool { return b.state() == carp.Master })
		if st, _ := a.Status(); st.Demotions[carp.OwnerFailure] != 240 {
			t.Errorf("a is not held back: %+v", st)
		}
		stopAll(t, a, b)
	})
}

// The addresses went while it was master, and cannot be put back.
func TestMasterThatLostItsAddressesBowsOutAndIsHeldBack(t *testing.T) {
	onLoops(t, func(t *testing.T, bus segment) {
		a := join(t, bus, "192.0.2.1", group(0), nil)
		b := join(t, bus, "192.0.2.2", group(100), nil)
		within(t, 4*time.Second, "a is master", func() bool { return a.state() == carp.Master })
		st, _ := a.Status()
		a.Failed(st.Epoch - 1) // of a mastership that is over
		if a.state() != carp.Master {
			t.Fatal("a left the role for an epoch that is over")
		}
		a.Failed(st.Epoch)
		within(t, time.Second, "b is master", func() bool { return b.state() == carp.Master })
		if st, _ := a.Status(); st.State != carp.Backup || st.EffectiveAdvSkew != 240 || st.Demotions[carp.OwnerFailure] != 240 {
			t.Errorf("a is not a demoted backup: %+v", st)
		}
		a.Failed(st.Epoch) // again: it is over
		if st, _ := a.Status(); st.Demotions[carp.OwnerFailure] != 240 {
			t.Errorf("demoted twice: %+v", st)
		}
		stopAll(t, a, b)
	})
}

func TestClosedLinkEndsTheSpeakerAndItsMastership(t *testing.T) {
	onLoops(t, func(t *testing.T, bus segment) {
		a := join(t, bus, "192.0.2.1", group(0), nil)
		within(t, 4*time.Second, "a is master", func() bool { return a.state() == carp.Master })
		a.port.Close()
		if err := <-a.err; err == nil {
			t.Error("no error")
		}
		if a.holds() {
			t.Error("the permit outlives the speaker")
		}
		a.Demote("somebody", 1) // must not hang
	})
}

func stopAll(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		n.stop()
		if err := <-n.err; err != nil {
			t.Error(err)
		}
	}
}
