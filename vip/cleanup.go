package vip

import (
	"errors"
	"net/netip"
	"slices"
)

// Removed is an address that Cleanup took off.
type Removed struct {
	Interface string
	Prefix    netip.Prefix
}

// Cleanup takes off the marked addresses that a dead daemon left: on the named
// interfaces only, or on all if none is named, and of these the given addresses
// only (whatever their prefix length), or all if none is given. What is not there
// is no error, so it may be called again and again. It must not run for addresses
// that a Set holds.
func Cleanup(k Kernel, interfaces []string, prefixes []netip.Prefix) (removed []Removed, err error) {
	links, err := k.Links()
	if err != nil {
		return nil, err
	}
	var only map[netip.Addr]bool
	if len(prefixes) > 0 {
		only = addrSet(normal(prefixes))
	}
	for _, l := range links {
		if len(interfaces) > 0 && !slices.Contains(interfaces, l.Name) {
			continue
		}
		have, listErr := k.Addrs(l.Index)
		if listErr != nil {
			err = errors.Join(err, listErr)
			continue
		}
		var stale []netip.Prefix
		for _, h := range have {
			if h.Mark == Mark && (only == nil || only[h.Prefix.Addr()]) {
				stale = append(stale, h.Prefix)
			}
		}
		if len(stale) == 0 {
			continue
		}
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
