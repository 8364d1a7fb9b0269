package daemon

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/vip"
)

// status is what carpctl status shows.
func (d *Daemon) status() api.Status {
	d.mu.Lock()
	cfg := &api.ConfigStatus{File: d.path, Loaded: d.loaded}
	instances := slices.Clone(d.instances)
	d.mu.Unlock()
	s := api.Status{
		Node: d.node, Version: version(), Replication: []any{}, Config: cfg, Instances: []api.Instance{},
		Demotions: d.demotions.list(), Alarms: d.book.standing(""), Log: &api.LogStatus{Dropped: d.sink.dropped.Load()},
	}
	for _, i := range instances {
		s.Instances = append(s.Instances, i.status())
	}
	return s
}

func (d *Daemon) knowsGroup(group string) bool {
	return slices.ContainsFunc(d.all(), func(i *instance) bool { return slices.Contains(i.plan.Load().Groups, group) })
}

func (i *instance) status() api.Instance {
	st, now := i.speaker.Status()
	p := i.plan.Load()
	out := api.Instance{
		Name: i.name, Protocol: p.Protocol, VHID: p.VHID, Interface: p.Interface,
		State: st.State.String(), Since: wall(st.Since, now), Reason: st.Reason.String(), Epoch: uint64(st.Epoch),
		AdvBase: st.AdvBase, AdvSkew: st.AdvSkew, EffectiveAdvSkew: st.EffectiveAdvSkew, Demotion: st.Demotion, Preempt: p.Preempt,
		Addresses: []api.Address{}, Hooks: []api.Hook{}, Drops: map[string]uint64{},
		Counters: api.Counters{
			Received: st.Counters.Received, Sent: st.Counters.Sent,
			SendErrors: st.Counters.SendErrors, Transitions: st.Counters.Transitions, Restored: i.restored.Load(),
		},
		Lease:  &api.Lease{ValidMS: p.lease.Valid.Milliseconds(), RenewMS: p.lease.Renew.Milliseconds(), Promised: p.lease.Promised, Note: p.lease.Note},
		Alarms: i.d.book.standing(i.name),
	}
	if st.Master.At != 0 {
		out.Master = &api.Master{
			Address: st.Master.Address.String(), AdvBase: st.Master.AdvBase, AdvSkew: st.Master.AdvSkew,
			LastHeardMS: now.Sub(st.Master.At).Milliseconds(),
		}
	}
	for _, a := range i.set.Status() {
		out.Addresses = append(out.Addresses, api.Address{Prefix: a.Prefix.String(), Present: a.Present})
	}
	for _, h := range i.runner.Load().Status() {
		out.Hooks = append(out.Hooks, api.Hook{Name: h.Name, Kind: h.Kind, Phase: h.Phase.String(), State: string(h.State), Error: h.Error})
	}
	for d, n := range st.Drops {
		out.Drops[d.String()] = n
	}
	if n := i.link.Stats().BadFrames; n > 0 {
		out.Drops[carp.DropFrame.String()] = n // of the whole interface: such a frame names no vhid
	}
	for _, owner := range slices.Sorted(maps.Keys(st.Demotions)) {
		d := api.Demotion{Owner: owner, Target: i.name, Amount: st.Demotions[owner]}
		if target, rest, ok := strings.Cut(owner, ": "); ok {
			d.Target, d.Owner = target, rest
		}
		out.Demotions = append(out.Demotions, d)
	}
	if st.RollingUntil != 0 {
		t := wall(st.RollingUntil, now)
		out.Rolling = &t
	}
	return out
}

// wall turns an instant into wall clock time, as of now.
func wall(at, now carp.Instant) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return time.Now().Add(at.Sub(now)).Truncate(time.Millisecond)
}

// explain says who is master and why, one sentence a line.
func (i *instance) explain() api.Explanation {
	st, now := i.speaker.Status()
	p := i.plan.Load()
	var lines []string
	say := func(format string, a ...any) { lines = append(lines, fmt.Sprintf(format, a...)) }
	if st.Since == 0 {
		say("%s is in INIT: its interface %s has not been up yet, or does not exist.", i.name, p.Interface)
	} else {
		say("%s is %v since %s (%v): %s.", i.name, st.State, wall(st.Since, now).Format("2006-01-02 15:04:05.000"),
			now.Sub(st.Since).Round(time.Millisecond), st.Reason.Text())
	}
	if !st.LinkUp {
		say("The interface %s is down or missing; with it up the node would be BACKUP at once.", p.Interface)
	}
	own := carp.Interval(st.AdvBase, st.EffectiveAdvSkew)
	say("This node weighs %v: advbase %d, advskew %d, with its demotion of %d an advskew of %d. Less is better.",
		own, st.AdvBase, st.AdvSkew, st.Demotion, st.EffectiveAdvSkew)
	for _, owner := range slices.Sorted(maps.Keys(st.Demotions)) {
		say("It is demoted by %d: %s.", st.Demotions[owner], owner)
	}
	i.explainOthers(say, st, now, own)
	if st.HeldUntil != 0 {
		say("After a takeover that failed it does not try again for %v.", st.HeldUntil.Sub(now).Round(time.Second))
	}
	for _, drop := range carp.Drops() {
		if n := st.Drops[drop]; n > 0 {
			last := st.Refused[drop]
			if last.At == 0 {
				say("%d packets were refused: %s.", n, drop)
				continue
			}
			say("%d packets were refused: %s. The last came from %v, %v ago.", n, drop, last.Address, now.Sub(last.At).Round(time.Millisecond))
		}
	}
	say("%s", strings.ToUpper(p.lease.Note[:1])+p.lease.Note[1:]+".")
	for _, a := range i.d.book.standing(i.name) {
		say("Alarm %s: %s", a.Name, a.Text)
	}
	return api.Explanation{Name: i.name, State: st.State.String(), Lines: lines}
}

func (i *instance) explainOthers(say func(string, ...any), st carp.Status, now carp.Instant, own time.Duration) {
	m := st.Master
	switch {
	case m.At == 0 && st.State == carp.Master:
		say("No other master has been heard lately.")
	case m.At == 0 && st.State == carp.Backup:
		say("No master is heard. This node takes the role in %v.", st.Deadline.Sub(now).Round(time.Millisecond))
	case m.At != 0:
		theirs := carp.Interval(m.AdvBase, m.AdvSkew)
		word := "worse than"
		if theirs < own {
			word = "better than"
		} else if theirs == own {
			word = "equal to"
		}
		say("The master %v was last heard %v ago. It weighs %v (advbase %d, advskew %d), which is %s this node.",
			m.Address, now.Sub(m.At).Round(time.Millisecond), theirs, m.AdvBase, m.AdvSkew, word)
		if st.State == carp.Backup && theirs > own && !i.plan.Load().Preempt {
			say("This node would be the better one, but preempt is off: it waits until the master is silent for %v.", st.MasterDown)
		}
	}
}

// addressEvent notes what the address worker met, and counts what it put back.
func (i *instance) addressEvent(e vip.Event) {
	if e.Kind == vip.EventRestored {
		i.restored.Add(1)
		i.restoredAt.Store(int64(e.At))
	}
	i.d.book.add(api.Event{Instance: i.name, Kind: "address", Reason: e.Kind.String(), Text: i.name + ": " + e.Text})
}
