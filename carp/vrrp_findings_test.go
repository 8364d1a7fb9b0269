package carp

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

var peerMid = netip.MustParseAddr("192.0.2.7")

// A handover that succeeded is undone by a node that, demoted, is still better.
func TestHandoverToAWorsePriorityIsNotUndone(t *testing.T) {
	r := newVRRP(t, priority(250), preempting).master()
	r.do(r.e.Resign(r.now, Backup, ReasonHandover))
	r.do(r.e.Released(r.now, nil))
	r.run(990 * time.Millisecond) // skew of priority 5
	for range 3 {
		r.hearRouter(peerHigh, 5)
		r.run(time.Second)
	}
	for _, l := range r.log {
		if l == "BACKUP->MASTER nobody-took-over" {
			t.Errorf("somebody took over: %v", r.log)
		}
	}
}

// pair: two engines on one wire, delivered at once.
type pair struct {
	t     *testing.T
	e     [2]*Engine
	local [2]Local
	mac   [2]MAC
	now   Instant
	log   []string
}

func newPair(t *testing.T, set ...func(*Config)) *pair {
	p := &pair{t: t, now: Instant(time.Second)}
	p.local = [2]Local{
		{IPv4: netip.MustParseAddr("192.0.2.9"), MAC: MAC{2, 0, 0, 0, 0, 9}},
		{IPv4: netip.MustParseAddr("192.0.2.5"), MAC: MAC{2, 0, 0, 0, 0, 5}},
	}
	p.mac = [2]MAC{p.local[0].MAC, p.local[1].MAC}
	for i := range p.e {
		own := func(c *Config) { c.Rand = rand.New(rand.NewPCG(uint64(i), 9)).Uint64 }
		e, err := NewEngine(rigConfig(append([]func(*Config){vrrpConfig, own}, set...)...))
		if err != nil {
			t.Fatal(err)
		}
		p.e[i] = e
	}
	return p
}

func (p *pair) do(i int, e Effects) {
	if e.Change != nil {
		p.log = append(p.log, time.Duration(p.now).String()+" "+string(rune('A'+i))+" "+e.Change.From.String()+"->"+e.Change.To.String()+" "+e.Change.Reason.String())
	}
	if len(e.Send) == 0 {
		return
	}
	var out []Packet
	for _, f := range e.Send {
		src := p.local[i].IPv4
		if !src.IsValid() {
			src = netip.IPv4Unspecified()
		}
		f.Finish(src)
		out = append(out, Packet{Src: src, Dst: f.Dst, SrcMAC: p.mac[i], TTL: 255, Broadcast: true, Payload: bytes.Clone(f.Payload)})
	}
	p.do(i, p.e[i].Sent(p.now))
	for _, q := range out {
		p.do(1-i, p.e[1-i].Receive(p.now, q))
	}
}

func (p *pair) up(i int) { p.do(i, p.e[i].LinkUp(p.now, p.local[i])) }

func (p *pair) run(d time.Duration) {
	end := p.now.Add(d)
	for {
		at, who := end, -1
		for i, e := range p.e {
			if x := e.finish().Deadline; x != 0 && x <= at && (who < 0 || x < at) {
				at, who = x, i
			}
		}
		p.now = max(p.now, at)
		if who < 0 {
			return
		}
		// both that are due tick before either hears the other
		var fx [2]*Effects
		for i, e := range p.e {
			if x := e.finish().Deadline; x != 0 && x <= p.now {
				f := e.Tick(p.now)
				fx[i] = &f
			}
		}
		for i := range fx {
			if fx[i] != nil {
				p.do(i, *fx[i])
			}
		}
	}
}

