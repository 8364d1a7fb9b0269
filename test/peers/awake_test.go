package peers_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	// What is built below, so that a change of it is not met with a cached result.
	_ "github.com/carpd/carpd/cmd/daemon"
	_ "github.com/carpd/carpd/cmd/daemon/standard"
	"github.com/carpd/carpd/test/lab"
)

// Timers of a second or less mean little where nothing runs for that long.
const (
	stoodStill = 100 * time.Millisecond // what a failed test is not blamed for
	attempts   = 3
)

// awake runs body, and again if it failed while the machine stood still, which no
// speaker can help. A failure on a machine that runs counts at once.
func awake(t *testing.T, body func(lab.TB)) {
	t.Helper()
	for n := 1; ; n++ {
		stop := pulse()
		err := lab.Run(t.Name(), func(line string) { t.Log(line) }, body)
		still := stop()
		switch {
		case err == nil:
			return
		case errors.Is(err, lab.ErrSkipped):
			t.Skip(err)
		case still < stoodStill || n == attempts:
			t.Fatalf("attempt %d, in which a ticker of 10 ms in this process stood still for up to %v: %v", n, still, err)
		}
		t.Logf("once more, since the machine stood still for %v: %v", still, err)
	}
}

// pulse measures until stop is called how long nothing ran in this process: the
// longest wait for a ticker of 10 ms.
func pulse() (stop func() time.Duration) {
	done, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		last, gap := time.Now(), time.Duration(0)
		for {
			select {
			case <-tick.C:
				gap = max(gap, time.Since(last))
				last = time.Now()
			case <-done:
				longest <- gap
				return
			}
		}
	}()
	return func() time.Duration {
		close(done)
		return <-longest
	}
}

// build builds carpd and returns its path.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "carpd")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/carpd/carpd/cmd/carpd").CombinedOutput(); err != nil {
		t.Fatalf("build carpd: %v\n%s", err, out)
	}
	return binary
}
