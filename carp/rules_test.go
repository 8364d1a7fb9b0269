package carp

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

func TestMasterDownIsThreeBasePlusSkew(t *testing.T) {
	for _, test := range []struct {
		own, heard timing
		want       time.Duration
	}{
		{timing{1, 0}, timing{}, 3 * time.Second},
		{timing{1, 100}, timing{}, 3*time.Second + 390625*time.Microsecond},
		{timing{1, 254}, timing{9, 9}, 3*time.Second + 254*unit},
		{timing{10, 1}, timing{}, 30*time.Second + unit},
		{timing{0, 64}, timing{}, 750*time.Millisecond + 250*time.Millisecond},
		{timing{0, 64}, timing{0, 128}, 1500*time.Millisecond + 250*time.Millisecond},
		{timing{0, 64}, timing{1, 0}, 750*time.Millisecond + 250*time.Millisecond},
	} {
		if got := masterDown(test.own, test.heard); got != test.want {
			t.Errorf("masterDown(%v, %v) = %v, want %v", test.own, test.heard, got, test.want)
		}
	}
}

func TestEffectiveSkewIsClampedOnBothSides(t *testing.T) {
	for _, test := range []struct {
		skew     uint8
		demotion int
		want     uint8
	}{{0, 0, 0}, {100, 0, 100}, {250, 0, 240}, {0, 240, 240}, {100, 2880, 240}, {100, -1, 99}, {0, -1, 0}, {10, -240, 0}} {
		if got := effectiveSkew(test.skew, test.demotion); got != test.want {
			t.Errorf("effectiveSkew(%d, %d) = %d, want %d", test.skew, test.demotion, got, test.want)
		}
	}
}

func TestLowerComparesTheLastOctetFirst(t *testing.T) {
	for _, test := range []struct {
		a, b   string
		is, ok bool
	}{
		{"10.0.0.1", "10.0.0.2", true, true},
		{"10.0.0.2", "10.0.0.1", false, true},
		{"10.0.9.1", "10.0.0.2", true, true}, // .1 before .2, whatever comes first
		{"10.0.0.2", "9.9.9.1", false, true},
		{"10.0.0.1", "10.0.0.1", false, false},
		{"0.0.0.0", "10.0.0.1", false, false},
		{"fe80::1:2", "fe80::2:1", false, true},
	} {
		is, ok := lower(netip.MustParseAddr(test.a), netip.MustParseAddr(test.b))
		if is != test.is || ok != test.ok {
			t.Errorf("lower(%s, %s) = %v, %v", test.a, test.b, is, ok)
		}
	}
}

func TestSilenceMakesAMasterAfterTheMasterDownTime(t *testing.T) {
	r := newRig(t)
	r.want("INIT->BACKUP link-up")
	r.run(3*time.Second + 390*time.Millisecond)
	r.want("")
	r.run(time.Millisecond)
	r.want("BACKUP->MASTER master-timed-out, send 1/100, permit")
	r.run(1390 * time.Millisecond)
	r.want("")
	r.run(time.Millisecond)
	r.want("send 1/100, permit")
}

func TestLeasedMasterAdvertisesEachAdvbase(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Leased = true }, skew(254)).master()
	r.run(time.Second)
	r.want("send 1/240, permit")
}

func TestPermitEndsBeforeTheFastestBackupTakesOver(t *testing.T) {
	r := newRig(t).master()
	if want := r.now.Add(2900 * time.Millisecond); r.permit.Until != want || r.permit.Epoch == 0 {
		t.Errorf("permit %+v, want until %d", r.permit, want)
	}
}

func TestBackupFollowsAndRestartsItsClock(t *testing.T) {
	r := newRig(t)
	r.take()
	for range 20 {
		r.run(3 * time.Second)
		r.hear(peerLow, 1, 0)
	}
	r.want("")
	r.state(Backup)
}

func TestWithoutPreemptASlowerMasterIsLeftAlone(t *testing.T) {
	r := newRig(t)
	r.take()
	r.hear(peerLow, 1, 200)
	r.want("")
}

func TestPreemptionSaysSoFirstAndWaitsForTheFarewell(t *testing.T) {
	r := newRig(t, preempting)
	r.take()
	r.hear(peerLow, 1, 200)
	r.want("BACKUP->MASTER preempting, send 1/100")
	r.run(20 * time.Millisecond)
	r.hear(peerLow, 1, 200)              // the old master's farewell
	r.want("permit, send 1/100, permit") // and the answer, or it is said again
}

