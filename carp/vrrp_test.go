package carp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// vrrpConfig is version 3 over IPv4, priority 100, one second.
func vrrpConfig(c *Config) {
	c.Protocol, c.AdvBase, c.AdvSkew, c.Passphrase = VRRP3, 0, 0, nil
	c.Priority, c.Interval = 100, time.Second
}

func newVRRP(t *testing.T, set ...func(*Config)) *rig {
	t.Helper()
	return newRig(t, append([]func(*Config){vrrpConfig}, set...)...)
}

func version2(c *Config) { c.Protocol = VRRP2 }
func password(s string) func(*Config) {
	return func(c *Config) { c.Protocol, c.Passphrase = VRRP2, []byte(s) }
}
func priority(n uint8) func(*Config) {
	return func(c *Config) { c.Priority = n }
}
func every(d time.Duration) func(*Config) {
	return func(c *Config) { c.Interval = d }
}

// router makes a peer's packet: what this node would send, but for the changes.
func (r *rig) router(src netip.Addr, priority uint8, set ...func(*VRRPAdvert)) Packet {
	a := r.e.router.advert
	a.Priority = priority
	for _, f := range set {
		f(&a)
	}
	dst := Group(FamilyOf(src))
	return Packet{Src: src, Dst: dst, SrcMAC: MAC{2, 0, 0, 0, 0, 9}, TTL: 255, Broadcast: true, Payload: a.Append(nil, src, dst)}
}

func (r *rig) hearRouter(src netip.Addr, priority uint8, set ...func(*VRRPAdvert)) {
	r.do(r.e.Receive(r.now, r.router(src, priority, set...)))
}

func interval(d time.Duration) func(*VRRPAdvert) { return func(a *VRRPAdvert) { a.Interval = d } }

func listed(addrs ...string) func(*VRRPAdvert) {
	return func(a *VRRPAdvert) {
		var list []netip.Addr
		for _, s := range addrs {
			list = append(list, netip.MustParseAddr(s))
		}
		n := NewVRRPAdvert(a.Version, a.VRID, a.Priority, a.Interval, list)
		n.AuthType, n.Password, n.Sum = a.AuthType, a.Password, a.Sum
		*a = n
	}
}

func TestVRRPBackupFollowsAnEqualOrBetterMasterAndOutlastsAWorseOne(t *testing.T) {
	for _, test := range []struct {
		preempt bool
		theirs  uint8
		follows bool
	}{
		{true, 101, true}, {true, 100, true}, {true, 99, false}, {true, 255, true}, {true, 1, false},
		{false, 101, true}, {false, 100, true}, {false, 99, true}, {false, 1, true},
	} {
		r := newVRRP(t, func(c *Config) { c.Preempt = test.preempt })
		r.take()
		for range 6 {
			r.run(time.Second)
			r.hearRouter(peerHigh, test.theirs)
		}
		state := Backup
		if !test.follows {
			state = Master
		}
		if r.e.state != state {
			t.Errorf("preempt %v, a master of priority %d: %v, want %v", test.preempt, test.theirs, r.e.state, state)
		}
	}
}

func TestVRRPPreemptionComesWhenTheTimerFiresAndSaysWhy(t *testing.T) {
	r := newVRRP(t, preempting)
	r.take()
	r.run(3500 * time.Millisecond)
	r.hearRouter(peerHigh, 50)
	r.want("")
	r.run(109_374_999)
	r.want("")
	r.run(1)
	r.want("BACKUP->MASTER preempting, send 100") // no permit: the old master has the grace to let go
	r.run(DefaultGrace)
	r.want("permit")
}

func TestTheFarewellOfAPreemptedVRRPMasterEndsTheGrace(t *testing.T) {
	for _, test := range []struct {
		name  string
		since time.Duration // last advert of the old master before the takeover
		want  string
	}{
		{"out of turn: it has let go", 300 * time.Millisecond, "permit, send 100, permit"},
		{"in turn: perhaps it has not heard yet", 900 * time.Millisecond, ""},
	} {
		r := newVRRP(t, preempting)
		r.run(3609_375_000 - test.since)
		r.hearRouter(peerHigh, 50)
		r.run(test.since)
		r.take()
		r.run(time.Millisecond)
		r.hearRouter(peerHigh, 50)
		if got := r.take(); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		r.run(DefaultGrace)
		if !r.permit.Live(r.now) {
			t.Errorf("%s: no permit when the grace is over", test.name)
		}
	}
}

