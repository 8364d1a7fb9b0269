package carp

import (
	"slices"
	"testing"
	"time"
)

// Read makes bench a PacketReader.
func (b *bench) Read() {
	if b.onRead != nil {
		b.onRead()
	}
}

// inlineLink is a benchLink whose packets the waiter reads.
type inlineLink struct {
	*benchLink
	hand  func(*Packet)
	polls int
	left  func() bool // whether more waits after a Poll
}

func (l *inlineLink) Inline(w Waiter, f func(*Packet)) bool {
	if w != Waiter(l.b) {
		return false
	}
	l.hand = f
	return true
}

func (l *inlineLink) Poll() (more bool) {
	l.polls++
	return l.left != nil && l.left()
}

// addInline puts a speaker whose link is read by the waiter into the loop, up.
func (b *bench) addInline(name string) (*Speaker, *inlineLink) {
	b.t.Helper()
	link := &inlineLink{benchLink: &benchLink{b: b, name: name, events: make(chan LinkEvent, 1024)}}
	s := b.enter(link, link.benchLink)
	b.settle()
	return s, link
}

func TestPacketThatTheWaiterReadsIsHeardAtOnceAndMovesTheDeadline(t *testing.T) {
	b := newLoopBench(t)
	s, link := b.addInline("a")
	b.add("b")
	b.settle()
	before := s.queued
	b.onWait = func() {
		b.now, b.woken = b.now.Add(time.Millisecond), true
		link.hand(advertOf(s.engine, 1<<50))
		b.onWait = nil
	}
	b.wakes = 0
	b.round()
	if s.engine.counters.Received != 1 {
		t.Fatalf("%d received", s.engine.counters.Received)
	}
	if s.queued == before || s.queued != s.deadline {
		t.Errorf("the loop knows %v, the speaker %v", s.queued, s.deadline)
	}
	if b.wakes > 0 || len(b.loop.ready) > 0 {
		t.Errorf("%d wakes, %d on the list: the loop was awake", b.wakes, len(b.loop.ready))
	}
	p := advertOf(s.engine, 1<<51)
	if n := testing.AllocsPerRun(100, func() { link.hand(p) }); n > 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

// Whoever asks for the status again and again must not make the node deaf.
func TestCallsWithoutEndKeepNoPacketFromBeingRead(t *testing.T) {
	b := newLoopBench(t)
	s, link := b.addInline("a")
	b.onWait = func() { t.Error("the loop rests though calls wait") }
	reads := 0
	b.onRead = func() {
		reads++
		link.hand(advertOf(s.engine, uint64(reads)<<40))
	}
	for range 50 {
		s.post(func() {})
		b.round()
	}
	if reads != 50 || s.engine.counters.Received != 50 {
		t.Errorf("%d reads, %d adverts in 50 turns", reads, s.engine.counters.Received)
	}
}

func TestPacketForASpeakerThatHasLeftIsDropped(t *testing.T) {
	b := newLoopBench(t)
	s, link := b.addInline("a")
	b.add("b")
	b.settle()
	s.post(s.stop)
	b.settle()
	s.mailbox.take() // as its worker does
	s.mailbox.done()
	link.put(LinkEvent{Lost: 1})
	b.settle()
	<-s.ended
	link.hand(advertOf(s.engine, 1<<50))
	if slices.Contains(b.loop.due, s) || len(b.loop.ready) > 0 {
		t.Error("it is in the loop again")
	}
}

// All that came before a timer counts before it, and yet a flood without end does
// not keep the timer from firing.
func TestSocketIsEmptiedBeforeAMasterIsTakenForDead(t *testing.T) {
	b := newLoopBench(t)
	s, link := b.addInline("a")
	junk := 70
	link.left = func() bool {
		if junk--; junk == 0 {
			link.hand(advertOf(s.engine, 1<<50)) // the master's, behind the junk
		}
		return junk > 0
	}
	b.now = s.deadline
	b.loop.fire()
	if s.engine.state != Backup {
		t.Errorf("state %v: the master's advert waited behind junk", s.engine.state)
	}
	link.left = func() bool { return true }
	link.polls, b.now = 0, s.deadline
	b.loop.fire()
	if s.engine.state != Master || link.polls != maxPolls {
		t.Errorf("state %v after %d polls, want MASTER after %d", s.engine.state, link.polls, maxPolls)
	}
}
