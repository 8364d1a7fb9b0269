package explore

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"time"

	"github.com/carpd/carpd/carp"
)

// node is one engine and what surrounds it.
type node struct {
	engine   *carp.Engine
	config   carp.Config
	crashed  bool
	frozen   bool
	placed   bool // the worker has put the address on
	state    carp.State
	reason   carp.Reason // why it became master
	work     carp.Transition
	pending  bool // work is to be done
	permit   carp.Permit
	deadline carp.Instant
	spoke    carp.Instant // last advert
	round    uint32       // of its adverts
	heard    [maxNodes]uint32
	missed   uint8    // nodes whose last advert it had not heard when it was promoted
	fooled   uint8    // nodes of which it has heard an old bow-out after a newer advert
	rank     int      // of its promotion, among all
	inbox    []packet // while frozen
}

// packet is an advert or a companion message under way.
type packet struct {
	from, to uint8
	round    uint32
	payload  []byte
	vrrp     bool
}

// leaves reports whether it is a bow-out.
func (p *packet) leaves() bool {
	if p.vrrp {
		return p.payload[2] == 0
	}
	return p.advert() && p.payload[2] == 255 && p.payload[5] == 255
}

// advert reports whether it is no companion message.
func (p *packet) advert() bool {
	return p.vrrp || carp.MessageType(p.payload[0]&0xf) == carp.TypeAdvert
}

// state is one state of the world.
type state struct {
	now   carp.Instant
	nodes []node
	wire  []packet
	ranks int // promotions so far
	tape  []recording

	losses, duplicates, delays, crashes, freezes, handovers, replays int // that may still happen
}

// maxNodes bounds a world.
const maxNodes = 3

func (s *state) clone() *state {
	c := *s
	c.nodes = slices.Clone(s.nodes)
	for i := range c.nodes {
		n := &c.nodes[i]
		n.engine = n.engine.Clone()
		n.inbox = slices.Clone(n.inbox)
	}
	c.wire, c.tape = slices.Clone(s.wire), slices.Clone(s.tape)
	return &c
}

// key is what tells two states apart.
func (s *state) key(seed maphash.Seed, buf []byte) (uint64, []byte) {
	b := buf[:0]
	bits := func(flags ...bool) {
		for _, f := range flags {
			if f {
				b = append(b, 1)
			} else {
				b = append(b, 0)
			}
		}
	}
	rel := func(at carp.Instant) { b = binary.BigEndian.AppendUint64(b, uint64(at-s.now)) }
	packets := func(all []packet) {
		b = append(b, byte(len(all)))
		for _, p := range all {
			last := p.round == s.nodes[p.from].round
			bits(last)
			b = append(b, p.from, p.to)
			if p.vrrp {
				b = append(b, p.payload...)
				continue
			}
			clock := carp.Instant(binary.BigEndian.Uint64(p.payload[8:])>>24) * carp.Instant(time.Millisecond)
			b = append(b, p.payload[0], p.payload[2], p.payload[5])
			rel(clock)
			b = append(b, p.payload[carp.HeaderLen:]...)
		}
	}
	for i := range s.nodes {
		n := &s.nodes[i]
		bits(n.crashed, n.frozen, n.placed, n.pending)
		b = append(b, byte(n.work.From), byte(n.work.To), byte(n.reason), n.missed, n.fooled)
		if n.placed || n.state == carp.Master {
			rel(max(n.permit.Until, s.now))
		}
		if !n.crashed {
			b = n.engine.AppendState(b, s.now)
		}
		for j := range s.nodes {
			bits(n.heard[j] == s.nodes[j].round, n.rank < s.nodes[j].rank)
		}
		packets(n.inbox)
	}
	packets(s.wire)
	for i := range s.tape {
		b = append(b, s.tape[i].taken)
		packets([]packet{s.tape[i].packet})
	}
	b = append(b, byte(s.losses), byte(s.duplicates), byte(s.delays), byte(s.crashes), byte(s.freezes), byte(s.handovers), byte(s.replays))
	return maphash.Bytes(seed, b), b
}

// local is where node i sends from.
func local(i int) carp.Local {
	return carp.Local{
		IPv4: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}),
		IPv6: netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: byte(i + 1)}),
		MAC:  carp.MAC{2, 0, 0, 0, 0, byte(i + 1)},
	}
}

// answers reports whether node i's kernel answers for the address.
func (s *state) answers(i int, fault Fault) bool {
	n := &s.nodes[i]
	return n.placed && (n.permit.Live(s.now) || fault == NoLease || fault == IgnorePermit)
}

