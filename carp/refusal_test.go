package carp

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// refusal is how a packet comes to be refused for one reason.
type refusal struct {
	drop   Drop
	name   string // of the form, where there are several
	set    func(*Config)
	packet func(r *rig) Packet
	in     []State // where it is refused so; nil: everywhere
}

func (f refusal) String() string { return f.drop.String() + f.name }

// unicast makes .9 a peer.
func unicast(c *Config) { c.Peers = []netip.Addr{peerHigh} }

// from returns a change of a packet's source.
func from(src string) func(*rig, *Packet) {
	return func(_ *rig, p *Packet) { p.Src = netip.MustParseAddr(src) }
}

// carpRefusals is each refusal of CARP that touches nothing. What would be heard is
// the advert of a master better than any.
func carpRefusals() []refusal {
	advert := func(change func(*rig, *Packet)) func(*rig) Packet {
		return func(r *rig) Packet {
			p := r.advert(peerHigh, 1, 0)
			change(r, &p)
			return p
		}
	}
	// known is an advert whose counter was heard before, with the timing 1/0.
	known := func(base, skew uint8) func(r *rig) Packet {
		return func(r *rig) Packet {
			r.counter += 1 << 20
			p := r.advert(peerHigh, base, skew)
			r.e.guard.window.remember(r.counter, timing{1, 0})
			return p
		}
	}
	heard := []State{Backup, Master, Releasing}
	sum := func(change func([]byte)) func(*rig) Packet {
		return advert(func(_ *rig, p *Packet) { change(p.Payload); fixChecksum(p.Payload) })
	}
	return []refusal{
		{drop: DropTTL, packet: advert(func(_ *rig, p *Packet) { p.TTL = 254 })},
		{drop: DropDestination, packet: advert(func(_ *rig, p *Packet) { p.Dst, p.Broadcast = rigLocal.IPv4, false })},
		{drop: DropDestination, name: " unicast", set: unicast, packet: advert(func(*rig, *Packet) {})},
		{drop: DropPeer, set: unicast, packet: advert(func(_ *rig, p *Packet) { p.Src, p.Dst, p.Broadcast = peerLow, rigLocal.IPv4, false })},
		{drop: DropSource, name: " group", packet: advert(from("224.0.0.18"))},
		{drop: DropSource, name: " broadcast", packet: advert(from("255.255.255.255"))},
		{drop: DropSource, name: " loopback", packet: advert(from("127.0.0.1"))},
		{drop: DropLength, packet: advert(func(_ *rig, p *Packet) { p.Payload = p.Payload[:HeaderLen-1] })},
		{drop: DropChecksum, packet: advert(func(_ *rig, p *Packet) { p.Payload[2]++ })},
		{drop: DropVersion, packet: sum(func(b []byte) { b[0] = 0x41 })},
		{drop: DropProtocol, packet: func(r *rig) Packet { return newVRRP(r.t).router(peerHigh, 200) }},
		{drop: DropVHID, packet: sum(func(b []byte) { b[1] = 10 })},
		{drop: DropFamily, packet: func(r *rig) Packet { return r.advert(netip.MustParseAddr("fe80::9"), 1, 0) }},
		{drop: DropRolling, packet: advert(func(r *rig, p *Packet) {
			a := NewAdvert(9, 1, 0)
			a.Counter = r.e.lastHeard
			p.Payload = a.Append(nil)
		})},
		{drop: DropHash, packet: sum(func(b []byte) { b[35] ^= 1 })},
		{drop: DropType, packet: advert(func(r *rig, p *Packet) { p.Payload = sealedMessage(TypePeerState, r.counter, nil) })},
		{drop: DropAuth, packet: advert(func(_ *rig, p *Packet) { p.AH = true })},
		{drop: DropOwn, packet: advert(func(r *rig, p *Packet) {
			p.Src = rigLocal.IPv4
			r.e.recent[0], r.e.sent = r.counter, max(r.e.sent, 1)
		})},
		{drop: DropTiming, packet: known(1, 10), in: heard},
		{drop: DropTiming, name: " to a bow-out", packet: known(255, 255), in: heard},
		{drop: DropReplay, packet: known(1, 0), in: heard},
		{drop: DropRepeat, packet: func(r *rig) Packet {
			p := known(1, 0)(r)
			s := r.e.guard.window.learn(peerHigh, true)
			s.accepted, s.changed, s.last, s.at = true, true, r.counter, r.now
			return p
		}, in: heard},
		{drop: DropBowOut, packet: func(r *rig) Packet { return r.advert(peerLow, 255, 255) }, in: []State{Backup}},
		{drop: DropState, packet: advert(func(*rig, *Packet) {}), in: []State{Init}},
	}
}

