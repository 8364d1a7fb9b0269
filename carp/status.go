package carp

import (
	"maps"
	"net/netip"
	"time"
)

// Counters are totals since the engine was made.
type Counters struct {
	Received    uint64 // authentic adverts
	Sent        uint64 // rounds sent
	SendErrors  uint64 // rounds of which nothing went out
	Transitions uint64
}

// Sighting is another master as last heard.
type Sighting struct {
	Address          netip.Addr
	AdvBase, AdvSkew uint8         // CARP
	Priority         uint8         // VRRP
	Interval         time.Duration // VRRP, as advertised
	Sum              Checksum      // VRRP3 over IPv4: the form that it sends
	Refused          Drop          // VRRP: why it is alive but incompatible; Accepted if it is not
	At               Instant
	NodeID           uint8 // CARP, where the counter carries it; else 0
}

// Status is a copy of what an engine knows. It shares nothing with it.
type Status struct {
	Protocol          Protocol
	State             State
	Since             Instant
	Reason            Reason // of the last transition
	Epoch             Epoch  // of the present or last mastership
	AdvBase, AdvSkew  uint8
	EffectiveAdvSkew  uint8
	Priority          uint8         // VRRP
	EffectivePriority uint8         // VRRP: less the demotion
	Interval          time.Duration // between this node's adverts when it is not demoted
	Demotion          int
	Demotions         map[string]int // by owner
	Master            Sighting       // the best other master within the master-down time; zero if none
	LinkKnown         bool           // the link has said whether it is up
	LinkUp            bool
	Paths             []PathStatus // the primary one first; nil if there is no other
	Unfit             bool         // this node has said that it is not fit to serve
	CutOff            bool         // the probe of the client side fails
	ContestedUntil    Instant      // another master was heard, and the contest counts as on until then
	Local             Local
	MasterDown        time.Duration // this node's own
	Deadline          Instant       // when a silent master is taken over from; 0 outside BACKUP
	RollingUntil      Instant       // two digests are in use until then; 0 if not
	HeldUntil         Instant       // after a failed takeover; 0 if not
	SendErrors        int           // consecutive
	Counters          Counters
	Seal              SealStatus        // CARP
	Members           []Member          // sealed groups: the others that have said what they are, by node id; at most MaxMembers
	Drops             map[Drop]uint64   // without those that are zero
	Refused           map[Drop]Sighting // who sent the last of each; the address may be a lie
}

// Status reports the engine's state at now.
func (e *Engine) Status(now Instant) Status {
	s := Status{
		State: e.state, Since: e.since, Reason: e.reason, Epoch: e.epoch,
		AdvBase: e.cfg.AdvBase, AdvSkew: e.cfg.AdvSkew, EffectiveAdvSkew: e.timing().skew,
		Demotion: e.demotion, Demotions: maps.Clone(e.demotions),
		LinkKnown: e.knows, LinkUp: e.up, Local: e.local, ContestedUntil: e.contested,
		Paths: e.pathStatus(now), CutOff: e.cutOff, Unfit: e.health.unfit,
		Protocol: e.cfg.Protocol, Priority: e.cfg.Priority, EffectivePriority: e.bid().priority, Interval: e.cfg.AdvertInterval(),
		MasterDown: e.masterDown(e.followed(now)),
		HeldUntil:  e.timers[timerHold],
		SendErrors: e.errors,
		Counters:   e.counters,
		Drops:      map[Drop]uint64{},
		Refused:    map[Drop]Sighting{},
	}
	if e.state == Backup {
		s.Deadline = e.timers[timerDown]
	}
	if e.cfg.Protocol == CARP {
		s.Seal, s.Members = e.sealStatus(now), e.memberStatus(now)
	}
	if n := len(e.rolling); n > 0 {
		s.RollingUntil = e.rolling[n-1].until
	}
	for d, n := range e.drops {
		if n > 0 {
			s.Drops[Drop(d)] = n
			s.Refused[Drop(d)] = e.refused[d]
		}
	}
	if best := e.bestSighting(now); best != nil {
		s.Master = best.public()
	}
	return s
}

func (s *sighting) public() Sighting {
	return Sighting{
		Address: s.src, AdvBase: s.bid.base, AdvSkew: s.bid.skew, Priority: s.bid.priority, Interval: s.bid.every,
		Sum: s.sum, Refused: s.refused, At: s.at,
	}
}
