package vip_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

// The permits of these tests are for 3 s and the lease needs 2.1 s, so a batch has
// to end within 0.9 s of a permit.

// slowly makes each call of Apply that puts addresses on take d.
func (w *world) slowly(d time.Duration) {
	w.k.SetHooks(viptest.Hooks{BeforeApply: func(c []vip.Change) {
		if slices.ContainsFunc(c, func(c vip.Change) bool { return c.Op == vip.Put }) {
			time.Sleep(d)
		}
	}})
}

func thousand() (out []netip.Prefix) {
	for i := range 1000 {
		out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32))
	}
	return out
}

// The lifetime of an address begins when the batch ends, not when the permit was
// asked.
func TestSlowBatchLeavesNoLeaseThatOutlivesThePermit(t *testing.T) {
	t.Run("up", func(t *testing.T) {
		inWorld(t, nil, func(w *world) {
			w.slowly(time.Second)
			w.permit(1)
			if err := w.set.Up(w.Context(), 1); !errors.Is(err, vip.ErrLate) {
				t.Errorf("Up: %v, want ErrLate", err)
			}
			w.wantOn(false, "after Up")
		})
	})
	t.Run("renewal", func(t *testing.T) {
		inWorld(t, nil, func(w *world) {
			w.up(1)
			time.Sleep(600 * ms)
			w.events()
			w.slowly(200 * ms) // the next is due at 0.75 s
			time.Sleep(360 * ms)
			w.wantOn(false, "after the slow renewal")
			w.slowly(0)
			time.Sleep(40 * ms)
			w.permit(1)
			w.await(100*ms, "back with the next permit", w.both)
			w.wantEvents(vip.EventFailed, vip.EventRestored)
			w.master(1, 3)
			w.wantOn(true, "later")
		})
	})
	t.Run("reconfigure", func(t *testing.T) {
		inWorld(t, nil, func(w *world) {
			w.up(1)
			w.slowly(time.Second)
			if err := w.set.Reconfigure(w.Context(), prefixesOf("192.0.2.10/24"), vip.PlanLease(3*time.Second, time.Second)); !errors.Is(err, vip.ErrLate) {
				t.Errorf("Reconfigure: %v, want ErrLate", err)
			}
			if w.k.Has("192.0.2.10") {
				t.Errorf("the new address is on:\n%v", w.k)
			}
			w.slowly(0)
			w.master(1, 3)
			w.wantOn(true, "with the next permits")
		})
	})
}

func TestSlowBatchIsMadeGoodByAFresherPermit(t *testing.T) {
	var fresh func()
	inWorld(t, func(c *vip.Config) { c.NeedPermit = func() { fresh() } }, func(w *world) {
		fresh = func() { time.Sleep(20 * ms); w.permit(1) }
		w.slowly(time.Second)
		w.permit(1)
		if err := w.set.Up(w.Context(), 1); err != nil {
			t.Errorf("Up: %v", err)
		}
		w.slowly(0)
		w.wantOn(true, "after Up")
		w.wantEvents(vip.EventUp)
		for _, b := range w.k.Batches() {
			if slices.ContainsFunc(b, func(c vip.Change) bool { return c.Op == vip.Remove }) {
				t.Errorf("an address was removed: %v", b)
			}
		}
	})
}

func TestFresherPermitIsWaitedForOnlyAMoment(t *testing.T) {
	hang := make(chan struct{})
	inWorld(t, func(c *vip.Config) {
		hang = make(chan struct{}) // of the bubble
		c.NeedPermit = func() { <-hang }
	}, func(w *world) {
		w.slowly(time.Second)
		w.permit(1)
		begin := time.Now()
		if err := w.set.Up(w.Context(), 1); !errors.Is(err, vip.ErrLate) {
			t.Errorf("Up: %v, want ErrLate", err)
		}
		if d := time.Since(begin); d > 1050*ms {
			t.Errorf("Up took %v, want 50 ms more than the batch at most", d)
		}
		close(hang)
	})
}

func TestBatchIsNotBegunWhenTheLastOneTookTooLong(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		var began []time.Time
		w.k.SetHooks(viptest.Hooks{BeforeApply: func(c []vip.Change) {
			began = append(began, time.Now())
			time.Sleep(200 * ms)
		}})
		given := time.Now()
		time.Sleep(999 * ms)
		synctest.Wait()
		if len(began) == 0 {
			t.Error("no renewal within the second")
		}
		for _, b := range began {
			if d := b.Sub(given); d > 700*ms {
				t.Errorf("a batch was begun %v after the permit", d)
			}
		}
		w.wantOn(true, "all the time")
		w.k.SetHooks(viptest.Hooks{})
		w.wantEvents(vip.EventUp, vip.EventSlow)
	})
}

