package sim

import (
	"fmt"
	"time"

	"github.com/carpd/carpd/carp"
)

// Port is what can be attached to a Segment: a *Host or a *Client.
type Port interface {
	port() *plug
}

// plug is where a port is attached.
type plug struct {
	on    *Segment
	slot  int
	title string
}

func (p *plug) port() *plug { return p }

// Segment is an Ethernet segment: what one port sends all others hear, each over
// a path of its own that can be cut, clogged or made bad. Its fields may be
// changed at any time; they concern what is sent from then on.
type Segment struct {
	Name    string
	Latency Range   // one way
	Loss    float64 // chance that a packet is lost on one path
	// Duplicate is the chance that a packet arrives twice, the second time within
	// ReorderTime.
	Duplicate float64
	// Reorder is the chance that a packet is delayed by ReorderTime and may be
	// overtaken. Otherwise a path keeps the order, whatever the latency.
	Reorder     float64
	ReorderTime Range
	Corrupt     float64 // chance that bits are flipped; always so that the advert is no longer valid
	Echo        float64 // chance that a sender hears its own packet, as behind a looping switch

	attacker *attacker // nil: none

	w     *World
	aside bool // made by Beside
	hosts []*Host
	ports []*plug
	paths [][]path // [from][to]
}

// path is the way from one port to another.
type path struct {
	cut, clogged int
	held         []*packet     // while clogged
	last         time.Duration // arrival of the last packet that kept the order
	harmed       time.Duration // when an advert last did not make it, or late; -1 never
	heard        time.Duration // when the youngest advert was sent that the receiver took; -1 none
	left         time.Duration // when the youngest of those was sent that was a bow-out
}

// maxHeld bounds what a clogged path holds back; the oldest is lost.
const maxHeld = 256

// packet is an advert on its way.
type packet struct {
	carp.Packet
	src    *Host
	on     *Segment
	sent   time.Duration
	bad    bool // altered
	bowOut bool

	replay   bool   // from the attacker's tape
	altered  bool   // by the attacker
	original []byte // then: what it was
}

// Segment makes a segment with the world's defaults and attaches the ports.
func (w *World) Segment(name string, ports ...Port) *Segment {
	o := &w.opts
	s := &Segment{
		Name: name, w: w, Latency: o.Latency, Loss: o.LossChance, Duplicate: o.DuplicateChance,
		Reorder: o.ReorderChance, ReorderTime: o.ReorderTime, Corrupt: o.CorruptChance, Echo: o.EchoChance,
	}
	w.segments = append(w.segments, s)
	for _, p := range ports {
		s.attach(p)
	}
	return s
}

func (s *Segment) attach(who Port) {
	p := who.port()
	if p.on != nil {
		panic(fmt.Sprintf("sim: attach %s to %s: it is on %s already", p.title, s.Name, p.on.Name))
	}
	p.on, p.slot = s, len(s.ports)
	s.ports = append(s.ports, p)
	for i := range s.paths {
		s.paths[i] = append(s.paths[i], newPath())
	}
	row := make([]path, len(s.ports))
	for i := range row {
		row[i] = newPath()
	}
	s.paths = append(s.paths, row)
	if h, ok := who.(*Host); ok {
		s.hosts = append(s.hosts, h)
		h.seg = s
	}
}

func newPath() path { return path{harmed: -1, heard: -1, left: -1} }

func (s *Segment) path(from, to Port) *path {
	return &s.paths[from.port().slot][to.port().slot]
}

// send carries a frame from h to whom it is for.
func (s *Segment) send(h *Host, f carp.Frame) {
	v6 := carp.FamilyOf(f.Dst) == carp.IPv6
	local, link := s.side(h)
	src := local.IPv4
	if v6 {
		src = local.IPv6
	}
	payload := s.w.room(len(f.Payload))
	copy(payload, f.Payload)
	f.Payload = payload
	f.Finish(src)
	multicast := f.Dst.IsMulticast()
	pkt := &packet{
		Packet: carp.Packet{Src: src, Dst: f.Dst, Link: link, SrcMAC: local.MAC, TTL: 255, Payload: payload, Broadcast: multicast},
		src:    h, on: s, sent: s.w.now, bowOut: h.leaves(payload),
	}
	if s.attacker != nil {
		s.attacker.record(pkt)
	}
	for _, to := range s.hosts {
		switch {
		case to == h:
			if multicast && s.w.network.chance(s.Echo) {
				s.launch(s.path(h, h), pkt, h)
			}
		case multicast || to.local.IPv4 == f.Dst || to.local.IPv6 == f.Dst:
			s.launch(s.path(h, to), pkt, to)
		}
	}
}

// launch puts pkt on one path.
func (s *Segment) launch(p *path, pkt *packet, to *Host) {
	rng := s.w.network
	switch {
	case p.cut > 0 || !s.reaches(to) || rng.chance(s.Loss):
		s.harm(p, pkt.src, to)
		return
	case rng.chance(s.Corrupt):
		s.harm(p, pkt.src, to)
		pkt = corrupted(s.w, pkt)
	}
	if p.clogged > 0 {
		s.harm(p, pkt.src, to)
		if len(p.held) == maxHeld {
			p.held = append(p.held[:0], p.held[1:]...)
		}
		p.held = append(p.held, pkt)
		return
	}
	at := s.w.now + max(rng.in(s.Latency), 0)
	if rng.chance(s.Reorder) {
		at += rng.in(s.ReorderTime)
		s.harm(p, pkt.src, to)
	} else {
		at = max(at, p.last)
		p.last = at
	}
	s.w.queue.push(task{at: at, what: taskDeliver, host: to, pkt: pkt})
	if rng.chance(s.Duplicate) {
		at += rng.in(s.ReorderTime)
		s.w.queue.push(task{at: at, what: taskDeliver, host: to, pkt: pkt})
	}
}

