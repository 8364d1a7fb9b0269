package carp

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// vrrpStates is how a rig of priority 100 with preempt off gets into each state.
var vrrpStates = []struct {
	state State
	reach func(*testing.T) *rig
}{
	{Init, func(t *testing.T) *rig {
		r := newVRRP(t)
		r.do(r.e.LinkDown(r.now))
		r.take()
		return r
	}},
	{Backup, func(t *testing.T) *rig {
		r := newVRRP(t)
		r.hearRouter(peerHigh, 200)
		r.take()
		return r
	}},
	{Master, func(t *testing.T) *rig { return newVRRP(t).master() }},
	{Releasing, func(t *testing.T) *rig { return newVRRP(t).releasing() }},
}

// vrrpInputs is every input there is. Own priority is 100, own address .5, the interval
// one second, and a master has just sent.
var vrrpInputs = []struct {
	name  string
	input func(*rig)
	// What follows in INIT, BACKUP (following .9 with 200), MASTER and RELEASING.
	want [4]string
}{
	{"better advert", func(r *rig) { r.hearRouter(peerLow, 101) },
		[4]string{"drop state", "", "MASTER->BACKUP better-master", "RELEASING->BACKUP better-master"}},
	{"owner's advert", func(r *rig) { r.hearRouter(peerLow, OwnerPriority) },
		[4]string{"drop state", "", "MASTER->BACKUP better-master", "RELEASING->BACKUP better-master"}},
	{"equal advert, lower address", func(r *rig) { r.hearRouter(peerLow, 100) },
		[4]string{"drop state", "", "MASTER->MASTER contested, permit, announce, send 100, permit", "RELEASING->BACKUP better-master"}},
	{"equal advert, higher address", func(r *rig) { r.hearRouter(peerHigh, 100) },
		[4]string{"drop state", "", "MASTER->BACKUP tie-lost", "RELEASING->BACKUP better-master"}},
	{"worse advert", func(r *rig) { r.hearRouter(peerHigh, 99) },
		[4]string{"drop state", "", "MASTER->MASTER contested, permit, announce, send 100, permit", ""}},
	{"worse advert, late in the interval", func(r *rig) { r.run(250 * time.Millisecond); r.hearRouter(peerHigh, 99) },
		[4]string{"drop state", "", "MASTER->MASTER contested, permit, announce, send 100, permit", ""}},
	{"priority 0 of the master", func(r *rig) { r.hearRouter(peerHigh, 0); r.run(609_375_000) },
		[4]string{"drop state", "BACKUP->MASTER bow-out, send 100, permit", "announce, send 100, permit", ""}},
	{"priority 0 of another", func(r *rig) { r.hearRouter(peerLow, 0); r.run(609_375_000) },
		[4]string{"drop state", "drop bow-out", "announce, send 100, permit", ""}},
	{"longer interval", func(r *rig) { r.hearRouter(peerLow, 1, interval(10*time.Second)) },
		[4]string{"drop state", "", "MASTER->MASTER contested, permit, announce, send 100, permit", ""}},
	{"interval out of bounds, better", func(r *rig) { r.hearRouter(peerLow, 101, interval(MaxInterval3)) },
		[4]string{"drop state", "drop interval", "MASTER->BACKUP incompatible-master, drop interval", "RELEASING->BACKUP incompatible-master, drop interval"}},
	{"interval zero, better", func(r *rig) { r.hearRouter(peerLow, 101, interval(0)) },
		[4]string{"drop interval", "drop interval", "drop interval", "drop interval"}},
	{"incompatible, worse", func(r *rig) { r.hearRouter(peerLow, 99, toVersion(2)) },
		[4]string{"drop state", "drop version", "MASTER->MASTER contested, permit, announce, drop version, send 100, permit", "drop version"}},
	{"incompatible, priority 0", func(r *rig) { r.hearRouter(peerHigh, 0, toVersion(2)); r.run(609_375_000) },
		[4]string{"drop state", "drop version, BACKUP->MASTER bow-out, send 100, permit", "announce, drop version, send 100, permit", "drop version"}},
	{"another router of this id", func(r *rig) { r.hearRouter(peerLow, 101, listed("192.0.2.77")) },
		[4]string{"drop state", "drop foreign-addresses", "drop foreign-addresses", "drop foreign-addresses"}},
	{"bad checksum", func(r *rig) {
		p := r.router(peerLow, 101)
		p.Payload[7] ^= 1
		r.do(r.e.Receive(r.now, p))
	}, [4]string{"drop checksum", "drop checksum", "drop checksum", "drop checksum"}},
	{"own advert", func(r *rig) {
		p := r.router(rigLocal.IPv4, 101)
		p.SrcMAC = rigLocal.MAC
		r.do(r.e.Receive(r.now, p))
	}, [4]string{"drop own", "drop own", "drop own", "drop own"}},
	{"tick before the deadline", func(r *rig) { r.do(r.e.Tick(r.now)) }, [4]string{"", "", "", ""}},
	{"just before the master-down time", func(r *rig) { r.run(3_609_374_999); r.log = r.log[max(len(r.log)-1, 0):] },
		[4]string{"", "", "permit", "permit"}},
	{"the master-down time", func(r *rig) { r.run(3_609_375_000) },
		[4]string{"", "BACKUP->MASTER master-timed-out, send 100, permit",
			"send 100, permit, send 100, permit, send 100, permit", "send 100, permit, send 100, permit, send 100, permit"}},
	{"the release budget is over", func(r *rig) { r.run(5 * time.Second); r.log = r.log[max(len(r.log)-1, 0):] },
		[4]string{"", "permit", "permit", "RELEASING->BACKUP release-failed"}},
	{"link up", func(r *rig) { r.do(r.e.LinkUp(r.now, rigLocal)) }, [4]string{"INIT->BACKUP link-up", "", "", ""}},
	{"link down", func(r *rig) { r.do(r.e.LinkDown(r.now)) },
		[4]string{"", "BACKUP->INIT link-down", "MASTER->INIT link-down", "RELEASING->INIT link-down"}},
	{"demote", func(r *rig) { r.do(r.e.Demote(r.now, "x", 9)) }, [4]string{"", "", "send 91, permit", ""}},
	{"demote below the least", func(r *rig) { r.do(r.e.Demote(r.now, "x", 240)) }, [4]string{"", "", "send 1, permit", ""}},
	{"state init", func(r *rig) { r.do(r.e.SetState(r.now, Init)) }, [4]string{"", "", "", ""}},
	{"state backup", func(r *rig) { r.do(r.e.SetState(r.now, Backup)) }, [4]string{"", "", "MASTER->RELEASING operator", ""}},
	{"state master", func(r *rig) { r.do(r.e.SetState(r.now, Master)) },
		[4]string{"", "BACKUP->MASTER operator, send 100", "", ""}},
	{"resign to backup", func(r *rig) { r.do(r.e.Resign(r.now, Backup, ReasonHandover)) },
		[4]string{"", "", "MASTER->RELEASING handover", ""}},
	{"resign to init", func(r *rig) { r.do(r.e.Resign(r.now, Init, ReasonStopping)) },
		[4]string{"", "BACKUP->INIT stopping", "MASTER->RELEASING stopping", ""}},
	{"released", func(r *rig) { r.do(r.e.Released(r.now, nil)) },
		[4]string{"", "", "", "RELEASING->BACKUP released, send 0"}},
	{"release failed", func(r *rig) { r.do(r.e.Released(r.now, errors.New("busy"))) },
		[4]string{"", "", "", "RELEASING->BACKUP release-failed"}},
	{"granted", func(r *rig) { r.do(r.e.Granted(r.now, r.e.epoch)) }, [4]string{"", "", "", ""}},
	{"denied", func(r *rig) { r.do(r.e.Denied(r.now, r.e.epoch)) }, [4]string{"", "", "", ""}},
	{"failed", func(r *rig) { r.do(r.e.Failed(r.now, r.e.epoch)) },
		[4]string{"", "", "MASTER->BACKUP failed, send 0", ""}},
	{"renew at once", func(r *rig) { r.do(r.e.Renew(r.now)) }, [4]string{"", "", "", ""}},
	{"renew", func(r *rig) { r.now = r.now.Add(50 * time.Millisecond); r.do(r.e.Renew(r.now)) },
		[4]string{"", "", "send 100, permit", ""}},
	{"sent", func(r *rig) { r.e.claimed = true; r.do(r.e.Sent(r.now)) }, [4]string{"", "", "permit", "permit"}},
	{"send failed", func(r *rig) { r.do(r.e.SendFailed(r.now)) }, [4]string{"", "", "", ""}},
	{"reconfigure: priority", func(r *rig) { r.reconfigure(priority(7)) }, [4]string{"", "", "send 7, permit", ""}},
	{"reconfigure: addresses", func(r *rig) {
		r.reconfigure(func(c *Config) { c.Addresses = append(c.Addresses, netip.MustParseAddr("192.0.2.51")) })
	}, [4]string{"", "", "send 100, permit", ""}},
	{"reconfigure: nothing", func(r *rig) { r.reconfigure(func(*Config) {}) }, [4]string{"", "", "", ""}},
	{"stall", func(r *rig) { r.now = r.now.Add(2_900_000_001); r.do(r.e.Tick(r.now)) },
		[4]string{"", "", "MASTER->BACKUP stalled", "RELEASING->BACKUP stalled"}},
	{"an advert ends a stall", func(r *rig) { r.now = r.now.Add(2_900_000_001); r.hearRouter(peerHigh, 99) },
		[4]string{"drop state", "", "MASTER->BACKUP stalled, drop stalled", "RELEASING->BACKUP stalled, drop stalled"}},
	{"an incompatible advert ends a stall", func(r *rig) { r.now = r.now.Add(2_900_000_001); r.hearRouter(peerHigh, 99, toVersion(2)) },
		[4]string{"drop state", "drop version", "MASTER->BACKUP stalled, drop version", "RELEASING->BACKUP stalled, drop version"}},
}

