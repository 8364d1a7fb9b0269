package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// insideKey names the environment variable that tells the second self that it
// is inside, and its options.
const insideKey = "CARPD_DEMO_INSIDE"

// hintNamespaces is for systems that forbid what the demo needs.
const hintNamespaces = "run it as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1 (Debian), kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)"

// insideOptions returns the options given by the first self; ok is false in the
// first self.
func insideOptions() (o Options, ok bool, err error) {
	text, ok := os.LookupEnv(insideKey)
	if !ok {
		return o, false, nil
	}
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return o, true, fmt.Errorf("demo: read options: %w", err)
	}
	return o, true, os.Unsetenv(insideKey) // carpd is not inside
}

// enter starts the second self in its namespaces and waits for it.
func enter(ctx context.Context, out io.Writer, o Options) error {
	options, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("demo: write options: %w", err)
	}
	runtime.LockOSThread() // Pdeathsig follows the thread that forks
	defer runtime.UnlockOSThread()
	const flags = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID
	var cmd *exec.Cmd
	var complaint bytes.Buffer
	start := func(flags uintptr) error {
		cmd = exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
		cmd.Args[0] = os.Args[0]
		cmd.Env = append(os.Environ(), insideKey+"="+string(options))
		cmd.Stdout, cmd.Stderr = out, &complaint
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
		cmd.WaitDelay = 5 * time.Second
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
		if flags&syscall.CLONE_NEWUSER != 0 {
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
		}
		return cmd.Start()
	}
	err = syscall.EPERM
	if os.Geteuid() == 0 {
		err = start(flags)
	}
	if errors.Is(err, syscall.EPERM) { // not root, or root of a container
		err = start(flags | syscall.CLONE_NEWUSER)
	}
	if err != nil {
		return fmt.Errorf("demo: make namespaces: %w; %s", err, hintNamespaces)
	}
	err = cmd.Wait()
	if text := strings.TrimSpace(complaint.String()); err != nil && text != "" {
		return errors.New(text)
	}
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}

// furnish gives the second self a private /run, so that `ip netns` works and
// nothing of it is seen outside, and a /proc with its own process numbers.
func furnish() error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("demo: make mounts private: %w; %s", err, hintNamespaces)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=64m"); err != nil {
		return fmt.Errorf("demo: mount a private /run: %w; %s", err, hintNamespaces)
	}
	// Some containers forbid it; the numbers are then read from NSpid.
	_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	return nil
}
