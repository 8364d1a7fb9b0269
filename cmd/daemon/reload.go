package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/cmd/daemon/config"
)

// reload reads the configuration again and makes the running daemon like it. It
// has two phases: all that can be refused is found before anything is changed.
// An instance of which nothing changed is not touched, and one that goes on keeps
// its state.
func (d *Daemon) reload(ctx context.Context, dryRun bool) (api.ReloadResult, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if d.stopping.Err() != nil {
		return api.ReloadResult{}, refusal{"the daemon stops", ""}
	}
	file, plans, err := load(d.path)
	if err != nil {
		return api.ReloadResult{}, refusal{err.Error(), "nothing was changed: mend the file and reload again"}
	}
	result := api.ReloadResult{Changes: describe(d.file.Diff(file))}
	unfinished := slices.ContainsFunc(d.all(), func(i *instance) bool { return i.unfinished.Load() })
	if dryRun || len(result.Changes) == 0 && !unfinished {
		return result, nil
	}
	if err := d.settle(plans); err != nil {
		return api.ReloadResult{}, refusal{err.Error(), "nothing was changed"}
	}
	r, err := d.prepare(file, plans)
	if err != nil {
		return api.ReloadResult{}, err
	}
	d.apply(ctx, r)
	d.replicate(file)
	if file.Listen != d.file.Listen {
		d.metrics.use(file.Listen)
	}
	d.mu.Lock()
	d.file, d.loaded = file, time.Now()
	d.mu.Unlock()
	result.Applied = true
	for _, c := range result.Changes {
		d.book.add(api.Event{Kind: "reload", Text: c})
	}
	return result, nil
}

func describe(changes []config.Change) []string {
	out := make([]string, 0, len(changes))
	for _, c := range changes {
		out = append(out, c.String())
	}
	return out
}

// reloading is a reload that nothing stands against any more.
type reloading struct {
	keep    map[*instance]plan
	fresh   []*instance
	leaving []*instance
}

// prepare matches plans with running instances, as config.Pair does, and claims the
// links of new ones. On an error nothing is changed.
func (d *Daemon) prepare(file *config.File, plans []plan) (*reloading, error) {
	if file.Control != d.file.Control || file.StateDir != d.stateDir || file.Node != d.node || file.Guardian != d.file.Guardian {
		return nil, refusal{"node, control, state_dir and guardian cannot change while carpd runs", "nothing was changed: take the change back, or restart carpd"}
	}
	if !slices.EqualFunc(file.Together, d.file.Together, config.Together.Equal) {
		return nil, refusal{"groups that move together cannot change while carpd runs", "nothing was changed: take the change back, or restart carpd"}
	}
	r := &reloading{keep: map[*instance]plan{}}
	running := d.all()
	at := config.Pair(configured(running), file.Instances)
	for n, i := range running {
		if at[n] < 0 && i.group != nil {
			return nil, refusal{fmt.Sprintf("%s cannot leave group %s while that runs", i.name, i.group.name), "nothing was changed: take the change back, or restart carpd"}
		}
		if at[n] < 0 {
			r.leaving = append(r.leaving, i)
			continue
		}
		p := plans[at[n]]
		if keys := i.plan.Load().frozen(&p); keys != "" {
			return nil, refusal{
				fmt.Sprintf("%s: %s cannot change while the instance runs", i.name, keys),
				"nothing was changed: take the change back, or remove the instance, reload, and add it again",
			}
		}
		if err := i.speaker.CheckReconfigure(p.carp); err != nil {
			return nil, refusal{fmt.Sprintf("%s: %v", i.name, err), "nothing was changed"}
		}
		p.keepDevice(i.plan.Load())
		r.keep[i] = p
	}
	for n, p := range plans {
		if slices.Contains(at, n) {
			continue
		}
		if g := d.groupOf(&p); g != nil {
			return nil, refusal{fmt.Sprintf("%s cannot join group %s while that runs", p.Name, g.name), "nothing was changed: take the change back, or restart carpd"}
		}
		i, err := d.admit(p, running)
		if err == nil {
			r.fresh = append(r.fresh, i)
		} else {
			for _, made := range r.fresh {
				made.discard()
			}
			d.closeUnused()
			return nil, refusal{err.Error(), "nothing was changed"}
		}
	}
	return r, nil
}

