package safety

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// Setting is what all nodes of a run have in common.
type Setting struct {
	Interval  time.Duration // of adverts: advbase or advert_int
	Skews     []uint8       // advskew of each node, the best first; priority is 200 less it
	Addresses []netip.Addr  // that they share
}

// newSetting is one for two or three nodes.
func newSetting(interval time.Duration, nodes, addresses int) Setting {
	s := Setting{Interval: interval, Skews: []uint8{0, 50, 100}, Addresses: shared(addresses)}
	if nodes == 2 {
		s.Skews = []uint8{0, 100}
	}
	return s
}

// taking are the numbers of the nodes that take part: 0, 1, 2, or two of them.
func (s Setting) taking() []int {
	all := make([]int, len(s.Skews))
	for i := range all {
		all[i] = i
	}
	return all
}

// down is how long a node is silent until the slowest other one has noticed, whatever
// the daemon: ucarp's 3 x (advbase + skew), with some to spare.
func (s Setting) down() time.Duration {
	worst := s.Skews[len(s.Skews)-1]
	skew := time.Duration(worst) * time.Second / 256
	if s.Interval < time.Second { // VRRP: (256 - priority)/256 of the interval
		skew = s.Interval * time.Duration(56+int(worst)) / 256 / 3
	}
	return 3*(s.Interval+skew) + s.Interval/4
}

// Member is one node's part of a run.
type Member struct {
	Setting
	Host    *lab.Host // its interface is eth0
	Node    int       // 0 is the best
	Address netip.Addr
	Dir     string // for its files; gone after the run
}

func (m Member) skew() uint8     { return m.Skews[m.Node] }
func (m Member) priority() uint8 { return 200 - m.skew() }

// Running is a daemon that runs on a node.
type Running interface {
	// Leader is the process that was started, which leads a process group.
	Leader() int
	// Crash ends, by SIGKILL, the process that speaks the protocol, and no other.
	Crash() error
	// Handover makes a master give the role to another node in order, in the best way
	// that the daemon has, and returns when it was told so.
	Handover(ctx context.Context) error
	// Stop asks the daemon to end in order, by SIGTERM. It does not wait.
	Stop()
}

// Daemon is one that can be broken. It is not changed by a Measure, and may be used
// by several.
type Daemon struct {
	Name     string // as in --daemons
	Version  string // for the report
	Title    string // what it speaks, for the report
	Interval time.Duration

	// Paths: the nodes have eth1 on a LAN of their own, too.
	Paths bool

	// Start starts it on a node; it need not wait until it is ready.
	Start func(ctx context.Context, t lab.TB, m Member) (Running, error)
	// Only are the rows that it takes part in; nil is all.
	Only []string
	// Cannot says of rows why nothing can be said of it there.
	Cannot map[string]string
}

// plays reports whether the daemon is broken in a row.
func (d Daemon) plays(row string) bool { return d.shown(row) && d.Cannot[row] == "" }

// shown reports whether the daemon is in the report of a row.
func (d Daemon) shown(row string) bool { return d.Only == nil || slices.Contains(d.Only, row) }

// onePath is why daemons that cannot have two take no part in the row about them.
func onePath() map[string]string {
	return map[string]string{"path": "its adverts have one path"}
}

// fastRows are the rows for daemons at shorter intervals: those that are about time.
func fastRows() []string {
	return []string{"kill", "crash", "freeze", "link", "cut", "partition", "trickle", "flood"}
}

// find looks for a program also where not every user's path leads.
func find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("safety: %s is not installed: %w", name, ErrMissing)
}

// ErrMissing is in the error of a daemon that is not installed.
var ErrMissing = errors.New("apt-get install it, or leave it out")

// versionOf asks a program for its version: the first line that it says.
func versionOf(path string, ask ...string) string {
	text, _ := exec.Command(path, ask...).CombinedOutput() // keepalived says it and fails
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

// killed ends a process by SIGKILL.
func killed(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("safety: kill process %d: %w", pid, err)
	}
	return nil
}
