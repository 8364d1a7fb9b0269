package carp

import (
	"encoding/binary"
	"slices"
	"time"
)

// The members of a sealed group, which are all carpd, tell each other more than
// adverts do: each its state, also as a backup; and who wants the role asks the
// holder for it, where an advert would only claim it. The holder lets go first and
// then says to whom.

const (
	// stateEvery is the least time between two peer states of a node that changes
	// nothing; a longer advert interval makes it longer.
	stateEvery = time.Second
	// memberRounds is how many peer states may be lost until a member counts as gone.
	memberRounds = 3
	// requestLimit is how often a holder is asked without an answer before the role is
	// claimed by advert, as from a holder that cannot be asked.
	requestLimit = 3
	// refusedFor is how long a refusal holds.
	refusedFor = 10 * time.Second
)

// planner is what the engine keeps for planned moves.
type planner struct {
	members   members
	said      Instant // when the own state was told last,
	saidState State   // and which
	requests  int     // to the holder, since it last answered
	requestAt Instant // no request before
	heir      uint8   // node id of who asked for the role that is being let go
}

// stateTime is how far apart a node's peer states are.
func (e *Engine) stateTime() time.Duration { return max(stateEvery, e.interval()) }

// tellState says what this node is. As a master it goes with an advert: whoever
// hears the one hears the other.
func (e *Engine) tellState(now Instant, claim timing) {
	if !e.sealedGroup() {
		return
	}
	s := PeerState{State: e.state, Fitness: e.fitness(), Epoch: e.epoch, Config: e.cfg.digest()}
	var body [peerStateLen]byte
	e.say(now, TypePeerState, claim, s.append(body[:0]))
	e.plan.said, e.plan.saidState = now, e.state
	if e.state == Backup {
		e.arm(timerState, now.Add(e.stateTime()))
	}
}

// tellStateInTurn does so beside an advert, if it is time or there is news.
func (e *Engine) tellStateInTurn(now Instant, claim timing) {
	if e.plan.said == 0 || e.plan.saidState != e.state || now.Sub(e.plan.said) >= e.stateTime() {
		e.tellState(now, claim)
	}
}

func (e *Engine) fitness() Fitness {
	switch {
	case e.timers[timerHold] != 0:
		return Unfit
	case e.demotion > 0:
		return Degraded
	}
	return Fit
}

// heardState remembers what a member says of itself.
func (e *Engine) heardState(now Instant, h *hearing, p *Packet) Drop {
	s := unseal(h.counter)
	said := PeerState{Node: s.id, AdvBase: s.timing.base, AdvSkew: s.timing.skew, Address: p.Src, At: now}
	d := said.decode(h.message.Body)
	if d == Accepted {
		e.plan.members.put(said)
	}
	return d
}

// heardHandover handles one message of a planned move that is meant for this node.
func (e *Engine) heardHandover(now Instant, h *hearing, p *Packet) Drop {
	var m handover
	if d := m.decode(h.message.Body); d != Accepted {
		return d
	}
	if m.to != e.cfg.NodeID {
		return Accepted
	}
	switch m.step {
	case handoverAsk:
		e.requested(now, h, p)
	case handoverWait:
		e.plan.requests = 0
	case handoverRefuse:
		e.plan.requests, e.plan.requestAt = 0, now.Add(refusedFor)
	case handoverLetGo:
		return e.inherit(now, m.epoch, p)
	}
	return Accepted
}

// request asks a holder that is worse than this node for the role. It reports false
// once the holder has not answered: then the role is to be claimed.
func (e *Engine) request(now Instant, h *hearing) bool {
	pl := &e.plan
	switch {
	case !e.sealedGroup():
		return false
	case now < pl.requestAt:
		return true
	case pl.requests >= requestLimit:
		pl.requests = 0
		return false
	}
	pl.requests++
	pl.requestAt = now.Add(e.interval() / 2)
	e.tellHandover(now, e.bid().timing, handover{step: handoverAsk, to: unseal(h.counter).id})
	return true
}

