package demo

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The LAN: a switch in the demo's own namespace, and three hosts (RFC 5737).
const (
	prefixA      = "192.0.2.1/24"
	prefixB      = "192.0.2.2/24"
	prefixClient = "192.0.2.9/24"
	sharedPrefix = "192.0.2.50/24"
	vhid         = 9
	bridge       = "br0"
)

// host is a network namespace with an interface eth0 on the switch.
type host struct {
	name string
	id   int      // by which the switch's namespace knows this one
	file *os.File // the namespace
}

// ip runs iproute2's ip.
func ip(args ...string) error {
	path, err := exec.LookPath("ip")
	if err != nil {
		path = "/usr/sbin/ip" // not in every user's path
		if _, err := os.Stat(path); err != nil {
			return errors.New("demo: the program `ip` is missing: install iproute2")
		}
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("demo: ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func ips(lines ...string) error {
	for _, line := range lines {
		if err := ip(strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

// buildSwitch makes the bridge: no snooping, no spanning tree, so that a port
// forwards at once.
func buildSwitch() error {
	quiet()
	return ips(
		"link set lo up",
		"link add name "+bridge+" type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
		"link set dev "+bridge+" up",
	)
}

// quiet switches IPv6 off in the calling thread's namespace, since the demo has
// none: the capture is easier to read without its router solicitations. Where
// /proc is read-only they stay.
func quiet() {
	for _, which := range []string{"all", "default"} {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("1"), 0)
	}
}

// newHost makes a host and plugs it in; its port has the host's name. The kernel
// would choose an id as soon as there is a link.
func newHost(id int, name, prefix string) (*host, error) {
	if err := ips("netns add "+name, "netns set "+name+" "+strconv.Itoa(id)); err != nil {
		return nil, err
	}
	file, err := os.Open(filepath.Join("/run/netns", name))
	if err != nil {
		return nil, fmt.Errorf("demo: open namespace: %w", err)
	}
	h := &host{name: name, id: id, file: file}
	if err := h.do(func() error { quiet(); return nil }); err != nil {
		return nil, err
	}
	return h, ips(
		"link add name "+name+" type veth peer name eth0 netns "+name,
		"link set dev "+name+" master "+bridge+" up",
		"-n "+name+" link set lo up",
		"-n "+name+" addr add "+prefix+" dev eth0",
		"-n "+name+" link set eth0 up",
	)
}

// do runs f with the calling thread in the host's namespace.
func (h *host) do(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("demo: open own namespace: %w", err)
	}
	defer func() {
		// Without a way back the thread stays locked, and nobody else gets it.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		_ = home.Close()
	}()
	if err := unix.Setns(int(h.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("demo: enter namespace %s: %w", h.name, err)
	}
	return f()
}

// pids lists the processes in the host's namespace, by the numbers that are
// valid here.
func (h *host) pids() ([]int, error) {
	var own unix.Stat_t
	if err := unix.Fstat(int(h.file.Fd()), &own); err != nil {
		return nil, fmt.Errorf("demo: stat namespace %s: %w", h.name, err)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("demo: list processes: %w", err)
	}
	var found []int
	for _, dir := range dirs {
		var st unix.Stat_t
		if unix.Stat(dir+"/ns/net", &st) != nil || st.Ino != own.Ino {
			continue // another's, or gone
		}
		status, err := os.ReadFile(dir + "/status")
		if err != nil {
			continue
		}
		if pid := innermostPID(string(status)); pid > 1 {
			found = append(found, pid)
		}
	}
	return found, nil
}

// innermostPID reads a process's number in its own namespace from the text of
// /proc/PID/status; 0 if there is none.
func innermostPID(status string) int {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			numbers := strings.Fields(rest)
			if len(numbers) == 0 {
				return 0
			}
			pid, err := strconv.Atoi(numbers[len(numbers)-1])
			if err != nil {
				return 0
			}
			return pid
		}
	}
	return 0
}

// killAll ends every process on the host by SIGKILL, as a machine that dies:
// nobody says goodbye. It returns how many there were.
func (h *host) killAll() (int, error) {
	killed := map[int]bool{}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 1000 { // a process may fork while it is being killed
		pids, err := h.pids()
		if err != nil {
			return 0, err
		}
		if len(pids) == 0 {
			return len(killed), nil
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGSTOP) // none of them sees another one die
		}
		for _, pid := range pids {
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				killed[pid] = true
			}
		}
		<-tick.C
	}
	return 0, fmt.Errorf("demo: processes on %s survive SIGKILL", h.name)
}
