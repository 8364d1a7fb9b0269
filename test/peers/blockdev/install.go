package blockdev

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// programs are the names under which the test binary is a stand-in.
func programs() map[string]func(dir string, args []string) int {
	server := func(dir string, _ []string) int { return say(runDaemon(dir), 1) }
	return map[string]func(string, []string) int{
		"hastctl": hastctl, "hastd": server,
		"drbdadm": drbdadm, "drbdsetup": drbdsetup, "drbd-kernel": server,
	}
}

// privateEnv tells the test binary that its mounts are its own.
const privateEnv = "CARPD_TEST_PRIVATE_MOUNTS"

// Enter is called first by TestMain. Where the test binary was started under the name of
// a stand-in, it is that, and does not return. Otherwise it runs itself again in a mount
// namespace of its own, which ends with its processes, and does not return either; the
// tests run there. Where that is not allowed it returns, and the tests skip by Possible.
func Enter() {
	if program := programs()[filepath.Base(os.Args[0])]; program != nil {
		unix.Exit(program(filepath.Dir(os.Args[0]), os.Args[1:])) // os.Exit of a -race build waits for a second
	}
	if os.Getenv(privateEnv) != "" || os.Geteuid() != 0 {
		return
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), privateEnv+"=yes")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // which Pdeathsig is about
	if cmd.Start() != nil {
		return
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() >= 0 {
		os.Exit(exit.ExitCode())
	}
	os.Exit(say(err, 1))
}

// Node is the stand-in of one node.
type Node struct {
	Settings
}

// Install makes the directory of a node, with its programs. The caller removes it.
func Install(set Settings) (*Node, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if set.Timeout == 0 {
		set.Timeout = 2 * time.Second
	}
	text, err := json.Marshal(set)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		os.MkdirAll(filepath.Join(set.Dir, "dev"), 0o755),
		os.MkdirAll(filepath.Join(set.Dir, "faults"), 0o755),
		os.WriteFile(filepath.Join(set.Dir, "settings"), text, 0o600))
	for name := range programs() {
		err = errors.Join(err, os.Symlink(self, filepath.Join(set.Dir, name)))
	}
	return &Node{set}, err
}

// Program is the path of one of the programs.
func (n *Node) Program(name string) string { return filepath.Join(n.Dir, name) }

// Daemon is the command that serves the device: hastd, or what stands for the kernel's
// module. It runs until it is killed, or this process ends.
func (n *Node) Daemon() (*exec.Cmd, error) {
	cmd := exec.Command(n.Program(map[string]string{"hast": "hastd", "drbd": "drbd-kernel"}[n.Kind]))
	_, err := cmd.StdinPipe() // which ends with this process, and the daemon with it
	return cmd, err
}

// Up reports whether the daemon answers.
func (n *Node) Up() bool {
	_, err := os.Stat(n.socket())
	return err == nil && ask(n.Settings, []string{"ping", n.Name}, -1) != -1
}

// Fault sets a fault, or ends it where the value is empty:
//
//	device-late     TIME  hast: the role is answered, and the device comes that much later
//	worker-fails    any   the worker of a primary fails: hast falls back to init
//	worker-lingers  TIME  the worker of a secondary outlives its connection
//	role-lies       any   a change of role is answered with success and not done
//	hold-sync       any   what the other node lacks is not sent
//	dirty           N     hastctl says that so many bytes are dirty
//	no-list         any   hastctl of FreeBSD 8: no list, and status writes what list does
//	exit-COMMAND    CODE  the control program fails at once
//	hang-COMMAND    TIME  the control program hangs
//	no-quorum       any   drbd: this node has no quorum
//	disk            STATE drbd: state of the own disk
func (n *Node) Fault(name, value string) error {
	path := filepath.Join(n.Dir, "faults", name)
	if value == "" {
		if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	return os.WriteFile(path, []byte(value), 0o600)
}

// Format makes a file system on the copy of a node whose daemon does not run, and writes
// the same on the other one: both are equal, as after a first synchronisation.
func Format(a, b *Node, mkfs ...string) error {
	disk := filepath.Join(a.Dir, "disk")
	f, err := os.Create(disk)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(a.Size), f.Close()); err != nil {
		return err
	}
	cmd := exec.Command(mkfs[0], append(mkfs[1:], disk)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", mkfs[0], err, out)
	}
	if out, err := exec.Command("cp", "--sparse=always", disk, filepath.Join(b.Dir, "disk")).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the disk: %w: %s", err, out)
	}
	return nil
}

// Possible returns why this machine cannot make the devices, nil if it can.
func Possible() error {
	if os.Getenv(privateEnv) == "" {
		return errors.New("mount namespaces cannot be made here: this is not root")
	}
	for _, path := range []string{"/dev/fuse", "/dev/loop-control"} {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("the kernel has no %s here: %w", path, err)
		}
		_ = unix.Close(fd)
	}
	return nil
}
