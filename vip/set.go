package vip

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/carpd/carpd/carp"
)

// Config says what a Set holds. Interface and Addresses are required.
type Config struct {
	Interface string
	// VirtualMAC and Device: the addresses go on a macvlan with this MAC and this name
	// (at most 15 bytes) on Interface, made by Run and Up and deleted when Run ends.
	// It is up only while the addresses are wanted there. Both zero: the addresses go
	// on Interface itself.
	VirtualMAC carp.MAC
	Device     string
	VHID       uint8          // for logs and the label of the device
	Addresses  []netip.Prefix // each address once; not masked
	Lease      Lease          // the zero value is none: see PlanLease
	// Fence has the gate behind which the addresses are, see Set.Fence. Its Run runs
	// while the set is used. nil: none.
	Fence    *Gates
	Announce Announce
	Now      func() carp.Instant // nil = CLOCK_BOOTTIME; must be the clock of the permits
	Log      *slog.Logger        // nil = silent
	// Observe hears what happens, from the goroutine in which it happens; it must
	// not block nor call the Set. nil = nobody.
	Observe func(Event)
	// NeedPermit is called when a lost address cannot be put back under the permit
	// there is, or a batch took too long for it, at most twenty times a second: an advert before it is due brings a
	// fresher one (carp.Speaker.Renew). It has a goroutine of its own, one at a time,
	// may block and then outlives Run. Nil: the next advert is waited for.
	NeedPermit func()
	// GiveUp is told when a mastership cannot be served: none of its addresses could be
	// put back for half a second, and what there was of them is off. The node is to leave
	// the role (carp.Speaker.Failed). It is called once an epoch, in a goroutine of its own, may block
	// and then outlives Run. Not called when the interface is gone. Nil: the set goes
	// on trying.
	GiveUp func(epoch carp.Epoch, err error)
	// Place is told on which interface, and in which form, the addresses may be from
	// now on, before they are put there, each time that this changes. It is called by
	// whoever changes the kernel, one at a time, and must neither block nor call the
	// Set. Nil: nobody wants to know.
	Place func(index int, prefixes []netip.Prefix)
}

// EventKind is the kind of an Event. Its names are part of the interface.
type EventKind uint8

// The events.
const (
	EventUp          EventKind = iota // the addresses are on
	EventDown                         // the addresses were taken off by Down
	EventLapsed                       // taken off, because the permit lapsed
	EventWithdrawn                    // taken off, because the permit was withdrawn
	EventRestored                     // Addresses were lost and are back
	EventFailed                       // Err: something did not work and is tried again
	EventLinkGone                     // the interface is gone while addresses were on it
	EventSecondaries                  // addresses go up as written while promote_secondaries is 0
	EventForeign                      // Addresses are on the interface, but somebody else put them there
	EventSlow                         // renewing takes so long that the lease may end before it is renewed
	EventSevered                      // sockets of Addresses that left were destroyed
)

var eventNames = [...]string{"up", "down", "lapsed", "withdrawn", "restored", "failed", "link-gone",
	"promote-secondaries", "foreign", "slow-renewal", "severed"}

func (k EventKind) String() string {
	if int(k) < len(eventNames) {
		return eventNames[k]
	}
	return "unknown"
}

// Event is one thing that happened to a Set.
type Event struct {
	Kind      EventKind
	Epoch     carp.Epoch // of the mastership, 0 if there is none
	Addresses []netip.Prefix
	Err       error  // for EventFailed
	Text      string // one sentence for an operator
	At        carp.Instant
}

// Status is one address of a Set.
type Status struct {
	Prefix  netip.Prefix // as configured
	Present bool         // on the interface, as far as the last look or notice tells
}

// Set is the addresses of one vhid on one interface. Its methods may be called
// from several goroutines at once. It holds no resources outside Run.
type Set struct {
	k          Kernel
	link       string
	device     Device // its Parent is looked up each time; no name: there is none
	announce   Announce
	clock      func() carp.Instant
	log        *slog.Logger
	observe    func(Event)
	needPermit func()
	giveUp     func(carp.Epoch, error)

	op   chan struct{} // capacity 1: whoever has put its token in may change the kernel
	wake chan struct{} // capacity 1: the worker should look at the state again

	place func(int, []netip.Prefix)
	told  struct { // what place knows; used by who has the token
		index    int
		prefixes []netip.Prefix
	}

	mu      sync.Mutex // guards what follows; never held across a call of the kernel
	state   state
	changed chan struct{} // closed at the next permit or end of a turn; nil while nobody waits for it
}

