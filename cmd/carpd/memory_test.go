package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/carpd/carpd/test/lab"
)

// locked returns how many KiB of a process are kept in memory, and how many it uses.
func locked(t *testing.T, pid int) (kept, used int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fmt.Sscanf(line, "VmLck: %d kB", &kept)
		fmt.Sscanf(line, "VmRSS: %d kB", &used)
	}
	return kept, used
}

func TestDaemonIsKeptInMemoryAndTakesNoMoreOfItForThat(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.start(settings{})
	p.a.promote()
	kept, used := locked(t, p.a.proc.Pid)
	if kept == 0 && strings.Contains(p.a.proc.Output(), "LimitMEMLOCK=infinity") {
		t.Skip("not allowed here: the log says so")
	}
	if kept < used {
		t.Errorf("%d KiB are locked of %d in use", kept, used)
	}
	if most := 64 << 10; used > most && !raceDetector {
		t.Errorf("%d KiB in use, want less than %d: what was never used is in memory, too", used, most)
	}
}

// A limit that is large enough for now is none to live with: a heap that grows into
// it ends the process.
func TestDaemonThatMayNotLockItsMemorySaysSoOnceAndRuns(t *testing.T) {
	for _, limit := range []string{"0", "65536", "8388608"} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.a.configure(settings{})
			run := p.a.command("run", "--config", p.a.config())
			p.a.startWith(exec.Command("prlimit", append([]string{"--memlock=" + limit, "setpriv", "--bounding-set=-ipc_lock,-sys_resource", "--"}, run.Args...)...))
			p.a.promote()
			out := p.a.proc.Output()
			if strings.Count(out, "LimitMEMLOCK=infinity") != 1 {
				t.Errorf("said %d times: %s", strings.Count(out, "LimitMEMLOCK=infinity"), out)
			}
			lab.Eventually(t, soon, "the status", func() bool { return p.a.instance().State == "MASTER" })
		})
	}
}
