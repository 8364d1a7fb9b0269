package hooks

import (
	"path/filepath"
	"testing"
)

// A reload makes a new Runner while the one before may still promote: what a resource should
// be is what was done to it last, by either, also where the journal could not say so.
func TestARunnerAfterAReloadKnowsWhatTheOneBeforeWishes(t *testing.T) {
	th := newThing("db")
	journal, err := OpenJournal(filepath.Join(t.TempDir(), "journal"), "boot")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Journal: journal}
	before, after := runner(t, "", o, th.resource()), runner(t, "", o, th.resource())
	wished := func(r *Runner, want Role) {
		t.Helper()
		if st := r.Status()[0]; st.Wished != want || st.Report.Role != RoleUnknown && st.Role != want {
			t.Errorf("it should be %v, and status says %v", want, st.Wished)
		}
	}
	wished(after, RoleDemoted)
	if err := before.Run(t.Context(), BeforeUp, withEpoch(1)); err != nil {
		t.Fatal(err)
	}
	wished(after, RolePromoted)
	if err := journal.Close(); err != nil { // as one on a full disk: nothing can be written
		t.Fatal(err)
	}
	if err := before.Demote(t.Context(), withEpoch(1)); err != nil {
		t.Fatal(err)
	}
	wished(after, RoleDemoted)
	wished(runner(t, "", o, th.resource()), RoleDemoted)
}
