package carp

import (
	"slices"
	"testing"
	"time"
)

// bench is a loop without a goroutine: the test is its clock and its waiter, and
// its links write down who was served.
type bench struct {
	t      *testing.T
	loop   *Loop
	now    Instant
	served []string
	sent   []Instant
	waits  int
	wakes  int
	woken  bool   // the present Wait does not last
	onWait func() // something that happens during Wait
	onRead func() // and during Read
}

type benchLink struct {
	b      *bench
	name   string
	events chan LinkEvent
	notify func()
}

func (l *benchLink) Now() Instant {
	l.b.served = append(l.b.served, l.name)
	return l.b.now
}
func (l *benchLink) Send(Frame) error         { l.b.sent = append(l.b.sent, l.b.now); return nil }
func (l *benchLink) Events() <-chan LinkEvent { return l.events }
func (l *benchLink) Notify(f func())          { l.notify = f }
func (l *benchLink) Close() error             { return nil }

func (l *benchLink) put(ev LinkEvent) {
	l.events <- ev
	l.notify()
}

func (b *bench) Now() Instant { return b.now }
func (b *bench) Wake()        { b.wakes++ }
func (b *bench) Wait(until Instant) {
	b.waits++
	if b.onWait != nil {
		b.onWait()
	}
	if !b.woken {
		b.now = max(b.now, until)
	}
	b.woken = false
}

func newLoopBench(t *testing.T) *bench {
	b := &bench{t: t, now: Instant(time.Second)}
	b.loop = NewLoop(b)
	return b
}

// add puts a speaker into the loop, with its link up.
func (b *bench) add(name string, set ...func(*Config)) (*Speaker, *benchLink) {
	b.t.Helper()
	link := &benchLink{b: b, name: name, events: make(chan LinkEvent, 1024)}
	return b.enter(link, link, set...), link
}

