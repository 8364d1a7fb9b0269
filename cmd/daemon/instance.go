package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/vip"
)

// instance is one running virtual router: a speaker, the addresses it moves and
// the hooks that go with them. Handle is the plan in which they move.
type instance struct {
	d       *Daemon
	name    string
	plan    atomic.Pointer[plan]
	runner  atomic.Pointer[hooks.Runner]
	set     *vip.Set
	speaker *carp.Speaker

	links []attached // the client side's first; the ports are the speaker's once it runs
	side  *side

	restored   atomic.Uint64          // addresses that were lost and put back
	lapses     atomic.Uint64          // addresses taken off because the permit ran out
	tally      tally                  // of its hooks
	restoredAt atomic.Int64           // when last, as a carp.Instant
	trouble    atomic.Pointer[string] // what last failed about the addresses, until they are on again
	resources  resources
	fitness    fitness
	group      *group        // that it moves with; nil: by itself
	unfinished atomic.Bool   // the last reload did not work in all
	foreign    atomic.Bool   // an address was there before this node put it there
	saving     chan struct{} // capacity 1: held while an epoch is written
	guarded    guarded       // what the guardian knows
	taken      atomic.Bool   // the guardian has acted for this instance, which is to leave the role
	serving    serving       // when replication follows it
	left       atomic.Bool   // a mastership has ended since the last up

	stop context.CancelFunc
	done sync.WaitGroup

	// Only Handle uses these; it runs one at a time.
	holding  bool      // addresses may be up
	passed   bool      // the before-up hooks of this mastership have run, and its resources are promoted
	owing    bool      // after-down has not run since
	demoting *demotion // nil: none is under way
}

// newInstance makes an instance ready to run: its link is open and claimed, and
// nothing has been sent.
func (d *Daemon) newInstance(p plan) (*instance, error) {
	i := &instance{d: d, name: p.Name, owing: true, saving: make(chan struct{}, 1)}
	i.resources.changed, i.fitness.news = make(chan struct{}, 1), make(chan struct{}, 1)
	i.plan.Store(&p)
	if err := i.setHooks(p.steps); err != nil {
		return nil, err
	}
	p.addresses.Now, p.addresses.Observe, p.addresses.NeedPermit = link.Now, i.addressEvent, func() { i.speaker.Renew() }
	p.addresses.Place, p.addresses.GiveUp = i.guarded.place, i.giveUp
	if p.fenced {
		p.addresses.Fence = d.fence.gates
	}
	i.set = vip.New(d.kernel, p.addresses)
	p.carp.ClockOffset = wallOffset()
	p.carp.MinEpoch, p.carp.SavedClock = d.readEpoch(p.Name), d.clocks.of(p.Name)
	var err error
	if i.links, err = d.attach(p); err != nil {
		return nil, err
	}
	if err := d.newGuarded(i, &p); err != nil {
		return nil, errors.Join(err, closePorts(i.links))
	}
	if i.speaker, err = carp.NewSpeaker(p.carp, i.links[0].port, i); err != nil {
		i.guarded.ward.Close()
		return nil, errors.Join(err, closePorts(i.links))
	}
	for _, further := range i.links[1:] {
		i.speaker.Beside = append(i.speaker.Beside, further.port)
	}
	if i.group = d.groupOf(&p); i.group != nil {
		i.group.join(i)
	}
	i.side = newSide(i)
	if err := i.side.use(p.Track); err != nil {
		i.guarded.ward.Close()
		return nil, errors.Join(err, closePorts(i.links))
	}
	i.speaker.Loop, i.speaker.Observe = d.speakers.Loop, i.observe
	return i, nil
}

