package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/hooks"
)

const (
	// grace is how long a session has between SIGTERM and SIGKILL.
	grace = 2 * time.Second
	// blind is how long after SIGKILL it is tried to see what lives, where /proc
	// cannot be read.
	blind = time.Second
	// drain is how long output is read after the program's session has gone: only
	// a process that left the session can still hold the pipe.
	drain = 500 * time.Millisecond
	// poll is how often a session that is told to end is looked at.
	poll = 20 * time.Millisecond
)

// onOwnThread runs work on a thread that nothing else uses, before or after.
func onOwnThread(work func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread never ends, and /proc/PID shows its umask. While it
			// is held here, the next goroutine gets another one.
			done <- onOwnThread(work)
			runtime.UnlockOSThread()
			return
		}
		done <- work() // never unlocked: the thread ends with this goroutine
	}()
	return <-done
}

// ownUmask gives the calling thread, and what it forks, the umask 077. Without
// CLONE_FS undone first, the umask of the whole daemon would change.
func ownUmask() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	unix.Umask(0o077)
	return nil
}

// prepare returns what starts the program.
func (c Command) prepare(out, errs *stream) *exec.Cmd {
	env := c.Env
	if env == nil {
		env = []string{"PATH=" + SearchPath}
	}
	cmd := &exec.Cmd{
		Path:      c.Path,
		Args:      append([]string{c.Path}, c.Args...),
		Env:       env,
		Dir:       "/",
		Stdout:    out,
		Stderr:    errs,
		WaitDelay: drain,
		SysProcAttr: &syscall.SysProcAttr{
			Setsid:     true,
			Pdeathsig:  syscall.SIGKILL,
			Credential: c.User,
		},
	}
	if c.Stdin != nil {
		cmd.Stdin = bytes.NewReader(c.Stdin) // not read: EPIPE, which os/exec ignores
	}
	return cmd
}

// supervise starts the program and sees it to its end. The program is reaped
// last: until then its process id, which is the id of its group and session,
// cannot come to mean somebody else.
func supervise(ctx context.Context, c Command, out *output) error {
	lines, errs := out.stream(stdout), out.stream(stderr)
	if err := closeOnExec(); err != nil {
		return fmt.Errorf("command: run %s: %w", c.Path, err)
	}
	dir := hooks.Cgroup(ctx)
	if c.Daemon {
		dir = nil
	}
	cmd, err := begin(ctx, dir, func() *exec.Cmd { return c.prepare(lines, errs) })
	if err != nil {
		return startError(cmd.Path, err)
	}
	exited := make(chan error, 1)
	go func() { exited <- awaitExit(cmd.Process.Pid) }()
	log := hooks.Logger(ctx)
	stays := false
	select {
	case err = <-exited:
		if stays = c.Daemon; stays {
			break // it may not even have left the session yet
		}
		if left, _ := survivors(cmd.Process.Pid, 0, nil); len(left) > 0 {
			log.Warn("hook left processes behind: they are ended; start what is to stay with systemctl or setsid", "pids", left)
		}
	case <-ctx.Done():
		log.Warn("hook is being stopped", "because", ctx.Err())
	}
	if !stays {
		err = errors.Join(err, endSession(cmd.Process.Pid))
	}
	waited := cmd.Wait()
	lines.flush()
	errs.flush()
	if err != nil {
		return fmt.Errorf("command: run %s: end all of its session: %w", cmd.Path, err)
	}
	return verdict(ctx, cmd, waited, out)
}

// begin starts the program, in a cgroup if there is one. Where that
// does not work (it was removed, or the kernel is not allowed to), the program is
// worth more than its cgroup.
func begin(ctx context.Context, dir *os.File, command func() *exec.Cmd) (*exec.Cmd, error) {
	cmd := command()
	if dir == nil {
		return cmd, cmd.Start()
	}
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	inside := cmd.Start()
	if inside == nil {
		return cmd, nil
	}
	cmd = command()
	err := cmd.Start()
	if err == nil {
		hooks.Logger(ctx).Warn("hook runs outside of the cgroup of the hooks: if the daemon is killed, what it has started runs on", "err", inside)
	}
	return cmd, err
}

