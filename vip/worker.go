package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/carpd/carpd/carp"
)

const (
	// maxNap bounds every wait of the worker while addresses are on: timers stand
	// still while the machine sleeps, and a permit does not.
	maxNap = 250 * time.Millisecond
	// settleTime gathers notices that come together, such as a flush, before one
	// look at the kernel.
	settleTime = 5 * time.Millisecond
	// relook is the time between two looks for an interface that is gone, beside
	// the notices.
	relook = time.Second

	askEvery = 50 * time.Millisecond // between two requests for a fresher permit

	restoreBurst = 10          // restorations at once
	restoreEvery = time.Second // then one each
)

// tokens bounds restorations. The zero value is a full bucket.
type tokens struct {
	full carp.Instant // when the bucket will be full again
}

// next returns the instant from which one may be taken.
func (t tokens) next() carp.Instant { return t.full.Add(-(restoreBurst - 1) * restoreEvery) }

// spend takes one at now.
func (t tokens) spend(now carp.Instant) tokens { return tokens{max(t.full, now).Add(restoreEvery)} }

// task is what the worker does next.
type task uint8

const (
	taskWait     task = iota
	taskClear         // take off what is left after the end of a turn
	taskSever         // destroy sockets of addresses that are off
	taskLower         // set our device down, on which nothing is left
	taskLapse         // the permit ended
	taskLook          // compare with the kernel, put back what was lost
	taskAsk           // the look may not put anything back under this permit: ask for a fresher one
	taskRenew         // renew the lease
	taskDefend        // announce addresses that somebody else has claimed
	taskAnnounce      // send a chunk of the present round
)

// next returns what to do at now, and for taskWait until when at most (0: until
// woken). It is pure.
func (st *state) next(now carp.Instant) (task, carp.Instant) {
	if !st.serving {
		switch on := len(st.placed) > 0 || len(st.strays) > 0; {
		case on && now < st.clearAt:
			return taskWait, st.clearAt
		case on:
			return taskClear, 0
		case len(st.lingering) > 0 && now >= st.severAt:
			return taskSever, 0
		case len(st.lingering) > 0:
			return taskWait, st.severAt
		case st.raised && now < st.lowerAt:
			return taskWait, st.lowerAt
		case st.raised:
			return taskLower, 0
		}
		return taskWait, 0
	}
	if !st.permit.Live(now) {
		return taskLapse, 0
	}
	until := min(st.permit.Until, now.Add(maxNap))
	due := func(at carp.Instant) bool {
		if at > now {
			until = min(until, at)
		}
		return at <= now
	}
	room := st.room(st.lease, now)
	if st.lookAt != 0 && due(st.lookAt) {
		if room {
			return taskLook, 0
		}
		if due(st.askAt) {
			return taskAsk, 0
		}
	}
	if st.lease.Valid > 0 && due(st.renewAt) && room {
		return taskRenew, 0
	}
	if len(st.defend) > 0 {
		return taskDefend, 0
	}
	if len(st.rounds) > 0 && due(st.rounds[0]) {
		return taskAnnounce, 0
	}
	return taskWait, until
}

