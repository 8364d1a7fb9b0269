package carp

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// inboxLink is a link in a bubble whose inbox the test fills.
type inboxLink struct {
	events chan LinkEvent
	began  time.Time
}

func (l *inboxLink) Now() Instant             { return Instant(time.Second + time.Since(l.began)) }
func (l *inboxLink) Send(Frame) error         { return nil }
func (l *inboxLink) Events() <-chan LinkEvent { return l.events }
func (l *inboxLink) Close() error             { return nil }

// A loop that was held up finds its timer due and an advert in the inbox. Which of
// the two it meets first is a matter of luck, so this is done many times.
func TestAdvertsThatCameInTimeCountHoweverLateTheTimerIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		link := &inboxLink{make(chan LinkEvent, 64), time.Now()}
		s, err := NewSpeaker(rigConfig(), link, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		local := rigLocal
		link.events <- LinkEvent{Up: &local}
		r := &rig{t: t, e: s.engine, counter: 1 << 50}
		for range 40 {
			s.do(func() {
				p := r.advert(peerLow, 1, 0)
				link.events <- LinkEvent{Packet: &p}
				<-time.After(4 * time.Second)
			})
			synctest.Wait()
			if st, _ := s.Status(); st.State != Backup || st.Counters.Transitions != 1 {
				t.Fatalf("%v after %d transitions: %s", st.State, st.Counters.Transitions, st.Reason.Text())
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
