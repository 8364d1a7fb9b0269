package safety

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// Keepalived is keepalived with VRRP version 3 and its own defaults. Below a second it
// takes part in some rows only. The error says that it is not installed.
func Keepalived(name string, interval time.Duration) (Daemon, error) {
	path, err := find("keepalived")
	if err != nil {
		return Daemon{}, err
	}
	d := Daemon{
		Name: name, Title: "keepalived, VRRP", Version: versionOf(path, "--version"), Interval: interval, Cannot: onePath(),
		Start: func(_ context.Context, _ lab.TB, m Member) (Running, error) { return startKeepalived(path, m) },
	}
	if interval < time.Second {
		d.Only = fastRows()
	}
	return d, nil
}

// inAdvert is how many addresses keepalived has in its adverts; the others are
// "excluded", which is how it is told to have many.
const inAdvert = 20

// keepalivedConfig is the file of a member.
func keepalivedConfig(m Member, priority uint8) string {
	var b strings.Builder
	fmt.Fprintf(&b, "vrrp_instance safety {\n  interface eth0\n  state BACKUP\n  version 3\n  virtual_router_id %d\n  priority %d\n  advert_int %s\n",
		groupID, priority, strconv.FormatFloat(m.Interval.Seconds(), 'f', -1, 64))
	for i, a := range m.Addresses {
		switch i {
		case 0:
			b.WriteString("  virtual_ipaddress {\n")
		case inAdvert:
			b.WriteString("  }\n  virtual_ipaddress_excluded {\n")
		}
		fmt.Fprintf(&b, "    %v/32\n", a)
	}
	b.WriteString("  }\n}\n")
	return b.String()
}

// keepalived is one that runs.
type keepalived struct {
	proc         *lab.Proc
	file, worker string
	member       Member
}

// startKeepalived runs it in the foreground and without syslog: where no syslog runs
// it would write to the console instead, which is slow.
func startKeepalived(path string, m Member) (Running, error) {
	k := &keepalived{file: filepath.Join(m.Dir, "keepalived.conf"), worker: filepath.Join(m.Dir, "worker.pid"), member: m}
	if err := os.WriteFile(k.file, []byte(keepalivedConfig(m, m.priority())), 0o600); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	k.proc = m.Host.Start(exec.Command(path, "--dont-fork", "--vrrp", "--log-console", "--no-syslog",
		"--use-file="+k.file, "--pid="+filepath.Join(m.Dir, "pid"), "--vrrp_pid="+k.worker))
	return k, nil
}

// Leader implements Running.
func (k *keepalived) Leader() int { return k.proc.Pid }

// Crash implements Running: the process that speaks is the worker. (When its parent
// dies, it leaves in order.)
func (k *keepalived) Crash() error {
	text, err := os.ReadFile(k.worker)
	if err != nil {
		return fmt.Errorf("safety: find keepalived's worker: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return fmt.Errorf("safety: keepalived's worker is process %q", text)
	}
	return killed(pid)
}

// Handover implements Running: a lower priority than all others, and a reload.
func (k *keepalived) Handover(context.Context) error {
	if err := os.WriteFile(k.file, []byte(keepalivedConfig(k.member, 50)), 0o600); err != nil {
		return fmt.Errorf("safety: hand over: %w", err)
	}
	k.proc.Signal(syscall.SIGHUP)
	return nil
}

// Stop implements Running.
func (k *keepalived) Stop() { k.proc.Signal(syscall.SIGTERM) }

// Ucarp is ucarp with advbase 1. The error says that it is not installed.
func Ucarp() (Daemon, error) {
	path, err := find("ucarp")
	if err != nil {
		return Daemon{}, err
	}
	return Daemon{
		Name: "ucarp", Title: "ucarp, CARP", Version: "ucarp (it does not say which)", Interval: time.Second, Cannot: onePath(),
		Start: func(_ context.Context, _ lab.TB, m Member) (Running, error) { return startUcarp(path, m) },
	}, nil
}

// ucarp is one that runs.
type ucarp struct{ proc *lab.Proc }

// startUcarp runs it with scripts that add and delete all addresses in one batch. It
// knows, and announces, one address: the last, which the client asks for.
func startUcarp(path string, m Member) (Running, error) {
	up, err := script(m, "up", "replace")
	if err != nil {
		return nil, err
	}
	down, err := script(m, "down", "del")
	if err != nil {
		return nil, err
	}
	return &ucarp{m.Host.Start(exec.Command(path, "--interface=eth0", "--srcip="+m.Address.String(),
		"--addr="+m.Addresses[len(m.Addresses)-1].String(), "--vhid="+strconv.Itoa(groupID), "--pass="+passphrase,
		"--advbase="+strconv.Itoa(int(m.Interval.Seconds())), "--advskew="+strconv.Itoa(int(m.skew())),
		"--upscript="+up, "--downscript="+down, "--preempt", "--shutdown", "--neutral"))}, nil
}

// script writes one for ucarp, which runs it without arguments that matter.
func script(m Member, name, verb string) (path string, err error) {
	path = filepath.Join(m.Dir, name)
	batch := path + ".batch"
	lines := "address " + verb + " " + list(m, " dev eth0\naddress "+verb+" ", "/32") + " dev eth0\n"
	text := "#!/bin/sh\nPATH=$PATH:/usr/sbin:/sbin exec ip -force -batch " + batch + "\n"
	for file, content := range map[string]string{batch: lines, path: text} {
		if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
			return "", fmt.Errorf("write script: %w", err)
		}
	}
	return path, nil
}

// Leader implements Running.
func (u *ucarp) Leader() int { return u.proc.Pid }

// Crash implements Running.
func (u *ucarp) Crash() error { return killed(u.proc.Pid) }

// Handover implements Running: SIGUSR2 makes it give up the role.
func (u *ucarp) Handover(context.Context) error {
	u.proc.Signal(syscall.SIGUSR2)
	return nil
}

// Stop implements Running.
func (u *ucarp) Stop() { u.proc.Signal(syscall.SIGTERM) }
