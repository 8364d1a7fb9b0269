package vip_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
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
		w := &world{T: t, k: viptest.NewFakeKernel(viptest.Own...), start: time.Now(), ended: make(chan error, 1)}
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

func TestNothingIsAddedWithoutAPermitOfTheEpoch(t *testing.T) {
	for name, permit := range map[string]func(*world){
		"no permit":           func(*world) {},
		"zero permit":         func(w *world) { w.set.Permit(carp.Permit{}) },
		"an earlier epoch":    func(w *world) { w.permit(4) },
		"a permit that ended": func(w *world) { w.set.Permit(carp.Permit{Epoch: 5, Until: w.now()}) },
		"a permit too short for the lease": func(w *world) {
			w.set.Permit(carp.Permit{Epoch: 5, Until: w.now().Add(2099 * ms)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				permit(w)
				ctx, cancel := context.WithTimeout(w.Context(), 10*time.Second)
				defer cancel()
				if err := w.set.Up(ctx, 5); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Up: %v, want the deadline", err)
				}
				if b, f := w.k.Batches(), w.k.Sent(); len(b) != 0 || len(f) != 0 {
					t.Errorf("batches %v, %d frames; want none", b, len(f))
				}
			})
		})
	}
}

func TestUpWaitsForItsPermit(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		done := make(chan error, 1)
		go func() { done <- w.set.Up(w.Context(), 5) }()
		time.Sleep(time.Second)
		w.wantOn(false, "before the permit")
		w.permit(5)
		if err := <-done; err != nil {
			t.Errorf("Up: %v", err)
		}
		w.wantOn(true, "after the permit")
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

func TestLeaseIsRenewedAfterEachPermitAndBetween(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		time.Sleep(999 * ms)
		w.k.Batches()
		for range 5 { // from here a permit each second
			time.Sleep(ms)
			w.permit(1)
			synctest.Wait()
			if b := w.k.Batches(); len(b) != 1 || len(b[0]) != 2 {
				t.Errorf("%v after the permit: batches %v, want one renewal of both", time.Since(w.start), b)
			}
			time.Sleep(999 * ms)
			if n := len(w.k.Batches()); n != 3 {
				t.Errorf("%d renewals between two permits, want 3", n)
			}
		}
		w.wantOn(true, "all the time")
		w.wantEvents(vip.EventUp)
	})
}

func TestFastAdvertsDoNotRenewEachTime(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		w.k.Batches()
		for range 250 {
			time.Sleep(4 * ms)
			w.permit(1)
		}
		if n := len(w.k.Batches()); n > 16 {
			t.Errorf("%d renewals in a second, want 16 at most", n)
		}
	})
}

func TestNothingIsRenewedWhenTheKernelMightKeepItTooLong(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		// The worst kernel: 1.1 s late each time.
		w.k.SetHooks(viptest.Hooks{Late: 1099 * ms})
		w.up(1)
		last := time.Now() // of the last advert
		gone := w.await(4*time.Second, "gone", func() bool { return !w.both() })
		if gone >= 3*time.Second {
			t.Errorf("gone %v after the last advert, want less than 3 s", gone)
		}
		for _, b := range w.k.Batches()[1:] {
			if b[0].Op != vip.Put {
				t.Errorf("the worker removed the addresses at %v, want the kernel to do it", time.Since(last))
			}
		}
	})
}

func TestLapsedPermitTakesAddressesOffAndResumedPermitsDoNotRestoreThem(t *testing.T) {
	for name, lease := range map[string]vip.Lease{
		"lease": vip.PlanLease(3*time.Second, time.Second), "no lease": {}, "lease that is not promised": vip.PlanLease(2*time.Second, time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(c *vip.Config) { c.Lease = lease }, func(w *world) {
				w.up(1)
				w.master(1, 3)
				w.wantOn(true, "with permits")
				time.Sleep(2001 * ms)
				w.wantOn(false, "when the permit lapsed")
				w.wantEvents(vip.EventUp, vip.EventLapsed)
				w.k.Batches()
				w.k.Sent()
				w.master(1, 5)
				w.set.Announce()
				w.wantOn(false, "with permits of the same epoch")
				w.master(2, 5)
				w.wantOn(false, "with permits of the next epoch")
				if b, f := w.k.Batches(), w.k.Sent(); len(b) != 0 || len(f) != 0 {
					t.Errorf("batches %v, %d frames after the lapse; want none", b, len(f))
				}
				w.permit(2)
				if err := w.set.Up(w.Context(), 2); err != nil {
					t.Errorf("Up: %v", err)
				}
				w.wantOn(true, "after a new Up")
			})
		})
	}
}