// reconfigure changes the configuration in place.
func (r *rig) reconfigure(set func(*Config)) {
	r.t.Helper()
	c := r.e.cfg
	c.Addresses = slices.Clone(c.Addresses)
	set(&c)
	e, err := r.e.Reconfigure(r.now, c)
	if err != nil {
		r.t.Fatal(err)
	}
	r.do(e)
}

func TestEveryInputInEveryStateOfVRRP(t *testing.T) {
	for _, in := range vrrpInputs {
		for i, st := range vrrpStates {
			t.Run(fmt.Sprintf("%s/%v", in.name, st.state), func(t *testing.T) {
				r := st.reach(t)
				r.state(st.state)
				in.input(r)
				r.want(in.want[i])
				r.checkVRRPInvariants()
			})
		}
	}
}

// checkVRRPInvariants holds after every input.
func (r *rig) checkVRRPInvariants() {
	r.t.Helper()
	e := r.e
	allowed := map[State][]timer{
		Init:      {timerStart, timerHold, timerHeal},
		Backup:    {timerHold, timerHeal, timerBowOut, timerDown},
		Master:    {timerHold, timerHeal, timerGrace, timerAdvert},
		Releasing: {timerHold, timerHeal, timerRelease, timerAdvert},
	}
	needed := map[State][]timer{Backup: {timerDown}, Master: {timerAdvert}, Releasing: {timerRelease, timerAdvert}}
	for x := timer(0); x < numTimers; x++ {
		armed := e.timers[x] != 0
		if armed && !slices.Contains(allowed[e.state], x) {
			r.t.Errorf("%v: timer %d runs", e.state, x)
		}
		if !armed && slices.Contains(needed[e.state], x) {
			r.t.Errorf("%v: timer %d does not run", e.state, x)
		}
		if armed && e.timers[x] < r.deadline() {
			r.t.Errorf("%v: timer %d is due before the deadline", e.state, x)
		}
	}
	if wait := e.timers[timerDown].Sub(r.now); e.state == Backup && e.timers[timerHold] == 0 {
		if longest := vrrpDown(e.cfg.Protocol, 1, e.cfg.Interval, max(10*e.cfg.Interval, 4*time.Second)); wait > longest {
			r.t.Errorf("a backup waits %v, more than %v", wait, longest)
		}
	}
	if wait := e.timers[timerAdvert].Sub(r.now); wait > e.cfg.Interval {
		r.t.Errorf("the next advert in %v, the interval is %v", wait, e.cfg.Interval)
	}
	// 3 intervals are what the fastest backup waits, one whose skew is rounded to none.
	if e.state == Master || e.state == Releasing {
		if limit := e.lastSent.Add(3 * e.cfg.Interval); r.permit.Epoch != 0 && r.permit.Until >= limit {
			r.t.Errorf("%v: the permit outlasts the fastest backup by %v", e.state, r.permit.Until.Sub(limit))
		}
	} else if r.permit.Epoch != 0 {
		r.t.Errorf("%v holds a permit", e.state)
	}
	if r.permit.Live(r.now) && e.state == Master && (e.timers[timerGrace] != 0 || e.asking) {
		r.t.Errorf("a permit in the grace or before the guard has answered")
	}
	if p := e.bid().priority; p == 0 || p == OwnerPriority && e.cfg.Priority != OwnerPriority {
		r.t.Errorf("effective priority %d of %d", p, e.cfg.Priority)
	}
	total := 0
	for _, n := range e.demotions {
		total += n
	}
	if total != e.demotion {
		r.t.Errorf("demotion %d, owners %v", e.demotion, e.demotions)
	}
}

