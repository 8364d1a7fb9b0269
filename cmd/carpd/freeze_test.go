package main_test

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/vip"
)

func TestFrozenMasterHoldsNothingAndYieldsAtOnceWhenItWakes(t *testing.T) {
	for range 3 {
		phase := rand.N(time.Second)
		t.Run(phase.Round(time.Millisecond).String(), func(t *testing.T) {
			t.Parallel()
			freezeMaster(t, phase)
		})
	}
}

// freezeMaster freezes a master at a phase of its interval of a second.
func freezeMaster(t *testing.T, phase time.Duration) {
	const frozen = 10 * time.Second
	p := newPair(t)
	p.elect(settings{}, settings{})
	began := time.Now()
	lab.Eventually(t, soon, "an advert of a", func() bool { return len(adverts(p.wire, "a", 9, began)) > 0 })
	<-time.After(phase)
	seq := p.a.seq()
	p.client.Probe(shared4)
	ctx, stop := context.WithCancel(context.Background())
	var flushing sync.WaitGroup
	flushing.Go(func() { flushNeighbours(ctx, t, p.client) })
	defer flushing.Wait()
	defer stop()

	mark, at := p.wire.Len(), time.Now()
	p.a.proc.Signal(syscall.SIGSTOP)
	taken, ok := p.wire.WaitAfter(mark, takeover, announces("b", shared4))
	if !ok {
		t.Fatal("b never took over")
	}
	for _, addr := range []netip.Addr{shared4, shared6} {
		if gone := p.a.addrs.await(t, at, addr, false, soon); !gone.At.Before(taken.Time) {
			t.Errorf("%v was still on the frozen node when b announced it", addr)
		}
	}
	<-time.After(time.Until(at.Add(frozen))) // the promise is about this very time

	woken, seqB := time.Now(), p.b.seq()
	p.a.proc.Signal(syscall.SIGCONT)
	e := p.a.awaitEvent(seq, "transition", "stalled")
	if e.To != "BACKUP" {
		t.Errorf("a went to %s", e.To)
	}
	if late := e.Time.Sub(woken); late > 900*time.Millisecond {
		t.Errorf("a yielded %v after it woke", late)
	}
	// Three more intervals: nothing comes back, nobody moves.
	lab.Eventually(t, takeover, "adverts of b", func() bool { return len(adverts(p.wire, "b", 9, woken)) > 3 })
	p.holdersNeverMet()
	for _, f := range p.wire.Packets() {
		if f.Host == "a" && f.Time.After(taken.Time) && (claims(f, shared4) || claims(f, shared6)) {
			t.Errorf("a claimed a shared address at %v, after b had announced it", f.Time.Format(time.StampMilli))
		}
	}
	if i := p.a.await("BACKUP"); i.Master == nil {
		t.Error("a follows nobody")
	}
	if moved := p.b.transitions(seqB); len(moved) > 0 {
		t.Errorf("b moved when a woke: %+v", moved)
	}
}

// A backup that was frozen for longer than the master-down time finds the master's
// adverts in its socket: it must not take over, not for an instant.
func TestFrozenBackupTakesNothingWhenItWakes(t *testing.T) {
	for _, frozen := range []time.Duration{masterDown + rand.N(time.Second), 3*masterDown + rand.N(time.Second)} {
		t.Run(frozen.Round(time.Millisecond).String(), func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.elect(settings{}, settings{})
			seq := p.b.seq()
			p.b.proc.Signal(syscall.SIGSTOP)
			<-time.After(frozen) // the promise is about this very time
			woken := time.Now()
			p.b.proc.Signal(syscall.SIGCONT)
			lab.Eventually(t, takeover, "four adverts of a", func() bool { return len(adverts(p.wire, "a", 9, woken)) >= 4 })
			if moved := p.b.transitions(seq); len(moved) > 0 {
				t.Errorf("b moved: %+v", moved)
			}
			if sent := adverts(p.wire, "b", 9, woken); len(sent) > 0 {
				t.Errorf("b sent %d adverts", len(sent))
			}
		})
	}
}

// flushNeighbours makes a client ask for its neighbours again and again.
func flushNeighbours(ctx context.Context, t testing.TB, h *lab.Host) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if out, err := h.RunErr("ip", "neigh", "flush", "dev", "eth0"); err != nil {
			t.Errorf("flush the neighbours: %v %s", err, out)
		}
	}
}

