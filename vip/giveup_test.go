package vip_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/vip"
	"github.com/carpd/carpd/vip/viptest"
)

var errRefused = errors.New("refused")

// defeats records what Config.GiveUp is told, and what was on then.
type defeats struct {
	mu     sync.Mutex
	epochs []carp.Epoch
	errs   []error
	on     bool
}

func (d *defeats) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.epochs)
}

// inWorldThatGivesUp is inWorld with somebody who hears of the giving up.
func inWorldThatGivesUp(t *testing.T, change func(*vip.Config), f func(*world, *defeats)) {
	t.Helper()
	var w *world
	d := &defeats{}
	inWorld(t, func(c *vip.Config) {
		if change != nil {
			change(c)
		}
		c.GiveUp = func(epoch carp.Epoch, err error) {
			on := w.k.Has(vip9) || w.k.Has(vip96)
			d.mu.Lock()
			defer d.mu.Unlock()
			d.epochs, d.errs, d.on = append(d.epochs, epoch), append(d.errs, err), d.on || on
		}
	}, func(x *world) { w = x; f(x, d) })
}

// take takes all addresses away, so that they cannot be put back.
func takeAll(w *world, device bool) {
	w.k.SetHooks(viptest.Hooks{
		FailDevice: func(vip.Device) error { return errRefused },
		Fail: func(c vip.Change) error {
			if c.Op == vip.Put {
				return errRefused
			}
			return nil
		},
	})
	if device {
		w.k.DeleteLink("carp1")
		return
	}
	w.k.DelAddr(viptest.LinkName, vip9+"/32")
	w.k.DelAddr(viptest.LinkName, vip96+"/128")
}

func TestMasterThatCannotPutItsAddressesBackGivesUpAfterHalfASecond(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*vip.Config)
		device bool
	}{"on the interface": {nil, false}, "on a device": {onDevice, true}} {
		t.Run(name, func(t *testing.T) {
			inWorldThatGivesUp(t, tc.change, func(w *world, d *defeats) {
				w.up(7)
				w.events()
				takeAll(w, tc.device)
				took := w.await(2*time.Second, "given up", func() bool { return d.count() > 0 })
				if took < 500*ms || took > 700*ms {
					t.Errorf("given up after %v, want half a second", took)
				}
				w.wantEvents(vip.EventFailed, vip.EventFailed)
				if d.epochs[0] != 7 || !errors.Is(d.errs[0], errRefused) || d.on {
					t.Errorf("told of epoch %d, %v, while addresses were on: %v", d.epochs[0], d.errs[0], d.on)
				}
				// Mended, but the mastership is over: permits of it bring nothing back.
				w.k.SetHooks(viptest.Hooks{})
				w.master(7, 5)
				w.wantOn(false, "after giving up")
				if n := d.count(); n != 1 {
					t.Errorf("told %d times", n)
				}
				w.up(8)
				w.wantOn(true, "with the next mastership")
			})
		})
	}
}

// Somebody has changed the device, and it cannot be made anew: the addresses on it are
// in the way of whoever is to take over.
func TestMasterSaysThatItGivesUpWhenItsAddressesAreOff(t *testing.T) {
	inWorldThatGivesUp(t, onDevice, func(w *world, d *defeats) {
		w.up(1)
		w.k.SetHooks(viptest.Hooks{
			FailDevice: func(vip.Device) error { return errRefused },
			Fail: func(c vip.Change) error {
				if c.Op == vip.Remove || c.Op == vip.SetDown {
					return errRefused
				}
				return nil
			},
		})
		w.k.ChangeLink("carp1", func(l *vip.Link) { l.MAC = carp.VirtualMAC(7) })
		for range 10 { // the lease would take them off
			w.permit(1)
			time.Sleep(90 * ms)
		}
		if n := d.count(); n != 0 || !w.k.Has(vip9) {
			t.Fatalf("told %d times, and the address is on: %v; want that it waits", n, w.k.Has(vip9))
		}
		w.k.SetHooks(viptest.Hooks{FailDevice: func(vip.Device) error { return errRefused }})
		w.await(2*time.Second, "given up", func() bool { return d.count() > 0 })
		if d.on || d.epochs[0] != 1 {
			t.Errorf("told of epoch %d while addresses were on: %v", d.epochs[0], d.on)
		}
		w.k.SetHooks(viptest.Hooks{})
	})
}

func TestMasterDoesNotGiveUpThoughAddressesAreMissing(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*vip.Config)
		happen func(w *world)
	}{
		"one of two is on": {nil, func(w *world) {
			w.k.SetHooks(viptest.Hooks{Fail: func(c vip.Change) error {
				if c.Op == vip.Put && c.Prefix.Addr().Is4() {
					return errRefused
				}
				return nil
			}})
			w.k.DelAddr(viptest.LinkName, vip9+"/32")
		}},
		"they are back in time": {onDevice, func(w *world) {
			takeAll(w, true)
			w.permit(1)
			time.Sleep(450 * ms)
			w.k.SetHooks(viptest.Hooks{})
			w.await(200*ms, "back", func() bool { return w.k.Has(vip9) })
			w.permit(1)
			takeAll(w, true) // and the patience begins anew
			time.Sleep(450 * ms)
			w.k.SetHooks(viptest.Hooks{})
		}},
		"the interface goes while its device is made": {onDevice, func(w *world) {
			w.k.SetHooks(viptest.Hooks{FailDevice: func(vip.Device) error { return vip.ErrNoLink }})
			w.k.DeleteLink("carp1")
		}},
		"the interface is gone":                {nil, func(w *world) { w.k.DeleteLink(viptest.LinkName) }},
		"the interface below a device is gone": {onDevice, func(w *world) { w.k.DeleteLink(viptest.LinkName) }},
		"they are taken again and again": {nil, func(w *world) {
			for range 100 {
				w.permit(1)
				for _, a := range []string{vip9 + "/32", vip96 + "/128"} {
					if w.k.Has(vip9) || w.k.Has(vip96) {
						w.k.DelAddr(viptest.LinkName, a)
					}
				}
				time.Sleep(50 * ms)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorldThatGivesUp(t, tc.change, func(w *world, d *defeats) {
				w.up(1)
				tc.happen(w)
				w.master(1, 10)
				synctest.Wait()
				if n := d.count(); n != 0 {
					t.Errorf("given up %d times: %v", n, d.errs)
				}
				w.k.SetHooks(viptest.Hooks{})
			})
		})
	}
}