// delay is the longest that an advert is under way while nothing holds it back.
func (s *Segment) delay() time.Duration {
	most := s.Latency.Max
	for _, chance := range []float64{s.Reorder, s.Duplicate} { // a copy of one that is late is later
		if chance > 0 {
			most += s.ReorderTime.Max
		}
	}
	return most
}

// harm notes that an advert does not arrive in time.
func (s *Segment) harm(p *path, from, to *Host) {
	if from != to && !s.aside {
		s.w.tell(Event{Kind: KindHarm, Host: to, Peer: from})
	}
	p.harmed = s.w.now
}

// corrupted returns a copy of pkt with a few bits flipped. Flips that the
// checksum happens to forgive, with or without a pseudo-header, in bytes that no
// HMAC covers would pass every receiver; on Ethernet the frame's CRC catches
// them, so they are flipped back but for one.
func corrupted(w *World, pkt *packet) *packet {
	c := *pkt
	c.bad = true
	c.Payload = w.room(len(pkt.Payload))
	copy(c.Payload, pkt.Payload)
	bits := 8 * len(c.Payload)
	for range 1 + w.network.IntN(4) {
		i := w.network.IntN(bits)
		c.Payload[i/8] ^= 1 << (i % 8)
	}
	if sum := onesSum(c.Payload); sum == 0xffff || sum == onesSum(pkt.Payload) {
		copy(c.Payload, pkt.Payload)
		c.Payload[w.network.IntN(len(c.Payload))] ^= 1 << w.network.IntN(8)
	}
	return &c
}

// onesSum is the sum of RFC 1071 over an even number of bytes.
func onesSum(b []byte) uint32 {
	var acc uint32
	for i := 0; i+1 < len(b); i += 2 {
		acc += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for acc > 0xffff {
		acc = acc>>16 + acc&0xffff
	}
	return acc
}

// Cut lets nothing pass from one port to another from now on; what is under way
// arrives. Cuts are counted: each needs its Join.
func (s *Segment) Cut(from, to Port) {
	s.changes(from, to)
	s.path(from, to).cut++
	s.w.clientsLook()
}

// changes tells checkers that a path is another one from now on. It is called
// before the change, so that they judge what was.
func (s *Segment) changes(from, to Port) {
	if a, b := s.host(from), s.host(to); a != nil && b != nil {
		s.harm(s.path(a, b), a, b)
	}
}

// Join takes one Cut back.
func (s *Segment) Join(from, to Port) {
	if p := s.path(from, to); p.cut > 0 {
		s.changes(from, to)
		p.cut--
		s.w.clientsLook()
	}
}

// Clog holds back what is sent from one port to another, without loss, until
// Unclog. Clogs are counted.
func (s *Segment) Clog(from, to Port) {
	s.changes(from, to)
	s.path(from, to).clogged++
}

// Unclog takes one Clog back; with the last, what was held arrives at once and in
// order.
func (s *Segment) Unclog(from, to Port) {
	p := s.path(from, to)
	s.changes(from, to)
	if p.clogged > 0 {
		p.clogged--
	}
	if p.clogged > 0 {
		return
	}
	if h := s.host(to); h != nil {
		for _, pkt := range p.held {
			p.last = max(p.last, s.w.now)
			s.w.queue.push(task{at: p.last, what: taskDeliver, host: h, pkt: pkt})
		}
	}
	p.held = nil
}

func (s *Segment) host(p Port) *Host {
	h, _ := p.(*Host)
	return h
}

// Partition cuts all paths between ports of different groups, both ways. A port
// that is in no group is cut off from nobody. The function it returns joins them
// again.
func (s *Segment) Partition(groups ...[]Port) (join func()) {
	change := func(f func(from, to Port)) {
		for i, one := range groups {
			for j, other := range groups {
				for _, from := range one {
					for _, to := range other {
						if i != j {
							f(from, to)
						}
					}
				}
			}
		}
	}
	change(s.Cut)
	return func() { change(s.Join) }
}

// Heal takes back every Cut and Clog, and ends loss, duplication, reordering,
// corruption and echo. The latency stays.
func (s *Segment) Heal() {
	for _, from := range s.hosts {
		for _, to := range s.hosts {
			s.changes(from, to)
		}
	}
	s.Loss, s.Duplicate, s.Reorder, s.Corrupt, s.Echo = 0, 0, 0, 0, 0
	for i := range s.paths {
		for j := range s.paths[i] {
			s.paths[i][j].cut = 0
		}
	}
	for _, from := range s.hosts {
		for _, to := range s.hosts {
			p := s.path(from, to)
			p.clogged = min(p.clogged, 1)
			s.Unclog(from, to)
		}
	}
	s.w.clientsLook()
}

// Whole reports whether the paths between two hosts carry everything in both
// directions now, but for what chance takes.
func (s *Segment) Whole(a, b Port) bool {
	p, q := s.path(a, b), s.path(b, a)
	return p.cut == 0 && q.cut == 0 && p.clogged == 0 && q.clogged == 0
}
