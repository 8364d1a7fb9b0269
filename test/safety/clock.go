package safety

import (
	"context"
	"errors"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/test/lab"
)

// stamp is now, in nanoseconds since 1970, as the kernel stamps frames.
func stamp() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_REALTIME, &now) // cannot fail
	return now.Nano()
}

// sleepUntil sleeps until a stamp.
func sleepUntil(at int64) {
	t := unix.NsecToTimespec(at)
	for unix.ClockNanosleep(unix.CLOCK_REALTIME, unix.TIMER_ABSTIME, &t, nil) == unix.EINTR {
	}
}

// punctual makes the calling thread the caller's for good and, where that is
// allowed, puts it before all ordinary ones: what measures must not be later than
// what is measured. It sleeps nearly always.
func punctual() {
	runtime.LockOSThread()                             // never unlocked: the thread ends with the goroutine
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // 50 us is the default
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
	}, 0)
}

// await looks each 2 ms until cond is true; it reports whether it was in time.
func await(ctx context.Context, limit time.Duration, cond func() bool) (bool, error) {
	err := lab.Await(ctx, limit, cond)
	if errors.Is(err, lab.ErrTime) {
		return false, nil
	}
	return err == nil, err
}
