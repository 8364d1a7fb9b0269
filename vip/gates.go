package vip

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carpd/carpd/carp"
)

// Gates looks after the fence of all sets of a daemon: one gate a set, open while the
// set serves under a live permit. One goroutine, Run, does all that touches the fence's
// tags, so that hundreds of gates are renewed in a few calls of the kernel, and none
// waits for a batch of addresses.
//
// # Why a gate is never open longer than its permit
//
// To open or renew, Run takes three steps. It stages a new tag with the life that the
// permit has left. It reads the clock: the tag began to live before that, so it ends at
// that instant plus its life at the latest; if that is later than the permit's end, the
// tag is let die and nothing has happened, since no mark is set to it. Only then it sets
// the mark to the tag. What ends the tag is the kernel; wherever the process is frozen,
// killed or late from then on, and when it wakes and sets a mark to a tag that has died
// meanwhile, the gate is closed at the permit's end.
type Gates struct {
	fence   Fence
	clock   func() carp.Instant
	observe func(GatesEvent)

	waiter carp.Waiter
	told   atomic.Bool // that somebody else has removed the fence
	ended  chan struct{}

	mu    sync.Mutex // guards what follows; never held across a call of the fence
	gates []*Gate
	marks uint32
	stats GatesStats

	// Run alone uses these.
	tag  uint32
	lost error        // observed, until it is mended
	due  carp.Instant // of the next attempt after a failure
}

// GatesEvent is something that happened to the fence.
type GatesEvent struct {
	Err  error // nil: it is mended
	Text string
}

// GatesStats are totals of all gates.
type GatesStats struct {
	Renewals uint64
	// Cut counts gates that had closed when they were renewed, though their permits
	// lived: a living master did not answer for a moment.
	Cut uint64
	// Least is what was left of the life of a gate when it was renewed, at the least.
	Least time.Duration
}

// Stats returns the totals since the gates were made.
func (g *Gates) Stats() GatesStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stats
}

// count notes a renewal that was in time, or not. The first opening is none.
func (g *Gates) count(all []staged, now carp.Instant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range all {
		if s.t.tag == 0 {
			continue
		}
		left := s.t.end.Sub(now)
		if left <= 0 {
			g.stats.Cut++
		}
		if g.stats.Renewals == 0 || left < g.stats.Least {
			g.stats.Least = left
		}
		g.stats.Renewals++
	}
}

// NewGates returns gates on a fence, which stays the caller's. clock is that of the
// permits, nil for CLOCK_BOOTTIME. observe, if not nil, hears what happens, from Run's
// goroutine; it must not block.
func NewGates(f Fence, clock func() carp.Instant, observe func(GatesEvent)) *Gates {
	if clock == nil {
		clock = bootTime
	}
	g := &Gates{fence: f, clock: clock, observe: observe, ended: make(chan struct{})}
	g.waiter = &channelWaiter{clock: clock, bell: make(chan struct{}, 1)}
	if observe == nil {
		g.observe = func(GatesEvent) {}
	}
	return g
}

// Gate is the gate of one set. Its methods do not block, but for those with a context.
type Gate struct {
	g    *Gates
	mark uint32

	want  atomic.Bool  // shall be open
	until atomic.Int64 // end of the permit, an Instant
	// hungry is set while a renewal waits for a longer permit: only then Permit wakes
	// Run, since adverts may follow each other by 10 ms, in hundreds of groups.
	hungry atomic.Bool

	// Run alone uses these.
	tag  uint32       // that the mark is set to; 0: closed
	end  carp.Instant // of the tag, at the earliest
	life time.Duration
	bad  bool // the mark may be set to something else than tag
	late uint // attempts in a row that were too slow for their permits

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of state
	state   gateState
}

// gateState is what others than Run may know.
type gateState struct {
	open bool // set to a tag that lived until end when it was set
	end  carp.Instant
	err  error // of the last attempt
}

