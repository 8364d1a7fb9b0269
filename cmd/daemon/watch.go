package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/vip"
)

const (
	watchInterval = time.Second
	// alarmHold is how long an alarm about packets stands after the last of them.
	alarmHold = 10 * time.Second
	// linkDemotion is what an interface that is down adds to the whole node, so that with preempt all of them move together (FreeBSD's
	// net.inet.carp.ifdown_demotion_factor).
	linkDemotion = 240
)

// watch looks at every instance once a second, and at once after a transition,
// beside the loops. It raises and ends the alarms that follow from what it sees,
// and demotes the rest of the node while an interface is down.
func (d *Daemon) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	down := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-d.nudge:
		}
		seen := map[string]bool{}
		for _, i := range d.all() {
			st, now := i.speaker.Status()
			if st.LinkKnown { // not before the link has spoken, nor after the speaker has ended
				i.alarms(st, now)
				seen[i.plan.Load().Interface] = !st.LinkUp
			}
		}
		for name := range down {
			if !seen[name] {
				d.linkChanged(name, 0)
			}
		}
		for name, is := range seen {
			if is && !down[name] {
				d.linkChanged(name, linkDemotion)
			}
		}
		maps.DeleteFunc(seen, func(_ string, is bool) bool { return !is })
		down = seen
	}
}

// lookForForeign raises an alarm if shared addresses are on the interface though
// this node has not put them there, and ends it when they are gone or it is master.
func (i *instance) lookForForeign(state carp.State) {
	p := i.plan.Load()
	var found []string
	if l, err := i.d.kernel.Link(p.Interface); err == nil && state != carp.Master && state != carp.Releasing {
		have, _ := i.d.kernel.Addrs(l.Index) // what cannot be listed is not there, or seen the next time
		for _, h := range have {
			if h.Mark != vip.Mark && slices.Contains(p.carp.Addresses, h.Prefix.Addr()) {
				found = append(found, h.Prefix.String())
			}
		}
	}
	i.foreign.Store(len(found) > 0)
	i.d.book.set(len(found) > 0, i.name, "foreign", fmt.Sprintf(
		"%s: %s is on %s, put there by somebody else: this node answers for it whoever is master, and loses it when it has been master. "+
			"Take it out of the network configuration; if it is the node's own, out of `addresses`.",
		i.name, strings.Join(found, ", "), p.Interface))
}

func (d *Daemon) linkChanged(ifname string, amount int) {
	owner := "interface " + ifname + " down"
	if err := d.demote(globalTarget, owner, amount); err != nil {
		d.log.Warn("the demotion of the node did not change", "owner", owner, "error", err)
	}
}

func (i *instance) alarms(st carp.Status, now carp.Instant) {
	p := i.plan.Load()
	recent := func(drop carp.Drop) bool {
		last := st.Refused[drop]
		return last.At != 0 && now.Sub(last.At) < alarmHold
	}
	b := i.d.book
	b.set(recent(carp.DropHash), i.name, "bad-hash", fmt.Sprintf(
		"%s: adverts from %v have another passphrase or address list (%d so far): two masters are likely. Compare both on all nodes.",
		i.name, st.Refused[carp.DropHash].Address, st.Drops[carp.DropHash]))
	b.set(recent(carp.DropRolling), i.name, "peer-rolling", fmt.Sprintf(
		"%s: the node at %v is changing passphrase or addresses: give this node the same ones and reload it, before the change ends there.",
		i.name, st.Refused[carp.DropRolling].Address))
	for _, drop := range []carp.Drop{carp.DropLength, carp.DropChecksum, carp.DropVersion} {
		b.set(recent(drop), i.name, "bad-"+drop.String(), fmt.Sprintf(
			"%s: packets from %v use this id and are no CARP adverts (%s): is VRRP running with vrid %d on %s, or is a link corrupting frames?",
			i.name, st.Refused[drop].Address, drop, p.VHID, p.Interface))
	}
	restored := carp.Instant(i.restoredAt.Load())
	b.set(restored != 0 && now.Sub(restored) < alarmHold, i.name, "address-lost", fmt.Sprintf(
		"%s: addresses were taken off %s by somebody else and put back, %d times so far. Find out who: a network manager, or a hand.",
		i.name, p.Interface, i.restored.Load()))
	b.set(st.RollingUntil != 0, i.name, "rolling", fmt.Sprintf(
		"%s: the old passphrase or address list is still in use beside the new one until %s. Reload all nodes before then.",
		i.name, wall(st.RollingUntil, now).Format("15:04:05")))
	b.set(st.Demotions[carp.OwnerSendErrors] != 0, i.name, "send-errors", fmt.Sprintf(
		"%s: adverts cannot be sent on %s (%d errors): the node is demoted until they can.", i.name, p.Interface, st.Counters.SendErrors))
	if i.foreign.Load() {
		i.lookForForeign(st.State)
	}
	b.set(st.State == carp.Init && !st.LinkUp, i.name, "link-down", fmt.Sprintf(
		"%s: the interface %s is down or missing.", i.name, p.Interface))
	b.set(st.State == carp.Master && now < st.ContestedUntil, i.name, "contested",
		fmt.Sprintf("%s: another master was heard; this node stayed. If it repeats, the nodes do not hear each other: look at the network between them.", i.name))
}