func TestBatchThatWasSlowOnceDoesNotForbidTheNext(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.slowly(2500 * ms)
		w.permit(1)
		if err := w.set.Up(w.Context(), 1); !errors.Is(err, vip.ErrLate) {
			t.Errorf("Up: %v, want ErrLate", err)
		}
		w.slowly(0)
		done := make(chan error, 1)
		go func() { done <- w.set.Up(w.Context(), 1) }()
		w.master(1, 3)
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Up: %v", err)
			}
		default:
			t.Error("Up still waits after three permits")
			w.set.Permit(carp.Permit{})
		}
		w.wantOn(true, "with the permits that follow")
	})
}

func TestPermitIsAskedBetweenTheStepsOfABatch(t *testing.T) {
	inWorld(t, func(c *vip.Config) { c.Addresses = thousand() }, func(w *world) {
		w.permit(1)
		time.Sleep(750 * ms)
		w.slowly(50 * ms)
		done := make(chan error, 1)
		go func() { done <- w.set.Up(w.Context(), 1) }()
		time.Sleep(240 * ms)
		if n := w.puts(); n != 750 {
			t.Errorf("%d addresses were put on with the first permit, want 750", n)
		}
		w.master(1, 1)
		if err := <-done; err != nil {
			t.Errorf("Up: %v", err)
		}
		for _, p := range thousand() {
			if !w.k.Has(p.Addr().String()) {
				t.Fatalf("%v is not on after the second permit", p)
			}
		}
		w.slowly(0)
		w.master(1, 1)
		for _, k := range w.events() {
			if k == vip.EventFailed {
				t.Errorf("told a failure: %v", w.errs)
			}
		}
	})
}

// A thousand IPv6 addresses take longer than one permit at advbase 1 has room for.
func TestLongBatchGoesOnUnderFresherPermits(t *testing.T) {
	var fresh func()
	inWorld(t, func(c *vip.Config) { c.Addresses, c.NeedPermit = thousand(), func() { fresh() } }, func(w *world) {
		fresh = func() { w.permit(1) }
		w.slowly(400 * ms)
		w.permit(1)
		begin := time.Now()
		if err := w.set.Up(w.Context(), 1); err != nil {
			t.Errorf("Up: %v", err)
		}
		if d := time.Since(begin); d > 1600*ms {
			t.Errorf("Up took %v, want four steps", d)
		}
		w.slowly(0)
		if n := w.puts(); n != 1000 {
			t.Errorf("%d addresses were put on, want each once", n)
		}
	})
}

func TestFrozenLongBatchIsUndoneAtOnce(t *testing.T) {
	inWorld(t, func(c *vip.Config) { c.Addresses, c.NeedPermit = thousand(), func() {} }, func(w *world) {
		w.slowly(10 * time.Second)
		w.permit(1)
		begin := time.Now()
		if err := w.set.Up(w.Context(), 1); !errors.Is(err, vip.ErrLapsed) {
			t.Errorf("Up: %v, want ErrLapsed", err)
		}
		if d := time.Since(begin); d > 10*time.Second+ms {
			t.Errorf("Up took %v, want no longer than the freeze", d)
		}
		synctest.Wait()
		if w.k.Has("10.1.0.0") || w.puts() != 250 {
			t.Error("addresses are on, or more than the frozen step was put on")
		}
	})
}

func TestDownIsNotKeptWaitingByABatchOfManySteps(t *testing.T) {
	inWorld(t, func(c *vip.Config) { c.Addresses = thousand() }, func(w *world) {
		w.slowly(100 * ms)
		w.permit(1)
		done := make(chan error, 1)
		go func() { done <- w.set.Up(w.Context(), 1) }()
		time.Sleep(150 * ms)
		if err := w.set.Down(w.Context()); err != nil {
			t.Errorf("Down: %v", err)
		}
		if err := <-done; !errors.Is(err, vip.ErrSuperseded) {
			t.Errorf("Up: %v, want ErrSuperseded", err)
		}
		if n := w.puts(); n != 500 {
			t.Errorf("%d addresses were put on, want the two steps begun", n)
		}
	})
}

func TestFailuresOfAllStepsAreCounted(t *testing.T) {
	inWorld(t, func(c *vip.Config) { c.Addresses = thousand() }, func(w *world) {
		no := errors.New("no")
		w.k.SetHooks(viptest.Hooks{Fail: func(c vip.Change) error {
			if c.Op == vip.Put {
				return no
			}
			return nil
		}})
		w.permit(1)
		err := w.set.Up(w.Context(), 1)
		op, ok := errors.AsType[*vip.OpError](err)
		if !ok || !errors.Is(err, no) || op.More != 999 || op.Addr != thousand()[0] {
			t.Errorf("Up: %v, want an OpError of the first and 999 more", err)
		}
		synctest.Wait()
	})
}

