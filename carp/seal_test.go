package carp

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// wallNow is what right wall clocks show at the start of these tests, less BOOTTIME.
const wallNow = 6 * 365 * 24 * time.Hour

// group is a few engines on one segment, without latency or loss, and an attacker who
// hears everything.
type group struct {
	t     *testing.T
	now   Instant
	nodes []*member
	tape  []Packet // all that was ever sent, oldest first
	wire  []sent   // on its way
	busy  bool     // somebody delivers it already
}

// sent is a packet and who sent it.
type sent struct {
	Packet
	by *member
}

// member is one of them.
type member struct {
	e     *Engine
	cfg   Config
	local Local
	deaf  bool    // hears nothing
	mute  bool    // is heard by nobody
	lost  *member // whom it does not hear
	dead  bool
	drops map[Drop]int
	log   []string
}

func sealed(id uint8) func(*Config) {
	return func(c *Config) { c.Replay, c.NodeID = ReplaySealed, id }
}

// newGroup makes members with node ids from 1; each has its own changes.
func newGroup(t *testing.T, set ...func(*Config)) *group {
	t.Helper()
	g := &group{t: t, now: Instant(time.Hour)}
	for i, f := range set {
		c := rigConfig(sealed(uint8(i+1)), func(c *Config) { c.ClockOffset = wallNow }, f)
		m := &member{cfg: c, local: Local{
			IPv4: netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)}), IPv6: netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: byte(10 + i)}),
			MAC: MAC{2, 0, 0, 0, 0, byte(10 + i)},
		}}
		g.nodes = append(g.nodes, m)
		g.start(m)
	}
	return g
}

