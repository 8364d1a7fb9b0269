package volume

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxHolders is how many holders a message names.
const maxHolders = 8

// holder is a process that keeps a file system from being unmounted.
type holder struct {
	pid  int
	name string
	what string // "open /srv/x", "directory /srv"
}

func (h holder) String() string { return fmt.Sprintf("%s[%d] (%s)", h.name, h.pid, h.what) }

// holders finds who has a file of a device open, mapped, or a directory of it as its
// own, as fuser(1) does, and what is mounted or attached above point. Processes that end
// meanwhile, or that may not be looked at, are left out.
func holders(device, point string) []holder {
	all := kernelHolders(point)
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return all
	}
	for _, p := range procs {
		if pid, err := strconv.Atoi(p.Name()); err == nil {
			if what := holdsOf(pid, device); what != "" {
				all = append(all, holder{pid, nameOf(pid), what})
			}
		}
	}
	return all
}

// kernelHolders are what no process has: mounts below, and loop devices over files.
func kernelHolders(point string) (all []holder) {
	mounts, err := readMounts()
	if err == nil {
		for _, p := range below(mounts, point) {
			all = append(all, holder{0, "mount", p})
		}
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return all
	}
	for _, l := range loops {
		file, err := os.ReadFile(l)
		if name := strings.TrimSpace(string(file)); err == nil && strings.HasPrefix(name, point+"/") {
			all = append(all, holder{0, filepath.Base(filepath.Dir(filepath.Dir(l))), "attached to " + name})
		}
	}
	return all
}

// holdsOf says by what a process holds a device, "" if it does not.
func holdsOf(pid int, device string) string {
	dir := fmt.Sprintf("/proc/%d/", pid)
	for link, what := range map[string]string{"cwd": "directory", "root": "root", "exe": "program"} {
		if on(dir+link, device) {
			return what + " " + target(dir+link)
		}
	}
	fds, err := os.ReadDir(dir + "fd")
	if err == nil {
		for _, fd := range fds {
			if path := dir + "fd/" + fd.Name(); on(path, device) {
				return "open " + target(path)
			}
		}
	}
	return mapped(dir+"maps", device)
}

// mapped looks for a file of the device in /proc/PID/maps, where its number is in hex.
func mapped(maps, device string) string {
	f, err := os.Open(maps)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 {
			continue
		}
		major, minor, _ := strings.Cut(fields[3], ":")
		a, errA := strconv.ParseUint(major, 16, 32)
		b, errB := strconv.ParseUint(minor, 16, 32)
		if errA == nil && errB == nil && fmt.Sprintf("%d:%d", a, b) == device {
			return "mapped " + fields[5]
		}
	}
	return ""
}

// on reports whether what a link of /proc leads to lies on the device.
func on(path, device string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && number(st.Dev) == device
}

func target(path string) string {
	t, err := os.Readlink(path)
	if err != nil {
		return "?"
	}
	return t
}

func nameOf(pid int) string {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(comm))
}

// named is a list of holders for a message.
func named(all []holder) string {
	if len(all) == 0 {
		return "nobody that can be seen from here"
	}
	var words []string
	for _, h := range all[:min(len(all), maxHolders)] {
		words = append(words, h.String())
	}
	if more := len(all) - maxHolders; more > 0 {
		words = append(words, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(words, ", ")
}

// strangers finds processes that have the device mounted in a mount namespace of their
// own, such as services with PrivateMounts or containers.
func strangers(device string) (all []holder) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	seen := []string{target("/proc/self/ns/mnt")}
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		space := target("/proc/" + p.Name() + "/ns/mnt")
		if slices.Contains(seen, space) {
			continue
		}
		seen = append(seen, space)
		table, err := os.ReadFile("/proc/" + p.Name() + "/mountinfo")
		if err != nil {
			continue
		}
		if points := of(parseMounts(string(table)), device); len(points) > 0 {
			all = append(all, holder{pid, nameOf(pid), "has it mounted on " + points[0] + " in a mount namespace of its own"})
		}
	}
	return all
}
