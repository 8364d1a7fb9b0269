package carp

import (
	"net/netip"
	"time"
)

// timer names one of the engine's deadlines. They fire in this order.
type timer uint8

const (
	timerStart   timer = iota // the startup delay is over
	timerHold                 // a failed takeover may be tried again
	timerHeal                 // send errors are forgiven
	timerRoll                 // the oldest earlier digest goes out of use
	timerGrace                // the old master had its time to let go
	timerBowOut               // no better node took the role that was offered
	timerDown                 // the master is dead (shared, or IPv4)
	timerDown6                // the same for IPv6 alone; FamiliesEach
	timerRelease              // letting go takes longer than it may
	timerAdvert               // the next advert is due
	timerState                // the next peer state of a backup is due
	numTimers
)

// Owners of demotions that the engine makes itself.
const (
	OwnerSendErrors = "send-errors"
	OwnerFailure    = "failed-takeover"
	OwnerHandover   = "handover"
)

// Engine is the state machine of one vhid. It does no I/O and reads no clock; see
// the package comment for what its caller owes it. It is not safe for concurrent
// use. NewEngine makes one; it needs no closing.
type Engine struct {
	cfg   Config
	local Local

	state  State
	since  Instant
	reason Reason
	timers [numTimers]Instant

	knows   bool    // the link has said whether it is up
	up      bool    // the link carries adverts
	upAt    Instant // since when
	startAt Instant // end of the startup delay; 0 before the first link up
	ready   bool    // the start gate is open
	stopped bool    // resigned to INIT for good

	router  router // VRRP: what is the same in all adverts
	secret  secret
	guard   guard
	rolling []secret // earlier digests still in use, oldest first
	clock   uint64   // last group clock or BSD counter that was sent
	heardBy bool     // CompatBSD: clock continues a counter that was heard
	// reserved is the clock of the last BowOuts.
	reserved uint64
	recent   [64]uint64
	sent     int // how many counters went through recent

	demotions map[string]int
	demotion  int

	heard [8]sighting // masters heard lately

	// Only with Config.Paths.
	beside [MaxPaths + 1]linkState // the links 1 and up
	path   [MaxPaths + 1]pathState
	near   [8]neighbour
	ties   int // won on a further path against a master that stays

	cutOff bool // the probe of the client side fails
	health health

	epoch      Epoch
	lastSent   Instant    // last successful send of this mastership, or its start
	old        netip.Addr // the master preempted, while timerGrace runs,
	oldCounter uint64     // and its advert: a second form of the same round is no farewell
	lastHeard  uint64     // counter of the last authentic advert
	permitted  bool       // this epoch has had a permit
	claimed    bool       // an advert is among the frames of the last effects: other messages give no permit
	spoken     bool       // an advert of this mastership went out
	asking     bool       // the guard has not answered yet
	lastReply  Instant    // when another master was last answered
	announced  Instant    // and the addresses announced because of it
	contested  Instant    // a contest that began earlier lasts until then

	farewell bool // owed once the addresses are gone
	reminder reminder
	target   State // where RELEASING leads
	handing  bool  // takes the role back if nobody else does
	held     bid   // what RELEASING advertises until the end, and a farewell says

	slowing int           // VRRP: adverts still to go out at the pace from before the interval grew,
	faster  time.Duration // which is this: a backup may have missed the first of the new ones

	errors, successes int // consecutive failed sends; successes since
	failures          uint

	counters Counters
	drops    [numDrops]uint64
	refused  [numDrops]Sighting // the last packet of each

	plan planner // sealed groups

	out    Effects
	change Transition
	frames []Frame
	wire   []byte
}

// NewEngine returns an engine in INIT, or all faults of the configuration.
func NewEngine(c Config) (*Engine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.complete()
	return &Engine{cfg: c, secret: newSecret(&c), router: newRouter(&c), guard: newGuard(&c), demotions: map[string]int{}, epoch: c.MinEpoch, ready: !c.StartGate}, nil
}

// clear starts an input.
func (e *Engine) clear() {
	e.out, e.claimed = Effects{}, false
	e.frames, e.wire = e.frames[:0], e.wire[:0]
}

