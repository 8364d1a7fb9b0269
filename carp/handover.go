package carp

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strconv"
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
	// missingEarly and missingLate are the parts of its master-down time that are left
	// when a backup says that it misses its master.
	missingEarly, missingLate = 4, 8
	// refusedFor is how long a refusal holds.
	refusedFor = 10 * time.Second
	// unheardFor is how long a node that let go because it was not heard does not ask
	// for the role again.
	unheardFor = time.Minute
	// rankTime is what a backup leaves to each member that would take the role of a
	// silent master at the same instant: by then its advert is here.
	rankTime = 20 * time.Millisecond
)

// planner is what the engine keeps for planned moves.
type planner struct {
	members   members
	said      Instant // when the own state was told last,
	saidState State   // and which
	follows   uint8   // node id of the master heard last; 0: none
	requestAt Instant // no request to the holder before
	refused   Instant // when a request was refused last
	heir      uint8   // node id of who asked for the role that is being let go
	deaf      uint8   // node id of who did not hear this master, which let go for that,
	deafUntil Instant // and how long others are not asked for the role because of it
	passed    Instant // when the role was let go for another node
	turnAfter uint64  // lastHeard + 1, when this node last waited for those that come before it
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
	if e.state == Master || e.state == Releasing {
		s.Held = e.cfg.Resources
	}
	if e.state == Backup {
		s.Follows = e.plan.follows
		s.Missing = e.misses(now)
	}
	var body [peerStateLen]byte
	e.say(now, TypePeerState, claim, s.append(body[:0]))
	e.plan.said, e.plan.saidState = now, e.state
	e.armState(now)
}

// misses reports whether this node is about to take the role since it hears no master.
// One that is held back after a failure will not, and nobody is to let go for it.
func (e *Engine) misses(now Instant) bool {
	dead := e.silentAt()
	return dead != 0 && dead >= e.timers[timerHold] && dead <= now.Add(e.masterDown(e.followed(now))/missingEarly)
}

// rank is how many members take the role of a silent master before this node: backups of
// the same weight with a lower node id. All of them have waited equally long.
func (e *Engine) rank(now Instant) (before int) {
	if !e.sealedGroup() {
		return 0
	}
	own, earliest := e.timing(), now.Add(-memberRounds*e.stateTime())
	for i := range e.plan.members.of[:e.plan.members.n] {
		p := &e.plan.members.of[i]
		equal := timing{p.AdvBase, p.AdvSkew} == own && p.Node < e.cfg.NodeID
		if equal && p.State == Backup && p.Fitness != Unfit && p.At >= earliest {
			before++
		}
	}
	return before
}

// silentAt is when the first of the master-down timers fires, or 0.
func (e *Engine) silentAt() Instant {
	at, at6 := e.timers[timerDown], e.timers[timerDown6]
	if at == 0 || at6 != 0 && at6 < at {
		return at6
	}
	return at
}

// armState plans what a backup says next: in turn, and twice before it takes the role
// since it hears no master. A master that hears the first advertises at once, so that a
// few lost adverts move nothing; one that hears the second, too, is not heard itself.
func (e *Engine) armState(now Instant) {
	if e.state != Backup || !e.sealedGroup() {
		return
	}
	next := max(e.plan.said.Add(e.stateTime()), now.Add(1))
	if down, dead := e.masterDown(e.followed(now)), e.silentAt(); dead != 0 {
		for _, left := range []time.Duration{down / missingEarly, down / missingLate} {
			if at := dead.Add(-left); at > now {
				next = min(next, at)
			}
		}
	}
	e.arm(timerState, next)
}

// tellStateInTurn does so beside an advert, if it is time or there is news.
func (e *Engine) tellStateInTurn(now Instant, claim timing) {
	if e.plan.said == 0 || e.plan.saidState != e.state || now.Sub(e.plan.said) >= e.stateTime() {
		e.tellState(now, claim)
	}
}

func (e *Engine) fitness() Fitness {
	switch {
	case e.timers[timerHold] != 0 || e.health.unfit:
		return Unfit
	case e.demotion > 0:
		return Degraded
	}
	return Fit
}

// heardState remembers what a member says of itself.
func (e *Engine) heardState(now Instant, h *hearing, p *Packet) Drop {
	s := unseal(h.counter)
	said := PeerState{Node: s.id, AdvBase: s.timing.base, AdvSkew: s.timing.skew, Address: p.Src, At: now, clock: s.clock}
	if d := said.decode(h.message.Body); d != Accepted {
		return d
	}
	if said.Missing && e.state == Master { // whoever it has followed: this node it does not hear
		e.missed(now, &said, e.plan.members.get(s.id))
	}
	e.plan.members.put(said)
	e.leaveToFit(now)
	return Accepted
}

