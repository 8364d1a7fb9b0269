package vip_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

const (
	ms    = time.Millisecond
	vip9  = "192.0.2.9"
	vip96 = "2001:db8::9"
)

// world is a Set on a fake kernel, with its worker, in a bubble.
type world struct {
	*testing.T
	k     *viptest.FakeKernel
	set   *vip.Set
	start time.Time
	mu    sync.Mutex
	kinds []vip.EventKind
	errs  []error
	ended chan error // Run's result
}

// inWorld runs f in a bubble with a worker that runs until f returns.
func inWorld(t *testing.T, change func(*vip.Config), f func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, k: viptest.NewFakeKernel(viptest.Own()...), start: time.Now(), ended: make(chan error, 1)}
		cfg := vip.Config{
			Interface: viptest.LinkName, VHID: 1, Addresses: prefixesOf(vip9+"/24", vip96+"/64"),
			Lease: vip.PlanLease(3*time.Second, time.Second), Now: w.now, Observe: w.observe,
		}
		if change != nil {
			change(&cfg)
		}
		w.set = vip.New(w.k, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { w.ended <- w.set.Run(ctx) }()
		synctest.Wait()
		f(w)
		cancel()
		if err := <-w.ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if w.k.Has(vip9) || w.k.Has(vip96) {
			t.Errorf("addresses are left after Run:\n%v", w.k)
		}
	})
}

func prefixesOf(words ...string) (out []netip.Prefix) {
	for _, w := range words {
		out = append(out, netip.MustParsePrefix(w))
	}
	return out
}

// now begins at 1000 s, so that no instant is 0 by chance.
func (w *world) now() carp.Instant { return carp.Instant(1000*time.Second + time.Since(w.start)) }

func (w *world) observe(e vip.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kinds = append(w.kinds, e.Kind)
	w.errs = append(w.errs, e.Err)
}

// events returns the events since the last call.
func (w *world) events() []vip.EventKind {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.kinds
	w.kinds = nil
	return k
}

func (w *world) wantEvents(want ...vip.EventKind) {
	w.Helper()
	if got := w.events(); !slices.Equal(got, want) {
		w.Errorf("events %v, want %v (errors %v)", got, want, w.errs)
	}
}

// permit gives a permit as the engine does after an advert: for 3 s.
func (w *world) permit(epoch carp.Epoch) {
	w.set.Permit(carp.Permit{Epoch: epoch, Until: w.now().Add(3 * time.Second)})
}

// master advertises each second for n seconds.
func (w *world) master(epoch carp.Epoch, n int) {
	for range n {
		w.permit(epoch)
		time.Sleep(time.Second)
	}
	synctest.Wait()
}

func (w *world) up(epoch carp.Epoch) {
	w.Helper()
	w.permit(epoch)
	if err := w.set.Up(w.Context(), epoch); err != nil {
		w.Fatalf("Up: %v", err)
	}
}

// both reports whether both addresses are on; it ends the test if only one is.
func (w *world) both() bool {
	w.Helper()
	synctest.Wait()
	if w.k.Has(vip9) != w.k.Has(vip96) {
		w.Fatalf("only one of the addresses is on:\n%v", w.k)
	}
	return w.k.Has(vip9)
}

func (w *world) wantOn(on bool, when string) {
	w.Helper()
	if w.both() != on {
		w.Fatalf("%s: addresses on: %v, want %v\n%v", when, !on, on, w.k)
	}
}

// await waits for cond, a millisecond at a time, and returns how long it took.
func (w *world) await(limit time.Duration, what string, cond func() bool) time.Duration {
	w.Helper()
	begin := time.Now()
	for !cond() {
		if time.Since(begin) > limit {
			w.Fatalf("%s: not within %v\n%v", what, limit, w.k)
		}
		time.Sleep(ms)
		synctest.Wait()
	}
	return time.Since(begin)
}

func TestUpPutsAllOnInOneBatchAndAnnounces(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		w.wantOn(true, "after Up")
		if b := w.k.Batches(); len(b) != 1 || len(b[0]) != 2 {
			t.Errorf("batches %v, want one of two", b)
		}
		if f := w.k.Sent(); len(f) != 2 {
			t.Errorf("%d frames before Up returned, want 2", len(f))
		}
		w.wantEvents(vip.EventUp)
		want := []vip.Status{{Prefix: prefixesOf(vip9 + "/24")[0], Present: true}, {Prefix: prefixesOf(vip96 + "/64")[0], Present: true}}
		if got := w.set.Status(); !slices.Equal(got, want) {
			t.Errorf("Status %v, want %v", got, want)
		}
		if err := w.set.Down(w.Context()); err != nil {
			t.Errorf("Down: %v", err)
		}
		w.wantOn(false, "after Down")
		w.wantEvents(vip.EventDown)
		if got := w.set.Status(); got[0].Present || got[1].Present {
			t.Errorf("Status after Down: %v", got)
		}
	})
}

