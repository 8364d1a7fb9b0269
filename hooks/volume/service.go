package volume

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
)

// probeTime is what one probe may take.
const probeTime = 5 * time.Second

// start starts a service and waits until it answers.
func (v *Volume) start(ctx context.Context, s Service) error {
	if v.serves(ctx, s) == nil {
		return nil
	}
	if err := hooks.MarkNoReturn(ctx, "start "+s.Name); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.StartTimeout)
	defer cancel()
	var err error
	if s.Unit != "" {
		_, err = v.run(ctx, "systemctl", "start", s.Unit)
	} else {
		_, err = command.Run(ctx, command.Command{Path: s.Start[0], Args: s.Start[1:]})
	}
	if err != nil {
		return fmt.Errorf("volume: start %s: %w", s.Name, err)
	}
	var last error
	err = Await(ctx, "volume: start "+s.Name+": it was started and does not answer", func() (bool, error) {
		last = v.serves(ctx, s)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", err, last)
	}
	return nil
}

// serves asks a service for an answer.
func (v *Volume) serves(ctx context.Context, s Service) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if len(s.Probe) > 0 {
		if _, err := command.Run(ctx, command.Command{Path: s.Probe[0], Args: s.Probe[1:], Quiet: true}); err != nil {
			return fmt.Errorf("%s does not serve: %w", s.Name, err)
		}
	}
	if s.TCP == "" {
		return nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.TCP)
	if err != nil {
		return fmt.Errorf("%s does not serve: %w", s.Name, err)
	}
	return conn.Close()
}

// runs reports whether anything of a service runs, whether or not it answers.
func (v *Volume) runs(ctx context.Context, s Service) (bool, error) {
	if s.Unit != "" {
		state, err := v.unitState(ctx, s.Unit)
		return state != "inactive" && state != "failed", err
	}
	if pid := readPID(s.PIDFile); pid > 0 {
		return true, nil
	}
	if err := ctx.Err(); err != nil {
		return true, err
	}
	return v.serves(ctx, s) == nil, nil
}

// unitState is ActiveState of systemd: active, inactive, failed, activating ...
func (v *Volume) unitState(ctx context.Context, unit string) (string, error) {
	path, err := v.tool("systemctl")
	if err != nil {
		return "", err
	}
	out, err := command.Run(ctx, command.Command{Path: path, Args: []string{"show", "--property=ActiveState,LoadState", unit}, Keep: 4096, Quiet: true})
	if err != nil {
		return "", err
	}
	if slices.Contains(strings.Fields(string(out)), "LoadState=not-found") {
		return "", hooks.Refuse(fmt.Errorf("volume: unit %s: systemd does not know it", unit))
	}
	for line := range strings.Lines(string(out)) {
		if state, ok := strings.CutPrefix(strings.TrimSpace(line), "ActiveState="); ok {
			return state, nil
		}
	}
	return "", fmt.Errorf("volume: unit %s: systemctl show has no ActiveState", unit)
}

// readPID returns the process of a pid file if it lives and a file system of ours could
// be its own, else 0. The file may be stale and the number another process's: before it
// is killed more is asked for.
func readPID(file string) int {
	if file == "" {
		return 0
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 || unix.Kill(pid, 0) != nil || zombie(pid) {
		return 0
	}
	return pid
}

// zombie reports whether a process has ended and only nobody has asked for it.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, ok := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	return ok && (strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X"))
}

// stop stops a service: by its own command, then by force, and looks whether it is gone.
// Its command is run also when nothing seems to run: what starts cannot be seen yet.
func (v *Volume) stop(ctx context.Context, s Service) error {
	pid := readPID(s.PIDFile)
	said := v.tell(ctx, s)
	if said == nil || pid == 0 && s.Unit == "" {
		if running, err := v.runs(ctx, s); err == nil && !running && !alive(pid) {
			return nil
		}
	}
	hooks.Logger(ctx).Warn("service does not stop and is killed", "service", s.Name, "err", said)
	killed, cancel := context.WithTimeout(ctx, killing)
	defer cancel()
	if err := v.kill(killed, s, pid); err != nil {
		return fmt.Errorf("volume: stop %s: %w", s.Name, errors.Join(said, err))
	}
	err := Await(killed, "volume: stop "+s.Name+": it still runs", func() (bool, error) {
		running, err := v.runs(killed, s)
		return !running && !alive(pid), err
	})
	return errors.Join(err, whenFailed(err, said))
}

// whenFailed returns the second error if there is a first one.
func whenFailed(err, said error) error {
	if err == nil {
		return nil
	}
	return said
}

func alive(pid int) bool { return pid > 0 && unix.Kill(pid, 0) == nil && !zombie(pid) }

// tell runs the command that stops a service and waits within its time until it is gone.
func (v *Volume) tell(ctx context.Context, s Service) error {
	ctx, cancel := context.WithTimeout(ctx, s.StopTimeout)
	defer cancel()
	pid := readPID(s.PIDFile)
	var err error
	if s.Unit != "" {
		_, err = v.run(ctx, "systemctl", "stop", s.Unit)
	} else {
		_, err = command.Run(ctx, command.Command{Path: s.Stop[0], Args: s.Stop[1:]})
	}
	if err != nil {
		return err
	}
	return Await(ctx, "it was stopped and still runs", func() (bool, error) {
		running, err := v.runs(ctx, s)
		return !running && !alive(pid), err
	})
}

// kill ends a service by force. Of a pid file only a process is killed that has a file of
// the file system open: the number may have come to mean another one.
func (v *Volume) kill(ctx context.Context, s Service, pid int) error {
	if s.Unit != "" {
		_, err := v.run(ctx, "systemctl", "kill", "--signal=SIGKILL", "--kill-whom=all", s.Unit)
		return err
	}
	if pid == 0 {
		return errors.New("whom to kill is not known: set pidfile")
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	all, err := readMounts()
	if err != nil {
		return err
	}
	here := at(all, v.c.Mount)
	if len(here) == 0 || holdsOf(pid, here[len(here)-1].device) == "" {
		return fmt.Errorf("process %d of %s has no file of %s open, and is not killed", pid, s.PIDFile, v.c.Mount)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}
