package vip_test

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

// The other end is told only by sockets that are destroyed while the address is there.
func TestSocketsAreDestroyedBeforeTheirAddressGoes(t *testing.T) {
	for name, end := range map[string]func(w *world){
		"down":      func(w *world) { _ = w.set.Down(w.Context()) },
		"withdrawn": func(w *world) { w.set.Permit(carp.Permit{}) },
		"lapsed":    func(*world) { time.Sleep(4 * time.Second) },
		"reconfigured": func(w *world) {
			w.permit(1)
			_ = w.set.Reconfigure(w.Context(), prefixesOf("192.0.2.77/24"), vip.PlanLease(3*time.Second, time.Second))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				w.up(1)
				here, there := w.k.Session(netip.MustParsePrefix(vip9 + "/32").Addr())
				_, own := w.k.Session(netip.MustParseAddr("192.0.2.1"))
				end(w)
				synctest.Wait()
				// By the end of a permit the lease has taken the address: nobody can be told.
				if here() || there() && name != "lapsed" {
					w.Errorf("the session lives, here %v, at the other end %v", here(), there())
				}
				if !own() {
					w.Error("a session with the node's own address was ended")
				}
			})
		})
	}
}

// What holds on to an address keeps it for the stated time and no longer.
func TestManySocketsDoNotKeepAnAddressOn(t *testing.T) {
	for name, tc := range map[string]struct {
		end   func(w *world)
		bound time.Duration
	}{
		"down":      {func(w *world) { go w.set.Down(context.Background()) }, 100 * time.Millisecond},
		"withdrawn": {func(w *world) { w.set.Permit(carp.Permit{}) }, 20 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				w.up(1)
				endless := func(ctx context.Context, _ []netip.Addr) error { <-ctx.Done(); return ctx.Err() }
				w.k.SetHooks(viptest.Hooks{BeforeSever: endless})
				tc.end(w)
				time.Sleep(tc.bound + time.Millisecond)
				synctest.Wait()
				if w.k.Has(vip9) {
					w.Errorf("the address is still there after %v", tc.bound)
				}
				here, _ := w.k.Session(netip.MustParsePrefix(vip9 + "/32").Addr())
				time.Sleep(time.Second)
				w.k.SetHooks(viptest.Hooks{})
				time.Sleep(time.Second)
				if here() {
					w.Error("what was left when the address went was not destroyed afterwards")
				}
			})
		})
	}
}

// A session with a new mastership is none of what the old one left.
func TestSocketsOfAMasterAreNotDestroyedAfterwards(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.up(1)
		w.k.SetHooks(viptest.Hooks{BeforeSever: func(ctx context.Context, _ []netip.Addr) error { <-ctx.Done(); return ctx.Err() }})
		_ = w.set.Down(w.Context())
		w.up(2)
		here, _ := w.k.Session(netip.MustParsePrefix(vip9 + "/32").Addr())
		w.k.SetHooks(viptest.Hooks{})
		time.Sleep(2 * time.Second)
		if !here() {
			w.Error("it was ended")
		}
	})
}

func TestAKernelThatCannotDestroySocketsIsToldOnce(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.k.SetHooks(viptest.Hooks{BeforeSever: func(context.Context, []netip.Addr) error {
			return &vip.OpError{Op: "destroy sockets", Err: vip.ErrNoSever}
		}})
		for epoch := range carp.Epoch(2) {
			w.up(epoch + 1)
			if err := w.set.Down(w.Context()); err != nil {
				w.Errorf("Down: %v", err)
			}
		}
		w.wantEvents(vip.EventUp, vip.EventFailed, vip.EventDown, vip.EventUp, vip.EventDown)
	})
}
