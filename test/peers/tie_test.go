package peers_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// Equal intervals are decided by ucarp's order of addresses: it compares them as
// little-endian numbers, so that the last octet weighs most. Here that order and
// the usual one disagree: .1.2 is lower by first octets, .2.1 is lower to ucarp.
const (
	higher = "10.9.1.2"
	lower  = "10.9.2.1"
)

// ties is equal masters: one of them stays, and for good. The BSDs both yield.
func ties(part func(string, setup, func(*pair))) {
	for _, advskew := range []uint8{0, 50} {
		for _, low := range []string{ours, theirs} {
			s := setup{ourAddr: higher, theirAddr: lower, ourSkew: advskew, theirSkew: advskew}
			if low == ours {
				s.ourAddr, s.theirAddr = lower, higher
			}
			part(fmt.Sprintf("tie, advskew %d, %s lower, healed", advskew, low), s, func(p *pair) { tieHealed(p, low) })
			part(fmt.Sprintf("tie, advskew %d, %s lower, started together", advskew, low), s, tieTogether)
		}
	}
}

// interval is what both advertise in.
func (p *pair) interval() time.Duration { return time.Second + skew(p.setup.ourSkew) }

// tieTogether starts both at once. Who wins is a race, since ucarp may be late;
// that one wins and stays is not.
func tieTogether(p *pair) {
	p.start(ours)
	p.start(theirs)
	first := p.awaitAdvert(time.Time{}, masterDown+ucarpLate(p.setup.ourSkew)+slack, "advert", func(sighting) bool { return true })
	master := p.oneOf(3 * p.interval())
	took, contested := p.contest(first.at, master)
	p.within("settling", took, 0, 3*p.interval())
	mark := p.client.Mark()
	p.stays(master, time.Minute)
	outage, _ := p.client.Longest(mark)
	p.result("%s is master, %s; no change within a minute, longest gap of the client %s", master, contested, ms(outage))
}

// tieHealed makes two masters by a partition, in which the client hears both.
func tieHealed(p *pair, low string) {
	p.lan.Partition(p.hosts[ours], p.hosts[theirs])
	p.start(ours)
	p.start(theirs)
	lab.Eventually(p.t, masterDown+skew(p.setup.ourSkew)+ucarpLate(p.setup.ourSkew)+slack, "two masters", func() bool {
		return slices.Equal(p.holders(), []string{ours, theirs}) && p.state(theirs) == "MASTER" && p.state(ours) == "MASTER"
	})
	before := map[string]int{ours: p.changes(ours), theirs: p.changes(theirs)}
	mark, healed := p.client.Mark(), time.Now()
	p.lan.Heal()
	p.settle(low, 3*p.interval()+slack)
	took, contested := p.contest(healed, low)
	p.within("settling", took, 0, 3*p.interval())
	outage, _ := p.client.Longest(mark)
	// When ucarp is to stay, it announces again only once it has read our
	// farewell: the client may be without an answer for that second.
	p.within("the client's outage", outage, 0, 3*p.interval())
	p.stays(low, time.Minute)
	for who, n := range before {
		want := 0
		if who != low {
			want = 1
		}
		if got := p.changes(who) - n; got != want {
			p.t.Errorf("%s changed its role %d times since the heal, want %d", who, got, want)
		}
	}
	p.result("%s stays, %s; client's outage %s; no change within a minute", low, contested, ms(outage))
}

// oneOf returns the one that is the only master for so long that ucarp must have
// read an advert of it meanwhile, which has to begin within limit.
func (p *pair) oneOf(limit time.Duration) (master string) {
	p.t.Helper()
	hold := p.interval() + readLate
	var since time.Time
	lab.Eventually(p.t, limit+hold+slack, "one master", func() bool {
		if master != "" && p.agreed(master) {
			return time.Since(since) >= hold
		}
		master, since = "", time.Now()
		for _, who := range []string{ours, theirs} {
			if p.agreed(who) {
				master = who
			}
		}
		return false
	})
	return master
}

// contest returns how long after since the loser was last heard, in words too.
func (p *pair) contest(since time.Time, master string) (took time.Duration, words string) {
	p.t.Helper()
	for _, s := range p.adverts(since) {
		if s.host != master {
			took = s.at.Sub(since)
		}
	}
	if took == 0 {
		return 0, "uncontested"
	}
	return took, "settled after " + ms(took)
}