// missed answers a backup that is about to take this master for dead, though it is
// heard here. before is what it said last. If it says so again after the answer, it
// does not hear this node: then the role is let go for it before it takes it, or both
// would have the addresses. No other is to have it, since that one may be deaf to all.
func (e *Engine) missed(now Instant, said, before *PeerState) {
	down := e.fastestDown()
	switch {
	case before == nil || !before.Missing || now.Sub(before.At) > down/2:
		e.advertise(now)
	case before.clock == said.clock: // a copy over another family or path, however late
	case now.Sub(before.At) >= down/(2*missingLate): // it has had the answer, if it hears this node
		e.plan.deaf, e.plan.deafUntil = said.Node, now.Add(unheardFor)
		e.release(now, Backup, ReasonUnheard)
		e.plan.heir = said.Node
		e.advertise(now)
	}
}

// heardHandover handles one message of a planned move that is meant for this node.
func (e *Engine) heardHandover(now Instant, h *hearing, p *Packet) Drop {
	var m handover
	if d := m.decode(h.message.Body); d != Accepted {
		return d
	}
	if m.to != e.cfg.NodeID {
		if m.step == handoverLetGo {
			e.plan.passed = now
		}
		return Accepted
	}
	switch m.step {
	case handoverAsk:
		e.requested(now, h, p)
	case handoverRefuse:
		e.plan.requestAt = now.Add(refusedFor)
	case handoverLetGo:
		return e.inherit(now, m.epoch, p)
	}
	return Accepted
}

// request asks a holder that is worse than this node for the role. It is never claimed
// by advert: a holder that does not answer does not hear this node, and would stay. Nor
// is a third node asked that hears this one, soon after another did not: the role would
// come and go. If the one that did not is the holder, its answer shows that now it does.
func (e *Engine) request(now Instant, h *hearing) {
	holder := unseal(h.counter).id
	if now < e.plan.requestAt || now < e.plan.deafUntil && holder != e.plan.deaf {
		return
	}
	e.plan.requestAt = now.Add(e.interval() / 2)
	e.tellHandover(now, e.bid().timing, handover{step: handoverAsk, to: holder})
}

// requested answers a better node that wants the role, once in a while: a node that
// stood still may hear what was asked for many times. Each answer goes with an advert.
func (e *Engine) requested(now Instant, h *hearing, p *Packet) {
	node, step := unseal(h.counter).id, handoverRefuse
	switch {
	case e.state != Master:
		return // who lets go has said so
	case !e.asking && e.timers[timerGrace] == 0 && e.asMaster(e.bid(), h.bid) == yield:
		e.release(now, Backup, ReasonRequested)
		e.change.Peer = p.Src
		e.plan.heir, step = node, handoverWait
	case e.plan.refused != 0 && now.Sub(e.plan.refused) < e.interval()/4:
		return
	default:
		e.plan.refused = now
	}
	e.advertise(now)
	e.tellHandover(now, e.claim().timing, handover{step: step, to: node, epoch: e.epoch})
}

// passedOn reports whether a bow-out is for one other node alone: it follows on the word
// that the role was let go for that one, whose adverts this node may not hear.
func (e *Engine) passedOn(now Instant) bool {
	return e.plan.passed != 0 && now.Sub(e.plan.passed) < e.interval()
}

// bequeath says to whom the role goes that has been let go: to who asked for it, or
// to the best that could take it. The bow-out that follows is for all others, and
// for the case that this is lost.
func (e *Engine) bequeath(now Instant) {
	if !e.sealedGroup() {
		return
	}
	heir := e.plan.heir
	e.plan.heir = 0
	if heir == 0 {
		if best := e.plan.members.heir(now.Add(-memberRounds * e.stateTime())); best != nil {
			heir = best.Node
		}
	}
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
	var settings []byte
	for _, v := range []uint64{uint64(c.AdvBase), uint64(c.Families), uint64(c.window())} {
		settings = binary.LittleEndian.AppendUint64(settings, v)
	}
	sum := fnv.New64a()
	sum.Write(settings)
	return sum.Sum64()
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
func (pl *planner) appendState(dst []byte, now Instant, fresh, interval time.Duration) []byte {
	if pl.said == 0 {
		return dst // no sealed group
	}
	passing := Instant(0)
	if pl.passed != 0 {
		passing = pl.passed.Add(interval)
	}
	dst = append(dst, byte(pl.saidState), pl.follows, pl.heir, pl.deaf)
	for _, until := range []Instant{pl.requestAt, pl.deafUntil, passing} {
		dst = binary.BigEndian.AppendUint64(dst, uint64(max(until.Sub(now), 0)))
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(now.Sub(pl.said)))
	for _, m := range pl.members.of[:pl.members.n] {
		if now.Sub(m.At) <= fresh {
			dst = append(dst, m.Node, byte(m.State), byte(m.Fitness), m.AdvBase, m.AdvSkew, m.Follows)
			dst = strconv.AppendBool(dst, m.Missing)
			dst = binary.BigEndian.AppendUint64(dst, uint64(now.Sub(m.At)))
		}
	}
	return dst
}
