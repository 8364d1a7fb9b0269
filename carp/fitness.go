package carp

// OwnerUnfit is the owner of the demotion while this node is unfit, and unfitDemote its
// amount.
const (
	OwnerUnfit  = "unfit"
	unfitDemote = 240
)

// health is what the engine keeps of its own fitness. The zero value is fit.
type health struct {
	unfit bool    // this node could not serve as master
	tries uint8   // how often it let go for a fit member since it is unfit,
	next  Instant // and when it may do so again
}

// Unfit tells whether this node could not serve as master, by what it sees of itself,
// when that changes. While it is so it is demoted by 240. In a sealed group it says so,
// and a master lets go in order for a member that is fit; if that one has not taken the
// role within two intervals the node takes it back, and waits longer each time until it
// lets go again. Without a member that is known to be fit it stays: who serves badly is
// not replaced by one that nobody knows anything of, nor by one that is unfit as well.
func (e *Engine) Unfit(now Instant, is bool) Effects {
	stalled, amount := e.begin(now), 0
	if is == e.health.unfit {
		return e.finish()
	}
	e.health = health{unfit: is}
	if is {
		amount = unfitDemote
	}
	if !stalled {
		e.leaveToFit(now)
	}
	e.setDemotion(now, OwnerUnfit, amount)
	if e.state == Backup {
		e.tellState(now, e.timing()) // an unfit master may wait for this
	}
	return e.finish()
}

// leaveToFit lets go of the role of an unfit master for the best member that is fit.
func (e *Engine) leaveToFit(now Instant) {
	h := &e.health
	if !h.unfit || e.state != Master || now < h.next || !e.sealedGroup() {
		return
	}
	heir := e.plan.members.fit(e.cfg.NodeID, now.Add(-memberRounds*e.stateTime()))
	if heir == nil {
		return
	}
	h.next = now.Add(min(failureHold<<min(h.tries, 8), failureHoldLimit))
	h.tries++
	e.release(now, Backup, ReasonUnfit)
	e.handing, e.plan.heir = true, heir.Node
}

// fit returns the best backup that could take the role over from an unfit master, or nil:
// heard since earliest, it hears that master, is fit itself, and not demoted as far as an
// unfit one, for whatever reason: an operator who has handed over is one.
func (m *members) fit(master uint8, earliest Instant) (best *PeerState) {
	for i := range m.of[:m.n] {
		p := &m.of[i]
		if p.State != Backup || p.Fitness == Unfit || p.At < earliest || p.Follows != master || p.Missing || p.AdvSkew >= unfitDemote {
			continue
		}
		if best == nil || p.before(best) {
			best = p
		}
	}
	return best
}
