package vip

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
)

// Removed is what Cleanup removed: an address, a virtual interface with all that was
// on it, or what was left changed of the interface below one.
type Removed struct {
	Interface string
	Prefix    netip.Prefix // zero: the interface itself, or its settings
	Settings  bool         // arp_ignore and arp_announce were restored; nothing else was
}

// String returns "192.0.2.9/32 from eth0", "the virtual interface carp9" or "the
// changes of arp_ignore and arp_announce of eth0".
func (r Removed) String() string {
	if r.Settings {
		return "the changes of arp_ignore and arp_announce of " + r.Interface
	}
	if !r.Prefix.IsValid() {
		return "the virtual interface " + r.Interface
	}
	return r.Prefix.String() + " from " + r.Interface
}

// Cleanup removes what a dead daemon left: marked addresses, and virtual interfaces
// of ours, with which the settings of the interfaces below them are restored, also
// of those that were deleted by hand. It looks on the named interfaces and the virtual ones on them, or everywhere if none
// is named. If addresses or devices are given it removes these only (addresses
// whatever their prefix length), otherwise all. What is not there is no error, so
// it may be called again and again. It must not run for what a Set holds: where
// other instances may live, name what nobody holds.
func Cleanup(k Kernel, interfaces []string, prefixes []netip.Prefix, devices ...string) (removed []Removed, err error) {
	links, err := k.Links()
	if err != nil {
		return nil, err
	}
	all := len(prefixes) == 0 && len(devices) == 0
	wanted := addrSet(normal(prefixes))
	links = slices.DeleteFunc(links, func(l Link) bool {
		return len(interfaces) > 0 && !slices.Contains(interfaces, l.Name) && !slices.Contains(interfaces, nameOf(links, l.Parent))
	})
	goes := func(l Link) bool { return l.Parent != 0 && (all || slices.Contains(devices, l.Name)) }
	for i, deleteErr := range removeDevices(k, links, goes) {
		if deleteErr != nil {
			err = errors.Join(err, deleteErr)
		} else if goes(links[i]) {
			removed = append(removed, Removed{Interface: links[i].Name})
		}
	}
	for _, l := range links {
		if goes(l) {
			continue
		}
		have, listErr := k.Addrs(l.Index)
		if listErr != nil {
			err = errors.Join(err, listErr)
			continue
		}
		stale := slices.DeleteFunc(marked(have), func(p netip.Prefix) bool { return !all && !wanted[p.Addr()] })
		if len(stale) == 0 {
			continue
		}
		severOn(k, l, stale)
		if applyErr := k.Apply(removes(l, stale)); applyErr != nil {
			err = errors.Join(err, applyErr)
			continue
		}
		for _, p := range stale {
			removed = append(removed, Removed{Interface: l.Name, Prefix: p})
		}
	}
	for _, l := range links {
		if l.Altered {
			restored, restoreErr := restoreBelow(k, l)
			err = errors.Join(err, restoreErr)
			if restored {
				removed = append(removed, Removed{Interface: l.Name, Settings: true})
			}
		}
	}
	return removed, err
}

// removeDevices removes those links that go, at once, and returns an error or nil for
// each of links.
func removeDevices(k Kernel, links []Link, goes func(Link) bool) []error {
	errs := make([]error, len(links))
	var all sync.WaitGroup
	for i, l := range links {
		if !goes(l) {
			continue
		}
		severOn(k, l, nil)
		all.Go(func() { errs[i] = k.RemoveDevice(l) })
	}
	all.Wait()
	return errs
}

// restoreBelow restores the settings of an interface whose devices are all gone, and
// reports whether they still had to be.
func restoreBelow(k Kernel, l Link) (restored bool, err error) {
	if l, err = k.Link(l.Name); err != nil || !l.Altered {
		return false, err // the last device that was removed has seen to it
	}
	if err = k.RemoveDevice(Link{Name: l.Name, Parent: l.Index}); err != nil {
		return false, err
	}
	l, err = k.Link(l.Name)
	return err == nil && !l.Altered, err
}

// severOn destroys the sockets of addresses that are about to go, of all of a device
// if none are given. That it does not work keeps nothing from going.
func severOn(k Kernel, l Link, prefixes []netip.Prefix) {
	if len(prefixes) == 0 {
		have, _ := k.Addrs(l.Index)
		prefixes = marked(have)
	}
	if len(prefixes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), severPlanned)
	defer cancel()
	_, _ = k.Sever(ctx, l.Index, addrsOf(prefixes))
}

// nameOf returns the name of the link with this index, "" if there is none.
func nameOf(links []Link, index int) string {
	for _, l := range links {
		if l.Index == index && index != 0 {
			return l.Name
		}
	}
	return ""
}
