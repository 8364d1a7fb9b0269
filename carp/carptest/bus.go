// Package carptest holds what tests of the protocol share: Bus, a segment in
// memory; and Conformance, which every carp.Link passes.
package carptest

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/carpd/carpd/carp"
)

// Bus is an Ethernet segment in memory. Frames arrive at once and in order, but
// for what Drop takes away. It is safe for concurrent use, and its clock is
// package time's, so that it works in a testing/synctest bubble.
type Bus struct {
	// Drop, if not nil, is asked for every frame and receiver. Set it before the
	// first Join.
	Drop func(from, to *Port, p carp.Packet) bool

	start time.Time
	mu    sync.Mutex
	ports []*Port
}

// NewBus returns an empty segment whose clock starts at one second.
func NewBus() *Bus { return &Bus{start: time.Now()} }

// Beside returns another empty segment with the same clock, for links of one
// carp.Loop.
func (b *Bus) Beside() *Bus { return &Bus{start: b.start} }

// Now reads the segment's clock.
func (b *Bus) Now() carp.Instant { return carp.Instant(time.Second + time.Since(b.start)) }

// Port is one node's link on a Bus.
type Port struct {
	bus    *Bus
	local  carp.Local
	events chan carp.LinkEvent

	mu     sync.Mutex // guards closing, fail, notify and the sending side of events
	closed bool
	notify func()
	fail   error
	sent   []carp.Packet
}

// maxSent bounds what a port remembers.
const maxSent = 1 << 16

// Join adds a node with the given addresses. Its link is up at once.
func (b *Bus) Join(local carp.Local) *Port {
	p := &Port{bus: b, local: local, events: make(chan carp.LinkEvent, 64)}
	p.events <- carp.LinkEvent{Up: &local}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ports = append(b.ports, p)
	return p
}

// Now reads the segment's clock.
func (p *Port) Now() carp.Instant { return p.bus.Now() }

// Events implements carp.Link.
func (p *Port) Events() <-chan carp.LinkEvent { return p.events }

// Notify implements carp.Link.
func (p *Port) Notify(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notify = f
}

// told calls what Notify has set; the caller holds mu.
func (p *Port) told() {
	if p.notify != nil {
		p.notify()
	}
}

// Fail makes every Send return err, until it is called with nil.
func (p *Port) Fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = err
}

// Up brings the link up, with its addresses; Down takes it down.
func (p *Port) Up() { p.deliver(carp.LinkEvent{Up: &p.local}) }

// Down takes the link down.
func (p *Port) Down() { p.deliver(carp.LinkEvent{Down: true}) }

// Inject delivers a packet to this port alone, as if it came off the wire.
func (p *Port) Inject(pkt carp.Packet) { p.deliver(carp.LinkEvent{Packet: &pkt}) }

// Sent returns what the port has sent, oldest first.
func (p *Port) Sent() []carp.Packet {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sent)
}

// Send implements carp.Link: it delivers to every other port, or to the unicast
// peer's alone.
func (p *Port) Send(f carp.Frame) error {
	pkt := carp.Packet{
		Src: p.local.IPv4, Dst: f.Dst, SrcMAC: carp.VirtualMAC(f.VHID), TTL: 255,
		Payload: slices.Clone(f.Payload), Broadcast: f.Dst.IsMulticast(), At: p.Now(),
	}
	if carp.FamilyOf(f.Dst) == carp.IPv6 {
		pkt.Src = p.local.IPv6
	}
	f.Payload = pkt.Payload
	f.Finish(pkt.Src)
	if err := p.note(pkt); err != nil {
		return err
	}
	p.bus.mu.Lock()
	ports := slices.Clone(p.bus.ports)
	p.bus.mu.Unlock()
	for _, to := range ports {
		here := f.Dst.IsMulticast() || f.Dst == to.local.IPv4 || f.Dst == to.local.IPv6
		if to != p && here && (p.bus.Drop == nil || !p.bus.Drop(p, to, pkt)) {
			to.Inject(pkt)
		}
	}
	return nil
}

func (p *Port) note(pkt carp.Packet) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return errors.New("carptest: send: port closed")
	case p.fail != nil:
		return p.fail
	case len(p.sent) < maxSent:
		p.sent = append(p.sent, pkt)
	}
	return nil
}

// deliver makes room as a link must: the oldest packets go, a Lost event in front
// counts them, and changes stay.
func (p *Port) deliver(ev carp.LinkEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	defer p.told()
	select {
	case p.events <- ev:
		return
	default:
	}
	var waiting []carp.LinkEvent
	lost := 0
	for len(p.events) > 0 {
		old := <-p.events
		lost += old.Lost
		if old.Lost == 0 {
			waiting = append(waiting, old)
		}
	}
	waiting = append(waiting, ev)
	for i := 0; i < len(waiting) && len(waiting) >= cap(p.events); {
		if waiting[i].Packet == nil {
			i++
			continue
		}
		waiting = slices.Delete(waiting, i, i+1)
		lost++
	}
	p.events <- carp.LinkEvent{Lost: lost}
	for _, old := range waiting {
		p.events <- old
	}
}

// Close implements carp.Link.
func (p *Port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		close(p.events)
		p.told()
	}
	p.bus.mu.Lock()
	defer p.bus.mu.Unlock()
	p.bus.ports = slices.DeleteFunc(p.bus.ports, func(o *Port) bool { return o == p })
	return nil
}

// IPv4 returns a Local with the given address and a MAC made of it.
func IPv4(addr string) carp.Local {
	a := netip.MustParseAddr(addr)
	b := a.As4()
	return carp.Local{IPv4: a, MAC: carp.MAC{2, 0, b[0], b[1], b[2], b[3]}}
}
