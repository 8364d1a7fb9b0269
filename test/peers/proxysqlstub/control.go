package proxysqlstub

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// ControlProgram is the name under which the test binary plays the service manager for
// one node: start, stop and status, as a unit of Type=forking and Restart=no has them.
const ControlProgram = "proxysqlctl"

// stopTime is what a stop waits for before it kills.
const stopTime = 5 * time.Second

// notRunning is the exit code of the status of what is stopped.
const notRunning = 3

// control is `proxysqlctl VERB ARGS...`, where ARGS are those of the program.
func control(dir string, line []string) int {
	program := filepath.Join(dir, Program)
	if len(line) == 0 {
		line = []string{""}
	}
	running := len(processes(dir, "angel"))+len(processes(dir, "worker")) > 0
	switch line[0] {
	case "start":
		if running {
			return 0
		}
		cmd := exec.Command(program, line[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return 1
		}
		return 0
	case "stop":
		return endAll(dir)
	case "status":
		if running {
			return 0
		}
		return notRunning
	}
	fmt.Fprintf(os.Stderr, "%s: start, stop or status, not %q\n", ControlProgram, line[0])
	return 2
}

// endAll ends all processes of the unit, by force what does not end by itself.
func endAll(dir string) int {
	if endBy(dir, syscall.SIGTERM, stopTime) == nil || endBy(dir, syscall.SIGKILL, stopTime) == nil {
		return 0
	}
	return 1
}

// endBy signals each process that runs from a node's directory, until there is none: also
// one that has only just been made and says nothing of itself yet. A process that exits
// loses its name first and its sockets later: it is waited for by its number.
func endBy(dir string, sig syscall.Signal, limit time.Duration) error {
	told := map[int]string{} // when it was started
	return lab.Await(context.Background(), limit, func() bool {
		all, _ := filepath.Glob("/proc/[0-9]*") // the pattern is sound
		for _, path := range all {
			pid, _ := strconv.Atoi(filepath.Base(path)) // digits come first; 0 is nobody's
			if pid > 0 && runsFrom(dir, pid) {
				told[pid] = born(pid)
				_ = syscall.Kill(pid, sig) // an error says that it is gone
			}
		}
		maps.DeleteFunc(told, func(pid int, when string) bool { return when == "" || born(pid) != when })
		return len(told) == 0
	})
}

// processes lists those of a role, "angel" or "worker", that run from a node's directory.
func processes(dir, role string) (all []int) {
	names, _ := filepath.Glob(filepath.Join(dir, "pids", role+"-*")) // the pattern is sound
	for _, name := range names {
		_, number, _ := strings.Cut(filepath.Base(name), "-")
		pid, err := strconv.Atoi(number)
		if err == nil && runsFrom(dir, pid) {
			all = append(all, pid)
		}
	}
	return all
}

// runsFrom reports whether a process is one of this node's, and not another with its number.
func runsFrom(dir string, pid int) bool {
	return strings.HasPrefix(named(pid), filepath.Join(dir, Program)+"\x00")
}
