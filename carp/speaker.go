package carp

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errEnded answers calls to a speaker that has ended.
var errEnded = errors.New("carp: the speaker has ended")

// Speaker owns an Engine and its Link. A Loop makes every call to the engine, from
// one goroutine; another runs the Handler, and one more the Observer while there is
// something to observe, so that an advert never waits for what a transition sets
// off. The methods may be called from any goroutine once Run has been called; they
// wait for the loop, which never blocks for long. They must not be called by what
// the loop calls: PermitHolder and Link.
type Speaker struct {
	// Observe is told of every transition, in order. The Handler, and whoever calls a
	// method, wait until it knows the latest, but no longer than a tenth of a second.
	// If it hangs, nothing else does; it misses transitions if there are more than
	// 256 meanwhile. Set it before Run. Nil is fine.
	Observe func(Transition)
	// Guard is asked before each mastership; Config.Guarded must be set with it.
	Guard Guard
	// Beside are the links 1 and up of Config.Paths, beside the one that NewSpeaker is
	// given, which is 0 and the client side. All have the same clock. The speaker takes
	// them over too. Set it before Run.
	Beside []Link
	// Loop runs this speaker beside others. Set it before Run. Nil means a loop of
	// its own, by package time, in the goroutine that calls Run.
	Loop *Loop

	engine  *Engine
	link    Link
	handler Handler
	holder  PermitHolder // handler, if it is one
	pollers []Poller     // those of the links that are one
	ended   chan struct{}
	mailbox mailbox
	herald  herald

	// Used by the loop's goroutine only.
	events   <-chan LinkEvent   // nil after its close
	aside    []<-chan LinkEvent // those of Beside, the same
	stopping bool
	deadline Instant
	latest   Transition
	told     <-chan struct{} // closed when Observe knows latest
	queued   Instant         // the deadline that the loop knows
	place    int             // in the loop's heap
	left     bool            // the loop has let go

	listed bool // guarded by Loop.mu: waits for its turn

	mu    sync.Mutex // guards what follows
	loop  *Loop      // nil before Run
	calls []func()   // wait for the loop, each for one caller
	spare []func()   // the last that were called
	gone  bool       // calls are made no more
}

// NewSpeaker returns a speaker in INIT. It takes over the link and closes it when
// Run ends. A nil handler elects and does nothing else.
func NewSpeaker(c Config, link Link, h Handler) (*Speaker, error) {
	e, err := NewEngine(c)
	if err != nil {
		return nil, err
	}
	if h == nil {
		h = HandlerFunc(func(context.Context, Transition) error { return nil })
	}
	s := &Speaker{
		engine: e, link: link, handler: h, ended: make(chan struct{}),
		mailbox: mailbox{wake: make(chan struct{}, 1)},
	}
	s.holder, _ = h.(PermitHolder)
	s.pollFrom(link)
	return s, nil
}

// Run speaks until ctx ends, then leaves in order: addresses off, bow-out, INIT.
// It returns nil after an orderly stop, and an error if the link or the loop ended
// by itself.
func (s *Speaker) Run(ctx context.Context) error {
	loop, own := s.Loop, s.Loop == nil
	if own {
		loop = &Loop{waiter: TimeWaiter(s.link.Now)}
	}
	if err := loop.join(); err != nil {
		s.end()
		return errors.Join(err, s.closeLinks())
	}
	var worker sync.WaitGroup
	worker.Go(s.work)
	s.openLinks()
	s.enter(loop)
	unstop := context.AfterFunc(ctx, func() { s.post(s.stop) })
	defer unstop()
	if own {
		loop.close()
		loop.run()
	}
	<-s.ended
	s.notify(nil)
	worker.Wait()
	err := s.closeLinks()
	if !s.stopping {
		err = errors.Join(errors.New("carp: run: the link was closed"), err)
	}
	return err
}

// enter makes the speaker known to its loop, and what has come before.
func (s *Speaker) enter(l *Loop) {
	s.mu.Lock()
	s.loop = l
	s.mu.Unlock()
	s.notify(func() { l.wake(s) })
	l.inline(s)
	l.wake(s)
}

// turn gives the engine what waits, but no more than a full inbox, and then the
// time if its deadline is over: what arrived in time counts, however late the
// timer is. It reports whether events may be left. The loop calls it.
func (s *Speaker) turn(due bool) (more bool) {
	for _, call := range s.called() {
		call()
	}
	more = s.drain()
	if due && s.engine.state == Backup && len(s.pollers) > 0 {
		more = s.poll()
	}
	if due {
		s.feed(s.engine.Tick)
	}
	return more
}