// RELEASING hears an equal master, gives way, and its farewell deposes the winner.
func TestTheFarewellOfAReleasingNodeDeposesNobody(t *testing.T) {
	p := newPair(t)
	p.up(0)
	p.run(4 * time.Second)
	p.up(1)
	p.run(100 * time.Millisecond)
	if p.e[0].state != Master || p.e[1].state != Backup {
		t.Fatal("setup")
	}
	p.do(0, p.e[0].SetState(p.now, Backup)) // A lets go, slowly
	p.run(50 * time.Millisecond)
	p.do(1, p.e[1].SetState(p.now, Master)) // B takes it, by an operator
	p.run(50 * time.Millisecond)
	p.do(0, p.e[0].Released(p.now, nil))
	if p.e[0].state != Master && p.e[1].state != Master {
		t.Errorf("nobody is master: %v %v; %q", p.e[0].state, p.e[1].state, p.log)
	}
}

// Equal nodes that nothing tells apart yield in lockstep, for ever.
func TestNodesThatNothingTellsApartDoNotFlapForEver(t *testing.T) {
	p := newPair(t)
	for i := range p.local {
		p.local[i].IPv4 = netip.Addr{}
		p.mac[i] = VirtualMAC(9)
	}
	p.up(0)
	p.up(1)
	p.run(60 * time.Second)
	n := len(p.log)
	p.run(60 * time.Second)
	if len(p.log)-n > 4 {
		t.Errorf("%d transitions in the second minute: %q", len(p.log)-n, p.log[n:n+6])
	}
}

// A followed master's bow-out does not count while an already deposed one is "fresh".
func TestABowOutCountsThoughADeposedMasterWasHeardLately(t *testing.T) {
	for _, preempt := range []bool{true, false} {
		r := newVRRP(t, priority(120), func(c *Config) { c.Preempt = preempt })
		r.hearRouter(peerMid, 110) // the old master
		r.run(200 * time.Millisecond)
		r.hearRouter(peerHigh, 200) // a better one preempts,
		r.hearRouter(peerMid, 110)  // the old one says farewell
		for range 2 {
			r.run(time.Second)
			r.hearRouter(peerHigh, 200)
		}
		r.take()
		r.run(10 * time.Millisecond)
		r.hearRouter(peerHigh, 0) // the better one leaves
		r.run(540 * time.Millisecond)
		if r.e.state != Master {
			t.Errorf("preempt %v: still %v after the skew; timer fires at +%v", preempt, r.e.state, r.deadline().Sub(r.now))
		}
	}
}

// "does not let a BACKUP take over while it lives"
func TestALivingMasterWithALongIntervalIsNotOutlasted(t *testing.T) {
	for _, own := range []time.Duration{10 * time.Millisecond, time.Second} {
		r := newVRRP(t, every(own))
		_, longest := intervalBounds(own) // one that is longer is taken for dead, as the manual says
		for range 3 {
			r.hearRouter(peerHigh, 200, interval(longest))
			r.run(longest)
		}
		if r.e.counters.Transitions > 1 {
			t.Errorf("own interval %v: %v", own, r.log)
		}
	}
}

// "one forged advert shall neither make a backup fire ..."
func TestOneForgedAdvertDoesNotMakeABackupFire(t *testing.T) {
	r := newVRRP(t)
	r.hearRouter(peerHigh, 200)
	r.run(time.Second)
	r.hearRouter(peerHigh, 200)
	r.run(100 * time.Millisecond)
	r.hearRouter(peerHigh, 200, interval(100*time.Millisecond)) // forged
	r.take()
	r.run(900 * time.Millisecond)
	r.want("")
}

// eight strangers make it forget the master that it follows
func TestStrangersDoNotEvictTheFollowedMaster(t *testing.T) {
	r := newVRRP(t)
	r.hearRouter(peerHigh, 200)
	r.run(time.Second)
	r.hearRouter(peerHigh, 200)
	r.run(100 * time.Millisecond)
	for i := range 8 {
		r.hearRouter(netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)}), 150, interval(100*time.Millisecond))
	}
	r.take()
	r.run(880 * time.Millisecond)
	r.want("")
}

