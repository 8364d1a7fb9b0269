package peers_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
)

// What theory says of the times, all at advbase 1.
const (
	second     = time.Second
	masterDown = 3 * second // and the own skew
	// readLate is ucarp's own fault: libpcap hands it what arrived once a second.
	readLate = second
	// slack is what a loaded machine may cost; ours and theirs are as loaded.
	slack = 700 * time.Millisecond
	early = 30 * time.Millisecond // capture and speaker do not stamp at the same place
)

// skew is an advskew as a duration.
func skew(n uint8) time.Duration { return time.Duration(n) * second / 256 }

// ucarpLate bounds how much later than its master-down time ucarp takes over.
// Both parts are its own fault: it reads an advert up to a second late and
// counts from then, and it looks at its timer only when poll returns, which as a
// backup is once an interval of its own.
func ucarpLate(n uint8) time.Duration { return readLate + second + skew(n) }

// TestInterop lets the real carpd and Debian's ucarp share an address, in both
// roles. Each part has a LAN of its own and all run at once: they wait most of
// the time.
func TestInterop(t *testing.T) {
	t.Parallel()
	lab.New(t) // skips once, not in each part
	binary := build(t)
	part := func(name string, s setup, run func(*pair)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			awake(t, func(t lab.TB) { run(newPair(t, binary, s)) })
		})
	}
	// The long ones first.
	ties(part)
	kills(part)
	leaves(part)
	elections(part)
	part("wrong password: two masters, refusals counted and alarmed", setup{theirPassword: "another"}, wrongPassword)
	part("source_mac interface", setup{theirSkew: 100, sourceMAC: "interface"}, func(p *pair) {
		sourceMAC(p, carp.MAC{2, 0, 0, 0, 0, 1})
	})
	part("source_mac virtual", setup{theirSkew: 100, sourceMAC: "virtual"}, func(p *pair) {
		sourceMAC(p, carp.VirtualMAC(vhid))
	})
}

// lead starts who and waits until it is master; then the other as its backup,
// which has heard it when lead returns.
func (p *pair) lead(who string) {
	p.t.Helper()
	p.start(who)
	p.settle(who, masterDown+skew(100)+ucarpLate(100)+slack)
	p.start(other(who))
	p.settle(who, 2*second)
	p.stays(who, 2*second+slack)
}

// result prints a line of the table in docs/interop-ucarp.md.
func (p *pair) result(format string, args ...any) {
	p.t.Helper()
	p.t.Logf("RESULT %s: %s", p.t.Name()[len("TestInterop/"):], fmt.Sprintf(format, args...))
}

