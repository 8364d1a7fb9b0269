package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/cmd/daemon/config"
	"github.com/carpd/carpd/vip"
)

// Daemon runs the instances of one configuration file. Run runs it; the control
// socket and signals act on it from other goroutines.
type Daemon struct {
	node, stateDir, path string // fixed at start

	log        *slog.Logger
	sink       *sink
	book       *book
	demotions  demotions
	kernel     vip.Kernel
	speakers   *speakers
	clocks     *clocks
	fence      fencing
	guard      guard
	watchdog   watchdog
	lastTurn   atomic.Int64    // of the loop, as a carp.Instant
	hooksGroup *os.File        // the cgroup that hooks are started in; nil: there is none
	stopping   context.Context // ends when the daemon stops
	nudge      chan struct{}   // wakes watch
	probes     probes
	metrics    *listener
	groups     []*group     // that move together; fixed at start
	followers  atomic.Int32 // clients that follow the events
	restart    func()       // restarts the machine

	reloading sync.Mutex // held across a whole reload, and by the stop

	mu        sync.Mutex // guards what follows; never held while anything waits
	file      *config.File
	loaded    time.Time
	instances []*instance
	replicas  []*replica // in the order of the file; replaced whole
	links     map[string]*link.Interface
}

// errNoInstance is wrapped by what find returns.
var errNoInstance = errors.New("no such instance")

// start claims every link before it sends anything, removes what a dead daemon
// left, and runs the instances.
func (d *Daemon) start(plans []plan) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if err := d.settle(plans); err != nil {
		return err
	}
	if err := d.makeGroups(d.file.Together); err != nil {
		return err
	}
	var made []*instance
	for _, p := range plans {
		i, err := d.newInstance(p)
		if err != nil {
			return err
		}
		made = append(made, i)
	}
	if err := errors.Join(d.cleanUp(plans), d.removeStaleFences()); err != nil {
		return err
	}
	d.firstClocks(made)
	for _, i := range made {
		i.start()
	}
	for _, g := range d.groups {
		g.start()
	}
	d.setInstances(made)
	d.replicate(d.file)
	return nil
}

func (d *Daemon) setInstances(all []*instance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.instances = all
}

// stop lets every instance go at the same time and releases everything.
func (d *Daemon) stop() error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	var all sync.WaitGroup
	for _, i := range d.all() {
		all.Go(func() {
			i.shipped(context.Background())
			i.halt()
		})
	}
	all.Wait()
	for _, g := range d.groups {
		g.end()
	}
	d.endReplicas()
	var err error
	for _, l := range d.links {
		err = errors.Join(err, l.Close())
	}
	err = errors.Join(err, d.fence.end(), d.speakers.end(), d.kernel.Close())
	d.endGuard()
	d.watchdog.end()
	return err
}

// closeUnused closes the links of interfaces on which no vhid is left.
func (d *Daemon) closeUnused() {
	for name, l := range d.links {
		if !slices.ContainsFunc(d.all(), func(i *instance) bool { return i.plan.Load().speaksOn(name) }) {
			delete(d.links, name)
			if err := l.Close(); err != nil {
				d.log.Warn("a link was not closed well", "interface", name, "error", err)
			}
		}
	}
}

// cleanUp removes what an earlier run left on the interfaces of plans that are
// claimed and not started, whatever addresses the file named then. Where somebody
// else moves addresses, another process or a running instance of this one, only
// those of the plans are surely stale.
func (d *Daemon) cleanUp(plans []plan) error {
	var done []string
	for _, p := range plans {
		if slices.Contains(done, p.Interface) {
			continue
		}
		done = append(done, p.Interface)
		stale, devices, all := d.stale(p.Interface, plans)
		if !all && len(stale) == 0 && len(devices) == 0 {
			continue // to Cleanup, none named means all
		}
		removed, err := vip.Cleanup(d.kernel, []string{p.Interface}, stale, devices...)
		if err != nil {
			return fmt.Errorf("remove what an earlier run left on %s: %w", p.Interface, err)
		}
		for _, r := range removed {
			if r.Settings {
				d.log.Warn("restored arp_ignore and arp_announce, which an earlier run left changed", "interface", r.Interface)
				continue
			}
			if !r.Prefix.IsValid() {
				d.log.Warn("removed a virtual interface that an earlier run left", "interface", r.Interface)
				continue
			}
			d.log.Warn("removed an address that an earlier run left", "interface", r.Interface, "address", r.Prefix.String())
		}
	}
	return nil
}

