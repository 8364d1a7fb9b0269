package viptest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/vip"
)

func (s suite) device(name string, vhid uint8) vip.Device {
	return vip.Device{Name: name, Parent: s.link, MAC: carp.VirtualMAC(vhid), VHID: vhid}
}

func (s suite) ensure(d vip.Device) vip.Link {
	s.Helper()
	l, err := s.k.EnsureDevice(d)
	if err != nil {
		s.Fatalf("EnsureDevice(%s): %v", d.Name, err)
	}
	return l
}

// now looks an interface up; the zero Link says that it is not there.
func (s suite) now(name string) vip.Link {
	s.Helper()
	l, err := s.k.Link(name)
	if err != nil && !errors.Is(err, vip.ErrNoLink) {
		s.Fatalf("Link(%s): %v", name, err)
	}
	return l
}

func (s suite) removeDevice(l vip.Link) {
	s.Helper()
	if err := s.k.RemoveDevice(l); err != nil {
		s.Errorf("RemoveDevice(%s): %v", l.Name, err)
	}
}

func testDevice(s suite) {
	d := s.device("carp9", 9)
	l := s.ensure(d)
	if l.Index == 0 || l.Name != d.Name || l.MAC != d.MAC || l.Parent != s.link.Index || l.Up || !l.Quiet || !l.PromoteSecondaries {
		s.Errorf("EnsureDevice: %+v, want %s on %d, down and quiet", l, d.Name, s.link.Index)
	}
	if found := s.now(d.Name); found != l {
		s.Errorf("Link: %+v, want %+v", found, l)
	}
	if links, err := s.k.Links(); err != nil || !slices.Contains(links, l) {
		s.Errorf("Links: %+v, %v, want %+v among them", links, err, l)
	}
	if addrs, err := s.k.Addrs(l.Index); err != nil || len(addrs) != 0 {
		s.Errorf("Addrs: %v, %v, want none", addrs, err)
	}
	if again := s.ensure(d); again != l {
		s.Errorf("EnsureDevice again: %+v, want %+v", again, l)
	}
	s.removeDevice(l)
	if found := s.now(d.Name); found.Index != 0 {
		s.Errorf("after RemoveDevice: %+v", found)
	}
	s.removeDevice(l)
	if again := s.ensure(d); again.Index == l.Index {
		s.Errorf("made again: index %d is not new", again.Index)
	}
}

func testDeviceDiffers(s suite) {
	d := s.device("carp9", 9)
	l := s.ensure(d)
	s.apply([]vip.Change{{Op: vip.SetUp, Index: l.Index, Link: l.Name}})
	d.MAC = carp.MAC{0, 0, 0x5e, 0, 2, 9}
	if l2 := s.ensure(d); l2.Index == l.Index || l2.MAC != d.MAC || l2.Up {
		s.Errorf("with another MAC: %+v, before %+v; want one made anew, down", l2, l)
	}
}

func testDeviceForeign(s suite) {
	refused := func(d vip.Device) {
		s.Helper()
		before, _ := s.k.Links()
		_, err := s.k.EnsureDevice(d)
		op, ok := errors.AsType[*vip.OpError](err)
		if !errors.Is(err, vip.ErrForeignDevice) || !ok || op.Op != "make" || op.Link != d.Name {
			s.Errorf("EnsureDevice(%+v): %v, want an OpError, ErrForeignDevice", d, err)
		}
		if after, _ := s.k.Links(); !slices.Equal(before, after) {
			s.Errorf("refused, and interfaces changed from %+v to %+v", before, after)
		}
	}
	refused(s.device(LinkName, 9))
	own := s.device("carp9", 9)
	own.MAC = s.link.MAC
	refused(own)
	s.ensure(s.device("carp9", 9))
	refused(s.device("other9", 9))
	if err := s.k.RemoveDevice(s.now(LinkName)); err != nil || s.now(LinkName).Index == 0 {
		s.Errorf("RemoveDevice of what is no device: %v, and %+v is left", err, s.now(LinkName))
	}
}

func testDeviceSwitch(s suite) {
	l := s.ensure(s.device("carp9", 9))
	var told atomic.Bool
	defer s.k.Watch(func(n vip.Notice) {
		if n.Kind == vip.LinkChanged && n.Index == l.Index {
			told.Store(true)
		}
	})()
	var puts []vip.Change
	for _, p := range []string{"192.0.2.9/32", "2001:db8::9/128", "fe80::9/64"} {
		p := netip.MustParsePrefix(p)
		puts = append(puts, vip.Change{Op: vip.Put, Index: l.Index, Link: l.Name, Prefix: p, Valid: 10 * time.Second, Host: p.IsSingleIP()})
	}
	s.apply([]vip.Change{{Op: vip.SetUp, Index: l.Index, Link: l.Name}}, puts)
	if now := s.now(l.Name); !now.Up {
		s.Errorf("after SetUp: %+v", now)
	}
	eventually(s.T, 2*time.Second, "the notice", told.Load)
	if have, err := s.k.Addrs(l.Index); err != nil || len(have) != 3 {
		s.Errorf("addresses of a device that has just been set up: %v, %v, want 3", have, err)
	}
	frame := make([]byte, 60)
	copy(frame[6:], l.MAC[:])
	frame[12], frame[13] = 0x88, 0xb5 // for local experiments
	if err := s.k.Send(context.Background(), l.Index, [][]byte{frame}, nil); err != nil {
		s.Errorf("Send: %v", err)
	}
	s.apply([]vip.Change{{Op: vip.SetDown, Index: l.Index, Link: l.Name}})
	if now := s.now(l.Name); now.Up {
		s.Errorf("after SetDown: %+v", now)
	}
	if have, err := s.k.Addrs(l.Index); err != nil || len(have) != 1 {
		s.Errorf("addresses of a device that was set down: %v, %v, want that of IPv4", have, err)
	}
	s.removeDevice(l)
	s.apply([]vip.Change{{Op: vip.SetDown, Index: l.Index, Link: l.Name}})
	err := s.k.Apply([]vip.Change{{Op: vip.SetUp, Index: l.Index, Link: l.Name}})
	if op, ok := errors.AsType[*vip.OpError](err); !errors.Is(err, vip.ErrNoLink) || !ok || op.Op != "set up" {
		s.Errorf("SetUp of what is gone: %v, want an OpError, ErrNoLink", err)
	}
}

func testDeviceParent(s suite) {
	if s.link.Quiet {
		s.Fatalf("%s is quiet before there is a device", LinkName)
	}
	quiet := func(want bool, when string) {
		s.Helper()
		if got := s.now(LinkName).Quiet; got != want {
			s.Errorf("%s: quiet %v, want %v", when, got, want)
		}
	}
	a, b := s.ensure(s.device("carp1", 1)), s.ensure(s.device("carp2", 2))
	quiet(true, "with two")
	s.removeDevice(a)
	quiet(true, "with one")
	s.removeDevice(b)
	quiet(false, "without")
}