// Stalled reports whether the node stood still for so long that another may be
// master by now.
func (e *Engine) Stalled(now Instant) bool {
	return (e.state == Master || e.state == Releasing) && now.Sub(e.lastSent) > e.patience()
}

// begin starts an input. It reports true if the node had stalled: then it has
// yielded before anything else, and the input is not used.
func (e *Engine) begin(now Instant) (stalled bool) {
	e.clear()
	if !e.Stalled(now) {
		return false
	}
	e.yield(now, ReasonStalled, netip.Addr{}, e.masterDown(bid{}))
	return true
}

func (e *Engine) finish() Effects {
	if len(e.frames) > 0 {
		e.out.Send = e.frames
	}
	for _, at := range e.timers {
		if at != 0 && (e.out.Deadline == 0 || at < e.out.Deadline) {
			e.out.Deadline = at
		}
	}
	return e.out
}

func (e *Engine) arm(t timer, at Instant) { e.timers[t] = at }
func (e *Engine) disarm(t timer)          { e.timers[t] = 0 }

// Tick fires the timers that are due. Calls before the deadline do nothing.
func (e *Engine) Tick(now Instant) Effects {
	if e.begin(now) {
		return e.finish()
	}
	for t := timer(0); t < numTimers && e.out.Change == nil; t++ {
		if at := e.timers[t]; at != 0 && at <= now {
			e.disarm(t)
			if !e.slept(now, t, at) {
				e.fire(now, t)
			}
		}
	}
	return e.finish()
}

func (e *Engine) fire(now Instant, t timer) {
	switch t {
	case timerStart:
		e.start(now)
	case timerHold:
		e.setDemotion(now, OwnerFailure, 0)
	case timerHeal:
		e.heal(now)
	case timerRoll:
		e.rolling = e.rolling[1:]
		e.armRoll()
	case timerGrace:
		e.permit()
	case timerBowOut:
		e.takeOver(now, ReasonBowOut, e.livingMaster(now))
	case timerDown, timerDown6:
		if e.askFirst(now) {
			return
		}
		if e.handing {
			e.setDemotion(now, OwnerHandover, 0)
			e.becomeMaster(now, ReasonNobodyTookOver, nil)
			return
		}
		e.masterIsDown(now)
	case timerRelease:
		e.bow(now, false)
	case timerAdvert:
		e.advertise(now)
	case timerState:
		e.tellState(now, e.timing())
	}
}

// masterIsDown takes over from a master that is silent, or from one that VRRP's rules
// have ignored because it is worse (RFC 9568, 6.4.2).
func (e *Engine) masterIsDown(now Instant) {
	why, p := ReasonTimedOut, (*Packet)(nil)
	if e.cfg.Protocol.VRRP() {
		if until := e.followedUntil(now); until > now {
			e.arm(timerDown, until)
			return
		}
		if p = e.livingMaster(now); p != nil {
			why = ReasonPreempting
		}
	}
	if turn := e.rank(now); turn > 0 && e.plan.turnAfter != e.lastHeard+1 {
		e.plan.turnAfter = e.lastHeard + 1
		e.arm(timerDown, now.Add(time.Duration(turn)*rankTime))
		return
	}
	e.takeOver(now, why, p)
}

// move is the one place where the state changes.
func (e *Engine) move(now Instant, to State, why Reason, peer netip.Addr) {
	e.change = Transition{VHID: e.cfg.VHID, From: e.state, To: to, Reason: why, Peer: peer, Epoch: e.epoch, At: now}
	if (e.state == Init || e.state == Backup) && to != Master {
		e.change.Epoch = 0 // no mastership is involved
	}
	if to != e.state { // a contest does not change how the node became master
		e.state, e.since, e.reason = to, now, why
	}
	e.counters.Transitions++
	e.out.Change = &e.change
}

// LinkUp tells that the interface carries adverts, and from which addresses; it
// is called again when these change.
func (e *Engine) LinkUp(now Instant, local Local) Effects {
	stalled := e.begin(now)
	e.knows, e.local = true, local
	if stalled || e.up {
		return e.finish()
	}
	e.up, e.upAt = true, now
	e.guard.clock.begin(now)
	if e.state == Releasing && !e.stopped {
		e.target = Backup // it was on its way to INIT
	}
	e.heal(now)
	if e.startAt == 0 {
		e.startAt = now.Add(e.cfg.StartupDelay)
	}
	if e.startAt > now {
		e.arm(timerStart, e.startAt)
	} else {
		e.start(now)
	}
	return e.finish()
}

