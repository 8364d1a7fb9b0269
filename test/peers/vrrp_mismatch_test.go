package peers_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

// mismatch is one setting that differs between the two nodes.
type mismatch struct {
	name         string
	ours, theirs peers.VRRP
	with         []string // programs
	drop         string   // what carpd calls it; "" if it is none
}

// two is a second address of the advert.
var two = append(slices.Clone(shared4), netip.MustParsePrefix("10.9.0.51/16"))

// mismatched lists the settings that may differ. Those of keepalived and FRR that
// refuse such adverts make themselves a second master; ours must not.
func mismatched() []mismatch {
	v2, v3 := peers.VRRP{Version: 2, Addresses: shared4}, peers.VRRP{Addresses: shared4, Interval: brief}
	with := func(v peers.VRRP, change func(*peers.VRRP)) peers.VRRP { change(&v); return v }
	password := func(s string) func(*peers.VRRP) { return func(v *peers.VRRP) { v.Password = s } }
	count := func(v *peers.VRRP) { v.Addresses = two }
	three := slices.Insert(slices.Clone(shared6), 1, netip.MustParsePrefix("fd00:9::51/64"))
	v6 := peers.VRRP{Addresses: shared6, Interval: brief}
	both, ka := []string{keepalived, frr}, []string{keepalived}
	return []mismatch{
		{"v2, address count", v2, with(v2, count), both, "addresses"},
		{"v3 IPv4, address count", v3, with(v3, count), both, "addresses"},
		{"v3 IPv4, address count of ours", with(v3, count), v3, both, "addresses"},
		{"v3 IPv6, address count", v6, with(v6, func(v *peers.VRRP) { v.Addresses = three }), both, "addresses"},
		{"v2, interval 1 s and 2 s", v2, with(v2, func(v *peers.VRRP) { v.Interval = 2 * second }), both, "interval"},
		{"v3 IPv4, interval 1 s and 2 s", with(v3, func(v *peers.VRRP) { v.Interval = second }), with(v3, func(v *peers.VRRP) { v.Interval = 2 * second }), ka, ""},
		{"v3 IPv4, interval 200 ms and 400 ms", v3, with(v3, func(v *peers.VRRP) { v.Interval = 2 * brief }), []string{frr}, ""},
		{"v3 IPv6, interval 200 ms and 400 ms", v6, with(v6, func(v *peers.VRRP) { v.Interval = 2 * brief }), both, ""},
		{"version 2 here, 3 there", v2, with(v3, func(v *peers.VRRP) { v.Interval = second }), both, "version"},
		{"version 3 here, 2 there", with(v3, func(v *peers.VRRP) { v.Interval = second }), v2, both, "version"},
		{"v2, another password", with(v2, password("ours")), with(v2, password("theirs")), ka, "auth"},
		{"v2, password there alone", v2, with(v2, password("theirs")), ka, "auth"},
		{"v2, password here alone", with(v2, password("ours")), v2, both, "auth"},
		{"v2, authentication header there", v2, with(v2, func(v *peers.VRRP) { v.Password, v.AH = "theirs", true }), ka, "auth"},
	}
}

func (p parts) mismatches() {
	for _, m := range mismatched() {
		for _, program := range m.with {
			for _, first := range []string{ours, program} {
				for _, better := range []string{ours, program} {
					a, b := seat{program: ours, router: m.ours}, seat{program: program, router: m.theirs}
					a.router.Priority, b.router.Priority = 100, 100
					if better == ours {
						a.router.Priority = 200
					} else {
						b.router.Priority = 200
					}
					p.run(fmt.Sprintf("mismatch, %s: %s, %s first, %s better", program, m.name, first, better), []seat{a, b}, func(s *segment) {
						if m.drop == "" {
							s.election(first, better)
						} else {
							s.mismatched(m.drop, first == ours, better == ours)
						}
					})
				}
			}
		}
	}
}

// mismatched is two nodes of which neither takes the other's adverts as its own
// group's. Ours must not be a second master, unless it was the first and is the
// better: then it stays and says so.
func (s *segment) mismatched(drop string, oursFirst, oursBetter bool) {
	us, them := s.members[0], s.members[1]
	if !oursFirst {
		s.lead(them)
		began := time.Now()
		us.start()
		s.complains(drop, them.down()+startup)
		s.never(us, began, us.down()+2*them.interval()+slack)
		s.result("%s is the only master", them.name)
		return
	}
	s.lead(us)
	began := time.Now()
	them.start()
	if oursBetter {
		s.keeps(us, them, drop)
		return
	}
	rival := s.speaks(them, began, them.down()+startup+slack, anything)
	lab.Eventually(s.t, slack, "carpd to give way to the better master", func() bool { return us.state() == "BACKUP" && !us.host.HasAddr(s.shared) })
	gave := time.Since(rival.At)
	s.never(us, time.Now().Add(100*time.Millisecond), us.down()+2*them.interval()+slack) // its farewell may be on its way
	s.complains(drop, slack)
	s.result("carpd gives way %s after the first advert; %s is the only master", ms(gave), them.name)
}

// keeps watches that the better node of ours, which was the first, stays master. The
// other is a second one unless it follows all the same, as FRR follows other address
// lists.
func (s *segment) keeps(us, them *member, drop string) {
	s.t.Helper()
	lab.Eventually(s.t, startup, them.name+" to be there", func() bool { return them.state() != "" })
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(them.down() + us.down() + slack); time.Now().Before(until); <-tick.C {
		if us.state() != "MASTER" || !us.host.HasAddr(s.shared) {
			s.t.Fatalf("carpd is %s and gives way to a worse master whose adverts it refuses", us.state())
		}
	}
	if them.state() != "MASTER" {
		s.result("carpd is the only master")
		return
	}
	s.complains(drop, 2*them.interval()+slack)
	s.result("carpd stays and says so; %s makes itself a second master", them.name)
}

// never watches that a node is no master: it has no address and sends no advert
// after since.
func (s *segment) never(m *member, since time.Time, d time.Duration) {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(d); time.Now().Before(until); <-tick.C {
		if m.host.HasAddr(s.shared) {
			s.t.Fatalf("%s has the address beside a better master, or one that was there before", m.name)
		}
	}
	if m.state() != "BACKUP" {
		s.t.Errorf("%s is %s, want BACKUP", m.name, m.state())
	}
	for _, a := range s.adverts(since) {
		if a.Host == m.name {
			s.t.Errorf("an advert of %s, priority %d, beside a better master, or one that was there before", m.name, a.Priority)
		}
	}
}

// complains waits until carpd has counted the other's adverts under this name and
// raised an alarm that names it.
func (s *segment) complains(drop string, limit time.Duration) {
	s.t.Helper()
	us := s.members[0]
	source := s.source(1).String()
	if s.shared.Is6() {
		source = "fe80::"
	}
	limitAt := time.Now().Add(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		i := us.status()
		for _, a := range i.Alarms {
			if i.Drops[drop] > 0 && strings.Contains(a.Text, source) {
				return
			}
		}
		if time.Now().After(limitAt) {
			s.t.Fatalf("carpd does not complain of %q from %s: drops %v, alarms %+v", drop, source, i.Drops, i.Alarms)
		}
	}
}
