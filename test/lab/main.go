package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// inside marks the second self, which must not start a third.
const inside = "CARPD_LAB_INSIDE"

// Main runs the tests of a package and exits: call it from TestMain, with its
// *testing.M. Where this process may not make network namespaces it runs the test
// binary again as root of a new user namespace. If that is refused too, the tests
// run all the same and those that call New skip.
func Main(m interface{ Run() int }) {
	if os.Getenv(inside) == "" && !permitted() {
		if code, err := again(); err == nil {
			os.Exit(code)
		}
	}
	os.Exit(m.Run())
}

// permitted reports whether a network namespace can be made as things are.
func permitted() bool {
	ns, err := newNamespace()
	if err != nil {
		return false
	}
	ns.close()
	return true
}

// again runs this binary in new user, network and mount namespaces and returns
// its exit code. The error says that it could not be started.
func again() (int, error) {
	runtime.LockOSThread() // Pdeathsig follows the thread that forks
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	// A terminal signals both of us; others signal the parent only.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("lab: start again in a user namespace: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s) // it may be gone already
		case err := <-done:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 1, nil
			}
			if code := cmd.ProcessState.ExitCode(); code >= 0 {
				return code, nil
			}
			return 1, nil // ended by a signal
		}
	}
}
