package peers_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

// form is one of the ways to speak VRRP.
type form struct {
	name     string
	version  uint8
	addrs    []netip.Prefix
	interval time.Duration
	unicast  bool
}

// forms lists the ways that a program speaks, the slow ones first: version 2 has
// whole seconds only.
func forms(program string) []form {
	var all []form
	for _, unicast := range []bool{false, true} {
		cast := "multicast"
		if unicast {
			cast = "unicast"
		}
		if unicast && program == frr {
			continue // it knows no unicast
		}
		all = append(all,
			form{"v2 " + cast, 2, shared4, second, unicast},
			form{"v3 IPv4 " + cast, 3, shared4, brief, unicast},
			form{"v3 IPv6 " + cast, 3, shared6, brief, unicast})
	}
	return all
}

// seat is a node that speaks this way.
func (f form) seat(program string, priority uint8) seat {
	return seat{program: program, router: peers.VRRP{Version: f.version, Addresses: f.addrs, Interval: f.interval, Priority: priority}}
}

// leased reports whether a lease is what keeps a dead or frozen carpd silent; the
// kernel counts it in seconds. At shorter intervals a fence does, and the address itself
// stays for longer.
func (m *member) leased() bool { return m.interval() >= second }

// leaseOver is how much longer than the master-down time a killed carpd's address
// may be there.
const leaseOver = 2100 * time.Millisecond

// startup bounds what the start of a program costs.
const startup = 2 * second

// parts are the tests of one run: each has a LAN of its own and all run at once, for
// they wait most of the time.
type parts struct {
	t      *testing.T
	binary string
}

// run is one part, with the nodes in the order of their addresses.
func (p parts) run(name string, seats []seat, body func(*segment)) {
	p.t.Run(name, func(t *testing.T) {
		t.Parallel()
		awake(t, func(t lab.TB) { body(newSegment(t, p.binary, seats...)) })
	})
}

// TestVRRPInterop lets the real carpd, Debian's keepalived and FRR share an address,
// in all roles.
func TestVRRPInterop(t *testing.T) {
	t.Parallel()
	lab.New(t) // skips once, not in each part
	p := parts{t, build(t)}
	for _, program := range []string{keepalived, frr} {
		for _, f := range forms(program) {
			p.failovers(program, f)
			p.elections(program, f)
			p.ties(program, f)
		}
	}
	p.threes()
	p.owners()
	p.mismatches()
	p.checksums()
	p.virtualMACs()
	p.freezes()
}

// find returns the node with a name.
func (s *segment) find(name string) *member {
	for _, m := range s.members {
		if m.name == name {
			return m
		}
	}
	s.t.Fatalf("no node %s", name)
	return nil
}

// lead starts a node and waits until it is master.
func (s *segment) lead(m *member) {
	s.t.Helper()
	m.start()
	s.settle(m, m.down()+startup+slack)
}

// follow starts a node and waits until it is a backup of master.
func (s *segment) follow(m, master *member) {
	s.t.Helper()
	m.start()
	s.settle(master, startup+slack)
	s.stays(master, m.down()+slack)
}

// elections is who wins: the first to come is master, and stays it unless the second
// is better and preempts.
func (p parts) elections(program string, f form) {
	for _, first := range []string{ours, program} {
		for _, better := range []string{ours, program} {
			for _, preempt := range []bool{true, false} {
				if !preempt && (first == better || f.version == 2 && f.unicast) {
					continue // says nothing new
				}
				a, b := f.seat(ours, 100), f.seat(program, 100)
				if better == ours {
					a.router.Priority, a.router.NoPreempt = 200, !preempt
				} else {
					b.router.Priority, b.router.NoPreempt = 200, !preempt
				}
				winner := first
				if first != better && preempt {
					winner = better
				}
				name := fmt.Sprintf("election, %s %s: %s first, %s better, preempt %v", program, f.name, first, better, preempt)
				p.run(name, []seat{a, b}, func(s *segment) {
					if f.unicast {
						s.unicast()
					}
					s.election(first, winner)
				})
			}
		}
	}
}

func (s *segment) election(first, winner string) {
	one, two := s.members[0], s.members[1]
	if first != one.name {
		one, two = two, one
	}
	s.lead(one)
	mark, began := s.client.Mark(), time.Now()
	two.start()
	if one.name == winner {
		s.settle(one, startup+slack)
		s.stays(one, two.down()+slack)
		s.result("%s stays", winner)
		return
	}
	took := s.speaks(two, began, two.down()+startup+slack, anything).At.Sub(began)
	s.settle(two, one.interval()+slack)
	s.serves(two)
	s.stays(two, one.down()+slack)
	outage, _ := s.client.Longest(mark)
	s.result("%s takes over %s after its start, client without an answer for %s", winner, ms(took), ms(outage))
	if two.program != frr { // which announces before it says that it is there
		s.within("the client's outage", outage, 0, slack)
	}
}

