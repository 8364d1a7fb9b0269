package carp

import (
	"encoding/binary"
	"net/netip"
)

// Fitness says how well a node could serve as master.
type Fitness uint8

// The grades, best first.
const (
	Fit      Fitness = iota
	Degraded         // demoted: it serves if nobody better does
	Unfit            // by its own word, or held back after a takeover that failed: it is not asked
)

var fitnessNames = [...]string{"fit", "degraded", "unfit"}

func (f Fitness) String() string { return name(fitnessNames[:], int(f), "Fitness") }

// PeerState is what a member of a sealed group says of itself, as master and as
// backup: the one way to know a backup before it is needed.
type PeerState struct {
	Node             uint8 // node id, 1 to 255
	State            State
	Fitness          Fitness
	Held             uint8      // resources that it holds
	Follows          uint8      // node id of the master that it follows; 0: none
	Missing          bool       // it is about to take the role, since it hears no master
	AdvBase, AdvSkew uint8      // what it advertises, or would
	Epoch            Epoch      // of its present or last mastership
	Config           uint64     // digest of the settings that all members should share
	Address          netip.Addr // from where it was heard
	At               Instant    // when; zero: never

	clock uint64 // of the message that said so
}

// peerStateLen is the length of the body of a peer state message.
const peerStateLen = 22

// append encodes what the counter of the message does not say already:
// node id and timing are in that.
func (p *PeerState) append(dst []byte) []byte {
	missing := byte(0)
	if p.Missing {
		missing = 1
	}
	dst = append(dst, 1, byte(p.State), byte(p.Fitness), p.Held, p.Follows, missing)
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.Epoch))
	return binary.BigEndian.AppendUint64(dst, p.Config)
}

// decode reads the body of a peer state message. Further bytes are ignored: a later
// version may say more.
func (p *PeerState) decode(b []byte) Drop {
	if len(b) < peerStateLen {
		return DropLength
	}
	if b[0] != 1 || b[1] > byte(Releasing) || b[2] > byte(Unfit) {
		return DropVersion
	}
	p.State, p.Fitness, p.Held, p.Follows, p.Missing = State(b[1]), Fitness(b[2]), b[3], b[4], b[5] != 0
	p.Epoch, p.Config = Epoch(binary.BigEndian.Uint64(b[6:])), binary.BigEndian.Uint64(b[14:])
	return Accepted
}

// handoverStep is one message of a planned move.
type handoverStep uint8

const (
	handoverAsk    handoverStep = iota + 1 // a better node wants the role
	handoverWait                           // the holder lets go: addresses and resources first
	handoverLetGo                          // it has let go: take the role now
	handoverRefuse                         // it does not
)

// handover is the body of a handover message.
type handover struct {
	step  handoverStep
	to    uint8 // node id
	epoch Epoch // of the holder's mastership
}

const handoverLen = 12

func (h *handover) append(dst []byte) []byte {
	dst = append(dst, 1, byte(h.step), h.to, 0)
	return binary.BigEndian.AppendUint64(dst, uint64(h.epoch))
}

func (h *handover) decode(b []byte) Drop {
	if len(b) < handoverLen {
		return DropLength
	}
	if b[0] != 1 || b[1] < byte(handoverAsk) || b[1] > byte(handoverRefuse) {
		return DropVersion
	}
	h.step, h.to, h.epoch = handoverStep(b[1]), b[2], Epoch(binary.BigEndian.Uint64(b[4:]))
	return Accepted
}

// MaxMembers is how many other members of a group are remembered; beyond it the one
// heard longest ago makes room.
const MaxMembers = 16

// members remembers the peer states of a sealed group. The zero value is empty.
type members struct {
	of [MaxMembers]PeerState
	n  int
}

// put remembers p in place of what the same node said before.
func (m *members) put(p PeerState) {
	slot := -1
	for i := range m.of[:m.n] {
		switch {
		case m.of[i].Node == p.Node:
			m.of[i] = p
			return
		case slot < 0 || m.of[i].At < m.of[slot].At:
			slot = i
		}
	}
	if m.n < MaxMembers {
		slot = m.n
		m.n++
	}
	m.of[slot] = p
}

// get returns what a node said last, or nil.
func (m *members) get(node uint8) *PeerState {
	for i := range m.of[:m.n] {
		if m.of[i].Node == node {
			return &m.of[i]
		}
	}
	return nil
}

// epoch returns the highest that a member has named.
func (m *members) epoch() Epoch {
	top := Epoch(0)
	for i := range m.of[:m.n] {
		top = max(top, m.of[i].Epoch)
	}
	return top
}

// heir returns the backup that is the best to take the role over: one that hears its
// master before one that does not, fit before degraded, then the shortest interval, then the lower node id. nil: there is none
// that could be known to take it. Those not heard since earliest do not count.
func (m *members) heir(earliest Instant) *PeerState {
	var best *PeerState
	for i := range m.of[:m.n] {
		p := &m.of[i]
		if p.State != Backup || p.Fitness == Unfit || p.At < earliest {
			continue
		}
		if best == nil || p.before(best) {
			best = p
		}
	}
	return best
}

func (p *PeerState) before(q *PeerState) bool {
	a, b := timing{p.AdvBase, p.AdvSkew}.units(), timing{q.AdvBase, q.AdvSkew}.units()
	switch {
	case p.Missing != q.Missing:
		return q.Missing
	case p.Fitness != q.Fitness:
		return p.Fitness < q.Fitness
	case a != b:
		return a < b
	}
	return p.Node < q.Node
}
