package sim

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/carpd/carpd/carp"
)

// HostOptions is what distinguishes a host from others. The zero value is a host
// with a true clock and the lease that fits its Config.
type HostOptions struct {
	// Lease is the kernel lifetime of the address. The zero value chooses the one
	// that PlanLease returns; NoLease means none.
	Lease   Lease
	NoLease bool
	Rate    int64         // the clock runs faster by this many parts in 10^9
	Wall    time.Duration // the wall clock is ahead by this much
	Boot    time.Duration // how long the machine has run already; at least 1 s
	Mutant  Mutant        // a deliberate fault; the zero value is none
	Off     bool          // Start is called later
}

// Host is a machine with one network interface and one daemon: the real
// carp.Engine, the loop that drives it, the worker that carries out transitions,
// the addresses in the kernel and hooks.
type Host struct {
	plug
	Name   string
	Config carp.Config
	opts   HostOptions
	w      *World
	seg    *Segment
	beside *Segment // a second one, by World.Beside; nil: none
	index  int
	local  carp.Local

	clock clock
	wall  time.Duration // what has to be added to the clock to get the wall clock

	powered bool
	carrier int           // 0: the cable is in; counted, as faults overlap
	deaf    int           // sends fail while > 0
	lonely  int           // cut off from the client side while > 0
	upAt    time.Duration // when the carrier last came back, or the daemon began

	// The daemon. life is 0 while there is none, and another for each.
	life, lives uint32
	frozen      bool // stopped by a signal
	paused      bool // the whole machine stands still, as a suspended guest
	hung        bool // only the loop stands still
	behind      bool // the loop goes on in a moment, with what waits
	waiting     []task
	trap        trap
	resigned    bool // asked to stop
	calm        bool // healed: workers and hooks are quick and do not fail
	calmAt      time.Duration

	engine   *carp.Engine
	deadline carp.Instant
	tickAt   time.Duration // the tick that counts; 0 none
	inbox    []arrival     // while the loop stands still
	commands []func()      // for the loop, while it stands still
	unsent   []carp.Frame  // the loop stands still before sending these
	unsentAt carp.Instant  // the instant it took before; 0 if not yet
	decided  carp.Instant  // when the engine made them
	latest   carp.Transition
	permit   carp.Permit
	saved    carp.Epoch // on disk
	reserved uint64     // on disk: of the group clock
	lost     int        // how often both were lost

	worker   worker
	resource resource
	set      set
	kernel   kernel

	state     carp.State
	promoted  time.Duration // when the present mastership began
	reason    carp.Reason   // why
	rival     netip.Addr    // from whom
	left      time.Duration // when the last one ended
	known     []known       // what it knew of each other host then
	lastOK    time.Duration // last successful send; -1 none
	sooner    time.Duration // when one last followed another so soon that it may pass for a farewell
	stoppedAt time.Duration // when the daemon last stood still, went on, began or died
	startedAt time.Duration // when it last began
	lastPkt   *packet       // heard just before, with nothing between
	lastAt    time.Duration // when
}

// known is what a host knew of another when it was promoted.
type known struct {
	sent   time.Duration // when the other had sent its last advert; -1 never
	missed bool          // and this host had not heard it
}

// arrival is a packet that waits for the loop, and the kernel's stamp.
type arrival struct {
	pkt *packet
	at  carp.Instant
}

// trap is where in its work a daemon is stopped.
type trap struct {
	where trapPoint
	stop  func()
}

type trapPoint uint8

const (
	trapNone       trapPoint = iota
	trapBeforeNow            // adverts are made, the time before sending is not taken
	trapBeforeSend           // the time is taken, nothing is sent
	trapBeforePut            // the permit is checked, the kernel not yet called
	trapBeforeStep           // the permit is checked, the step without return not yet begun
)

