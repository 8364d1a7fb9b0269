package vip_test

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

func TestLostAddressIsBackWithin100ms(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		w.master(1, 2)
		w.permit(1)
		synctest.Wait() // for the renewal, which would put back what is lost
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
		w := &world{T: t, k: viptest.NewFakeKernel(viptest.Own()...), start: time.Now()}
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

// A renewal comes four times a second; it must not put back what the bucket of
// restorations does not allow, nor what nobody is told of.
func TestRenewalDoesNotPutBackWhatIsLost(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		w.events()
		w.k.Batches()
		w.k.SetHooks(viptest.Hooks{BeforeApply: func(c []vip.Change) {
			go func() { // removes what was put back 1 ms later
				time.Sleep(ms)
				w.k.DelAddr(viptest.LinkName, vip9+"/32")
			}()
		}})
		w.master(1, 20)
		w.k.SetHooks(viptest.Hooks{})
		puts, told := 0, 0
		for _, b := range w.k.Batches() {
			for _, c := range b {
				if c.Op == vip.Put && c.Prefix.Addr().String() == vip9 {
					puts++
				}
			}
		}
		for _, e := range w.events() {
			if e == vip.EventRestored {
				told++
			}
		}
		if puts > 10+21 || puts > told+1 { // one renewal came before the first loss
			t.Errorf("put back %d times in 20 s and told %d times, want 10 at once, then once a second, and all of them told", puts, told)
		}
		if !w.k.Has(vip96) {
			t.Error("the address that was not lost was not renewed")
		}
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
		w.k.AddAddr(viptest.LinkName, viptest.Own()[0])
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

// Late in an interval the permit leaves no room for another lifetime: the worker
// asks for a fresher one instead of waiting for the next advert.
func TestAddressLostLateInAnIntervalIsBackWithin100ms(t *testing.T) {
	var asked atomic.Int32
	var fresh func()
	inWorld(t, func(c *vip.Config) {
		c.NeedPermit = func() { asked.Add(1); fresh() }
	}, func(w *world) {
		fresh = func() { w.permit(1) }
		w.up(1)
		w.permit(1)
		<-time.After(950 * ms)
		w.events()
		w.k.DelAddr(viptest.LinkName, vip9+"/32")
		if d := w.await(2*time.Second, "back", func() bool { return w.k.Has(vip9) }); d > 100*ms {
			t.Errorf("back after %v", d)
		}
		if asked.Load() != 1 {
			t.Errorf("asked %d times", asked.Load())
		}
	})
}

func TestRequestsForAPermitAreBounded(t *testing.T) {
	var asked atomic.Int32
	inWorld(t, func(c *vip.Config) { c.NeedPermit = func() { asked.Add(1) } }, func(w *world) {
		w.up(1)
		w.permit(1)
		<-time.After(950 * ms)
		w.k.DelAddr(viptest.LinkName, vip9+"/32")
		<-time.After(time.Second)
		if n := asked.Load(); n < 2 || n > 21 {
			t.Errorf("asked %d times in a second, want 20 at most", n)
		}
		w.permit(1)
	})
}

// A loop that hangs answers no request for a permit. The worker must not hang with
// it: nobody else is left to notice that the permit ends.
func TestRequestThatHangsDoesNotHideTheLapse(t *testing.T) {
	var asked atomic.Int32
	hang := make(chan struct{})
	inWorld(t, func(c *vip.Config) {
		hang = make(chan struct{}) // of the bubble
		c.NeedPermit = func() { asked.Add(1); <-hang }
	}, func(w *world) {
		w.up(1)
		up := time.Now()
		<-time.After(950 * ms)
		w.events()
		w.k.DelAddr(viptest.LinkName, vip9+"/32")
		w.await(3*time.Second, "the end of the permit", func() bool { return slices.Contains(w.events(), vip.EventLapsed) })
		if d := time.Since(up); d > 3*time.Second+10*ms {
			t.Errorf("the lapse was noticed %v after the permit was given for 3 s", d)
		}
		if asked.Load() != 1 {
			t.Errorf("asked %d times at once, want once", asked.Load())
		}
		close(hang)
	})
}
