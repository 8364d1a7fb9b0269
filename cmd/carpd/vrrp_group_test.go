package main_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

// threeOfOneID writes CARP, VRRP over IPv4 and VRRP over IPv6 with one number on one
// interface; the node with the lower rank is the better one of each.
func (n *node) threeOfOneID(rank int) {
	n.t.Helper()
	four, six := router{priority: 200 - rank}, router{priority: 200 - rank, addresses: []string{"2001:db8::50/64", "fe80::50/64"}}
	n.write("instances:\n" + fmt.Sprintf("  - vhid: 9\n    interface: eth0\n    name: carp\n    passphrase: a secret\n    source_mac: interface\n"+
		"    advskew: %d\n    addresses: [192.0.2.60/24]\n", rank) + four.text() + six.text())
	n.file("carpd.yaml", n.read("carpd.yaml"), 0o600) // it has a passphrase
}

func TestThreeProtocolsWithOneIDFailOverEachForItself(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	names := []string{"carp", "9@eth0", "9@eth0.vrrp6"}
	shared := []netip.Addr{shared60, shared4, shared6}
	for rank, n := range []*node{p.a, p.b} {
		n.threeOfOneID(100 * rank)
		n.startWith(n.command("run", "--config", n.config()))
		if rank == 0 {
			for _, name := range names {
				n.awaitNamed(name, "MASTER")
			}
		}
	}
	for _, name := range names {
		lab.Eventually(t, takeover, "b to follow "+name, func() bool { return p.b.named(name).Master != nil })
	}
	for i, name := range names {
		if out, code := p.a.ctl("handover", name); code != 0 {
			t.Fatalf("carpctl handover %s: %d %s", name, code, out)
		}
		for k, other := range names {
			want, holder, idle := "BACKUP", p.b, p.a
			if k > i {
				want, holder, idle = "MASTER", p.a, p.b
			}
			p.a.awaitNamed(other, want)
			lab.Eventually(t, soon, fmt.Sprint(shared[k], " to be on ", holder.Name, " alone"), func() bool {
				return holder.HasAddr(shared[k]) && !idle.HasAddr(shared[k])
			})
		}
	}
	p.oneHolder(shared...)
	for _, n := range []*node{p.a, p.b} {
		for _, i := range n.status().Instances {
			for drop, count := range i.Drops {
				if drop != "protocol" { // each sees what is the other's
					t.Errorf("%s: %s dropped %d packets as %s", n.Name, i.Name, count, drop)
				}
			}
			for _, a := range i.Alarms {
				t.Errorf("%s: alarm %s: %s", n.Name, a.Name, a.Text)
			}
		}
	}
}

func TestExcludedAddressesOfTheOtherFamilyMoveAlong(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	both := router{more: []string{`addresses_excluded: ["2001:db8::50/64", 192.0.2.60/24]`}}
	all := []netip.Addr{shared4, shared6, shared60}
	p.route(both.with(200), both.with(100))
	for _, a := range vrrpAdverts(p.wire, "a", time.Time{}) {
		if a.Count() != 1 || a.Address(0) != shared4 {
			t.Fatalf("an advert with %d addresses, the first %v", a.Count(), a.Address(0))
		}
	}
	check := func(holder, idle *node) {
		t.Helper()
		for _, addr := range all {
			if !holder.HasAddr(addr) || idle.HasAddr(addr) {
				t.Errorf("%v: on %s %v, on %s %v", addr, holder.Name, holder.HasAddr(addr), idle.Name, idle.HasAddr(addr))
			}
		}
	}
	check(p.a, p.b)
	mark := p.wire.Len()
	p.a.endedBy(syscall.SIGTERM)
	p.b.await("MASTER")
	check(p.b, p.a)
	for _, addr := range all {
		if _, ok := p.wire.WaitAfter(mark, soon, announces("b", addr)); !ok {
			t.Errorf("b never announced %v", addr)
		}
	}
	p.oneHolder(all...)
}

func TestReloadOfAPriorityMovesTheRole(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	preempting := router{more: []string{"preempt: true", "preempt_grace: 2s"}}
	p.route(preempting.with(200), preempting.with(100))
	if r := p.b.reroute(preempting.with(250)); !r.Applied || !strings.Contains(strings.Join(r.Changes, "\n"), "priority") {
		t.Errorf("the reload: %+v", r)
	}
	p.b.await("MASTER")
	p.a.follows(p.b)
	p.oneHolder(shared4)
}

func TestReloadOfIntervalAndAddressesLosesNothing(t *testing.T) {
	changed := []string{"192.0.2.50/24", "192.0.2.60/24"}
	for order, masterFirst := range map[string]bool{"master first": true, "backup first": false} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.route(router{priority: 200, more: []string{"preempt: true"}}, router{priority: 100, more: []string{"preempt: true"}})
			at, seqA, seqB := time.Now(), p.a.seq(), p.b.seq()
			next := router{interval: time.Second, addresses: changed, more: []string{"preempt: true"}}
			nodes, priorities := []*node{p.a, p.b}, []int{200, 100}
			if !masterFirst {
				nodes, priorities = []*node{p.b, p.a}, []int{100, 200}
			}
			for i, n := range nodes {
				if r := n.reroute(next.with(priorities[i])); !r.Applied {
					t.Errorf("%s: %+v", n.Name, r)
				}
				// Five seconds, more than any master-down time, lie between the nodes.
				<-time.After(5 * time.Second)
			}
			for n, seq := range map[*node]uint64{p.a: seqA, p.b: seqB} {
				if moved := n.transitions(seq); len(moved) > 0 {
					t.Errorf("%s moved: %+v", n.Name, moved)
				}
			}
			if i := p.b.instance(); i.Master == nil || i.Master.IntervalMS != 1000 || i.Master.Refused != "" {
				t.Errorf("b follows %+v", i.Master)
			}
			for _, e := range p.a.addrs.all(at, shared4) {
				if !e.On {
					t.Errorf("%v went off at %v", e.Addr, e.At)
				}
			}
			if !p.a.HasAddr(shared60) {
				t.Error("the new address is not on")
			}
			if n := len(vrrpAdverts(p.wire, "b", at)); n > 0 {
				t.Errorf("b sent %d adverts", n)
			}
		})
	}
}

