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
	if want := before.Add(PermitTime(fastestDown(timing{1, 0}))); holder.last.Until != want || link.sent != 2 {
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

func TestIntervals(t *testing.T) {
	for _, test := range []struct {
		own                    timing
		interval, down, permit time.Duration
	}{
		{timing{0, 0}, unit, 3 * unit, 3 * unit * 9 / 10},
		{timing{0, 1}, unit, 3 * unit, 3 * unit * 9 / 10},
		{timing{0, 64}, 250 * time.Millisecond, 750 * time.Millisecond, 675 * time.Millisecond},
		{timing{1, 0}, time.Second, 3 * time.Second, 2900 * time.Millisecond},
		{timing{1, 128}, 1500 * time.Millisecond, 3 * time.Second, 2900 * time.Millisecond},
		{timing{2, 0}, 2 * time.Second, 6 * time.Second, 5900 * time.Millisecond},
	} {
		// Tenths of 1/256 s are not whole nanoseconds.
		near := func(a, b time.Duration) bool { return a-b < 2 && b-a < 2 }
		if got := test.own.interval(); got != test.interval {
			t.Errorf("%v: interval %v, want %v", test.own, got, test.interval)
		}
		if got := FastestDown(test.own.base, test.own.skew); got != test.down {
			t.Errorf("%v: fastest master-down time %v, want %v", test.own, got, test.down)
		}
		if got := PermitTime(fastestDown(test.own)); !near(got, test.permit) {
			t.Errorf("%v: permit for %v, want %v", test.own, got, test.permit)
		}
	}
}

func TestLowerLooksAtEveryOctet(t *testing.T) {
	for _, test := range []struct{ a, b string }{
		{"10.0.1.5", "10.0.2.5"}, {"10.1.0.5", "10.2.0.5"}, {"10.0.0.5", "11.0.0.5"}, {"fc80::1", "fe80::1"},
	} {
		a, b := netip.MustParseAddr(test.a), netip.MustParseAddr(test.b)
		if is, ok := lower(a, b); !is || !ok {
			t.Errorf("lower(%v, %v) = %v, %v", a, b, is, ok)
		}
		if is, ok := lower(b, a); is || !ok {
			t.Errorf("lower(%v, %v) = %v, %v", b, a, is, ok)
		}
	}
	four := netip.MustParseAddr("10.0.0.1")
	if is, ok := lower(four, netip.AddrFrom16(four.As16())); is || ok {
		t.Error("an address is lower than its mapped form")
	}
}

func TestMACsOfGroupsTellNobodyApart(t *testing.T) {
	for _, test := range []struct {
		mac  MAC
		want bool
	}{
		{MAC{0, 0, 0x5e, 0, 1, 9}, true},
		{MAC{0, 0, 0x5e, 0, 0, 9}, true},
		{MAC{0, 0, 0x5e, 0, 2, 9}, true}, // VRRP over IPv6
		{MAC{0, 0, 0x5e, 0, 3, 9}, false},
		{MAC{0, 0, 0x5e, 1, 1, 9}, false},
		{MAC{0, 0, 0x5f, 0, 1, 9}, false},
		{MAC{0, 1, 0x5e, 0, 1, 9}, false},
		{MAC{2, 0, 0x5e, 0, 1, 9}, false},
	} {
		if got := virtual(test.mac); got != test.want {
			t.Errorf("virtual(%v) = %v", test.mac, got)
		}
	}
}

func TestTieIsDecidedWithinAFamilyThenByMACOrNotAtAll(t *testing.T) {
	local := Local{
		IPv4: netip.MustParseAddr("192.0.2.9"), IPv6: netip.MustParseAddr("fe80::5%eth0"), MAC: MAC{2, 0, 0, 0, 0, 5},
	}
	for _, test := range []struct {
		src      string
		mac      MAC
		wins, ok bool
	}{
		{"192.0.2.10", MAC{}, true, true},
		{"192.0.2.8", MAC{}, false, true},
		{"fe80::6", MAC{}, true, true},
		{"fe80::4", MAC{}, false, true},
		{"0.0.0.0", MAC{2, 0, 0, 0, 0, 6}, true, true},
		{"0.0.0.0", MAC{2, 0, 0, 0, 0, 4}, false, true},
		{"0.0.0.0", MAC{2, 0, 0, 0, 0, 5}, false, false},
		{"0.0.0.0", MAC{}, false, false},
		{"0.0.0.0", VirtualMAC(9), false, false},
	} {
		wins, ok := winsTie(local, &Packet{Src: netip.MustParseAddr(test.src), SrcMAC: test.mac})
		if wins != test.wins || ok != test.ok {
			t.Errorf("against %s %v: %v, %v", test.src, test.mac, wins, ok)
		}
	}
}

func TestScopeOfLinkLocalAddressesIsNotHashed(t *testing.T) {
	digest := func(addr string, opt DigestOptions) [20]byte {
		return NewDigest(9, []byte("secret"), []netip.Addr{netip.MustParseAddr(addr), rigAddr6}, opt).Sum(7)
	}
	plain := digest("fe80::1", DigestOptions{})
	if digest("fe80:5:6::1", DigestOptions{}) == plain {
		t.Error("other parts than the scope are left out")
	}
	if digest("fe80:5::1", DigestOptions{}) != plain || digest("fe80:500::1", DigestOptions{}) != plain {
		t.Error("the scope that a BSD kernel keeps in the address is hashed")
	}
	if digest("fe80::1", DigestOptions{SkipLinkLocal: true}) == plain {
		t.Error("link-local addresses are hashed though they are to be left out")
	}
}

func TestOpenBSDsFormWithoutLinkLocalAddressesIsAccepted(t *testing.T) {
	addrs := func(c *Config) { c.Addresses = []netip.Addr{rigAddr6, netip.MustParseAddr("fe80::50")} }
	for _, test := range []struct {
		compat Compat
		want   string
	}{{CompatNone, ""}, {CompatBSD, "drop hash"}} {
		r := newRig(t, addrs, func(c *Config) { c.Compat = test.compat })
		r.take()
		p := r.advert(netip.MustParseAddr("fe80::1"), 1, 0)
		var a Advert
		if d := a.Decode(p.Payload, p.Src, p.Dst); d != Accepted {
			t.Fatal(d)
		}
		if want := binary.BigEndian.Uint16(p.Payload[6:]); a.Checksum != want {
			t.Errorf("checksum %#x, want %#x", a.Checksum, want)
		}
		a.Digest = NewDigest(9, []byte("secret"), r.e.cfg.Addresses, DigestOptions{SkipLinkLocal: true}).Sum(a.Counter)
		p.Payload = a.Append(nil)
		r.do(r.e.Receive(r.now, p))
		r.want(test.want)
	}
}

func TestLinkUpAgainKeepsWhatCountsFromTheFirst(t *testing.T) {
	r := newRig(t, preempting, func(c *Config) { c.PreemptDelay = 10 * time.Second })
	for range 10 {
		r.run(time.Second)
		r.hear(peerLow, 1, 200)
		r.do(r.e.LinkUp(r.now, rigLocal)) // an address came or went
	}
	r.run(time.Second)
	r.hear(peerLow, 1, 200)
	r.state(Master)
}

func TestSendErrorsAreForgivenAfterThreeSuccessesInARow(t *testing.T) {
	r := newRig(t).master()
	send := func(fails bool) {
		r.sendErr = fails
		r.now = r.now.Add(100 * time.Millisecond)
		r.do(r.e.Renew(r.now))
	}
	sent := r.e.counters.Sent
	for _, fails := range []bool{true, true, true, false, false, true, false, false} {
		send(fails)
	}
	if r.e.demotions[OwnerSendErrors] != sendErrorDemote {
		t.Error("forgiven after two successes")
	}
	if got := r.e.counters.Sent - sent; got != 4 {
		t.Errorf("%d rounds counted, 4 sent", got)
	}
	send(false)
	if r.e.demotions[OwnerSendErrors] != 0 {
		t.Error("not forgiven after three")
	}
}

func TestWithoutAdvbaseNoMasterIsTooSlow(t *testing.T) {
	r := newRig(t, func(c *Config) { c.AdvBase, c.AdvSkew = 0, 10 })
	r.take()
	r.hear(peerLow, 1, 0)
	r.want("")
}

func TestPacketsOfAContestDoNotSetThePace(t *testing.T) {
	r := newRig(t).master()
	r.hear(peerLow, 1, 200)
	r.take()
	for range 100 { // within a quarter of the interval
		r.run(3 * time.Millisecond)
		r.hear(peerLow, 1, 200)
	}
	r.want("")
	r.run(100 * time.Millisecond)
	r.hear(peerLow, 1, 200)
	r.want("send 1/100, permit, announce")
}

func TestBackupKeepsAClockForAFamilyThatIsAdded(t *testing.T) {
	each := func(c *Config) { c.Families = FamiliesEach }
	six := func(c *Config) { c.Addresses = []netip.Addr{rigAddr6} }
	for name, test := range map[string]struct{ from, to []func(*Config) }{
		"each instead of shared": {[]func(*Config){dual}, []func(*Config){dual, each}},
		"one more":               {[]func(*Config){each}, []func(*Config){dual, each}},
		"the other one":          {[]func(*Config){each}, []func(*Config){six, each}},
		"one less":               {[]func(*Config){dual, each}, []func(*Config){six, each}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, test.from...)
			e, err := r.e.Reconfigure(r.now, rigConfig(test.to...))
			if err != nil {
				t.Fatal(err)
			}
			r.do(e)
			if four := r.e.timers[timerDown] != 0; four != r.e.cfg.has(IPv4) {
				t.Errorf("clock of IPv4: %v", four)
			}
			if r.e.timers[timerDown6] == 0 {
				t.Error("no clock of IPv6")
			}
		})
	}
}

