package main_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/carpd/carpd/cmd/daemon/api"
)

// Whoever takes over on a bow-out takes the resource for let go. Nobody has let it go where
// the daemon is gone and the guardian acts.
func TestNobodyIsCalledInForADeadDaemonThatHeldAResource(t *testing.T) {
	t.Parallel()
	p, c := shareThing(t, nil)
	p.a.crash()
	c.awaitDiary("b promoted")
	if d := c.diary(); d[len(d)-2] != "b TWO PRIMARIES state-a" || d[len(d)-3] != "b promote master-timed-out" {
		t.Errorf("b took over so: %q", d)
	}
}

// A promotion that failed and cannot be undone: the other one is not called in, and finds
// out by itself that nobody speaks.
func TestNoBowOutCallsSomebodyInWhileAFailedPromotionIsNotUndone(t *testing.T) {
	t.Parallel()
	p, c := shareThing(t, nil)
	c.set("fail-promote-b", "")
	c.set("fail-demote-b", "")
	seq := p.b.seq()
	p.a.post("/v1/handover", map[string]string{}, nil)
	p.b.awaitEvent(seq, "transition", "release-failed")
	c.awaitDiary("a promoted")
	if got := strings.Join(c.diary(), ", "); !strings.Contains(got, "a promote master-timed-out") {
		t.Errorf("it went %s", got)
	}
	if p.b.alarm("not-let-go") == "" {
		t.Error("b has no alarm")
	}
}

func TestAnOperatorDoesNotTakeTheRoleFromAHolderByAnAdvert(t *testing.T) {
	t.Parallel()
	p, c := shareThing(t, nil)
	if e := p.b.refused("/v1/state", api.StateRequest{State: "master"}, http.StatusConflict); !strings.Contains(e.Error, "192.0.2.1") || !strings.Contains(e.Hint, "handover") {
		t.Errorf("it was said: %+v", e)
	}
	p.a.stop()
	p.b.await("MASTER")
	c.awaitDiary("b promoted")
	c.onePrimary()
}