// start makes a member's engine anew and brings its link up.
func (g *group) start(m *member) {
	g.t.Helper()
	e, err := NewEngine(m.cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	m.e, m.dead, m.drops, m.log = e, false, map[Drop]int{}, nil
	g.do(m, e.LinkUp(g.now, m.local))
}

// do carries out effects; what is sent arrives at once, in order.
func (g *group) do(m *member, e Effects) {
	for {
		if e.Change != nil {
			m.log = append(m.log, fmt.Sprintf("%v->%v %v", e.Change.From, e.Change.To, e.Change.Reason))
			if to := e.Change.To; to != Master { // the worker is quick
				defer func() {
					if !m.dead {
						g.do(m, m.e.Released(g.now, nil))
					}
				}()
			}
		}
		if len(e.Send) == 0 {
			return
		}
		var round []Packet
		for _, f := range e.Send {
			src := m.local.IPv4
			if FamilyOf(f.Dst) == IPv6 {
				src = m.local.IPv6
			}
			round = append(round, Packet{Src: src, Dst: f.Dst, SrcMAC: VirtualMAC(9), TTL: 255, Broadcast: true, Payload: bytes.Clone(f.Payload)})
		}
		e = m.e.Sent(g.now)
		for _, p := range round {
			if !m.mute {
				g.tape = append(g.tape, p)
				g.wire = append(g.wire, sent{p, m})
			}
		}
		g.deliver()
	}
}

func (g *group) deliver() {
	if g.busy {
		return
	}
	g.busy = true
	for len(g.wire) > 0 {
		p := g.wire[0]
		g.wire = g.wire[1:]
		g.inject(p.Packet, p.by)
	}
	g.busy = false
}

// inject has everybody but from hear a packet, and returns how many accepted it.
func (g *group) inject(p Packet, from *member) (accepted int) {
	for _, m := range g.nodes {
		if m == from || m.deaf || m.dead || m.lost != nil && m.lost == from {
			continue
		}
		p.Payload = bytes.Clone(p.Payload)
		e := m.e.Receive(g.now, p)
		if m.drops[e.Drop]++; e.Drop == Accepted {
			accepted++
		}
		g.do(m, e)
	}
	return accepted
}

func (g *group) run(d time.Duration) {
	g.t.Helper()
	for end := g.now.Add(d); ; {
		var next *member
		at := end
		for _, m := range g.nodes {
			if due := m.e.finish().Deadline; !m.dead && due != 0 && due <= at {
				next, at = m, due
			}
		}
		g.now = max(g.now, at)
		if next == nil {
			return
		}
		g.do(next, next.e.Tick(g.now))
	}
}

// want compares the states of all members.
func (g *group) want(states ...State) {
	g.t.Helper()
	for i, m := range g.nodes {
		if m.e.state != states[i] {
			g.t.Fatalf("at %v node %d is %v, want %v; it did %v, dropped %v", time.Duration(g.now), i+1, m.e.state, states[i], m.log, m.drops)
		}
	}
}

func TestSealedGroupElectsAndFollowsWithoutARefusal(t *testing.T) {
	for _, set := range []func(*Config){func(*Config) {}, dual} {
		g := newGroup(t, func(c *Config) { set(c); c.AdvSkew = 0 }, set, set)
		g.run(20 * time.Second)
		g.want(Master, Backup, Backup)
		for i, m := range g.nodes {
			delete(m.drops, Accepted)
			if len(m.drops) > 0 {
				t.Errorf("node %d dropped %v", i+1, m.drops)
			}
		}
	}
}

func TestSealedTieStaysWithTheLowerNodeID(t *testing.T) {
	for _, order := range [][2]uint8{{1, 2}, {2, 1}} {
		g := newGroup(t, sealed(order[0]), sealed(order[1]))
		g.nodes[0].deaf, g.nodes[1].deaf = true, true
		g.run(5 * time.Second)
		g.want(Master, Master)
		g.nodes[0].deaf, g.nodes[1].deaf = false, false
		g.run(5 * time.Second)
		if order[0] < order[1] {
			g.want(Master, Backup)
		} else {
			g.want(Backup, Master)
		}
	}
}

// rewritten is p with other timing fields, as anybody can make it.
func rewritten(p Packet, base, skew uint8) Packet {
	p.Payload = bytes.Clone(p.Payload)
	p.Payload[5], p.Payload[2] = base, skew
	fixChecksum(p.Payload)
	return p
}

func TestSealedRefusesEveryRecordingInEveryDisguise(t *testing.T) {
	g := newGroup(t, func(c *Config) { dual(c); c.AdvSkew = 0; c.Preempt = true }, dual, dual)
	g.run(10 * time.Second)
	g.want(Master, Backup, Backup)
	g.do(g.nodes[0], g.nodes[0].e.Resign(g.now, Backup, ReasonHandover)) // bow-outs are on the tape too
	g.run(10 * time.Second)
	g.do(g.nodes[0], g.nodes[0].e.Demote(g.now, OwnerHandover, 0))
	g.run(10 * time.Second)
	g.want(Master, Backup, Backup)
	tape := append([]Packet(nil), g.tape...)
	for _, after := range []time.Duration{0, 300 * time.Millisecond, time.Minute, 10 * time.Minute, 26 * time.Hour} {
		if after > time.Hour {
			g.now = g.now.Add(after) // all were suspended; they find each other again
			g.run(10 * time.Second)
		} else {
			g.run(after)
		}
		g.want(Master, Backup, Backup)
		for _, m := range g.nodes {
			m.log = nil
		}
		accepted := 0
		for _, p := range tape {
			for _, q := range []Packet{p, rewritten(p, 0, 0), rewritten(p, 255, 255), rewritten(p, 1, 240)} {
				accepted += g.inject(q, nil)
				q.Src = netip.MustParseAddr("192.0.2.99")
				accepted += g.inject(q, nil)
				if FamilyOf(p.Dst) == IPv4 { // the same bytes over the other family
					q.Src, q.Dst = netip.MustParseAddr("fe80::99"), Group(IPv6)
					accepted += g.inject(q, nil)
				}
			}
		}
		if accepted > 0 {
			t.Errorf("after %v recordings were accepted %d times", after, accepted)
		}
		for i, m := range g.nodes {
			if len(m.log) > 0 {
				t.Errorf("after %v node %d did %v", after, i+1, m.log)
			}
		}
		g.want(Master, Backup, Backup)
	}
}

func TestRecordingsOfADeadMasterDelayItsSuccessorByOneProbe(t *testing.T) {
	g := newGroup(t, skew(0), skew(100))
	g.run(10 * time.Second)
	g.want(Master, Backup)
	a, b := g.nodes[0], g.nodes[1]
	g.start(b) // asks, and the master's answer is on the tape
	g.run(5 * time.Second)
	g.run(b.e.timers[timerDown].Sub(g.now) - b.e.masterDown(bid{}) + time.Second/2)
	a.dead = true
	died := g.now
	heard := b.e.timers[timerDown].Sub(g.now)
	for b.e.state != Master && g.now.Sub(died) < time.Minute {
		for _, p := range g.tape[:20] {
			g.inject(p, nil)
		}
		g.run(50 * time.Millisecond)
	}
	if most := heard + b.e.answerTime() + 50*time.Millisecond; b.e.state != Master || g.now.Sub(died) > most {
		t.Errorf("%v after %v, want MASTER within %v; dropped %v", b.e.state, g.now.Sub(died), most, b.drops)
	}
	if b.e.guard.probes != 2 { // one at the start
		t.Errorf("%d probes", b.e.guard.probes)
	}
}

func TestSealedRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header timing
		seal   func(now uint64) seal // from the receiver's group clock
		want   Drop
	}{
		{"a fresh one", timing{1, 0}, func(now uint64) seal { return seal{now, 7, timing{1, 0}} }, Accepted},
		{"a clock a little ahead", timing{1, 0}, func(now uint64) seal { return seal{now + 3599_000, 7, timing{1, 0}} }, Accepted},
		{"the oldest of the window", timing{1, 0}, func(now uint64) seal { return seal{now - 30_000, 7, timing{1, 0}} }, Accepted},
		{"no node id", timing{1, 0}, func(now uint64) seal { return seal{now, 0, timing{1, 0}} }, DropUnsealed},
		{"another advskew", timing{1, 1}, func(now uint64) seal { return seal{now, 7, timing{1, 0}} }, DropTiming},
		{"another advbase", timing{0, 0}, func(now uint64) seal { return seal{now, 7, timing{1, 0}} }, DropTiming},
		{"a bow-out made of it", timing{255, 255}, func(now uint64) seal { return seal{now, 7, timing{1, 0}} }, DropTiming},
		{"older than the window", timing{1, 0}, func(now uint64) seal { return seal{now - 30_001, 7, timing{1, 0}} }, DropOld},
		{"too far ahead", timing{1, 0}, func(now uint64) seal { return seal{now + 3600_002, 7, timing{1, 0}} }, DropAhead},
		{"the end of time", timing{1, 0}, func(uint64) seal { return seal{maxClock, 7, timing{1, 0}} }, DropAhead},
		{"before the reservation", timing{1, 0}, func(now uint64) seal { return seal{now - 2_000, 7, timing{1, 0}} }, DropReplay},
	} {
		r := newRig(t, sealed(5), func(c *Config) { c.ClockOffset, c.SavedClock = wallNow, 1 })
		own := r.e.guard.clock.at(r.now)
		if tt.want == DropReplay {
			r.e.guard.clock.start = own - 1000
		}
		r.take()
		before := r.e.timers[timerDown]
		r.now = r.now.Add(time.Millisecond)
		r.counter = tt.seal(own+1).counter() - 1
		r.hear(peerHigh, tt.header.base, tt.header.skew)
		if tt.want == Accepted {
			r.want("")
			if r.e.timers[timerDown] == before {
				t.Errorf("%s: not heard", tt.name)
			}
			continue
		}
		r.want("drop " + tt.want.String())
		if r.e.timers[timerDown] != before {
			t.Errorf("%s: %v moved the deadline", tt.name, tt.want)
		}
	}
}

