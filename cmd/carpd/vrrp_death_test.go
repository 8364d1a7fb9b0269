package main_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
)

func TestKilledRouterHasNoAddressWhenTheBackupAnnouncesIt(t *testing.T) {
	for name, f := range families(true) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.route(f.with(200), f.with(254)) // no backup takes over sooner
			for _, n := range []*node{p.a, p.b} {
				if l := n.instance().Lease; !l.Promised || l.ValidMS != 1000 {
					t.Errorf("the lease on %s: %+v", n.Name, l)
				}
			}
			mark, at := p.wire.Len(), time.Now()
			p.a.KillAll()
			for _, addr := range f.held {
				gone := p.a.addrs.await(t, at, addr, false, takeover)
				said, ok := p.wire.WaitAfter(mark, takeover, announces("b", addr))
				if !ok {
					t.Fatalf("b never announced %v", addr)
				}
				t.Logf("%v was gone after %v, announced after %v", addr, gone.At.Sub(at), said.Time.Sub(at))
				if !gone.At.Before(said.Time) {
					t.Errorf("%v was on the dead node when b announced it", addr)
				}
			}
			p.oneHolder(f.held...)
		})
	}
}

func TestLeaseOfAFastRouterWithoutAFencePromisesNothingAndSaysSo(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.route(router{interval: 100 * time.Millisecond, more: []string{"fence: off"}})
	p.a.await("BACKUP")
	if l := p.a.instance().Lease; l.Promised || l.ValidMS != 1000 || !strings.Contains(l.Note, "not promised") {
		t.Errorf("the lease: %+v", l)
	}
	for _, args := range [][]string{{"explain", "9@eth0"}, {"status", "--json"}} {
		if out, code := p.a.ctl(args...); code != 0 || !strings.Contains(strings.ToLower(out), "not promised") {
			t.Errorf("carpctl %v: %d\n%s", args, code, out)
		}
	}
	if out, code := p.a.run("check", "--config", p.a.config()); code != 0 || !strings.Contains(strings.ToLower(out), "not promised") {
		t.Errorf("carpd check: %d %s", code, out)
	}
}

func TestFrozenRouterHoldsNothingAndYieldsAtOnceWhenItWakes(t *testing.T) {
	for name, f := range families(true) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.route(f.with(200, "preempt: true"), f.with(100))
			seq := p.a.seq()
			mark, at := p.wire.Len(), time.Now()
			p.a.proc.Signal(syscall.SIGSTOP)
			taken, ok := p.wire.WaitAfter(mark, takeover, announces("b", f.held[0]))
			if !ok {
				t.Fatal("b never took over")
			}
			if gone := p.a.addrs.await(t, at, f.held[0], false, soon); !gone.At.Before(taken.Time) {
				t.Error("the address was still on the frozen node when b announced it")
			}
			p.b.await("MASTER")
			woken := time.Now()
			p.a.proc.Signal(syscall.SIGCONT)
			if e := p.a.awaitEvent(seq, "transition", "stalled"); e.To != "BACKUP" {
				t.Errorf("a went to %s", e.To)
			}
			// Better and preempting, it takes the role as one that has just come: after
			// its master-down time.
			back := p.a.addrs.await(t, woken, f.held[0], true, takeover)
			if wait := back.At.Sub(woken); wait < 3*time.Second {
				t.Errorf("a had the address again %v after it woke", wait)
			}
			p.a.await("MASTER")
			for _, sent := range p.wire.Packets() {
				if sent.Host == "a" && sent.Time.After(taken.Time) && sent.Time.Before(back.At.Add(-time.Second)) && claims(sent, f.held[0]) {
					t.Errorf("a claimed the address at %v, when b had it", sent.Time.Format(time.StampMilli))
				}
			}
		})
	}
}

// What a frozen node with a short interval holds is not promised, but when it wakes it
// lets go.
func TestFrozenFastRouterLetsGoWhenItWakes(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	fast := router{interval: 100 * time.Millisecond, more: []string{"preempt: false"}}
	p.route(fast.with(200), fast.with(100))
	seq := p.a.seq()
	p.a.proc.Signal(syscall.SIGSTOP)
	p.b.await("MASTER")
	woken := time.Now()
	p.a.proc.Signal(syscall.SIGCONT)
	if e := p.a.awaitEvent(seq, "transition", "stalled"); e.To != "BACKUP" || e.Time.Sub(woken) > time.Second {
		t.Errorf("a went to %s %v after it woke", e.To, e.Time.Sub(woken))
	}
	lab.Eventually(t, soon, "one holder", func() bool { return p.a.HasAddr(shared4) != p.b.HasAddr(shared4) })
}
