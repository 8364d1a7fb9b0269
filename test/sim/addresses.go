package sim

import (
	"fmt"
	"time"

	"github.com/carpd/carpd/carp"
)

// Lease is the kernel lifetime of an address, as of package vip.
type Lease struct {
	Valid time.Duration // 0: none
	Renew time.Duration // between renewals
	Late  time.Duration // how late the kernel may be; 0: nothing is promised
}

// kernelLate is how much later than its lifetime a kernel may remove an address.
const kernelLate = 1100 * time.Millisecond

// PlanLease returns the lease, at most 10 s, that is over before the fastest backup
// takes over and forgives the loop the longest pause, as package vip chooses it; if
// there is none, 1 s without a promise.
func PlanLease(masterDown, interval time.Duration) Lease {
	best := Lease{}
	for valid := time.Second; valid <= 10*time.Second && masterDown > 2*kernelLate; valid += time.Second {
		renew := min(valid/4, interval)
		fits := func() bool { return interval-renew+valid+kernelLate <= carp.PermitTime(masterDown) }
		if !fits() {
			renew = min(valid/2, interval)
		}
		if fits() && valid-renew > best.Valid-best.Renew {
			best = Lease{valid, renew, kernelLate}
		}
	}
	if best.Valid > 0 {
		return best
	}
	return Lease{time.Second, 250 * time.Millisecond, 0}
}

// allows reports whether the address may be put on or renewed at now under p.
func (l Lease) allows(p carp.Permit, now carp.Instant) bool {
	return p.Live(now) && (l.Late == 0 || now.Add(l.Valid+l.Late) <= p.Until)
}

// kernel is the address on the host's interface.
type kernel struct {
	h        *Host
	on       bool
	was      bool // answered when last told
	late     bool // the last put came after a stop
	gone     time.Duration
	lookAt   time.Duration
	pausedAt time.Duration
}

// put adds the address or gives it another lifetime.
func (k *kernel) put(l Lease, late bool) {
	h := k.h
	k.late = late
	if l.Valid > 0 {
		over := min(h.w.work.in(h.w.opts.LeaseLate), kernelLate)
		k.gone = h.clock.when(h.clock.read(h.w.now).Add(l.Valid + over))
		k.plan(k.gone)
	} else {
		k.gone = 0
	}
	if !k.on {
		k.on = true
		h.answering("")
		return
	}
	h.w.tell(Event{Kind: KindRenewed, Host: h, Late: late})
}

func (k *kernel) plan(at time.Duration) {
	if k.lookAt == 0 {
		k.lookAt = at
		k.h.w.queue.push(task{at: at, what: taskExpire, host: k.h})
	}
}

// check removes the address if its lifetime is over.
func (k *kernel) check(at time.Duration) {
	if at != k.lookAt {
		return
	}
	k.lookAt = 0
	switch {
	case !k.on || k.gone == 0:
	case k.h.paused: // resume plans the next look
	case k.gone > at:
		k.plan(k.gone)
	default:
		k.remove("(lifetime over)")
	}
}

func (k *kernel) remove(why string) {
	if k.on {
		k.on = false
		k.h.answering(why)
	}
}

// resume shifts the lifetime by the time for which the machine stood still.
func (k *kernel) resume() {
	if k.on && k.gone != 0 {
		k.gone += k.h.w.now - k.pausedAt
		k.plan(k.gone)
	}
}

// answering tells everybody if the host began or ceased to answer.
func (h *Host) answering(why string) {
	if is := h.Answers(); is != h.kernel.was {
		h.kernel.was = is
		kind := KindAddrOff
		if is {
			kind = KindAddrOn
		}
		h.w.tell(Event{Kind: kind, Host: h, Text: why, Late: h.kernel.late})
		h.w.clientsLook()
	}
}

// set is the state of the worker that keeps the address, as vip.Set: whoever
// changes the kernel holds its token.
type set struct {
	h       *Host
	turn    int
	serving bool
	placed  bool // something of ours may be on
	epoch   carp.Epoch
	permit  carp.Permit
	renewAt carp.Instant
	renewed carp.Instant
	clearAt carp.Instant
	rounds  []carp.Instant

	busy    bool     // the token is taken
	queue   []func() // who waits for it
	pending *ascent  // an up that waits for its permit
	wakeAt  time.Duration
}

