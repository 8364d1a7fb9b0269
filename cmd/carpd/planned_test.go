package main_test

import (
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

// Each run is a LAN of its own: what a run costs comes from the number of addresses.
var plannedRuns = flag.Int("planned.runs", 1, "how often each planned move is made at each size")

// plannedSizes are how many addresses move. VRRP has one of them in the advert.
var plannedSizes = []int{1, 100, 1000, 5000}

// move is a way to give the role to the other node on purpose.
type move struct {
	name    string
	preempt bool
	back    bool // from b to a, the better one, which has handed over before
	do      func(*pair)
}

// moves is every planned move there is.
func moves() []move {
	return []move{
		{name: "handover", do: func(p *pair) { p.a.post("/v1/handover", map[string]string{}, nil) }},
		{name: "stop", do: func(p *pair) { p.a.proc.Signal(syscall.SIGTERM) }},
		{name: "state backup", do: func(p *pair) { p.a.post("/v1/state", api.StateRequest{State: "backup"}, nil) }},
		{name: "state master", back: true, do: func(p *pair) { p.a.post("/v1/state", api.StateRequest{State: "master"}, nil) }},
		{name: "preemption", preempt: true, back: true, do: func(p *pair) { p.a.post("/v1/resume", map[string]string{}, nil) }},
	}
}

// plannedAddresses are so many addresses; the first is the one that all tests share.
func plannedAddresses(count int) []string {
	all := []string{"192.0.2.50/24"}
	for i := 1; i < count; i++ {
		all = append(all, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}).String())
	}
	return all
}

// planned starts both nodes with so many addresses.
func (p *pair) planned(protocol string, count int, preempt bool) {
	p.a.t.Helper()
	addresses := plannedAddresses(count)
	more := []string{fmt.Sprintf("preempt: %v", preempt)}
	if protocol == "vrrp3" {
		if count > 1 {
			more = append(more, fmt.Sprintf("addresses_excluded: [%s]", strings.Join(addresses[1:], ", ")))
		}
		p.route(router{interval: time.Second}.with(200, more...), router{interval: time.Second}.with(100, more...))
		return
	}
	in := min(len(addresses), 4000) // so many have room under one signature
	if in < len(addresses) {
		more = append(more, fmt.Sprintf("addresses_excluded: [%s]", strings.Join(addresses[in:], ", ")))
	}
	p.elect(settings{addresses: addresses[:in], more: more}, settings{addresses: addresses[:in], advskew: 100, more: more})
}

// outage is what a client saw of a move.
type outage struct {
	move    string
	size    int
	longest map[string]time.Duration // by how it asks
	most    time.Duration            // for which both may have had an address, by the kernel's notes
}

func TestPlannedMoveHasNoInstantWithTwoHolders(t *testing.T) {
	if raceDetector {
		t.Skip("the daemon as it is delivered: the race detector makes it ten times slower")
	}
	for _, protocol := range []string{"carp", "vrrp3"} {
		for _, size := range plannedSizes {
			if size > 1000 && testing.Short() {
				continue
			}
			for _, m := range moves() {
				t.Run(fmt.Sprintf("%s/%d/%s", protocol, size, m.name), func(t *testing.T) {
					if size <= 1000 { // the large ones load a machine each
						t.Parallel()
					}
					var all []outage
					for range *plannedRuns {
						t.Run("", func(t *testing.T) { all = append(all, plannedMove(t, protocol, size, m)) })
					}
					t.Log(summary(all))
				})
			}
		}
	}
}

// plannedMove makes one move and watches it: by the kernel's notes on both nodes, by
// what both say on the wire, and by clients that ask each millisecond.
func plannedMove(t *testing.T, protocol string, size int, m move) outage {
	p := newPair(t)
	p.planned(protocol, size, m.preempt)
	from, to := p.a, p.b
	if m.back {
		p.a.post("/v1/handover", map[string]string{}, nil)
		p.b.await("MASTER")
		if !m.preempt {
			p.a.post("/v1/resume", map[string]string{}, nil)
		}
		from, to = to, from
		p.a.follows(p.b)
	}
	p.client.Run("ip", "route", "add", "198.18.0.0/15", "dev", "eth0")
	last := netip.MustParseAddr(strings.TrimSuffix(plannedAddresses(size)[size-1], "/24"))
	p.a.Serve(shared4)
	p.b.Serve(shared4)
	asking := map[string]*lab.Prober{
		"icmp": p.client.Probe(shared4), "udp": p.client.ProbeUDP(shared4),
		"tcp": p.client.ProbeTCP(netip.MustParseAddr("192.0.2.9"), shared4), "icmp, last address": p.client.Probe(last),
	}
	p.client.AskARP(shared4)
	if last != shared4 {
		p.client.AskARP(last)
	}
	for name, a := range asking {
		awaitAnswering(t, name, a, time.Now())
	}

	mark := time.Now()
	m.do(p)
	to.await("MASTER")
	taken := time.Now()
	for name, a := range asking {
		awaitAnswering(t, name, a, taken)
	}
	if m.name == "stop" {
		if err := from.proc.Wait(takeover); err != nil {
			t.Errorf("the end of the one that stopped: %v", err)
		}
	} else {
		from.await("BACKUP")
	}
	got := outage{move: m.name, size: size, longest: map[string]time.Duration{}}
	for name, a := range asking {
		a.Stop()
		got.longest[name], _ = a.Longest(mark)
	}
	for _, both := range p.heldByBoth() {
		if both.Sure > 0 {
			t.Errorf("%v was on %v for at least %v", both.Addr, both.Hosts, both.Sure)
			break
		}
		got.most = max(got.most, both.Most)
	}
	for _, addr := range []netip.Addr{shared4, last} {
		p.neverAgain(from, to, addr, mark)
	}
	return got
}

