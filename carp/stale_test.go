package carp

import (
	"testing"
	"time"
)

// frozenLink is a link whose clock the test sets.
type frozenLink struct {
	now    Instant
	sent   int
	freeze time.Duration // in the middle of each Send
}

func (l *frozenLink) Now() Instant { return l.now }
func (l *frozenLink) Send(Frame) error {
	l.sent++
	l.now = l.now.Add(l.freeze)
	return nil
}
func (l *frozenLink) Events() <-chan LinkEvent { return nil }
func (l *frozenLink) Notify(func())            {}
func (l *frozenLink) Close() error             { return nil }

func TestAdvertDecidedBeforeAFreezeIsNotSentAfterIt(t *testing.T) {
	for _, test := range []struct {
		frozen time.Duration
		sent   int
		state  State
	}{{0, 1, Master}, {time.Second, 1, Master}, {10 * time.Second, 0, Backup}} {
		link := &frozenLink{now: Instant(time.Second)}
		s, err := NewSpeaker(rigConfig(skew(0)), link, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.apply(link.now, s.engine.LinkUp(link.now, rigLocal))
		link.now = link.now.Add(3 * time.Second)
		decided := link.now
		effects := s.engine.Tick(decided)
		link.now = link.now.Add(test.frozen)
		s.apply(decided, effects)
		if link.sent != test.sent || s.engine.state != test.state {
			t.Errorf("frozen for %v: %d frames sent, state %v", test.frozen, link.sent, s.engine.state)
		}
	}
}

func TestFreezeInTheMiddleOfASendYields(t *testing.T) {
	link := &frozenLink{now: Instant(time.Second)}
	s, err := NewSpeaker(rigConfig(skew(0)), link, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.feed(func(now Instant) Effects { return s.engine.LinkUp(now, rigLocal) })
	link.now = link.now.Add(3 * time.Second)
	s.feed(s.engine.Tick)
	if s.engine.state != Master {
		t.Fatalf("state %v", s.engine.state)
	}
	// The permit before this send lasts 1.9 s more: the addresses are gone when it
	// is over, and a new permit would not bring them back.
	link.now, link.freeze = link.now.Add(time.Second), 1950*time.Millisecond
	s.feed(s.engine.Tick)
	if s.engine.state != Backup {
		t.Errorf("state %v: a master without its addresses", s.engine.state)
	}
}