func TestAdvertsThatQueuedAreNoFarewell(t *testing.T) {
	r := newVRRP(t, preempting)
	r.run(3609_375_000 - 300*time.Millisecond)
	r.hearRouter(peerHigh, 50)
	r.run(300 * time.Millisecond)
	r.take()
	for _, came := range []time.Duration{700 * time.Millisecond, 1700 * time.Millisecond} { // both in turn, and handled at once
		p := r.router(peerHigh, 50)
		p.At = r.now.Add(came)
		r.do(r.e.Receive(r.now.Add(1800*time.Millisecond), p))
	}
	r.want("send 100, send 100") // no permit; it is told again of this one
}

func TestVRRPMasterYieldsToABetterOneAndStaysAgainstAWorse(t *testing.T) {
	for _, test := range []struct {
		src    netip.Addr
		theirs uint8
		want   string
	}{
		{peerLow, 101, "MASTER->BACKUP better-master"},
		{peerHigh, 255, "MASTER->BACKUP better-master"},
		{peerHigh, 100, "MASTER->BACKUP tie-lost"},
		{peerLow, 100, "MASTER->MASTER contested, permit, announce, send 100, permit"},
		{peerHigh, 99, "MASTER->MASTER contested, permit, announce, send 100, permit"},
		{peerHigh, 0, "announce, send 100, permit"}, // RFC 9568, 6.4.3: answered at once
	} {
		r := newVRRP(t).master()
		r.run(500 * time.Millisecond)
		r.hearRouter(test.src, test.theirs)
		if got := r.take(); got != test.want {
			t.Errorf("from %v priority %d:\n got %s\nwant %s", test.src, test.theirs, got, test.want)
		}
	}
}

func TestVRRPAfterYieldingWaitsByTheMastersIntervalAndAMasterUsesItsOwn(t *testing.T) {
	r := newVRRP(t).master()
	r.hearRouter(peerLow, 200, interval(2*time.Second))
	r.do(r.e.Released(r.now, nil))
	r.want("MASTER->BACKUP better-master, send 100")
	r.run(7_218_749_999)
	r.want("")
	r.run(1)
	r.want("BACKUP->MASTER master-timed-out, send 100, permit")
	if got := r.e.timers[timerAdvert].Sub(r.now); got != time.Second {
		t.Errorf("its own next advert in %v", got)
	}
	var a VRRPAdvert
	e := r.e.Tick(r.e.timers[timerAdvert])
	e.Send[0].Finish(rigLocal.IPv4)
	if d := a.Decode(e.Send[0].Payload, rigLocal.IPv4, e.Send[0].Dst); d != Accepted || a.Interval != time.Second {
		t.Errorf("it says an interval of %v (%v)", a.Interval, d)
	}
}

func TestAShorterIntervalOfAnotherDoesNotEndTheWaitForAMasterThatLives(t *testing.T) {
	for _, preempt := range []bool{false, true} {
		r := newVRRP(t, func(c *Config) { c.Preempt = preempt })
		r.hearRouter(peerHigh, 200, interval(3*time.Second))
		r.run(50 * time.Millisecond)
		r.hearRouter(peerLow, 150) // yields to the other: its farewell
		r.take()
		r.run(10_828_125_000 - 50*time.Millisecond - 1)
		r.want("")
		r.run(1)
		r.want("BACKUP->MASTER master-timed-out, send 100, permit")
	}
}

func TestVRRPPriorityZeroShortensTheWaitToTheSkew(t *testing.T) {
	r := newVRRP(t)
	r.hearRouter(peerHigh, 200)
	r.run(300 * time.Millisecond)
	r.take()
	r.hearRouter(peerHigh, 0)
	r.run(609_374_999)
	r.want("")
	r.run(1)
	r.want("BACKUP->MASTER bow-out, send 100, permit")
}

func TestVRRPPriorityZeroOfANodeThatIsNotFollowedCountsForNothing(t *testing.T) {
	r := newVRRP(t)
	r.hearRouter(peerHigh, 200)
	r.take()
	before := r.deadline()
	r.hearRouter(peerLow, 0)
	r.want("drop bow-out")
	if r.deadline() != before {
		t.Error("a timer was touched")
	}
}