func TestLapseThatNobodyNoticedIsNoticedByTheNextPermit(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		// Frozen in a renewal, beyond the permit, the loop as well; it wakes first.
		w.k.SetHooks(viptest.Hooks{BeforeApply: func(c []vip.Change) {
			w.k.SetHooks(viptest.Hooks{})
			time.Sleep(10 * time.Second)
			w.permit(1)
		}})
		time.Sleep(11 * time.Second)
		w.wantOn(false, "after waking")
		w.wantEvents(vip.EventUp, vip.EventLapsed)
	})
}

func TestFrozenBetweenCheckAndCallTakesAddressesOffAtOnce(t *testing.T) {
	for _, during := range []string{"add", "renewal"} {
		t.Run(during, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				var woke atomic.Pointer[time.Time]
				freeze := viptest.Hooks{BeforeApply: func(c []vip.Change) {
					w.k.SetHooks(viptest.Hooks{})
					time.Sleep(10 * time.Second)
					now := time.Now()
					woke.Store(&now)
				}}
				w.permit(1)
				if during == "add" {
					w.k.SetHooks(freeze)
					if err := w.set.Up(w.Context(), 1); !errors.Is(err, vip.ErrLapsed) {
						t.Errorf("Up: %v, want ErrLapsed", err)
					}
				} else {
					w.up(1)
					w.k.SetHooks(freeze)
					time.Sleep(9 * time.Second)
					w.await(2*time.Second, "waking", func() bool { return woke.Load() != nil })
				}
				w.wantOn(false, "after waking")
				if d := time.Since(*woke.Load()); d > 5*ms {
					t.Errorf("off %v after waking, want at once", d)
				}
				if f := w.k.Sent(); during == "add" && len(f) != 0 {
					t.Errorf("%d announcements, want none", len(f))
				}
			})
		})
	}
}

func TestZeroPermitTakesAddressesOffAtOnce(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		w.set.Permit(carp.Permit{})
		begin := time.Now()
		w.wantOn(false, "after the zero permit")
		if time.Since(begin) > ms {
			t.Error("not at once")
		}
		w.wantEvents(vip.EventUp, vip.EventWithdrawn)
		w.k.Batches()
		w.k.Sent()
		w.permit(2)
		w.set.Announce()
		time.Sleep(time.Second)
		if b, f := w.k.Batches(), w.k.Sent(); len(b) != 0 || len(f) != 0 {
			t.Errorf("batches %v, %d frames after the zero permit; want none", b, len(f))
		}
	})
}

func TestContestedMastershipKeepsItsAddresses(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		w.master(1, 2)
		w.master(2, 2)
		w.wantOn(true, "with permits of the next epoch")
		w.k.Sent()
		w.up(2)
		w.wantOn(true, "after Up again")
		if f := w.k.Sent(); len(f) != 2 {
			t.Errorf("%d announcements, want 2", len(f))
		}
		for _, b := range w.k.Batches() {
			if slices.ContainsFunc(b, func(c vip.Change) bool { return c.Op == vip.Remove }) {
				t.Errorf("an address was removed: %v", b)
			}
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

func TestLostAddressIsBackWithin100ms(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		w.master(1, 2)
		w.permit(1)
		w.events()
		w.k.Sent()
		for _, a := range []string{vip9 + "/32", vip96 + "/128"} {
			w.k.DelAddr(viptest.LinkName, a)
			addr := netip.MustParsePrefix(a).Addr().String()
			if w.k.Has(addr) {
				t.Fatalf("%s was not removed", a)
			}
			if d := w.await(time.Second, a+" back", func() bool { return w.k.Has(addr) }); d > 100*ms {
				t.Errorf("%s back after %v, want 100 ms at most", a, d)
			}
			w.wantEvents(vip.EventRestored)
			if n := len(w.k.Sent()); n < 2 {
				t.Errorf("%d announcements after the loss, want 2", n)
			}
		}
	})
}

func TestLostNoticesAreMadeUpForByALook(t *testing.T) {
	inWorld(t, func(c *vip.Config) { c.Lease = vip.Lease{} }, func(w *world) {
		w.up(1)
		w.k.ChangeLink(viptest.LinkName, func(*vip.Link) {}) // a notice that says nothing
		synctest.Wait()
		w.wantEvents(vip.EventUp)
		w.k.Tell(vip.Notice{Kind: vip.Overflow})
		synctest.Wait()
		w.wantOn(true, "after the look")
	})
}

func TestLossBeforeTheWorkerBeganIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, k: viptest.NewFakeKernel(viptest.Own...), start: time.Now()}
		w.set = vip.New(w.k, vip.Config{Interface: viptest.LinkName, Addresses: prefixesOf(vip9 + "/24"), Now: w.now, Observe: w.observe})
		w.up(1) // no lease, and nobody watches yet
		w.k.DelAddr(viptest.LinkName, vip9+"/32")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.set.Run(ctx) }()
		w.await(100*ms, "back", func() bool { return w.k.Has(vip9) })
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestRestorationsAreBounded(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		n := 0
		fight := func(c []vip.Change) {
			go func() { // removes what was put back 1 ms later
				time.Sleep(ms)
				w.k.DelAddr(viptest.LinkName, vip9+"/32")
			}()
		}
		w.k.SetHooks(viptest.Hooks{BeforeApply: fight})
		w.events()
		w.master(1, 20)
		for _, e := range w.events() {
			if e == vip.EventRestored {
				n++
			}
		}
		if n < 10 || n > 10+21 {
			t.Errorf("%d restorations in 20 s, want 10 at once and one a second", n)
		}
		w.k.SetHooks(viptest.Hooks{})
	})
}

func TestNothingIsRestoredWithoutRoomInThePermit(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		time.Sleep(950 * ms) // 2.05 s are left: alive, but too short for a lease
		w.k.DelAddr(viptest.LinkName, vip9+"/32")
		time.Sleep(200 * ms)
		synctest.Wait()
		if w.k.Has(vip9) {
			t.Error("restored without room")
		}
		w.permit(1)
		w.await(100*ms, "back with the next permit", func() bool { return w.k.Has(vip9) })
	})
}

func TestInterfaceDeletedAndMadeAgainGetsItsAddresses(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		w.events()
		w.k.DeleteLink(viptest.LinkName)
		w.master(1, 3)
		w.wantOn(false, "without the interface")
		w.wantEvents(vip.EventLinkGone)
		w.permit(1)
		w.k.AddLink(viptest.LinkName) // its own addresses come later
		d := w.await(100*ms, "back", w.both)
		t.Logf("back after %v", d)
		w.wantEvents(vip.EventRestored)
		w.k.AddAddr(viptest.LinkName, viptest.Own[0])
		if addrs, _ := w.k.Addrs(2); addrs[0].Prefix.Bits() != 32 {
			t.Errorf("back as %v, want /32 as before", addrs[0].Prefix)
		}
	})
}

func TestChangedMACIsAnnounced(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		w.master(1, 7) // the first burst is over
		w.k.Sent()
		w.permit(1)
		w.k.ChangeLink(viptest.LinkName, func(l *vip.Link) { l.MAC[5] = 99 })
		w.await(100*ms, "announcements", func() bool {
			for _, f := range w.k.Sent() {
				if f.Data[11] == 99 {
					return true
				}
			}
			return false
		})
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

func TestCancelledUpLeavesNothing(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		ctx, cancel := context.WithCancel(w.Context())
		w.k.SetHooks(viptest.Hooks{BeforeSend: func([][]byte) error { cancel(); return nil }})
		w.permit(1)
		if err := w.set.Up(ctx, 1); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Up: %v", err)
		} else if err == nil {
			t.Error("Up: no error")
		}
		w.wantOn(false, "after Up")
	})
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
		if d := time.Since(begin); d > 700*ms || tries != 5 {
			t.Errorf("%d tries in %v, want 5 in 0.7 s at most", tries, d)
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
		w.up(1)
		if err := w.set.Down(w.Context()); err != nil {
			t.Errorf("Down: %v", err)
		}
		w.wantOn(false, "after a mastership that took it over")
	})
}

