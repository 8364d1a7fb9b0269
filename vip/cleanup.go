package vip

import (
	"context"
	"errors"
	"net/netip"
	"slices"
)

// Removed is what Cleanup removed: an address, or a virtual interface with all that
// was on it.
type Removed struct {
	Interface string
	Prefix    netip.Prefix // zero: the interface itself
}

// String returns "192.0.2.9/32 from eth0" or "the virtual interface carp9".
func (r Removed) String() string {
	if !r.Prefix.IsValid() {
		return "the virtual interface " + r.Interface
	}
	return r.Prefix.String() + " from " + r.Interface
}

// Cleanup removes what a dead daemon left: marked addresses, and virtual interfaces
// of ours, with which the settings of the interfaces below them are restored. It
// looks on the named interfaces and the virtual ones on them, or everywhere if none
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
	for _, l := range links {
		if len(interfaces) > 0 && !slices.Contains(interfaces, l.Name) && !slices.Contains(interfaces, nameOf(links, l.Parent)) {
			continue
		}
		if l.Parent != 0 && (all || slices.Contains(devices, l.Name)) {
			severOn(k, l, nil)
			if deleteErr := k.RemoveDevice(l); deleteErr != nil {
				err = errors.Join(err, deleteErr)
				continue
			}
			removed = append(removed, Removed{Interface: l.Name})
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
	return removed, err
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