// ascent is an up under way.
type ascent struct {
	j    *job
	turn int
	then func(error)
}

// setPermit hands over a permit; the zero Permit withdraws the last one.
func (s *set) setPermit(p carp.Permit) {
	now := s.h.boot()
	if p.Epoch == 0 && !s.serving {
		s.turn++
	}
	if p.Epoch == 0 || s.serving && !s.permit.Live(now) {
		s.end()
	}
	s.permit = p
	if now >= s.renewed.Add(s.h.opts.Lease.Renew/4) {
		s.renewAt = 0
	}
	s.stir()
}

// end ends the present turn; the worker takes the address off.
func (s *set) end() {
	if !s.serving {
		return
	}
	s.serving = false
	s.turn++
	s.rounds, s.clearAt = nil, 0
	s.stir()
}

// stir wakes the worker, and an up that waits.
func (s *set) stir() { s.wake(s.h.w.now + s.h.lateness()) }

func (s *set) wake(at time.Duration) {
	if s.h.life == 0 || s.wakeAt != 0 && s.wakeAt <= at {
		return
	}
	s.wakeAt = at
	s.h.w.queue.push(task{at: at, what: taskSet, life: s.h.life, host: s.h})
}

// allowed reports whether the kernel may be told to keep the address.
func (s *set) allowed(now carp.Instant) bool {
	switch s.h.opts.Mutant {
	case IgnorePermits:
		return true
	case ForgetLateness:
		return s.permit.Live(now)
	case PermitForever:
		return s.permit.Epoch != 0
	}
	return s.h.opts.Lease.allows(s.permit, now)
}

func (s *set) live(now carp.Instant) bool {
	m := s.h.opts.Mutant
	return m == IgnorePermits || m == PermitForever && s.permit.Epoch != 0 || s.permit.Live(now)
}

// wakeUp does what is due and plans the next look.
func (s *set) wakeUp(planned time.Duration) {
	if planned != s.wakeAt {
		return
	}
	s.wakeAt = 0
	if a := s.pending; a != nil {
		s.await(a)
	}
	now := s.h.boot()
	if s.serving && !s.live(now) {
		s.end()
	}
	switch {
	case !s.serving && s.placed && now >= s.clearAt:
		if !s.busy {
			s.take(func() { s.clear(1, nothing) })
		}
		return
	case !s.serving && s.placed:
		s.wake(s.h.clock.when(s.clearAt))
		return
	case !s.serving:
		return
	}
	if s.h.opts.Lease.Valid > 0 && now >= s.renewAt && s.allowed(now) && !s.busy {
		s.renew(now)
	}
	for len(s.rounds) > 0 && now >= s.rounds[0] {
		s.rounds = s.rounds[1:]
		s.h.announce()
	}
	s.plan(now)
}

// plan plans the next look of a set that serves.
func (s *set) plan(now carp.Instant) {
	next := s.permit.Until
	if s.renewAt > now {
		next = min(next, s.renewAt)
	} else if s.h.opts.Mutant == IgnorePermits || s.h.opts.Mutant == PermitForever {
		next = now.Add(s.h.opts.Lease.Renew)
	}
	if len(s.rounds) > 0 {
		next = min(next, s.rounds[0])
	}
	if next > now {
		s.wake(s.h.clock.when(next) + s.h.lateness())
	}
}

func (s *set) renew(now carp.Instant) {
	s.busy = true
	s.renewAt = now.Add(s.h.opts.Lease.Renew)
	s.put(nothing)
}

func nothing(error) {}

// put calls the kernel and looks at the permit again, as vip.Set.commit. It has
// the token, and the check has just been made.
func (s *set) put(then func(error)) {
	if s.h.springs(trapBeforePut) {
		s.h.after(0, func() { s.commit(true, then) })
		return
	}
	s.commit(false, then)
}

