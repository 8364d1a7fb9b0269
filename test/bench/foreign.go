package bench

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

// Keepalived is keepalived with VRRP version 3 and its own defaults. The error says
// that it is not installed.
func Keepalived() (Speaker, error) {
	return foreign("keepalived", "keepalived", func(t lab.TB, m Member) *peers.Speaker {
		return peers.Keepalived(t, m.Host, m.routers(32)...)
	})
}

// KeepalivedRealTime is Keepalived in real time, with locked memory. The error says
// that it is not installed.
func KeepalivedRealTime() (Speaker, error) {
	return foreign("keepalived-rt", "keepalived", func(t lab.TB, m Member) *peers.Speaker {
		return peers.KeepalivedRealTime(t, m.Host, m.routers(32)...)
	})
}

// FRR is FRR's vrrpd with VRRP version 3. It runs as a user of its own, which needs
// the real root; its address is ready on a macvlan of either node, so that what
// both hold cannot be compared. The error says that it is not installed.
func FRR() (Speaker, error) {
	return foreign("frr", "vrrpd", func(t lab.TB, m Member) *peers.Speaker {
		return peers.FRR(t, m.Host, m.routers(32)...)
	})
}

// foreign is a speaker of VRRP that package peers can run.
func foreign(name, program string, start func(t lab.TB, m Member) *peers.Speaker) (Speaker, error) {
	path, err := find(program)
	if err != nil {
		return Speaker{}, err
	}
	return Speaker{
		Name: name, Version: versionOf(path, "--version"), Silence: vrrpSilence, Farewell: vrrpSkew,
		Start: func(ctx context.Context, t lab.TB, m Member) (Running, error) {
			s := start(t, m)
			return s, await(ctx, s, func() bool { return s.State(uint8(m.Instances)) != "" })
		},
	}, nil
}

// Ucarp is ucarp, a process an instance: advskew 0 and 100. It says no farewell.
// The error says that it is not installed.
func Ucarp() (Speaker, error) {
	if _, err := find("ucarp"); err != nil {
		return Speaker{}, err
	}
	return Speaker{
		Name: "ucarp", Version: "ucarp", Silence: ucarpSilence, Refuses: secondsOnly, Farewell: none,
		Start: func(_ context.Context, t lab.TB, m Member) (Running, error) {
			var all procs
			for id := 1; id <= m.Instances; id++ {
				all = append(all, peers.Ucarp(t, m.Host, peers.UcarpOptions{
					VHID: uint8(id), Password: "bench", Source: m.Address, Address: netip.PrefixFrom(VIP(uint8(id)), 32),
					AdvBase: uint8(m.Interval.Seconds()), AdvSkew: m.Skew(), Preempt: true, Shutdown: true, Neutral: true,
				}))
			}
			return all, nil
		},
	}, nil
}

// routers are the instances of a member for package peers.
func (m Member) routers(bits int) []peers.VRRP {
	var all []peers.VRRP
	var lines []string // of keepalived
	if len(m.Excluded) > 0 {
		lines = append(lines, "virtual_ipaddress_excluded {")
		for _, p := range m.Excluded {
			lines = append(lines, "  "+p.String())
		}
		lines = append(lines, "}")
	}
	for id := 1; id <= m.Instances; id++ {
		if id > 1 {
			lines = nil
		}
		all = append(all, peers.VRRP{
			VRID: uint8(id), Addresses: []netip.Prefix{netip.PrefixFrom(VIP(uint8(id)), bits)}, Priority: m.Priority, Interval: m.Interval, Lines: lines,
		})
	}
	return all
}

// procs are processes that each leave at SIGTERM.
type procs []*lab.Proc

// Stop implements Running.
func (all procs) Stop() {
	for _, p := range all {
		p.Signal(syscall.SIGTERM)
	}
}

// Signal implements Running: the first is the one that was started.
func (all procs) Signal(sig syscall.Signal) { all[0].Signal(sig) }

// Running implements started.
func (all procs) Running() bool {
	for _, p := range all {
		select {
		case <-p.Done():
			return false
		default:
		}
	}
	return true
}

// Output implements started.
func (all procs) Output() string { return all[0].Output() }

// find looks for a program also where not every user's path leads.
func find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/lib/frr"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("bench: %s is not installed", name)
}

// versionOf asks a program for its version: the first line that it says.
func versionOf(path string, ask ...string) string {
	text, _ := exec.Command(path, ask...).CombinedOutput() // keepalived says it and fails
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

// started is what await looks at.
type started interface {
	Running() bool
	Output() string
}

// await waits until a program that was started is ready, and no longer than
// patience.
func await(ctx context.Context, p started, ready func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for !ready() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("it is not ready after %v: %s", patience, lastWords(p.Output()))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !p.Running() {
			return fmt.Errorf("it ended at once: %s", lastWords(p.Output()))
		}
	}
	return nil
}

// lastWords is the end of what a program said.
func lastWords(out string) string {
	out = strings.TrimSpace(out)
	return out[max(0, len(out)-600):]
}