func TestReconfigureTouchesOnlyWhatChanges(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		w.k.Batches()
		w.k.Sent()
		if err := w.set.Reconfigure(w.Context(), prefixesOf(vip9+"/24", "192.0.2.10/24"), vip.PlanLease(3*time.Second, time.Second)); err != nil {
			t.Fatalf("Reconfigure: %v", err)
		}
		if !w.k.Has(vip9) || !w.k.Has("192.0.2.10") || w.k.Has(vip96) {
			t.Errorf("want .9 and .10:\n%v", w.k)
		}
		for _, b := range w.k.Batches() {
			for _, c := range b {
				if c.Op == vip.Remove && c.Prefix.Addr().String() != vip96 {
					t.Errorf("%v was removed", c.Prefix)
				}
			}
		}
		synctest.Wait()
		if len(w.k.Sent()) < 2 {
			t.Error("the new address was not announced")
		}
		w.master(1, 3)
		w.wantEvents(vip.EventUp)
		if err := w.set.Down(w.Context()); err != nil || w.k.Has("192.0.2.10") || w.k.Has(vip9) {
			t.Errorf("Down: %v\n%v", err, w.k)
		}
	})
}

func TestReconfigureThatFailsChangesNothing(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		no := errors.New("no")
		w.k.SetHooks(viptest.Hooks{Fail: func(c vip.Change) error {
			if c.Op == vip.Put && c.Prefix.Addr().String() == "192.0.2.11" {
				return no
			}
			return nil
		}})
		err := w.set.Reconfigure(w.Context(), prefixesOf("192.0.2.10/24", "192.0.2.11/24"), vip.Lease{})
		if !errors.Is(err, no) {
			t.Errorf("Reconfigure: %v, want its cause", err)
		}
		time.Sleep(100 * ms)
		w.wantOn(true, "after the failure")
		if w.k.Has("192.0.2.10") {
			t.Errorf("half of the new configuration is on:\n%v", w.k)
		}
		if s := w.set.Status(); len(s) != 2 || s[0].Prefix.Addr().String() != vip9 {
			t.Errorf("Status %v, want the old configuration", s)
		}
		w.k.SetHooks(viptest.Hooks{})
	})
}

func TestReconfigureWhileDownWaitsForUp(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		if err := w.set.Reconfigure(w.Context(), prefixesOf("192.0.2.10/24"), vip.Lease{}); err != nil {
			t.Fatalf("Reconfigure: %v", err)
		}
		if len(w.k.Batches()) != 0 {
			t.Error("something was changed while down")
		}
		w.up(1)
		if !w.k.Has("192.0.2.10") || w.k.Has(vip9) {
			t.Errorf("want .10 alone:\n%v", w.k)
		}
	})
}

func TestWrittenFormWarnsAboutSecondaries(t *testing.T) {
	inWorld(t, func(c *vip.Config) { c.Addresses = prefixesOf("198.51.100.9/24") }, func(w *world) {
		w.up(1)
		w.wantEvents(vip.EventSecondaries, vip.EventUp)
		w.k.ChangeLink(viptest.LinkName, func(l *vip.Link) { l.PromoteSecondaries = true })
		w.up(1)
		w.wantEvents(vip.EventUp)
	})
}

func TestSlowRenewalIsToldOnce(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		w.k.SetHooks(viptest.Hooks{BeforeApply: func([]vip.Change) { time.Sleep(150 * ms) }})
		w.master(1, 3)
		w.wantEvents(vip.EventUp, vip.EventSlow)
		w.k.SetHooks(viptest.Hooks{})
	})
}

func TestCleanupRemovesWhatIsMarkedAndAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := viptest.NewFakeKernel(viptest.Own...)
		k.AddLink("eth1")
		for _, c := range []struct {
			link  int
			addrs []string
		}{{1, []string{"192.0.2.9/32", "192.0.2.10/32"}}, {2, []string{"2001:db8::9/128"}}} {
			for _, p := range prefixesOf(c.addrs...) {
				if err := k.Apply([]vip.Change{{Op: vip.Put, Index: c.link, Prefix: p, Valid: vip.Forever}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		check := func(want int, interfaces []string, prefixes []netip.Prefix) {
			t.Helper()
			removed, err := vip.Cleanup(k, interfaces, prefixes)
			if err != nil || len(removed) != want {
				t.Errorf("Cleanup(%v, %v): %v, %v, want %d", interfaces, prefixes, removed, err, want)
			}
		}
		check(0, []string{"eth2"}, nil)
		check(0, []string{"eth1"}, prefixesOf("192.0.2.9/24"))
		check(1, []string{"eth0"}, prefixesOf("192.0.2.9/24", "192.0.2.1/24"))
		check(2, nil, nil)
		check(0, nil, nil)
		if !k.Has("192.0.2.1") || !k.Has("2001:db8::1") {
			t.Errorf("the interface's own addresses went:\n%v", k)
		}
	})
}
