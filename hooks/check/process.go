package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/carpd/carpd/hooks"
)

func init() { hooks.RegisterMonitor("process", NewProcess) }

const (
	// maxWatched is how many processes of one name or unit are waited for.
	maxWatched = 64
	// maxProcesses bounds a search through all processes.
	maxProcesses = 1 << 16
	// nameLen is what the kernel keeps of the name of a process.
	nameLen = 15
)

// ProcessConfig is the configuration of kind process: one of pidfile, pid and unit, or
// name alone. name beside another one must be right too.
type ProcessConfig struct {
	Pidfile string `yaml:"pidfile"` // a file whose first line is the number
	PID     int    `yaml:"pid"`     // the number
	Unit    string `yaml:"unit"`    // a unit of systemd, by the cgroup of its processes
	Name    string `yaml:"name"`    // what `ps -o comm` shows; of a longer one its first 15 bytes
}

// Process is unfit while no such process runs. One that has ended and that its parent has
// not waited for does not run.
type Process struct {
	c     ProcessConfig
	alive deaths // those of the last look
}

// NewProcess checks the configuration.
func NewProcess(c ProcessConfig) (hooks.Monitor, error) {
	var f faults
	ways := given(map[string]bool{"pidfile": c.Pidfile != "", "pid": c.PID != 0, "unit": c.Unit != ""})
	f.add(len(ways) == 0 && c.Name == "", "give pidfile, unit, name or pid")
	f.add(len(ways) > 1, "give one of pidfile, unit and pid, not %d", len(ways))
	f.add(c.Pidfile != "" && !filepath.IsAbs(c.Pidfile), "pidfile: %q is no absolute path", c.Pidfile)
	f.add(c.PID < 0, "pid %d: use more than 0", c.PID)
	f.add(c.Unit != "" && (!strings.Contains(c.Unit, ".") || strings.ContainsAny(c.Unit, "/\n")), "unit %q: write its whole name, such as haproxy.service", c.Unit)
	f.add(!singleLine(c.Name) || strings.Contains(c.Name, "/"), "name %q: the name of the program without its path", c.Name)
	if err := f.err(); err != nil {
		return nil, err
	}
	c.Name = c.Name[:min(len(c.Name), nameLen)]
	return &Process{c: c}, nil
}

// Monitor implements hooks.Monitor.
func (m *Process) Monitor(ctx context.Context) (hooks.Report, error) {
	report, running, err := m.look(ctx)
	if fault := m.alive.watch(running); fault != nil {
		hooks.Logger(ctx).Warn("the end of a process is noticed in the interval only", "err", fault)
	}
	return report, err
}

func (m *Process) look(ctx context.Context) (r hooks.Report, running []int, err error) {
	switch {
	case m.c.Pidfile != "":
		pid, err := readPidfile(m.c.Pidfile)
		if errors.Is(err, fs.ErrNotExist) {
			r, err = unfit("there is no %s", m.c.Pidfile)
			return r, nil, err
		}
		if err != nil {
			return r, nil, err
		}
		return m.one(pid, fmt.Sprintf("%s (%d)", m.c.Pidfile, pid))
	case m.c.PID != 0:
		return m.one(m.c.PID, fmt.Sprintf("process %d", m.c.PID))
	}
	running, err = search(ctx, m.matches)
	what := m.c.Name
	if m.c.Unit != "" {
		what = m.c.Unit
	}
	switch {
	case err != nil:
	case len(running) == 0:
		r, err = unfit("no process of %s runs", what)
	case len(running) == 1:
		r, err = fine("%s runs: process %d", what, running[0])
	default:
		r, err = fine("%s runs: %d processes", what, len(running))
	}
	return r, running, err
}

// one says how the process of a known number is.
func (m *Process) one(pid int, what string) (r hooks.Report, running []int, err error) {
	name, runs := nameOf(pid)
	switch {
	case !runs:
		r, err = unfit("%s does not run", what)
	case m.c.Name != "" && name != m.c.Name:
		r, err = unfit("%s is another program: %q", what, name)
	default:
		r, err = fine("%s runs", what)
		running = []int{pid}
	}
	return r, running, err
}

// matches reports whether a running process is of the unit or has the name.
func (m *Process) matches(pid int) bool {
	if m.c.Name != "" {
		if name, runs := nameOf(pid); !runs || name != m.c.Name {
			return false
		}
	}
	if m.c.Unit == "" {
		return true
	}
	cgroup, err := readSome(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !inUnit(cgroup, m.c.Unit) {
		return false
	}
	_, runs := nameOf(pid)
	return runs
}

// inUnit reports whether a file /proc/PID/cgroup names a group of the unit.
func inUnit(cgroup []byte, unit string) bool {
	for line := range strings.Lines(string(cgroup)) {
		for part := range strings.SplitSeq(strings.TrimSpace(line), "/") {
			if part == unit {
				return true
			}
		}
	}
	return false
}

// search lists the processes that match, at most maxWatched.
func search(ctx context.Context, matches func(pid int) bool) (found []int, err error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	for n := 0; n < maxProcesses; {
		names, err := dir.Readdirnames(512)
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, name := range names {
			pid, err := strconv.Atoi(name)
			if err != nil {
				continue
			}
			if n++; matches(pid) {
				if found = append(found, pid); len(found) == maxWatched {
					return found, nil
				}
			}
		}
	}
	return found, nil
}

// nameOf returns the name of a process, and whether it runs: a dead one that has not
// been waited for does not.
func nameOf(pid int) (name string, runs bool) {
	stat, err := readSome(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", false
	}
	return parseStat(stat)
}

// parseStat reads a file /proc/PID/stat. The name may hold anything, also parentheses.
func parseStat(stat []byte) (name string, runs bool) {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open || len(stat) < end+3 {
		return "", false
	}
	state := stat[end+2]
	return string(stat[open+1 : end]), state != 'Z' && state != 'X' && state != 'x'
}

// readPidfile reads the number of a process from the first line of a file.
func readPidfile(path string) (int, error) {
	text, err := readPlain(path)
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("%s: its first line is not the number of a process", path)
	}
	return pid, nil
}

// readSome reads the beginning of a file of the kernel's.
func readSome(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRead))
}

// Wake implements hooks.Waker: it asks for a look at once when one of the processes that
// the last look has found ends.
func (m *Process) Wake(ctx context.Context, look func()) {
	if err := m.alive.await(ctx, look); err != nil {
		hooks.Logger(ctx).Warn("the end of a process is noticed in the interval only", "err", err)
	}
}
