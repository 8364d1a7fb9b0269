package main_test

import (
	"testing"
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