func (s *Speaker) drain() (more bool) {
	more = s.drainLink(0, &s.events)
	for i := range s.aside {
		more = s.drainLink(uint8(i+1), &s.aside[i]) || more
	}
	return more
}

// called returns the calls that wait, until the next time.
func (s *Speaker) called() []func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls) == 0 {
		return nil
	}
	s.calls, s.spare = s.spare[:0], s.calls
	return s.spare
}

// end is called by the loop when it has let go.
func (s *Speaker) end() {
	s.mu.Lock()
	s.loop, s.calls, s.spare, s.gone = nil, nil, nil, true
	s.mu.Unlock()
	close(s.ended)
}

func (s *Speaker) stop() {
	s.stopping = true
	s.feed(func(now Instant) Effects { return s.engine.Resign(now, Init, ReasonStopping) })
}

// over reports whether the loop is done with the speaker: it was stopped or its
// link is closed, and nothing is left to be let go.
func (s *Speaker) over() bool {
	return (s.stopping || s.events == nil) && s.engine.state == Init && s.mailbox.idle()
}

// feed gives the engine an input that needs nothing but the time. It is called by
// the loop only.
func (s *Speaker) feed(input func(Instant) Effects) {
	now := s.link.Now()
	s.apply(now, input(now))
}

// input does the same from any other goroutine, and waits for it.
func (s *Speaker) input(input func(Instant) Effects) { s.do(func() { s.feed(input) }) }

// apply carries out effects until the engine asks for nothing more. Leaving the
// role is made known before anything is sent.
func (s *Speaker) apply(decided Instant, e Effects) {
	for {
		s.deadline = e.Deadline
		if e.Change != nil {
			s.changed(*e.Change, e.Ask)
		}
		if s.holder != nil && e.Permit.Epoch != 0 {
			s.holder.Permit(e.Permit)
		}
		if s.holder != nil && e.Announce {
			s.holder.Announce()
		}
		if len(e.Send) == 0 {
			return
		}
		before, ok := s.link.Now(), false
		if s.engine.Stale(decided, before) { // frozen since: another may be master
			decided, e = before, s.engine.Tick(before)
			continue
		}
		for _, f := range e.Send {
			ok = s.send(f) == nil || ok
		}
		switch after := s.link.Now(); {
		case s.engine.Stalled(after): // frozen while sending: the permit before this one has lapsed
			decided, e = after, s.engine.Tick(after)
		case ok:
			e = s.engine.Sent(before)
		default:
			e = s.engine.SendFailed(after)
		}
	}
}

func (s *Speaker) changed(t Transition, ask bool) {
	s.latest = t
	if s.Observe != nil {
		s.told = s.herald.tell(s.Observe, t)
	}
	ctx := s.mailbox.put(t, s.told)
	if s.holder != nil && t.To != Master && t.To != Releasing {
		s.holder.Permit(Permit{})
	}
	if ask {
		go s.ask(ctx, t.Epoch)
	}
}

// ask waits for the guard no longer than the mastership it is about.
func (s *Speaker) ask(ctx context.Context, epoch Epoch) {
	err := errors.New("carp: ask the guard: none is set")
	if s.Guard != nil {
		err = s.Guard.Ask(ctx, epoch)
	}
	s.input(func(now Instant) Effects {
		if err == nil {
			return s.engine.Granted(now, epoch)
		}
		return s.engine.Denied(now, epoch)
	})
}

// work runs the handler for the newest transition, one at a time.
func (s *Speaker) work() {
	for {
		select {
		case <-s.ended:
			return
		case <-s.mailbox.wake:
		}
		t, told, ctx, ok := s.mailbox.take()
		if !ok {
			continue
		}
		await(told)
		err := s.handler.Handle(ctx, t)
		s.mailbox.done()
		switch {
		case t.To != Master:
			s.Released(t, err)
		case err == nil || ctx.Err() != nil:
			s.do(func() {}) // lets the loop see that the worker is idle
		case errors.Is(err, ErrHeld):
			s.Abandon(t.Epoch)
		default:
			s.Failed(t.Epoch)
		}
	}
}

// Failed tells that the addresses of this epoch, which were on, cannot be held any
// longer, and are off: as Engine.Failed. It does nothing once the epoch is over.
func (s *Speaker) Failed(epoch Epoch) {
	s.input(func(now Instant) Effects { return s.engine.Failed(now, epoch) })
}

