package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// workRank is the priority in SCHED_RR of all threads but the loop's, which has 10.
	// The loop depends on them: on the collector of garbage, which stops the world for
	// an instant and must not be kept from starting it again, and on whoever holds a
	// lock.
	workRank = 1
	// rankEvery is how often threads that Go has made since are looked for. They begin
	// with an ordinary rank, as hooks and the guardian do, and hold others up on a busy
	// machine. It takes some 30 us.
	rankEvery = 50 * time.Millisecond
	// workLimit is how long a thread may compute in real time without once waiting. One
	// that does so longer would take the machine away from everybody else.
	workLimit = 2 * time.Second
)

// keepRank has all threads of the daemon in real time, where the loop is, until ctx
// ends; or until one of them computes without end (RLIMIT_RTTIME, SIGXCPU): then all
// but the loop's get an ordinary rank again, which an alarm says.
func (d *Daemon) keepRank(ctx context.Context) {
	endless := make(chan os.Signal, 1)
	signal.Notify(endless, unix.SIGXCPU)
	defer signal.Stop(endless)
	if err := limitWork(); err != nil {
		d.log.Warn("adverts may be late when this machine is busy: " + err.Error())
		return
	}
	runtime.LockOSThread() // never unlocked: this one is among the first to be raised
	for nap := unix.NsecToTimespec(int64(rankEvery)); ; _ = unix.Nanosleep(&nap, nil) {
		if err := rankThreads(raised); err != nil {
			d.log.Warn("adverts may be late when this machine is busy: " + err.Error())
			return
		}
		select {
		case <-ctx.Done():
			return
		default:
		case <-endless:
			text := fmt.Sprintf("a thread computed for %v without waiting: all but that of the adverts run as ordinary ones until the next start", workLimit)
			if err := rankThreads(lowered); err != nil {
				text += ": " + err.Error()
			}
			d.book.raise("", "real-time", text)
			return
		}
	}
}

// limitWork sets workLimit. The hard limit, which kills, stays as it is.
func limitWork() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_RTTIME, &limit); err != nil {
		return fmt.Errorf("daemon: read the limit of real time: %w", err)
	}
	limit.Cur = min(limit.Max, uint64(workLimit.Microseconds()))
	if err := unix.Setrlimit(unix.RLIMIT_RTTIME, &limit); err != nil {
		return fmt.Errorf("daemon: limit real time: %w", err)
	}
	return nil
}

// raised is what becomes of an ordinary thread, nil for one that is in real time. What
// it makes begins as an ordinary one.
func raised(now *unix.SchedAttr) *unix.SchedAttr {
	if now.Policy != unix.SCHED_NORMAL {
		return nil
	}
	return &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: workRank,
	}
}

// lowered is the reverse.
func lowered(now *unix.SchedAttr) *unix.SchedAttr {
	if now.Policy != unix.SCHED_RR || now.Priority != workRank {
		return nil
	}
	return &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
}

// rankThreads changes all threads of this process, once. Those that come meanwhile may
// be overlooked.
func rankThreads(change func(*unix.SchedAttr) *unix.SchedAttr) error {
	all, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("daemon: list the threads: %w", err)
	}
	for _, e := range all {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		now, err := unix.SchedGetAttr(tid, 0)
		if err == nil {
			if to := change(now); to != nil {
				err = unix.SchedSetAttr(tid, to, 0)
			}
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
			return fmt.Errorf("daemon: schedule a thread: %w", err)
		}
	}
	return nil
}