// What a batch of thousands put on first would lose its lease before the last is on.
func TestALongBatchRenewsWhatItPutOnFirst(t *testing.T) {
	many := slices.Concat(thousand(), many(9000, true))
	inWorld(t, func(c *vip.Config) { c.Addresses = many }, func(w *world) {
		seen := make(map[netip.Prefix]bool)
		w.k.SetHooks(viptest.Hooks{BeforeApply: func(c []vip.Change) { // 2 s in all, a renewal a tenth of that
			cost := 200 * time.Microsecond
			if seen[c[0].Prefix] {
				cost /= 10
			}
			seen[c[0].Prefix] = true
			time.Sleep(time.Duration(len(c)) * cost)
		}})
		done := make(chan error, 1)
		w.permit(1)
		go func() { done <- w.set.Up(w.Context(), 1) }()
		time.Sleep(25 * ms)
		for range 60 {
			time.Sleep(50 * ms)
			w.permit(1)
			for _, p := range many[:250] {
				if !w.k.Has(p.Addr().String()) {
					w.Errorf("%v, which went up first, is gone %v after", p, time.Since(w.start))
					break
				}
			}
		}
		if err := <-done; err != nil {
			t.Errorf("Up: %v", err)
		}
		w.k.SetHooks(viptest.Hooks{})
		w.master(1, 1)
		for _, k := range w.events() {
			if k == vip.EventRestored {
				t.Error("addresses were lost and restored")
			}
		}
	})
}

func TestTheFirstAddressesAreAnnouncedBeforeTheLastAreOn(t *testing.T) {
	inWorld(t, func(c *vip.Config) { c.Addresses = many(3000, false) }, func(w *world) {
		w.slowly(20 * ms)
		w.permit(1)
		done := make(chan error, 1)
		go func() { done <- w.set.Up(w.Context(), 1) }()
		time.Sleep(30 * ms)
		synctest.Wait()
		early := w.k.Sent()
		if len(early) != 250 {
			t.Errorf("%d announcements after the first of twelve steps, want 250", len(early))
		}
		time.Sleep(220 * ms)
		if err := <-done; err != nil {
			t.Errorf("Up: %v", err)
		}
		if n := len(early) + len(w.k.Sent()); n != 3000 {
			t.Errorf("%d announcements in the first round, want each once", n)
		}
		w.slowly(0)
	})
}

// A contest asks for a burst at each advert, in the worst case each 10 ms.
func TestAnnounceAskedForAgainAndAgainIsBoundedAndComesToTheLastAddress(t *testing.T) {
	inWorld(t, func(c *vip.Config) { c.Addresses = thousand() }, func(w *world) {
		w.up(1)
		time.Sleep(10 * time.Second)
		w.permit(1)
		synctest.Wait()
		w.k.Sent()
		w.up(1) // on again, after the lapse
		w.k.Sent()
		time.Sleep(100 * ms)
		for range 100 {
			w.set.Announce()
			time.Sleep(10 * ms)
			w.permit(1)
		}
		count := make(map[string]int)
		for _, f := range w.k.Sent() {
			count[string(f.Data)]++
		}
		for frame, n := range count {
			if n < 5 || n > 13 {
				t.Fatalf("%x was announced %d times in a second, want about 10", frame, n)
			}
		}
		if len(count) != 1000 {
			t.Errorf("%d addresses were announced, want 1000", len(count))
		}
	})
}

// A node that is to leave lets go of what it has, and does not first put on the rest.
func TestLeaveEndsTheBatchOfUpAndLeavesWhatIsOnToDown(t *testing.T) {
	inWorld(t, func(c *vip.Config) { c.Addresses, c.Lease = append(c.Addresses, thousand()...), vip.Lease{} }, func(w *world) {
		w.permit(1)
		steps := 0
		w.k.SetHooks(viptest.Hooks{BeforeApply: func([]vip.Change) {
			if steps++; steps == 2 {
				w.set.Leave()
			}
		}})
		if err := w.set.Up(w.Context(), 1); !errors.Is(err, vip.ErrSuperseded) {
			t.Errorf("Up: %v, want ErrSuperseded", err)
		}
		if steps != 2 {
			t.Errorf("%d steps of the batch were made, want the 2 that had begun", steps)
		}
		w.wantOn(true, "when Up has ended") // the first ones: nobody has taken them off yet
		if err := w.set.Down(w.Context()); err != nil {
			t.Errorf("Down: %v", err)
		}
		w.wantOn(false, "after Down")
		w.k.SetHooks(viptest.Hooks{})
		w.permit(2)
		if err := w.set.Up(w.Context(), 2); err != nil {
			t.Errorf("Up again: %v", err)
		}
		w.wantOn(true, "after the next Up")
	})
}
