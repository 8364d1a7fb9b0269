package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/test/lab"
)

// processes lists the processes in a host's network namespace, but for this one.
func processes(h *lab.Host) ([]int, error) {
	var inside unix.Stat_t
	if err := h.DoErr(func() error { return unix.Stat("/proc/thread-self/ns/net", &inside) }); err != nil {
		return nil, fmt.Errorf("bench: look at the namespace of %s: %w", h.Name, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("bench: list processes: %w", err)
	}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		var st unix.Stat_t
		if unix.Stat("/proc/"+e.Name()+"/ns/net", &st) == nil && st.Ino == inside.Ino {
			found = append(found, pid)
		}
	}
	return found, nil
}

// usage is the run time of each thread of some processes.
type usage map[string]time.Duration

// usageOf reads run times. A process or thread that ends meanwhile is left out.
func usageOf(pids []int) usage {
	u := usage{}
	for _, pid := range pids {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid)) // the pattern is good
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				continue
			}
			run, _, _ := strings.Cut(string(text), " ")
			if ns, err := strconv.ParseInt(run, 10, 64); err == nil {
				u[name] = time.Duration(ns)
			}
		}
	}
	return u
}

// since adds up what all threads ran since an earlier reading; of a thread that is
// new, all.
func (u usage) since(before usage) (sum time.Duration) {
	for thread, ran := range u {
		sum += ran - before[thread]
	}
	return sum
}

// self is the run time of this process, the bench.
func self() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Memory is what all processes of a node have in memory, in MiB.
type Memory struct {
	RSS float64 `json:"rss_mib"` // with what they share, counted for each
	PSS float64 `json:"pss_mib"` // what is shared is divided by those who share it
}

// memoryOf reads the memory of processes.
func memoryOf(pids []int) (m Memory) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // it has ended
		}
		lines := bufio.NewScanner(bytes.NewReader(text))
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) < 2 {
				continue
			}
			kib, _ := strconv.ParseFloat(fields[1], 64) // the first line is no number and not asked for
			switch fields[0] {
			case "Rss:":
				m.RSS += kib / 1024
			case "Pss:":
				m.PSS += kib / 1024
			}
		}
	}
	return m
}
