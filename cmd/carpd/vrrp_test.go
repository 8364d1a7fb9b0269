package main_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
)

func TestTheGreatestPriorityOfThreeIsMasterAndTheNextItsSuccessor(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	c := newNode(t, p.lan, "c", "192.0.2.3/24")
	const interval = time.Second // so that 199 steps of priority are 0.8 s
	c.route(router{priority: 1, interval: interval})
	p.b.route(router{priority: 200, interval: interval})
	p.a.route(router{priority: 250, interval: interval, more: []string{"preempt: true", "preempt_grace: 2s"}})
	p.a.await("MASTER")
	p.b.follows(p.a)
	c.follows(p.a)
	if m := c.instance().Master; m.Address != "192.0.2.1" || m.Priority != 250 || m.IntervalMS != 1000 || m.Checksum != "pseudo-header" {
		t.Errorf("c follows %+v", m)
	}

	mark := p.wire.Len()
	p.a.KillAll()
	sent := vrrpAdverts(p.wire, "a", time.Time{})
	last := sent[len(sent)-1].at
	first, ok := p.wire.WaitAfter(mark, takeover, func(f lab.Frame) bool { _, ok := decodeVRRP(f, "b"); return ok })
	if !ok {
		t.Fatal("b never took over")
	}
	// RFC 9568, 6.1: three intervals and 56/256 of one.
	if silence := first.Time.Sub(last); silence < 3*interval+56*interval/256 {
		t.Errorf("b took over after %v", silence)
	}
	p.b.await("MASTER")
	c.follows(p.b)
	for _, e := range c.transitions(0) {
		if e.To == "MASTER" && e.Time.After(last) {
			t.Errorf("c moved: %+v", e)
		}
	}
}

func TestPreemptionTakesTheRoleWithNoInstantOfTwoHolders(t *testing.T) {
	for name, f := range families(false) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.b.route(f.with(100))
			p.b.promote()
			p.reaches(f.held[0])
			seq := p.b.seq()
			p.a.route(f.with(200, "preempt: true", "preempt_grace: 2s"))
			p.a.await("MASTER")
			if i := p.a.instance(); i.Reason != "preempting" {
				t.Errorf("a is master because of %s", i.Reason)
			}
			p.b.awaitEvent(seq, "transition", "better-master")
			p.b.follows(p.a)
			// The farewell of b, when its addresses are off, comes before a has them.
			first, said := vrrpAdverts(p.wire, "a", time.Time{})[0].at, vrrpAdverts(p.wire, "b", time.Time{})
			taken, ok := p.wire.WaitFor(soon, announces("a", f.held[0]))
			if last := said[len(said)-1].at; !ok || last.Before(first) || last.After(taken.Time) {
				t.Errorf("the first advert of a at %v, the last of b %v later, the address announced %v later",
					first.Format(time.StampMicro), last.Sub(first), taken.Time.Sub(first))
			}
			p.oneHolder(f.held...)
		})
	}
}

func TestWithoutPreemptTheBetterNodeWaits(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.b.route(router{priority: 100})
	p.b.promote()
	p.a.route(router{priority: 200, more: []string{"preempt: false"}})
	p.a.follows(p.b)
	now := time.Now()
	lab.Eventually(t, takeover, "ten adverts of b", func() bool { return len(vrrpAdverts(p.wire, "b", now)) > 10 })
	if n := len(vrrpAdverts(p.wire, "a", time.Time{})); n > 0 {
		t.Errorf("a sent %d adverts", n)
	}
	if out, _ := p.a.ctl("explain", "9@eth0"); !strings.Contains(out, "preempt is off") {
		t.Errorf("explain does not say why a waits:\n%s", out)
	}
}

func TestOwnerTakesTheRoleAtOnceWithoutPreempt(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.b.route(router{priority: 254, interval: 3 * time.Second})
	p.b.promote()
	at := time.Now()
	p.a.route(router{priority: 255, interval: 3 * time.Second, more: []string{"preempt: false", "preempt_grace: 2s"}})
	e := p.a.awaitEvent(0, "transition", "address-owner")
	if e.To != "MASTER" || e.Time.Sub(at) > 9*time.Second {
		t.Errorf("the owner was %s after %v", e.To, e.Time.Sub(at))
	}
	for _, moved := range p.a.transitions(0) {
		if moved.To == "BACKUP" {
			t.Errorf("the owner was BACKUP: %+v", moved)
		}
	}
	p.a.await("MASTER")
	p.b.follows(p.a)
	p.oneHolder(shared4)
}