// TestHungLoopLosesItsAddressesThoughTheWorkersLive is the one test in which the
// node is made of parts, as the daemon makes it, so that its loop can be hung:
// in the call of a send.
func TestHungLoopLosesItsAddressesThoughTheWorkersLive(t *testing.T) {
	for name, lease := range map[string]vip.Lease{
		"with a lease": vip.PlanLease(carp.FastestDown(1, 0), time.Second),
		"without":      {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			a := newParts(t, p.a, lease)
			lab.Eventually(t, soon, "a to be BACKUP", func() bool { return a.state() == carp.Backup })
			a.speaker.SetState(carp.Master)
			lab.Eventually(t, soon, "a to hold the address", func() bool { return p.a.HasAddr(shared4) })
			p.b.start(settings{addresses: []string{"192.0.2.50/24"}})
			lab.Eventually(t, soon, "b to hear a", func() bool { return p.b.instance().Master != nil })

			mark := p.wire.Len()
			release := a.link.hang()
			defer release()
			hung := a.link.entered(t)
			gone := p.a.addrs.await(t, hung, shared4, false, takeover)
			taken, ok := p.wire.WaitAfter(mark, takeover, announces("b", shared4))
			if !ok {
				t.Fatal("b never took over")
			}
			if !gone.At.Before(taken.Time) {
				t.Errorf("the address went %v after b had announced it", gone.At.Sub(taken.Time))
			}
			lab.Eventually(t, takeover, "two more adverts of b", func() bool { return len(adverts(p.wire, "b", 9, taken.Time)) > 2 })

			woken, seqB := time.Now(), p.b.seq()
			release()
			lab.Eventually(t, soon, "a to yield", func() bool { return a.state() == carp.Backup })
			if tr := a.last(); tr.Reason != carp.ReasonStalled {
				t.Errorf("a yielded because of %v, want %v", tr.Reason, carp.ReasonStalled)
			}
			lab.Eventually(t, takeover, "two more adverts of b", func() bool { return len(adverts(p.wire, "b", 9, woken)) > 2 })
			if moved := p.b.transitions(seqB); len(moved) > 0 {
				t.Errorf("b moved when the loop went on: %+v", moved)
			}
			if again := p.a.addrs.all(gone.At, shared4); len(again) > 0 {
				t.Errorf("the address came back on a: %+v", again)
			}
			neverBoth(t, p.a.addrs, p.b.addrs, shared4)
		})
	}
}

// parts is a node without the daemon.
type parts struct {
	link    *hangingLink
	set     *vip.Set
	speaker *carp.Speaker

	mu   sync.Mutex
	seen []carp.Transition
}

func newParts(t *testing.T, n *node, lease vip.Lease) *parts {
	t.Helper()
	a := &parts{}
	var iface *link.Interface
	var kernel vip.Kernel
	err := n.DoErr(func() (err error) {
		if kernel, err = vip.Open(); err != nil {
			return err
		}
		if iface, err = link.Open("eth0", link.Options{}); err != nil {
			return err
		}
		port, err := iface.Attach(link.PortConfig{VHID: 9, IPv4: true, IPv6: true})
		a.link = &hangingLink{Link: port, inside: make(chan time.Time, 1)}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	a.set = vip.New(kernel, vip.Config{
		Interface: "eth0", VHID: 9, Addresses: []netip.Prefix{netip.PrefixFrom(shared4, 24)}, Lease: lease, Now: link.Now,
	})
	config := carp.Config{
		VHID: 9, AdvBase: 1, Passphrase: []byte("a secret"), Addresses: []netip.Addr{shared4}, Leased: lease.Valid > 0,
	}
	if a.speaker, err = carp.NewSpeaker(config, a.link, a); err != nil {
		t.Fatal(err)
	}
	a.speaker.Observe = func(tr carp.Transition) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.seen = append(a.seen, tr)
	}
	ctx, stop := context.WithCancel(context.Background())
	working, stopWork := context.WithCancel(context.Background())
	var loop, worker sync.WaitGroup
	worker.Go(func() { a.set.Run(working) })
	loop.Go(func() { a.speaker.Run(ctx) })
	t.Cleanup(func() {
		stop()
		loop.Wait()
		stopWork()
		worker.Wait()
		iface.Close()
		kernel.Close()
	})
	return a
}

func (a *parts) state() carp.State {
	st, _ := a.speaker.Status()
	return st.State
}

func (a *parts) last() carp.Transition {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[len(a.seen)-1]
}

// Handle implements carp.Handler as the daemon does, without hooks.
func (a *parts) Handle(ctx context.Context, tr carp.Transition) error {
	if tr.To == carp.Master {
		return a.set.Up(ctx, tr.Epoch)
	}
	return a.set.Down(ctx)
}

// Permit implements carp.PermitHolder.
func (a *parts) Permit(p carp.Permit) { a.set.Permit(p) }

// Announce implements carp.PermitHolder.
func (a *parts) Announce() { a.set.Announce() }

// hangingLink is a link whose Send can be made to block.
type hangingLink struct {
	carp.Link
	inside chan time.Time // when a Send began to hang

	mu   sync.Mutex
	gate chan struct{} // nil: open
}

// hang makes the next Send, and all after it, block until release.
func (l *hangingLink) hang() (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gate := make(chan struct{})
	l.gate = gate
	return sync.OnceFunc(func() {
		l.mu.Lock()
		l.gate = nil
		l.mu.Unlock()
		close(gate)
	})
}

// entered waits until a Send hangs and returns when it began to.
func (l *hangingLink) entered(t testing.TB) time.Time {
	t.Helper()
	select {
	case at := <-l.inside:
		return at
	case <-time.After(soon):
		t.Fatal("nothing was sent")
		return time.Time{}
	}
}

// Send implements carp.Link. The frame goes out before it hangs: one that went
// out after would be a master's word, five seconds old.
func (l *hangingLink) Send(f carp.Frame) error {
	err := l.Link.Send(f)
	l.mu.Lock()
	gate := l.gate
	l.mu.Unlock()
	if gate != nil {
		select {
		case l.inside <- time.Now():
		default: // told already
		}
		<-gate
	}
	return err
}