func TestAnIntruderDoesNotSetThePaceOfContests(t *testing.T) {
	r := newVRRP(t, every(10*time.Millisecond)).master()
	n := r.e.counters.Transitions
	for range 200 { // ten seconds, one packet each 50 ms
		r.run(50 * time.Millisecond)
		r.hearRouter(peerLow, 1)
	}
	if got := r.e.counters.Transitions - n; got > 20 {
		t.Errorf("%d contests, each a new epoch and a run of hooks, in 10 s", got)
	}
	r.take()
	announces := 0
	for range 4000 { // ten seconds
		r.run(2500 * time.Microsecond)
		r.hearRouter(peerLow, 0)
	}
	for _, l := range r.log {
		if l == "announce" {
			announces++
		}
	}
	if announces > 200 {
		t.Errorf("%d announcements of all addresses in 10 s", announces)
	}
}

// One lost advert after a change of interval, and two have live permits.
func TestALongerIntervalGivesNoLongerPermitBeforeBackupsKnowIt(t *testing.T) {
	r := newVRRP(t).master()
	c := r.e.cfg
	c.Interval = 10 * time.Second
	e, err := r.e.Reconfigure(r.now, c)
	if err != nil {
		t.Fatal(err)
	}
	r.do(e) // suppose this one advert is lost: backups wait 3 s and their skew
	if d := r.permit.Until.Sub(r.now); d > 3*time.Second {
		t.Errorf("a permit for %v after one advert of the new interval", d)
	}
}

func TestABackupWhoseIntervalShrinksWaitsNoLonger(t *testing.T) {
	r := newVRRP(t, version2, every(255*time.Second))
	c := r.e.cfg
	c.Interval = time.Second
	e, err := r.e.Reconfigure(r.now, c)
	if err != nil {
		t.Fatal(err)
	}
	r.do(e)
	if d := r.deadline().Sub(r.now); d > 10*time.Second {
		t.Errorf("still waits %v", d)
	}
}

func TestARepeatedAddressIsADifference(t *testing.T) {
	r := newVRRP(t, func(c *Config) { c.Addresses = append(c.Addresses, netip.MustParseAddr("192.0.2.51")) })
	r.take()
	r.hearRouter(peerHigh, 200, listed("192.0.2.50", "192.0.2.50"))
	r.want("drop addresses")
}

func TestAppendStateTellsIncompatibleFromIgnored(t *testing.T) {
	two := listed("192.0.2.50", "192.0.2.51")
	make := func(set ...func(*VRRPAdvert)) *rig {
		r := newVRRP(t, preempting)
		r.hearRouter(peerMid, 50, append(set, interval(3*time.Second))...)
		r.hearRouter(peerHigh, 200)
		return r
	}
	one, other := make(two2(two)), make(func(*VRRPAdvert) {})
	same := bytes.Equal(one.e.AppendState(nil, one.now), other.e.AppendState(nil, other.now))
	one.take()
	other.take()
	one.run(4 * time.Second)
	other.run(4 * time.Second)
	if same && one.e.state != other.e.state {
		t.Errorf("equal bytes, and then %v and %v", one.e.state, other.e.state)
	}
}

func two2(f func(*VRRPAdvert)) func(*VRRPAdvert) { return f }

func TestADuplicateOfAnAdvertInTurnIsNoFarewell(t *testing.T) {
	r := newVRRP(t, preempting)
	r.run(3609_375_000 - 990*time.Millisecond)
	r.hearRouter(peerHigh, 50)
	r.run(990 * time.Millisecond)
	r.take()
	r.state(Master)
	r.run(10 * time.Millisecond)
	p := r.router(peerHigh, 50)
	r.do(r.e.Receive(r.now, p)) // in turn: it has not heard us
	r.do(r.e.Receive(r.now, p)) // the same frame once more (bond, mirrored port)
	r.want("")
}

// At 10 ms two regular adverts handled late, back to back.
func TestAdvertsHandledLateAreNoFarewell(t *testing.T) {
	r := newVRRP(t, preempting, every(10*time.Millisecond))
	for r.e.state != Master {
		r.hearRouter(peerHigh, 50)
		r.run(10 * time.Millisecond)
	}
	r.take()
	start := r.now
	r.now = start.Add(21 * time.Millisecond) // the loop was late
	for i := 1; i <= 2; i++ {
		p := r.router(peerHigh, 50)
		p.At = start.Add(time.Duration(i) * 10 * time.Millisecond)
		r.do(r.e.Receive(r.now, p))
	}
	r.want("send 100") // no permit; it is told again of this one
}

