package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ownNet is the namespace of the calling thread, not of the process.
const ownNet = "/proc/thread-self/ns/net"

// namespace is an anonymous network namespace. It lives as long as its file,
// its sockets and the processes in it.
type namespace struct {
	file  *os.File
	inode uint64
	nl    *netlink.Handle
	jobs  chan func() // run on the namespace's own thread
	once  sync.Once
}

func newNamespace() (*namespace, error) {
	file, err := unshare()
	if err != nil {
		return nil, fmt.Errorf("lab: create network namespace: %w", err)
	}
	ns := &namespace{file: file, jobs: make(chan func())}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lab: stat network namespace: %w", err)
	}
	ns.inode = st.Ino
	if ns.nl, err = netlink.NewHandleAt(netns.NsHandle(ns.fd())); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lab: open netlink in a new namespace: %w", err)
	}
	started := make(chan error)
	go ns.thread(started)
	if err := <-started; err != nil {
		ns.nl.Close()
		_ = file.Close()
		return nil, err
	}
	return ns, nil
}

// unshare makes a namespace on the calling thread, and takes the thread back.
func unshare() (made *os.File, err error) {
	runtime.LockOSThread()
	home, err := os.Open(ownNet)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	made, err = os.Open(ownNet)
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked, so that no other goroutine gets it.
		return nil, errors.Join(err, back)
	}
	runtime.UnlockOSThread()
	return made, err
}

// thread lives in the namespace and starts its processes. A child's Pdeathsig
// follows the thread that forked it: this one ends in close, never before.
func (ns *namespace) thread(started chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	err := unix.Setns(ns.fd(), unix.CLONE_NEWNET)
	if err != nil {
		err = fmt.Errorf("lab: enter network namespace: %w", err)
	}
	started <- err
	for job := range ns.jobs {
		job()
	}
}

func (ns *namespace) fd() int { return int(ns.file.Fd()) }

// do runs f on the caller's goroutine with its thread in the namespace.
func (ns *namespace) do(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open(ownNet)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("lab: open own network namespace: %w", err)
	}
	defer func() {
		// If there is no way back, the thread stays locked and ends with the goroutine.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		_ = home.Close()
	}()
	if err := unix.Setns(ns.fd(), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("lab: enter network namespace: %w", err)
	}
	return f()
}

// spawn runs f on the namespace's own thread and returns its error.
func (ns *namespace) spawn(f func() error) error {
	done := make(chan error, 1)
	ns.jobs <- func() { done <- f() }
	return <-done
}

// sysctl writes below /proc/sys/net, which shows the caller's namespace.
func (ns *namespace) sysctl(key, value string) error {
	return ns.do(func() error {
		if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0o644); err != nil {
			return fmt.Errorf("lab: set net/%s: %w", key, err)
		}
		return nil
	})
}

// pids lists the processes whose main thread is in the namespace, but for this
// test itself.
func (ns *namespace) pids() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		var st unix.Stat_t
		if unix.Stat("/proc/"+e.Name()+"/ns/net", &st) == nil && st.Ino == ns.inode {
			found = append(found, pid)
		}
	}
	return found
}

// close lets the namespace go; the kernel takes it down when its last socket
// and process are gone.
func (ns *namespace) close() {
	ns.once.Do(func() {
		close(ns.jobs)
		ns.nl.Close()
		_ = ns.file.Close()
	})
}