// dice is a seeded source of numbers (SplitMix64).
type dice uint64

func (d *dice) roll(n uint64) uint64 {
	*d += 0x9e3779b97f4a7c15
	z := uint64(*d)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return (z ^ z>>31) % n
}

// once is do for an input that may change the state at most once, and whose answers
// to what it sent change nothing.
func (r *rig) once(input func() Effects) {
	r.t.Helper()
	before := r.e.counters.Transitions
	e := input()
	if n := r.e.counters.Transitions - before; n > 1 || (n == 1) != (e.Change != nil) {
		r.t.Errorf("%d transitions in one input, said: %v", n, e.Change)
	}
	between := r.e.counters.Transitions
	r.do(e)
	if !r.sendErr && r.e.counters.Transitions != between {
		r.t.Error("to have sent changed the state")
	}
}

// runOnce lets time pass, with Tick at each deadline, and at most 20 000 of them.
func (r *rig) runOnce(d time.Duration) {
	r.t.Helper()
	end := r.now.Add(d)
	for range 20_000 {
		at := r.deadline()
		if at == 0 || at > end {
			r.now = end
			return
		}
		r.now = max(r.now, at)
		r.once(func() Effects { return r.e.Tick(r.now) })
		r.checkVRRPInvariants()
	}
	r.t.Errorf("the deadline does not move on: %v at %v", r.deadline(), r.now)
}