// verdict turns the end of the program into the hook's result.
func verdict(ctx context.Context, cmd *exec.Cmd, waited error, out *output) error {
	state := cmd.ProcessState
	switch {
	case state == nil:
		return fmt.Errorf("command: run %s: wait: %w", cmd.Path, waited)
	case state.Success():
		return nil // also with ErrWaitDelay: somebody else holds the output
	case ctx.Err() != nil:
		return fmt.Errorf("command: run %s: stopped: %w: %s", cmd.Path, ctx.Err(), out.tail())
	}
	how := state.String() // "exit status 3", "signal: killed"
	if code := state.ExitCode(); code >= 0 {
		how = "exit code " + strconv.Itoa(code)
	}
	return &ExitError{Path: cmd.Path, Code: state.ExitCode(), How: how, Tail: out.tail()}
}

func startError(path string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint = ": the interpreter in its first line is missing"
	case errors.Is(err, syscall.ENOEXEC):
		hint = ": a script needs a first line such as #!/bin/sh"
	case errors.Is(err, fs.ErrPermission):
		hint = ": the user it runs as may not run it, or the daemon may not change to that user"
	}
	return fmt.Errorf("command: start %s: %w%s", path, err, hint)
}

// awaitExit returns when the process has exited, and leaves it to be reaped.
func awaitExit(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("waitid", err)
		}
	}
}

// endSession ends what is left of a session and returns when it is gone. A
// process that cannot die (stuck in the kernel) makes it wait: the runner
// leaves such a step behind and does not start it again.
func endSession(session int) error {
	if gone, _ := pursue(session, syscall.SIGTERM, grace); gone {
		return nil
	}
	_, err := pursue(session, syscall.SIGKILL, blind)
	return err
}

// pursue signals all of a session and polls until nothing of it lives: SIGKILL
// again with each look, another signal once to each group. It gives up when the
// time is over, but with SIGKILL only if it still cannot see what lives.
//
// The program's own group is signalled without a look at /proc, so it ends even
// if files or memory have run out. A process that forked and ended within one
// look may hide its child from it, so two looks in a row must find nothing.
func pursue(session int, signal syscall.Signal, most time.Duration) (gone bool, err error) {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	late := time.Now().Add(most)
	var told map[int]bool
	for empty := 0; ; {
		if told == nil || signal == syscall.SIGKILL {
			told = map[int]bool{session: true}
			_ = syscall.Kill(-session, signal) // ESRCH: gone; EPERM: seen below
		}
		var left []int
		if left, err = survivors(session, signal, told); err == nil && len(left) == 0 {
			if empty++; empty == 2 {
				return true, nil
			}
			continue
		}
		empty = 0
		if time.Now().After(late) && (err != nil || signal != syscall.SIGKILL) {
			return false, err
		}
		<-tick.C
	}
}

// survivors returns the living processes of a session, without zombies: where
// process 1 does not reap, those stay for ever. The group of each that is not
// told yet gets the signal on the spot, 0 for none: a group's id cannot come to
// mean somebody else within that moment, and a group lies in one session.
func survivors(session int, signal syscall.Signal, told map[int]bool) ([]int, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it ended in this moment
		}
		if err != nil {
			return nil, err
		}
		state, group, of, ok := parseStat(stat)
		if !ok || of != session || state == 'Z' || state == 'X' {
			continue
		}
		pids = append(pids, pid)
		if signal != 0 && !told[group] {
			told[group] = true
			_ = syscall.Kill(-group, signal)
		}
	}
	return pids, nil
}

// parseStat reads state, process group and session of /proc/PID/stat: "pid
// (name) state ppid pgrp session ...". The name may hold spaces and parentheses,
// so the last one counts.
func parseStat(stat []byte) (state byte, group, session int, ok bool) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, 0, 0, false
	}
	f := bytes.Fields(stat[i+1:])
	if len(f) < 4 || len(f[0]) != 1 {
		return 0, 0, 0, false
	}
	group, err := strconv.Atoi(string(f[2]))
	if err != nil {
		return 0, 0, 0, false
	}
	session, err = strconv.Atoi(string(f[3]))
	return f[0][0], group, session, err == nil
}

// closeOnExec marks all open files of this process: Go opens its own so, but
// the daemon may have been started with others.
func closeOnExec() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, fd := range fds {
		if n, err := strconv.Atoi(fd.Name()); err == nil && n > 2 {
			syscall.CloseOnExec(n)
		}
	}
	return nil
}
