package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/vip"
)

// fencing is the fence of the daemon and its gates. The zero value is none: it is made
// when the first instance wants one.
type fencing struct {
	fence vip.Fence
	gates *vip.Gates

	waiter *link.Waiter
	stop   context.CancelFunc
	done   chan struct{}
	lost   atomic.Int64 // when somebody else last removed it, as a carp.Instant
}

// wantsFence reports whether an instance is to have a fence where there can be one:
// where its lease promises nothing, or the interface has more addresses than a lease as
// short as that bears.
func (p *plan) wantsFence() bool {
	return p.Fence == "on" || p.Fence != "off" && (!p.leased.Promised || p.crowded())
}

// crowded reports whether the addresses of carpd on the interface are too many for the
// lease that the instance has without a fence.
func (p *plan) crowded() bool { return !p.leased.Bears(p.renewal) }

// settle decides about fence and lease, given whether there can be a fence, and whether
// nobody else can remove it. A lease from the configuration is taken as it is. One that
// does not bear the addresses is of no use: there the fence alone must do, guarded or not.
func (p *plan) settle(possible, guarded bool) {
	p.fenced, p.lease = possible && p.wantsFence(), p.leased
	if p.fenced && (guarded || p.crowded()) && !p.Lease.Off && p.Lease.Valid == 0 {
		p.lease = vip.FencedLease(p.renewal)
	}
	p.addresses.Lease = p.lease
}

func (p *plan) fencePromise() vip.FencePromise { return vip.PlanFence(p.carp.FastestDown()) }

// promised reports whether a dead node is silent before a backup takes over.
func (p *plan) promised() bool { return p.lease.Promised || p.fenced && p.fencePromise().Promised }

// fenceText says what the fence does for an instance, or why there is none.
func (p *plan) fenceText() string {
	switch {
	case p.fenced:
		return "on. " + upper(p.fencePromise().Note)
	case p.Fence == "off" && !p.lease.Bears(p.renewal):
		return fmt.Sprintf("off, as configured, though it is needed: %s has so many addresses that renewing them takes some %v of each %v, and addresses will be lost.",
			p.device(), round(p.renewal), p.lease.Renew)
	case p.Fence == "off":
		return "off, as configured."
	case p.wantsFence():
		return "none: the packet filter of this machine cannot serve, see the alarm no-fence."
	}
	return "not needed: the lease keeps the promise."
}

// fenceStatus is what status says of it.
func (i *instance) fenceStatus() *api.Fence {
	p := i.plan.Load()
	f := &api.Fence{FromMS: vip.FenceFloor.Milliseconds(), Note: p.fenceText()}
	if f.On, f.Open = i.set.Fenced(); f.On {
		promise := p.fencePromise()
		f.Promised, f.ClosedMS = promise.Promised, promise.Closed.Milliseconds()
	}
	return f
}

// settle makes the fence if one of the plans wants one and there is none yet, and has
// the plans take note of what there is. It is an error that there can be none where the
// file says on; otherwise that is an alarm, and the leases go on as they can.
func (d *Daemon) settle(plans []plan) error {
	var wanted, insisting string
	for _, p := range plans {
		if p.wantsFence() {
			wanted = p.Name
		}
		if p.Fence == "on" {
			insisting = p.Name
		}
	}
	var err error
	if wanted != "" && d.fence.fence == nil {
		err = d.openFence()
	}
	if err != nil && insisting != "" {
		return fmt.Errorf("%s: fence: on: %w", insisting, err)
	}
	d.book.set(err != nil, "", "no-fence", fmt.Sprintf(
		"addresses of %s and others have no fence, and their lease alone promises nothing: a dead or frozen master may answer beside the next one for seconds, or its addresses are too many to be renewed in time. %v",
		wanted, err))
	possible, guarded := d.fence.fence != nil, d.fence.fence != nil && d.fence.fence.Guarded()
	for n := range plans {
		plans[n].settle(possible, guarded)
	}
	return disjoint(plans)
}

// disjoint checks that an address behind a gate belongs to one instance alone: the
// fence does not look at interfaces.
func disjoint(plans []plan) error {
	owner := map[netip.Addr]*plan{}
	for n := range plans {
		p := &plans[n]
		for _, a := range p.Held() {
			if a.Addr().Is6() && a.Addr().IsLinkLocalUnicast() {
				continue
			}
			if other := owner[a.Addr()]; other != nil && (p.fenced || other.fenced) {
				return fmt.Errorf("%v is an address of %s and of %s: behind a fence it can have one owner. Say fence: off in both of them", a.Addr(), other.Name, p.Name)
			}
			owner[a.Addr()] = p
		}
	}
	return nil
}

// openFence makes the fence and runs its gates, on a thread that goes before ordinary
// ones as the loop's does, where that is allowed.
func (d *Daemon) openFence() error {
	f, err := vip.OpenFence()
	if err != nil {
		return err
	}
	if !f.Guarded() {
		d.log.Warn("whoever flushes the packet filter removes the fence, which is then made anew: only from Linux 6.9 on it can be kept from that")
	}
	waiter, err := link.OpenWaiter()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	d.fence.waiter = waiter
	d.fence.fence, d.fence.stop, d.fence.done = f, stop, make(chan struct{})
	d.fence.gates = vip.NewGates(f, link.Now, d.fenceEvent)
	d.fence.gates.WaitWith(waiter)
	go func() {
		defer close(d.fence.done)
		runtime.LockOSThread() // never unlocked: the thread ends with its priority
		_ = link.RealTime()    // refused, the log says so once, of the loop
		d.fence.gates.Run(ctx)
	}()
	return nil
}

// fenceEvent notes what happens to the fence.
func (d *Daemon) fenceEvent(e vip.GatesEvent) {
	switch {
	case e.Err == nil:
		d.book.clear("", "fence")
	case errors.Is(e.Err, vip.ErrFenceLost):
		d.fence.lost.Store(int64(link.Now()))
		d.book.raise("", "fence-lost", fmt.Sprintf("%s (%v)", e.Text, e.Err))
	default:
		d.book.raise("", "fence", fmt.Sprintf("%s: %v", e.Text, e.Err))
	}
}

// fenceAlarmHold is how long the alarm stands that the fence was removed by somebody.
const fenceAlarmHold = 10 * time.Minute

// fenceAlarms ends the alarm that the fence was removed, when it has not happened again.
func (d *Daemon) fenceAlarms(now carp.Instant) {
	if at := carp.Instant(d.fence.lost.Load()); at != 0 && now.Sub(at) > fenceAlarmHold {
		d.book.clear("", "fence-lost")
	}
}

// end removes the fence, when no instance is left.
func (f *fencing) end() error {
	if f.fence == nil {
		return nil
	}
	f.stop()
	<-f.done
	return errors.Join(f.fence.Close(), f.waiter.Close())
}

// removeStaleFences removes what dead daemons left, those of other interfaces too:
// closed, it would keep ours silent. What they had behind it goes first, but for what
// an instance here holds by now.
func (d *Daemon) removeStaleFences() error {
	var held []netip.Addr
	for _, i := range d.all() {
		held = append(held, addresses(i.plan.Load().Held())...)
	}
	fences, removed, err := vip.RemoveStaleFences(d.kernel, held...)
	for _, r := range removed {
		d.log.Warn("removed an address that a dead daemon left", "interface", r.Interface, "address", r.Prefix.String())
	}
	for _, name := range fences {
		d.log.Warn("removed a fence that an earlier run left", "table", name)
	}
	return err
}