// playVRRP feeds a seeded mix of inputs to an engine and returns what it did.
func playVRRP(t *testing.T, seed uint64, steps int, set ...func(*Config)) uint64 {
	t.Helper()
	r := newVRRP(t, set...)
	d, trace := dice(seed), fnv.New64a()
	each := r.e.cfg.Interval
	span := func(n uint64) time.Duration { return time.Duration(d.roll(n * uint64(each))) }
	peers := []netip.Addr{peerLow, peerHigh, rigLocal.IPv4, netip.MustParseAddr("192.0.2.7")}
	dst := Group(IPv4)
	if r.e.cfg.Family() == IPv6 {
		peers = []netip.Addr{netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::9"), netip.MustParseAddr("fe80::7")}
		dst = Group(IPv6)
	}
	advert := func(priority uint8) Packet {
		a, src := r.e.router.advert, peers[d.roll(uint64(len(peers)))]
		a.Priority = priority
		switch d.roll(10) {
		case 0:
			a.Interval = time.Duration(d.roll(4096)) * centisecond
		case 1:
			a.addrs = append(slices.Clone(a.addrs), a.addrs[:a.width]...)
		case 2:
			a.Version = uint8(2 + d.roll(2))
		}
		p := Packet{Src: src, Dst: dst, SrcMAC: MAC{2, 0, 0, 0, 0, byte(d.roll(8))}, TTL: 255, Broadcast: true, Payload: a.Append(nil, src, dst)}
		if d.roll(2) == 0 {
			p.At = r.now.Add(-time.Duration(d.roll(uint64(each / 8))))
		}
		return p
	}
	for range steps {
		switch d.roll(20) {
		case 0:
			r.once(func() Effects { return r.e.LinkUp(r.now, rigLocal) })
		case 1:
			if d.roll(4) == 0 {
				r.once(func() Effects { return r.e.LinkDown(r.now) })
			}
		case 2:
			r.once(func() Effects { return r.e.Demote(r.now, fmt.Sprint(d.roll(3)), int(d.roll(481))-240) })
		case 3:
			r.once(func() Effects { return r.e.SetState(r.now, State(d.roll(4))) })
		case 4:
			r.once(func() Effects { return r.e.Resign(r.now, Backup, ReasonHandover) })
		case 5, 6:
			r.once(func() Effects { return r.e.Released(r.now, nil) })
		case 7:
			r.once(func() Effects { return r.e.Released(r.now, errors.New("x")) })
		case 8:
			r.once(func() Effects { return r.e.Failed(r.now, r.e.epoch) })
		case 9:
			r.sendErr = !r.sendErr && d.roll(4) == 0
		case 10:
			r.now = r.now.Add(span(5))
			r.once(func() Effects { return r.e.Tick(r.now) })
		case 11:
			r.once(func() Effects { return r.e.Renew(r.now) })
		case 12:
			r.once(func() Effects { return r.e.Granted(r.now, r.e.epoch) })
		case 13:
			r.once(func() Effects { return r.e.Denied(r.now, r.e.epoch-Epoch(d.roll(2))) })
		case 14:
			if p := uint8(1 + d.roll(255)); r.e.cfg.Priority != OwnerPriority {
				r.reconfigure(priority(min(p, MaxPriority)))
			}
		case 15:
			r.once(func() Effects { return r.e.Receive(r.now, advert(0)) })
		case 16, 17:
			r.once(func() Effects { return r.e.Receive(r.now, advert(uint8(1+d.roll(255)))) })
		default:
			r.runOnce(span(2))
		}
		r.checkVRRPInvariants()
		fmt.Fprintln(trace, r.now, r.take(), r.deadline(), r.permit)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	return trace.Sum64()
}

// vrrpKinds are configurations that take different ways through the engine.
var vrrpKinds = map[string][]func(*Config){
	"default":          nil,
	"preempt, guarded": {preempting, func(c *Config) { c.Guarded = true }},
	"10 ms, preempt":   {preempting, every(10 * time.Millisecond)},
	"owner":            {priority(OwnerPriority), func(c *Config) { c.StartupDelay = time.Second }},
	"version 2":        {version2, every(3 * time.Second), preempting, func(c *Config) { c.PreemptDelay = 5 * time.Second }},
	"IPv6":             {preempting, func(c *Config) { c.Addresses = []netip.Addr{rigAddr6} }},
}

func TestRandomInputsKeepTheInvariantsOfVRRP(t *testing.T) {
	for name, set := range vrrpKinds {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(40) {
				playVRRP(t, seed, 300, set...)
			}
		})
	}
}