func TestPreemptionOfASilentYielderWaitsForTheGrace(t *testing.T) {
	r := newRig(t, preempting)
	r.hear(peerLow, 1, 200)
	r.take()
	r.run(99 * time.Millisecond)
	r.want("")
	r.run(time.Millisecond)
	r.want("permit")
}

// A master says at once that it has been demoted, whether it has heard of this node or not.
func TestWordOfADemotionIsNoFarewell(t *testing.T) {
	r := newRig(t, preempting)
	r.hear(peerLow, 1, 200)
	r.take()
	r.run(20 * time.Millisecond)
	r.hear(peerLow, 1, 240)
	r.run(79 * time.Millisecond)
	r.want("")
	r.run(time.Millisecond)
	r.want("permit")
}

// Nor is there anything to say of a demotion that changes no weight.
func TestDemotionThatChangesNoWeightIsNotSaid(t *testing.T) {
	r := newRig(t).master()
	r.do(r.e.Demote(r.now, "x", 240))
	r.take()
	r.do(r.e.Demote(r.now, "y", 50))
	r.want("")
	r.do(r.e.Demote(r.now, "x", 0))
	r.want("send 1/150, permit")
}

func TestSecondFormOfTheSameRoundIsNoFarewell(t *testing.T) {
	r := newRig(t, preempting)
	p := r.advert(peerLow, 1, 200)
	r.do(r.e.Receive(r.now, p))
	r.take()
	r.do(r.e.Receive(r.now, p)) // a roll sends each round under two digests, with one counter
	r.want("drop repeat")
	r.hear(peerLow, 1, 200)
	r.want("permit, send 1/100, permit") // and the answer, or it is said again
}

func TestOtherFamilyOfTheOldMasterIsNoFarewell(t *testing.T) {
	r := newRig(t, preempting, dual)
	r.hear(peerLow, 1, 200)
	r.take()
	r.hear(netip.MustParseAddr("fe80::1"), 1, 200)
	r.want("")
}

func TestPreemptDelayCountsFromLinkUp(t *testing.T) {
	r := newRig(t, preempting, func(c *Config) { c.PreemptDelay = 10 * time.Second })
	for range 9 {
		r.run(time.Second)
		r.hear(peerLow, 1, 200)
	}
	r.state(Backup)
	r.run(time.Second)
	r.hear(peerLow, 1, 200)
	r.state(Master)
}

func TestPreemptionLooksAtTheBestMasterNotAtTheLastPacket(t *testing.T) {
	r := newRig(t, preempting)
	r.hear(peerLow, 1, 0)
	r.take()
	r.hear(peerHigh, 1, 200)
	r.want("")
	r.run(masterDown(r.e.cfg.timing(), timing{}) - time.Millisecond)
	r.hear(peerHigh, 1, 200)
	r.want("")
	r.run(time.Millisecond) // the better one has been silent for too long
	r.hear(peerHigh, 1, 200)
	r.want("BACKUP->MASTER preempting, send 1/100")
}

func TestSlowerThanDeadMasterIsReplacedAtOnce(t *testing.T) {
	for _, test := range []struct {
		base, skew uint8
		want       State
	}{{3, 100, Backup}, {3, 101, Master}, {4, 0, Master}, {2, 0, Backup}} {
		r := newRig(t)
		r.hear(peerLow, test.base, test.skew)
		r.state(test.want)
	}
}

func TestMasterYieldsToABetterOneAndSaysFarewellOnceTheAddressesAreGone(t *testing.T) {
	r := newRig(t).master()
	r.hear(peerHigh, 1, 99)
	r.want("MASTER->BACKUP better-master")
	r.do(r.e.Released(r.now, nil))
	r.want("send 1/100")
	r.do(r.e.Released(r.now, nil))
	r.want("")
	r.run(3 * time.Second)
	r.want("")
}

func TestNoFarewellWhileTheAddressesMayBeHere(t *testing.T) {
	r := newRig(t).master()
	r.hear(peerHigh, 1, 99)
	r.take()
	r.do(r.e.Released(r.now, errors.New("netlink")))
	r.want("")
}