// start runs the instance until halt.
func (i *instance) start() {
	i.lookForForeign(carp.Init)
	ctx, stop := context.WithCancel(context.Background())
	i.stop = stop
	working, stopWork := context.WithCancel(context.Background())
	var worker sync.WaitGroup
	worker.Go(func() { i.set.Run(working) })
	worker.Go(func() { i.side.run(working) })
	worker.Go(func() { i.watchResources(working) })
	if i.plan.Load().carp.StartGate {
		worker.Go(func() { i.settleResources(working) })
	} else {
		i.resources.open.Store(true) // also when a reload brings something to look at
	}
	i.done.Go(func() {
		if err := i.speaker.Run(ctx); err != nil {
			i.d.book.raise(i.name, "ended", fmt.Sprintf("%s has ended and is not restarted: %v. Restart carpd.", i.name, err))
		}
		i.endDemotion()
		stopWork()
		worker.Wait()
	})
	for owner, amount := range i.d.demotions.of(i.plan.Load().Instance) {
		i.speaker.Demote(owner, amount)
	}
}

// discard releases an instance that was never started.
func (i *instance) discard() {
	i.guarded.ward.Close()
	i.unprobe()
	i.closeJournal()
	closePorts(i.links)
}

// unprobe gives the probes of the client side back.
func (i *instance) unprobe() {
	if err := i.side.use(nil); err != nil {
		i.d.log.Warn("a probe was not closed well", "instance", i.name, "error", err)
	}
}

// halt lets go in order and waits for the end.
func (i *instance) halt() {
	i.stop()
	i.done.Wait()
	i.guarded.ward.Close()
	i.unprobe()
	i.closeJournal()
}

// Handle moves role, addresses and hooks, in the order of the package comment.
func (i *instance) Handle(ctx context.Context, t carp.Transition) error {
	if t.To == carp.Master {
		return i.up(ctx, t)
	}
	return i.down(ctx, t)
}

// Permit implements carp.PermitHolder. Where the guardian has acted already, because
// the loop was so late, there is no permit any more: the instance leaves the role.
func (i *instance) Permit(p carp.Permit) {
	if i.guarded.ward.Permit(p) {
		i.resources.until.Store(int64(p.Until))
		i.set.Permit(p)
		return
	}
	i.taken.Store(true)
	i.d.wakeWatch()
}

// Announce implements carp.PermitHolder.
func (i *instance) Announce() { i.set.Announce() }

func (i *instance) up(ctx context.Context, t carp.Transition) error {
	i.endDemotion()
	p := i.plan.Load()
	if i.left.Swap(false) || t.From != carp.Master {
		i.anew(ctx)
	}
	i.holding, i.owing = true, true
	if p.gated() {
		if err := i.saveEpoch(ctx, t.Epoch); err != nil {
			return i.undo(ctx, t, fmt.Errorf("save the epoch, without which no gate may run: %w", err))
		}
	}
	if t.From == carp.Master && i.passed && (hasResources(p.steps) || i.group != nil) {
		switch p.OnContest {
		case "yield":
			return i.undo(ctx, t, errors.New("another master was heard, and on_contest is yield"))
		case "regate":
			i.passed = false
			if i.group != nil {
				i.group.again()
			}
		}
	}
	if !i.passed { // a contest finds them passed, unless it came while they ran
		if err := i.run(ctx, hooks.BeforeUp, t); err != nil {
			return i.undo(ctx, t, err)
		}
		i.passed = true
	}
	if i.group != nil {
		if err := i.group.up(ctx, i, t); err != nil {
			return i.undo(ctx, t, err)
		}
	}
	if err := i.set.Up(ctx, t.Epoch); err != nil {
		return i.undo(ctx, t, err)
	}
	i.serve(t.Epoch)
	i.d.book.clear(i.name, "not-served")
	i.d.book.clear(i.name, notLetGo) // it is to be held again
	if !p.gated() {
		if err := i.saveEpoch(ctx, t.Epoch); err != nil && ctx.Err() == nil { // a newer transition saves its own
			i.d.log.Warn("the epoch was not saved", "instance", i.name, "error", err)
		}
	}
	if err := i.run(ctx, hooks.AfterUp, t); err != nil {
		return i.undo(ctx, t, err)
	}
	return nil
}

