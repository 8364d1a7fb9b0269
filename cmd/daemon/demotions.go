package daemon

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/cmd/daemon/config"
)

// maxDemotions bounds the owners of demotions that a node remembers.
const maxDemotions = 256

// demotions is the node's table of who demotes what: the whole node (as
// FreeBSD's net.inet.carp.demotion), a group (as OpenBSD's interface groups) or
// one instance. Each owner has one amount a target and can take it back without
// knowing of the others. It is safe for concurrent use.
type demotions struct {
	mu    sync.Mutex
	table []api.Demotion
}

// The targets that are not an instance's name.
const globalTarget = "global"

func groupTarget(group string) string { return "group " + group }

// set notes an owner's amount; 0 takes it back.
func (d *demotions) set(target, owner string, amount int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.table, func(x api.Demotion) bool { return x.Target == target && x.Owner == owner })
	switch {
	case i >= 0 && amount == 0:
		d.table = slices.Delete(d.table, i, i+1)
	case i >= 0:
		d.table[i].Amount = amount
	case amount == 0:
	case len(d.table) == maxDemotions:
		return fmt.Errorf("%d demotions are set already: take some back first", maxDemotions)
	default:
		d.table = append(d.table, api.Demotion{Owner: owner, Target: target, Amount: amount})
	}
	return nil
}

// forget takes back all that was set for an instance that is gone.
func (d *demotions) forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.table = slices.DeleteFunc(d.table, func(x api.Demotion) bool { return x.Target == name })
}

// of returns what applies to an instance, as amounts by the owner that its engine is
// told.
func (d *demotions) of(i config.Instance) map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]int{}
	for _, x := range d.table {
		if concerns(x.Target, x.Owner, i) {
			out[engineOwner(x.Target, x.Owner, i.Name)] = x.Amount
		}
	}
	return out
}

// concerns reports whether an owner's demotion of target applies to an instance. One
// for an interface that is down does not where the instance is on that interface: it
// is in INIT already, and what it does when the interface is up again must not depend
// on whether the demotion has been taken back by then. The owner of a VRRP address
// would start as a backup.
func concerns(target, owner string, i config.Instance) bool {
	return target == i.Name || target == globalTarget && owner != downOwner(i.Interface) ||
		slices.ContainsFunc(i.Groups, func(g string) bool { return target == groupTarget(g) })
}

// downOwner is who demotes the node while an interface is down.
func downOwner(ifname string) string { return "interface " + ifname + " down" }

// engineOwner keeps owners of different targets apart within one engine.
func engineOwner(target, owner, name string) string {
	if target == name {
		return owner
	}
	return target + ": " + owner
}

// list returns the whole table in a stable order.
func (d *demotions) list() []api.Demotion {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := slices.Clone(d.table)
	slices.SortFunc(out, func(a, b api.Demotion) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Owner, b.Owner))
	})
	return out
}
