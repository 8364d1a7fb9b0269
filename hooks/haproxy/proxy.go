package haproxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
)

// proxy is one HAProxy. It holds no state: what is, it asks.
type proxy struct{ Config }

// start starts it if it does not run, and returns when it takes connections.
func (p *proxy) start(ctx context.Context) error {
	v, err := p.look(ctx)
	if err != nil || v.up() {
		return err
	}
	if err := p.check(ctx, p.Config.Config); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.ReloadTime)
	defer cancel()
	if p.Unit != "" {
		if err := p.systemctl(ctx, "start"); err != nil {
			return err
		}
	} else if err := p.launch(ctx); err != nil {
		return err
	}
	_, err = p.await(ctx, "it to start", func(v view) bool {
		if p.Unit != "" || !v.up() {
			return v.up()
		}
		pids, err := p.pids() // without its file nobody could stop it
		return err == nil && len(pids) > 0
	})
	return err
}

// launch starts it as a daemon of its own.
func (p *proxy) launch(ctx context.Context) error {
	if pids, err := p.pids(); err == nil && len(pids) > 0 {
		return fmt.Errorf("haproxy: start: process %d of %s runs, and nobody answers at %s: is that its stats socket?", pids[0], p.PIDFile, p.Socket)
	}
	args := []string{"-D", "-f", p.Config.Config, "-p", p.PIDFile}
	if p.Mode == MasterWorker {
		args = append(args, "-W")
		if p.Master != "" {
			args = append(args, "-S", p.Master)
		}
	}
	if _, err := command.Run(ctx, command.Command{Path: p.Program, Args: args, Daemon: true}); err != nil {
		return fmt.Errorf("haproxy: start: %w", err)
	}
	return nil
}

// stop ends it and all its sessions, and returns when it is gone.
func (p *proxy) stop(ctx context.Context) error {
	if p.Unit != "" {
		if err := p.systemctl(ctx, "stop"); err != nil {
			return err
		}
		_, err := p.await(ctx, "it to end", func(v view) bool { return v.pid == 0 })
		return err
	}
	pids, err := p.family(ctx)
	if err != nil {
		return err
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for _, pid := range pids {
			if p.ours(pid) {
				_ = syscall.Kill(pid, signal)
			}
		}
		if err = p.gone(ctx, pids); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			break
		}
		hooks.Logger(ctx).Warn("HAProxy does not end at SIGTERM", "pids", pids, "within", p.StopTime)
	}
	return err
}

// gone waits until none of these processes lives, for StopTime.
func (p *proxy) gone(ctx context.Context, pids []int) error {
	late := time.NewTimer(p.StopTime)
	defer late.Stop()
	each := time.NewTicker(20 * time.Millisecond)
	defer each.Stop()
	for {
		if !slices.ContainsFunc(pids, p.ours) {
			return nil
		}
		select {
		case <-each.C:
		case <-late.C:
			return fmt.Errorf("haproxy: stop: a process of %v lives", pids)
		case <-ctx.Done():
			return fmt.Errorf("haproxy: stop: %w", ctx.Err())
		}
	}
}

// family lists the processes of the proxy that live: those in the file, their children,
// and the one that answers.
func (p *proxy) family(ctx context.Context) ([]int, error) {
	pids, err := p.pids()
	if err != nil {
		return nil, err
	}
	if v, err := p.look(ctx); err == nil && p.ours(v.pid) && !slices.Contains(pids, v.pid) {
		pids = append(pids, v.pid)
	}
	proc, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("haproxy: find its processes: %w", err)
	}
	for _, entry := range proc {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || slices.Contains(pids, pid) {
			continue
		}
		if name, parent, living := process(pid); living && name == p.name() && slices.Contains(pids, parent) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// pids reads which processes of the file live; none if there is no file.
func (p *proxy) pids() (living []int, err error) {
	text, err := os.ReadFile(p.PIDFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("haproxy: read its process id: %w", err)
	}
	for word := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil || pid <= 1 {
			return nil, fmt.Errorf("haproxy: read its process id: %s: %q is none", p.PIDFile, word)
		}
		if p.ours(pid) {
			living = append(living, pid)
		}
	}
	return living, nil
}

// ours reports whether a process lives and has the name of the program: the file may be
// of another life of the machine, and the number somebody else's by now.
func (p *proxy) ours(pid int) bool {
	name, _, living := process(pid)
	return living && name == p.name()
}

// name is that of the program's processes, as the kernel shortens it.
func (p *proxy) name() string {
	base := filepath.Base(p.Program)
	return base[:min(len(base), 15)]
}

// process reads name and parent of a process from /proc/PID/stat: "pid (name) state ppid
// ...", where the name may hold anything.
func process(pid int) (name string, parent int, living bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", 0, false
	}
	_, rest, _ := strings.Cut(string(stat), "(")
	i := strings.LastIndexByte(rest, ')')
	if i < 0 {
		return "", 0, false
	}
	f := strings.Fields(rest[i+1:]) // from the state, field 3, on
	if len(f) < 18 {
		return "", 0, false
	}
	parent, err = strconv.Atoi(f[1])
	threads, _ := strconv.Atoi(f[17])
	// A first thread that has ended holds the files open until the last one has.
	dead := (f[0] == "Z" || f[0] == "X") && threads <= 1
	return rest[:i], parent, err == nil && !dead
}

// check has HAProxy read a configuration. It passes although an address to bind to is
// missing, or taken.
func (p *proxy) check(ctx context.Context, path string) error {
	_, err := command.Run(ctx, command.Command{Path: p.Program, Args: []string{"-c", "-f", path}, Quiet: true})
	if err != nil {
		return fmt.Errorf("haproxy: check %s: %w", path, err)
	}
	return nil
}

func (p *proxy) systemctl(ctx context.Context, verb string) error {
	_, err := command.Run(ctx, command.Command{Path: p.Systemctl, Args: []string{verb, p.Unit}})
	if err != nil {
		return fmt.Errorf("haproxy: %s %s: %w", verb, p.Unit, err)
	}
	return nil
}
