package vip_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

// onDevice makes the Set of a world one with a virtual MAC.
func onDevice(c *vip.Config) { c.VirtualMAC, c.Device = carp.VirtualMAC(1), "carp1" }

func onDeviceIPv4(c *vip.Config) {
	onDevice(c)
	c.Addresses = prefixesOf(vip9 + "/24")
}

func (w *world) wantDevice(up bool, when string) {
	w.Helper()
	synctest.Wait()
	if l, err := w.k.Link("carp1"); err != nil || l.Up != up {
		w.Errorf("%s: %+v, %v, want carp1 up: %v", when, l, err, up)
	}
}

func TestDeviceIsUpOnlyWithItsAddresses(t *testing.T) {
	inWorld(t, onDevice, func(w *world) {
		w.wantDevice(false, "before Up")
		w.up(1)
		w.wantDevice(true, "after Up")
		w.wantOn(true, "after Up")
		// One batch, in which the device comes first and goes last.
		if b := w.k.Batches(); len(b) != 1 || len(b[0]) != 3 || b[0][0].Op != vip.SetUp {
			t.Errorf("batches of Up: %+v", b)
		}
		for _, f := range w.k.Sent() {
			if f.Link != "carp1" || carp.MAC(f.Data[6:12]) != carp.VirtualMAC(1) {
				t.Errorf("announced on %s: %x", f.Link, f.Data)
			}
		}
		if err := w.set.Down(w.Context()); err != nil {
			t.Errorf("Down: %v", err)
		}
		w.wantOn(false, "after Down")
		time.Sleep(200 * ms)
		w.wantDevice(false, "after Down")
		if b := w.k.Batches(); len(b) != 2 || len(b[0]) != 2 || len(b[1]) != 1 || b[1][0].Op != vip.SetDown {
			t.Errorf("batches of Down: %+v", b)
		}
		w.up(2)
		time.Sleep(4 * time.Second)
		w.wantOn(false, "after the permit")
		w.wantDevice(false, "after the permit")
	})
}

func TestDeviceGoesDownThoughAnAddressStays(t *testing.T) {
	inWorld(t, onDevice, func(w *world) {
		w.up(1)
		stuck := errors.New("stuck")
		var downs atomic.Int32
		w.k.SetHooks(viptest.Hooks{Fail: func(c vip.Change) error {
			if c.Op == vip.Remove && c.Prefix.Addr().Is4() || c.Op == vip.SetDown && downs.Add(1) == 1 {
				return stuck
			}
			return nil
		}})
		if err := w.set.Down(w.Context()); !errors.Is(err, stuck) || downs.Load() != 2 {
			t.Errorf("Down: %v, %d attempts to set the device down; want that it is stuck, and 2", err, downs.Load())
		}
		if w.k.Answers(vip9) {
			t.Errorf("the address answers:\n%v", w.k)
		}
		w.k.SetHooks(viptest.Hooks{})
		w.await(2*time.Second, "gone by the worker", func() bool { return !w.k.Has(vip9) })
	})
}

// 255 devices that go down at once keep the kernel busy for seconds.
func TestDeviceThatWaitsToGoDownKeepsNobodyWaiting(t *testing.T) {
	inWorld(t, onDevice, func(w *world) {
		w.up(1)
		w.events()
		var free atomic.Bool
		w.k.SetHooks(viptest.Hooks{Fail: func(c vip.Change) error {
			if !free.Load() && c.Op == vip.SetDown {
				return vip.ErrBusy
			}
			return nil
		}})
		begin := time.Now()
		if err := w.set.Down(w.Context()); err != nil || time.Since(begin) != 0 {
			t.Errorf("Down: %v after %v", err, time.Since(begin))
		}
		w.wantOn(false, "after Down")
		time.Sleep(time.Second)
		begin = time.Now()
		w.up(2)
		w.wantOn(true, "up again meanwhile")
		if d := time.Since(begin); d != 0 {
			t.Errorf("Up waited for %v", d)
		}
		if err := w.set.Down(w.Context()); err != nil {
			t.Errorf("Down: %v", err)
		}
		free.Store(true)
		time.Sleep(220 * ms)
		w.wantDevice(false, "when others are down")
		w.wantEvents(vip.EventDown, vip.EventUp, vip.EventDown)
	})
}