// requested answers a better node that wants the role. Each answer goes with an
// advert.
func (e *Engine) requested(now Instant, h *hearing, p *Packet) {
	node, step := unseal(h.counter).id, handoverRefuse
	switch {
	case e.state == Master && !e.asking && e.timers[timerGrace] == 0 && e.asMaster(e.bid(), h.bid) == yield:
		e.release(now, Backup, ReasonRequested)
		e.change.Peer = p.Src
		e.plan.heir, step = node, handoverWait
	case e.state == Releasing:
		step = handoverWait
	case e.state != Master:
		return
	}
	e.advertise(now)
	claim := e.bid().timing
	if e.state == Releasing {
		claim = e.held.timing
	}
	e.tellHandover(now, claim, handover{step: step, to: node, epoch: e.epoch})
}

// bequeath says to whom the role goes that has been let go: to who asked for it, or
// to the best that could take it. The bow-out that follows is for all others, and
// for the case that this is lost.
func (e *Engine) bequeath(now Instant) {
	if !e.sealedGroup() {
		return
	}
	heir := e.plan.heir
	if best := e.plan.members.heir(now.Add(-memberRounds * e.stateTime())); heir == 0 && best != nil {
		heir = best.Node
	}
	e.plan.heir = 0
	if heir != 0 {
		e.tellHandover(now, e.held.timing, handover{step: handoverLetGo, to: heir, epoch: e.epoch})
	}
}

// inherit takes the role that the master which is followed has let go for this node:
// at once, since nobody else was told so.
func (e *Engine) inherit(now Instant, epoch Epoch, p *Packet) Drop {
	if e.state != Backup {
		return Accepted // a copy, or too late
	}
	from := *p
	from.Src = e.nameOf(p.Src)
	_, alone, followed := e.gone(now, &from)
	if !followed {
		return DropBowOut
	}
	e.epoch = max(e.epoch, epoch)
	if alone {
		e.takeOver(now, ReasonBowOut, nil)
	}
	return Accepted
}

func (e *Engine) tellHandover(now Instant, claim timing, h handover) {
	var body [handoverLen]byte
	e.say(now, TypeHandover, claim, h.append(body[:0]))
}

// digest is a number of those settings that all members should share.
func (c *Config) digest() uint64 {
	const prime, offset = 1099511628211, 14695981039346656037 // FNV-1a
	sum := uint64(offset)
	for _, v := range []uint64{uint64(c.AdvBase), uint64(c.Families), uint64(c.window())} {
		for range 8 {
			sum = (sum ^ v&0xff) * prime
			v >>= 8
		}
	}
	return sum
}

// Member is what another node of a sealed group says of itself.
type Member struct {
	PeerState
	Gone    bool // not heard any more
	Differs bool // its advbase, families or window are not this node's
}

// memberStatus lists them by node id.
func (e *Engine) memberStatus(now Instant) []Member {
	var all []Member
	own := e.cfg.digest()
	for _, p := range e.plan.members.of[:e.plan.members.n] {
		all = append(all, Member{PeerState: p, Gone: now.Sub(p.At) > memberRounds*e.stateTime(), Differs: p.Config != own})
	}
	slices.SortFunc(all, func(a, b Member) int { return int(a.Node) - int(b.Node) })
	return all
}

// appendState appends what later decisions depend on; a member that is gone by fresh
// is none.
func (pl *planner) appendState(dst []byte, now Instant, fresh time.Duration) []byte {
	if pl.said == 0 {
		return dst // no sealed group
	}
	dst = append(dst, byte(pl.saidState), byte(pl.requests), pl.heir)
	dst = binary.BigEndian.AppendUint64(dst, uint64(max(pl.requestAt.Sub(now), 0)))
	dst = binary.BigEndian.AppendUint64(dst, uint64(now.Sub(pl.said)))
	for _, m := range pl.members.of[:pl.members.n] {
		if now.Sub(m.At) <= fresh {
			dst = append(dst, m.Node, byte(m.State), byte(m.Fitness), m.AdvBase, m.AdvSkew)
			dst = binary.BigEndian.AppendUint64(dst, uint64(now.Sub(m.At)))
		}
	}
	return dst
}