// Abandon leaves the mastership of this epoch, which cannot be served, in order: as
// Engine.Abandon. It does nothing once the epoch is over.
func (s *Speaker) Abandon(epoch Epoch) {
	s.input(func(now Instant) Effects { return s.engine.Abandon(now, epoch) })
}

// Released tells that the addresses and resources of the mastership that t ended
// are gone, or with an error that they are not. It does nothing if another
// transition has come since, or if it was called before.
func (s *Speaker) Released(t Transition, err error) {
	s.do(func() {
		if t == s.latest {
			s.feed(func(now Instant) Effects { return s.engine.Released(now, err) })
		}
	})
}

// do runs f in the loop and waits for it, and for the observer to know what came of
// it; it does nothing if the loop is done with the speaker.
func (s *Speaker) do(f func()) {
	done := make(chan struct{})
	var told <-chan struct{}
	s.post(func() {
		f()
		told = s.told
		close(done)
	})
	select {
	case <-done:
		await(told)
	case <-s.ended:
	}
}

// post has f run in the loop.
func (s *Speaker) post(f func()) {
	s.mu.Lock()
	loop := s.loop
	if !s.gone {
		s.calls = append(s.calls, f)
	}
	s.mu.Unlock()
	if loop != nil {
		loop.wake(s)
	}
}

// Ready opens the start gate of Config.StartGate.
func (s *Speaker) Ready() { s.input(s.engine.Ready) }

// Unfit tells the engine whether this node could not serve as master.
func (s *Speaker) Unfit(is bool) {
	s.input(func(now Instant) Effects { return s.engine.Unfit(now, is) })
}

// Demote sets one owner's demotion and returns what takes it back.
func (s *Speaker) Demote(owner string, amount int) (undo func()) {
	set := func(n int) { s.input(func(now Instant) Effects { return s.engine.Demote(now, owner, n) }) }
	set(amount)
	return func() { set(0) }
}

// SetState asks for BACKUP or MASTER, as Engine.SetState.
func (s *Speaker) SetState(to State) {
	s.input(func(now Instant) Effects { return s.engine.SetState(now, to) })
}

// Resign leaves the role, as Engine.Resign.
func (s *Speaker) Resign(to State, why Reason) {
	s.input(func(now Instant) Effects { return s.engine.Resign(now, to, why) })
}

// Reconfigure changes the configuration, as Engine.Reconfigure.
func (s *Speaker) Reconfigure(c Config) error {
	err := errEnded
	s.do(func() {
		s.feed(func(now Instant) (e Effects) {
			e, err = s.engine.Reconfigure(now, c)
			return e
		})
	})
	return err
}

// ResetSeal forgets saved clocks, as Engine.ResetSeal.
func (s *Speaker) ResetSeal(offset time.Duration) {
	s.input(func(now Instant) Effects { return s.engine.ResetSeal(now, offset) })
}

// Renew asks for a fresh permit, as Engine.Renew.
func (s *Speaker) Renew() { s.input(s.engine.Renew) }

// CheckReconfigure returns the error that Reconfigure would return.
func (s *Speaker) CheckReconfigure(c Config) error {
	err := errEnded
	s.do(func() { err = s.engine.CheckReconfigure(s.link.Now(), c) })
	return err
}

// Status returns a copy of the engine's state and the instant it was taken. The
// zero Status is returned after Run has ended.
func (s *Speaker) Status() (st Status, now Instant) {
	s.do(func() {
		now = s.link.Now()
		st = s.engine.Status(now)
	})
	return st, now
}

// mailbox holds the newest transition for the worker; it has room for one.
type mailbox struct {
	wake chan struct{}

	mu      sync.Mutex
	full    bool
	busy    bool
	next    Transition
	told    <-chan struct{} // closed when the observer knows next, or nil
	ctx     context.Context
	discard context.CancelFunc
}

// put replaces what waits and cancels what runs. The context it returns ends with
// the next put.
func (m *mailbox) put(t Transition, told <-chan struct{}) context.Context {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.discard != nil {
		m.discard()
	}
	m.full, m.next, m.told = true, t, told
	m.ctx, m.discard = context.WithCancel(context.Background())
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return m.ctx
}

func (m *mailbox) take() (t Transition, told <-chan struct{}, ctx context.Context, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.full {
		return Transition{}, nil, nil, false
	}
	m.full, m.busy = false, true
	return m.next, m.told, m.ctx, true
}

func (m *mailbox) done() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy = false
}

func (m *mailbox) idle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.full && !m.busy
}