// anew begins a mastership: each has its own gate, and no address before, also if the
// down between it and the last one was passed over.
func (i *instance) anew(ctx context.Context) {
	i.passed = false
	if !i.holding || i.set.Down(ctx) != nil { // what cannot be taken off is told, and gone with its lease
		return
	}
	if i.holding = false; i.group != nil {
		i.group.off(i)
	}
}

// undo takes back what a failed or cancelled up did. The error goes to the
// engine, which leaves the role unless a newer transition has come.
func (i *instance) undo(ctx context.Context, t carp.Transition, err error) error {
	if ctx.Err() != nil || errors.Is(err, vip.ErrSuperseded) {
		return errors.Join(err, carp.ErrHeld) // the newer transition continues from here
	}
	i.d.book.raise(i.name, "not-served", fmt.Sprintf("%s was elected but cannot serve, and leaves the role: %v", i.name, err))
	i.resources.until.Store(0)
	i.set.Permit(carp.Permit{})
	downErr := i.set.Down(ctx)
	i.holding, i.passed = downErr != nil, false
	if held := errors.Join(downErr, i.letGo(ctx, t)); held != nil {
		return errors.Join(err, held, carp.ErrHeld)
	}
	return err // after-down runs with the transition to BACKUP that follows
}

// giveUp leaves a mastership whose addresses are lost and cannot be put back.
func (i *instance) giveUp(epoch carp.Epoch, err error) {
	i.d.book.raise(i.name, "not-served", fmt.Sprintf("%s lost its addresses as master and cannot put them back, and leaves the role: %v", i.name, err))
	if p := i.plan.Load(); p.carp.Resources > 0 || i.group != nil {
		i.speaker.Abandon(epoch) // what it holds is let go before the bow-out
		return
	}
	i.speaker.Failed(epoch)
}

func (i *instance) down(ctx context.Context, t carp.Transition) error {
	if t.To == carp.Releasing {
		// A failed before-down hook is reported, but nothing may keep the address.
		i.run(ctx, hooks.BeforeDown, t)
	}
	i.passed = false
	i.resources.until.Store(0)
	if i.holding {
		if err := i.set.Down(ctx); err != nil {
			return errors.Join(err, i.letGo(ctx, t)) // the lease ends what is left of the addresses
		}
		i.holding = false
	}
	if t.To == carp.Releasing {
		// Adverts go on meanwhile. The bow-out comes next; after-down belongs to what follows.
		return i.letGo(ctx, t)
	}
	i.speaker.Released(t, nil)
	err := errors.Join(i.letGo(ctx, t), i.after(ctx, t))
	if t.To == carp.Backup {
		err = errors.Join(err, i.letGoLater(ctx, t))
	}
	return err
}

func (i *instance) after(ctx context.Context, t carp.Transition) error {
	if !i.owing {
		return nil
	}
	err := i.run(ctx, hooks.AfterDown, t)
	if ctx.Err() == nil {
		i.owing = false
	}
	return err
}

// event is a transition as hooks are told it.
func (i *instance) event(t carp.Transition) hooks.Event {
	p := i.plan.Load()
	return hooks.Event{
		Name: i.name, VHID: p.VHID, Interface: p.Interface, Node: p.node, NodeID: p.carp.NodeID, From: t.From, To: t.To,
		Reason: t.Reason, Peer: t.Peer, Epoch: t.Epoch, Time: time.Now(), Addresses: p.Held(),
	}
}

// run runs the hooks of one phase and carries out what a failure's policy asks
// for. Only a failure that ends the mastership comes back.
func (i *instance) run(ctx context.Context, phase hooks.Phase, t carp.Transition) error {
	err := i.runner.Load().Run(ctx, phase, i.event(t))
	var failed *hooks.StepError
	if !errors.As(err, &failed) {
		if err == nil {
			i.d.book.clear(i.name, "hook-"+phase.String())
		}
		return err
	}
	i.d.book.raise(i.name, "hook-"+phase.String(), failed.Error())
	switch failed.Policy {
	case hooks.Retreat:
		return failed
	case hooks.Demote:
		i.speaker.Demote("hook "+failed.Step, 240)
	case hooks.Reboot, hooks.StopWatchdog:
		i.d.escalate(failed.Policy)
	}
	return nil
}

