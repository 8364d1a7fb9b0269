package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// deaths tells when processes end, by their pidfds. The zero value watches none; it does
// so while await runs.
type deaths struct {
	mu     sync.Mutex
	epoll  int // of the pidfds; 0: await does not run
	pidfds map[int]int
	tell   func()
}

// watch changes which processes are watched. One that has ended already is told of.
func (d *deaths) watch(pids []int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.epoll == 0 {
		return nil
	}
	for pid := range d.pidfds {
		if !slices.Contains(pids, pid) {
			d.forget(pid)
		}
	}
	for _, pid := range pids {
		if _, known := d.pidfds[pid]; known {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			d.tell()
			continue
		}
		if err != nil {
			return fmt.Errorf("open a pidfd, which Linux has since 5.3: %w", err)
		}
		if err := unix.EpollCtl(d.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(pid)}); err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("watch a pidfd: %w", err)
		}
		d.pidfds[pid] = fd
	}
	return nil
}

// forget stops watching a process. The caller holds mu.
func (d *deaths) forget(pid int) {
	_ = unix.Close(d.pidfds[pid]) // which takes it out of the epoll
	delete(d.pidfds, pid)
}

// await calls tell each time that a process ends, until ctx ends.
func (d *deaths) await(ctx context.Context, tell func()) error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true) // so that the runtime waits for it, and no thread
	}
	if err != nil {
		return fmt.Errorf("make an epoll: %w", err)
	}
	file := os.NewFile(uintptr(fd), "epoll")
	defer file.Close()
	raw, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("make an epoll: %w", err)
	}
	d.open(fd, tell)
	defer d.close()
	defer context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })()
	tell() // nothing has been watched so far
	for {
		var events [maxWatched]unix.EpollEvent
		n, fault := 0, error(nil)
		err := raw.Read(func(fd uintptr) bool {
			n, fault = unix.EpollWait(int(fd), events[:], 0)
			return n > 0 || fault != nil && !errors.Is(fault, unix.EINTR)
		})
		if ctx.Err() != nil {
			return nil
		}
		if err = errors.Join(err, fault); err != nil {
			return fmt.Errorf("wait for the end of a process: %w", err)
		}
		d.ended(events[:n])
		tell()
	}
}

func (d *deaths) open(epoll int, tell func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.epoll, d.pidfds, d.tell = epoll, map[int]int{}, tell
}

func (d *deaths) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for pid := range d.pidfds {
		d.forget(pid)
	}
	d.epoll = 0
}

func (d *deaths) ended(events []unix.EpollEvent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range events {
		if _, known := d.pidfds[int(e.Fd)]; known {
			d.forget(int(e.Fd))
		}
	}
}
