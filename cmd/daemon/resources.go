package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/cmd/daemon/config"
	"github.com/carpd/carpd/hooks"
)

// resources is what an instance has for the resources and monitors among its hooks.
type resources struct {
	journal *hooks.Journal // nil: no resource was ever configured
	until   atomic.Int64   // end of the last permit, as a carp.Instant; 0: there is none
	changed chan struct{}  // capacity 1: there is another runner to watch with
	settled atomic.Bool    // what an earlier run left is let go of,
	open    atomic.Bool    // and the start gate is open
}

const (
	settleFirst = time.Second // before what is left is tried to be settled again
	settleLong  = 30 * time.Second
)

// journalFile is where it is recorded what was done to the resources of an instance.
func (d *Daemon) journalFile(name string) string {
	return d.stateFile("journal", name)
}

// setHooks makes the runner of these steps the instance's. No resource is without a
// journal, which is opened when it is settled: one that cannot be keeps this instance out
// of the election, and no other one.
func (i *instance) setHooks(steps []hooks.Step) error {
	if hasResources(steps) && i.resources.journal == nil {
		j, err := i.d.newJournal(i.name)
		if err != nil {
			return err
		}
		i.resources.journal = j
	}
	r, err := hooks.NewRunner(steps, hooks.Options{
		Log: i.d.log, Observe: i.hookResult, Cgroup: i.d.hooksGroup,
		Journal: i.resources.journal, Permit: i.mayAct, Judge: i.judged,
	})
	if err != nil {
		return err
	}
	i.runner.Store(r)
	select {
	case i.resources.changed <- struct{}{}:
	default: // it is told already
	}
	return nil
}

func (d *Daemon) newJournal(name string) (*hooks.Journal, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("which boot this is: %w", err)
	}
	path := d.journalFile(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return hooks.NewJournal(path, strings.TrimSpace(string(boot))), nil
}

// closeJournal is for an instance that has ended.
func (i *instance) closeJournal() {
	if j := i.resources.journal; j != nil {
		if err := j.Close(); err != nil {
			i.d.log.Warn("the journal was not closed well", "instance", i.name, "error", err)
		}
	}
}

func hasResources(steps []hooks.Step) bool {
	return slices.ContainsFunc(steps, func(s hooks.Step) bool { return s.Resource != nil })
}

// mayAct returns an error without a live permit: then another node may have the role.
func (i *instance) mayAct() error {
	now, until := link.Now(), carp.Instant(i.resources.until.Load())
	if now < until {
		return nil
	}
	return errors.New("the permit has ended: another node may have the role")
}

// settleResources lets go of what the last run left, and opens the start gate when each
// monitor has been looked at, too. It tries until that works: a node that does not know
// what it holds, and how fit it is, has no part in the election.
func (i *instance) settleResources(ctx context.Context) {
	for pause := settleFirst; ; pause = min(2*pause, settleLong) {
		t := carp.Transition{VHID: i.plan.Load().VHID}
		err := i.runner.Load().Settle(ctx, i.event(t))
		if i.group != nil {
			err = errors.Join(err, i.group.runner.Settle(ctx, i.group.event(t)))
		}
		if err == nil || ctx.Err() != nil {
			break
		}
		i.d.book.raise(i.name, "unsettled", fmt.Sprintf(
			"%s does not stand for election: what an earlier run left is not let go: %v. It is tried again, every %v at least.", i.name, err, settleLong))
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return
		}
	}
	i.d.book.clear(i.name, "unsettled")
	i.resources.settled.Store(true)
	i.awaitLooks(ctx)
	i.resources.open.Store(true)
	i.speaker.Ready()
}

// waitsFor says what the start gate waits for, or nothing: it is open.
func (i *instance) waitsFor() string {
	switch {
	case i.resources.open.Load():
		return ""
	case !i.resources.settled.Load():
		return "it has let go of what an earlier run left in its resources"
	}
	return "each of its monitors has been looked at once"
}

// watchResources looks at resources and monitors until ctx ends.
func (i *instance) watchResources(ctx context.Context) {
	for ctx.Err() == nil {
		var watching sync.WaitGroup
		one, stop := context.WithCancel(ctx)
		runner := i.runner.Load()
		watching.Go(func() { runner.Watch(one) })
		select {
		case <-i.resources.changed:
		case <-ctx.Done():
		}
		stop()
		watching.Wait()
	}
}

// letGo demotes the resources, those of the group first. The addresses are off.
func (i *instance) letGo(ctx context.Context, t carp.Transition) error {
	i.serve(0)
	i.rested(ctx)
	var err error
	if i.group != nil {
		err = i.group.down(ctx, i, t)
	}
	own := i.demote(ctx, t)
	for _, e := range []error{err, own} {
		if stuck, ok := errors.AsType[*hooks.StepError](e); ok {
			i.stuck(stuck.Policy, stuck.Step, stuck.Error())
		}
	}
	if err = errors.Join(err, own); err == nil {
		i.d.book.clear(i.name, notLetGo)
	}
	return err
}

// demotion is one of the instance's own resources that is under way.
type demotion struct {
	cancel context.CancelFunc
	ended  chan error // capacity 1
}

