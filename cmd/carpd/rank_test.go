package main_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/test/lab"
)

// ranks counts the threads of a process: of ordinary rank, in real time, and in real
// time with the rank of the loop.
func ranks(t *testing.T, pid int) (ordinary, working, loop int) {
	t.Helper()
	all, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		tid, _ := strconv.Atoi(e.Name())
		attr, err := unix.SchedGetAttr(tid, 0)
		switch {
		case err != nil: // it has ended
		case attr.Policy != unix.SCHED_RR:
			ordinary++
		case attr.Priority == 1:
			working++
		default:
			loop++
		}
	}
	return ordinary, working, loop
}

func TestThreadsAreInRealTimeAndHooksAreNot(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	file := filepath.Join(p.a.dir, "pid")
	gate := p.a.file("gate.sh", "#!/bin/sh\necho $$ >"+file+".new; mv "+file+".new "+file+"; exec sleep 30\n", 0o755)
	p.a.start(settings{more: []string{"hooks:", hook("after-up", gate)}})
	if !p.a.status().RealTime {
		t.Skip("real time is not allowed here")
	}
	lab.Eventually(t, takeover, "all threads to be in real time", func() bool {
		ordinary, working, loop := ranks(t, p.a.proc.Pid)
		return ordinary == 0 && working > 2 && loop == 1
	})
	p.a.promote()
	var text []byte
	lab.Eventually(t, soon, "the hook to run", func() (ok bool) {
		var err error
		text, err = os.ReadFile(file)
		return err == nil
	})
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if ordinary, working, loop := ranks(t, pid); ordinary != 1 || working+loop > 0 {
		t.Errorf("the hook has %d threads of ordinary rank and %d in real time", ordinary, working+loop)
	}
}

// A thread that never waits would have the machine for itself. The kernel tells the
// daemon of it by SIGXCPU.
func TestThreadThatComputesWithoutEndLosesItsRankAndTheAdvertsKeepTheirs(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.start(settings{})
	if !p.a.status().RealTime {
		t.Skip("real time is not allowed here")
	}
	lab.Eventually(t, takeover, "all threads to be in real time", func() bool {
		ordinary, _, loop := ranks(t, p.a.proc.Pid)
		return ordinary == 0 && loop == 1
	})
	var limit unix.Rlimit
	if err := unix.Prlimit(p.a.proc.Pid, unix.RLIMIT_RTTIME, nil, &limit); err != nil || limit.Cur != 2_000_000 {
		t.Errorf("the limit is %d us, want 2 s; %v", limit.Cur, err)
	}
	p.a.proc.Signal(unix.SIGXCPU)
	lab.Eventually(t, soon, "an alarm, and threads of ordinary rank", func() bool {
		ordinary, working, loop := ranks(t, p.a.proc.Pid)
		alarms := ""
		for _, a := range p.a.status().Alarms {
			alarms += a.Name
		}
		return strings.Contains(alarms, "real-time") && working == 0 && ordinary > 2 && loop == 1
	})
}