// Host makes a host that is switched on and runs its daemon, unless opts.Off.
// ClockOffset, MinEpoch, Rand and Leased of c are set by the host. It panics if c
// is not valid.
func (w *World) Host(name string, c carp.Config, opts HostOptions) *Host {
	h := &Host{
		Name: name, Config: c, opts: opts, w: w, index: len(w.hosts), local: hostLocal(len(w.hosts)),
		lastOK: -1, powered: true,
	}
	h.title = name
	h.kernel.h, h.set.h, h.worker.h, h.resource.h = h, h, h, h
	rng := newSource(w.seed, "engine "+name)
	h.Config.Rand = rng.Uint64
	if !opts.NoLease && h.opts.Lease == (Lease{}) {
		h.opts.Lease = PlanLease(c.FastestDown(), leaseInterval(&c))
	}
	if opts.NoLease {
		h.opts.Lease = Lease{}
	}
	h.Config.Leased = h.opts.Lease.Valid > 0
	h.opts.Mutant.configure(&h.Config)
	if err := h.Config.Validate(); err != nil {
		panic(fmt.Sprintf("sim: host %s: %v", name, err))
	}
	h.clock = clock{carp.Instant(max(opts.Boot, time.Second)), w.now, opts.Rate}
	h.wall = wallStart + opts.Wall - time.Duration(h.clock.base)
	w.hosts = append(w.hosts, h)
	if !opts.Off {
		w.After(0, h.Start)
	}
	return h
}

// leaseInterval is how far apart the adverts are that renew a lease.
func leaseInterval(c *carp.Config) time.Duration {
	if c.Protocol.VRRP() {
		return c.AdvertInterval()
	}
	return time.Duration(max(c.AdvBase, 1)) * time.Second
}

// boot reads the host's clock.
func (h *Host) boot() carp.Instant { return h.clock.read(h.w.now) }

// now reads it for the loop.
func (h *Host) now() carp.Instant {
	t := h.boot()
	if h.opts.Mutant == ClockBack {
		t -= carp.Instant(h.w.now/(7*time.Second)%2) * carp.Instant(2*time.Second)
	}
	return t
}

// State returns the engine's state; INIT if no daemon runs.
func (h *Host) State() carp.State { return h.state }

// Status returns the engine's status; the zero value if no daemon runs.
func (h *Host) Status() carp.Status {
	if h.engine == nil {
		return carp.Status{}
	}
	return h.engine.Status(h.now())
}

// Alive reports whether the daemon runs: not dead, frozen, paused or hung.
func (h *Host) Alive() bool { return h.life != 0 && !h.still() && !h.hung }

// still reports whether no goroutine of the daemon runs.
func (h *Host) still() bool { return h.frozen || h.paused }

// listens reports whether frames reach the host's kernel.
func (h *Host) listens() bool { return h.powered && !h.paused && h.carrier == 0 }

// Answers reports whether the host's kernel answers for the address to somebody.
func (h *Host) Answers() bool { return h.kernel.on && h.listens() }

// Has reports whether the address is on, whether or not anybody can hear.
func (h *Host) Has() bool { return h.kernel.on }

func (h *Host) serves(a netip.Addr) bool {
	for _, b := range h.Config.Addresses {
		if a == b {
			return true
		}
	}
	return false
}

// after plans f as a deed of the daemon: it is dropped if the daemon dies, and
// waits while it is stopped.
func (h *Host) after(d time.Duration, f func()) {
	h.w.queue.push(task{at: h.w.now + max(d, 0), life: h.life, host: h, fn: f})
}

// Start starts the daemon, and the machine if it is off. With an epoch saved by
// an earlier daemon it goes on from there. What a dead one left is taken off
// first. Nothing happens if one runs.
func (h *Host) Start() {
	if h.life != 0 {
		return
	}
	if !h.powered {
		h.powered = true
		h.clock = clock{carp.Instant(time.Second), h.w.now, h.clock.rate}
		h.wall = wallStart + h.opts.Wall + h.w.now - time.Second
		h.linkChanged()
	}
	h.loopChanged()
	h.lives++
	h.life = h.lives
	h.kernel.remove("(found at start)")
	c := h.Config
	c.ClockOffset, c.MinEpoch, c.SavedClock = h.wall, h.saved, h.reserved
	e, err := carp.NewEngine(c)
	if err != nil {
		panic(fmt.Sprintf("sim: start %s: %v", h.Name, err)) // Host has validated it
	}
	h.engine, h.state, h.latest = e, carp.Init, carp.Transition{}
	h.startedAt = h.w.now
	h.upAt = h.w.now
	h.w.mend(h, "daemon starts")
	h.resource.settled = false
	h.worker.settle()
	if h.beside != nil {
		h.apply(e.PathUp(h.now(), 1, h.besideLocal()))
	}
	if h.carrier == 0 {
		h.apply(e.LinkUp(h.now(), h.local))
	}
}

