package daemon

import (
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
	instances, replicas := slices.Clone(d.instances), d.replicas // which is replaced whole
	d.mu.Unlock()
	s := api.Status{
		Node: d.node, Version: version(), RealTime: d.speakers.realTime, Replication: []api.Replication{}, Config: cfg, Instances: []api.Instance{},
		Demotions: d.demotions.list(), Alarms: d.book.standing(""), Log: &api.LogStatus{Dropped: d.sink.dropped.Load()},
		Guardian: d.guardianStatus(),
	}
	for _, i := range instances {
		s.Instances = append(s.Instances, i.status())
	}
	for _, r := range replicas {
		s.Replication = append(s.Replication, r.status(time.Now()))
	}
	for _, g := range d.groups {
		s.Groups = append(s.Groups, g.status())
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
		AdvBase: st.AdvBase, AdvSkew: st.AdvSkew, Demotion: st.Demotion, Preempt: p.Preempt,
		Addresses: []api.Address{}, Hooks: []api.Hook{}, Drops: map[string]uint64{},
		Counters: api.Counters{
			Received: st.Counters.Received, Sent: st.Counters.Sent,
			SendErrors: st.Counters.SendErrors, Transitions: st.Counters.Transitions, Restored: i.restored.Load(),
			Lapses: i.lapses.Load(),
		},
		PermitMS: max(0, carp.Instant(i.resources.until.Load()).Sub(now).Milliseconds()),

		Lease:  p.leaseStatus(),
		Fence:  i.fenceStatus(),
		Alarms: i.d.book.standing(i.name),
		Seal:   i.sealStatus(p, st, now), Members: members(st, now),
	}
	if p.VRRP() {
		out.Priority, out.EffectivePriority, out.IntervalMS = st.Priority, st.EffectivePriority, st.Interval.Milliseconds()
	} else {
		out.EffectiveAdvSkew = st.EffectiveAdvSkew
	}
	_, probed := i.side.status()
	out.Paths, out.Track = pathStates(p, st, now), trackStates(probed)
	if st.Master.At != 0 {
		out.Master = masterStatus(p, st.Master, now)
	}
	for _, a := range i.set.Status() {
		out.Addresses = append(out.Addresses, api.Address{Prefix: a.Prefix.String(), Present: a.Present})
	}
	out.Hooks = hookStatus(i.runner.Load(), &i.tally)
	if grade, _, known := i.health(); known {
		out.Health = grade.String()
	}
	for d, n := range st.Drops {
		out.Drops[d.String()] = n
	}
	if n := i.links[0].on.Stats().BadFrames; n > 0 {
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

// masterStatus shows another master, in the words of the protocol.
func masterStatus(p *plan, m carp.Sighting, now carp.Instant) *api.Master {
	out := &api.Master{Address: m.Address.String(), LastHeardMS: now.Sub(m.At).Milliseconds()}
	if !p.VRRP() {
		out.AdvBase, out.AdvSkew = m.AdvBase, m.AdvSkew
		return out
	}
	out.Priority, out.IntervalMS = m.Priority, m.Interval.Milliseconds()
	if p.Checksum != "" {
		out.Checksum = m.Sum.String()
	}
	if m.Refused != carp.Accepted {
		out.Refused = m.Refused.String()
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

// addressEvent notes what the address worker met, and counts what it put back.
func (i *instance) addressEvent(e vip.Event) {
	if e.Kind == vip.EventRestored {
		i.restored.Add(1)
		i.restoredAt.Store(int64(e.At))
	}
	switch e.Kind {
	case vip.EventLapsed:
		i.lapses.Add(1)
		i.cease(e.Epoch)
	case vip.EventWithdrawn:
		i.cease(e.Epoch)
	}
	text := i.name + ": " + e.Text
	if e.Err != nil {
		text += ": " + e.Err.Error() // the cause, and with it the hint
	}
	switch e.Kind {
	case vip.EventFailed:
		if e.Err != nil && e.Epoch != 0 { // what fails before an election is told again by the Up that fails of it
			i.trouble.Store(&text)
		}
	case vip.EventUp, vip.EventRestored, vip.EventDown, vip.EventLapsed, vip.EventWithdrawn:
		i.trouble.Store(nil)
	}
	i.d.book.add(api.Event{Instance: i.name, Kind: "address", Reason: e.Kind.String(), Text: text})
}
