package vip_test

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

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

// The undo of a Reconfigure may fail as the Reconfigure did. What it left on is in
// neither list of addresses, but it must not stay behind.
func TestReconfigureThatCannotBeUndoneIsNotForgotten(t *testing.T) {
	for name, after := range map[string]func(*world){
		"down": func(w *world) {
			if err := w.set.Down(w.Context()); err != nil {
				w.Errorf("Down: %v", err)
			}
		},
		"worker": func(w *world) {
			w.master(1, 2)
			w.wantOn(true, "afterwards")
		},
		"another Up": func(w *world) {
			w.up(1)
			w.master(1, 1)
			w.wantOn(true, "afterwards")
		},
		"the next Reconfigure": func(w *world) {
			w.permit(1)
			if err := w.set.Reconfigure(w.Context(), prefixesOf("192.0.2.12/24"), vip.Lease{}); err != nil {
				w.Errorf("Reconfigure: %v", err)
			}
			w.master(1, 1)
			if !w.k.Has("192.0.2.12") {
				w.Errorf("the new address is not on:\n%v", w.k)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(c *vip.Config) { c.Lease = vip.Lease{} }, func(w *world) {
				w.up(1)
				no := errors.New("no")
				w.k.SetHooks(viptest.Hooks{Fail: func(c vip.Change) error {
					if a := c.Prefix.Addr().String(); a == "192.0.2.11" || c.Op == vip.Remove && a == "192.0.2.10" {
						return no
					}
					return nil
				}})
				if err := w.set.Reconfigure(w.Context(), prefixesOf("192.0.2.10/24", "192.0.2.11/24"), vip.Lease{}); !errors.Is(err, no) {
					t.Errorf("Reconfigure: %v, want its cause", err)
				}
				w.events()
				w.master(1, 5)
				w.wantOn(true, "after the failure")
				if !w.k.Has("192.0.2.10") {
					t.Fatal("the kernel gave up the address by itself")
				}
				failed := 0
				for _, e := range w.events() {
					if e == vip.EventFailed {
						failed++
					}
				}
				if failed != 1 {
					t.Errorf("told %d times, want once", failed)
				}
				w.k.SetHooks(viptest.Hooks{})
				after(w)
				if w.k.Has("192.0.2.10") {
					t.Errorf("half of the failed configuration is on:\n%v", w.k)
				}
			})
		})
	}
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

func TestCleanupRemovesWhatIsMarkedAndAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := viptest.NewFakeKernel(viptest.Own()...)
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
