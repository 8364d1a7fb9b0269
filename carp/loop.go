package carp

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// loopSlot is how long a loop of several speakers waits after the earliest
	// deadline, or the first packet, for those that follow: many adverts go out, and
	// many are taken in, in one wake-up. Speakers that were served together are due
	// together the next time.
	loopSlot = 200 * time.Microsecond
	// maxTurn bounds the events that a speaker is given in one turn: as many as an
	// inbox holds.
	maxTurn = 64
	// maxPolls bounds how often a socket is asked before one timer fires: as often as
	// it takes to empty a full one of package link.
	maxPolls = 96
)

// errLoopEnded answers a Run of a speaker whose loop has ended or is about to.
var errLoopEnded = errors.New("carp: run: the loop has ended")

// Loop runs the engines of many speakers in one goroutine: it is woken by the
// earliest of their deadlines, by packets, and by calls of their methods. Before a
// timer fires, what waits in the speaker's inbox is given to the engine. No speaker
// gets more than an inbox of events in its turn, and timers that are due come
// before the next speaker's turn. NewLoop makes one; Run runs it. All methods may
// be called by any goroutine.
type Loop struct {
	// Turned is called by the loop's goroutine after each turn of the loop, and so
	// as often as the Waiter lets a wait end at least: whoever guards the loop knows
	// by it that the loop lives. It must return at once. Set it before Run. Nil is
	// fine.
	Turned func()

	waiter Waiter

	due   deadlines // used by the goroutine of run only
	batch []*Speaker

	mu      sync.Mutex // guards what follows, and Speaker.listed
	ready   []*Speaker // those with something to do, each once
	asleep  bool       // nobody has called Wake since the loop began to wait
	members int
	closing bool // ends when the last speaker has left
	ended   bool
}

// Waiter is how a Loop waits. Wait is called by the loop's goroutine alone.
type Waiter interface {
	// Now reads the clock of the deadlines, which is that of the links of all
	// speakers of the loop.
	Now() Instant
	// Wait returns at the given instant, or at a Wake since the last Wait returned;
	// it may return earlier for no reason. The zero Instant means no deadline.
	Wait(until Instant)
	// Wake ends the Wait that is under way, or the next one. It must not block.
	Wake()
}

// NewLoop returns a loop for many speakers that waits by w; w must outlive Run and
// every speaker's Run.
func NewLoop(w Waiter) *Loop { return &Loop{waiter: w} }

// Run runs the loop until ctx has ended and then the last speaker has left by
// itself: stop the speakers first. After that a speaker's Run returns an error. Run
// is called once; whoever calls it chooses the thread (runtime.LockOSThread).
func (l *Loop) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, l.close)
	defer stop()
	l.run()
}

// close lets the loop end with its last speaker.
func (l *Loop) close() {
	l.mu.Lock()
	l.closing = true
	wake := l.asleep
	l.asleep = false
	l.mu.Unlock()
	if wake {
		l.waiter.Wake()
	}
}

// join counts a speaker in.
func (l *Loop) join() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return errLoopEnded
	}
	l.members++
	return nil
}

// wake gives a speaker a turn. One call may stand for many.
func (l *Loop) wake(s *Speaker) {
	l.mu.Lock()
	if s.listed || l.ended {
		l.mu.Unlock()
		return
	}
	s.listed = true
	l.ready = append(l.ready, s)
	wake := l.asleep
	l.asleep = false
	l.mu.Unlock()
	if wake {
		l.waiter.Wake()
	}
}

func (l *Loop) run() {
	for l.take() {
		l.serve()
		if l.Turned != nil {
			l.Turned()
		}
	}
}

// serve gives each speaker of batch its turn, timers that are due before it.
func (l *Loop) serve() {
	for i, s := range l.batch {
		l.batch[i] = nil
		l.fire()
		l.turn(s, false)
	}
	l.fire()
}

