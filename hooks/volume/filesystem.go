package volume

import (
	"cmp"
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
)

const (
	look    = 100 * time.Millisecond // between two looks at what is waited for
	killing = 5 * time.Second        // what is killed has this long to be gone
)

// Await looks at a condition until it is true: at once, then every 100 ms. An error of
// the condition ends it; when ctx ends first, the error is late.
func Await(ctx context.Context, late string, cond func() (bool, error)) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		ok, err := cond()
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", late, ctx.Err())
		}
	}
}

// tool finds a program.
func (v *Volume) tool(name string) (string, error) {
	for _, dir := range v.c.Path {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("volume: %s is not in %s: install it, or set path", name, strings.Join(v.c.Path, ", "))
}

// run runs a program and returns its exit code, -1 with an error if it has none.
func (v *Volume) run(ctx context.Context, name string, args ...string) (int, error) {
	path, err := v.tool(name)
	if err != nil {
		return -1, err
	}
	_, err = command.Run(ctx, command.Command{Path: path, Args: args})
	if exit, ok := errors.AsType[*command.ExitError](err); ok {
		return exit.Code, err
	}
	if err != nil {
		return -1, err
	}
	return 0, nil
}

// check checks the file system, which is not mounted.
func (v *Volume) check(ctx context.Context, device string) error {
	how := checkers()[v.c.Filesystem]
	if how.program == "" {
		return nil
	}
	if err := hooks.MarkNoReturn(ctx, "check"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, v.c.Check)
	defer cancel()
	code, err := v.run(ctx, how.program, append(slices.Clone(how.preen), device)...)
	if slices.Contains(how.more, code) {
		if !v.c.Repair {
			return hooks.Refuse(fmt.Errorf("volume: check %s: it asks for a repair by hand: run %s %s %s, or set repair: true: %w",
				device, how.program, strings.Join(how.full, " "), device, err))
		}
		hooks.Logger(ctx).Warn("the file system is repaired, with yes to all questions", "device", device)
		code, err = v.run(ctx, how.program, append(slices.Clone(how.full), device)...)
	}
	if slices.Contains(how.passed, code) {
		return nil
	}
	return fmt.Errorf("volume: check %s: %w", device, err)
}

// mount mounts the device where nothing is mounted, and looks whether that is so.
func (v *Volume) mount(ctx context.Context, device string) error {
	if err := v.warnOfFiles(ctx); err != nil {
		return err
	}
	if err := hooks.MarkNoReturn(ctx, "mount"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, v.c.MountTime)
	defer cancel()
	args := []string{"-t", v.c.Filesystem, "-o", strings.Join(append([]string{"rw"}, v.c.Options...), ","), device, v.c.Mount}
	_, err := v.run(ctx, "mount", args...)
	if err != nil {
		return fmt.Errorf("volume: mount %s: %w", device, err)
	}
	return v.mounted(device)
}

// warnOfFiles looks at the bare directory: what lies there was written while nothing was
// mounted, and is out of sight from now on.
func (v *Volume) warnOfFiles(ctx context.Context) error {
	entries, err := os.ReadDir(v.c.Mount)
	if err != nil {
		return hooks.Refuse(fmt.Errorf("volume: mount on %s: %w: make the directory", v.c.Mount, err))
	}
	if len(entries) > 0 {
		hooks.Logger(ctx).Warn("the directory under the mount is not empty: something wrote there while nothing was mounted",
			"directory", v.c.Mount, "first", entries[0].Name())
	}
	return nil
}

// mounted returns nil if the device is mounted as it should be.
func (v *Volume) mounted(device string) error {
	id, err := deviceNumber(device)
	if err != nil {
		return err
	}
	all, err := readMounts()
	if err != nil {
		return err
	}
	if err := verify(all, v.c.Mount, id, v.c.Filesystem); err != nil {
		return fmt.Errorf("volume: mount %s: %w", device, err)
	}
	return nil
}

// unmount takes all that is mounted on the directory off, never by force. While it is
// busy it is tried again: a process that was told to end may need a moment.
func (v *Volume) unmount(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, v.c.Unmount)
	defer cancel()
	var last error
	for tried := false; ; tried = true {
		all, err := readMounts() // what umount says is believed when the table says so
		if err != nil {
			return err
		}
		here := at(all, v.c.Mount)
		if len(here) == 0 {
			return nil
		}
		if tried && !pause(ctx, 2*look) {
			return fmt.Errorf("volume: unmount %s: held by %s: end them, it is not unmounted by force: %w",
				v.c.Mount, named(holders(here[len(here)-1].device, v.c.Mount)), cmp.Or(last, ctx.Err()))
		}
		if _, err = v.run(ctx, "umount", v.c.Mount); ctx.Err() == nil {
			last = err
		}
	}
}

// pause waits, and reports whether there is time left.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// free returns nil if nobody has the device any more, in whatever mount namespace.
func (v *Volume) free(ctx context.Context, device string) error {
	id, err := deviceNumber(device)
	if err != nil {
		return nil // the device is gone: there is nothing to hold
	}
	all, err := readMounts()
	if err != nil {
		return err
	}
	if points := of(all, id); len(points) > 0 {
		return fmt.Errorf("volume: release %s: it is mounted on %s: unmount it", device, strings.Join(points, ", "))
	}
	ctx, cancel := context.WithTimeout(ctx, v.c.Unmount)
	defer cancel()
	err = Await(ctx, "volume: release "+device, func() (bool, error) { return !claimed(device), nil })
	if err != nil {
		return fmt.Errorf("%w: it is in use, by %s", err, named(strangers(id)))
	}
	return nil
}

// claimed reports whether the kernel uses a block device for something: a mount anywhere,
// a volume group, a swap. A device that cannot be opened at all is not in use.
func claimed(device string) bool {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return errors.Is(err, unix.EBUSY)
	}
	return unix.Close(fd) != nil
}