// add returns a gate that is closed, without addresses.
func (g *Gates) add() *Gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.marks++
	gate := &Gate{g: g, mark: g.marks}
	g.gates = append(slices.Clip(g.gates), gate) // Run may be going through what there was
	return gate
}

// remove forgets a gate; its addresses pass from then on.
func (g *Gates) remove(gate *Gate) error {
	g.mu.Lock()
	g.gates = slices.DeleteFunc(slices.Clone(g.gates), func(x *Gate) bool { return x == gate })
	g.mu.Unlock()
	return g.fence.Forget(gate.mark)
}

func (g *Gates) stir() { g.waiter.Wake() }

// WaitWith has Run wait by w, which must wait by the clock of the permits: Go's own
// timers and channels depend on threads that go before nobody. Call it before Run.
func (g *Gates) WaitWith(w carp.Waiter) { g.waiter = w }

// channelWaiter is the carp.Waiter of who has none.
type channelWaiter struct {
	clock func() carp.Instant
	bell  chan struct{} // capacity 1
}

// Now implements carp.Waiter.
func (w *channelWaiter) Now() carp.Instant { return w.clock() }

// Wait implements carp.Waiter.
func (w *channelWaiter) Wait(until carp.Instant) {
	var late <-chan time.Time
	if until != 0 {
		timer := time.NewTimer(until.Sub(w.clock()))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-w.bell:
	case <-late:
	}
}

// Wake implements carp.Waiter.
func (w *channelWaiter) Wake() {
	select {
	case w.bell <- struct{}{}:
	default:
	}
}

// permit tells until when the gate may be open.
func (t *Gate) permit(p carp.Permit) {
	until := p.Until
	if p.Epoch == 0 {
		until = 0
	}
	t.until.Store(int64(until))
	if t.hungry.Load() && t.want.Load() {
		t.g.stir()
	}
}

// wish says whether the gate shall be open.
func (t *Gate) wish(open bool) {
	if t.want.Swap(open) == open {
		return
	}
	t.mu.Lock()
	t.state.err = nil // of an earlier wish
	t.notify()
	t.mu.Unlock()
	t.g.stir()
}

// await waits until the gate is as wished: open under a live permit, or closed. The
// error is ErrLapsed if the permit ended, ErrSuperseded if the wish changed, and that
// of the fence if it does not work.
func (t *Gate) await(ctx context.Context, open bool) error {
	for {
		t.mu.Lock()
		if t.changed == nil {
			t.changed = make(chan struct{})
		}
		st, changed := t.state, t.changed
		t.mu.Unlock()
		switch now := t.g.clock(); {
		case t.want.Load() != open:
			return ErrSuperseded
		case open && st.open && st.end > now, !open && !st.open:
			return nil
		case open && t.until.Load() <= int64(now):
			return ErrLapsed
		case st.err != nil:
			return st.err
		}
		t.g.stir()
		if err := t.pause(ctx, changed); err != nil {
			return err
		}
	}
}

// pause waits until something changes, or the permit has ended.
func (t *Gate) pause(ctx context.Context, changed <-chan struct{}) error {
	var lapse <-chan time.Time
	if left := carp.Instant(t.until.Load()).Sub(t.g.clock()); left > 0 {
		timer := time.NewTimer(left)
		defer timer.Stop()
		lapse = timer.C
	}
	select {
	case <-changed:
	case <-lapse:
	case <-ctx.Done():
		return ctx.Err()
	case <-t.g.ended:
		return ErrGatesEnded
	}
	return nil
}

// tell publishes the state of a gate.
func (t *Gate) tell(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state = gateState{open: t.tag != 0, end: t.end, err: err}
	t.notify()
}

