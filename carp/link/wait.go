package link

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

// maxNap bounds a wait: its clock stands still while the machine is suspended, and
// CLOCK_BOOTTIME does not.
const maxNap = 250 * time.Millisecond

// Waiter is a carp.Waiter that keeps the thread in the kernel, which knows the
// nanosecond, and not in Go's poller, which knows the millisecond. OpenWaiter makes
// one. It is best on a thread of its own: see RealTime.
type Waiter struct {
	bell *os.File // an eventfd; blocking, so that the runtime's poller leaves it alone
	ring [8]byte
	seen [8]byte
	fds  []unix.PollFd
	nap  unix.Timespec
}

// OpenWaiter makes a waiter. Close releases it.
func OpenWaiter() (*Waiter, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("link: open a waiter: %w", err)
	}
	w := &Waiter{bell: os.NewFile(uintptr(fd), "eventfd"), fds: []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}}
	binary.NativeEndian.PutUint64(w.ring[:], 1)
	return w, nil
}

// Now implements carp.Waiter by CLOCK_BOOTTIME.
func (w *Waiter) Now() carp.Instant { return Now() }

// Wait implements carp.Waiter. It may return early after a signal.
func (w *Waiter) Wait(until carp.Instant) {
	nap := maxNap
	if until != 0 {
		nap = max(0, min(until.Sub(Now()), maxNap))
	}
	w.nap = unix.NsecToTimespec(int64(nap))
	if n, _ := unix.Ppoll(w.fds, &w.nap, nil); n == 1 {
		_, _ = unix.Read(int(w.fds[0].Fd), w.seen[:])
	}
}

// Wake implements carp.Waiter.
func (w *Waiter) Wake() { _, _ = w.bell.Write(w.ring[:]) }

// Close releases the waiter, once nothing waits by it any more. A Wake after that
// is harmless.
func (w *Waiter) Close() error { return w.bell.Close() }

// RealTime puts the calling thread, which runtime.LockOSThread holds, before all
// ordinary ones: SCHED_RR with the lowest priority of that kind. Threads and
// processes made by it are ordinary. Without CAP_SYS_NICE and RLIMIT_RTPRIO
// errors.Is(err, os.ErrPermission) holds; the thread then only wakes more exactly
// than others.
func RealTime() error {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	err := unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: 1,
	}, 0)
	if err != nil {
		return &OpError{
			Op: "schedule in real time", Object: "the thread of the adverts", Err: err,
			Hint: "give the daemon CAP_SYS_NICE, or LimitRTPRIO=1 in its unit",
		}
	}
	return nil
}