// Kill ends the daemon without a goodbye, and its hooks with it. The kernel keeps
// the address until its lifetime is over. With forget, the saved epoch is lost.
func (h *Host) Kill(forget bool) {
	if h.life == 0 {
		return
	}
	h.w.fault(h, "killed")
	h.die()
	if forget {
		h.saved, h.reserved, h.resource.held = 0, 0, false
		h.lost++
	}
}

// reserve saves the group clock ahead, as the daemon does beside its loop. What it
// has followed is saved at once here, and within a second there.
func (h *Host) reserve() {
	if clock := h.engine.GroupClock(h.now()); h.reserved < clock+30_000 {
		h.reserved = clock + 60_000
	}
}

func (h *Host) die() {
	h.loopChanged()
	h.worker.abandon()
	h.life, h.engine, h.state = 0, nil, carp.Init
	h.frozen, h.hung, h.behind, h.resigned, h.trap = false, false, false, false, trap{}
	h.waiting, h.inbox, h.commands, h.unsent = nil, nil, nil, nil
	h.tickAt, h.deadline, h.permit = 0, 0, carp.Permit{}
	h.worker = worker{h: h}
	h.set = set{h: h}
}

// PowerOff ends everything at once. Start boots again, with a clock near zero.
func (h *Host) PowerOff() {
	if !h.powered {
		return
	}
	h.w.fault(h, "power off")
	if h.life != 0 {
		h.die()
	}
	h.paused = false
	h.kernel.remove("(power off)")
	h.resource.lose()
	h.powered = false
	h.linkChanged()
}

// Freeze stops the daemon as SIGSTOP does; the kernel goes on.
func (h *Host) Freeze() {
	if h.life != 0 && !h.still() {
		h.w.fault(h, "frozen")
		h.loopChanged()
		h.frozen = true
	}
}

// Resume ends Freeze.
func (h *Host) Resume() {
	if h.frozen {
		h.loopChanged()
		h.frozen = false
		h.w.mend(h, "resumed")
		h.wake()
	}
}

// Pause stops the whole machine, as a hypervisor does: lifetimes in the kernel
// stand still too, CLOCK_BOOTTIME does not.
func (h *Host) Pause() {
	if h.powered && !h.paused {
		h.w.fault(h, "paused")
		h.loopChanged()
		h.paused = true
		h.kernel.pausedAt = h.w.now
		h.answering("(paused)")
	}
}

// Unpause ends Pause.
func (h *Host) Unpause() {
	if h.paused {
		h.loopChanged()
		h.paused = false
		h.kernel.resume()
		h.w.mend(h, "goes on")
		h.answering("(goes on)")
		h.wake()
	}
}

// Hang stops the loop that owns the engine; workers and hooks go on.
func (h *Host) Hang() {
	if h.life != 0 && !h.hung && !h.still() {
		h.w.fault(h, "loop hangs")
		h.loopChanged()
		h.hung = true
	}
}

// Unhang ends Hang.
func (h *Host) Unhang() {
	if h.hung {
		h.loopChanged()
		h.hung = false
		h.w.mend(h, "loop goes on")
		h.wake()
	}
}