// apply carries out effects of node i, as carp.Speaker does. It returns what is
// wrong, or "".
func (s *state) apply(i int, e carp.Effects, fault Fault) string {
	n := &s.nodes[i]
	for {
		n.deadline = e.Deadline
		if e.Change != nil {
			s.changed(i, *e.Change)
		}
		if e.Permit.Epoch != 0 {
			n.permit = e.Permit
			if most := n.spoke.Add(n.config.FastestDown()); e.Permit.Until > most {
				return "a permit lasts longer than the master-down time after the last advert"
			}
		}
		if len(e.Send) == 0 {
			return ""
		}
		if slices.ContainsFunc(e.Send, func(f carp.Frame) bool {
			p := packet{payload: f.Payload, vrrp: n.config.Protocol.VRRP()}
			return p.advert()
		}) {
			n.round++
			n.spoke = s.now
		}
		for _, f := range e.Send {
			f.Payload = slices.Clone(f.Payload)
			f.Finish(local(i).IPv4)
			s.record(packet{from: uint8(i), round: n.round, payload: f.Payload})
			for j := range s.nodes {
				if j != i && !s.nodes[j].crashed {
					s.wire = append(s.wire, packet{uint8(i), uint8(j), n.round, f.Payload, n.config.Protocol.VRRP()})
				}
			}
		}
		at := s.now
		if fault == SentLate {
			at = at.Add(time.Second)
		}
		e = n.engine.Sent(at)
	}
}

func (s *state) changed(i int, t carp.Transition) {
	n := &s.nodes[i]
	if t.To == carp.Master && t.From != carp.Master {
		s.ranks++
		n.reason, n.missed, n.rank = t.Reason, n.fooled, s.ranks
		for j := range s.nodes {
			if n.heard[j] != s.nodes[j].round {
				n.missed |= 1 << j
			}
		}
	}
	n.state, n.work, n.pending = t.To, t, true
}

// handle gives a packet to node i.
func (s *state) handle(p packet, fault Fault) string {
	n := &s.nodes[p.to]
	switch bit := uint8(1) << p.from; {
	case !p.advert():
	case p.round >= n.heard[p.from]:
		n.heard[p.from] = p.round
		n.fooled &^= bit
	case p.leaves():
		n.fooled |= bit
	}
	e := n.engine.Receive(s.now, arriving(p, s.now))
	if wrong := s.took(p, e.Drop); wrong != "" {
		return wrong
	}
	return s.apply(int(p.to), e, fault)
}

// labour lets node i's worker carry out the newest transition.
func (s *state) labour(i int, fault Fault) string {
	n := &s.nodes[i]
	t := n.work
	if t.To == carp.Master {
		n.pending, n.placed = false, true
		return ""
	}
	n.pending = false
	if fault == KeepAddress {
		return s.apply(i, n.engine.Released(s.now, nil), fault)
	}
	n.placed = false
	return s.apply(i, n.engine.Released(s.now, nil), fault)
}

// able reports whether node i's worker can do what it has to: taking the address
// on needs a live permit of this mastership.
func (s *state) able(i int, fault Fault) bool {
	n := &s.nodes[i]
	if !n.pending || n.crashed || n.frozen {
		return false
	}
	return n.work.To != carp.Master || fault == IgnorePermit || n.permit.Epoch >= n.work.Epoch && n.permit.Live(s.now)
}

// due returns when the next timer of a running node fires; 0 if there is none.
func (s *state) due() carp.Instant {
	next := carp.Instant(0)
	for i := range s.nodes {
		if n := &s.nodes[i]; !n.crashed && !n.frozen && n.deadline != 0 && (next == 0 || n.deadline < next) {
			next = n.deadline
		}
	}
	return next
}

// tick fires node i's timer.
func (s *state) tick(i int, fault Fault) string {
	n := &s.nodes[i]
	e := n.engine.Tick(s.now)
	stuck := e.Change == nil && len(e.Send) == 0 && e.Deadline != 0 && e.Deadline <= s.now
	if wrong := s.apply(i, e, fault); wrong != "" {
		return wrong
	}
	if stuck {
		return "a timer fired and is due again at once"
	}
	return ""
}

// resume lets a frozen node go on.
func (s *state) resume(i int, fault Fault) string {
	n := &s.nodes[i]
	n.frozen = false
	waiting := n.inbox
	n.inbox = nil
	for _, p := range waiting {
		if wrong := s.handle(p, fault); wrong != "" {
			return wrong
		}
	}
	if n.deadline != 0 && n.deadline <= s.now {
		return s.tick(i, fault)
	}
	return ""
}
