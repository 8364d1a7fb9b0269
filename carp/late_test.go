package carp

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// inboxLink is a link in a bubble whose inbox the test fills.
type inboxLink struct {
	events chan LinkEvent
	began  time.Time
	notify func()
}

func (l *inboxLink) Now() Instant             { return Instant(time.Second + time.Since(l.began)) }
func (l *inboxLink) Send(Frame) error         { return nil }
func (l *inboxLink) Events() <-chan LinkEvent { return l.events }
func (l *inboxLink) Notify(f func())          { l.notify = f }
func (l *inboxLink) Close() error             { return nil }

// put is called by the loop only, as Notify is before it.
func (l *inboxLink) put(ev LinkEvent) {
	l.events <- ev
	l.notify()
}

// A loop that was held up finds its timer due and an advert in the inbox. Which of
// the two it meets first is a matter of luck, so this is done many times.
func TestAdvertsThatCameInTimeCountHoweverLateTheTimerIs(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared loop %v", shared), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testLate(t, shared) })
		})
	}
}

func testLate(t *testing.T, shared bool) {
	link := &inboxLink{events: make(chan LinkEvent, 64), began: time.Now()}
	s, err := NewSpeaker(rigConfig(), link, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended, loopEnded := make(chan error), make(chan struct{})
	if shared {
		s.Loop = NewLoop(TimeWaiter(link.Now))
		go func() { s.Loop.Run(ctx); close(loopEnded) }()
	} else {
		close(loopEnded)
	}
	go func() { ended <- s.Run(ctx) }()
	s.do(func() { link.put(LinkEvent{Up: &rigLocal}) })
	r := &rig{t: t, e: s.engine, counter: 1 << 50}
	for range 40 {
		s.do(func() {
			p := r.advert(peerLow, 1, 0)
			link.put(LinkEvent{Packet: &p})
			<-time.After(4 * time.Second)
		})
		synctest.Wait()
		if st, _ := s.Status(); st.State != Backup || st.Counters.Transitions != 1 {
			t.Errorf("%v after %d transitions: %s", st.State, st.Counters.Transitions, st.Reason.Text())
			break
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-loopEnded
}

// socketLink holds packets back, as a kernel does whose reader is late, until Poll.
type socketLink struct {
	inboxLink
	held chan LinkEvent
}

func (l *socketLink) Poll() (more bool) {
	if len(l.held) > 0 { // one at a time
		l.events <- <-l.held
	}
	return len(l.held) > 0
}

func TestAdvertsThatWaitInTheSocketCountToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		link := &socketLink{inboxLink{events: make(chan LinkEvent, 64), began: time.Now()}, make(chan LinkEvent, 64)}
		s, err := NewSpeaker(rigConfig(), link, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		s.do(func() { link.put(LinkEvent{Up: &rigLocal}) })
		r := &rig{t: t, e: s.engine, counter: 1 << 50}
		for range 10 {
			s.do(func() { // which has the engine's digest for itself
				p := r.advert(peerLow, 1, 0)
				link.held <- LinkEvent{Packet: &p}
			})
			<-time.After(3 * time.Second)
		}
		if st, _ := s.Status(); st.State != Backup || st.Counters.Transitions != 1 {
			t.Errorf("%v after %d transitions: %s", st.State, st.Counters.Transitions, st.Reason.Text())
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