func TestWithoutGraceAPreemptingNodeServesAtOnce(t *testing.T) {
	r := newRig(t, preempting, func(c *Config) { c.PreemptGrace = -1 })
	r.take()
	r.hear(peerLow, 1, 200)
	r.want("BACKUP->MASTER preempting, send 1/100, permit")
}

func TestStopDuringAHandoverEndsInINIT(t *testing.T) {
	r := newRig(t).releasing()
	r.do(r.e.Resign(r.now, Init, ReasonStopping))
	r.do(r.e.Released(r.now, nil))
	r.want("RELEASING->INIT released, send 255/255")
	r.run(time.Minute)
	r.want("")
}

func TestBowOutHeardByAMasterIsNoContest(t *testing.T) {
	r := newRig(t).master()
	r.run(500 * time.Millisecond)
	r.hear(peerLow, 255, 255)
	r.want("announce")
	if s := r.e.Status(r.now); s.ContestedUntil != 0 {
		t.Errorf("contested until %v", s.ContestedUntil)
	}
}

func TestChangeOfFamiliesOfAMasterIsSaidAndNoMore(t *testing.T) {
	r := newRig(t).master()
	e, err := r.e.Reconfigure(r.now, rigConfig(dual))
	if err != nil {
		t.Fatal(err)
	}
	r.do(e)
	r.want("send 1/100, send 1/100, send 1/100, send 1/100, permit") // to either group, under either digest
	if r.e.timers[timerDown] != 0 {
		t.Error("a master waits for a master")
	}
}

func TestChangeOfTimingDoesNotStartABackupsClockAnew(t *testing.T) {
	r := newRig(t)
	r.hear(peerLow, 1, 0)
	before := r.e.timers[timerDown]
	r.run(time.Second)
	if _, err := r.e.Reconfigure(r.now, rigConfig(preempting)); err != nil {
		t.Fatal(err)
	}
	if r.e.timers[timerDown] != before {
		t.Error("a reload makes a backup wait longer")
	}
}
