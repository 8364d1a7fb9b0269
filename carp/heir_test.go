package carp

import (
	"bytes"
	"testing"
	"time"
)

// tell delivers frames of one member to another.
func (g *group) tell(from, to *member, frames []Frame) (answers []Effects) {
	for _, f := range frames {
		e := to.e.Receive(g.now, Packet{Src: from.local.IPv4, Dst: f.Dst, TTL: 255, Broadcast: true, Payload: bytes.Clone(f.Payload)})
		to.drops[e.Drop]++
		answers = append(answers, e)
	}
	return answers
}

func TestTwoThatAskAtOnceAreNeverMasterTogether(t *testing.T) {
	for _, first := range []int{1, 2} {
		g := newGroup(t, worst, better, better)
		g.nodes[1].dead, g.nodes[2].dead = true, true
		g.run(10 * time.Second)
		g.start(g.nodes[first])
		g.start(g.nodes[3-first])
		g.alone(time.Minute)
		if g.nodes[first].e.state == Master == (g.nodes[3-first].e.state == Master) {
			t.Errorf("%v and %v", g.nodes[1].e.state, g.nodes[2].e.state)
		}
	}
}

// Who asked once for a role that then went another way is not the heir of the next.
func TestHeirIsForgottenWithTheRelease(t *testing.T) {
	g := lateGroup(t)
	a := g.nodes[0].e
	a.plan.heir = 2
	g.run(3 * time.Second)
	g.want(Backup, Master, Backup)
	a.plan.heir = 3 // of a release that ended otherwise
	g.nodes[1].dead = true
	g.run(10 * time.Second)
	g.want(Master, Master, Backup) // the second one is dead
	a.release(g.now, Backup, ReasonHandover)
	if a.plan.heir != 0 {
		t.Errorf("the heir of an earlier release is %d", a.plan.heir)
	}
}

// A node that stood still hears what was asked for again and again.
func TestManyRequestsAtOnceAreAnsweredOnce(t *testing.T) {
	for _, guarding := range []bool{false, true} {
		g := waitingGroup(t)
		a, b := g.nodes[0], g.nodes[1]
		a.e.asking = guarding
		b.deaf, b.mute = true, true
		g.start(b)
		sent := a.e.sent
		for range 40 {
			g.now = g.now.Add(time.Millisecond)
			b.e.clear()
			b.e.tellHandover(g.now, b.e.timing(), handover{step: handoverAsk, to: 1})
			g.tell(b, a, b.e.finish().Send)
		}
		if n := a.e.sent - sent; n > 4 {
			t.Errorf("40 requests have set off %d messages (guard asked: %v)", n, guarding)
		}
	}
}