// Ready opens the start gate (Config.StartGate), for good.
func (e *Engine) Ready(now Instant) Effects {
	stalled, opens := e.begin(now), !e.ready && e.startAt != 0 && e.timers[timerStart] == 0
	e.ready = true
	if opens && !stalled {
		e.start(now)
	}
	return e.finish()
}

// LinkDown tells that the interface is down or gone: INIT from every state. A
// master with another path that is up lets go first and says so there.
func (e *Engine) LinkDown(now Instant) Effects {
	e.clear() // no need to yield first: there is nobody to hear it, or linkLost sees to it
	e.knows, e.up = true, false
	e.disarm(timerStart)
	e.linkLost(now)
	return e.finish()
}

func (e *Engine) toInit(now Instant, why Reason) {
	for _, t := range []timer{timerGrace, timerBowOut, timerDown, timerDown6, timerRelease, timerAdvert, timerState} {
		e.disarm(t)
	}
	e.farewell, e.handing, e.asking, e.reminder = false, false, false, reminder{}
	e.heard = [len(e.heard)]sighting{}
	e.move(now, Init, why, netip.Addr{})
}

// start leaves INIT for BACKUP (FreeBSD carp_setrun), and for MASTER only if the
// node owns the addresses (RFC 9568, 6.4.1).
func (e *Engine) start(now Instant) {
	switch {
	case e.state != Init || !e.up || e.stopped || !e.ready:
	case e.owner() && e.timers[timerHold] == 0:
		e.becomeMaster(now, ReasonOwner, nil)
	default:
		e.toBackup(now, ReasonLinkUp, netip.Addr{}, e.masterDown(bid{}))
		if e.sealedGroup() {
			e.ask(now) // what a node that starts remembers is more than the others have reached, or nothing
		}
	}
}

// toBackup enters BACKUP and waits for an advert for at most wait.
func (e *Engine) toBackup(now Instant, why Reason, peer netip.Addr, wait time.Duration) {
	e.disarm(timerAdvert)
	e.disarm(timerRelease)
	e.disarm(timerGrace)
	e.asking = false
	e.move(now, Backup, why, peer)
	e.armDown(now.Add(wait))
	e.tellState(now, e.timing())
}

// armDown starts the master-down timers: one, or one a family.
func (e *Engine) armDown(at Instant) {
	e.disarm(timerDown)
	e.disarm(timerDown6)
	if e.cfg.Families == FamiliesShared || e.cfg.has(IPv4) {
		e.arm(timerDown, at)
	}
	if e.cfg.Families == FamiliesEach && e.cfg.has(IPv6) {
		e.arm(timerDown6, at)
	}
}

// takeOver becomes master unless a failed takeover still holds the node back.
func (e *Engine) takeOver(now Instant, why Reason, p *Packet) {
	if e.timers[timerHold] == 0 {
		e.becomeMaster(now, why, p)
		return
	}
	e.arm(timerDown, max(e.timers[timerHold], now.Add(e.masterDown(bid{}))))
}

// becomeMaster claims the role and says so. p is the advert of a living master
// that this node takes over from, or nil.
func (e *Engine) becomeMaster(now Instant, why Reason, p *Packet) {
	e.newEpoch(now)
	var peer netip.Addr
	if p != nil {
		peer = p.Src
	}
	e.disarm(timerDown)
	e.disarm(timerDown6)
	e.disarm(timerBowOut)
	e.disarm(timerState)
	e.plan.follows = 0
	e.farewell, e.handing, e.permitted, e.contested, e.slowing, e.reminder = false, false, false, 0, 0, reminder{}
	e.lastSent, e.spoken = now, false
	e.move(now, Master, why, peer)
	// An owner does not know if there is a master. Backups that time out at the same
	// instant, or follow one bow-out, hear of each other before any of them takes what
	// only one may have. (Who lets go in a sealed group says for whom.)
	together := why == ReasonTimedOut || why == ReasonBowOut && !e.sealedGroup()
	blind := why == ReasonOwner || e.cfg.Resources > 0 && together
	if grace := e.cfg.grace(); grace > 0 && (p != nil || blind) {
		e.old, e.oldCounter = peer, e.lastHeard
		e.arm(timerGrace, now.Add(grace))
	}
	e.asking = e.cfg.Guarded
	e.out.Ask = e.asking
	e.advertise(now)
	if e.cfg.Compat == CompatBSD { // the first interval has the configured skew (carp_setrun)
		e.arm(timerAdvert, now.Add(e.cfg.timing().interval()))
	}
}

