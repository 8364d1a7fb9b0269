package haproxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/hooks/command"
)

// reload has a running HAProxy load its configuration, and returns when another process
// answers than before. On an error the one before goes on.
func (p *proxy) reload(ctx context.Context) error {
	before, err := p.look(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.ReloadTime)
	defer cancel()
	master, err := p.awaitMaster(ctx)
	if err != nil {
		return err
	}
	if err := p.order(ctx, before); err != nil {
		return err
	}
	return p.replaced(ctx, before, master)
}

// order gives the order to load, by the way that the configuration says.
func (p *proxy) order(ctx context.Context, before view) error {
	switch {
	case p.Master != "":
		return p.orderMaster(ctx)
	case p.Unit != "":
		return p.systemctl(ctx, "reload")
	case p.Mode == Classic:
		return p.replace(ctx, before)
	}
	return p.signal(ctx, before)
}

// resend is after how long a master that does nothing is signalled again.
const resend = 2 * time.Second

// signal sends SIGUSR2 to the master until it executes itself again, which its command
// line shows. Once may not be enough: a master that has just started or reloaded can lose
// it.
func (p *proxy) signal(ctx context.Context, before view) error {
	pids, err := p.pids()
	if err == nil && len(pids) == 0 {
		err = fmt.Errorf("haproxy: reload: no process as %s says lives", p.PIDFile)
	}
	if err != nil {
		return err
	}
	was := commandLine(pids[0])
	each := time.NewTicker(20 * time.Millisecond)
	defer each.Stop()
	for sent := (time.Time{}); ; {
		if time.Since(sent) >= resend && awaits(pids[0], syscall.SIGUSR2) {
			if err := syscall.Kill(pids[0], syscall.SIGUSR2); err != nil {
				return fmt.Errorf("haproxy: reload: signal process %d: %w", pids[0], err)
			}
			sent = time.Now()
		}
		select {
		case <-each.C:
		case <-ctx.Done():
			return fmt.Errorf("haproxy: reload: process %d does nothing at SIGUSR2: is it a master (-W)? %w", pids[0], ctx.Err())
		}
		if commandLine(pids[0]) != was {
			return nil
		}
		if v, err := p.look(ctx); err == nil && v.up() && v.pid != before.pid {
			return nil
		}
	}
}

// awaits reports whether a process catches a signal and does not block it: while a master
// executes itself again it does the one or the other, and SIGUSR2 would end it.
func awaits(pid int, signal syscall.Signal) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	set := make(map[string]uint64)
	for line := range strings.Lines(string(text)) {
		if key, value, found := strings.Cut(line, ":"); found && strings.HasPrefix(key, "Sig") {
			set[key], _ = strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	bit := uint64(1) << (signal - 1)
	return set["SigCgt"]&bit != 0 && set["SigBlk"]&bit == 0
}

// commandLine is that of a process: a master's says whom it replaced.
func commandLine(pid int) string {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return string(text)
}

// orderMaster orders it by the master's socket. Since 2.7 it answers Success=1 or
// Success=0 when it has been done, and lines of the log; before, it closes the connection
// at once.
func (p *proxy) orderMaster(ctx context.Context) error {
	each := time.NewTicker(20 * time.Millisecond)
	defer each.Stop()
	for {
		said, err := ask(ctx, p.Master, "reload")
		switch {
		case strings.HasPrefix(said, "Success=0"):
			return fmt.Errorf("haproxy: reload: the new configuration does not start, the old one goes on: %s", tail(said))
		case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
			return nil // it has gone to reload
		case !errors.Is(err, errDown):
			return err
		}
		select { // somebody else has it reloaded just now
		case <-each.C:
		case <-ctx.Done():
			return err
		}
	}
}

// tail is the last lines of what was said, on one.
func tail(said string) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

// replace starts a new process beside the one that answers. The new one gets the
// listening sockets of the old one where it hands them out, and tells it to finish.
func (p *proxy) replace(ctx context.Context, before view) error {
	args := []string{"-D", "-f", p.Config.Config, "-p", p.PIDFile}
	if strings.HasPrefix(p.Socket, "/") {
		exposed, err := exposes(p.Config.Config)
		if err != nil {
			return err
		}
		if exposed {
			args = append(args, "-x", p.Socket)
		}
	}
	args = append(args, "-sf", fmt.Sprint(before.pid))
	if _, err := command.Run(ctx, command.Command{Path: p.Program, Args: args, Daemon: true}); err != nil {
		return fmt.Errorf("haproxy: reload: the new process does not start, the old one goes on: %w", err)
	}
	return nil
}

// master asks the master, where there is a way to.
func (p *proxy) master(ctx context.Context) (masterView, error) {
	if p.Master == "" {
		return masterView{}, nil
	}
	said, err := ask(ctx, p.Master, "show proc")
	if err != nil {
		return masterView{}, err
	}
	return parseProc(said)
}

// awaitMaster asks the master until it answers: while it re-executes itself nobody does.
func (p *proxy) awaitMaster(ctx context.Context) (masterView, error) {
	each := time.NewTicker(20 * time.Millisecond)
	defer each.Stop()
	for {
		m, err := p.master(ctx)
		if err == nil {
			return m, nil
		}
		select {
		case <-each.C:
		case <-ctx.Done():
			return m, fmt.Errorf("haproxy: reload: the master does not answer: %w: %w", ctx.Err(), err)
		}
	}
}

// replaced waits until a new process answers, or the master says that there is none.
func (p *proxy) replaced(ctx context.Context, before view, master masterView) error {
	each := time.NewTicker(20 * time.Millisecond)
	defer each.Stop()
	var v view
	var err error
	for {
		if v, err = p.look(ctx); err == nil && v.up() && v.pid != before.pid {
			return nil
		}
		if now, err := p.master(ctx); err == nil && failedSince(master, now) {
			return errors.New("haproxy: reload: the new configuration does not start, the old one goes on: HAProxy's log says why")
		}
		select {
		case <-each.C:
		case <-ctx.Done():
			if err == nil {
				err = errors.New(v.words())
			}
			return fmt.Errorf("haproxy: reload: no new process answers: %w: %w", ctx.Err(), err)
		}
	}
}

// failedSince reports whether a master has tried to reload between two looks and has no
// new worker.
func failedSince(before, now masterView) bool {
	tried := now.reloads != before.reloads || now.failed != before.failed
	fresh := slices.ContainsFunc(now.workers, func(pid int) bool { return !slices.Contains(before.workers, pid) })
	return before.pid != 0 && tried && now.failed > 0 && !fresh
}