// stale returns which addresses and virtual interfaces on an interface nobody can
// hold, of plans that are claimed and not started; all says that this goes for
// whatever is there.
func (d *Daemon) stale(name string, plans []plan) (addresses []netip.Prefix, devices []string, all bool) {
	here := func(p plan) bool { return p.Interface == name }
	others := slices.DeleteFunc(link.Held(), func(c link.Claim) bool {
		return c.Interface != name || slices.ContainsFunc(plans, func(p plan) bool { return p.speaksOn(name) && p.VHID == c.VHID && p.port.Kind() == c.Kind })
	})
	held := make(map[netip.Addr]bool)
	for _, i := range d.all() {
		if p := *i.plan.Load(); here(p) {
			for _, a := range p.Held() {
				held[a.Addr()] = true
			}
		}
	}
	if len(others) == 0 && len(held) == 0 {
		return nil, nil, true
	}
	for _, p := range plans {
		if here(p) {
			addresses = append(addresses, p.Held()...)
		}
		if here(p) && p.Device != "" {
			devices = append(devices, p.Device)
		}
	}
	return slices.DeleteFunc(addresses, func(a netip.Prefix) bool { return held[a.Addr()] }), devices, false
}

// find returns the instance with this name; an empty name means the only one.
func (d *Daemon) find(name string) (*instance, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name == "" && len(d.instances) == 1 {
		return d.instances[0], nil
	}
	if name == "" {
		return nil, fmt.Errorf("%w: name one of %v", errNoInstance, d.namesLocked())
	}
	for _, i := range d.instances {
		if i.name == name {
			return i, nil
		}
	}
	return nil, fmt.Errorf("%w: %q is not among %v", errNoInstance, name, d.namesLocked())
}

func (d *Daemon) namesLocked() []string {
	names := make([]string, 0, len(d.instances))
	for _, i := range d.instances {
		names = append(names, i.name)
	}
	return names
}

func (d *Daemon) all() []*instance {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.instances)
}

// demote sets one owner's demotion of a target and tells the engines concerned.
func (d *Daemon) demote(target, owner string, amount int) error {
	if err := d.demotions.set(target, owner, amount); err != nil {
		return err
	}
	for _, i := range d.all() {
		if concerns(target, owner, i.plan.Load().Instance) {
			i.speaker.Demote(engineOwner(target, owner, i.name), amount)
		}
	}
	text := fmt.Sprintf("%s demoted by %d (%s)", target, amount, owner)
	if amount == 0 {
		text = fmt.Sprintf("demotion of %s by %s taken back", target, owner)
	}
	d.book.add(api.Event{Kind: "demotion", Reason: owner, Text: text})
	return nil
}

// handover gives the role of an instance away and waits for the outcome, which
// comes by itself: the engine takes the role back if nobody else does.
func (d *Daemon) handover(ctx context.Context, i *instance) (string, error) {
	before, _ := i.speaker.Status()
	if before.State != carp.Master {
		return "", refusal{fmt.Sprintf("%s is not master here but %v", i.name, before.State), "hand over on the master: see status"}
	}
	if err := i.runner.Load().MayLeave(ctx); err != nil {
		return "", refusal{fmt.Sprintf("%s is not handed over: %v", i.name, err), "wait until the other node has everything, or mend what keeps it away; nothing was done"}
	}
	i.shipped(ctx)
	for _, r := range i.d.replicated(i.name) {
		if lacks := allLack(r.status(time.Now())); lacks != "" {
			return "", refusal{fmt.Sprintf("%s is not handed over: %s", i.name, lacks), "see carpctl status for why nothing can be shipped; to leave all the same, stop carpd here; nothing was done"}
		}
	}
	i.speaker.Resign(carp.Backup, carp.ReasonHandover)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		st, _ := i.speaker.Status()
		switch {
		case st.State == carp.Backup && st.Master.At != 0 && st.Master.At >= st.Since:
			return fmt.Sprintf("%s is handed over to %v; this node stays demoted until resume", i.name, st.Master.Address), nil
		case st.State == carp.Master && st.Reason == carp.ReasonNobodyTookOver:
			return "", refusal{fmt.Sprintf("nobody took %s over: this node is master again", i.name), "is another node of the group running, with the same passphrase and addresses?"}
		case st.State == carp.Init:
			return "", refusal{fmt.Sprintf("%s went to INIT during the handover", i.name), "its interface went down, or the daemon stops"}
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return "", fmt.Errorf("hand %s over: the outcome is not known yet: see status: %w", i.name, ctx.Err())
		case <-d.stopping.Done():
			return "", errors.New("the daemon stops")
		}
	}
}

// refusal is an error that an operator can do something about.
type refusal struct{ text, hint string }

func (r refusal) Error() string { return r.text }