func TestSealedMemoryTakesEachRoundOnceAFamilyAndPath(t *testing.T) {
	m, g, now := newSealedMemory(), groupClock{offset: wallNow, saved: true}, Instant(time.Hour)
	own := g.at(now)
	v4, v6, second := wayOf(&Packet{Src: peerLow}, 0), wayOf(&Packet{Src: rigLocal.IPv6}, 0), wayOf(&Packet{Src: peerLow}, 1)
	at := func(ago uint64) seal { return seal{own - ago, 7, timing{1, 0}} }
	for i, tt := range []struct {
		ago  uint64
		over ways
		want Drop
	}{
		{1000, v4, Accepted},
		{1000, v4, DropRepeat},
		{1000, v6, Accepted},
		{1000, v6, DropRepeat},
		{2000, v4, DropReplay},
		{0, v6, Accepted}, // overtakes
		{0, v4, Accepted},
		{0, second, Accepted}, // path
		{0, second, DropRepeat},
		{1000, v4, DropReplay}, // the round before, late
		{0, v4, DropRepeat},
	} {
		s := at(tt.ago)
		got := m.judge(s, false, s.timing, tt.over, now, &g, 0, DefaultWindow)
		if got != tt.want {
			t.Errorf("%d: %v, want %v", i, got, tt.want)
		}
		if got == Accepted {
			m.accept(s, false, tt.over, peerLow, now)
		}
	}
	for id := range 255 {
		m.accept(seal{own, uint8(id + 1), timing{1, 0}}, false, 1, peerLow, now)
	}
	if len(m.nodes) != 255 {
		t.Errorf("%d marks", len(m.nodes))
	}
}