// admit makes an instance beside those that run, ready to run. The device of one
// that leaves is not free before it has gone.
func (d *Daemon) admit(p plan, running []*instance) (*instance, error) {
	for _, other := range running {
		if p.Device != "" && other.plan.Load().Device == p.Device {
			return nil, fmt.Errorf("%s: its virtual MAC would be on the interface %s, which %s has: remove that one, reload, and add it again",
				p.Name, p.Device, other.name)
		}
	}
	i, err := d.newInstance(p)
	if err != nil {
		return nil, err
	}
	if err := d.cleanUp([]plan{p}); err != nil {
		i.discard()
		return nil, err
	}
	return i, nil
}

// configured lists what running instances were last given.
func configured(all []*instance) []config.Instance {
	list := make([]config.Instance, len(all))
	for n, i := range all {
		list[n] = i.plan.Load().Instance
	}
	return list
}

// apply makes the changes: leaving instances first, since a new one may take over
// their addresses. Nothing in it is refused any more; what does not work at once
// is an alarm, and is tried again by the next reload.
func (d *Daemon) apply(ctx context.Context, r *reloading) {
	// A dead daemon's addresses may be given to this one, and its fence is closed.
	if err := d.removeStaleFences(); err != nil {
		d.log.Warn("what dead daemons left could not be removed", "error", err)
	}
	for _, i := range r.leaving {
		i.halt()
		d.book.forget(i.name)
		d.demotions.forget(i.name)
	}
	stay := slices.DeleteFunc(d.all(), func(i *instance) bool { return slices.Contains(r.leaving, i) })
	d.setInstances(append(stay, r.fresh...))
	d.closeUnused()
	for i, rest := range r.moving() {
		if err := i.set.Reconfigure(ctx, rest, i.plan.Load().lease); err != nil {
			d.log.Warn("an address that moves to another instance could not be let go", "instance", i.name, "error", err)
		}
	}
	for _, i := range d.all() {
		p, stays := r.keep[i]
		if !stays {
			continue
		}
		i.avoid(p.port.Avoid) // no advert from a shared address while there is another; new ports know theirs
		if same(i.plan.Load(), &p) && !i.unfinished.Load() {
			continue
		}
		err := i.reconfigure(ctx, p)
		i.unfinished.Store(err != nil)
		d.book.set(err != nil, i.name, "reconfigure", fmt.Sprintf(
			"%s does not run with all of its new configuration: %v. Reload again when that is mended.", i.name, err))
	}
	for _, i := range r.fresh {
		i.start()
	}
}

// moving returns the instances that have an address which another one is to get, each
// with what is left for it: they let go of it first, or in a circle nobody could.
func (r *reloading) moving() map[*instance][]netip.Prefix {
	getter := map[netip.Addr]*instance{}
	for i, p := range r.keep {
		old := addrSet(i.plan.Load().Held())
		for _, a := range p.Held() {
			if !old[a.Addr()] {
				getter[a.Addr()] = i
			}
		}
	}
	rest := map[*instance][]netip.Prefix{}
	for i, p := range r.keep {
		stays := addrSet(p.Held())
		goes := func(a netip.Prefix) bool { return !stays[a.Addr()] && getter[a.Addr()] != nil }
		if old := i.plan.Load().Held(); slices.ContainsFunc(old, goes) {
			rest[i] = slices.DeleteFunc(slices.Clone(old), goes)
		}
	}
	return rest
}

func addrSet(prefixes []netip.Prefix) map[netip.Addr]bool {
	set := make(map[netip.Addr]bool, len(prefixes))
	for _, p := range prefixes {
		set[p.Addr()] = true
	}
	return set
}

// same reports whether the configuration of an instance is the same in everything
// that is written in the file, its hooks included.
func same(a, b *plan) bool {
	one := config.File{Instances: []config.Instance{a.Instance}, Hooks: a.shared}
	two := config.File{Instances: []config.Instance{b.Instance}, Hooks: b.shared}
	return len(one.Diff(&two)) == 0
}
