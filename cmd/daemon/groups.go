package daemon

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/cmd/daemon/config"
	"github.com/carpd/carpd/hooks"
)

// group is a running band: its resources' journal, and what runs beside it.
type group struct {
	*band
	d       *Daemon
	plan    config.Together
	journal *hooks.Journal
	stop    context.CancelFunc
	done    sync.WaitGroup
	tally   tally
	steps   []hooks.Step // which it never changes
}

// makeGroups makes the groups that move together, empty.
func (d *Daemon) makeGroups(all []config.Together) error {
	for _, t := range all {
		g, err := d.newGroup(t)
		if err != nil {
			return err
		}
		d.groups = append(d.groups, g)
	}
	return nil
}

func (d *Daemon) newGroup(t config.Together) (*group, error) {
	g := &group{d: d, plan: t}
	var steps []hooks.Step
	var faults error
	for _, h := range t.Hooks {
		step, err := newStep(h)
		faults = errors.Join(faults, err)
		steps = append(steps, step)
	}
	if faults != nil {
		return nil, faults
	}
	if hasResources(steps) {
		var err error
		if g.journal, err = d.newJournal(groupTarget(t.Name)); err != nil {
			return nil, err
		}
	}
	runner, err := hooks.NewRunner(steps, hooks.Options{
		Log: d.log, Observe: g.result, Cgroup: d.hooksGroup, Journal: g.journal,
		Permit: func() error { return g.mayAct() }, Judge: g.judged,
	})
	if err != nil {
		return nil, err
	}
	g.band, g.steps = newBand(t.Name, runner, g.event), steps
	return g, nil
}

// groupOf returns the group that a plan moves with, or nil.
func (d *Daemon) groupOf(p *plan) *group {
	for _, g := range d.groups {
		if slices.Contains(p.Groups, g.plan.Name) {
			return g
		}
	}
	return nil
}

// start runs what goes on beside the members.
func (g *group) start() {
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	g.done.Go(func() { g.run(ctx) })
	g.done.Go(func() { g.runner.Watch(ctx) })
}

// end is called when all members have ended.
func (g *group) end() {
	if g.stop != nil {
		g.stop()
		g.done.Wait()
	}
	if g.journal == nil {
		return
	}
	if err := g.journal.Close(); err != nil {
		g.d.log.Warn("the journal was not closed well", "group", g.name, "error", err)
	}
}

// event is a transition of a member as the resources of the group are told it: with the
// addresses of all.
func (g *group) event(t carp.Transition) hooks.Event {
	ev := hooks.Event{
		Name: "group:" + g.name, VHID: t.VHID, Node: g.d.node, From: t.From, To: t.To, Reason: t.Reason,
		Peer: t.Peer, Epoch: t.Epoch, Time: time.Now(), Addresses: []netip.Prefix{},
	}
	for _, i := range g.instances() {
		p := i.plan.Load()
		ev.Addresses = append(ev.Addresses, p.Held()...)
		if p.VHID == t.VHID {
			ev.Interface, ev.NodeID = p.Interface, p.carp.NodeID
		}
	}
	return ev
}

func (g *group) instances() (all []*instance) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.members {
		all = append(all, s.member.(*instance))
	}
	return all
}

func (g *group) result(r hooks.Result) {
	g.tally.add(r)
	g.d.book.add(hookEvent("group "+g.name, r))
}

func (g *group) judged(v hooks.Verdict) {
	for _, i := range g.instances() {
		i.judge(g.stepName(v.Step.Name), v)
	}
}

// status is what status says of it.
func (g *group) status() api.Group {
	out := api.Group{Name: g.name, Hooks: hookStatus(g.runner, &g.tally)}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.members {
		out.Members = append(out.Members, s.label())
	}
	switch {
	case g.moving != "":
		out.State = string(g.moving)
	case g.moved && g.whole():
		out.State = "up"
	case slices.ContainsFunc(g.members, func(s *standing) bool { return s.ready }):
		out.State = "waiting"
		out.Missing = g.missing()
	default:
		out.State = "down"
	}
	return out
}

// movingWith lists the instances that move with this one, itself among them.
func (i *instance) movingWith() []*instance {
	if i.group == nil {
		return []*instance{i}
	}
	return i.group.instances()
}

// label implements member.
func (i *instance) label() string { return i.name }

// resign implements member.
func (i *instance) resign(why carp.Reason) { i.speaker.Resign(carp.Backup, why) }

// demoteBy implements member.
func (i *instance) demoteBy(owner string, amount int) { i.speaker.Demote(owner, amount) }