func TestGroupClockOnlyGrowsAndStepsNoMoreThanAnHour(t *testing.T) {
	now := Instant(time.Hour)
	g := newGroupClock(&Config{ClockOffset: wallNow, SavedClock: 1})
	g.begin(now)
	own := g.at(now)
	for _, tt := range []struct{ clock, want uint64 }{
		{own - 5000, own}, {own + 5000, own + 5000}, {own, own + 5000}, {own + 3600_000, own + 3600_000},
		{own + 7200_001, own + 3600_000}, {maxClock, own + 3600_000},
	} {
		if g.follow(now, tt.clock); g.at(now) != tt.want {
			t.Errorf("after %d the clock is at %d, want %d", tt.clock-own, g.at(now)-own, tt.want-own)
		}
	}
	g = newGroupClock(&Config{ClockOffset: wallNow - 24*time.Hour}) // nothing saved: any step, but one
	g.begin(now)
	g.follow(now, own)
	if g.at(now) != own {
		t.Errorf("without saved state the clock is at %d, want %d", g.at(now), own)
	}
	now = now.Add(anchorTime + 1)
	own = g.at(now)
	if g.follow(now, own+8*3600_000); g.at(now) != own {
		t.Error("a step of hours after a minute")
	}
	if g.followLiving(now, own+8*3600_000); g.at(now) != own+8*3600_000 {
		t.Error("no step of hours for a node that lives")
	}
	if g.followLiving(now, maxClock); g.at(now) != own+8*3600_000 {
		t.Error("a step of decades")
	}
	now = Instant(time.Hour)
	own = uint64((wallNow + time.Hour) / time.Millisecond)
	saved := newGroupClock(&Config{ClockOffset: wallNow, SavedClock: own + 60_000})
	saved.begin(now)
	if at, later := saved.at(now), saved.at(now.Add(time.Second)); at != own+60_000 || later != own+61_000 {
		t.Errorf("from a reservation at 60000 the clock goes to %d and %d", at-own, later-own)
	}
	far := newGroupClock(&Config{ClockOffset: 40 * 365 * 24 * time.Hour}) // 2060
	far.begin(now)
	if far.at(now) != uint64(time.Hour/time.Millisecond) {
		t.Errorf("a wall clock of 2060 was believed: %d", far.at(now))
	}
}

