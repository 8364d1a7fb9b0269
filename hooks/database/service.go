package database

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
	"github.com/carpd/carpd/replicator/install"
	"github.com/carpd/carpd/replicator/sqlite"
)

const (
	killing = 5 * time.Second       // to be gone after SIGKILL
	look    = 25 * time.Millisecond // between looks
	asking  = 5 * time.Second       // what a question may take
)

// systemctl finds the program.
func (d *Database) systemctl() (string, error) {
	for _, dir := range d.c.Path {
		path := filepath.Join(dir, "systemctl")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("systemctl is not in %s: set path, or write start, stop and status instead of unit", strings.Join(d.c.Path, ", "))
}

// tell runs systemctl, or a command of the configuration.
func (d *Database) tell(ctx context.Context, action string, argv []string) error {
	if d.c.Unit == "" {
		// What it starts stays, also when this daemon dies.
		_, err := command.Run(ctx, command.Command{Path: argv[0], Args: slices.Clone(argv[1:]), Daemon: action == "start"})
		return err
	}
	path, err := d.systemctl()
	if err != nil {
		return err
	}
	if action == "start" {
		// One that has failed too often would not be started. It fails if there is nothing to
		// forget, and if it does not the start says so.
		_, _ = command.Run(ctx, command.Command{Path: path, Args: []string{"reset-failed", d.c.Unit}, Quiet: true})
	}
	_, err = command.Run(ctx, command.Command{Path: path, Args: append(strings.Fields(action), d.c.Unit)})
	return err
}

// runs reports whether the program runs, whether or not it is ready.
func (d *Database) runs(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	if d.c.Unit != "" {
		return d.unitRuns(ctx)
	}
	_, err := command.Run(ctx, command.Command{Path: d.c.Status[0], Args: slices.Clone(d.c.Status[1:]), Quiet: true})
	if exit, ok := errors.AsType[*command.ExitError](err); ok && (exit.Code >= 1 && exit.Code <= 3 || exit.Code == 7) {
		return false, nil // as the Linux Standard Base and OCF have it
	}
	return err == nil, err
}

// unitRuns asks systemd.
func (d *Database) unitRuns(ctx context.Context) (bool, error) {
	path, err := d.systemctl()
	if err != nil {
		return false, err
	}
	out, err := command.Run(ctx, command.Command{Path: path, Args: []string{"show", "--property=ActiveState,LoadState", d.c.Unit}, Keep: 4096, Quiet: true})
	if err != nil {
		return false, err
	}
	state := ""
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if line == "LoadState=not-found" {
			return false, hooks.Refuse(fmt.Errorf("unit %s: systemd does not know it", d.c.Unit))
		}
		if s, ok := strings.CutPrefix(line, "ActiveState="); ok {
			state = s
		}
	}
	if state == "" {
		return false, fmt.Errorf("unit %s: systemctl show has no ActiveState", d.c.Unit)
	}
	return state != "inactive" && state != "failed", nil
}

// start starts the program and waits until it is ready. It may run already.
func (d *Database) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.c.StartTimeout, fmt.Errorf("not ready within start_timeout, %v", d.c.StartTimeout))
	defer cancel()
	begun := Begun{At: time.Now(), Rows: sqlite.Verify(ctx, d.c.Database, sqlite.Options{}).Rows}
	if err := d.tell(ctx, "start", d.c.Start); err != nil {
		return fmt.Errorf("start the program: %w", err)
	}
	if err := d.program.Ready(ctx, begun); err != nil {
		return fmt.Errorf("the program was started and is not ready: %w", err)
	}
	return nil
}

// stop stops the program and waits until nobody has the database open: by its command, and
// when that does not do it, by force. Its command is run also when nothing seems to run:
// what starts cannot be seen yet.
func (d *Database) stop(ctx context.Context) error {
	said := d.ask(ctx)
	if said == nil || ctx.Err() != nil {
		return said
	}
	hooks.Logger(ctx).Warn("the program does not stop and is killed", "database", d.c.Database, "err", said)
	ctx, cancel := context.WithTimeout(ctx, killing)
	defer cancel()
	if err := d.kill(ctx); err != nil {
		return fmt.Errorf("stop the program: %w", errors.Join(said, err))
	}
	if err := d.gone(ctx); err != nil {
		return fmt.Errorf("stop the program: %w", errors.Join(said, err))
	}
	return nil
}

// ask has the program stop by itself, within stop_timeout.
func (d *Database) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.c.StopTimeout)
	defer cancel()
	if err := d.tell(ctx, "stop", d.c.Stop); err != nil {
		return err
	}
	return d.gone(ctx)
}

// gone waits until the program does not run and nobody has the database open: the
// supervisor of a program may have ended before the program.
func (d *Database) gone(ctx context.Context) error {
	var last error
	err := await(ctx, func() bool {
		running, err := d.runs(ctx)
		last = err
		if running {
			last = errors.New("it still runs")
		}
		if holders := install.Holders(d.c.Database); err == nil && len(holders) > 0 {
			last = fmt.Errorf("%s still has the database open", strings.Join(holders, ", "))
		}
		return last == nil
	})
	if err != nil {
		return errors.Join(last, err)
	}
	return nil
}

// kill ends the program by force. Without a unit those are killed who have the database
// open, and nobody else.
func (d *Database) kill(ctx context.Context) error {
	if d.c.Unit != "" {
		return d.tell(ctx, "kill --signal=SIGKILL --kill-whom=all", nil)
	}
	var err error
	for _, pid := range install.HolderPIDs(d.c.Database) {
		fd, e := unix.PidfdOpen(pid, 0)
		if errors.Is(e, unix.ESRCH) {
			continue
		}
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		if slices.Contains(install.HolderPIDs(d.c.Database), pid) { // the number may have come to mean another one
			if e := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); e != nil && !errors.Is(e, unix.ESRCH) {
				err = errors.Join(err, fmt.Errorf("kill process %d: %w", pid, e))
			}
		}
		unix.Close(fd)
	}
	return err
}

// await looks until something is so, or the context ends.
func await(ctx context.Context, so func() bool) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