func TestOurOwnAdvertComeBackIsOursThoughWeHaveNoAddress(t *testing.T) {
	r := newVRRP(t)
	r.do(r.e.LinkUp(r.now, Local{MAC: rigLocal.MAC}))
	r.master()
	p := r.router(netip.IPv4Unspecified(), 100)
	p.SrcMAC = rigLocal.MAC
	r.do(r.e.Receive(r.now, p))
	r.want("drop own")
}

func TestTheTextOfALostTieIsTrueForVRRP(t *testing.T) {
	r := newVRRP(t).master()
	e := r.e.Receive(r.now, r.router(peerHigh, 100))
	if s := e.Change.String(); bytes.Contains([]byte(s), []byte("lower address")) {
		t.Errorf("lost to the HIGHER address: %s", s)
	}
}

func BenchmarkRevReceive255(b *testing.B) {
	for name, reverse := range map[string]bool{"same order": false, "reversed": true} {
		b.Run(name, func(b *testing.B) {
			var list []netip.Addr
			for i := range 255 {
				list = append(list, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
			}
			c := rigConfig(vrrpConfig)
			c.Addresses = list
			e, err := NewEngine(c)
			if err != nil {
				b.Fatal(err)
			}
			e.LinkUp(1, rigLocal)
			a := e.router.advert
			a.Priority = 200
			if reverse {
				l := []netip.Addr{}
				for i := range list {
					l = append(l, list[254-i])
				}
				a = NewVRRPAdvert(3, 9, 200, time.Second, l)
			}
			src := netip.MustParseAddr("192.0.3.1")
			p := Packet{Src: src, Dst: group4, TTL: 255, Broadcast: true, Payload: a.Append(nil, src, group4)}
			b.ReportAllocs()
			now := Instant(2)
			for b.Loop() {
				now++
				if d := e.Receive(now, p).Drop; d != Accepted {
					b.Fatal(d)
				}
			}
		})
	}
}

// A master that fell silent is preempted while its permit still lives.
func TestAMasterThatFellSilentIsNotPreemptedUnderItsPermit(t *testing.T) {
	r := newVRRP(t, priority(254), preempting)
	r.run(time.Second)
	r.hearRouter(peerHigh, 50) // its last advert: it hangs from here on, under a permit of 2.9 s
	last := r.now
	r.run(2900*time.Millisecond - 1)
	if r.permit.Live(r.now) {
		t.Errorf("acts as master %v after the last advert of a master whose permit lasts 2.9 s: %v", r.now.Sub(last), r.log)
	}
}

// A bow-out heard in the grace is remembered as a living master.
func TestALeaverIsNoLivingMaster(t *testing.T) {
	r := newVRRP(t, preempting)
	r.run(3500 * time.Millisecond)
	r.hearRouter(peerHigh, 50)
	r.run(110 * time.Millisecond)
	r.state(Master)
	r.hearRouter(peerHigh, 0)
	if s := r.e.Status(r.now).Master; s.Address.IsValid() {
		t.Errorf("the status names a master that has left: %+v", s)
	}
}

// The same with any priority, if the demotion of the handover is taken back at once.
func TestAHandoverWhoseDemotionIsTakenBackIsNotUndoneUnderALivePermit(t *testing.T) {
	r := newVRRP(t, priority(200), preempting).master()
	r.do(r.e.Resign(r.now, Backup, ReasonHandover))
	r.do(r.e.Released(r.now, nil))
	r.do(r.e.Demote(r.now, OwnerHandover, 0))
	r.run(time.Second)
	r.hearRouter(peerHigh, 100) // it took over, and has a permit
	r.run(999 * time.Millisecond)
	r.hearRouter(peerHigh, 100)
	r.take()
	r.run(time.Millisecond)
	r.want("BACKUP->MASTER preempting, send 200") // with the grace, not with a permit at once
}