// newEpoch makes the epoch greater than all that this node knows, and at least
// the group clock, so that of two nodes the later mastership has the greater.
func (e *Engine) newEpoch(now Instant) {
	e.epoch = max(e.epoch, e.plan.members.epoch(), Epoch(e.guard.clock.at(now))) + 1
}

// yield leaves the role to another master, heard or feared, also in the middle of
// letting go. The farewell that follows, when the addresses are gone, makes the
// winner announce again. After a stall there is none: it could depose the node
// that rightly took over meanwhile.
func (e *Engine) yield(now Instant, why Reason, peer netip.Addr, wait time.Duration) {
	if e.state == Releasing && (e.target == Init || !e.up) {
		e.toInit(now, why)
		return
	}
	if e.state == Master {
		e.held = e.bid()
	}
	if why == ReasonStalled {
		e.skipReserved()
	}
	e.farewell = e.cfg.Compat != CompatBSD && why != ReasonStalled
	e.handing, e.reminder = false, reminder{winner: peer}
	e.toBackup(now, why, peer, wait)
}

// Resign leaves the role for good: to INIT when the node stops, which nothing
// takes back, or to BACKUP for a handover. A master goes to RELEASING until
// Released; adverts go on meanwhile. A handover demotes the node by 240, silently,
// until Demote takes that back (OwnerHandover); if nobody has taken the role
// within two intervals, the node takes it again and the demotion is undone.
func (e *Engine) Resign(now Instant, to State, why Reason) Effects {
	e.clear()
	if e.stopped && to != Init {
		return e.finish()
	}
	if to == Init {
		e.stopped = true
		e.disarm(timerStart)
	}
	if why == ReasonStalled {
		e.skipReserved()
	}
	switch {
	case e.Stalled(now) && to == Init:
		e.toInit(now, why) // without a bow-out: another may be master
	case e.Stalled(now):
		e.yield(now, ReasonStalled, netip.Addr{}, e.masterDown(bid{}))
	case e.state == Master:
		e.release(now, to, why)
		if why == ReasonFailed {
			e.holdBack(now) // as after Failed, but in good order
		}
	case e.state == Releasing:
		e.target, e.handing = to, e.handing && to == Backup
	case e.state == Backup && to == Init:
		e.toInit(now, why)
	}
	return e.finish()
}

func (e *Engine) release(now Instant, to State, why Reason) {
	e.target, e.handing = to, why == ReasonHandover || why == ReasonRequested
	e.held, e.plan.heir = e.bid(), 0
	e.disarm(timerGrace)
	e.asking = false
	e.arm(timerRelease, now.Add(e.cfg.releaseBudget()))
	e.move(now, Releasing, why, netip.Addr{})
	if why == ReasonHandover {
		e.setDemotion(now, OwnerHandover, handoverDemote)
	}
}

// Released tells that addresses and resources are gone after a transition away
// from MASTER, or with an error that they could not be let go. It is the moment
// of the bow-out, or of the farewell after yielding; after an error neither is
// sent, since nobody must be called in while the address may still be here.
func (e *Engine) Released(now Instant, err error) Effects {
	if e.begin(now) {
		return e.finish()
	}
	switch {
	case e.state == Releasing:
		e.bow(now, err == nil)
	case e.state == Backup && e.farewell:
		e.farewell = false
		if err == nil {
			e.sayFarewell(now)
		}
	}
	return e.finish()
}

