package config

import (
	"fmt"
	"net/netip"

	"github.com/carpd/carpd/carp"
)

// router is what an instance is on the network.
type router struct {
	vhid uint8
	link string
	kind Kind
}

// owned is an address on an interface.
type owned struct {
	addr netip.Addr
	link string
}

// unique checks that no two instances claim the same.
func (r *reader) unique(drafts []*draft) {
	names, routers, addresses := map[string]pos{}, map[router]*draft{}, map[owned]pos{}
	for _, d := range drafts {
		id := router{d.VHID, d.Interface, d.Kind()}
		if d.VHID != 0 && d.Interface != "" {
			if first, taken := routers[id]; taken {
				r.sameRouter(d, first)
				continue // its default name is taken for the same reason
			}
			routers[id] = d
			r.uniquePaths(d, routers)
		}
		r.uniqueName(d, names)
		for _, list := range []struct {
			key string
			all []placedPrefix
		}{{"addresses", d.addresses}, {"addresses_excluded", d.excluded}} {
			for _, a := range list.all {
				o := owned{a.value.Addr(), d.Interface}
				if first, taken := addresses[o]; taken && d.Interface != "" {
					r.fault(a.at, "an address has one owner on an interface", "%s: %v is on %s twice, first in line %d",
						list.key, o.addr, d.Interface, first.line)
					continue
				}
				addresses[o] = a.at
			}
		}
	}
}

// uniquePaths claims the id of an instance on the interfaces of its paths too.
func (r *reader) uniquePaths(d *draft, routers map[router]*draft) {
	for i, p := range d.Paths {
		id := router{d.VHID, p.Interface, d.Kind()}
		if first := routers[id]; first != nil && first != d {
			r.fault(d.further[i].at, "use another id, or another interface", "paths: id %d is in use on %s by the instance in line %d: the two would hear each other",
				d.VHID, p.Interface, first.begin.line)
			continue
		}
		routers[id] = d
	}
}

// sameRouter notes that an instance is a second one of its id, interface and kind.
func (r *reader) sameRouter(d, first *draft) {
	at := first.at["vhid"].line
	switch {
	case !d.VRRP():
		r.fault(d.at["vhid"], "use another vhid, or put the addresses into one instance",
			"vhid %d is on %s twice, first in line %d", d.VHID, d.Interface, at)
	case d.Protocol != first.Protocol:
		r.fault(d.at["vhid"], "use another vrid, or one version on all nodes",
			"vrid %d over %v is on %s twice, first in line %d: both versions of VRRP are one virtual router",
			d.VHID, d.Kind().family(), d.Interface, at)
	default:
		r.fault(d.at["vhid"], "use another vrid, or put the addresses into one instance",
			"vrid %d over %v is on %s twice, first in line %d", d.VHID, d.Kind().family(), d.Interface, at)
	}
}

func (r *reader) uniqueName(d *draft, names map[string]pos) {
	if d.Name == "" {
		return
	}
	where, given := d.at["name"]
	if !given {
		where = d.begin
	}
	first, taken := names[d.Name]
	switch {
	case !taken:
		names[d.Name] = where
	case given:
		r.fault(where, "choose another name", "name: %s is taken in line %d", d.Name, first.line)
	default:
		r.fault(where, "give this one a name", "name: %s, the default, is taken in line %d", d.Name, first.line)
	}
}

// virtualMACs names the devices that have a virtual MAC, and looks for instances
// that share one: CARP, whatever its families, and VRRP over IPv4 with the same id.
func (r *reader) virtualMACs(drafts []*draft) {
	type shared struct {
		vhid uint8
		link string
	}
	users, devices := map[shared]*draft{}, map[string]bool{}
	for _, d := range drafts {
		devices[d.Interface] = true // what an instance runs on is made by somebody else
	}
	for _, d := range drafts {
		if d.VHID == 0 || d.Interface == "" || d.Protocol == "" {
			continue
		}
		if d.MAC == "virtual" {
			r.device(d, devices)
		}
		if d.Kind() == VRRP6 {
			continue
		}
		id := shared{d.VHID, d.Interface}
		first := users[id]
		if first == nil {
			users[id] = d
			continue
		}
		if first.Kind() != d.Kind() {
			r.sharedMAC(d, first)
		}
	}
}

func (r *reader) sharedMAC(d, first *draft) {
	mac := carp.VirtualMAC(d.VHID)
	text := fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
	uses := func(d *draft) bool { return d.MAC == "virtual" || d.SourceMAC == "virtual" }
	line := first.at["vhid"].line
	switch {
	case first.MAC == "virtual" && d.MAC == "virtual":
		r.fault(d.at["mac"], "use another id, or mac: interface in one of them",
			"mac: %s is that of CARP and of VRRP over IPv4 with this id, and the instance with it in line %d has mac: virtual too", text, line)
	case uses(first) || uses(d):
		r.warn(d.at["vhid"], "use another id, or source_mac: interface and mac: interface in both",
			"CARP and VRRP with id %d on %s share the MAC %s (the other one is in line %d): switches take them for one",
			d.VHID, d.Interface, text, line)
	}
}

// device names the device of a virtual MAC. Names are the same on all nodes as far
// as the files are, so only where one is taken the interface's is added.
func (r *reader) device(d *draft, taken map[string]bool) {
	name := fmt.Sprintf("carp%d", d.VHID)
	if d.VRRP() {
		name = fmt.Sprintf("%v-%d", d.Kind(), d.VHID)
	}
	if taken[name] {
		name += "." + d.Interface
	}
	if len(name) > linkNameMax {
		r.fault(d.at["mac"], "use another id, or give the interface a shorter name (ip link set dev NAME name SHORT)",
			"mac: the virtual MAC needs an interface of its own, and its name %s would be longer than %d bytes", name, linkNameMax)
		return
	}
	taken[name], d.Device = true, name
}