func TestTheSameInputsGiveTheSameTraceOfVRRP(t *testing.T) {
	for name, set := range vrrpKinds {
		for seed := range uint64(5) {
			if one, two := playVRRP(t, seed, 500, set...), playVRRP(t, seed, 500, set...); one != two {
				t.Fatalf("%s, seed %d: traces differ", name, seed)
			}
		}
	}
	if playVRRP(t, 1, 500) == playVRRP(t, 2, 500) {
		t.Error("the trace says nothing")
	}
}

// vrrpNode is one of three engines on a wire, with what a speaker and a worker do.
type vrrpNode struct {
	e      *Engine
	local  Local
	permit Permit
	frozen Instant // does nothing until then
	inbox  []Packet
	let    Instant // when its worker has taken the addresses off; 0: nothing to do
}

// vrrpWorld delivers every advert, at once or a little later, never twice.
type vrrpWorld struct {
	t     *testing.T
	d     dice
	now   Instant
	delay time.Duration
	nodes []*vrrpNode
	wire  []delivery
	log   []string
}

type delivery struct {
	at Instant
	to int
	p  Packet
}

func newVRRPWorld(t *testing.T, seed uint64, set ...func(*Config)) *vrrpWorld {
	t.Helper()
	w := &vrrpWorld{t: t, d: dice(seed), now: Instant(time.Second), delay: 100 * time.Microsecond}
	for i, p := range []uint8{60, 130, OwnerPriority} { // far apart: the wire is slower than the skew of neighbours
		e, err := NewEngine(rigConfig(append([]func(*Config){vrrpConfig, priority(p)}, set...)...))
		if err != nil {
			t.Fatal(err)
		}
		host := byte(10 + w.d.roll(3)*10 + uint64(i))
		n := &vrrpNode{e: e, local: Local{IPv4: netip.AddrFrom4([4]byte{192, 0, 2, host}), MAC: MAC{2, 0, 0, 0, 0, host}}}
		w.nodes = append(w.nodes, n)
		w.do(n, e.LinkUp(w.now, n.local))
	}
	return w
}