// take waits for work and makes batch of the speakers that are ready. It reports
// false when the loop is over. What puts a speaker on the list has queued its event
// before, and the speaker looks at its queues after it has left the list: nothing
// is overlooked.
func (l *Loop) take() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing && l.members == 0 {
		l.ended = true
		return false
	}
	if len(l.ready) == 0 {
		l.rest()
	} else {
		l.read()
	}
	l.batch, l.ready = l.ready, l.batch[:0]
	for _, s := range l.batch {
		s.listed = false
	}
	return true
}

// rest waits for the next deadline or wake. The caller holds mu.
func (l *Loop) rest() {
	until := l.next()
	l.asleep = true
	l.mu.Unlock()
	l.waiter.Wait(until)
	l.mu.Lock()
	woken := !l.asleep
	l.asleep = false
	if !woken || l.members <= 1 {
		return
	}
	soon := l.waiter.Now().Add(loopSlot) // packets come in flocks, too
	if until != 0 {
		soon = min(soon, until)
	}
	l.mu.Unlock()
	l.waiter.Wait(soon)
	l.mu.Lock()
}

// next is the end of the slot that the earliest deadline begins, or zero.
func (l *Loop) next() Instant {
	if len(l.due) == 0 {
		return 0
	}
	at := l.due[0].queued
	if l.members > 1 {
		at = at.Add(loopSlot)
	}
	return at
}

// fire gives those their turn whose deadline is over by now, each once.
func (l *Loop) fire() {
	if len(l.due) == 0 {
		return
	}
	now := l.waiter.Now()
	for range len(l.due) {
		if len(l.due) == 0 || l.due[0].queued > now {
			return
		}
		l.turn(l.due[0], true)
	}
}

// turn lets one speaker work, and notes when it wants to be called again.
func (l *Loop) turn(s *Speaker, due bool) {
	if s.left {
		return // it was on the list when it left
	}
	more := s.turn(due)
	if s.over() {
		l.leave(s)
		return
	}
	l.schedule(s, s.deadline)
	if more {
		l.wake(s)
	}
}

func (l *Loop) schedule(s *Speaker, at Instant) {
	switch was := s.queued; {
	case was == at:
	case was == 0:
		s.queued = at
		heap.Push(&l.due, s)
	case at == 0:
		heap.Remove(&l.due, s.place)
		s.queued = 0
	default:
		s.queued = at
		heap.Fix(&l.due, s.place)
	}
}

func (l *Loop) leave(s *Speaker) {
	l.schedule(s, 0)
	s.left = true
	l.mu.Lock()
	l.members--
	l.mu.Unlock()
	s.end()
}

// deadlines is a heap of speakers by their deadline; see container/heap.
type deadlines []*Speaker

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].queued < d[j].queued }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

func (d *deadlines) Push(x any) {
	s := x.(*Speaker)
	s.place = len(*d)
	*d = append(*d, s)
}

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	s := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return s
}

// maxNap bounds how late a loop on package time notices that the machine was
// suspended: Go's timers stand still meanwhile, and the engine's clock does not.
const maxNap = 250 * time.Millisecond

// timeWaiter waits by package time, so it works in a testing/synctest bubble.
type timeWaiter struct {
	now   func() Instant
	wake  chan struct{}
	timer *time.Timer
}

// TimeWaiter returns a Waiter that waits by package time, which is up to a
// millisecond late, for links that read the clock by now.
func TimeWaiter(now func() Instant) Waiter {
	return &timeWaiter{now: now, wake: make(chan struct{}, 1), timer: time.NewTimer(0)}
}

func (w *timeWaiter) Now() Instant { return w.now() }

func (w *timeWaiter) Wait(until Instant) {
	nap := maxNap
	if until != 0 {
		nap = min(until.Sub(w.now()), nap)
	}
	w.timer.Reset(nap)
	select {
	case <-w.timer.C:
	case <-w.wake:
	}
}

func (w *timeWaiter) Wake() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
