package carp

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// Promises that no other test held the engine to: found by make mutants.

func TestDemotionMakesABackupNotMorePatient(t *testing.T) {
	r := newRig(t, skew(10))
	r.do(r.e.Demote(r.now, "disk", 200))
	r.hear(peerLow, 1, 0)
	r.take()
	r.run(masterDown(timing{1, 10}, timing{}) - time.Millisecond)
	r.want("")
	r.run(time.Millisecond)
	r.want("BACKUP->MASTER master-timed-out, send 1/210, permit")
}

func TestHearingTheMasterOnEitherFamilyIsHearingIt(t *testing.T) {
	for _, peer := range []netip.Addr{peerLow, netip.MustParseAddr("fe80::1")} {
		r := newRig(t, dual)
		r.take()
		for range 10 {
			r.hear(peer, 1, 0)
			r.run(time.Second)
		}
		r.want("")
		r.state(Backup)
	}
}

func TestEachFamilyHasItsOwnClockWhereAskedFor(t *testing.T) {
	for _, peer := range []netip.Addr{peerLow, netip.MustParseAddr("fe80::1")} {
		r := newRig(t, dual, func(c *Config) { c.Families = FamiliesEach })
		r.take()
		for range 10 {
			r.hear(peer, 1, 0)
			r.run(time.Second)
		}
		if log := r.take(); log == "" {
			t.Errorf("silence on the other family than that of %v went unnoticed", peer)
		}
	}
}

func TestCounterIsTheGroupClockNodeAndTimingAndNeverComesAgain(t *testing.T) {
	const offset = 200 * 24 * time.Hour
	r := newRig(t, skew(7), func(c *Config) { c.NodeID, c.ClockOffset = 33, offset })
	r.run(masterDown(timing{1, 7}, timing{}) - 1)
	r.now++
	var last uint64
	for n := range 5 {
		var e Effects
		if n == 0 {
			e = r.e.Tick(r.now)
		} else {
			e = r.e.Demote(r.now, "x", n) // at the same instant
		}
		counter := binary.BigEndian.Uint64(e.Send[0].Payload[8:])
		if ms := uint64(r.now.Add(offset)) / uint64(time.Millisecond); n == 0 && counter>>24 != ms {
			t.Errorf("clock %d, want %d ms", counter>>24, ms)
		}
		if node, base, skew := byte(counter>>16), byte(counter>>8), byte(counter); node != 33 || base != 1 || skew != byte(7+n) {
			t.Errorf("node %d, timing %d/%d", node, base, skew)
		}
		if counter>>24 <= last>>24 {
			t.Errorf("counter %x after %x", counter, last)
		}
		last = counter
		r.do(r.e.Sent(r.now))
	}
}

func TestEachMastershipHasAGreaterEpochOfAtLeastTheGroupClock(t *testing.T) {
	const offset = 24 * time.Hour
	r := newRig(t, func(c *Config) { c.ClockOffset = offset })
	var last Epoch
	for range 3 {
		r.run(10 * time.Second)
		r.state(Master)
		if least := Epoch(r.e.since.Add(offset) / Instant(time.Millisecond)); r.e.epoch <= last || r.e.epoch < least {
			t.Errorf("epoch %d after %d, at %d ms of the group clock", r.e.epoch, last, least)
		}
		last = r.e.epoch
		r.hear(peerLow, 1, 0)
		r.state(Backup)
	}
	// Twice within a millisecond, or after the clock went back.
	r.e.cfg.ClockOffset = 0
	r.do(r.e.SetState(r.now, Master))
	if r.e.epoch <= last {
		t.Errorf("epoch %d after %d", r.e.epoch, last)
	}
}

func TestPermitEnds(t *testing.T) {
	p := Permit{Epoch: 1, Until: 10}
	if !p.Live(9) || p.Live(10) || p.Live(11) || (Permit{Until: 10}).Live(9) {
		t.Error("a permit lives from now until its end, that instant not included, and only if it has an epoch")
	}
}

// slowLink takes its time for each frame.
type slowLink struct {
	frozenLink
	each time.Duration
}

func (l *slowLink) Send(f Frame) error {
	l.now = l.now.Add(l.each)
	return l.frozenLink.Send(f)
}

// permits notes the permits that it is handed.
type permits struct {
	HandlerFunc
	last Permit
}

func (p *permits) Permit(permit Permit) { p.last = permit }
func (p *permits) Announce()            {}

func TestPermitCountsFromBeforeTheFirstFrameAndEndsWithTheRole(t *testing.T) {
	link := &slowLink{frozenLink{now: Instant(time.Second)}, 10 * time.Millisecond}
	holder := &permits{}
	s, err := NewSpeaker(rigConfig(skew(0), dual), link, holder)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(link.now, s.engine.LinkUp(link.now, rigLocal))
	link.now = link.now.Add(3 * time.Second)
	before := link.now
	s.apply(before, s.engine.Tick(before))
	if want := before.Add(permitTime(timing{1, 0})); holder.last.Until != want || link.sent != 2 {
		t.Errorf("%d frames, permit until %v, want %v", link.sent, holder.last.Until, want)
	}
	s.apply(link.now, s.engine.SetState(link.now, Backup))
	if holder.last == (Permit{}) {
		t.Error("the permit ends before the addresses are let go in order")
	}
	s.apply(link.now, s.engine.LinkDown(link.now))
	if holder.last != (Permit{}) {
		t.Errorf("permit %+v in INIT", holder.last)
	}
}