// enter does so with a link that is made of another.
func (b *bench) enter(link Link, of *benchLink, set ...func(*Config)) *Speaker {
	b.t.Helper()
	s, err := NewSpeaker(rigConfig(set...), link, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.loop.join(); err != nil {
		b.t.Fatal(err)
	}
	s.events = of.events
	s.enter(b.loop)
	of.put(LinkEvent{Up: &rigLocal})
	return s
}

// round is one passage of Loop.run.
func (b *bench) round() {
	if !b.loop.take() {
		b.t.Fatal("the loop has ended")
	}
	b.loop.serve()
}

// settle goes on until nobody is ready, without waiting.
func (b *bench) settle() {
	for len(b.loop.ready) > 0 {
		b.round()
	}
	b.served = nil
}

func advertOf(e *Engine, counter uint64) *Packet {
	a := NewAdvert(e.cfg.VHID, 1, 0)
	a.Counter, a.Digest = counter, e.secret.send.Sum(counter)
	return &Packet{Src: peerLow, Dst: Group(IPv4), TTL: 255, Broadcast: true, Payload: a.Append(nil)}
}

func TestAFloodedSpeakerWaitsForItsTurnLikeOthers(t *testing.T) {
	b := newLoopBench(t)
	flooded, inbox := b.add("flooded")
	_, quiet := b.add("quiet")
	b.settle()
	for n := range 500 {
		inbox.put(LinkEvent{Packet: advertOf(flooded.engine, uint64(n+1)<<40)})
	}
	quiet.put(LinkEvent{Down: true})
	b.round()
	if n := slices.Index(b.served, "quiet"); n < 0 || n > maxTurn+2 {
		t.Errorf("the quiet one comes after %d calls for the flooded one", n)
	}
	if left := len(inbox.events); left != 500-maxTurn {
		t.Errorf("%d of 500 left after one turn of %d", left, maxTurn)
	}
	for range 10 {
		if len(inbox.events) > 0 {
			b.round()
		}
	}
	if len(inbox.events) > 0 || b.waits > 0 {
		t.Errorf("%d were forgotten, %d waits in between", len(inbox.events), b.waits)
	}
}

func TestTimersThatAreDueComeBeforeTheNextTurn(t *testing.T) {
	b := newLoopBench(t)
	due, _ := b.add("due")
	var inboxes []*benchLink
	for range 3 {
		_, link := b.add("ready")
		inboxes = append(inboxes, link)
	}
	b.settle()
	for _, link := range inboxes {
		link.put(LinkEvent{Up: &rigLocal})
	}
	b.now = due.deadline
	b.round()
	if b.served[0] != "due" {
		t.Errorf("served in the order %q", b.served)
	}
	if due.engine.state != Master {
		t.Errorf("state %v", due.engine.state)
	}
}

func TestPacketsThatWaitCountBeforeATimerOfTheirSpeaker(t *testing.T) {
	b := newLoopBench(t)
	s, link := b.add("a")
	b.settle()
	b.now = s.deadline.Add(time.Second) // late
	link.put(LinkEvent{Packet: advertOf(s.engine, 1<<50)})
	b.loop.fire()
	if s.engine.counters.Transitions != 1 {
		t.Errorf("state %v after %d transitions", s.engine.state, s.engine.counters.Transitions)
	}
}

func TestSpeakerThatHasLeftIsNeverServedAgain(t *testing.T) {
	b := newLoopBench(t)
	s, link := b.add("a")
	b.add("b")
	b.settle()
	s.engine.arm(timerHeal, b.now.Add(time.Hour)) // which goes on in INIT
	s.post(s.stop)
	b.settle()
	s.mailbox.take() // as its worker does
	s.mailbox.done()
	link.put(LinkEvent{Lost: 1})
	b.settle()
	<-s.ended
	if len(b.loop.due) != 1 || b.loop.due[0] == s {
		t.Errorf("%d have a deadline", len(b.loop.due))
	}
	link.put(LinkEvent{Lost: 1}) // before Run takes its Notify back
	s.do(func() { t.Error("called") })
	b.settle()
	if len(link.events) != 1 {
		t.Error("it was served")
	}
}

func TestDeadlinesAreBunchedAndNoneIsLaterThanASlot(t *testing.T) {
	b := newLoopBench(t)
	for range 50 {
		b.now = b.now.Add(7 * time.Microsecond) // another phase each
		b.add("one", func(c *Config) { c.AdvBase, c.AdvSkew = 0, 3 })
		b.settle()
	}
	b.run(time.Second) // all are masters
	b.waits, b.sent = 0, nil
	b.run(time.Second)
	// Each at 3/256 s and up to a slot more.
	if most, least := 50*86, 50*83; len(b.sent) > most || len(b.sent) < least {
		t.Errorf("%d adverts in a second, want %d to %d", len(b.sent), least, most)
	}
	if b.waits > 2*86 {
		t.Errorf("woke up %d times for 86 rounds, in which all are within two slots", b.waits)
	}
}

func TestOneSpeakerAloneIsNotKeptWaiting(t *testing.T) {
	b := newLoopBench(t)
	s, _ := b.add("alone", skew(0))
	b.settle()
	for range 10 {
		at := s.deadline
		for s.deadline == at {
			b.round()
		}
		if b.now != at {
			t.Fatalf("served %v late", b.now.Sub(at))
		}
	}
}

func TestPacketsOfASlotAreTakenInTogether(t *testing.T) {
	b := newLoopBench(t)
	_, one := b.add("one")
	_, two := b.add("two")
	b.settle()
	start := b.now
	b.onWait = func() {
		if b.waits == 1 {
			one.put(LinkEvent{Up: &rigLocal})
			b.now = start.Add(loopSlot / 2)
			b.woken = true
		} else if b.waits == 2 {
			two.put(LinkEvent{Up: &rigLocal})
		}
	}
	b.waits = 0
	b.round()
	if b.waits != 2 || b.wakes != 1 || len(one.events)+len(two.events) > 0 {
		t.Errorf("%d waits, %d wakes, %d and %d events left", b.waits, b.wakes, len(one.events), len(two.events))
	}
	if late := b.now.Sub(start.Add(loopSlot / 2)); late != loopSlot {
		t.Errorf("the first packet waited %v, want %v", late, loopSlot)
	}
}

// run lets time pass.
func (b *bench) run(d time.Duration) {
	for end := b.now.Add(d); b.now < end; {
		b.round()
	}
}

func TestOneWakeForManyEvents(t *testing.T) {
	b := newLoopBench(t)
	s, link := b.add("a")
	_, other := b.add("b")
	b.settle()
	b.loop.asleep = true // as in Wait
	for n := range 20 {
		link.put(LinkEvent{Packet: advertOf(s.engine, uint64(n+1)<<40)})
		other.put(LinkEvent{Up: &rigLocal})
	}
	if b.wakes != 1 {
		t.Errorf("%d wakes", b.wakes)
	}
	if len(b.loop.ready) != 2 {
		t.Errorf("%d on the list", len(b.loop.ready))
	}
}

func TestSteadyLoopDoesNotAllocate(t *testing.T) {
	b := newLoopBench(t)
	for range 8 {
		b.add("master", skew(0))
	}
	backup, inbox := b.add("backup")
	b.settle()
	b.served, b.sent = make([]string, 0, 1<<16), make([]Instant, 0, 1<<16)
	var packets []LinkEvent
	for n := range 1200 {
		packets = append(packets, LinkEvent{Packet: advertOf(backup.engine, uint64(n+1)<<30)})
	}
	step := func() {
		b.now = b.now.Add(time.Second / 10)
		inbox.put(packets[0])
		packets = packets[1:]
		b.round()
	}
	for range 40 {
		step()
	}
	if n := testing.AllocsPerRun(1000, step); n > 0 {
		t.Errorf("%v allocations a round", n)
	}
	if backup.engine.state != Backup || backup.engine.counters.Received < 1000 || len(b.sent) < 500 {
		t.Errorf("%v, %d received, %d sent", backup.engine.state, backup.engine.counters.Received, len(b.sent))
	}
}