// A node begins where it has reserved, up to a minute ahead of everybody. It must be
// neither deaf nor master because of that.
func TestRestartedNodeWithStateAsksAndIsAnswered(t *testing.T) {
	for _, ahead := range []uint64{0, 25_000, 60_000, 3500_000} {
		g := newGroup(t, skew(0), skew(100))
		g.run(10 * time.Second)
		b := g.nodes[1]
		b.cfg.SavedClock = b.e.sealStatus(g.now).Clock + ahead
		g.start(b)
		g.run(20 * time.Second)
		g.want(Master, Backup)
		if len(b.log) > 1 || b.drops[DropOld]+b.drops[DropReplay] > 1 {
			t.Errorf("ahead by %d ms: %v, dropped %v", ahead, b.log, b.drops)
		}
	}
}

// Whatever the clocks of two nodes say, they hear each other in the end.
func TestNodesWhoseClocksAreFarApartStillFollowEachOther(t *testing.T) {
	const day = 24 * time.Hour
	for _, apart := range []time.Duration{-40 * day, -2 * time.Hour, -time.Minute, time.Minute, 2 * time.Hour, 40 * day, 3650 * day, 30 * 365 * day} {
		for _, saved := range []uint64{0, 1} {
			for _, first := range []int{0, 1} {
				g := newGroup(t, func(c *Config) { c.AdvSkew, c.SavedClock = 0, saved },
					func(c *Config) { c.AdvSkew, c.SavedClock = 100, saved; c.ClockOffset += apart })
				late := g.nodes[first]
				late.dead = true
				g.run(30 * time.Second)
				late.dead = false
				g.start(late)
				g.run(40 * time.Second)
				masters := 0
				for _, m := range g.nodes {
					m.log = nil
					if m.e.state == Master {
						masters++
					}
				}
				if masters != 1 {
					t.Fatalf("apart by %v, saved %d: %d masters; %v %v", apart, saved, masters, g.nodes[0].drops, g.nodes[1].drops)
				}
				g.run(time.Minute)
				for i, m := range g.nodes {
					if len(m.log) > 0 {
						t.Errorf("apart by %v, saved %d, node %d joined late: node %d did %v; dropped %v", apart, saved, first+1, i+1, m.log, m.drops)
					}
				}
			}
		}
	}
}

// Two masters that heal hear each other, whichever clock is ahead.
func TestMastersWhoseClocksAreHoursApartDecideAfterAHeal(t *testing.T) {
	for _, apart := range []time.Duration{-3 * time.Hour, -time.Minute, 0, time.Minute, 3 * time.Hour} {
		g := newGroup(t, func(c *Config) { c.AdvSkew, c.SavedClock = 0, 1 },
			func(c *Config) { c.AdvSkew, c.SavedClock = 100, 1; c.ClockOffset += apart })
		for _, m := range g.nodes {
			m.deaf, m.mute = true, true
		}
		g.run(10 * time.Second)
		g.want(Master, Master)
		for _, m := range g.nodes {
			m.deaf, m.mute = false, false
		}
		g.run(3 * time.Second)
		g.want(Master, Backup)
		st := g.nodes[0].e.sealStatus(g.now)
		if far := apart == 3*time.Hour; (st.Ahead.At != 0) != far || far && (st.Ahead.NodeID != 2 || st.AheadBy < 2*time.Hour) {
			t.Errorf("apart by %v: refused as ahead %+v by %v", apart, st.Ahead, st.AheadBy)
		}
	}
}

