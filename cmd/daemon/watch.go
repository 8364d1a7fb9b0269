package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/vip"
)

const (
	watchInterval = time.Second
	// alarmHold is how long an alarm about packets stands after the last of them.
	alarmHold = 10 * time.Second
	// alarmIntervals is how many intervals of the sender it stands if they are longer,
	// so that it does not come and go with the adverts of a slow one.
	alarmIntervals = 3
	// linkDemotion is what an interface that is down adds to all instances on others,
	// so that with preempt all of them move together (FreeBSD's
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
			if i.taken.Swap(false) {
				i.speaker.Resign(carp.Backup, carp.ReasonStalled)
			}
			st, now := i.speaker.Status()
			if st.LinkKnown { // not before the link has spoken, nor after the speaker has ended
				i.alarms(st, now)
				seen[i.plan.Load().Interface] = !st.LinkUp
			}
		}
		d.keepClocks()
		d.watchReplicas(time.Now())
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
		d.fenceAlarms(link.Now())
		maps.DeleteFunc(seen, func(_ string, is bool) bool { return !is })
		down = seen
	}
}

// wakeWatch has watch look at once. It does not wait.
func (d *Daemon) wakeWatch() {
	select {
	case d.nudge <- struct{}{}:
	default: // it is about to look anyway
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
			if h.Mark != vip.Mark && slices.Contains(p.port.Avoid, h.Prefix.Addr()) {
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
	owner := downOwner(ifname)
	if err := d.demote(globalTarget, owner, amount); err != nil {
		d.log.Warn("the demotion of the node did not change", "owner", owner, "error", err)
	}
}
