package viptest

import (
	"errors"
	"slices"

	"github.com/carpd/carpd/vip"
)

// SetLink sets an interface up or down as a hand would, and tells the watchers.
func (k *FakeKernel) SetLink(name string, up bool) {
	k.mu.Lock()
	notices := k.link(name).set(up)
	k.mu.Unlock()
	k.tell(notices)
}

// set switches an interface as Linux does: going down, it forgets its IPv6
// addresses and keeps those of IPv4.
func (l *fakeLink) set(up bool) (notices []vip.Notice) {
	if l.Up == up {
		return nil
	}
	l.Up = up
	if !up {
		for _, a := range slices.Clone(l.addrs) {
			if a.prefix.Addr().Is6() {
				notices = append(notices, l.drop(a, true)...)
			}
		}
	}
	return append(notices, vip.Notice{Kind: vip.LinkChanged, Index: l.Index, Link: l.Name})
}

// EnsureDevice implements vip.Kernel.
func (k *FakeKernel) EnsureDevice(d vip.Device) (vip.Link, error) {
	k.mu.Lock()
	fail := k.hooks.FailDevice
	k.mu.Unlock()
	var l vip.Link
	var notices []vip.Notice
	var err error
	if fail != nil {
		err = fail(d)
	}
	if err == nil {
		k.mu.Lock()
		l, notices, err = k.ensureDevice(d)
		k.mu.Unlock()
	}
	if err != nil {
		return vip.Link{}, &vip.OpError{Op: "make", Link: d.Name, Err: err}
	}
	k.tell(notices)
	return l, nil
}

func (k *FakeKernel) ensureDevice(d vip.Device) (vip.Link, []vip.Notice, error) {
	if k.closed {
		return vip.Link{}, nil, errors.New("kernel is closed")
	}
	parent, there := k.byIndex(d.Parent.Index), k.link(d.Name)
	if parent == nil {
		return vip.Link{}, nil, vip.ErrNoLink
	}
	for _, l := range k.links {
		if l == there && l.Parent == 0 || l != there && l.MAC == d.MAC && (l == parent || l.Parent == parent.Index) {
			return vip.Link{}, nil, vip.ErrForeignDevice
		}
	}
	var notices []vip.Notice
	if there != nil && (there.Parent != parent.Index || there.MAC != d.MAC) {
		notices, there = k.deleteLink(there), nil
	}
	if there == nil {
		there = &fakeLink{Link: vip.Link{Index: k.next, Name: d.Name, MAC: d.MAC, Parent: parent.Index, PromoteSecondaries: true}}
		k.next++
		k.links = append(k.links, there)
	}
	if !parent.Quiet {
		parent.Quiet, parent.Altered = true, true
	}
	there.Quiet = true
	return there.Link, append(notices, vip.Notice{Kind: vip.LinkChanged, Index: there.Index, Link: there.Name}), nil
}

// RemoveDevice implements vip.Kernel.
func (k *FakeKernel) RemoveDevice(l vip.Link) error {
	k.mu.Lock()
	var notices []vip.Notice
	if there := k.byIndex(l.Index); l.Index != 0 && there != nil && there.Parent != 0 && there.Parent == l.Parent {
		notices = k.deleteLink(there)
	}
	parent := k.byIndex(l.Parent)
	if parent != nil && parent.Altered && !slices.ContainsFunc(k.links, func(x *fakeLink) bool { return x.Parent == parent.Index }) {
		parent.Quiet, parent.Altered = false, false
	}
	k.mu.Unlock()
	k.tell(notices)
	return nil
}