func TestTieIsWonByTheLowerAddress(t *testing.T) {
	r := newRig(t).master()
	r.hear(peerHigh, 1, 100)
	r.state(Master)
	r.hear(peerLow, 1, 100)
	r.state(Backup)
	// The loser waits a random part of an interval more: here 128/256 s.
	r.take()
	r.run(masterDown(r.e.cfg.timing(), timing{}) + 128*unit - time.Millisecond)
	r.state(Backup)
	r.run(time.Millisecond)
	r.state(Master)
}

func TestTieIsDecidedOnIPv4WhereThereIsOne(t *testing.T) {
	r := newRig(t, dual).master()
	r.hear(netip.MustParseAddr("fe80::1"), 1, 100)
	r.want("")
	r.state(Master)
}

func TestTieWithoutUsableAddressesIsDecidedByMAC(t *testing.T) {
	for _, test := range []struct {
		mac  MAC
		want State
	}{
		{MAC{2, 0, 0, 0, 0, 9}, Master},
		{MAC{2, 0, 0, 0, 0, 1}, Backup},
		{VirtualMAC(9), Backup}, // tells nothing: yield, as the BSDs do, and meet again at another time
	} {
		r := newRig(t).master()
		p := r.advert(netip.IPv4Unspecified(), 1, 100)
		p.SrcMAC = test.mac
		r.do(r.e.Receive(r.now, p))
		r.state(test.want)
	}
}

func TestMasterThatStaysAgainstAnotherAnnouncesInANewEpoch(t *testing.T) {
	r := newRig(t).master()
	before := r.e.epoch
	r.hear(peerLow, 1, 200)
	r.want("MASTER->MASTER contested, permit, announce, send 1/100, permit")
	if r.permit.Epoch != r.e.epoch {
		t.Errorf("the permit is for epoch %d, not for %d", r.permit.Epoch, r.e.epoch)
	}
	if r.e.epoch <= before {
		t.Errorf("epoch %d after %d", r.e.epoch, before)
	}
	r.run(500 * time.Millisecond)
	r.hear(peerLow, 1, 200) // the same contest: announced again, and told to the other
	r.want("announce, send 1/100, permit")
	r.run(30 * time.Second)
	r.take()
	r.hear(peerLow, 1, 200)
	if got := r.take(); got[:len("MASTER->MASTER contested")] != "MASTER->MASTER contested" {
		t.Errorf("a later contest: %s", got)
	}
}

// A master's last advert may have been lost, or have passed on its way that of another
// which has just become master too. The other answers for the addresses until it hears
// the next: that comes at once, and the further ones of a contest within a quarter of
// an interval of each other.
func TestMasterThatHasJustSpokenAnswersAnotherSoon(t *testing.T) {
	for name, reach := range map[string]func() *rig{
		"CARP": func() *rig { return newRig(t).master() },
		"VRRP": func() *rig { return newVRRP(t).master() },
	} {
		r := reach()
		hear := func() {
			r.now = r.now.Add(time.Millisecond)
			if r.e.cfg.Protocol.VRRP() {
				r.hearRouter(peerLow, 50)
			} else {
				r.hear(peerLow, 1, 200)
			}
		}
		hear()
		first := r.e.lastSent
		if first != r.now {
			t.Errorf("%s: the first answer came %v early", name, r.now.Sub(first))
		}
		hear()
		hear()
		if r.e.lastSent != first {
			t.Errorf("%s: each advert is answered", name)
		}
		second := first.Add(r.e.interval() / 4)
		r.run(second.Sub(r.now))
		if r.e.lastSent != second {
			t.Errorf("%s: the second answer %v after the first", name, r.e.lastSent.Sub(first))
		}
		r.run(r.e.interval() - time.Nanosecond)
		if r.e.lastSent != second {
			t.Errorf("%s: and another %v later", name, r.e.lastSent.Sub(second))
		}
	}
}

func TestBowOutCountsOnlyFromTheMasterFollowed(t *testing.T) {
	r := newRig(t)
	r.hear(peerLow, 1, 0)
	r.take()
	r.hear(peerHigh, 255, 255)
	r.want("drop bow-out")
	r.hear(peerLow, 255, 255)
	r.want("")
	r.run(9 * time.Millisecond)
	r.want("")
	r.run(time.Millisecond) // advskew / 10 ms
	r.want("BACKUP->MASTER bow-out, send 1/100, permit")
}