func TestABetterNodeThatIsFirstAfterABowOutIsFollowed(t *testing.T) {
	r := newVRRP(t)
	r.hearRouter(peerHigh, 200)
	r.hearRouter(peerHigh, 0)
	r.run(500 * time.Millisecond)
	r.hearRouter(peerLow, 150)
	r.take()
	r.run(3 * time.Second)
	r.want("")
	r.state(Backup)
}

// One that left, and took the role back demoted, before the skew was over is preempted: it
// lives, and has its grace.
func TestAWorseNodeThatIsFirstAfterABowOutIsPreempted(t *testing.T) {
	for _, src := range []netip.Addr{peerHigh, peerLow} {
		r := newVRRP(t, preempting)
		r.hearRouter(peerHigh, 200)
		r.hearRouter(peerHigh, 0)
		r.run(500 * time.Millisecond)
		r.hearRouter(src, 50)
		r.take()
		r.run(109_374_999)
		r.want("")
		r.run(1)
		r.want("BACKUP->MASTER preempting, send 100")
		r.run(DefaultGrace)
		r.want("permit")
	}
}

func TestTheOwnerIsMasterAtOnceAndLeavesAnotherTheGrace(t *testing.T) {
	r := newVRRP(t, priority(OwnerPriority))
	r.want("INIT->MASTER address-owner, send 255")
	if r.e.change.Epoch == 0 {
		t.Error("the mastership has no epoch")
	}
	r.run(DefaultGrace)
	r.want("permit")
	r.do(r.e.LinkDown(r.now))
	r.do(r.e.LinkUp(r.now, rigLocal))
	r.want("MASTER->INIT link-down, INIT->MASTER address-owner, send 255")
}

func TestTwoOwnersSettleByAddress(t *testing.T) {
	for _, test := range []struct {
		src  netip.Addr
		want State
	}{{peerHigh, Backup}, {peerLow, Master}} {
		r := newVRRP(t, priority(OwnerPriority))
		r.run(time.Second)
		r.hearRouter(test.src, OwnerPriority)
		if r.e.state != test.want {
			t.Errorf("against the owner %v: %v", test.src, r.e.state)
		}
	}
}

func TestAnOwnerPreemptsThoughPreemptIsOff(t *testing.T) {
	r := newVRRP(t, priority(OwnerPriority))
	r.run(time.Second)
	r.do(r.e.Demote(r.now, "operator", 200)) // acts with priority 55 now
	r.hearRouter(peerHigh, 100)
	r.state(Backup)
	for range 5 {
		r.run(time.Second)
		r.hearRouter(peerHigh, 100)
	}
	r.state(Backup)
	r.do(r.e.Demote(r.now, "operator", 0))
	for range 4 {
		r.run(time.Second)
		r.hearRouter(peerHigh, 100)
	}
	r.state(Master)
}

func TestADemotionLowersThePriorityAndIsSaidAtOnce(t *testing.T) {
	r := newVRRP(t).master()
	r.do(r.e.Demote(r.now, "tracker", 30))
	r.want("send 70, permit")
	r.do(r.e.Demote(r.now, "tracker", 240))
	r.want("send 1, permit")
	r.do(r.e.Demote(r.now, "tracker", 0))
	r.want("send 100, permit")
	if st := r.e.Status(r.now); st.Priority != 100 || st.EffectivePriority != 100 || st.Interval != time.Second {
		t.Errorf("status %+v", st)
	}
}

func TestAPriorityThatRisesShortensTheWait(t *testing.T) {
	r := newVRRP(t, preempting, priority(200))
	r.do(r.e.Demote(r.now, "operator", 240))
	r.hearRouter(peerHigh, 100)
	r.run(500 * time.Millisecond)
	r.take()
	r.do(r.e.Demote(r.now, "operator", 0))
	if got, want := r.deadline().Sub(r.now), 3218_750_000-500*time.Millisecond; got != want {
		t.Errorf("takes over in %v, want %v", got, want)
	}
}

func TestVRRPTakeoverAndReleaseAreThoseOfCARP(t *testing.T) {
	r := newVRRP(t).master()
	r.do(r.e.Resign(r.now, Backup, ReasonHandover))
	r.want("MASTER->RELEASING handover")
	r.run(time.Second / 2)
	r.do(r.e.Released(r.now, nil))
	r.want("RELEASING->BACKUP released, send 0")
	r.run(2 * time.Second)
	r.want("BACKUP->MASTER nobody-took-over, send 100, permit")
	r.do(r.e.Resign(r.now, Init, ReasonStopping))
	r.do(r.e.Released(r.now, nil))
	r.want("MASTER->RELEASING stopping, RELEASING->INIT released, send 0")
}

