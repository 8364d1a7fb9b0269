package peers_test

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
)

// threes is carpd, keepalived and FRR in one group, each in each place: the best is
// master, the second follows when it dies, and the third when that leaves.
func (p parts) threes() {
	programs := []string{ours, keepalived, frr}
	for _, f := range forms(frr) {
		for shift := range programs {
			var seats []seat
			var names []string
			for i, priority := range []uint8{200, 150, 100} {
				program := programs[(shift+i)%3]
				seats, names = append(seats, f.seat(program, priority)), append(names, program)
			}
			p.run(fmt.Sprintf("three, %s: %s", f.name, strings.Join(names, " before ")), seats, threeOfThem)
		}
	}
}

func threeOfThem(s *segment) {
	best, next, last := s.members[0], s.members[1], s.members[2]
	last.start()
	next.start()
	best.start()
	s.settle(best, 2*last.down()+startup+slack)
	s.serves(best)
	s.stays(best, last.down()+slack)
	best.kill()
	died := s.last(best).At
	took := s.speaks(next, died, next.down()+second+slack, anything).At.Sub(died)
	s.settle(next, slack)
	s.serves(next)
	s.stays(next, last.down()+slack)
	began := time.Now()
	next.stop()
	bow := s.speaks(next, began, second, farewell)
	then := s.speaks(last, bow.At, last.down(), anything).At.Sub(bow.At)
	s.settle(last, slack)
	s.serves(last)
	s.stays(last, last.down())
	s.result("%s dies: %s advertises after %s; that leaves: %s after %s", best.name, next.name, ms(took), last.name, ms(then))
	s.within("the takeover by "+next.name, took, next.down()-early, next.down()+slack)
}

// owners is two nodes that both say that the addresses are their own. keepalived
// lowers itself to 254 when it hears another one, so that carpd stays, which yields
// first where keepalived's address is the higher one (RFC 9568, erratum 8298).
func (p parts) owners() {
	f := form{"v3 IPv4 multicast", 3, shared4, brief, false}
	for _, first := range []string{ours, keepalived} {
		for _, high := range []string{ours, keepalived} {
			seats := []seat{f.seat(keepalived, 255), f.seat(ours, 255)}
			if high == keepalived {
				seats[0], seats[1] = seats[1], seats[0]
			}
			p.run(fmt.Sprintf("owners: %s first, %s higher", first, high), seats, func(s *segment) {
				one, two := s.find(first), s.find(ours)
				if two == one {
					two = s.find(keepalived)
				}
				us := s.find(ours)
				one.start()
				s.settle(one, startup)
				two.start()
				s.settle(us, startup+slack)
				s.serves(us)
				s.stays(us, 3*second)
				s.result("carpd stays")
			})
		}
	}
}

// checksums is the two forms that version 3 has over IPv4: ours accepts either, and
// keepalived and FRR hear ours as long as it sends theirs.
func (p parts) checksums() {
	f := form{"v3 IPv4 multicast", 3, shared4, brief, false}
	plain := func(priority uint8) seat {
		s := f.seat(ours, priority)
		s.lines = []string{"checksum: rfc9568"}
		return s
	}
	p.run("checksum: two carpd, the better without pseudo-header", []seat{plain(200), f.seat(ours, 100)}, (*segment).inOrder)
	p.run("checksum: two carpd, the worse without pseudo-header", []seat{f.seat(ours, 200), plain(100)}, (*segment).inOrder)
	// keepalived up to 1.3.6 has the group in the pseudo-header of unicast too. With
	// the option it demands that as well, which is why carpd is the worse here.
	old := f.seat(keepalived, 200)
	old.router.Lines = []string{"old_unicast_checksum"}
	p.run("checksum: carpd follows keepalived with that of its version 1.3.6", []seat{old, f.seat(ours, 100)}, func(s *segment) {
		s.unicast()
		s.inOrder()
	})
	for _, program := range []string{keepalived, frr} {
		p.run("checksum: carpd without pseudo-header follows "+program, []seat{f.seat(program, 200), plain(100)}, func(s *segment) {
			s.lead(s.members[0])
			s.follow(s.members[1], s.members[0])
			s.result("%s stays", program)
		})
	}
}