func TestOfBackupsTheBetterOneTakesTheOfferedRole(t *testing.T) {
	r := newRig(t)
	r.hear(peerLow, 1, 0)
	r.hear(peerLow, 255, 255)
	r.run(5 * time.Millisecond)
	r.hear(peerHigh, 1, 50)
	r.run(2 * time.Second)
	r.state(Backup)
}

func TestBowOutOfADualStackMasterIsOneBowOut(t *testing.T) {
	r := newRig(t, dual)
	six := netip.MustParseAddr("fe80::1")
	r.hear(peerLow, 1, 0)
	r.hear(six, 1, 0)
	r.take()
	r.hear(peerLow, 255, 255)
	r.hear(six, 255, 255)
	r.run(10 * time.Millisecond)
	r.want("drop bow-out, BACKUP->MASTER bow-out, send 1/100, send 1/100, permit")
}

func TestPlannedStopKeepsAdvertisingUntilReleasedThenBowsOut(t *testing.T) {
	r := newRig(t).master()
	r.do(r.e.Resign(r.now, Init, ReasonStopping))
	r.want("MASTER->RELEASING stopping")
	r.run(1400 * time.Millisecond)
	r.want("send 1/100, permit")
	r.do(r.e.Released(r.now, nil))
	r.want("RELEASING->INIT released, send 255/255")
	r.run(time.Minute)
	r.want("")
	r.do(r.e.LinkDown(r.now))
	r.do(r.e.LinkUp(r.now, rigLocal))
	r.want("")
}

func TestReleaseThatFailedIsNotBowedOut(t *testing.T) {
	r := newRig(t).releasing()
	r.do(r.e.Released(r.now, errors.New("busy")))
	r.want("RELEASING->BACKUP release-failed")
}

func TestHandoverThatNobodyTakesComesBack(t *testing.T) {
	r := newRig(t).releasing()
	r.do(r.e.Released(r.now, nil))
	r.want("RELEASING->BACKUP released, send 255/255")
	r.run(2*r.e.cfg.timing().interval() - time.Millisecond)
	r.want("")
	r.run(time.Millisecond)
	r.want("BACKUP->MASTER nobody-took-over, send 1/100, permit")
}

func TestHandoverThatIsTakenIsOver(t *testing.T) {
	r := newRig(t, preempting).releasing()
	r.do(r.e.Released(r.now, nil))
	r.take()
	for range 10 {
		r.hear(peerHigh, 1, 200)
		r.run(time.Second)
	}
	r.want("")
	r.do(r.e.Demote(r.now, OwnerHandover, 0))
	r.hear(peerHigh, 1, 200)
	r.state(Master)
}

func TestDemotionWhileReleasingCallsNobodyIn(t *testing.T) {
	r := newRig(t).releasing()
	if r.e.timing().skew != 240 {
		t.Error("a handover does not demote")
	}
	r.do(r.e.Demote(r.now, "x", 7))
	r.want("")
	r.run(2 * time.Second)
	r.want("send 1/100, permit")
}

func TestMasterHeardWhileReleasingMakesTheBowOutNeedless(t *testing.T) {
	r := newRig(t).releasing()
	r.hear(peerLow, 1, 0)
	r.want("RELEASING->BACKUP better-master")
	r.do(r.e.Released(r.now, nil))
	r.want("send 1/100") // the farewell
}

func TestReleasingKeepsThePermitOfWhatIsStillHeldAndGivesNone(t *testing.T) {
	r := newRig(t).releasing()
	r.run(2 * time.Second)
	r.want("send 1/100, permit")

	r = newRig(t, preempting)
	r.hear(peerLow, 1, 200)
	r.do(r.e.Resign(r.now, Init, ReasonStopping)) // before the old master has let go
	r.take()
	r.run(2 * time.Second)
	r.want("send 1/100")
}

func TestStopIsNeverTakenBack(t *testing.T) {
	r := newRig(t).master()
	r.do(r.e.Resign(r.now, Init, ReasonStopping))
	r.do(r.e.Resign(r.now, Backup, ReasonHandover))
	r.do(r.e.Released(r.now, nil))
	r.state(Init)

	r = newRig(t).master()
	r.now = r.now.Add(10 * time.Second)
	r.take()
	r.do(r.e.Resign(r.now, Init, ReasonStopping)) // frozen, told to stop, thawed
	r.want("MASTER->INIT stopping")
	r.run(time.Minute)
	r.want("")
}