// notify wakes those who wait. t.mu is held.
func (t *Gate) notify() {
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// lifeWithin returns the life of a tag under a permit that has this much left. What is
// given away is for the call that stages the tag, which must be known to be over in
// time; more after attempts that were not.
func lifeWithin(left time.Duration, late uint) time.Duration {
	slack := min(max(left/16, 2*time.Millisecond)<<min(late, 8), left/2)
	return (left - slack).Truncate(time.Millisecond)
}

const (
	// gateLeast is the least life that is worth a call.
	gateLeast = 2 * time.Millisecond
	// gateAgain is the time between two attempts after the fence has failed.
	gateAgain = 100 * time.Millisecond
	// gatesNap bounds every wait while a gate is to be open: timers stand still while
	// the machine sleeps.
	gatesNap = 250 * time.Millisecond
)

// grid is what renewals of gates with this life are aligned to, so that many share the
// calls of the kernel.
func grid(life time.Duration) time.Duration {
	switch {
	case life >= 400*time.Millisecond:
		return 50 * time.Millisecond
	case life >= 160*time.Millisecond:
		return 20 * time.Millisecond
	}
	return time.Millisecond
}

// next returns when a gate is to be renewed at the earliest, given until when its
// permit allows, at now; 0 says not before there is a longer permit. It is pure. A
// gate is renewed when a third of its life is gone and the permit gives it that much
// again; one that is closed at once.
func (t *Gate) next(until, now carp.Instant) carp.Instant {
	life := lifeWithin(until.Sub(now), t.late)
	switch {
	case life < gateLeast:
		return 0
	case t.tag == 0 || t.bad || t.end <= now:
		return now
	case now.Add(life).Sub(t.end) < t.life/8:
		return 0
	}
	step := carp.Instant(grid(t.life))
	at := t.end.Add(-t.life * 2 / 3)
	if at = at - at%step; at > now {
		return at
	}
	if up := (now + step - 1) / step * step; t.end.Sub(up) >= t.life/2 {
		return up
	}
	return now
}

// Run opens, renews and closes the gates until ctx ends; then it closes them all. It is
// best called on a thread that goes before ordinary ones. Run once.
func (g *Gates) Run(ctx context.Context) {
	defer close(g.ended)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { g.hearLost(ctx) })
	defer context.AfterFunc(ctx, g.stir)()
	for ctx.Err() == nil {
		if g.told.Swap(false) {
			g.mend(ErrFenceLost)
		}
		open, shut, at := g.plan(g.clock())
		if len(open)+len(shut) > 0 {
			g.round(open, shut)
			continue
		}
		g.waiter.Wait(at)
	}
	g.mu.Lock()
	all := slices.DeleteFunc(slices.Clone(g.gates), func(t *Gate) bool { return t.tag == 0 })
	g.mu.Unlock()
	_ = g.close(all) // what stays open ends by itself
}

// hearLost wakes Run when the fence is told to be lost.
func (g *Gates) hearLost(ctx context.Context) {
	for {
		select {
		case <-g.fence.Lost():
			g.told.Store(true)
			g.stir()
		case <-ctx.Done():
			return
		}
	}
}

// plan returns the gates to be opened or renewed now, those to be closed, and when to
// look again; 0 says when woken.
func (g *Gates) plan(now carp.Instant) (open, shut []*Gate, at carp.Instant) {
	g.mu.Lock()
	all := g.gates
	g.mu.Unlock()
	sooner := func(t carp.Instant) {
		if at == 0 || t < at {
			at = t
		}
	}
	for _, t := range all {
		if !t.want.Load() {
			t.hungry.Store(false)
			if t.tag != 0 || t.bad {
				shut = append(shut, t)
			}
			continue
		}
		sooner(now.Add(gatesNap))
		t.hungry.Store(true) // before the permit is read: one that comes then wakes us
		next := t.next(carp.Instant(t.until.Load()), now)
		switch {
		case next == 0:
			continue
		case next > now:
			sooner(next)
		default:
			open = append(open, t)
		}
		t.hungry.Store(false)
	}
	if len(open)+len(shut) > 0 && now < g.due {
		return nil, nil, g.due
	}
	return open, shut, at
}

// staged is a tag on its way to a gate.
type staged struct {
	t     *Gate
	until carp.Instant // of the permit as it was read
	tag   uint32
	life  time.Duration
	end   carp.Instant // at the earliest
}