func TestDemotionIsTakenFromThePriority(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	preempting := []string{"preempt: true", "preempt_grace: 2s"}
	p.route(router{priority: 200, more: preempting}, router{priority: 150, more: preempting})
	mark := p.wire.Len()
	if out, code := p.a.ctl("demote", "9@eth0", "60"); code != 0 {
		t.Fatalf("carpctl demote: %d %s", code, out)
	}
	if i := p.a.instance(); i.Priority != 200 || i.EffectivePriority != 140 {
		t.Errorf("priority %d, effective %d", i.Priority, i.EffectivePriority)
	}
	if _, ok := p.wire.WaitAfter(mark, soon, func(f lab.Frame) bool {
		a, ok := decodeVRRP(f, "a")
		return ok && a.Priority == 140
	}); !ok {
		t.Error("no advert says priority 140")
	}
	p.b.await("MASTER")
	p.a.follows(p.b)
	if out, code := p.a.ctl("demote", "9@eth0", "0"); code != 0 {
		t.Fatalf("carpctl demote: %d %s", code, out)
	}
	p.a.await("MASTER")
	p.b.follows(p.a)
	p.oneHolder(shared4)
}

func TestStoppedRouterSaysPriority0WhenItsAddressesAreGone(t *testing.T) {
	for name, f := range families(false) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.route(f.with(200), f.with(100))
			asking := p.reaches(f.held[0])
			mark, at := p.wire.Len(), time.Now()
			p.a.endedBy(syscall.SIGTERM)
			bow, ok := p.wire.WaitAfter(mark, soon, leaves("a"))
			if !ok {
				t.Fatal("a never said priority 0")
			}
			for _, addr := range f.held {
				if gone := p.a.addrs.await(t, at, addr, false, soon); gone.At.After(bow.Time.Add(stampSlack)) {
					t.Errorf("%v went %v after priority 0", addr, gone.At.Sub(bow.Time))
				}
			}
			if i := p.b.await("MASTER"); i.Reason != "bow-out" {
				t.Errorf("b is master because of %s", i.Reason)
			}
			p.reached(asking)
			p.silentAfter("a", bow.Time, f.held[0])
			p.oneHolder(f.held...)
		})
	}
}

func TestTheLinkLocalAddressIsTheFirstOfTheAdvert(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.route(families(false)["vrrp3 over IPv6"].router)
	p.a.promote()
	sent := vrrpAdverts(p.wire, "a", time.Time{})
	if a := sent[0]; a.Count() != 2 || a.Address(0).String() != "fe80::50" || !a.src.IsLinkLocalUnicast() || a.src.String() == "fe80::50" {
		t.Errorf("the advert from %v: %d addresses, the first %v", a.src, a.Count(), a.Address(0))
	}
}

func TestHandoverOfARouterHasNoInstantWithTwoHoldersAndLastsUntilResume(t *testing.T) {
	for name, f := range families(false) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.route(f.with(200, "preempt: true", "preempt_grace: 2s"), f.with(100, "preempt: true", "preempt_grace: 2s"))
			asking := p.client.Probe(f.held[0])
			lab.Eventually(t, soon, "the client to reach the address", func() bool { return asking.Answering(time.Time{}) })
			at := time.Now()
			if out, code := p.a.ctl("handover", p.a.instance().Name); code != 0 {
				t.Fatalf("carpctl handover: %d %s", code, out)
			}
			p.b.await("MASTER")
			now := time.Now()
			lab.Eventually(t, takeover, "four adverts of b", func() bool { return len(vrrpAdverts(p.wire, "b", now)) > 4 })
			if i := p.a.instance(); i.State != "BACKUP" || i.EffectivePriority != 1 {
				t.Errorf("a is %s with priority %d after the handover", i.State, i.EffectivePriority)
			}
			away, _ := asking.Longest(at)
			at = time.Now()
			p.a.post("/v1/resume", map[string]string{}, nil)
			p.a.await("MASTER")
			p.b.follows(p.a)
			lab.Eventually(t, soon, "the client to reach the address again", func() bool { return asking.Answering(time.Now().Add(-20 * time.Millisecond)) })
			back, _ := asking.Longest(at)
			t.Logf("the client's outage: handover %v, resume %v", away, back)
			// The skew of the successor is 156/256 of an interval. After resume the timer
			// ends when an advert of the other one is due, so that its farewell is not
			// told from that, and the whole grace is waited for.
			if away > f.interval+time.Second || back > 3*time.Second {
				t.Errorf("the client's outage: handover %v, resume %v", away, back)
			}
			p.oneHolder(f.held...)
		})
	}
}

// It counts itself as down until it has looked again; what it does at once must not
// depend on that.
func TestAnOwnerIsMasterAtOnceWhenItsInterfaceComesUp(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.SetLink(false)
	p.a.route(router{priority: 255, interval: time.Second})
	lab.Eventually(t, soon, "alarm link-down", func() bool { return p.a.alarm("link-down") != "" })
	seq := p.a.seq()
	p.a.SetLink(true)
	p.a.awaitEvent(seq, "transition", "address-owner")
	if all := p.a.transitions(seq); all[0].To != "MASTER" {
		t.Errorf("a went to %s first: %+v", all[0].To, all)
	}
}
