package main_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/vip"
)

// unguarded writes a configuration without a guardian, so that the fence is alone, and
// starts the daemon.
func (n *node) unguarded(all ...router) {
	n.t.Helper()
	text := "guardian: off\ninstances:\n"
	for _, r := range all {
		text += r.text()
	}
	n.write(text)
	n.startWith(n.command("run", "--config", n.config()))
}

// fencedPair makes a master of a and has b follow it, without guardians.
func fencedPair(t testing.TB, r router) *pair {
	t.Helper()
	p := newPair(t)
	p.a.unguarded(r.with(200))
	p.a.promote()
	p.b.unguarded(r.with(100))
	p.b.follows(p.a)
	return p
}

// asking has the client ask for an address each millisecond, and forget its neighbours
// all the time, so that it asks by ARP and neighbour discovery too.
func (p *pair) asking(t testing.TB, addr netip.Addr) *lab.Prober {
	ctx, stop := context.WithCancel(context.Background())
	var flushing sync.WaitGroup
	flushing.Go(func() {
		tick := time.NewTicker(30 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if out, err := p.client.RunErr("ip", "neigh", "flush", "dev", "eth0"); err != nil {
				t.Errorf("flush the neighbours: %v %s", err, out)
			}
			<-tick.C
		}
	})
	t.Cleanup(func() { stop(); flushing.Wait() })
	return p.client.Probe(addr)
}

// TestFencedMasterIsSilentBeforeTheBackupSpeaks is what a fence is for: a lease promises
// nothing for these groups.
func TestFencedMasterIsSilentBeforeTheBackupSpeaks(t *testing.T) {
	faults := map[string]func(*lab.Proc){
		"killed": func(p *lab.Proc) { p.Kill() },
		"frozen": func(p *lab.Proc) { p.Signal(syscall.SIGSTOP) },
	}
	groups := map[string]router{
		"300 ms":              {interval: 100 * time.Millisecond},
		"300 ms over IPv6":    {interval: 100 * time.Millisecond, addresses: []string{"2001:db8::50/64", "fe80::50/64"}},
		"300 ms, virtual MAC": {interval: 100 * time.Millisecond, more: []string{"mac: virtual"}},
		"120 ms":              {interval: 40 * time.Millisecond},
	}
	for fault, do := range faults {
		for group, r := range groups {
			t.Run(fault+"/"+group, func(t *testing.T) {
				t.Parallel()
				p := fencedPair(t, r)
				addr := shared4
				if r.addresses != nil {
					addr = shared6
				}
				if i := p.a.instance(); i.Fence == nil || !i.Fence.On || !i.Fence.Open || i.Fence.Promised != (3*r.interval >= vip.FenceFloor) {
					t.Errorf("the fence of the master: %+v", i.Fence)
				}
				if i := p.b.instance(); i.Fence == nil || !i.Fence.On || i.Fence.Open {
					t.Errorf("the fence of the backup: %+v", i.Fence)
				}
				probe := p.asking(t, addr)
				lab.Eventually(t, soon, "answers", func() bool { return probe.Answering(probe.Mark().Add(-20 * time.Millisecond)) })
				mark, began := p.wire.Len(), time.Now()
				do(p.a.proc)
				taken, ok := p.wire.WaitAfter(mark, takeover, announces("b", addr))
				if !ok {
					t.Fatal("b never took over")
				}
				after := probe.Mark()
				lab.Eventually(t, soon, "answers of b", func() bool { return probe.Answering(after) })
				// The rest of its second, in which the dead node has its address still.
				<-time.After(time.Until(taken.Time.Add(500 * time.Millisecond)))
				if !p.a.HasAddr(addr) {
					t.Error("the address is off the dead node: it was not the fence that kept it silent")
				}
				oneSpeaker(t, p.wire, addr)
				last := lastAnswer(p.wire, "a", addr)
				t.Logf("last answer %v after the fault, %v before the backup spoke", last.Sub(began), taken.Time.Sub(last))
				if !last.Before(taken.Time) {
					t.Errorf("the dead node answered %v after the backup had begun", last.Sub(taken.Time))
				}
			})
		}
	}
}

// lastAnswer is when a host last spoke for an address.
func lastAnswer(wire *lab.Capture, host string, addr netip.Addr) (last time.Time) {
	for _, f := range wire.Packets() {
		if f.Host == host && answersFor(f, addr) {
			last = f.Time
		}
	}
	return last
}

func fastRouter(more ...string) router {
	return router{interval: 100 * time.Millisecond, more: more}
}

// calm is a group that needs a fence, and does not mind a machine that is busy with other
// tests.
func calm(more ...string) router { return router{interval: 600 * time.Millisecond, more: more} }