// demote waits for the demotion of the instance's own resources, which it begins unless
// one is under way: a newer transition ends the waiting alone, and if that is to leave the
// role as well, it goes on to wait.
func (i *instance) demote(ctx context.Context, t carp.Transition) error {
	if ctx.Err() != nil && i.demoting == nil {
		return ctx.Err()
	}
	if i.demoting == nil {
		working, cancel := context.WithCancel(context.Background())
		d, runner, ev := &demotion{cancel, make(chan error, 1)}, i.runner.Load(), i.event(t)
		go func() { d.ended <- runner.Demote(working, ev) }()
		i.demoting = d
	}
	select {
	case err := <-i.demoting.ended:
		i.demoting.cancel()
		i.demoting = nil
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// endDemotion cancels a demotion that is under way, and waits for its end.
func (i *instance) endDemotion() {
	if i.demoting == nil {
		return
	}
	i.demoting.cancel()
	<-i.demoting.ended
	i.demoting = nil
}

// notLetGo is the alarm that a resource is held by a node that is to have let go of it.
const notLetGo = "not-let-go"

func (i *instance) stuck(p hooks.Policy, name, why string) {
	i.d.book.raise(i.name, notLetGo, fmt.Sprintf("%s: %s is still held here, and another node may take the role: %s", i.name, name, why))
	i.d.escalate(p)
}

// overdue is told that the adverts end though not all is let go. The next master does not
// wait for what is still under way, so that it counts as what cannot be let go.
func (i *instance) overdue() {
	held := i.runner.Load().Held()
	if i.group != nil {
		held = append(held, i.group.runner.Held()...)
	}
	known := func(a api.Alarm) bool { return a.Name == notLetGo }
	if len(held) == 0 || slices.ContainsFunc(i.d.book.standing(i.name), known) {
		return // or it is known already, and what follows from it carried out
	}
	for _, s := range held {
		i.stuck(s.OnStuck, s.Name, "letting go takes longer than its release_budget")
	}
}

// letGoLater goes on to let go of what is still held, until it is or a newer transition
// comes: what kept it may be gone.
func (i *instance) letGoLater(ctx context.Context, t carp.Transition) (err error) {
	for pause := settleFirst; ctx.Err() == nil && i.holds(); pause = min(2*pause, settleLong) {
		again := time.NewTimer(pause)
		select {
		case <-again.C:
			err = i.letGo(ctx, t)
		case <-ctx.Done():
			again.Stop()
		}
	}
	return err
}

// holds reports whether a resource is promoted here, or may be.
func (i *instance) holds() bool {
	return i.runner.Load().Holds() || i.group != nil && i.group.runner.Holds()
}

// escalate is for a node that cannot let go.
func (d *Daemon) escalate(p hooks.Policy) {
	switch p {
	case hooks.Reboot:
		d.log.Error("this node restarts, since it cannot let go")
		d.restart()
	case hooks.StopWatchdog:
		d.watchdog.starve()
	}
}

// stopGrace is what a stop may take besides letting go: hooks after-down, and the end of
// what runs.
const stopGrace = 30 * time.Second

// stopBudget is how long a stop may take: all instances let go at the same time.
func (d *Daemon) stopBudget() time.Duration {
	longest := time.Duration(0)
	for _, i := range d.all() {
		longest = max(longest, i.plan.Load().carp.ReleaseBudget)
	}
	return longest + stopGrace
}

// syncTime is how long a restart waits for the disks. One that hangs may be the reason for
// it, and would be waited for for ever.
const syncTime = time.Second

// restartMachine restarts the machine as it is.
func restartMachine() {
	synced := make(chan struct{})
	go func() { unix.Sync(); close(synced) }()
	enough := time.NewTimer(syncTime)
	defer enough.Stop()
	select {
	case <-synced:
	case <-enough.C:
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // it does not return, or is not allowed: the alarm stands
}

// frozenHooks reports whether the resources of two plans differ: those of a running
// instance are in a role.
func frozenHooks(p, q *plan) bool {
	of := func(p *plan) []config.Hook {
		return slices.DeleteFunc(slices.Clone(p.entries), func(h config.Hook) bool { return h.On != "" })
	}
	return !slices.EqualFunc(of(p), of(q), config.Hook.Equal)
}

// hookStatus is what status says of the hooks.
func hookStatus(r *hooks.Runner, t *tally) []api.Hook {
	all := []api.Hook{}
	for _, h := range r.Status() {
		one := api.Hook{Name: h.Name, Kind: h.Kind, Phase: h.Place, State: string(h.State), Error: h.Error}
		c := t.of(h.Name)
		one.Runs, one.Failures, one.LastMS = c.runs, c.failures, c.last.Milliseconds()
		if !h.Seen.IsZero() {
			one.Health, one.Text, one.Blind = h.Graded.String(), h.Text, h.Blind
			one.Seen = &h.Seen
		}
		if h.Place == hooks.PlaceResource {
			one.Role, one.Wished, one.Epoch, one.Step = h.Role.String(), h.Wished.String(), uint64(h.Epoch), h.Current
			if !h.Apart.IsZero() {
				one.Apart = &h.Apart
			}
		}
		all = append(all, one)
	}
	return all
}