// Run is the worker: it renews the lease, restores lost addresses, repeats the
// announcements and takes the addresses off when the permit ends. It runs until
// ctx ends; then the addresses go, if they are still on, and the device, and its
// error is that of removing them. Run once per Set.
func (s *Set) Run(ctx context.Context) error {
	stop := s.k.Watch(s.notice)
	defer stop()
	s.lookOnce()
	s.severStale(ctx)
	s.beginFence(ctx)
	s.beginDevice(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var neighbours ear
	defer func() { neighbours.end() }()
	for ctx.Err() == nil {
		s.listen(&neighbours)
		now := s.clock()
		s.mu.Lock()
		do, until := s.state.next(now)
		s.mu.Unlock()
		if do != taskWait {
			s.perform(ctx, do)
			continue
		}
		timer.Stop()
		if until != 0 {
			timer.Reset(until.Sub(now))
		}
		select {
		case <-s.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	left := len(s.state.placed) > 0 || len(s.state.strays) > 0
	s.mu.Unlock()
	var err error
	if left {
		err = s.Down(ctx)
	}
	return errors.Join(err, s.endDevice(), s.leaveGate())
}

// lookOnce plans a look if the set is up. When the watch begins: what was lost
// before was not told to anybody.
func (s *Set) lookOnce() {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.serving {
		s.state.lookAt = now
	}
}

// perform does one task. Its conditions are looked at again with the token.
func (s *Set) perform(ctx context.Context, do task) {
	switch do {
	case taskAnnounce:
		s.nextChunk(ctx)
		return
	case taskDefend:
		s.defendOnce(ctx)
		return
	case taskAsk:
		s.ask()
		return
	}
	if s.take(ctx) != nil {
		return
	}
	defer s.release()
	now := s.clock()
	s.mu.Lock()
	again, _ := s.state.next(now)
	if again == taskLapse {
		s.end(EventLapsed)
		again = taskClear
	}
	s.mu.Unlock()
	switch again {
	case taskClear:
		_ = s.clear(context.Background()) // told and retried by itself
	case taskSever:
		s.severRest()
	case taskLower:
		s.lower()
	case taskLook:
		s.look()
	case taskRenew:
		s.renew()
	}
}

// ask asks for a permit under which there is room for a lease. The answer is not
// waited for: if the loop that gives it hangs, the worker is the one to notice
// that the permit ends.
func (s *Set) ask() {
	now := s.clock()
	s.mu.Lock()
	begin := s.needPermit != nil && !s.state.asking && s.state.askAt <= now
	s.state.asking = s.state.asking || begin
	if s.state.askAt <= now {
		s.state.askAt = now.Add(askEvery)
	}
	s.mu.Unlock()
	if !begin {
		return
	}
	go func() {
		s.needPermit()
		s.mu.Lock()
		s.state.asking = false
		s.mu.Unlock()
	}()
}

// renew gives the addresses their whole lifetime again, except those known to be
// lost: to put them back is the look's, which bounds, tells and announces it. The
// caller has the token.
func (s *Set) renew() {
	start := s.clock()
	s.mu.Lock()
	st := &s.state
	if !st.serving || !st.room(st.lease, start) {
		s.mu.Unlock()
		return
	}
	st.renewAt = st.lease.next(st.permit, start, st.took) // also if it fails
	missing := absent(st.placed, st.present)
	changes := puts(st.on, without(st.placed, missing), st.lease)
	s.mu.Unlock()

	switch err := s.commit(changes, missing); {
	case errors.Is(err, errNoRoom):
		return // the next permit renews all
	case err != nil:
		s.renewFailed(err)
		return
	}
	now := s.clock()
	s.mu.Lock()
	// What the look cannot put back or take off is told already.
	st.failing = st.failing && (len(missing) > 0 || len(st.strays) > 0)
	took := now.Sub(start)
	slow := took > st.lease.Renew/2 && !st.slow
	st.slow = st.slow || slow
	// Of thousands of addresses a renewal takes long, and keeps all others from the
	// kernel meanwhile: those are renewed twice a lifetime at least.
	if spaced := start.Add(min(st.lease.Valid/2, 4*took)); st.serving && spaced > st.renewAt {
		st.renewAt = spaced
	}
	renew, epoch := st.lease.Renew, st.epoch
	s.mu.Unlock()
	if slow {
		s.tell(Event{Kind: EventSlow, Epoch: epoch, Text: fmt.Sprintf(
			"renewing %d addresses took %v, and is due each %v: the node is overloaded, or the group has too many addresses for a lease this short",
			len(changes), now.Sub(start).Round(time.Millisecond), renew)})
	}
}

func (s *Set) renewFailed(err error) {
	now := s.clock()
	s.mu.Lock()
	st := &s.state
	if !st.serving || st.failing {
		s.mu.Unlock()
		return
	}
	tell := !errors.Is(err, ErrNoLink) // the look says that better
	st.failing = tell
	st.lookAt = now
	epoch := st.epoch
	s.mu.Unlock()
	if tell {
		s.tell(Event{Kind: EventFailed, Epoch: epoch, Err: err, Text: "the lease could not be renewed"})
	}
}

// restored announces and tells that addresses are back.
func (s *Set) restored(missing []netip.Prefix, epoch carp.Epoch, away bool) {
	now := s.clock()
	s.mu.Lock()
	if s.state.serving {
		s.state.failing, s.state.lostAt = len(s.state.strays) > 0, 0
		s.state.burst(now, s.announce, 0)
	}
	s.mu.Unlock()
	text := fmt.Sprintf("%d addresses were lost and are back, %v among them: see who removes them by ip monitor address", len(missing), missing[0])
	if away {
		text = fmt.Sprintf("%s was deleted, set down or changed by somebody else, and is back with %d addresses: see who does it by ip monitor link",
			s.device.Name, len(missing))
	}
	s.tell(Event{Kind: EventRestored, Epoch: epoch, Addresses: missing, Text: text})
}

// look compares with the kernel and puts back what is missing. The caller has
// the token.
func (s *Set) look() {
	s.mu.Lock()
	before, epoch := s.state.on, s.state.epoch
	s.state.lookAt = 0
	s.mu.Unlock()
	v, err := s.survey()
	if err != nil {
		s.lookFailed(err, epoch)
		return
	}
	if err := s.sweep(v.link); err != nil {
		s.lookFailed(err, epoch) // and put back what is missing all the same
	}
	missing := lost(v.have, v.placed)
	away := s.away(v)
	if away {
		missing = v.placed // a device that is down answers for none
	}
	if !s.mayRestore(v, before, missing) {
		return
	}
	if v.link.Index == 0 {
		if v, err = s.prepare(); err != nil {
			s.backFailed(err, epoch)
			return
		}
		s.placeOn(v)
	}
	if err := s.commit(v.changes, nil); err != nil {
		if errors.Is(err, errNoRoom) {
			s.lookOnce() // when there is room again
			return
		}
		if !errors.Is(err, ErrLapsed) && !errors.Is(err, ErrSuperseded) {
			s.backFailed(err, epoch)
		}
		return
	}
	s.restored(missing, epoch, away)
}

// mayRestore records what a look found and reports whether the missing addresses
// are to be put back now.
func (s *Set) mayRestore(v survey, before Link, missing []netip.Prefix) bool {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.state
	if !st.serving {
		return false
	}
	st.gone = false
	if len(missing) == 0 {
		st.failing, st.lostAt = len(st.strays) > 0, 0
		st.on, st.placed, st.present = v.link, v.placed, presence(v.placed, nil)
		if v.link.MAC != before.MAC {
			st.burst(now, s.announce, 0)
		}
		return false
	}
	st.present = presence(v.placed, missing)
	if at := st.tokens.next(); at > now || !st.room(st.lease, now) {
		st.lookAt = max(now, at) // not before the next permit, see next
		return false
	}
	st.tokens = st.tokens.spend(now)
	if v.link.Index != 0 {
		st.on, st.placed = v.link, v.placed
	}
	return true
}

// lookFailed plans another look and tells the first failure of a row.
func (s *Set) lookFailed(err error, epoch carp.Epoch) {
	gone := errors.Is(err, ErrNoLink)
	now := s.clock()
	s.mu.Lock()
	st := &s.state
	told := st.failing
	if gone {
		told = st.gone // an interface on its way out may have failed otherwise before
	}
	if st.serving {
		st.failing, st.gone = true, gone
		st.lookAt = now.Add(relook)
	}
	if gone {
		st.present = nil
	}
	placed := st.placed
	s.mu.Unlock()
	switch {
	case told:
	case gone:
		s.tell(Event{Kind: EventLinkGone, Epoch: epoch, Addresses: placed, Err: err,
			Text: "the interface is gone and the addresses with it; they come back with it while this node is master"})
	default:
		s.tell(Event{Kind: EventFailed, Epoch: epoch, Err: err, Text: "addresses could not be looked after"})
	}
}

// notice hears the kernel. It only plans a look: by then the kernel may have
// moved on, and the list is the truth.
func (s *Set) notice(n Notice) {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.state
	if !st.serving {
		return
	}
	at := now
	switch n.Kind {
	case AddrGone:
		if _, ours := st.present[n.Prefix.Addr()]; !ours || n.Index != st.on.Index {
			return
		}
		st.present[n.Prefix.Addr()] = false
		at = now.Add(settleTime)
	case LinkChanged, LinkGone:
		if n.Link != s.link && n.Index != st.on.Index {
			return
		}
	}
	if st.lookAt == 0 || at < st.lookAt && at >= st.tokens.next() {
		st.lookAt = at
		s.stir()
	}
}

// announceUpTo announces the first addresses of a batch that goes on: the last of many
// thousands comes a second later.
func (s *Set) announceUpTo(put int) {
	s.mu.Lock()
	from := s.state.announced
	s.mu.Unlock()
	for from < put {
		n, err := s.sendSome(context.Background(), from, put)
		if n == 0 || err != nil {
			break // the first round, or what ends the batch, sees to it
		}
		from += n
	}
	s.mu.Lock()
	s.state.announced = from
	s.mu.Unlock()
}

// firstRound announces the addresses from this one on once.
func (s *Set) firstRound(ctx context.Context, turn uint64, from int) error {
	for more := true; more; {
		if !s.isTurn(turn) {
			return ErrSuperseded
		}
		n, err := s.sendSome(ctx, from, from+chunk)
		if err != nil {
			return err
		}
		from, more = from+n, n > 0
	}
	return nil
}

// nextChunk sends the next frames of the present round.
func (s *Set) nextChunk(ctx context.Context) {
	s.mu.Lock()
	from := s.state.round
	s.mu.Unlock()
	n, _ := s.sendSome(ctx, from, from+chunk) // an error sends nothing, and ends the round
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.state
	if len(st.rounds) == 0 || st.round != from {
		return // ended, or begun anew, meanwhile
	}
	st.round += n
	if n == 0 || st.round >= len(st.placed) {
		st.round, st.rounds = 0, st.rounds[1:]
		if every := s.announce.Refresh; len(st.rounds) == 0 && every > 0 {
			st.rounds = append(st.rounds, s.clock().Add(every))
		}
	}
}

// sendSome sends the announcements of the addresses from one up to another, chunk of
// them at most, under a live permit and returns how many there were. That a frame could not be sent is told, not
// returned: the repeats are for that.
func (s *Set) sendSome(ctx context.Context, from, to int) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	st := &s.state
	link, epoch := st.on, st.epoch
	to = min(to, from+chunk, len(st.placed))
	some := st.placed[min(from, to):to]
	s.mu.Unlock()
	if !s.announces(epoch) {
		return 0, ErrLapsed
	}
	if len(some) == 0 || link.MAC == (carp.MAC{}) {
		return 0, nil
	}
	if err := s.sendThese(ctx, link, epoch, some); err != nil {
		return 0, err
	}
	return len(some), nil
}

// sendThese sends the announcements of some addresses under a live permit.
func (s *Set) sendThese(ctx context.Context, link Link, epoch carp.Epoch, some []netip.Prefix) error {
	live := func() bool { return s.announces(epoch) }
	frames := make([][]byte, len(some))
	for i, p := range some {
		frames[i] = announcement(link.MAC, p.Addr())
	}
	err := s.k.Send(ctx, link.Index, frames, live)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, ErrLapsed) {
		return err
	}
	s.mu.Lock()
	st := &s.state
	tell := err != nil && !st.mute && !errors.Is(err, ErrNoLink) // the look says that better
	st.mute = err != nil
	s.mu.Unlock()
	if tell {
		s.tell(Event{Kind: EventFailed, Epoch: epoch, Err: err, Text: "addresses could not be announced; the announcement is repeated"})
	}
	return nil
}

// announces reports whether the addresses of this epoch may be announced now.
func (s *Set) announces(epoch carp.Epoch) bool {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.serving && s.state.epoch == epoch && s.state.permit.Live(now)
}