func TestPreemptDelayHoldsVRRPBack(t *testing.T) {
	r := newVRRP(t, preempting, func(c *Config) { c.PreemptDelay = 10 * time.Second })
	for range 9 {
		r.run(time.Second)
		r.hearRouter(peerHigh, 50)
	}
	r.state(Backup)
	for range 5 {
		r.run(time.Second)
		r.hearRouter(peerHigh, 50)
	}
	r.state(Master)
}

func TestVRRPPermitsEndBeforeTheFastestBackupTakesOver(t *testing.T) {
	for _, test := range []struct {
		every, permit time.Duration
	}{{10 * time.Millisecond, 27 * time.Millisecond}, {100 * time.Millisecond, 270 * time.Millisecond}, {time.Second, 2900 * time.Millisecond}} {
		r := newVRRP(t, every(test.every)).master()
		if got := r.permit.Until.Sub(r.e.lastSent); got != test.permit {
			t.Errorf("interval %v: permit for %v, want %v", test.every, got, test.permit)
		}
		at := r.e.lastSent.Add(test.permit)
		if r.e.Stalled(at) || !r.e.Stalled(at+1) {
			t.Errorf("interval %v: stalls at another instant than the permit's end", test.every)
		}
	}
}

func TestVRRPReconfigure(t *testing.T) {
	r := newVRRP(t).master()
	change := func(set func(*Config)) error {
		c := r.e.cfg
		c.Addresses = slices.Clone(c.Addresses)
		set(&c)
		e, err := r.e.Reconfigure(r.now, c)
		r.do(e)
		return err
	}
	if err := change(priority(120)); err != nil {
		t.Fatal(err)
	}
	r.want("send 120, permit")
	if err := change(func(c *Config) { c.Addresses = append(c.Addresses, netip.MustParseAddr("192.0.2.51")) }); err != nil {
		t.Fatal(err)
	}
	r.want("send 120, permit")
	if got := r.e.router.advert.Count(); got != 2 {
		t.Errorf("%d addresses in the advert", got)
	}
	for name, set := range map[string]func(*Config){
		"protocol": version2,
		"family":   func(c *Config) { c.Addresses = []netip.Addr{rigAddr6} },
		"interval": every(15 * time.Millisecond),
	} {
		if err := change(set); err == nil {
			t.Errorf("another %s was taken", name)
		}
	}
	r.want("")
}

func TestVRRPValidateNamesEveryFault(t *testing.T) {
	many := make([]netip.Addr, 256)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})
	}
	many6 := make([]netip.Addr, 91)
	for i := range many6 {
		many6[i] = netip.AddrFrom16([16]byte{0x20, 1, 15: byte(i + 1)})
	}
	for _, test := range []struct {
		set  func(*Config)
		want string
	}{
		{func(c *Config) { c.AdvSkew = 1 }, "CARP's"},
		{func(c *Config) { c.Compat = CompatBSD }, "CARP's"},
		{func(c *Config) { c.Addresses = append(c.Addresses, rigAddr6) }, "one family"},
		{func(c *Config) { c.Peers = []netip.Addr{rigAddr6} }, "family of the addresses"},
		{func(c *Config) { c.Protocol, c.Addresses = VRRP2, []netip.Addr{rigAddr6} }, "version 2"},
		{func(c *Config) { c.Protocol, c.Interval = VRRP2, 400*time.Millisecond }, "whole seconds"},
		{func(c *Config) { c.Protocol, c.Interval = VRRP2, 256*time.Second }, "whole seconds"},
		{password("ninechars"), "at most 8"},
		{every(5 * time.Millisecond), "in steps of"},
		{every(15 * time.Millisecond), "in steps of"},
		{every(41 * time.Second), "in steps of"},
		{func(c *Config) { c.Passphrase = []byte("x") }, "no authentication"},
		{func(c *Config) { c.Checksum = ChecksumOldUnicast }, "can be sent"},
		{func(c *Config) { c.Addresses = many }, "at most 255"},
		{func(c *Config) { c.Addresses = many6 }, "at most 90"},
		{func(c *Config) { c.Protocol = 9 }, "Protocol(9)"},
		{func(c *Config) { c.Protocol, c.AdvBase = CARP, 1 }, "VRRP's"},
	} {
		_, err := NewEngine(rigConfig(vrrpConfig, test.set))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("want a fault with %q, got %v", test.want, err)
		}
	}
	if _, err := NewEngine(rigConfig(vrrpConfig, func(c *Config) { c.Priority, c.Interval = 0, 0 })); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}

