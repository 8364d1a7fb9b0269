package carp

import (
	"bytes"
	"testing"
	"time"
)

func TestCloneGoesItsOwnWayAndDecidesAlike(t *testing.T) {
	r := newRig(t)
	r.run(2 * time.Second)
	c := r.e.Clone()
	if !bytes.Equal(c.AppendState(nil, r.now), r.e.AppendState(nil, r.now)) {
		t.Fatal("a clone is in another state")
	}
	r.hear(peerLow, 1, 0)
	if bytes.Equal(c.AppendState(nil, r.now), r.e.AppendState(nil, r.now)) {
		t.Error("an advert left no mark in the state")
	}
	down := Instant(time.Second).Add(masterDown(r.e.cfg.timing(), timing{}))
	if got := c.Tick(down); got.Change == nil || got.Change.To != Master {
		t.Errorf("the clone did not time out: %+v", got)
	}
	if r.e.state != Backup {
		t.Errorf("what the clone did changed the original to %v", r.e.state)
	}
}

func TestStateIsTheSameAtAnotherTime(t *testing.T) {
	early := newRig(t)
	later := early.now.Add(time.Hour)
	fresh, err := NewEngine(rigConfig())
	if err != nil {
		t.Fatal(err)
	}
	fresh.LinkUp(later, rigLocal)
	if !bytes.Equal(early.e.AppendState(nil, early.now), fresh.AppendState(nil, later)) {
		t.Error("the same state an hour later has other bytes")
	}
}