// state is all that a Set knows. The worker decides from a copy of it.
type state struct {
	want  []netip.Prefix // as configured
	lease Lease

	// turn counts Ups and what ends them. Whoever sees another turn than its own
	// after waiting has been superseded and stops without undoing anything.
	turn    uint64
	serving bool       // the addresses shall be on: from Up's batch until Down, lapse or withdrawal
	epoch   carp.Epoch // of the Up that serves
	ended   EventKind  // why serving ended, until the addresses are off
	permit  carp.Permit

	on      Link                // where the addresses were put: the interface or the device on it
	made    Link                // our device as it was last made; zero: none was
	raised  bool                // it may be up
	lowerAt carp.Instant        // next attempt to set it down
	placed  []netip.Prefix      // their forms, in the order of want; none left = nothing of ours is on
	present map[netip.Addr]bool // of placed: there as far as known
	fence   *Gates              // that shall fence the addresses; nil: none
	gate    *Gate               // of fence, nil before it is made
	fenced  []netip.Addr        // those behind it; nil: not known
	strays  []netip.Prefix      // of a Reconfigure that failed, and neither placed nor seen to be off

	took      time.Duration // by the slowest step of the last batch; halved by each permit
	renewAt   carp.Instant  // next renewal; 0 = at once
	lookAt    carp.Instant  // compare with the kernel then; 0 = no reason to
	askAt     carp.Instant  // no request for a fresher permit before
	asking    bool          // a request is under way
	clearAt   carp.Instant  // next attempt to take the rest off
	tokens    tokens        // restorations that may still be made
	failing   bool          // the last renewal or look failed: told once
	gone      bool          // the last look found no interface: told once
	mute      bool          // the last announcement failed: told once
	unsevered bool          // sockets could not be destroyed: told once
	slow      bool          // told once an Up
	lostAt    carp.Instant  // since when attempts fail while none is on; 0: they do not
	owed      *defeat       // to be told when all is off

	lingering []netip.Prefix // off, but sockets of theirs may be left
	severAt   carp.Instant   // next attempt to destroy those
	severTry  int

	claims claims         // of others, for addresses that are on
	defend []netip.Prefix // to be announced once, see Defend

	announced int            // by Up, while its batch runs
	burstAt   carp.Instant   // when the present burst began
	round     int            // addresses announced in the present round
	rounds    []carp.Instant // the present round and those to come; the first is due first
}

// New returns a Set that is down. The caller runs Run.
func New(k Kernel, cfg Config) *Set {
	s := &Set{
		k: k, link: cfg.Interface, announce: cfg.Announce, clock: cfg.Now, log: cfg.Log, observe: cfg.Observe, needPermit: cfg.NeedPermit, giveUp: cfg.GiveUp, place: cfg.Place,
		device: Device{Name: cfg.Device, MAC: cfg.VirtualMAC, VHID: cfg.VHID},
		op:     make(chan struct{}, 1), wake: make(chan struct{}, 1),
		state: state{want: normal(cfg.Addresses), lease: cfg.Lease, fence: cfg.Fence},
	}
	if s.clock == nil {
		s.clock = bootTime
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.log = s.log.With("vhid", cfg.VHID, "interface", cfg.Interface)
	if s.observe == nil {
		s.observe = func(Event) {}
	}
	if s.device.Name != "" {
		s.log = s.log.With("device", s.device.Name)
	}
	return s
}

// normal returns a copy of prefixes, each address once and IPv4 never as IPv6.
func normal(prefixes []netip.Prefix) []netip.Prefix {
	out, seen := make([]netip.Prefix, 0, len(prefixes)), make(map[netip.Addr]bool, len(prefixes))
	for _, p := range prefixes {
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		if !seen[p.Addr()] {
			seen[p.Addr()] = true
			out = append(out, p)
		}
	}
	return out
}

// Permit hands over a permit; the zero Permit withdraws the one before: from the
// return on nothing is added, renewed, restored or announced, and the worker
// takes the addresses off. A permit of a later epoch carries on what an earlier
// one allowed (a contested mastership). Permit never blocks.
func (s *Set) Permit(p carp.Permit) {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.state
	// The worker is woken for what this permit may allow only: adverts may follow
	// each other by 10 ms, in hundreds of groups.
	wanted := s.changed != nil || st.serving && (st.renewAt <= now || st.lookAt != 0 && st.lookAt <= now)
	switch {
	case p.Epoch == 0:
		if !st.serving { // an Up that is under way is not for the mastership that follows
			st.turn++
			wanted = true
		}
		s.end(EventWithdrawn)
	case st.serving && !st.permit.Live(now):
		// Nobody has noticed yet: both the loop and the worker stood still.
		s.end(EventLapsed)
	}
	st.permit = p
	st.allow(p)
	// A batch that was slow once must not forbid the next for ever.
	st.took /= 2
	if wanted {
		s.stir()
	}
}

// Announce asks for another burst of announcements, of which one is begun each 0.1 s
// at most. It never blocks, and does nothing while the addresses are down.
func (s *Set) Announce() {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.serving {
		s.state.burstAgain(now, s.announce)
		s.stir()
	}
}

// Refresh changes how often addresses that are up are announced again: see Announce.
// It never blocks.
func (s *Set) Refresh(every time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.announce.Refresh == every {
		return
	}
	s.announce.Refresh = every
	if s.state.serving {
		s.state.burst(s.clock(), s.announce, 0)
		s.stir()
	}
}

// Status returns the addresses in the order of the configuration.
func (s *Set) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, len(s.state.want))
	for i, p := range s.state.want {
		out[i] = Status{Prefix: p, Present: s.state.present[p.Addr()]}
	}
	return out
}