func (w *vrrpWorld) do(n *vrrpNode, e Effects) {
	for {
		if e.Change != nil {
			w.log = append(w.log, fmt.Sprintf("%v %v %v", time.Duration(w.now), n.local.IPv4, e.Change))
			if e.Change.To != Master && e.Change.To != Releasing {
				n.permit = Permit{}
			}
			if from := e.Change.From; (from == Master || from == Releasing) && e.Change.To != Master {
				n.let = w.now.Add(time.Duration(w.d.roll(uint64(5 * time.Millisecond))))
			}
		}
		if e.Permit.Epoch != 0 {
			n.permit = e.Permit
		}
		w.exclusive()
		if len(e.Send) == 0 {
			return
		}
		for _, f := range e.Send {
			f.Finish(n.local.IPv4)
			p := Packet{Src: n.local.IPv4, Dst: f.Dst, SrcMAC: n.local.MAC, TTL: 255, Broadcast: true, Payload: bytes.Clone(f.Payload)}
			for to := range w.nodes {
				if w.nodes[to] != n {
					w.wire = append(w.wire, delivery{w.now.Add(time.Duration(w.d.roll(uint64(w.delay)))), to, p})
				}
			}
		}
		e = n.e.Sent(w.now)
	}
}

// exclusive is the promise: at most one node may act.
func (w *vrrpWorld) exclusive() {
	live := 0
	for _, n := range w.nodes {
		if n.permit.Live(w.now) {
			live++
		}
	}
	if live > 1 {
		w.t.Fatalf("%d live permits at %v:\n%s", live, time.Duration(w.now), strings.Join(w.log[max(len(w.log)-8, 0):], "\n"))
	}
}

// run lets time pass: adverts arrive, workers finish, timers fire.
func (w *vrrpWorld) run(until Instant) {
	for w.now < until {
		next := until
		for _, x := range w.wire {
			next = min(next, x.at)
		}
		for _, n := range w.nodes {
			for _, at := range []Instant{n.e.finish().Deadline, n.let, n.frozen} {
				if at != 0 {
					next = min(next, max(at, n.frozen))
				}
			}
		}
		w.now = max(w.now, next)
		w.arrive()
		for _, n := range w.nodes {
			if n.frozen <= w.now {
				n.frozen = 0
				w.wake(n)
			}
		}
	}
}