func TestIncompatiblePeerMakesNoSecondMasterAndIsAnAlarmThatSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		a, b router
		drop string
		says string // in the explanation
	}{
		"addresses": {router{}, router{addresses: []string{"192.0.2.50/24", "192.0.2.60/24"}}, "addresses", "list of addresses"},
		"version":   {router{interval: time.Second}, router{protocol: "vrrp2", interval: time.Second}, "version", "another version"},
		"password": {
			router{protocol: "vrrp2", interval: time.Second, more: []string{"passphrase: one"}},
			router{protocol: "vrrp2", interval: time.Second, more: []string{"passphrase: two"}}, "auth", "password",
		},
		"interval": {
			router{protocol: "vrrp2", interval: time.Second}, router{protocol: "vrrp2", interval: 2 * time.Second}, "interval", "version 2 wants them equal",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.a.route(c.a.with(100))
			p.a.promote()
			p.b.route(c.b.with(200, "preempt: true")) // better, and yet not to take over
			lab.Eventually(t, takeover, "the alarm", func() bool { return p.b.alarm("incompatible-peer") != "" })
			now := time.Now()
			lab.Eventually(t, takeover, "four more adverts of a", func() bool { return len(vrrpAdverts(p.wire, "a", now)) > 3 })
			if n := len(vrrpAdverts(p.wire, "b", time.Time{})); n > 0 {
				t.Errorf("b sent %d adverts", n)
			}
			i := p.b.instance()
			if i.State != "BACKUP" || i.Drops[c.drop] == 0 || i.Master == nil || i.Master.Refused != c.drop {
				t.Errorf("b is %s, hears %+v, drops %v", i.State, i.Master, i.Drops)
			}
			for _, args := range [][]string{{"explain", i.Name}, {"status"}} {
				if out, code := p.b.ctl(args...); code != 0 || !strings.Contains(out, "incompatible") {
					t.Errorf("carpctl %v: %d\n%s", args, code, out)
				}
			}
			if out, _ := p.b.ctl("explain", i.Name); !strings.Contains(out, c.says) {
				t.Errorf("the explanation does not say %q:\n%s", c.says, out)
			}
			if e := p.b.awaitEvent(0, "alarm", "incompatible-peer"); !strings.Contains(e.Text, "192.0.2.1 is alive") {
				t.Errorf("the event: %+v", e)
			}
			p.a.KillAll() // silent, it is missed as any other
			p.b.await("MASTER")
		})
	}
}

// instances255 is every number there is on one interface.
func instances255(priority int) (all []router, shared []netip.Addr) {
	for id := 1; id <= 255; id++ {
		addr := netip.AddrFrom4([4]byte{198, 51, 100, byte(id)})
		shared = append(shared, addr)
		all = append(all, router{vrid: id, priority: priority, interval: 100 * time.Millisecond, addresses: []string{addr.String()}})
	}
	return all, shared
}

// It is not parallel: 5000 adverts a second are sent and heard.
func Test255RoutersOfAFileStartElectFailOverAndStop(t *testing.T) {
	p := newPair(t)
	best, shared := instances255(200)
	rest, _ := instances255(100)
	// Each at some time, not all at one time: on a busy machine some stand still for
	// longer than 300 ms, and begin anew.
	all := func(n *node, state string) {
		t.Helper()
		been := map[string]bool{}
		lab.Eventually(t, 30*time.Second, fmt.Sprintf("%s to be %s in all", n.Name, state), func() bool {
			for _, i := range n.status().Instances {
				if i.State == state && (state == "MASTER" && holdsAll(i) || state == "BACKUP" && i.Master != nil) {
					been[i.Name] = true
				}
			}
			return len(been) == 255
		})
	}
	start := func(n *node, all []router) {
		n.routers(all...)
		n.startWith(exec.Command(program(t, delivered), "run", "--config", n.config()))
	}
	start(p.a, best)
	all(p.a, "MASTER")
	start(p.b, rest)
	all(p.b, "BACKUP")
	at := time.Now()
	p.a.stop()
	t.Logf("a stopped in %v", time.Since(at))
	all(p.b, "MASTER")
	t.Logf("b was master of all %v after a was told to stop", time.Since(at))
	left, missing := map[byte]bool{}, 0
	for _, a := range vrrpAdverts(p.wire, "a", at) {
		left[a.VRID] = left[a.VRID] || a.Leaves()
	}
	for id := 1; id <= 255; id++ {
		if !left[byte(id)] {
			missing++
		}
	}
	if missing > 50 { // who is not master at this very time has nothing to say
		t.Errorf("of %d vrids a never said priority 0", missing)
	}
	p.b.stop()
	for _, addr := range shared {
		if p.a.HasAddr(addr) || p.b.HasAddr(addr) {
			t.Errorf("%v was left behind", addr)
		}
	}
	var st api.Status
	if _, err := p.b.try("GET", "/v1/status", nil, &st); err == nil {
		t.Error("b answers still")
	}
}