// wake lets a daemon that stood still go on: its goroutines in any order.
func (h *Host) wake() {
	if h.life == 0 || h.still() {
		return
	}
	waiting := h.waiting
	h.waiting = nil
	for _, t := range waiting {
		t.at = h.w.now + h.lateness()
		if t.what == taskTick || t.what == taskSet {
			h.tickAt, h.set.wakeAt = 0, 0 // the wake-up plans them anew
			continue
		}
		h.w.queue.push(t)
	}
	h.set.stir()
	if !h.hung {
		h.behind = true
		h.after(h.lateness(), h.resumeLoop)
	}
}

func (h *Host) lateness() time.Duration { return h.w.loop.in(h.w.opts.LoopLate) }

// Unplug takes the cable out; Plug puts it back. Both are counted.
func (h *Host) Unplug() {
	h.linkChanged()
	h.carrier++
	if h.carrier == 1 {
		h.answering("(no carrier)")
		h.command(func() { h.apply(h.engine.LinkDown(h.now())) })
	}
}

// Plug takes one Unplug back.
func (h *Host) Plug() {
	if h.carrier == 0 {
		return
	}
	h.linkChanged()
	h.carrier--
	h.upAt = h.w.now
	if h.carrier == 0 {
		h.answering("(carrier)")
		h.command(func() { h.apply(h.engine.LinkUp(h.now(), h.local)) })
	}
}

// FailSends makes every send fail while on; counted.
func (h *Host) FailSends(on bool) {
	h.linkChanged()
	if on {
		h.deaf++
	} else if h.deaf > 0 {
		h.deaf--
	}
}

// Drift changes the rate of the clock, in parts in 10^9.
func (h *Host) Drift(rate int64) { h.clock.steer(h.w.now, rate) }

// StepWall moves the wall clock. It is read when a daemon starts.
func (h *Host) StepWall(by time.Duration) {
	h.wall += by
	h.opts.Wall += by
}

// Demote sets one owner's demotion, as an operator does. Another node may be the
// better one from then on: for the checkers it counts as a harm.
func (h *Host) Demote(owner string, amount int) {
	h.command(func() {
		h.linkChanged()
		h.apply(h.engine.Demote(h.now(), owner, amount))
	})
}

// Unfit tells the daemon that it could not serve, or could again: another node may be the
// better one from then on, as with Demote.
func (h *Host) Unfit(is bool) {
	h.command(func() {
		h.linkChanged()
		h.apply(h.engine.Unfit(h.now(), is))
	})
}

// SetState asks for a state, as an operator does.
func (h *Host) SetState(to carp.State) {
	h.command(func() { h.apply(h.engine.SetState(h.now(), to)) })
}

// Resign leaves the role: carp.ReasonHandover to BACKUP, carp.ReasonStopping to
// INIT, after which the host needs Kill and Start.
func (h *Host) Resign(to carp.State, why carp.Reason) {
	h.resigned = h.resigned || to == carp.Init && h.life != 0
	h.command(func() { h.apply(h.engine.Resign(h.now(), to, why)) })
}

// heal makes the host whole.
func (h *Host) heal() {
	h.calm, h.calmAt = true, h.w.now
	h.trap = trap{}
	h.carrier = min(h.carrier, 1)
	h.deaf = 0
	h.Unhang()
	h.Resume()
	h.Unpause()
	h.Plug()
	if h.life == 0 {
		h.Start()
	} else if h.resigned {
		h.die()
		h.Start()
	}
	h.worker.hurry()
	h.Demote(operator, 0)
	h.Demote(carp.OwnerHandover, 0)
	h.Unfit(false)
}

const operator = "operator"

// linkChanged tells the checkers that paths to and from the host change now.
func (h *Host) linkChanged() {
	if h.seg == nil {
		return
	}
	for _, other := range h.seg.hosts {
		if other != h {
			h.seg.harm(h.seg.path(h, other), h, other)
			h.seg.harm(h.seg.path(other, h), other, h)
		}
	}
}

// loopChanged notes that the daemon stands still from now on, or goes on, begins
// or ends. It is called before the change, so that checkers judge what was.
func (h *Host) loopChanged() {
	h.stoppedAt = h.w.now
	h.linkChanged()
}