func TestUpOfAnEarlierEpochIsSuperseded(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.permit(6)
		if err := w.set.Up(w.Context(), 5); !errors.Is(err, vip.ErrSuperseded) {
			t.Errorf("Up: %v, want ErrSuperseded", err)
		}
		if err := w.set.Up(w.Context(), 0); err == nil {
			t.Error("Up of epoch 0: no error")
		}
		w.wantOn(false, "after both")
	})
}

// The mastership ends and the next one begins while an Up looks at the interface: the gates
// of the next one have not run yet.
func TestAPermitOfTheNextMastershipIsNotForAnUpOfTheLast(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		var once sync.Once
		w.k.SetHooks(viptest.Hooks{BeforeList: func() {
			once.Do(func() {
				w.set.Permit(carp.Permit{})
				w.permit(6)
			})
		}})
		w.permit(5)
		if err := w.set.Up(w.Context(), 5); !errors.Is(err, vip.ErrSuperseded) {
			t.Errorf("Up: %v, want ErrSuperseded", err)
		}
		w.wantOn(false, "after the Up of the last mastership")
		if err := w.set.Up(w.Context(), 6); err != nil {
			t.Errorf("Up of the next one: %v", err)
		}
		w.wantOn(true, "after the Up of the next one")
	})
}

func TestDownEndsAnUpThatWaits(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		done := make(chan error, 1)
		go func() { done <- w.set.Up(w.Context(), 5) }()
		synctest.Wait()
		if err := w.set.Down(w.Context()); err != nil {
			t.Errorf("Down: %v", err)
		}
		if err := <-done; !errors.Is(err, vip.ErrSuperseded) {
			t.Errorf("Up: %v, want ErrSuperseded", err)
		}
		w.master(5, 5)
		w.wantOn(false, "with permits after Down")
	})
}

func TestDownDuringTheBatchOfUpLeavesNothing(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.k.SetHooks(viptest.Hooks{BeforeApply: func(c []vip.Change) { time.Sleep(100 * ms) }})
		w.permit(5)
		done := make(chan error, 1)
		go func() { done <- w.set.Up(w.Context(), 5) }()
		time.Sleep(50 * ms)
		if err := w.set.Down(w.Context()); err != nil {
			t.Errorf("Down: %v", err)
		}
		w.wantOn(false, "after Down")
		if err := <-done; !errors.Is(err, vip.ErrSuperseded) {
			t.Errorf("Up: %v, want ErrSuperseded", err)
		}
		w.master(5, 3)
		w.wantOn(false, "later")
	})
}

func TestAnnouncementsAreRefreshedWhileTheAddressesAreOn(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.set.Refresh(30 * time.Second)
		w.up(1)
		up := time.Now()
		w.master(1, 70)
		var at []time.Duration
		for _, f := range w.k.Sent()[8:] { // behind the burst
			at = append(at, f.At.Sub(up))
		}
		if want := []time.Duration{35 * time.Second, 35 * time.Second, 65 * time.Second, 65 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("announced at %v, want %v", at, want)
		}
		w.set.Refresh(0)
		w.master(1, 10) // the change is announced, and then no more
		w.k.Sent()
		w.master(1, 100)
		if more := len(w.k.Sent()); more != 0 {
			t.Errorf("%d frames after the refresh was turned off", more)
		}
		w.set.Refresh(time.Second)
		w.permit(1)
		if err := w.set.Down(w.Context()); err != nil {
			t.Fatal(err)
		}
		w.k.Sent()
		w.master(1, 10)
		if more := len(w.k.Sent()); more != 0 {
			t.Errorf("%d frames after the addresses went", more)
		}
	})
}

func TestBurstIsRepeatedAndThenEnds(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		up := time.Now()
		w.master(1, 10)
		var at []time.Duration
		for _, f := range w.k.Sent() {
			at = append(at, f.At.Sub(up))
		}
		if want := []time.Duration{0, 0, 200 * ms, 200 * ms, time.Second, time.Second, 5 * time.Second, 5 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("announced at %v, want %v", at, want)
		}
		w.set.Announce()
		w.master(1, 10)
		if n := len(w.k.Sent()); n != 8 {
			t.Errorf("%d frames of the heal burst, want 8", n)
		}
	})
}

func TestFailedUpLeavesNothing(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		no := errors.New("no")
		w.k.SetHooks(viptest.Hooks{Fail: func(c vip.Change) error {
			if c.Op == vip.Put && c.Prefix.Addr().Is6() {
				return no
			}
			return nil
		}})
		w.permit(1)
		err := w.set.Up(w.Context(), 1)
		op, ok := errors.AsType[*vip.OpError](err)
		if !errors.Is(err, no) || !ok || op.Op != "add" || op.Addr.String() != vip96+"/128" {
			t.Errorf("Up: %v, want an OpError of the IPv6 address", err)
		}
		w.wantOn(false, "after Up")
		w.master(1, 3)
		w.wantOn(false, "later")
		w.k.SetHooks(viptest.Hooks{})
	})
}