// vrrpRefusals is each refusal of VRRP that touches nothing.
func vrrpRefusals() []refusal {
	router := func(set func(*Packet), change ...func(*VRRPAdvert)) func(*rig) Packet {
		return func(r *rig) Packet {
			p := r.router(peerHigh, 200, change...)
			set(&p)
			return p
		}
	}
	nothing, running := func(*Packet) {}, []State{Backup, Master, Releasing}
	at := func(src string) func(*rig) Packet {
		return func(r *rig) Packet { return r.router(netip.MustParseAddr(src), 200) }
	}
	return []refusal{
		{drop: DropTTL, packet: router(func(p *Packet) { p.TTL = 254 })},
		{drop: DropDestination, packet: router(func(p *Packet) { p.Dst, p.Broadcast = rigLocal.IPv4, false })},
		{drop: DropDestination, name: " unicast", set: unicast, packet: router(nothing)},
		{drop: DropPeer, set: unicast, packet: router(func(p *Packet) { p.Src, p.Dst, p.Broadcast = peerLow, rigLocal.IPv4, false })},
		{drop: DropSource, name: " group", packet: at("224.0.0.18")},
		{drop: DropSource, name: " broadcast", packet: at("255.255.255.255")},
		{drop: DropSource, name: " loopback", packet: at("127.0.0.1")},
		{drop: DropLength, packet: router(func(p *Packet) { p.Payload = p.Payload[:len(p.Payload)-1] })},
		{drop: DropChecksum, packet: router(func(p *Packet) { p.Payload[2]++ })},
		{drop: DropVersion, name: " of nothing", packet: router(func(p *Packet) { p.Payload[0] = 0x41 })},
		{drop: DropProtocol, packet: router(func(p *Packet) { a := NewAdvert(9, 0, 0); p.Payload = a.Append(nil) })},
		{drop: DropVHID, packet: router(nothing, func(a *VRRPAdvert) { a.VRID = 10 })},
		{drop: DropFamily, packet: func(r *rig) Packet {
			return r.router(netip.MustParseAddr("fe80::9"), 200, listed("fe80::1", "2001:db8::50"))
		}},
		{drop: DropForeign, packet: router(nothing, listed("192.0.2.77")), in: running},
		{drop: DropInterval, name: " of zero", packet: router(nothing, interval(0))},
		{drop: DropOwn, packet: func(r *rig) Packet {
			p := r.router(rigLocal.IPv4, 200)
			p.SrcMAC = rigLocal.MAC
			return p
		}},
		{drop: DropBowOut, packet: func(r *rig) Packet { return r.router(peerLow, 0) }, in: []State{Backup}},
		{drop: DropState, packet: router(nothing), in: []State{Init}},
	}
}

// refusalRigs are the protocols of the tests of refusals: how a rig of each gets into
// each state, its table, and the drops that are not in there, and why.
func refusalRigs() map[string]struct {
	fresh    func(*testing.T, ...func(*Config)) *rig
	table    []refusal
	excepted map[Drop]string
} {
	type protocol = struct {
		fresh    func(*testing.T, ...func(*Config)) *rig
		table    []refusal
		excepted map[Drop]string
	}
	const before, counted, other = "is refused before there is an engine", "is no packet's fault", "is of the other protocol"
	const recorded = "is ReplaySealed's: TestSealedRefuses"
	both := map[Drop]string{
		DropFrame: before, DropOverflow: counted, DropStalled: "the node yields first, whatever the packet is",
		DropDuplicate: "is used: TestANodeWithOurAddressIsHeardAndNamed",
		DropUnsealed:  recorded, DropOld: recorded, DropAhead: recorded, // these make a node ask who lives
	}
	with := func(more map[Drop]string) map[Drop]string {
		for d, why := range both {
			more[d] = why
		}
		return more
	}
	return map[string]protocol{
		"CARP": {newRig, carpRefusals(), with(map[Drop]string{DropForeign: other, DropInterval: other, DropAddresses: other})},
		"VRRP": {newVRRP, vrrpRefusals(), with(map[Drop]string{
			DropHash: other, DropRolling: other, DropType: other, DropTiming: other, DropRepeat: other, DropReplay: other,
			DropAuth: "shows a living master", DropAddresses: "shows a living master",
		})},
	}
}

// reach brings a rig into a state. BACKUP follows a master, of which a bow-out or a
// better advert would be heard.
func (r *rig) reach(state State) {
	r.t.Helper()
	vrrp := r.e.cfg.Protocol.VRRP()
	switch state {
	case Init:
		r.do(r.e.LinkDown(r.now))
	case Backup:
		p := Packet{}
		if vrrp {
			p = r.router(peerHigh, 150)
		} else {
			p = r.advert(peerHigh, 1, 50)
		}
		if len(r.e.cfg.Peers) > 0 {
			p.Dst, p.Broadcast = rigLocal.IPv4, false
		}
		r.do(r.e.Receive(r.now, p))
	case Master:
		r.master()
	case Releasing:
		r.releasing()
	}
	r.state(state)
	r.take()
}