// end ends the present turn if it serves; the worker, or whoever has the token,
// takes the addresses off. s.mu is held.
func (s *Set) end(why EventKind) {
	if !s.state.serving {
		return
	}
	s.state.serving = false
	if s.state.gate != nil && why != EventDown { // then clear does it, see there
		s.state.gate.wish(false)
	}
	s.state.ended = why
	s.state.turn++
	s.state.rounds, s.state.defend = nil, nil
	s.state.lookAt, s.state.clearAt = 0, 0
	s.stir()
}

// stir wakes the worker and everybody who waits for a permit. s.mu is held.
func (s *Set) stir() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// change is closed when the permit or the turn changes. s.mu is held.
func (s *Set) change() <-chan struct{} {
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// burst plans the announcements: a round at now, unless skip says that this many
// rounds are done already, and the repeats.
func (st *state) burst(now carp.Instant, a Announce, skip int) {
	rounds := append(make([]carp.Instant, 0, 4), now)
	for _, d := range a.repeat() {
		rounds = append(rounds, now.Add(d))
	}
	if a.Refresh > 0 {
		rounds = append(rounds, rounds[len(rounds)-1].Add(a.Refresh))
	}
	st.round, st.rounds, st.burstAt = 0, rounds[skip:], now
}

// burstAgain plans a burst that is asked for while another may be going on. The round
// under way goes on first: begun anew each time, it would never come to the last
// addresses. Asked for again and again, a burst is begun each burstEvery at most.
func (st *state) burstAgain(now carp.Instant, a Announce) {
	if len(st.rounds) > 0 && now.Sub(st.burstAt) < burstEvery {
		return // a round is still to come
	}
	round, present := st.round, st.rounds
	st.burst(now, a, 0)
	if round > 0 {
		st.round, st.rounds = round, append([]carp.Instant{present[0]}, st.rounds...)
	}
}

// settle records that all that is placed is there, except missing, since now. What
// was lost while the batch ran is noticed by the look that its notice has planned.
func (st *state) settle(now carp.Instant, missing []netip.Prefix) {
	st.present = presence(st.placed, missing)
	st.renewAt = st.lease.next(st.permit, now, st.took)
	if len(st.strays) > 0 && st.lookAt == 0 {
		st.lookAt = now
	}
}

func (s *Set) tell(e Event) {
	e.At = s.clock()
	args := []any{"event", e.Kind.String(), "epoch", e.Epoch, "addresses", e.Addresses}
	if e.Err != nil {
		args = append(args, "error", e.Err)
	}
	switch e.Kind {
	case EventUp, EventDown, EventWithdrawn, EventSevered:
		s.log.Info(e.Text, args...)
	default:
		s.log.Warn(e.Text, args...)
	}
	s.observe(e)
}

// presence returns which of placed are there if those in missing are not.
func presence(placed, missing []netip.Prefix) map[netip.Addr]bool {
	m := make(map[netip.Addr]bool, len(placed))
	for _, p := range placed {
		m[p.Addr()] = true
	}
	for _, p := range missing {
		m[p.Addr()] = false
	}
	return m
}

// absent returns which of placed are known not to be there.
func absent(placed []netip.Prefix, present map[netip.Addr]bool) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range placed {
		if there, known := present[p.Addr()]; known && !there {
			out = append(out, p)
		}
	}
	return out
}