func TestTwinIsHeardAndNamed(t *testing.T) {
	g := newGroup(t, sealed(3), func(c *Config) { sealed(3)(c); c.AdvSkew = 120 })
	g.run(20 * time.Second)
	g.want(Master, Backup)
	a, b := g.nodes[0], g.nodes[1]
	if st := b.e.sealStatus(g.now); st.Twin != a.local.IPv4 || g.now.Sub(st.TwinAt) > 2*time.Second {
		t.Errorf("the backup names %v, heard %v ago", st.Twin, g.now.Sub(st.TwinAt))
	}
	for _, m := range g.nodes {
		m.deaf, m.mute = true, true
	}
	g.run(10 * time.Second)
	for _, m := range g.nodes {
		m.deaf, m.mute = false, false
	}
	g.run(5 * time.Second)
	g.want(Master, Backup)
}

func TestOwnOldAdvertsAreNoTwin(t *testing.T) {
	g := newGroup(t, skew(0), skew(100))
	g.run(200 * time.Second) // more rounds than counters are remembered
	a := g.nodes[0]
	for _, p := range g.tape {
		if p.Src == a.local.IPv4 {
			g.inject(p, g.nodes[1])
		}
	}
	a.cfg.SavedClock = a.e.sealStatus(g.now).Clock + 30_000
	g.start(a) // and an earlier life's
	for _, p := range g.tape {
		g.inject(p, g.nodes[1])
	}
	if st := a.e.sealStatus(g.now); st.TwinAt != 0 || a.e.counters.Received > 1 { // the answer to its probe
		t.Errorf("twin %v, %d accepted, dropped %v", st.Twin, a.e.counters.Received, a.drops)
	}
}

// An attacker holds a bow-out back, and lets it go when the node is master again.
func TestBowOutThatWasHeldBackIsNotBelieved(t *testing.T) {
	for _, mode := range []Replay{ReplaySealed, ReplayWindow} {
		as := func(c *Config) { c.Replay = mode }
		g := newGroup(t, func(c *Config) { as(c); c.AdvSkew, c.Preempt = 0, true }, as)
		g.run(10 * time.Second)
		a, b := g.nodes[0], g.nodes[1]
		b.deaf = true
		g.do(a, a.e.Resign(g.now, Backup, ReasonHandover))
		said := len(g.tape) - 1
		for MessageType(g.tape[said].Payload[0]&0xf) != TypeAdvert {
			said--
		}
		bow := g.tape[said]
		if bow.Payload[5] != 255 {
			t.Fatalf("% x is no bow-out", bow.Payload)
		}
		g.run(2200 * time.Millisecond) // nobody took over
		g.want(Master, Backup)
		b.deaf = false
		g.run(5 * time.Second)
		g.want(Master, Backup)
		b.log = nil
		g.inject(bow, a)
		g.run(2 * time.Second)
		if g.want(Master, Backup); len(b.log) > 0 || b.drops[DropReplay] == 0 {
			t.Errorf("%v: %v, dropped %v", mode, b.log, b.drops)
		}
	}
}

func TestResetSealFollowsAClockFarAheadOnce(t *testing.T) {
	g := newGroup(t, func(c *Config) { c.AdvSkew, c.SavedClock = 0, 1; c.ClockOffset += 3 * 366 * 24 * time.Hour }, func(c *Config) { c.SavedClock = 1 })
	g.run(20 * time.Second)
	b := g.nodes[1]
	if b.drops[DropAhead] == 0 {
		t.Fatalf("dropped %v", b.drops)
	}
	g.do(b, b.e.ResetSeal(g.now, wallNow))
	g.run(10 * time.Second)
	b.drops = map[Drop]int{}
	g.run(10 * time.Second)
	if st := b.e.sealStatus(g.now); b.drops[DropAhead] > 0 || st.Ahead.At != 0 {
		t.Errorf("after the reset: dropped %v, %+v", b.drops, st)
	}
}
