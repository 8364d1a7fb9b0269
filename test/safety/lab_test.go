package safety_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/safety"
)

func TestMain(m *testing.M) { lab.Main(m) }

// carpd builds the daemon.
func carpd(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "carpd")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/carpd/carpd/cmd/carpd").CombinedOutput(); err != nil {
		t.Fatalf("build carpd: %v\n%s", err, out)
	}
	return path
}

// All daemons are killed once: what the others do is known (their figures are in the
// documentation), so that they are the measure of the measuring.
func TestAKilledDaemonLeavesTwoHoldersUnlessItIsOurs(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	plan := safety.Plan{Rows: []string{"kill"}, Runs: 1, Parallel: 3, Seed: 1, Daemons: []safety.Daemon{safety.Carpd(carpd(t))}}
	for _, make := range []func() (safety.Daemon, error){
		func() (safety.Daemon, error) { return safety.Keepalived("keepalived", time.Second) }, safety.Ucarp,
	} {
		switch d, err := make(); {
		case err == nil:
			plan.Daemons = append(plan.Daemons, d)
		case os.Getenv("CARPD_LAB") == "required":
			t.Error(err)
		default:
			t.Log(err)
		}
	}
	r, err := safety.Measure(t.Context(), &plan)
	if errors.Is(err, lab.ErrSkipped) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + r.Markdown())
	for _, run := range r.Runs {
		switch {
		case run.Error != "":
			t.Errorf("%s: %s", run.Daemon, run.Error)
		case run.Daemon == "carpd" && run.Two > 0:
			t.Errorf("two hosts answered for carpd's address for %v ms", run.Two)
		case run.Daemon == "carpd" && (run.None < 50 || run.Outage < 50 || run.OutageOpen):
			t.Errorf("carpd's address was nobody's for %v ms, and its client without answer for %v ms: too good, or for ever", run.None, run.Outage)
		case run.Daemon != "carpd" && !run.TwoOpen:
			t.Errorf("%s left no second holder (%v ms): it leaves the address up", run.Daemon, run.Two)
		case run.Takeovers != 1 || run.False != 0:
			t.Errorf("%s: %d takeovers, %d false; want 1 and 0", run.Daemon, run.Takeovers, run.False)
		}
	}
}