func TestUpOnNoInterfaceSaysSo(t *testing.T) {
	inWorld(t, func(c *vip.Config) { c.Interface = "nothere0" }, func(w *world) {
		w.permit(1)
		if err := w.set.Up(w.Context(), 1); !errors.Is(err, vip.ErrNoLink) {
			t.Errorf("Up: %v, want ErrNoLink", err)
		}
		if err := w.set.Down(w.Context()); err != nil {
			t.Errorf("Down: %v", err)
		}
	})
}

func TestCancelledUpLeavesItsAddressesToWhatFollows(t *testing.T) {
	for name, tc := range map[string]struct {
		permit carp.Permit // when the call is cancelled
		stay   bool
	}{
		"same epoch":        {carp.Permit{Epoch: 1, Until: carp.Instant(time.Hour)}, true},
		"contested":         {carp.Permit{Epoch: 2, Until: carp.Instant(time.Hour)}, true},
		"permit withdrawn":  {carp.Permit{}, false},
		"permit that ended": {carp.Permit{Epoch: 1, Until: 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				ctx, cancel := context.WithCancel(w.Context())
				w.k.SetHooks(viptest.Hooks{BeforeSend: func([][]byte) error {
					w.k.SetHooks(viptest.Hooks{})
					w.set.Permit(tc.permit)
					cancel()
					return ctx.Err()
				}})
				w.permit(1)
				if err := w.set.Up(ctx, 1); !errors.Is(err, context.Canceled) {
					t.Errorf("Up: %v, want that it was cancelled", err)
				}
				w.wantOn(tc.stay, "after Up")
				if !tc.stay {
					return
				}
				w.wantEvents()
				w.k.Batches()
				w.permit(2)
				if err := w.set.Up(w.Context(), 2); err != nil {
					t.Errorf("Up that follows: %v", err)
				}
				for _, b := range w.k.Batches() {
					if slices.ContainsFunc(b, func(c vip.Change) bool { return c.Op == vip.Remove }) {
						t.Errorf("an address was removed: %v", b)
					}
				}
				if err := w.set.Down(w.Context()); err != nil {
					t.Errorf("Down: %v", err)
				}
				w.wantOn(false, "after Down")
			})
		})
	}
}

func TestDownTriesAgainAndTheWorkerAfterIt(t *testing.T) {
	inWorld(t, func(c *vip.Config) { c.Lease = vip.Lease{} }, func(w *world) {
		w.up(1)
		stuck := errors.New("stuck")
		tries := 0
		w.k.SetHooks(viptest.Hooks{Fail: func(c vip.Change) error {
			if c.Prefix.Addr().Is4() {
				tries++
				return stuck
			}
			return nil
		}})
		begin := time.Now()
		if err := w.set.Down(w.Context()); !errors.Is(err, stuck) {
			t.Errorf("Down: %v, want the cause", err)
		}
		if d := time.Since(begin); d > 300*ms || tries != 5 {
			t.Errorf("%d tries in %v, want 5 in 0.3 s", tries, d)
		}
		w.events()
		w.k.SetHooks(viptest.Hooks{})
		w.await(2*time.Second, "gone by the worker", func() bool { return !w.k.Has(vip9) })
		w.wantEvents(vip.EventDown)
	})
}

func TestDownLeavesAForeignAddressAndSaysSo(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.k.AddAddr(viptest.LinkName, vip9+"/24")
		if err := w.set.Down(w.Context()); err != nil {
			t.Errorf("Down: %v", err)
		}
		w.wantEvents(vip.EventForeign)
		if !w.k.Has(vip9) {
			t.Error("the foreign address was removed")
		}
		w.k.DelAddr(viptest.LinkName, vip9+"/24")
	})
}

// An address that somebody else configured for good would go with the mastership.
func TestUpRefusesToTakeOverAForeignAddress(t *testing.T) {
	for _, length := range []string{"/24", "/32"} {
		inWorld(t, nil, func(w *world) {
			w.k.AddAddr(viptest.LinkName, vip9+length)
			w.permit(1)
			err := w.set.Up(w.Context(), 1)
			if !errors.Is(err, vip.ErrForeign) {
				t.Errorf("%s: Up: %v", length, err)
			}
			if err := w.set.Down(w.Context()); err != nil {
				t.Errorf("Down: %v", err)
			}
			if !w.k.Has(vip9) || w.k.Has(vip96) {
				t.Errorf("%s: the foreign address went, or ours stayed:\n%v", length, w.k)
			}
			w.k.DelAddr(viptest.LinkName, vip9+length)
			w.up(2)
		})
	}
}
