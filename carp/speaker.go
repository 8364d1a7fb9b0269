package carp

import (
	"context"
	"errors"
	"sync"
	"time"
)

// maxNap bounds how late a loop notices that the machine was suspended.
const maxNap = 250 * time.Millisecond

// errEnded answers calls to a speaker that has ended.
var errEnded = errors.New("carp: the speaker has ended")

// Speaker owns an Engine, its Link and its one timer. One goroutine, Run, makes
// every call to the engine; a second runs the Handler, so that an advert never
// waits for what a transition sets off. The methods may be called from any
// goroutine once Run has been called; they wait for the loop, which never blocks
// for long.
type Speaker struct {
	// Observe is told of every transition, in order, by the loop: it must return at
	// once. Set it before Run. Nil is fine.
	Observe func(Transition)
	// Guard is asked before each mastership; Config.Guarded must be set with it.
	Guard Guard

	engine  *Engine
	link    Link
	handler Handler
	holder  PermitHolder // handler, if it is one

	commands chan func()
	ended    chan struct{}
	deadline Instant
	latest   Transition
	mailbox  mailbox
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
		engine: e, link: link, handler: h,
		commands: make(chan func()), ended: make(chan struct{}),
		mailbox: mailbox{wake: make(chan struct{}, 1)},
	}
	s.holder, _ = h.(PermitHolder)
	return s, nil
}

// Run speaks until ctx ends, then leaves in order: addresses off, bow-out, INIT.
// It returns nil after an orderly stop, and an error if the link ended by itself.
func (s *Speaker) Run(ctx context.Context) error {
	var worker sync.WaitGroup
	worker.Go(s.work)
	err := s.loop(ctx)
	close(s.ended)
	worker.Wait()
	return errors.Join(err, s.link.Close())
}

func (s *Speaker) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	stop, events := ctx.Done(), s.link.Events()
	for {
		timer.Reset(s.nap())
		select {
		case ev, open := <-events:
			if !open {
				events = nil
				s.feed(s.engine.LinkDown)
				break
			}
			s.event(ev)
		case f := <-s.commands:
			f()
		case <-timer.C:
			s.drain(events) // what arrived in time counts, however late the timer is
			s.feed(s.engine.Tick)
		case <-stop:
			stop = nil
			s.feed(func(now Instant) Effects { return s.engine.Resign(now, Init, ReasonStopping) })
		}
		switch over := s.engine.state == Init && s.mailbox.idle(); {
		case over && stop == nil:
			return nil
		case over && events == nil:
			return errors.New("carp: run: the link was closed")
		}
	}
}

// nap is how long the loop may sleep. Go's timers stand still while the machine is
// suspended, and the engine's clock does not: so no sleep is long.
func (s *Speaker) nap() time.Duration {
	if s.deadline == 0 {
		return maxNap
	}
	return min(s.deadline.Sub(s.link.Now()), maxNap)
}

// drain takes what waits, but for a close, which the next select sees again.
func (s *Speaker) drain(events <-chan LinkEvent) {
	for {
		select {
		case ev, open := <-events:
			if !open {
				return
			}
			s.event(ev)
		default:
			return
		}
	}
}

func (s *Speaker) event(ev LinkEvent) {
	now := s.link.Now()
	switch {
	case ev.Packet != nil:
		s.apply(now, s.engine.Receive(now, *ev.Packet))
	case ev.Up != nil:
		s.apply(now, s.engine.LinkUp(now, *ev.Up))
	case ev.Down:
		s.apply(now, s.engine.LinkDown(now))
	case ev.Lost > 0:
		s.engine.Overflow(ev.Lost)
	}
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
			ok = s.link.Send(f) == nil || ok
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
	ctx := s.mailbox.put(t)
	if s.holder != nil && t.To != Master && t.To != Releasing {
		s.holder.Permit(Permit{})
	}
	if s.Observe != nil {
		s.Observe(t)
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
		t, ctx, ok := s.mailbox.take()
		if !ok {
			continue
		}
		err := s.handler.Handle(ctx, t)
		s.mailbox.done()
		if t.To == Master && err != nil && ctx.Err() == nil {
			s.input(func(now Instant) Effects { return s.engine.Failed(now, t.Epoch) })
		} else if t.To != Master {
			s.Released(t, err)
		} else {
			s.do(func() {}) // lets the loop see that the worker is idle
		}
	}
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

// do runs f in the loop and waits for it; it reports false if the loop has ended.
func (s *Speaker) do(f func()) bool {
	done := make(chan struct{})
	select {
	case s.commands <- func() { f(); close(done) }:
		<-done
		return true
	case <-s.ended:
		return false
	}
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
	ctx     context.Context
	discard context.CancelFunc
}

// put replaces what waits and cancels what runs. The context it returns ends with
// the next put.
func (m *mailbox) put(t Transition) context.Context {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.discard != nil {
		m.discard()
	}
	m.full, m.next = true, t
	m.ctx, m.discard = context.WithCancel(context.Background())
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return m.ctx
}

func (m *mailbox) take() (Transition, context.Context, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.full {
		return Transition{}, nil, false
	}
	m.full, m.busy = false, true
	return m.next, m.ctx, true
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
