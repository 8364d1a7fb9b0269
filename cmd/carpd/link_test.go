package main_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// loses checks that a node in trouble leaves the role and its addresses, and that
// b takes over; the trouble begins with cause.
func (p *pair) loses(cause func()) {
	t := p.a.t
	t.Helper()
	at, seq := time.Now(), p.a.seq()
	cause()
	if e := p.a.awaitEvent(seq, "transition", "link-down"); e.To != "INIT" {
		t.Errorf("a went to %s", e.To)
	}
	lab.Eventually(t, soon, "the addresses of a to go", func() bool { return !p.a.HasAddr(shared4) && !p.a.HasAddr(shared6) })
	lab.Eventually(t, soon, "the status to say that the addresses are gone", func() bool {
		i := p.a.instance()
		return i.State == "INIT" && !i.Addresses[0].Present && !i.Addresses[1].Present
	})
	p.b.await("MASTER")
	taken := p.b.addrs.await(t, at, shared4, true, soon)
	if wait := taken.At.Sub(at); wait > masterDown+time.Second {
		t.Errorf("b took over %v after the link of a went", wait)
	}
	p.holdersNeverMet()
}

func (p *pair) holdersNeverMet() {
	p.a.t.Helper()
	p.oneHolder(shared4, shared6)
}

// returns checks that a node whose link works again is a backup that hears b, and
// takes nothing from it.
func (p *pair) returns(cure func()) {
	t := p.a.t
	t.Helper()
	seqA, seqB := p.a.seq(), p.b.seq()
	cure()
	if e := p.a.awaitEvent(seqA, "transition", "link-up"); e.To != "BACKUP" {
		t.Errorf("a went to %s", e.To)
	}
	lab.Eventually(t, takeover, "a to hear b", func() bool { return p.a.instance().Master != nil })
	if i := p.a.instance(); i.State != "BACKUP" {
		t.Errorf("a is %s", i.State)
	}
	if moved := p.b.transitions(seqB); len(moved) > 0 {
		t.Errorf("b moved: %+v", moved)
	}
	p.holdersNeverMet()
}

func TestMasterWhoseLinkGoesLeavesTheRoleAndComesBackAsBackup(t *testing.T) {
	for name, trouble := range map[string]struct{ begin, end func(n *node) }{
		"set down":     {func(n *node) { n.SetLink(false) }, func(n *node) { n.SetLink(true) }},
		"carrier lost": {func(n *node) { n.Unplug() }, func(n *node) { n.Plug() }},
		"deleted":      {func(n *node) { n.DeleteLink() }, func(n *node) { n.RecreateLink() }},
		"renamed": {
			func(n *node) { n.rename("eth0", "away0") },
			func(n *node) { n.rename("away0", "eth0") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.elect(settings{}, settings{})
			p.loses(func() { trouble.begin(p.a) })
			p.returns(func() { trouble.end(p.a) })
			// And it is whole: it can be master again.
			p.b.stop()
			p.a.await("MASTER")
		})
	}
}

// rename renames an interface, which older kernels allow only while it is down.
func (n *node) rename(from, to string) {
	n.t.Helper()
	n.Run("ip", "link", "set", from, "down")
	n.Run("ip", "link", "set", from, "name", to)
	n.Run("ip", "link", "set", to, "up")
}

func TestInterfaceAbsentAtStartIsUsedWhenItComes(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.DeleteLink()
	p.a.start(settings{})
	if i := p.a.await("INIT"); i.State != "INIT" {
		t.Fatalf("a is %s", i.State)
	}
	lab.Eventually(t, soon, "alarm link-down", func() bool { return p.a.alarm("link-down") != "" })
	p.a.RecreateLink()
	p.a.await("MASTER")
	asking := p.client.Probe(shared4)
	lab.Eventually(t, soon, "the client to reach the address", func() bool { return asking.Answering(time.Time{}) })
	lab.Eventually(t, soon, "the alarm to end", func() bool { return p.a.alarm("link-down") == "" })
}

// TestLostAddressIsBackWithin100ms takes addresses off by hand, and checks that
// they are back, counted and told of.
func TestLostAddressIsBackWithin100ms(t *testing.T) {
	t.Parallel()
	const limit = 100 * time.Millisecond
	p := newPair(t)
	p.a.start(settings{})
	p.a.promote()
	seq := p.a.seq()
	for _, addr := range []netip.Addr{shared4, shared6} {
		var with netip.Prefix
		for _, have := range p.a.Addrs("eth0") {
			if have.Addr() == addr {
				with = have
			}
		}
		at := time.Now()
		p.a.Run("ip", "addr", "del", with.String(), "dev", "eth0")
		gone := p.a.addrs.await(t, at, addr, false, soon)
		back := p.a.addrs.await(t, gone.At, addr, true, soon)
		if took := back.At.Sub(gone.At); took > limit {
			t.Errorf("%v was away for %v", addr, took)
		}
	}
	at := time.Now()
	p.a.Run("ip", "-4", "addr", "flush", "dev", "eth0") // as a network manager does that starts anew
	gone := p.a.addrs.await(t, at, shared4, false, soon)
	if back := p.a.addrs.await(t, gone.At, shared4, true, soon); back.At.Sub(gone.At) > limit {
		t.Errorf("%v was away for %v after a flush", shared4, back.At.Sub(gone.At))
	}
	p.a.awaitEvent(seq, "address", "restored")
	lab.Eventually(t, soon, "three restorations to be counted", func() bool { return p.a.instance().Counters.Restored >= 3 })
	if moved := p.a.transitions(seq); len(moved) > 0 {
		t.Errorf("the role moved: %+v", moved)
	}
}
