package explore

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/carpd/carpd/carp"
)

// recording is a packet as an attacker has it, and who has accepted it.
type recording struct {
	packet
	taken uint8
}

// maxTape is how many packets an attacker remembers: the latest.
const maxTape = 6

// weights are what the timing fields of a recording are rewritten to: none, the best
// and a bow-out.
var weights = [...][2]byte{{}, {1, 0}, {255, 255}}

func (s *state) sealed() bool { return s.nodes[0].config.Replay == carp.ReplaySealed }

// record keeps a packet that was sent.
func (s *state) record(p packet) {
	if !s.sealed() {
		return
	}
	if len(s.tape) == maxTape {
		s.tape = append(s.tape[:0:0], s.tape[1:]...)
	}
	s.tape = append(s.tape, recording{packet: p})
}

// attacks adds what an attacker can do.
func (s *state) attacks(all []move) []move {
	for i := range s.tape {
		for j := range s.nodes {
			if n := &s.nodes[j]; n.crashed || n.frozen || s.tape[i].from == uint8(j) {
				continue
			}
			for as, w := range weights {
				p := s.tape[i].payload
				if as == 0 || p[5] != w[0] || p[2] != w[1] {
					all = append(all, move{replay, uint8(i), uint8(j), uint8(as)})
				}
			}
		}
	}
	return all
}

func (s *state) describeReplay(m move) string {
	p := s.tape[m.n]
	return fmt.Sprintf("replay %v of %c to %c as %v", carp.MessageType(p.payload[0]&0xf), 'A'+p.from, 'A'+m.to, weights[m.as])
}

// play gives a recording to a node.
func (s *state) play(m move, fault Fault) string {
	p := s.tape[m.n].packet
	p.to = m.to
	n := &s.nodes[p.to]
	if fault == Forget {
		s.apply(int(p.to), n.engine.ResetSeal(s.now, 0), fault)
	}
	if m.as == 0 {
		return s.handle(p, fault)
	}
	b := bytes.Clone(p.payload)
	b[5], b[2], b[6], b[7] = weights[m.as][0], weights[m.as][1], 0, 0
	sum := uint32(0)
	for i := 0; i < carp.HeaderLen; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(b[6:], ^uint16(sum&0xffff+sum>>16))
	p.payload = b
	e := n.engine.Receive(s.now, arriving(p, s.now))
	if e.Drop == carp.Accepted || e.Drop == carp.DropChecksum {
		return fmt.Sprintf("%c took a packet whose weight was rewritten for %v", 'A'+p.to, e.Drop)
	}
	return s.apply(int(p.to), e, fault)
}

// arriving is a packet as the engine gets it.
func arriving(p packet, now carp.Instant) carp.Packet {
	from := local(int(p.from))
	return carp.Packet{
		Src: from.IPv4, Dst: carp.Group(carp.IPv4), SrcMAC: from.MAC, TTL: 255, Broadcast: true, Payload: p.payload, At: now,
	}
}

// took notes what was accepted, and says whether it was before.
func (s *state) took(p packet, d carp.Drop) string {
	if !s.sealed() || d != carp.Accepted {
		return ""
	}
	bit := uint8(1) << p.to
	for i := range s.tape {
		r := &s.tape[i]
		if r.from != p.from || r.payload[0] != p.payload[0] || !bytes.Equal(r.payload[8:16], p.payload[8:16]) {
			continue
		}
		if r.taken&bit != 0 {
			return fmt.Sprintf("%c accepts a packet of %c for the second time", 'A'+p.to, 'A'+p.from)
		}
		r.taken |= bit
	}
	return ""
}

// whole reports whether all nodes run as they should: then no two answer.
func (s *state) whole() bool {
	for i := range s.nodes {
		if s.nodes[i].crashed || s.nodes[i].frozen {
			return false
		}
	}
	return true
}