func TestStalledMasterSaysNoFarewell(t *testing.T) {
	r := newRig(t, skew(0)).master()
	r.now = r.now.Add(10 * time.Second)
	r.do(r.e.Tick(r.now))
	r.want("MASTER->BACKUP stalled")
	r.do(r.e.Released(r.now, nil)) // 1/0 would depose the node that took over
	r.want("")
}

func TestFarewellSaysWhatTheNodeWasWhenItYielded(t *testing.T) {
	r := newRig(t, skew(0)).master()
	r.do(r.e.Demote(r.now, "disk", 240))
	r.hear(peerHigh, 1, 100)
	r.do(r.e.Demote(r.now, "disk", 0))
	r.take()
	r.do(r.e.Released(r.now, nil))
	r.want("send 1/240")
}

func TestDemotionOfAStalledNodeIsNotLost(t *testing.T) {
	r := newRig(t).master()
	r.now = r.now.Add(10 * time.Second)
	r.do(r.e.Demote(r.now, "disk", 50))
	r.state(Backup)
	if r.e.demotion != 50 {
		t.Errorf("demotion %d", r.e.demotion)
	}
}

func TestFailureOfAStalledNodeHoldsItBack(t *testing.T) {
	r := newRig(t).master()
	r.now = r.now.Add(10 * time.Second)
	r.do(r.e.Failed(r.now, r.e.epoch))
	if r.e.timers[timerHold] == 0 {
		t.Error("it may try again at once")
	}
}

func TestDemotedMasterWithoutAdvbaseDoesNotStallByItself(t *testing.T) {
	r := newRig(t, func(c *Config) { c.AdvBase, c.AdvSkew = 0, 10 }).master()
	r.do(r.e.Demote(r.now, "disk", 240))
	for range 100 {
		r.now = r.deadline()
		r.do(r.e.Tick(r.now))
		r.state(Master)
	}
}

func TestContestWhileTheGuardIsAskedKeepsTheEpochAskedFor(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Guarded = true }).master()
	epoch := r.e.epoch
	r.hear(peerLow, 1, 200)
	r.take()
	r.do(r.e.Granted(r.now, epoch))
	r.want("permit")
}

func TestContestDoesNotChangeHowTheNodeBecameMaster(t *testing.T) {
	r := newRig(t).master()
	since := r.e.since
	r.run(time.Second)
	r.hear(peerLow, 1, 200)
	if s := r.e.Status(r.now); s.Since != since || s.Reason != ReasonTimedOut || s.ContestedUntil == 0 {
		t.Errorf("status %+v", s)
	}
}

func TestOtherFormOfAnAcceptedAdvertIsNoForgery(t *testing.T) {
	master := newRig(t).master()
	backup := newRig(t)
	e, err := master.e.Reconfigure(master.now, rigConfig(func(c *Config) { c.Passphrase = []byte("new") }))
	if err != nil {
		t.Fatal(err)
	}
	var drops []Drop
	for _, f := range e.Send {
		drops = append(drops, backup.e.Receive(backup.now, Packet{
			Src: peerLow, Dst: f.Dst, TTL: 255, Broadcast: true, Payload: f.Payload,
		}).Drop)
	}
	if len(drops) != 2 || drops[0] != Accepted || drops[1] != DropRolling {
		t.Errorf("drops %v", drops)
	}
}

func TestDemotionIsSaidAtOnceAndMovesNothing(t *testing.T) {
	r := newRig(t).master()
	r.do(r.e.Demote(r.now, "disk", 50))
	r.want("send 1/150, permit")
	r.do(r.e.Demote(r.now, "disk", 50))
	r.want("")
	r.do(r.e.Demote(r.now, "net", 20))
	r.want("send 1/170, permit")
	r.do(r.e.Demote(r.now, "disk", 0))
	r.want("send 1/120, permit")
	r.do(r.e.Demote(r.now, "net", 0))
	r.want("send 1/100, permit")
}

func TestDemotedBackupStillTakesOverFromASilentMaster(t *testing.T) {
	r := newRig(t)
	r.do(r.e.Demote(r.now, "disk", 240))
	r.take()
	r.run(masterDown(timing{1, 100}, timing{}))
	r.want("BACKUP->MASTER master-timed-out, send 1/240, permit")
}