func (s *set) commit(late bool, then func(error)) {
	s.h.kernel.put(s.h.opts.Lease, late)
	s.placed = true
	now := s.h.boot()
	switch {
	case !s.serving:
		s.clear(1, func(error) { then(errSuperseded) })
	case !s.live(now):
		s.end()
		s.clear(1, func(error) { then(errLapsed) })
	default:
		s.renewed = now
		s.renewAt = now.Add(s.h.opts.Lease.Renew)
		s.release()
		then(nil)
	}
}

// take runs f with the token, which f gives back by release.
func (s *set) take(f func()) {
	if s.busy {
		s.queue = append(s.queue, f)
		return
	}
	s.busy = true
	f()
}

func (s *set) release() {
	s.busy = false
	if len(s.queue) > 0 {
		f := s.queue[0]
		s.queue = s.queue[1:]
		s.busy = true
		f()
		return
	}
	if !s.serving && s.placed {
		s.stir()
	}
}

// up waits for a live permit of the job's epoch and puts the address on.
func (s *set) up(j *job, then func(error)) {
	s.turn++
	s.pending = &ascent{j, s.turn, then}
	j.cancel = s.stir
	s.await(s.pending)
}

func (s *set) await(a *ascent) {
	if s.pending != a {
		return
	}
	finish := func(err error) {
		s.pending, a.j.cancel = nil, nil
		a.then(err)
	}
	epoch := a.j.t.Epoch
	switch {
	case a.j.cancelled:
		finish(errCancelled)
	case s.turn != a.turn || s.permit.Epoch > epoch:
		finish(errSuperseded)
	case s.allowedFor(epoch):
		s.pending, a.j.cancel = nil, nil
		s.take(func() {
			s.h.after(s.h.w.work.in(s.h.w.opts.AddTime), func() { s.raise(a) })
		})
	}
}

func (s *set) allowedFor(epoch carp.Epoch) bool {
	if m := s.h.opts.Mutant; m == IgnorePermits || m == NoWaitForPermit {
		return true
	}
	return s.permit.Epoch == epoch && s.allowed(s.h.boot())
}

// raise has the token and has looked at the interface.
func (s *set) raise(a *ascent) {
	h := s.h
	now := h.boot()
	switch m := h.opts.Mutant; {
	case s.turn != a.turn:
		s.release()
		a.then(errSuperseded)
		return
	case m == IgnorePermits || m == NoWaitForPermit:
	case s.permit.Epoch < a.j.t.Epoch || !s.allowed(now):
		s.release()
		s.pending = a // the next permit may do
		a.j.cancel = s.stir
		s.stir()
		return
	}
	if !h.calm && h.w.work.chance(h.w.opts.AddFailChance) {
		s.end()
		s.release()
		a.then(errKernel)
		return
	}
	s.serving, s.epoch = true, a.j.t.Epoch
	s.put(func(err error) {
		if err == nil {
			h.announce()
			s.burst(1)
		}
		a.then(err)
	})
}

// down takes the address off.
func (s *set) down(then func(error)) {
	s.turn++
	s.end()
	s.stir()
	s.take(func() { s.clear(1, then) })
}

// clear takes off what is on, with a few tries. It has the token.
func (s *set) clear(try int, then func(error)) {
	h := s.h
	if !s.placed {
		s.release()
		then(nil)
		return
	}
	h.after(h.w.work.in(h.w.opts.OffTime), func() {
		failed := !h.calm && h.w.work.chance(h.w.opts.OffFailChance)
		switch {
		case !failed:
			h.kernel.remove("")
			s.placed = false
			s.release()
			then(nil)
		case try < clearTries:
			h.after(clearPause<<(try-1), func() { s.clear(try+1, then) })
		default:
			s.clearAt = h.boot().Add(clearAgain)
			s.release()
			then(fmt.Errorf("take the address off: %w", errKernel))
		}
	})
}

// burst plans the announcements, less those that are done.
func (s *set) burst(skip int) {
	if !s.serving {
		return
	}
	now := s.h.boot()
	s.rounds = append(s.rounds[:0], now, now.Add(200*time.Millisecond), now.Add(time.Second), now.Add(5*time.Second))[skip:]
	s.stir()
}