func TestRefusedPacketsTouchNoTimerAndNoState(t *testing.T) {
	for name, protocol := range refusalRigs() {
		for _, f := range protocol.table {
			for _, state := range []State{Init, Backup, Master, Releasing} {
				if f.in != nil && !slices.Contains(f.in, state) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%v/%v", name, f, state), func(t *testing.T) {
					var set []func(*Config)
					if f.set != nil {
						set = append(set, f.set)
					}
					r := protocol.fresh(t, set...)
					r.reach(state)
					r.unmoved(f)
				})
			}
		}
	}
}

// unmoved feeds many packets of one refusal within the time to the next deadline.
func (r *rig) unmoved(f refusal) {
	r.t.Helper()
	end, timers, deadline := r.now.Add(50*time.Millisecond), r.e.timers, r.deadline()
	before, since, epoch := r.e.AppendState(nil, end), r.e.since, r.e.epoch
	const each = 20
	for n := range each {
		r.now = end.Add(time.Duration(n-each+1) * time.Millisecond)
		e := r.e.Receive(r.now, f.packet(r))
		if e.Drop != f.drop || e.Change != nil || len(e.Send) > 0 || e.Announce || e.Permit != (Permit{}) || e.Deadline != deadline {
			r.t.Fatalf("packet %d gave %+v, want the drop %v and nothing else", n, e, f.drop)
		}
	}
	if after := r.e.AppendState(nil, end); r.e.timers != timers || !bytes.Equal(after, before) || r.e.since != since || r.e.epoch != epoch {
		r.t.Errorf("the state changed: timers %v, were %v", r.e.timers, timers)
	}
	if got := r.e.drops[f.drop]; got != each {
		r.t.Errorf("%d counted, want %d", got, each)
	}
}

// A drop that nobody has thought of in the table above may touch a timer.
func TestEveryDropIsInTheTableOfRefusals(t *testing.T) {
	for name, protocol := range refusalRigs() {
		tested := map[Drop]bool{}
		for _, f := range protocol.table {
			tested[f.drop] = true
		}
		for _, d := range Drops() {
			if why, excepted := protocol.excepted[d]; tested[d] == excepted {
				t.Errorf("%s: %v is in the table: %v; excepted: %q", name, d, tested[d], why)
			}
		}
	}
}

// Where two machines have one address, each must still hear the other, or there are
// two masters; and somebody must be told.
func TestANodeWithOurAddressIsHeardAndNamed(t *testing.T) {
	another := MAC{2, 0, 0, 0, 0, 9}
	r := newRig(t).master()
	p := r.advert(rigLocal.IPv4, 1, 0)
	for _, mac := range []MAC{another, VirtualMAC(9)} { // the counter tells our own from another's
		r = newRig(t).master()
		p = r.advert(rigLocal.IPv4, 1, 0)
		p.SrcMAC = mac
		r.do(r.e.Receive(r.now, p))
		r.want("MASTER->BACKUP better-master, drop duplicate-source")
	}
	r = newVRRP(t).master()
	p = r.router(rigLocal.IPv4, 200)
	p.SrcMAC = VirtualMAC(9)
	r.do(r.e.Receive(r.now, p))
	r.want("drop own")
	p.SrcMAC = another
	r.do(r.e.Receive(r.now, p))
	r.want("MASTER->BACKUP better-master, drop duplicate-source")
	if got := r.e.Status(r.now).Refused[DropDuplicate].Address; got != rigLocal.IPv4 {
		t.Errorf("the status says %v", got)
	}
}

// All nodes of a group send from one virtual MAC. What comes from it to a node that
// has sent nothing for long is not its own.
func TestABackupHearsAMasterWithItsAddressAndTheVirtualMAC(t *testing.T) {
	r := newVRRP(t)
	r.take()
	p := r.router(rigLocal.IPv4, 200)
	p.SrcMAC = VirtualMAC(9)
	for range 5 {
		r.do(r.e.Receive(r.now, p))
		r.want("drop duplicate-source")
		r.run(time.Second)
	}
	r.state(Backup)
}

func TestSourcesThatNodesWithoutAnAddressUseAreHeard(t *testing.T) {
	for _, src := range []netip.Addr{netip.IPv4Unspecified(), rigAddr} { // NetBSD's; OpenBSD's and FreeBSD's
		r := newRig(t)
		r.take()
		r.hear(src, 1, 0)
		r.want("")
		if got := r.e.Status(r.now).Master.Address; got != src {
			t.Errorf("from %v: the master is %v", src, got)
		}
	}
}