// inOrder starts the worse node first, lets the better one take over, and kills it.
func (s *segment) inOrder() {
	better, worse := s.members[0], s.members[1]
	s.lead(worse)
	s.lead(better)
	s.stays(better, worse.down()+slack)
	better.kill()
	s.settle(worse, worse.down()+second+slack)
	s.serves(worse)
	s.result("each hears the other")
}

// freezes is a master that stands still for longer than the other waits, and then
// goes on: by SIGSTOP here, by a hypervisor elsewhere.
func (p parts) freezes() {
	for _, f := range []form{{"v2 multicast", 2, shared4, second, false}, {"v3 IPv4 multicast", 3, shared4, brief, false}} {
		for _, program := range []string{keepalived, frr} {
			p.run(fmt.Sprintf("freeze, %s: carpd beside %s", f.name, program), []seat{f.seat(ours, 200), f.seat(program, 100)}, func(s *segment) { s.freeze(s.members[0], s.members[1]) })
			if f.version == 3 {
				p.run(fmt.Sprintf("freeze, %s: %s beside carpd", f.name, program), []seat{f.seat(ours, 100), f.seat(program, 200)}, func(s *segment) { s.freeze(s.members[1], s.members[0]) })
			}
		}
	}
}

func (s *segment) freeze(best, next *member) {
	s.lead(best)
	s.follow(next, best)
	best.freeze()
	froze := s.last(best).At
	took := s.speaks(next, froze, next.down()+second, anything).At.Sub(froze)
	if best.program == ours {
		// What stands still loses its address to the kernel in time.
		if best.leased() && best.host.HasAddr(s.shared) {
			s.t.Errorf("%s stands still, %s is master, and both have the address", best.name, next.name)
		}
	}
	lab.Eventually(s.t, second, next.name+" to be master", func() bool { return next.state() == "MASTER" && next.holds(s.shared) })
	mark := s.client.Mark()
	best.thaw()
	s.settle(best, best.down()+second+slack)
	s.serves(best)
	s.stays(best, next.down()+second)
	outage, _ := s.client.Longest(mark)
	s.result("%s advertises after %s, and gives way when %s goes on; client's outage then %s", next.name, ms(took), best.name, ms(outage))
}

// virtualMACs is failover with the virtual MAC on every node: nobody has to learn
// anything but the switch.
func (p parts) virtualMACs() {
	for _, program := range []string{keepalived, frr} {
		for _, f := range forms(frr)[1:] {
			seats := func(a, b uint8) []seat {
				us, them := f.seat(ours, a), f.seat(program, b)
				us.lines = []string{"mac: virtual"}
				them.router.VirtualMAC = program == keepalived // FRR has no other
				return []seat{us, them}
			}
			check := func(body func(*segment)) func(*segment) {
				return func(s *segment) {
					body(s)
					s.announced()
				}
			}
			p.run(fmt.Sprintf("virtual MAC, %s %s: carpd goes", program, f.name), seats(200, 100), check(oursGoes))
			p.run(fmt.Sprintf("virtual MAC, %s %s: %s goes", program, f.name, program), seats(100, 200), check(theirsGoes))
		}
	}
}

// announced checks that all adverts and announcements came from the virtual MAC.
func (s *segment) announced() {
	s.t.Helper()
	want := carp.VirtualMACOf(carp.VRRP3, carp.FamilyOf(s.shared), vhid)
	for _, a := range s.adverts(time.Time{}) {
		if a.SrcMAC != want {
			s.t.Errorf("an advert of %s comes from %x, want %x", a.Host, a.SrcMAC, want)
			return
		}
	}
	arp := lab.GratuitousARP(s.shared)
	for _, frame := range s.wire.Packets() {
		if (arp(frame) || advertisement(frame.Data, s.shared)) && carp.MAC(frame.Data[6:12]) != want {
			s.t.Errorf("%s announces the address from %x, want %x", frame.Host, frame.Data[6:12], want)
			return
		}
	}
}

// advertisement reports whether a frame is an unsolicited neighbour advertisement of
// an address (RFC 4861, 7.2.6).
func advertisement(frame []byte, of netip.Addr) bool {
	const ether, header = 14, 40
	return of.Is6() && len(frame) >= ether+header+24 && frame[0] == 0x33 && frame[ether+6] == 58 && frame[ether+header] == 136 &&
		netip.AddrFrom16([16]byte(frame[ether+header+8:])) == of
}
