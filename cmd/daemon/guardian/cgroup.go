package guardian

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hooksPrefix begins the name of the cgroup of a daemon's hooks; its process id
// follows.
const hooksPrefix = "carpd-hooks-"

// errNoCgroup says that there is no version 2 of cgroups here.
var errNoCgroup = errors.New("no cgroup2 file system is mounted")

// MakeHooks makes a cgroup below the daemon's own, into which hooks are started, so
// that they can be killed with all their children when the daemon has died. It
// needs version 2 of cgroups, cgroup.kill (Linux 5.14), and the right to make one
// there: root's, or a unit with Delegate=yes. The caller closes the directory, and
// removes it in the end by RemoveHooks.
func MakeHooks() (*os.File, error) {
	own, err := ownCgroup("/proc/self/cgroup", "/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("guardian: make a cgroup for hooks: %w", err)
	}
	sweep(own)
	dir := filepath.Join(own, hooksPrefix+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("guardian: make a cgroup for hooks: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
		_ = os.Remove(dir)
		return nil, fmt.Errorf("guardian: make a cgroup for hooks: it cannot be killed as a whole before Linux 5.14: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		_ = os.Remove(dir)
		return nil, fmt.Errorf("guardian: make a cgroup for hooks: %w", err)
	}
	return f, nil
}

// RemoveHooks closes and removes what MakeHooks made. What hooks have left there on
// purpose stays, and the directory with it.
func RemoveHooks(f *os.File) {
	if f != nil {
		f.Close()
		_ = os.Remove(f.Name())
	}
}

// sweep removes the empty cgroups of daemons that were killed together with their
// guardians.
func sweep(own string) {
	left, _ := filepath.Glob(filepath.Join(own, hooksPrefix+"*"))
	for _, dir := range left {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), hooksPrefix))
		if err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			_ = os.Remove(dir)
		}
	}
}

// ownCgroup returns the directory of this process's cgroup of version 2: it reads
// the two files of /proc.
func ownCgroup(membership, mounts string) (string, error) {
	m, err := os.ReadFile(membership)
	if err != nil {
		return "", err
	}
	path, found := "", false
	for line := range bytes.Lines(m) {
		if rest, ok := bytes.CutPrefix(line, []byte("0::")); ok {
			path, found = strings.TrimSuffix(string(rest), "\n"), true
		}
	}
	f, err := os.Open(mounts)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for all := bufio.NewScanner(f); found && all.Scan(); {
		// id parent major:minor root mount-point options... - type source options
		before, after, _ := strings.Cut(all.Text(), " - ")
		fields := strings.Fields(before)
		if len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		if rest, err := filepath.Rel(fields[3], path); err == nil && !strings.HasPrefix(rest, "..") {
			return filepath.Join(fields[4], rest), nil
		}
	}
	return "", errNoCgroup
}

// cgroup is that of the hooks, as the guardian has it: ready to be killed. The zero
// value is none.
type cgroup struct {
	dir  string
	file *os.File // cgroup.kill
}

// openCgroup returns the zero value if there is none to be killed.
func openCgroup(dir string) cgroup {
	if dir == "" {
		return cgroup{}
	}
	f, err := os.OpenFile(filepath.Join(dir, "cgroup.kill"), os.O_WRONLY, 0)
	if err != nil {
		return cgroup{}
	}
	return cgroup{dir, f}
}

// kill ends all that is in it and reports whether it could. Nothing may be started into it
// any more: see end.
func (c cgroup) kill() bool {
	if c.file == nil {
		return false
	}
	_, err := c.file.WriteString("1")
	return err == nil
}

// end ends all that is in it, of a daemon that lives and will start more: process by
// process, since Linux (seen with 6.18) kills whatever is started into a cgroup
// (CLONE_INTO_CGROUP) that was ever killed as a whole. Those below it were made by the
// hooks, and can be.
func (c cgroup) end() bool {
	if c.file == nil {
		return false
	}
	ended := map[string]bool{}
	for range endMost { // another round finds what was forked during the last one
		all, err := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
		if err != nil {
			return false
		}
		more := false
		for line := range strings.Lines(string(all)) {
			if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && !ended[line] {
				more, ended[line] = true, true
				if errors.Is(unix.Kill(pid, unix.SIGKILL), unix.EPERM) { // of another user
					return c.kill()
				}
			}
		}
		if !more {
			break
		}
	}
	below, _ := filepath.Glob(filepath.Join(c.dir, "*", "cgroup.kill"))
	for _, file := range below {
		_ = os.WriteFile(file, []byte("1"), 0) // it may be gone
	}
	return true
}

// endMost is how often what runs is looked for: what is to end cannot fork any more.
const endMost = 100

// remove removes the directory, once those who were killed are gone.
func (c cgroup) remove() {
	for n := 0; c.dir != "" && n < rmdirMost; n++ {
		if err := os.Remove(c.dir); err == nil || !errors.Is(err, unix.EBUSY) {
			return
		}
		time.Sleep(rmdirEach)
	}
}

func (c cgroup) close() {
	if c.file != nil {
		c.file.Close()
	}
}
