package hast_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/hookstest"
)

func mayLeave(s *side) error { return s.resource.(hooks.Leaver).MayLeave(s.t.Context()) }

func TestPlannedHandoverIsRefusedWhileSomethingIsDirty(t *testing.T) {
	a, b := serving(t)
	must(t, mayLeave(a))
	a.fault("dirty", "2097152")
	says(t, mayLeave(a), "2097152 bytes are dirty")
	says(t, a.demote(carp.ReasonHandover), "2097152 bytes are dirty", "stays primary")
	if !a.is("primary") {
		t.Fatal("the role was given away")
	}
	if err := b.promote(); err == nil {
		t.Fatal("the other node took it")
	}
	must(t, a.promote()) // nobody took over: it serves again
	if r := a.look(); r.Role != hooks.RolePromoted || r.Health != hooks.Healthy {
		t.Errorf("it is %v, %v: %s", r.Role, r.Health, r.Text)
	}
	a.fault("dirty", "")
	b.becomesWhole() // nobody has looked for a while, which counts as a loss of the connection
	must(t, a.demote(carp.ReasonHandover))
	must(t, b.promote())
}

func TestPlannedHandoverIsRefusedWithoutAConnection(t *testing.T) {
	a, b := serving(t)
	b.kill()
	hookstest.Within(t, "the loss to be seen", func() bool { return mayLeave(a) != nil })
	says(t, mayLeave(a), "not connected")
}

func TestYieldingNodeLetsGoWhateverIsDirty(t *testing.T) {
	a, _ := serving(t)
	a.fault("dirty", "2097152")
	must(t, a.demote(carp.ReasonBetterMaster))
	if !a.is("secondary") || a.mounted() {
		t.Error("it is not demoted")
	}
}

func TestCrashLosesNothingThatWasWritten(t *testing.T) {
	a, b := serving(t)
	f, err := os.Create(a.path("acknowledged"))
	must(t, err)
	_, err = f.WriteString("yes")
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	a.crash()
	must(t, b.promote())
	if text, err := os.ReadFile(b.path("acknowledged")); err != nil || string(text) != "yes" {
		t.Errorf("%q, %v", text, err)
	}
	must(t, os.WriteFile(b.path("later"), []byte("more"), 0o600))
	// The dead node comes back, and follows.
	a.start()
	must(t, a.demote(carp.ReasonLinkUp))
	hookstest.Within(t, "both copies to be equal", b.insync)
	a.becomesWhole()
	must(t, b.demote(carp.ReasonHandover))
	must(t, a.promote())
	if text, err := os.ReadFile(a.path("later")); err != nil || string(text) != "more" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestCopyThatIsBeingCompletedIsNotPromoted(t *testing.T) {
	a, b := serving(t)
	b.kill()
	hookstest.Within(t, "the loss to be seen", func() bool { return mayLeave(a) != nil })
	must(t, os.WriteFile(a.path("missed"), make([]byte, 1<<20), 0o600))
	run(t, "sync", "-f", a.config.Volume.Mount)
	a.fault("hold-sync", "yes")
	b.start()
	must(t, b.demote(carp.ReasonLinkUp))
	hookstest.Within(t, "the synchronisation to begin", func() bool { return mayLeave(a) != nil && a.connected() })
	if r := b.look(); r.Health != hooks.Unfit {
		t.Errorf("it is %v: %s", r.Health, r.Text)
	}
	a.crash()
	err := b.promote()
	says(t, err, "not known to be whole", b.config.State+".trust")
	if !hooks.Refused(err) {
		t.Error("it would be tried again")
	}
	if !b.is("secondary") {
		t.Error("the role was changed")
	}
}

// connected reports whether the primary has a connection.
func (s *side) connected() bool {
	out, _ := exec.Command(s.Program("hastctl"), "status", "test").Output()
	return strings.Contains(string(out), "complete")
}

func TestCopyOfWhichNothingIsKnownIsPromotedOnceWhenAnOperatorSaysSo(t *testing.T) {
	a, _ := newPair(t)
	says(t, a.promote(), "not known to be whole")
	a.trust()
	must(t, a.promote())
	if _, err := os.Stat(a.config.State + ".trust"); !os.IsNotExist(err) {
		t.Error("the word of the operator counts for ever")
	}
}

func TestNodeIsNotPromotedWhileTheOtherOneSaysItIsPrimary(t *testing.T) {
	_, b := serving(t)
	ctx := t.Context()
	err := b.resource.Promote(ctx, takeover())
	says(t, err, "is primary on the other node")
	if hooks.Refused(err) || !b.is("secondary") {
		t.Error("it must be tried again, and the role kept")
	}
}

func TestSplitBrainIsSeenBeforeTheNodesMeet(t *testing.T) {
	a, b := serving(t)
	must(t, os.WriteFile(a.Dir+"/cut", nil, 0o600)) // nobody can ask a
	b.kill()
	hookstest.Within(t, "the loss to be seen", func() bool { return mayLeave(a) != nil })
	must(t, os.WriteFile(a.path("alone-a"), nil, 0o600))
	run(t, "sync", "-f", a.config.Volume.Mount)
	a.crash()
	b.start()
	b.hastctl("role", "secondary", "test")
	b.trust()
	must(t, b.promote())
	must(t, os.WriteFile(b.path("alone-b"), nil, 0o600))
	run(t, "sync", "-f", b.config.Volume.Mount)
	must(t, os.Remove(a.Dir+"/cut"))
	a.start()
	a.hastctl("role", "secondary", "test")
	if r := b.look(); r.Health != hooks.Degraded {
		t.Errorf("the primary is %v: %s", r.Health, r.Text)
	}
	if r := a.look(); r.Health != hooks.Unfit {
		t.Errorf("the secondary is %v: %s", r.Health, r.Text)
	}
	b.crash()
	says(t, a.promote(), "split brain")
}