// round closes gates, and opens and renews others.
func (g *Gates) round(open, shut []*Gate) {
	err := g.close(shut)
	if err == nil {
		var all []staged
		if all, err = g.stage(open); err == nil {
			err = g.set(all)
		}
	}
	if err != nil {
		g.failed(err, append(open, shut...))
		return
	}
	if g.lost != nil {
		g.observe(GatesEvent{Text: "the fence works again"})
	}
	g.lost, g.due = nil, 0
}

// stage gives each gate a new tag, and returns those that end within their permits.
func (g *Gates) stage(open []*Gate) ([]staged, error) {
	var all []staged
	var stages []Stage
	now := g.clock()
	for _, t := range open {
		s := staged{t: t, until: carp.Instant(t.until.Load()), tag: g.nextTag()}
		s.life = lifeWithin(s.until.Sub(now), t.late)
		s.end = now.Add(s.life)
		if s.life >= gateLeast {
			all, stages = append(all, s), append(stages, Stage{s.tag, s.life})
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	if err := g.fence.Stage(stages); err != nil {
		return nil, err
	}
	after := g.clock()
	return slices.DeleteFunc(all, func(s staged) bool {
		tooLate := after.Add(s.life) > s.until
		if s.t.late++; !tooLate {
			s.t.late = 0
		}
		return tooLate
	}), nil
}

func (g *Gates) nextTag() uint32 {
	if g.tag++; g.tag == 0 {
		g.tag++
	}
	return g.tag
}

// set sets the marks to tags that end in time, unless a permit was withdrawn.
func (g *Gates) set(all []staged) error {
	all = slices.DeleteFunc(all, func(s staged) bool { return !s.t.want.Load() || carp.Instant(s.t.until.Load()) < s.until })
	if len(all) == 0 {
		return nil
	}
	points := make([]Point, len(all))
	for i, s := range all {
		points[i] = Point{s.t.mark, s.tag}
		s.t.bad = true
	}
	if err := g.fence.Set(points); err != nil {
		return err
	}
	g.count(all, g.clock())
	for _, s := range all {
		s.t.tag, s.t.end, s.t.life, s.t.bad = s.tag, s.end, s.life, false
		s.t.tell(nil)
	}
	return nil
}

// close sets gates to no tag.
func (g *Gates) close(shut []*Gate) error {
	if len(shut) == 0 {
		return nil
	}
	points := make([]Point, len(shut))
	for i, t := range shut {
		points[i] = Point{Mark: t.mark}
	}
	if err := g.fence.Set(points); err != nil {
		return err
	}
	for _, t := range shut {
		t.tag, t.end, t.bad = 0, 0, false
		t.tell(nil)
	}
	return nil
}

// failed tells that the fence does not work, and mends it if it is gone.
func (g *Gates) failed(err error, concerned []*Gate) {
	if errors.Is(err, ErrFenceLost) && g.lost == nil {
		if g.mend(err) {
			return // the next turn does what could not be done
		}
		err = g.lost
	}
	if g.lost == nil {
		g.observe(GatesEvent{Err: err, Text: "the fence could not be changed: addresses of a master do not answer until that is mended"})
	}
	g.lost, g.due = err, g.clock().Add(gateAgain)
	for _, t := range concerned {
		t.tell(err)
	}
}

// mend makes the fence anew, closed, and reports whether that worked.
func (g *Gates) mend(why error) bool {
	err := g.fence.Restore()
	g.mu.Lock()
	all := g.gates
	g.mu.Unlock()
	for _, t := range all {
		t.tag, t.end, t.bad = 0, 0, false
	}
	if err != nil {
		g.observe(GatesEvent{Err: errors.Join(why, err), Text: "somebody else has removed the fence, and it could not be made anew"})
		g.lost, g.due = err, g.clock().Add(gateAgain)
		return false
	}
	g.observe(GatesEvent{Err: why, Text: "somebody else has removed the fence; it was made anew at once: see who does it by nft monitor"})
	return true
}