// neverAgain fails the test if one node spoke for an address after the other had begun
// to. All stamps are the kernel's, and clients ask each millisecond.
func (p *pair) neverAgain(from, to *node, addr netip.Addr, mark time.Time) {
	p.a.t.Helper()
	var begun time.Time
	for _, f := range p.wire.Packets() {
		switch {
		case f.Time.Before(mark) || !answersFor(f, addr):
		case f.Host == to.Name && begun.IsZero():
			begun = f.Time
		case f.Host == from.Name && !begun.IsZero():
			p.a.t.Errorf("%s spoke for %v %v after %s had begun to", from.Name, addr, f.Time.Sub(begun), to.Name)
			return
		}
	}
	if begun.IsZero() {
		p.a.t.Errorf("%s never spoke for %v", to.Name, addr)
	}
}

func awaitAnswering(t *testing.T, name string, a *lab.Prober, mark time.Time) {
	t.Helper()
	lab.Eventually(t, takeover, name+" to be answered", func() bool { return a.Answering(mark) })
}

// heldByBoth is what the kernels' notes say of addresses on both nodes at a time.
func (p *pair) heldByBoth() []lab.Together {
	var all []lab.AddrChange
	for _, n := range []*node{p.a, p.b} {
		n.addrs.mu.Lock()
		all = append(all, n.addrs.events...)
		n.addrs.mu.Unlock()
	}
	return lab.Overlaps(all, time.Now())
}

// summary gives p50 and the greatest of each kind of probe.
func summary(all []outage) string {
	if len(all) == 0 {
		return "nothing was measured"
	}
	by, most := map[string][]time.Duration{}, time.Duration(0)
	for _, o := range all {
		for name, d := range o.longest {
			by[name] = append(by[name], d)
		}
		most = max(most, o.most)
	}
	text := fmt.Sprintf("%s of %d addresses, %d runs, longest pause between answers p50/max:", all[0].move, all[0].size, len(all))
	for _, name := range []string{"icmp", "udp", "tcp", "icmp, last address"} {
		d := by[name]
		slices.Sort(d)
		text += fmt.Sprintf(" %s %.1f/%.1f ms;", name, d[len(d)/2].Seconds()*1e3, d[len(d)-1].Seconds()*1e3)
	}
	return text + fmt.Sprintf(" by the notes both may have had one for %v", most.Round(100*time.Microsecond))
}

// A node that is told to weigh less says so at once; the role stays if preempt is off,
// or if the node is the best still. Nobody who asks for the address may notice.
func TestDemotionThatMovesNothingCostsNothing(t *testing.T) {
	for name, test := range map[string]struct {
		preempt bool
		amount  int
	}{"preempt is off": {false, 200}, "still the best": {true, 50}} {
		for _, protocol := range []string{"carp", "vrrp3"} {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				t.Parallel()
				p := newPair(t)
				p.planned(protocol, 100, test.preempt)
				p.a.Serve(shared4)
				asking := map[string]*lab.Prober{
					"icmp": p.client.Probe(shared4), "udp": p.client.ProbeUDP(shared4),
					"tcp": p.client.ProbeTCP(netip.MustParseAddr("192.0.2.9"), shared4),
				}
				for name, a := range asking {
					awaitAnswering(t, name, a, time.Now())
				}
				mark, seqA, seqB := time.Now(), p.a.seq(), p.b.seq()
				before := map[string]int{}
				for name, a := range asking {
					sent, answered := a.Counts()
					before[name] = sent - answered
				}
				p.a.post("/v1/demote", api.DemoteRequest{Owner: "test", Amount: test.amount}, nil)
				said := len(adverts(p.wire, "a", 9, mark)) + len(vrrpAdverts(p.wire, "a", mark))
				lab.Eventually(t, takeover, "three more adverts", func() bool {
					return len(adverts(p.wire, "a", 9, mark))+len(vrrpAdverts(p.wire, "a", mark)) >= said+3
				})
				for name, a := range asking {
					const underWay = 5 // of those that are sent each millisecond; one that is lost counts for ever
					lab.Eventually(t, takeover, "each probe by "+name+" to be answered", func() bool {
						sent, answered := a.Counts()
						return sent-answered-before[name] <= underWay
					})
				}
				if moved := append(p.a.transitions(seqA), p.b.transitions(seqB)...); len(moved) > 0 {
					t.Errorf("the nodes moved: %+v", moved)
				}
				p.a.addrs.mu.Lock()
				defer p.a.addrs.mu.Unlock()
				for _, e := range p.a.addrs.events {
					if e.At.After(mark) && !e.On {
						t.Errorf("%v went", e.Addr)
					}
				}
			})
		}
	}
}
