package sim

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/carpd/carpd/carp"
)

// attacker records all that is sent on a segment, and plays any of it again: at once
// or an hour later, unchanged or with another weight, TTL, source address or family. It
// has not the passphrase. Its weapon is worthless in a sealed group: see Fresh.
type attacker struct {
	w    *World
	seg  *Segment
	rng  source
	tape []*packet
	seen int // how many were sent so far
	ends time.Duration
}

// maxTape bounds the tape: of what does not fit, chance keeps some of every time.
const maxTape = 512

// record keeps a packet.
func (a *attacker) record(p *packet) {
	a.seen++
	if len(a.tape) < maxTape {
		a.tape = append(a.tape, p)
		return
	}
	if i := a.rng.IntN(a.seen); i < maxTape {
		a.tape[i] = p
	}
	a.tape[a.seen%64] = p // and of the last ones all
}

func (a *attacker) begin() {
	a.w.After(a.rng.around(a.w.opts.AttackEvery), func() {
		if a.w.now >= a.ends {
			return
		}
		for range 1 + a.rng.IntN(4) {
			a.strike()
		}
		a.begin()
	})
}

// strike plays one packet to everybody.
func (a *attacker) strike() {
	if len(a.tape) == 0 {
		return
	}
	p := *a.tape[a.rng.IntN(len(a.tape))]
	p.replay, p.original = true, p.Payload
	if a.rng.IntN(2) == 0 {
		p.altered = true
		base, skew := uint8(a.rng.Uint64()), uint8(a.rng.Uint64())
		switch a.rng.IntN(3) {
		case 0:
			base, skew = 0, 0
		case 1:
			base, skew = 255, 255
		}
		p.Payload = a.rewritten(p.Payload, base, skew)
		p.altered = !bytes.Equal(p.Payload, p.original)
	}
	if a.rng.IntN(4) == 0 {
		p.Src = netip.AddrFrom4([4]byte{192, 0, 2, uint8(200 + a.rng.IntN(50))})
		p.Dst = carp.Group(carp.IPv4)
	} else if a.rng.IntN(6) == 0 {
		p.Src = netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: uint8(1 + a.rng.IntN(200))})
		p.Dst = carp.Group(carp.IPv6)
	}
	p.TTL = 255
	for _, to := range a.seg.hosts {
		if to.listens() && (p.Dst.IsMulticast() || to.local.IPv4 == p.Dst || to.local.IPv6 == p.Dst) {
			q := p
			a.w.queue.push(task{at: a.w.now + a.rng.in(Span(0, time.Millisecond)), what: taskDeliver, host: to, pkt: &q})
		}
	}
}

// rewritten is a payload with another weight and the checksum that fits: no key is
// needed for that.
func (a *attacker) rewritten(payload []byte, base, skew uint8) []byte {
	b := a.w.room(len(payload))
	copy(b, payload)
	b[5], b[2] = base, skew
	b[6], b[7] = 0, 0
	binary.BigEndian.PutUint16(b[6:], ^uint16(onesSum(b[:carp.HeaderLen])))
	return b
}

// Fresh checks a sealed group: nothing is accepted whose weight was changed, nothing
// that this node has accepted before, over one family, since it last lost its saved
// state. What a node never heard, because of a cut or a loss, an attacker can bring
// later: that is a delay, and counts as a harm.
type Fresh struct {
	taken map[*Host]map[taken]bool
	lives map[*Host]int // how often each had lost its state
}

// taken is a payload, by the counter that the HMAC covers, and the family.
type taken struct {
	counter uint64
	kind    byte
	family  carp.Family
}

// Name implements Checker.
func (*Fresh) Name() string { return "fresh" }

// Look implements Checker.
func (*Fresh) Look(*World) {}

// Observe implements Checker.
func (c *Fresh) Observe(w *World, e *Event) {
	p := e.packet
	if e.Kind != KindHeard || e.Drop != carp.Accepted || p == nil || e.Host.Config.Replay != carp.ReplaySealed {
		return
	}
	h := e.Host
	if c.taken == nil {
		c.taken, c.lives = map[*Host]map[taken]bool{}, map[*Host]int{}
	}
	if c.taken[h] == nil || c.lives[h] != h.lost {
		c.taken[h], c.lives[h] = map[taken]bool{}, h.lost
	}
	k := taken{binary.BigEndian.Uint64(p.Payload[8:]), p.Payload[0], carp.FamilyOf(p.Src)}
	switch {
	case p.altered:
		w.Fail(c, "%s accepted an advert of %s whose weight was changed", h.Name, p.src.Name)
	case c.taken[h][k]:
		w.Fail(c, "%s accepted a packet of %s, sent %v ago, for the second time", h.Name, p.src.Name, w.now-p.sent)
	}
	c.taken[h][k] = true
}