func ms(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// within checks a time against its bounds.
func (p *pair) within(what string, got, least, most time.Duration) {
	p.t.Helper()
	if got < least || got > most {
		p.t.Errorf("%s took %v, want %v to %v", what, got, least, most)
	}
}

// elections is who wins: the first to come is master, and stays it unless the
// second is better and preempts. The preempt of the one that is master already
// must not matter.
func elections(part func(string, setup, func(*pair))) {
	for _, first := range []string{ours, theirs} {
		for _, better := range []string{ours, theirs} {
			for preempt := range 4 {
				s := setup{ourPreempt: preempt&1 != 0, theirPreempt: preempt&2 != 0}
				if better == ours {
					s.theirSkew = 100
				} else {
					s.ourSkew = 100
				}
				name := fmt.Sprintf("%s first, %s better, preempt carpd %v ucarp %v", first, better, s.ourPreempt, s.theirPreempt)
				wants := map[string]bool{ours: s.ourPreempt, theirs: s.theirPreempt}
				winner := first
				if better != first && wants[better] {
					winner = better
				}
				part(name, s, func(p *pair) { election(p, first, winner) })
			}
		}
	}
}

func election(p *pair, first, winner string) {
	p.start(first)
	p.settle(first, masterDown+skew(100)+ucarpLate(100)+slack)
	mark, began := p.client.Mark(), time.Now()
	p.start(other(first))
	if winner == first {
		// Longer than the second's master-down time: it has heard the first.
		p.settle(first, 2*second)
		p.stays(first, masterDown+skew(100)+ucarpLate(100))
		p.result("%s stays", winner)
		return
	}
	// It preempts at the first advert that it hears. A ucarp that is to give way
	// goes on until it reads ours: both hold the address for up to a second then.
	p.settle(winner, second+skew(100)+2*readLate+slack)
	took := p.speaks(winner, began, second).Sub(began)
	p.stays(winner, 3*second)
	outage, _ := p.client.Longest(mark)
	p.result("%s takes over %s after its start, client without an answer for %s", winner, ms(took), ms(outage))
	p.within("the client's outage", outage, 0, second)
}

// kills is failover when the master dies without a word.
func kills(part func(string, setup, func(*pair))) {
	for _, advskew := range []uint8{0, 100} {
		part(fmt.Sprintf("kill -9 of carpd, ucarp with advskew %d", advskew), setup{theirSkew: advskew}, killOurs)
		part(fmt.Sprintf("kill -9 of ucarp, carpd with advskew %d", advskew), setup{ourSkew: advskew}, killTheirs)
	}
}

// killOurs: what holds the address of a killed carpd is the kernel, and its lease
// ends before anybody else can announce it.
func killOurs(p *pair) {
	p.lead(ours)
	mark := p.client.Mark()
	last := p.kill(ours)
	lab.Eventually(p.t, masterDown, "the address to leave the dead node", func() bool { return !p.hosts[ours].HasAddr(vip.Addr()) })
	gone := time.Now()
	down := masterDown + skew(p.setup.theirSkew)
	most := down + ucarpLate(p.setup.theirSkew) + slack
	announced := p.announces(theirs, last, most+second)
	if !gone.Before(announced) {
		p.t.Errorf("the dead node had the address for %v longer than until ucarp announced it", gone.Sub(announced))
	}
	took := p.speaks(theirs, last, most+second).Sub(last)
	p.settle(theirs, second)
	outage, _ := p.client.Longest(mark)
	p.result("ucarp advertises %s after the last advert; address gone after %s; client's outage %s", ms(took), ms(gone.Sub(last)), ms(outage))
	p.within("the takeover by ucarp", took, down-early, most)
	p.start(ours) // it comes back as a backup
	p.settle(theirs, 2*second)
	p.stays(theirs, masterDown+2*second)
}

// killTheirs: a killed ucarp leaves its address up for ever, which is its own
// limit; the address is on both hosts until ucarp runs again.
func killTheirs(p *pair) {
	p.lead(theirs)
	mark := p.client.Mark()
	last := p.kill(theirs)
	down := masterDown + skew(p.setup.ourSkew)
	took := p.speaks(ours, last, down+2*second).Sub(last)
	lab.Eventually(p.t, second, "carpd to be master", func() bool { return p.state(ours) == "MASTER" && p.hosts[ours].HasAddr(vip.Addr()) })
	announced := p.announces(ours, last, second).Sub(last)
	outage, _ := p.client.Longest(mark)
	left := ""
	if slices.Contains(p.holders(), theirs) {
		left = "; ucarp's host still has the address"
	}
	p.result("carpd advertises %s after the last advert and announces after %s; client's outage %s%s", ms(took), ms(announced), ms(outage), left)
	p.within("the takeover by carpd", took, down-early, down+slack)
	p.start(theirs) // its down script takes the address off, as it starts as backup
	p.settle(ours, 2*second)
	p.stays(ours, masterDown+2*second)
}

// leaves is how a master goes in order.
func leaves(part func(string, setup, func(*pair))) {
	part("SIGTERM of carpd: ucarp takes over at the bow-out", setup{theirSkew: 100}, bowOut)
	// ucarp says no farewell: that is its limit, and so a failover as any other.
	part("SIGTERM of ucarp", setup{ourSkew: 100}, func(p *pair) { ucarpLeaves(p, syscall.SIGTERM) })
	part("SIGUSR2 of ucarp", setup{ourSkew: 100}, func(p *pair) { ucarpLeaves(p, syscall.SIGUSR2) })
}

// bowOut: the bow-out spares ucarp the master-down time, but not the second that
// it may be late in reading.
func bowOut(p *pair) {
	p.lead(ours)
	took, outage := p.handOver()
	p.result("ucarp advertises %s after the bow-out; client's outage %s", ms(took), ms(outage))
	p.stays(theirs, 3*second)
}

// handOver stops carpd in order and waits for ucarp to be master.
func (p *pair) handOver() (took, outage time.Duration) {
	p.t.Helper()
	mark, began := p.client.Mark(), time.Now()
	p.procs[ours].Signal(syscall.SIGTERM)
	bow := p.awaitAdvert(began, 2*second, "bow-out of carpd", func(s sighting) bool { return s.host == ours && s.BowOut() })
	if p.hosts[ours].HasAddr(vip.Addr()) {
		p.t.Error("carpd has bowed out, and its host still has the address")
	}
	if err := p.procs[ours].Wait(second); err != nil {
		p.t.Errorf("carpd after SIGTERM: %v", err)
	}
	delete(p.procs, ours)
	took = p.speaks(theirs, bow.at, masterDown).Sub(bow.at)
	p.within("the takeover after the bow-out", took, 0, readLate+slack)
	p.settle(theirs, second)
	outage, _ = p.client.Longest(mark)
	return took, outage
}

func ucarpLeaves(p *pair, sig syscall.Signal) {
	p.lead(theirs)
	mark := p.client.Mark()
	p.procs[theirs].Signal(sig)
	if sig == syscall.SIGTERM {
		if err := p.procs[theirs].Wait(second); err != nil {
			p.t.Errorf("ucarp after SIGTERM: %v", err)
		}
		delete(p.procs, theirs)
	}
	lab.Eventually(p.t, second, "ucarp to let go", func() bool { return !p.hosts[theirs].HasAddr(vip.Addr()) })
	last := p.lastAdvert(theirs)
	down := masterDown + skew(p.setup.ourSkew)
	took := p.speaks(ours, last, down+2*second).Sub(last)
	p.within("the takeover by carpd", took, down-early, down+slack)
	p.settle(ours, second)
	outage, _ := p.client.Longest(mark)
	p.result("carpd advertises %s after the last advert; client's outage %s", ms(took), ms(outage))
	p.stays(ours, masterDown+3*second) // after SIGUSR2 ucarp sleeps for 3 s and is a backup then
}

// wrongPassword: neither believes the other, so both are masters, as with every
// implementation. Ours says why.
func wrongPassword(p *pair) {
	p.start(ours)
	p.start(theirs)
	lab.Eventually(p.t, masterDown+ucarpLate(0)+slack, "two masters", func() bool {
		return slices.Equal(p.holders(), []string{ours, theirs}) && p.state(theirs) == "MASTER" && p.state(ours) == "MASTER"
	})
	lab.Eventually(p.t, 4*second, "refusals and an alarm", func() bool {
		i := p.status()
		for _, a := range i.Alarms {
			if a.Name == "bad-hash" && strings.Contains(a.Text, p.setup.theirAddr) {
				return i.Drops["hash"] >= 2
			}
		}
		return false
	})
	if n := len(p.events("alarm")); n != 1 {
		p.t.Errorf("%d alarm events, want one that stands", n)
	}
	lab.Eventually(p.t, 4*second, "ucarp to complain", func() bool { return strings.Contains(p.procs[theirs].Output(), "Bad digest") })
	if n := p.changes(ours); n != 2 {
		p.t.Errorf("carpd changed its role %d times, want twice: refused adverts move nothing", n)
	}
	i := p.status()
	p.result("two masters; %d adverts dropped as \"hash\", alarm \"bad-hash\"", i.Drops["hash"])
}

// sourceMAC: ucarp follows adverts whichever MAC they come from.
func sourceMAC(p *pair, want carp.MAC) {
	p.lead(ours)
	p.stays(ours, masterDown+skew(p.setup.theirSkew)+ucarpLate(p.setup.theirSkew))
	for _, s := range p.adverts(time.Time{}) {
		if s.host == ours && s.src != want {
			p.t.Fatalf("an advert has source MAC %x, want %x", s.src, want)
		}
	}
	took, outage := p.handOver()
	p.result("adverts come from %x and are followed; ucarp advertises %s after the bow-out; client's outage %s", want, ms(took), ms(outage))
}