// bow ends RELEASING.
func (e *Engine) bow(now Instant, released bool) {
	why, wait := ReasonReleaseFailed, e.masterDown(bid{})
	e.handing = e.handing && released
	if released {
		why = ReasonReleased
		e.bequeath(now)
		e.emit(now, leave)
	}
	if !e.up && released {
		why = ReasonLinkDown
	}
	if e.target == Init || !e.up {
		e.toInit(now, why)
		return
	}
	if e.handing {
		wait = 2 * e.cfg.AdvertInterval()
	}
	e.toBackup(now, why, netip.Addr{}, wait)
}

// Failed tells that the addresses or a resource could not be taken for this
// epoch, and that what was done is undone. The node bows out and is demoted and
// held back, longer each time.
func (e *Engine) Failed(now Instant, epoch Epoch) Effects {
	stalled := e.begin(now)
	switch {
	case epoch != e.epoch:
	case stalled:
		e.holdBack(now)
	case e.state == Master:
		e.giveUp(now, ReasonFailed)
	}
	return e.finish()
}

// Abandon is Failed where something of the mastership is still here: the role is left in
// order, with a bow-out only when Released says that all is gone.
func (e *Engine) Abandon(now Instant, epoch Epoch) Effects {
	if e.state == Master && epoch == e.epoch {
		return e.Resign(now, Backup, ReasonFailed)
	}
	e.begin(now)
	return e.finish()
}

// giveUp leaves the role that cannot be served.
func (e *Engine) giveUp(now Instant, why Reason) {
	e.emit(now, leave)
	e.toBackup(now, why, netip.Addr{}, e.masterDown(bid{}))
	e.holdBack(now)
}

// holdBack keeps the node from another try, longer each time.
func (e *Engine) holdBack(now Instant) {
	hold := min(failureHold<<min(e.failures, 8), failureHoldLimit)
	e.failures++
	e.arm(timerHold, now.Add(hold))
	e.setDemotion(now, OwnerFailure, failureDemote)
}

// Granted tells that the guard has agreed to this epoch.
func (e *Engine) Granted(now Instant, epoch Epoch) Effects {
	if !e.begin(now) && e.state == Master && e.asking && epoch == e.epoch {
		e.asking = false
		e.permit()
	}
	return e.finish()
}

// Denied tells that the guard has refused this epoch.
func (e *Engine) Denied(now Instant, epoch Epoch) Effects {
	if !e.begin(now) && e.state == Master && e.asking && epoch == e.epoch {
		e.giveUp(now, ReasonDenied)
	}
	return e.finish()
}

// SetState is an operator's wish. MASTER takes the role at once and loses it to
// the next better advert; BACKUP lets go, bows out and, alone on the wire, is
// master again after the master-down time. In INIT, and where the state is
// already as wished, nothing happens (FreeBSD carp_ioctl_set).
func (e *Engine) SetState(now Instant, to State) Effects {
	if e.begin(now) {
		return e.finish()
	}
	switch {
	case e.state == Backup && to == Master:
		e.becomeMaster(now, ReasonOperator, e.livingMaster(now))
	case e.state == Master && to == Backup && e.cfg.Compat == CompatBSD:
		e.toBackup(now, ReasonOperator, netip.Addr{}, e.masterDown(bid{}))
	case e.state == Master && to == Backup:
		e.release(now, Backup, ReasonOperator)
	}
	return e.finish()
}

// Demote sets one owner's demotion, in units of advskew or priority; 0 takes it back. It may
// be negative. A master says so at once; nothing else happens.
func (e *Engine) Demote(now Instant, owner string, amount int) Effects {
	e.begin(now)
	e.setDemotion(now, owner, amount)
	return e.finish()
}

func (e *Engine) setDemotion(now Instant, owner string, amount int) {
	before, said := e.demotion, e.bid()
	e.demotion += amount - e.demotions[owner]
	if amount == 0 {
		delete(e.demotions, owner)
	} else {
		e.demotions[owner] = amount
	}
	switch {
	case e.demotion == before:
	case e.state == Master && e.out.Change == nil && e.compare(said, e.bid()) != 0: // out of turn it could pass for a farewell
		e.advertise(now)
	case e.state == Backup:
		e.hasten(now)
	}
}