func TestVRRPAdvertsAreWhatTheConfigurationSays(t *testing.T) {
	linkLocal := netip.MustParseAddr("fe80::5:33")
	for _, test := range []struct {
		name string
		set  []func(*Config)
		want string
	}{
		{"version 3", nil, "version 3 vrid 9 priority 100 interval 1s auth 0 \"\" pseudo-header [192.0.2.50]"},
		{"rfc9568", []func(*Config){func(c *Config) { c.Checksum = ChecksumRFC9568 }}, "version 3 vrid 9 priority 100 interval 1s auth 0 \"\" rfc9568 [192.0.2.50]"},
		{"version 2", []func(*Config){version2, every(5 * time.Second)}, "version 2 vrid 9 priority 100 interval 5s auth 0 \"\" pseudo-header [192.0.2.50]"},
		{"password", []func(*Config){password("s3cret")}, "version 2 vrid 9 priority 100 interval 1s auth 1 \"s3cret\" pseudo-header [192.0.2.50]"},
		{"IPv6, link-local first", []func(*Config){func(c *Config) { c.Addresses = []netip.Addr{rigAddr6, linkLocal} }},
			"version 3 vrid 9 priority 100 interval 1s auth 0 \"\" pseudo-header [fe80::5:33 2001:db8::50]"},
	} {
		r := newVRRP(t, test.set...)
		r.run(r.e.masterDown(bid{}) - 1)
		f := r.e.Tick(r.now + 1).Send[0]
		src := rigLocal.IPv4
		if f.Dst.Is6() {
			src = rigLocal.IPv6
		}
		f.Finish(src)
		var a VRRPAdvert
		if d := a.Decode(f.Payload, src, f.Dst); d != Accepted {
			t.Errorf("%s: %v", test.name, d)
			continue
		}
		var list []netip.Addr
		for i := range a.Count() {
			list = append(list, a.Address(i))
		}
		got := fmt.Sprintf("version %d vrid %d priority %d interval %v auth %d %q %v %v", a.Version, a.VRID, a.Priority,
			a.Interval, a.AuthType, strings.TrimRight(string(a.Password[:]), "\x00"), a.Sum, list)
		if got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.name, got, test.want)
		}
	}
}

func TestVRRPUnicastSpeaksToItsPeersOnly(t *testing.T) {
	peer := netip.MustParseAddr("10.9.0.2")
	r := newVRRP(t, func(c *Config) {
		c.Peers = []netip.Addr{peer, peerHigh}
		c.PeerTTL = map[netip.Addr]TTLBounds{peer: {Min: 254}, peerHigh: {Min: 60, Max: 64}}
	}).master()
	frames := r.e.Tick(r.deadline()).Send
	if len(frames) != 2 || frames[0].Dst != peer || frames[1].Dst != peerHigh {
		t.Fatalf("sent to %v", frames)
	}
	for _, test := range []struct {
		src  netip.Addr
		ttl  uint8
		drop Drop
	}{
		{peer, 254, Accepted}, {peer, 255, Accepted}, {peer, 253, DropTTL},
		{peerHigh, 60, Accepted}, {peerHigh, 64, Accepted}, {peerHigh, 65, DropTTL}, {peerHigh, 59, DropTTL},
		{peerLow, 255, DropPeer},
	} {
		p := r.router(test.src, 1)
		p.Dst, p.Broadcast, p.TTL = rigLocal.IPv4, false, test.ttl
		a := r.e.router.advert
		a.Priority = 1
		p.Payload = a.Append(nil, p.Src, p.Dst)
		if got := r.e.Receive(r.now, p).Drop; got != test.drop {
			t.Errorf("from %v with TTL %d: %v, want %v", test.src, test.ttl, got, test.drop)
		}
	}
}

func TestAGoodVRRPAdvertCostsNoAllocation(t *testing.T) {
	r := newVRRP(t)
	p := r.router(peerHigh, 200)
	if n := testing.AllocsPerRun(100, func() { r.e.Receive(r.now, p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