// failovers is what happens when the master goes: ours and theirs, dead and in order.
func (p parts) failovers(program string, f form) {
	seats := func(a, b uint8) []seat { return []seat{f.seat(ours, a), f.seat(program, b)} }
	part := func(name string, seats []seat, body func(*segment)) {
		p.run(fmt.Sprintf("failover, %s %s: %s", program, f.name, name), seats, func(s *segment) {
			if f.unicast {
				s.unicast()
			}
			body(s)
		})
	}
	part("carpd goes", seats(200, 100), oursGoes)
	part(program+" goes", seats(100, 200), theirsGoes)
}

// oursGoes: killed, what ends carpd's address is the kernel, before anybody else
// announces it. It comes back, takes over, and leaves in order.
func oursGoes(s *segment) {
	us, them := s.members[0], s.members[1]
	s.lead(us)
	s.follow(them, us)
	mark := s.client.Mark()
	us.kill()
	last := s.last(us).At
	left := "; the fence keeps it silent"
	var gone time.Time
	if us.leased() {
		lab.Eventually(s.t, us.down()+leaseOver, "the address to leave the dead node", func() bool { return !us.host.HasAddr(s.shared) })
		gone = time.Now()
		left = "; address gone after " + ms(gone.Sub(last))
	}
	heard := s.speaks(them, last, them.down()+second+slack, anything).At
	if us.leased() && !gone.Before(heard) {
		s.t.Errorf("the dead node had the address for %v longer than until %s advertised", gone.Sub(heard), them.name)
	}
	took := heard.Sub(last)
	s.settle(them, slack)
	s.serves(them)
	outage, _ := s.client.Longest(mark)
	s.result("killed: %s advertises %s after the last advert%s; client's outage %s", them.name, ms(took), left, ms(outage))
	s.within("the takeover by "+them.name, took, them.down()-early, them.down()+slack)

	s.lead(us) // again: it preempts
	s.stays(us, them.interval()+slack)
	mark = s.client.Mark()
	began := time.Now()
	us.stop()
	bow := s.speaks(us, began, second, farewell)
	if us.host.HasAddr(s.shared) {
		s.t.Error("carpd has stopped, and its host still has the address")
	}
	took = s.speaks(them, bow.At, them.down(), anything).At.Sub(bow.At)
	s.settle(them, slack)
	s.serves(them)
	outage, _ = s.client.Longest(mark)
	s.result("stopped: %s advertises %s after priority 0; client's outage %s", them.name, ms(took), ms(outage))
	s.within("the takeover after priority 0", took, max(0, them.skew()-early), them.skew()+slack)
}

// theirsGoes: a killed keepalived or FRR leaves its address up, which is its own
// limit; a restarted one takes over again, and leaves in order.
func theirsGoes(s *segment) {
	us, them := s.members[0], s.members[1]
	s.lead(them)
	s.follow(us, them)
	mark := s.client.Mark()
	them.kill()
	last := s.last(them).At
	took := s.speaks(us, last, us.down()+slack, anything).At.Sub(last)
	s.settle(us, slack)
	s.serves(us)
	outage, _ := s.client.Longest(mark)
	s.result("killed: carpd advertises %s after the last advert; client's outage %s", ms(took), ms(outage))
	s.within("the takeover by carpd", took, us.down()-early, us.down()+slack)

	s.lead(them)
	s.stays(them, us.interval()+slack)
	mark = s.client.Mark()
	began := time.Now()
	them.stop()
	bow := s.speaks(them, began, second, farewell)
	took = s.speaks(us, bow.At, us.down(), anything).At.Sub(bow.At)
	s.settle(us, slack)
	s.serves(us)
	outage, _ = s.client.Longest(mark)
	s.result("stopped: carpd advertises %s after priority 0; client's outage %s", ms(took), ms(outage))
	s.within("the takeover after priority 0", took, max(0, us.skew()-early), us.skew()+slack)
}

// ties is equal priorities: the first stays, and of two masters the one with the
// higher address.
func (p parts) ties(program string, f form) {
	for _, high := range []string{ours, program} {
		seats := []seat{f.seat(program, 100), f.seat(ours, 100)}
		if high == program {
			seats[0], seats[1] = seats[1], seats[0]
		}
		if program == frr && f.addrs[0].Addr().Is6() {
			continue // its source over IPv6 is by chance
		}
		p.run(fmt.Sprintf("tie, %s %s: %s higher", program, f.name, high), seats, func(s *segment) {
			if f.unicast {
				s.unicast()
			}
			s.tie()
		})
	}
}

func (s *segment) tie() {
	low, high := s.members[0], s.members[1]
	s.lead(low)
	s.follow(high, low) // an equal one is no better
	s.lan.Partition(low.host, high.host)
	lab.Eventually(s.t, high.down()+startup, "two masters", func() bool { return low.state() == "MASTER" && high.state() == "MASTER" })
	mark, healed := s.client.Mark(), time.Now()
	s.lan.Heal()
	s.settle(high, 3*high.interval()+slack)
	took := time.Since(healed)
	s.serves(high)
	s.stays(high, high.down()+second)
	outage, _ := s.client.Longest(mark)
	s.result("%s stays, settled after %s; client's outage %s", high.name, ms(took), ms(outage))
}
