package vip_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

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

// Without a worker nobody else would notice: the batch itself looks again.
func TestFrozenBatchIsUndoneByWhoeverMadeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, k: viptest.NewFakeKernel(viptest.Own()...), start: time.Now()}
		w.set = vip.New(w.k, vip.Config{Interface: viptest.LinkName, Addresses: prefixesOf(vip9 + "/24"), Now: w.now, Observe: w.observe})
		freeze := viptest.Hooks{BeforeApply: func([]vip.Change) {
			w.k.SetHooks(viptest.Hooks{})
			time.Sleep(10 * time.Second)
		}}
		w.permit(1)
		w.k.SetHooks(freeze)
		if err := w.set.Up(w.Context(), 1); !errors.Is(err, vip.ErrLapsed) {
			t.Errorf("Up: %v, want ErrLapsed", err)
		}
		if w.k.Has(vip9) {
			t.Error("the address is on after Up")
		}
		w.wantEvents(vip.EventLapsed)
		w.up(2)
		w.events()
		w.permit(2)
		w.k.SetHooks(freeze)
		if err := w.set.Reconfigure(w.Context(), prefixesOf("192.0.2.10/24"), vip.Lease{}); err != nil {
			t.Errorf("Reconfigure: %v", err)
		}
		if w.k.Has(vip9) || w.k.Has("192.0.2.10") {
			t.Errorf("an address is on after Reconfigure:\n%v", w.k)
		}
		w.wantEvents(vip.EventLapsed)
	})
}

// puts counts the changes that put an address on since the last call.
func (w *world) puts() (n int) {
	for _, b := range w.k.Batches() {
		for _, c := range b {
			if c.Op == vip.Put {
				n++
			}
		}
	}
	return n
}

func TestPermitIsAskedAgainLastThingBeforeTheBatch(t *testing.T) {
	// 0.95 s after the permit 2.05 s are left: alive, but too short for the lease.
	slowList := func(w *world, d time.Duration) {
		w.k.SetHooks(viptest.Hooks{BeforeList: func() {
			w.k.SetHooks(viptest.Hooks{})
			time.Sleep(d)
		}})
	}
	for _, d := range []time.Duration{950 * ms, 10 * time.Second} {
		t.Run("up/"+d.String(), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				slowList(w, d)
				w.permit(1)
				ctx, cancel := context.WithTimeout(w.Context(), 20*time.Second)
				defer cancel()
				if err := w.set.Up(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Up: %v, want the deadline", err)
				}
				if n := w.puts(); n != 0 {
					t.Errorf("%d addresses were put on", n)
				}
			})
		})
		t.Run("restore/"+d.String(), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				w.up(1)
				time.Sleep(10 * ms)
				w.puts()
				slowList(w, d)
				w.k.DelAddr(viptest.LinkName, vip9+"/32")
				time.Sleep(900*ms + d)
				synctest.Wait()
				if n := w.puts(); n != 0 {
					t.Errorf("%d addresses were put on", n)
				}
			})
		})
		t.Run("reconfigure/"+d.String(), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				w.up(1)
				time.Sleep(10 * ms)
				w.puts()
				slowList(w, d)
				ctx, cancel := context.WithTimeout(w.Context(), d+100*ms)
				defer cancel()
				_ = w.set.Reconfigure(ctx, prefixesOf("192.0.2.10/24"), vip.PlanLease(3*time.Second, time.Second))
				if n := w.puts(); n != 0 {
					t.Errorf("%d addresses were put on", n)
				}
			})
		})
	}
}

func TestRoundOfAnnouncementsStopsWhenThePermitEnds(t *testing.T) {
	var all []netip.Prefix
	for i := range 640 {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32))
	}
	inWorld(t, func(c *vip.Config) { c.Addresses, c.Lease = all, vip.Lease{} }, func(w *world) {
		end := w.now().Add(3 * time.Second)
		w.k.SetHooks(viptest.Hooks{BeforeSend: func([][]byte) error {
			if w.now() >= end {
				t.Error("announced after the permit")
			}
			time.Sleep(700 * ms)
			return nil
		}})
		w.permit(1)
		if err := w.set.Up(w.Context(), 1); err == nil {
			t.Error("Up: no error")
		}
		if w.k.Has("10.1.0.1") {
			t.Error("addresses are on after Up")
		}
	})
}

// The pacer may let frames wait that were allowed when they were handed over.
func TestNothingIsAnnouncedAfterTheEndThoughTheFramesWaited(t *testing.T) {
	for name, end := range map[string]func(*world){
		"withdrawn": func(w *world) { w.set.Permit(carp.Permit{}) },
		"down": func(w *world) {
			if err := w.set.Down(w.Context()); err != nil {
				w.Errorf("Down: %v", err)
			}
		},
		"lapsed": func(w *world) { time.Sleep(3 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				w.up(1)
				w.master(1, 7) // the first burst is over
				w.permit(1)
				w.k.Sent()
				waits := make(chan struct{})
				w.k.SetHooks(viptest.Hooks{BeforeSend: func([][]byte) error { <-waits; return nil }})
				w.set.Announce()
				synctest.Wait()
				end(w)
				close(waits)
				synctest.Wait()
				if n := len(w.k.Sent()); n != 0 {
					t.Errorf("%d frames after the end", n)
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

func TestSlowRenewalIsToldOnce(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		w.k.SetHooks(viptest.Hooks{BeforeApply: func([]vip.Change) { time.Sleep(150 * ms) }})
		w.master(1, 3)
		w.wantEvents(vip.EventUp, vip.EventSlow)
		w.k.SetHooks(viptest.Hooks{})
	})
}