func TestDeviceTakenByHandIsBackWithin100ms(t *testing.T) {
	for name, take := range map[string]func(*viptest.FakeKernel){
		"set down": func(k *viptest.FakeKernel) { k.SetLink("carp1", false) },
		"deleted":  func(k *viptest.FakeKernel) { k.DeleteLink("carp1") },
		"another MAC": func(k *viptest.FakeKernel) {
			k.ChangeLink("carp1", func(l *vip.Link) { l.MAC = carp.VirtualMAC(7) })
		},
	} {
		// Of IPv4 alone: its addresses stay on a device that is down.
		for family, config := range map[string]func(*vip.Config){"IPv4": onDeviceIPv4, "both": onDevice} {
			t.Run(name+" "+family, func(t *testing.T) {
				inWorld(t, config, func(w *world) {
					whole := func() bool {
						l, err := w.k.Link("carp1")
						return err == nil && l.Up && l.MAC == carp.VirtualMAC(1) && w.k.Answers(vip9) && (family == "IPv4" || w.k.Answers(vip96))
					}
					w.up(1)
					w.master(1, 2)
					w.permit(1)
					synctest.Wait()
					w.events()
					w.k.Sent()
					take(w.k)
					if whole() {
						t.Fatal("it was not taken")
					}
					if d := w.await(time.Second, "back", whole); d > 100*ms {
						t.Errorf("back after %v, want 100 ms at most", d)
					}
					synctest.Wait()
					w.wantEvents(vip.EventRestored)
					if len(w.k.Sent()) == 0 {
						t.Error("nothing was announced anew")
					}
				})
			})
		}
	}
}

func TestDeviceTakenAgainAndAgainIsMadeAtALimitedRate(t *testing.T) {
	inWorld(t, func(c *vip.Config) { onDevice(c); c.Lease = vip.Lease{} }, func(w *world) {
		w.up(1)
		var made atomic.Int32
		w.k.SetHooks(viptest.Hooks{FailDevice: func(vip.Device) error { made.Add(1); return nil }})
		for range 300 { // 30 s
			w.permit(1)
			if l, err := w.k.Link("carp1"); err == nil && l.Up {
				w.k.DeleteLink("carp1")
			}
			time.Sleep(100 * ms)
		}
		if n := made.Load(); n < 35 || n > 42 {
			t.Errorf("made %d times in 30 s, want 10 and then one a second", n)
		}
	})
}

func TestDeviceThatCannotBeMadeIsToldAndNothingIsLeft(t *testing.T) {
	no := errors.New("no")
	inWorld(t, func(c *vip.Config) { onDevice(c); c.Device = viptest.LinkName }, func(w *world) {
		w.wantEvents(vip.EventFailed)
		w.permit(1)
		if err := w.set.Up(w.Context(), 1); !errors.Is(err, vip.ErrForeignDevice) {
			t.Errorf("Up: %v, want ErrForeignDevice", err)
		}
		w.wantOn(false, "after Up")
	})
	inWorld(t, onDevice, func(w *world) {
		w.k.DeleteLink("carp1")
		w.k.SetHooks(viptest.Hooks{FailDevice: func(vip.Device) error { return no }})
		w.permit(1)
		if err := w.set.Up(w.Context(), 1); !errors.Is(err, no) {
			t.Errorf("Up: %v, want the cause", err)
		}
		w.wantOn(false, "after Up")
		w.k.SetHooks(viptest.Hooks{})
		w.up(2)
		w.wantOn(true, "when it can be made again")
	})
}

func TestDeviceThatCannotComeBackIsToldOnceAndTriedAgain(t *testing.T) {
	no := errors.New("no")
	inWorld(t, onDevice, func(w *world) {
		w.up(1)
		for range 2 { // the second time it is news again
			w.events()
			var tries atomic.Int32
			w.k.SetHooks(viptest.Hooks{FailDevice: func(vip.Device) error { tries.Add(1); return no }})
			w.k.DeleteLink("carp1")
			for range 40 { // 10 s
				w.permit(1)
				time.Sleep(250 * ms)
			}
			if n := tries.Load(); n < 9 {
				t.Errorf("tried %d times in 10 s, want once a second", n)
			}
			w.wantEvents(vip.EventFailed)
			w.k.SetHooks(viptest.Hooks{})
			w.await(2*time.Second, "back", func() bool { w.permit(1); return w.k.Answers(vip9) && w.k.Answers(vip96) })
			synctest.Wait()
			w.wantEvents(vip.EventRestored)
		}
	})
}