func (w *vrrpWorld) arrive() {
	var rest []delivery
	for _, x := range w.wire {
		if x.at <= w.now {
			w.nodes[x.to].inbox = append(w.nodes[x.to].inbox, x.p)
		} else {
			rest = append(rest, x)
		}
	}
	w.wire = rest
}

// wake does what is due at a node: packets before timers, as a speaker does.
func (w *vrrpWorld) wake(n *vrrpNode) {
	inbox := n.inbox
	n.inbox = nil
	for _, p := range inbox {
		w.do(n, n.e.Receive(w.now, p))
	}
	if n.let != 0 && n.let <= w.now {
		n.let = 0
		w.do(n, n.e.Released(w.now, nil))
	}
	if at := n.e.finish().Deadline; at != 0 && at <= w.now {
		w.do(n, n.e.Tick(w.now))
	}
}

// masters counts those that act.
func (w *vrrpWorld) masters() (n int) {
	for _, x := range w.nodes {
		if x.e.state == Master {
			n++
		}
	}
	return n
}

// disturb does one thing to one node.
func (w *vrrpWorld) disturb(freezing bool) {
	n := w.nodes[w.d.roll(uint64(len(w.nodes)))]
	if n.frozen != 0 {
		return
	}
	each := n.e.cfg.Interval
	switch w.d.roll(6) {
	case 0:
		if n.e.up {
			w.do(n, n.e.LinkDown(w.now))
			return
		}
		w.do(n, n.e.LinkUp(w.now, n.local))
	case 1:
		w.do(n, n.e.Demote(w.now, "tracker", int(w.d.roll(2))*25)) // all priorities stay different
	case 2:
		w.do(n, n.e.SetState(w.now, Backup))
	case 3:
		handed := func(x *vrrpNode) bool { return x.e.demotions[OwnerHandover] != 0 }
		if slices.ContainsFunc(w.nodes, handed) {
			for _, x := range w.nodes {
				if x.frozen == 0 {
					w.do(x, x.e.Demote(w.now, OwnerHandover, 0))
				}
			}
			return
		}
		w.do(n, n.e.Resign(w.now, Backup, ReasonHandover))
	case 4:
		w.do(n, n.e.Renew(w.now))
	case 5:
		if freezing {
			n.frozen = w.now.Add(time.Duration(w.d.roll(uint64(8 * each))))
		}
	}
}

// noOwner leaves preemption to the setting: an owner always preempts.
func noOwner(c *Config) { c.Priority = min(c.Priority, MaxPriority) }

// Whoever may act is alone, whatever happens to nodes and links: that a node stands
// still, above all. Not promised, and not tried: adverts that are lost, and a master
// that stands still just as a better node preempts it (the grace is all it has).
func TestPermitsOfVRRPNeverOverlap(t *testing.T) {
	for _, test := range []struct {
		name     string
		freezing bool
		set      []func(*Config)
	}{
		{"preempt", false, []func(*Config){preempting}},
		{"preempt, 10 ms", false, []func(*Config){preempting, every(10 * time.Millisecond)}},
		{"nodes that stand still", true, []func(*Config){noOwner}},
		{"nodes that stand still, 10 ms", true, []func(*Config){noOwner, every(10 * time.Millisecond)}},
		{"version 2", false, []func(*Config){version2, preempting, every(2 * time.Second)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for seed := range uint64(100) {
				w := newVRRPWorld(t, seed, test.set...)
				each := w.nodes[0].e.cfg.Interval
				for range 60 {
					w.run(w.now.Add(time.Duration(w.d.roll(uint64(4 * each)))))
					w.disturb(test.freezing)
				}
				for _, n := range w.nodes { // left alone, one is master
					if !n.e.up {
						w.do(n, n.e.LinkUp(w.now, n.local))
					}
				}
				w.run(w.now.Add(40 * each))
				if got := w.masters(); got != 1 {
					t.Fatalf("seed %d: %d masters in the end:\n%s", seed, got, strings.Join(w.log[max(len(w.log)-12, 0):], "\n"))
				}
			}
		})
	}
}
