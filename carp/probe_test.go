package carp

import (
	"testing"
	"time"
)

// An answer to a clock probe is no advert: whoever hears it does not count from it.
func TestNoCompanionMessageExtendsAPermit(t *testing.T) {
	g := newGroup(t, func(c *Config) { c.AdvSkew, c.ReleaseBudget = 0, time.Minute }, holder)
	g.run(10 * time.Second)
	a := g.nodes[0].e
	for _, releasing := range []bool{false, true} {
		if releasing {
			a.clear()
			a.release(g.now, Backup, ReasonHandover)
			a.finish()
		}
		before := a.lastSent
		g.now = g.now.Add(500 * time.Millisecond)
		a.clear()
		a.say(g.now, TypeClockAnswer, a.claim().timing, make([]byte, answerLen))
		a.finish()
		if e := a.Sent(g.now); e.Permit != (Permit{}) || a.lastSent != before {
			t.Errorf("%v: the permit %+v was given for an answer", a.state, e.Permit)
		}
	}
}

// While it lets go a master still has the addresses: who asks before it promotes has to
// hear that, and an advert.
func TestMasterThatLetsGoAnswersProbesAsOne(t *testing.T) {
	g := newGroup(t, func(c *Config) { c.AdvSkew, c.ReleaseBudget = 0, time.Minute }, holder)
	g.run(10 * time.Second)
	a, b := g.nodes[0], g.nodes[1]
	a.e.clear()
	a.e.release(g.now, Backup, ReasonHandover)
	a.e.finish()
	g.now = g.now.Add(700 * time.Millisecond)
	b.e.clear()
	b.e.ask(g.now)
	answers := g.tell(b, a, b.e.finish().Send)
	var types []MessageType
	answered := byte(0)
	for _, f := range answers[0].Send {
		kind := MessageType(f.Payload[0] & 0xf)
		if types = append(types, kind); kind == TypeClockAnswer {
			answered = f.Payload[HeaderLen+answerLen-1]
		}
	}
	if len(types) == 0 || types[0] != TypeAdvert || answered != answeredByMaster {
		t.Errorf("sent %v, answered %d", types, answered)
	}
}

// Recordings of probes must not use up the answers that a living node waits for: its
// adverts are refused until it has one.
func TestRecordedProbesDoNotKeepALivingOneFromItsAnswer(t *testing.T) {
	g := newGroup(t, func(c *Config) { c.AdvSkew = 0 }, func(c *Config) { holder(c); c.SavedClock = 1 })
	a, b := g.nodes[0], g.nodes[1]
	g.run(10 * time.Second)
	b.e.clear()
	b.e.ask(g.now)
	recorded := b.e.finish().Send
	g.tell(b, a, recorded)
	// Two hours passed for the master only.
	a.e.guard.clock.offset += 2 * time.Hour
	g.now = g.now.Add(time.Minute)
	for range 3 {
		g.now = g.now.Add(time.Second)
		g.tell(b, a, recorded)
		b.e.clear()
		b.e.ask(g.now)
		answers := a.e.guard.answers
		g.tell(b, a, b.e.finish().Send)
		if a.e.guard.answers == answers {
			t.Error("a living node's probe was not answered, for the sake of a recorded one")
		}
		answers = a.e.guard.answers
		for range 100 { // but recordings are answered no more often than they were
			g.tell(b, a, recorded)
		}
		if n := a.e.guard.answers - answers; n > 1 {
			t.Errorf("%d answers to recordings", n)
		}
	}
}