func TestDeviceThatCannotBeDeletedAtTheEndIsTold(t *testing.T) {
	no := errors.New("no")
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, k: viptest.NewFakeKernel(viptest.Own()...), start: time.Now()}
		w.set = vip.New(stubborn{w.k, no}, vip.Config{Interface: viptest.LinkName, VHID: 1, VirtualMAC: carp.VirtualMAC(1), Device: "carp1", Now: w.now, Observe: w.observe})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.set.Run(ctx) }()
		w.wantDevice(false, "at the start")
		cancel()
		if err := <-done; !errors.Is(err, no) {
			t.Errorf("Run: %v, want the cause", err)
		}
		w.wantEvents(vip.EventFailed)
	})
}

// stubborn deletes no device.
type stubborn struct {
	vip.Kernel
	why error
}

func (k stubborn) RemoveDevice(vip.Link) error { return k.why }

func TestDeviceComesBackWithItsInterface(t *testing.T) {
	inWorld(t, func(c *vip.Config) { onDevice(c); c.Lease = vip.Lease{} }, func(w *world) {
		w.up(1)
		w.events()
		w.k.DeleteLink(viptest.LinkName)
		w.permit(1)
		synctest.Wait()
		w.wantEvents(vip.EventLinkGone)
		w.k.AddLink(viptest.LinkName, viptest.Own()...)
		w.permit(1)
		w.await(2*time.Second, "back", func() bool { return w.k.Answers(vip9) && w.k.Answers(vip96) })
		w.wantDevice(true, "with its interface")
	})
}

// What an earlier run left on the device is in nobody's care.
func TestDeviceOfAnEarlierRunIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, k: viptest.NewFakeKernel(viptest.Own()...), start: time.Now()}
		cfg := vip.Config{Interface: viptest.LinkName, Addresses: prefixesOf(vip9 + "/24"), Now: w.now, Observe: w.observe}
		onDevice(&cfg)
		w.set = vip.New(w.k, cfg)
		w.up(1) // and dies
		left, _ := w.k.Link("carp1")
		w.set = vip.New(w.k, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.set.Run(ctx) }()
		synctest.Wait()
		if l, err := w.k.Link("carp1"); err != nil || l.Up || l.Index == left.Index || w.k.Has(vip9) {
			t.Errorf("%+v, %v, want a new device, down; before %+v\n%v", l, err, left, w.k)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, err := w.k.Link("carp1"); !errors.Is(err, vip.ErrNoLink) {
			t.Errorf("left after Run: %v\n%v", err, w.k)
		}
	})
}

func TestDeviceKeepsUpWithAReconfiguration(t *testing.T) {
	inWorld(t, onDevice, func(w *world) {
		w.up(1)
		w.permit(1)
		if err := w.set.Reconfigure(w.Context(), prefixesOf(vip9+"/24", "192.0.2.10/24"), vip.Lease{}); err != nil {
			t.Fatalf("Reconfigure: %v", err)
		}
		l, err := w.k.Link("carp1")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		have, _ := w.k.Addrs(l.Index)
		for _, h := range have {
			got = append(got, h.Prefix.String())
		}
		if !slices.Equal(got, []string{"192.0.2.9/32", "192.0.2.10/32"}) {
			t.Errorf("on the device: %v", got)
		}
	})
}

// The address is the node's own: it must not go on the device beside it either.
func TestDeviceRefusesAForeignAddressOnTheInterface(t *testing.T) {
	inWorld(t, onDevice, func(w *world) {
		w.k.AddAddr(viptest.LinkName, vip9+"/24")
		w.permit(1)
		if err := w.set.Up(w.Context(), 1); !errors.Is(err, vip.ErrForeign) {
			t.Errorf("Up: %v, want ErrForeign", err)
		}
		w.wantDevice(false, "after Up")
		w.k.DelAddr(viptest.LinkName, vip9+"/24")
	})
}