// droppedNothing checks the counters of the fence's rules.
func (n *node) droppedNothing() {
	n.t.Helper()
	list := n.Run("nft", "list", "ruleset")
	if rules, idle := strings.Count(list, "counter packets"), strings.Count(list, "counter packets 0 "); rules == 0 || rules != idle {
		n.t.Errorf("the fence dropped something:\n%s", list)
	}
}

func TestBackupBehindItsFenceIsAClientOfTheMaster(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]router{"interface": fastRouter(), "virtual": fastRouter("mac: virtual")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := fencedPair(t, r)
			probe := p.b.Probe(shared4)
			mark := probe.Mark()
			lab.Eventually(t, soon, "an answer of the master to the backup", func() bool { return probe.Answering(mark) })
		})
	}
}

func TestFenceLeavesNothingAndTouchesNoTableOfOthers(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	rules := p.a.file("rules", "table inet theirs {\n\tchain input {\n\t\ttype filter hook input priority 0; policy accept;\n\t\ttcp dport 1 counter drop\n\t}\n}\n", 0o600)
	p.a.Run("nft", "-f", rules)
	before := p.a.Run("nft", "list", "ruleset")
	p.a.unguarded(fastRouter())
	p.a.promote()
	if during := p.a.Run("nft", "list", "ruleset"); !strings.Contains(during, strings.TrimSpace(before)) || !strings.Contains(during, "table inet carpd") {
		t.Errorf("with carpd:\n%s", during)
	}
	p.a.stop()
	if after := p.a.Run("nft", "list", "ruleset"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestForeignFlushOfTheRulesetCutsNothingAndOpensNothing(t *testing.T) {
	t.Parallel()
	p := fencedPair(t, calm())
	probe := p.client.Probe(shared4)
	mark := probe.Mark()
	lab.Eventually(t, soon, "answers", func() bool { return probe.Answering(mark) })
	mark = probe.Mark()
	p.a.Run("nft", "flush", "ruleset")
	p.b.Run("nft", "flush", "ruleset")
	lab.Eventually(t, soon, "half a second of answers", func() bool { return time.Since(mark) > 500*time.Millisecond && probe.Answering(mark) })
	p.a.droppedNothing()
	for _, n := range []*node{p.a, p.b} {
		if list := n.Run("nft", "list", "tables"); !strings.Contains(list, "table inet carpd") {
			t.Errorf("%s has %s", n.Name, list)
		}
	}
	wire := p.wire.Len()
	p.a.proc.Signal(syscall.SIGSTOP)
	if _, ok := p.wire.WaitAfter(wire, takeover, announces("b", shared4)); !ok {
		t.Fatal("b never took over")
	}
	p.b.await("MASTER")
	oneSpeaker(t, p.wire, shared4)
}

// A killed daemon leaves its addresses on and its fence closed. Who comes next removes
// both, the addresses first.
func TestKilledAndStartedAgainOpensNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.unguarded(fastRouter())
	p.a.promote()
	probe := p.asking(t, shared4)
	mark := probe.Mark()
	lab.Eventually(t, soon, "answers", func() bool { return probe.Answering(mark) })
	p.a.proc.Kill()
	<-time.After(400 * time.Millisecond) // the permit is over
	mark = probe.Mark()
	at := time.Now()
	if !p.a.HasAddr(shared4) {
		t.Error("the address is off the dead node")
	}
	p.a.unguarded(fastRouter())
	p.a.awaitLog("removed a fence that an earlier run left")
	up := p.a.addrs.await(t, at, shared4, true, takeover)
	lab.Eventually(t, soon, "answers", func() bool { return probe.Answering(mark) })
	for _, f := range p.wire.Packets() {
		if f.Host == "a" && answersFor(f, shared4) && f.Time.After(mark) && f.Time.Before(up.At) {
			t.Fatalf("the address answered at %v, and was taken on at %v", f.Time, up.At)
		}
	}
	if list := p.a.Run("nft", "list", "tables"); strings.Count(list, "table inet") != 1 {
		t.Errorf("tables:\n%s", list)
	}
}

func TestCleanupRemovesTheFenceOfADeadDaemon(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.unguarded(fastRouter("lease: off"))
	p.a.promote()
	p.a.proc.Kill()
	<-p.a.proc.Done()
	if out, code := p.a.run("cleanup"); code != 0 || !strings.Contains(out, "removed the fence carpd") || !strings.Contains(out, "192.0.2.50") {
		t.Errorf("carpd cleanup: %d %s", code, out)
	}
	if list := p.a.Run("nft", "list", "ruleset"); strings.TrimSpace(list) != "" {
		t.Errorf("left:\n%s", list)
	}
	if out, code := p.a.run("cleanup"); code != 0 || strings.Contains(out, "removed") {
		t.Errorf("carpd cleanup again: %d %s", code, out)
	}
}

// Names that are all taken are one way in which there can be no fence.
func TestWithoutAFenceTheLeaseGoesOnAndAnAlarmSaysSo(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.Run("nft", "add", "table", "inet", "carpd")
	for n := 2; n <= 16; n++ {
		p.a.Run("nft", "add", "table", "inet", fmt.Sprintf("carpd-%d", n))
	}
	p.a.unguarded(fastRouter())
	p.a.promote()
	i := p.a.instance()
	if i.Fence.On || i.Lease.Promised || i.Lease.ValidMS != 1000 || !strings.Contains(i.Lease.Note, "not promised") || !strings.Contains(i.Fence.Note, "no-fence") {
		t.Errorf("fence %+v, lease %+v", i.Fence, i.Lease)
	}
	var text string
	for _, a := range p.a.status().Alarms {
		if a.Name == "no-fence" {
			text = a.Text
		}
	}
	if !strings.Contains(text, "9@eth0") || !strings.Contains(text, "carpd-16 are taken") {
		t.Errorf("the alarm no-fence: %q", text)
	}
	p.a.stop()
	p.a.write("instances:\n" + fastRouter("fence: on").text())
	if out, code := p.a.run("run", "--config", p.a.config()); code != 1 || !strings.Contains(out, "fence: on") || !strings.Contains(out, "are taken") {
		t.Errorf("carpd run with fence: on: %d %s", code, out)
	}
}

func TestReloadOfFenceAndAddressesCutsNoLivingMaster(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.unguarded(calm())
	p.a.promote()
	probe := p.client.Probe(shared4)
	mark := probe.Mark()
	lab.Eventually(t, soon, "answers", func() bool { return probe.Answering(mark) })
	mark = probe.Mark()
	two := calm()
	two.addresses = []string{"192.0.2.50/24", "192.0.2.51/24"}
	for _, step := range []struct {
		r    router
		on   bool
		list string
	}{
		{calm("fence: off"), false, ""}, {calm("fence: on"), true, ""}, {two, true, "192.0.2.51"},
		{calm("lease: off"), true, ""}, {calm("fence: off", "lease: off"), false, ""}, {calm(), true, ""},
	} {
		p.a.write("guardian: off\ninstances:\n" + step.r.text())
		p.a.post("/v1/reload", map[string]bool{}, nil)
		i := p.a.instance()
		if i.Fence.On != step.on || i.Fence.Open != step.on || len(i.Alarms) > 0 && i.Alarms[0].Name == "reconfigure" {
			t.Errorf("after the reload with %v: %+v %+v", step.r.more, i.Fence, i.Alarms)
		}
		if list := p.a.Run("nft", "list", "ruleset"); strings.Contains(list, "192.0.2.50") != step.on || strings.Contains(list, "192.0.2.51") != (step.list != "") {
			t.Errorf("after the reload with %v:\n%s", step.r.more, list)
		}
	}
	after := probe.Mark()
	lab.Eventually(t, soon, "answers at the end", func() bool { return probe.Answering(after) })
	p.a.droppedNothing()
}

// Two instances that change addresses with each other: the fence knows one owner of each.
func TestReloadExchangesFencedAddresses(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	group := func(vrid int, address string) router {
		r := calm("fence: on")
		r.vrid, r.addresses = vrid, []string{address}
		return r
	}
	p.a.unguarded(group(9, "192.0.2.50/24"), group(10, "192.0.2.60/24"))
	up := func(vrid string) bool {
		i := p.a.named(vrid + "@eth0")
		return i.State == "MASTER" && i.Addresses[0].Present
	}
	lab.Eventually(t, soon, "both are master", func() bool { return up("9") && up("10") })
	p.a.write("guardian: off\ninstances:\n" + group(9, "192.0.2.60/24").text() + group(10, "192.0.2.50/24").text())
	p.a.post("/v1/reload", map[string]bool{}, nil)
	for name, want := range map[string]string{"9@eth0": "192.0.2.60/24", "10@eth0": "192.0.2.50/24"} {
		i := p.a.named(name)
		if len(i.Addresses) != 1 || i.Addresses[0].Prefix != want || !i.Addresses[0].Present || !i.Fence.Open || len(i.Alarms) > 0 {
			t.Errorf("%s after the reload: %+v %+v %+v", name, i.Addresses, i.Fence, i.Alarms)
		}
	}
	for _, address := range []string{"192.0.2.50", "192.0.2.60"} {
		probe := p.client.Probe(netip.MustParseAddr(address))
		mark := probe.Mark()
		lab.Eventually(t, soon, "answers of "+address, func() bool { return probe.Answering(mark) })
	}
}