// observe is told of every transition by the speaker.
func (i *instance) observe(t carp.Transition) {
	if t.To != carp.Master {
		i.cease(t.Epoch)
	}
	if t.To == carp.Releasing {
		i.set.Leave() // an up that is under way is to be over soon
	}
	if t.From == carp.Master && t.To != carp.Master {
		i.left.Store(true)
	}
	if t.Reason == carp.ReasonReleaseFailed {
		i.overdue()
	}
	e := api.Event{
		Instance: i.name, Kind: "transition", From: t.From.String(), To: t.To.String(),
		Reason: t.Reason.String(), Epoch: uint64(t.Epoch), Text: i.name + ": " + t.String(),
	}
	if t.Peer.IsValid() {
		e.Peer = t.Peer.String()
	}
	i.d.book.add(e)
	i.d.wakeWatch()
	if i.group != nil {
		i.group.observe(i, t)
	}
	select {
	case i.d.guard.news <- struct{}{}:
	default: // they are made anyway; or there is no guardian
	}
}

func (i *instance) hookResult(r hooks.Result) {
	i.tally.add(r)
	if r.Err == nil && r.Action == "" && (r.Step.Phase == hooks.BeforeUp || r.Step.Phase == hooks.AfterUp) {
		i.speaker.Demote("hook "+r.Step.Name, 0)
	}
	e := hookEvent(i.name, r)
	e.Instance = i.name
	i.d.book.add(e)
}

// hookEvent is what came of one call of a hook or resource, of an instance or group.
func hookEvent(of string, r hooks.Result) api.Event {
	what := fmt.Sprintf("hook %s (%s)", r.Step.Name, r.Step.Phase)
	if r.Action != "" {
		what = fmt.Sprintf("%s (%s, %s)", r.Step.Name, r.Step.Kind, r.Action)
	}
	if r.Err != nil {
		return api.Event{Kind: "hook", Reason: "failed", Text: fmt.Sprintf("%s: %s failed: %v", of, what, r.Err)}
	}
	return api.Event{Kind: "hook", Reason: "ok", Text: fmt.Sprintf("%s: %s done in %v", of, what, r.Duration.Round(time.Millisecond))}
}

// reconfigure changes a running instance in place.
func (i *instance) reconfigure(ctx context.Context, p plan) error {
	old := i.plan.Load()
	if err := i.setHooks(p.steps); err != nil {
		return err
	}
	if err := i.speaker.Reconfigure(p.carp); err != nil {
		return err
	}
	i.plan.Store(&p)
	i.guarded.configure(&p)
	i.regroup(old, &p)
	i.unwatch()
	if err := i.side.use(p.Track); err != nil {
		return err
	}
	i.set.Refresh(p.AnnounceRefresh)
	// The fence is up before a lease that relies on it, and goes after it.
	var gates *vip.Gates
	if p.fenced {
		gates = i.d.fence.gates
		if err := i.set.Fence(ctx, gates); err != nil {
			return err
		}
	}
	if err := i.set.Reconfigure(ctx, p.Held(), p.lease); err != nil {
		return err
	}
	return i.set.Fence(ctx, gates)
}

// regroup gives the engine the demotions of the groups that it is in now, and
// takes back those of groups and hooks that it has left.
func (i *instance) regroup(old, now *plan) {
	before, after := i.d.demotions.of(old.Instance), i.d.demotions.of(now.Instance)
	for owner := range before {
		if _, still := after[owner]; !still {
			i.speaker.Demote(owner, 0)
		}
	}
	for owner, amount := range after {
		i.speaker.Demote(owner, amount)
	}
	for _, step := range old.steps {
		if !slices.ContainsFunc(now.steps, func(s hooks.Step) bool { return s.Name == step.Name }) {
			i.speaker.Demote("hook "+step.Name, 0)
		}
	}
}
