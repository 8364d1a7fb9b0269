package vip

import (
	"net/netip"
	"slices"
)

// form returns prefix in the form in which it goes on an interface that has the
// addresses have: as /32 or /128 where the interface has an address of its own
// in the subnet, otherwise as written. Ours are the addresses that do not count
// as the interface's own though they may lack the mark.
func form(prefix netip.Prefix, have []Addr, ours map[netip.Addr]bool) netip.Prefix {
	for _, h := range have {
		own := h.Prefix
		if h.Mark == Mark || ours[own.Addr()] || own.Addr().Is4() != prefix.Addr().Is4() {
			continue
		}
		// Masked, because Contains compares with the whole address otherwise.
		if own.Masked().Contains(prefix.Addr()) || prefix.Masked().Contains(own.Addr()) {
			return host(prefix.Addr())
		}
	}
	return prefix
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// forms returns the forms of all prefixes. One that is placed already keeps its
// form, so that a change of others does not touch it.
func forms(prefixes []netip.Prefix, have []Addr, placed []netip.Prefix) []netip.Prefix {
	ours := addrSet(prefixes, placed)
	kept := make(map[netip.Addr]netip.Prefix, len(placed))
	for _, p := range placed {
		kept[p.Addr()] = p
	}
	out := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		out[i] = form(p, have, ours)
		if k, ok := kept[p.Addr()]; ok && (k == p || k.IsSingleIP()) {
			out[i] = k
		}
	}
	return out
}

// deviceForms returns the forms of prefixes on a device of ours, whose parent has
// the addresses own: a host address where the way back is by the parent. Link-local
// addresses need their subnet on the device itself, since the way back is by no
// other interface.
func deviceForms(prefixes []netip.Prefix, own []Addr, placed []netip.Prefix) []netip.Prefix {
	out := forms(prefixes, own, placed)
	for i, p := range out {
		if a := p.Addr(); a.Is6() && a.IsLinkLocalUnicast() {
			out[i] = netip.PrefixFrom(a, min(prefixes[i].Bits(), 64))
		}
	}
	return out
}

// marked returns those of have that carry our mark.
func marked(have []Addr) (out []netip.Prefix) {
	for _, h := range have {
		if h.Mark == Mark {
			out = append(out, h.Prefix)
		}
	}
	return out
}

// plan returns the changes that make want out of have on one interface: first
// off what must go, then on, and anew, all that is wanted, so that one batch
// gives them one lifetime and brings back a secondary that the kernel took with
// its primary. Old are the prefixes put on earlier; those that are not wanted go.
// So does a wanted address under another prefix length, whoever put it there:
// left alone it would stay behind when ours goes.
func plan(l Link, have []Addr, want, old []netip.Prefix, lease Lease) []Change {
	wanted := make(map[netip.Addr]netip.Prefix, len(want))
	for _, w := range want {
		wanted[w.Addr()] = w
	}
	was := addrSet(old)
	changes := make([]Change, 0, len(want))
	for _, h := range have {
		w, isWanted := wanted[h.Prefix.Addr()]
		if isWanted && w != h.Prefix || !isWanted && was[h.Prefix.Addr()] {
			changes = append(changes, Change{Op: Remove, Index: l.Index, Link: l.Name, Prefix: h.Prefix})
		}
	}
	return append(changes, puts(l, want, lease)...)
}

// puts returns the changes that put on, or renew, all prefixes.
func puts(l Link, prefixes []netip.Prefix, lease Lease) []Change {
	changes := make([]Change, len(prefixes))
	for i, p := range prefixes {
		changes[i] = Change{Op: Put, Index: l.Index, Link: l.Name, Prefix: p, Valid: lease.lifetime(), Host: p.IsSingleIP()}
	}
	return changes
}

// removes returns the changes that take all prefixes off, the last first: in place of
// each first one of a subnet that goes the kernel promotes the next, at the cost of
// all that are left. A thousand take 20 ms so, and 1.2 s the other way.
func removes(l Link, prefixes []netip.Prefix) []Change {
	changes := make([]Change, 0, len(prefixes))
	for _, p := range slices.Backward(prefixes) {
		changes = append(changes, Change{Op: Remove, Index: l.Index, Link: l.Name, Prefix: p})
	}
	return changes
}

// left divides what have still holds of our addresses: ours to remove, because
// marked or placed by us, and foreign, put there by somebody else.
func left(have []Addr, prefixes, placed []netip.Prefix) (ours, foreign []netip.Prefix) {
	addrs, put := addrSet(prefixes, placed), make(map[netip.Prefix]bool, len(placed))
	for _, p := range placed {
		put[p] = true
	}
	for _, h := range have {
		switch {
		case !addrs[h.Prefix.Addr()]:
		case h.Mark == Mark || put[h.Prefix]:
			ours = append(ours, h.Prefix)
		default:
			foreign = append(foreign, h.Prefix)
		}
	}
	return ours, foreign
}

// lost returns which of the placed prefixes have lacks.
func lost(have []Addr, placed []netip.Prefix) []netip.Prefix {
	there := make(map[netip.Prefix]bool, len(have))
	for _, h := range have {
		there[h.Prefix] = true
	}
	var out []netip.Prefix
	for _, p := range placed {
		if !there[p] {
			out = append(out, p)
		}
	}
	return out
}

func addrSet(lists ...[]netip.Prefix) map[netip.Addr]bool {
	set := make(map[netip.Addr]bool)
	for _, list := range lists {
		for _, p := range list {
			set[p.Addr()] = true
		}
	}
	return set
}

// permanent returns those of have that are wanted, that nobody marked or limited,
// and that were not placed by this set (whose mark an old kernel forgets).
func permanent(have []Addr, want, placed []netip.Prefix) []netip.Prefix {
	wanted, ours := addrSet(want), addrSet(placed)
	var out []netip.Prefix
	for _, h := range have {
		a := h.Prefix.Addr()
		if wanted[a] && !ours[a] && h.Mark != Mark && h.Valid == Forever {
			out = append(out, h.Prefix)
		}
	}
	return out
}
