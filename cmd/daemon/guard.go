package daemon

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/cmd/daemon/guardian"
)

const (
	// bowOutAhead is how far ahead of the group clock the bow-outs of the guardian
	// are: newer than what is sent until they are made anew, and not so far that a
	// receiver which judges by the clock (30 s) refuses what comes after them.
	bowOutAhead = 20 * time.Second
	bowOutEach  = 5 * time.Second
)

// guard is the guardian of the daemon, and what it needs. The zero value is none.
type guard struct {
	keeper *guardian.Keeper
	news   chan struct{} // capacity 1: bow-outs are to be made anew
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// openGuard prepares the guardian; instances are admitted from now on.
func (d *Daemon) openGuard(on, json bool) error {
	if !on {
		d.log.Warn("no guardian, as configured: a crash costs a master-down time")
		return nil
	}
	var err error
	if d.hooksGroup, err = guardian.MakeHooks(); err != nil {
		d.log.Warn("the hooks of a crashed daemon are not killed, but for the programs themselves: " + err.Error())
	}
	dir := ""
	if d.hooksGroup != nil {
		dir = d.hooksGroup.Name()
	}
	d.guard.news = make(chan struct{}, 1)
	d.guard.keeper, err = guardian.Open(guardian.Options{Log: d.log, JSON: json, Hooks: dir, Alarm: func(text string) {
		d.book.set(text != "", "", "guardian", text)
	}})
	if err != nil {
		guardian.RemoveHooks(d.hooksGroup)
	}
	return err
}

// startGuard starts the guardian.
func (d *Daemon) startGuard() {
	g := &d.guard
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	if g.keeper != nil {
		g.done.Go(func() { g.keeper.Run(ctx) })
		g.done.Go(func() { d.makeBowOuts(ctx) })
	}
}

// endGuard says goodbye to the guardian, when nothing is left to be guarded and
// the loop has ended.
func (d *Daemon) endGuard() {
	if d.guard.stop != nil {
		d.guard.stop()
		d.guard.done.Wait()
	}
	d.guard.keeper.Close()
	guardian.RemoveHooks(d.hooksGroup)
}

// makeBowOuts keeps the guardian's bow-outs fresh: those of every master, each few
// seconds, and after each transition. Not where resources move with the role: a bow-out
// says that they are let go, and nobody lets go of them for a dead daemon.
func (d *Daemon) makeBowOuts(ctx context.Context) {
	tick := time.NewTicker(bowOutEach)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-d.guard.news:
		}
		for _, i := range d.all() {
			if i.plan.Load().carp.Resources > 0 {
				continue
			}
			i.guarded.bowOuts(i.pack(i.speaker.BowOuts(bowOutAhead)))
		}
	}
}

// pack makes parcels of frames, as far as they can be sent.
func (i *instance) pack(frames []carp.Frame) []link.Parcel {
	var all []link.Parcel
	for _, f := range frames {
		packer, ok := i.portOf(f).(link.Packer)
		if !ok {
			continue
		}
		if p, err := packer.Pack(f); err == nil { // else the interface is down: nobody could be told there
			all = append(all, p)
		}
	}
	return all
}

// guarded is what the guardian knows of one instance.
type guarded struct {
	ward *guardian.Ward
	fail func(error) // is told why the guardian cannot be told, or nil

	mu    sync.Mutex // guards what follows
	about guardian.About
	lost  error // why it does not know where the addresses are
}

// change tells the guardian what is different now. Only the first failure of a row
// and its end are told.
func (g *guarded) change(f func(*guardian.About)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(&g.about)
	g.fail(errors.Join(g.lost, g.ward.Tell(g.about)))
}

// configure notes what follows from the configuration. A demotion only makes permits
// longer than this.
func (g *guarded) configure(p *plan) {
	down := p.carp.FastestDown()
	if !p.VRRP() && p.AdvBase > 0 {
		down = min(down, carp.FastestDown(p.AdvBase, 0))
	}
	g.change(func(a *guardian.About) {
		a.Name, a.Permit = p.Name, carp.PermitTime(down)
		a.Margin = down - a.Permit
	})
}

// place notes where the addresses may be from now on.
func (g *guarded) place(index int, prefixes []netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lost = g.ward.Place(index, prefixes)
	g.fail(g.lost)
}

// bowOuts notes what is said if the daemon dies; none are no news: the instance is
// not master, and nothing is said for it.
func (g *guarded) bowOuts(all []link.Parcel) {
	if len(all) > 0 {
		g.change(func(a *guardian.About) { a.BowOuts = all })
	}
}

// newGuarded admits an instance.
func (d *Daemon) newGuarded(i *instance, p *plan) error {
	w, err := d.guard.keeper.Admit()
	if err != nil {
		return err
	}
	i.guarded.ward, i.guarded.fail = w, func(err error) {
		d.book.set(err != nil, i.name, "unguarded", i.name+": the guardian cannot be told what it needs to act for this instance: "+textOf(err))
	}
	i.guarded.configure(p)
	return nil
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// guardianStatus is the guardian as carpctl status shows it.
func (d *Daemon) guardianStatus() *api.Guardian {
	s := d.guard.keeper.Status()
	return &api.Guardian{PID: s.PID, State: string(s.State), Restarts: s.Restarts, KillsHooks: d.guard.keeper != nil && d.hooksGroup != nil}
}
