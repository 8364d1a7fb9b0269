package link

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

const (
	// maxNap bounds a wait: its clock stands still while the machine is suspended, and
	// CLOCK_BOOTTIME does not.
	maxNap = 250 * time.Millisecond
	// flockSlot is how long a Waiter lets packets gather after a read that found
	// several: the adverts of many virtual routers come together, and each of them
	// would be a wake-up.
	flockSlot = 200 * time.Microsecond
	// readBudget bounds the batches that are read from one interface before timers
	// have their turn again.
	readBudget = 2
	// failedRest is how long a socket is left alone that cannot be read: a thread in
	// real time must not spin on an error that does not end.
	failedRest = 10 * time.Millisecond
)

// Waiter is a carp.Waiter that keeps the thread in the kernel, which knows the
// nanosecond, and not in Go's poller, which knows the millisecond. OpenWaiter makes
// one. It is best on a thread of its own: see RealTime.
//
// It reads the sockets of the interfaces that were opened with it (Options), and so
// is a carp.PacketReader: packets then depend on no other thread. Wait and Read are
// called by one goroutine, the rest by any.
type Waiter struct {
	bell   *os.File // an eventfd; blocking, so that the runtime's poller leaves it alone
	ring   [8]byte
	rung   atomic.Bool // Wake was called since the last Wait
	asleep atomic.Bool // the bell is needed to be heard

	mu      sync.Mutex // guards changes of sources
	sources atomic.Pointer[[]*Interface]

	// Used by Wait and Read only.
	seen   [8]byte
	known  *[]*Interface // what fds was made of
	fds    []unix.PollFd // the bell, then the sockets
	rests  []carp.Instant
	gather carp.Instant // until then packets are let gather
	nap    unix.Timespec
}

// OpenWaiter makes a waiter. Close releases it.
func OpenWaiter() (*Waiter, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("link: open a waiter: %w", err)
	}
	w := &Waiter{bell: os.NewFile(uintptr(fd), "eventfd"), fds: []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}}
	binary.NativeEndian.PutUint64(w.ring[:], 1)
	w.known = &[]*Interface{}
	w.sources.Store(w.known)
	return w, nil
}

// Now implements carp.Waiter by CLOCK_BOOTTIME.
func (w *Waiter) Now() carp.Instant { return Now() }

// Wait implements carp.Waiter. It may return early after a signal, and does after
// packets.
func (w *Waiter) Wait(until carp.Instant) {
	now := Now()
	end := now.Add(maxNap)
	if until != 0 {
		end = min(end, until)
	}
	w.asleep.Store(true)
	look := true // into the sockets; of no use when none of them woke us
	switch {
	case w.rung.Load() || end <= now: // who rings from now on sees asleep, and is heard
	case w.gather > now:
		w.sleep(w.fds[:1], min(end, w.gather).Sub(now))
	default:
		look = w.sleep(w.fds, min(end, w.prepare(now)).Sub(now))
	}
	w.asleep.Store(false)
	w.rung.Store(false)
	if look {
		w.Read()
	}
}

// sleep waits for what is in fds, and reports whether a socket has something.
func (w *Waiter) sleep(fds []unix.PollFd, nap time.Duration) bool {
	w.nap = unix.NsecToTimespec(int64(nap))
	n, _ := unix.Ppoll(fds, &w.nap, nil)
	if n > 0 && fds[0].Revents != 0 {
		_, _ = unix.Read(int(fds[0].Fd), w.seen[:])
		n--
	}
	return n > 0
}

// prepare makes fds of the sources, without those that rest, and returns when the first
// of these is to be looked at again: what comes meanwhile would wake nobody.
func (w *Waiter) prepare(now carp.Instant) (until carp.Instant) {
	w.refresh()
	until = now.Add(maxNap)
	for n, i := range *w.known {
		w.fds[n+1].Fd = int32(i.wire.fd)
		if w.rests[n] > now {
			w.fds[n+1].Fd = -1 // poll(2) passes it over
			until = min(until, w.rests[n])
		}
	}
	return until
}

// refresh takes up sources that have come or gone.
func (w *Waiter) refresh() {
	if now := w.sources.Load(); now != w.known {
		w.known = now
		w.fds = append(w.fds[:1], make([]unix.PollFd, len(*now))...)
		for n := range *now {
			w.fds[n+1].Events = unix.POLLIN
		}
		w.rests = make([]carp.Instant, len(*now))
	}
}

// Read implements carp.PacketReader.
func (w *Waiter) Read() {
	w.refresh()
	most, left := 0, false
	for n, i := range *w.known {
		got, more, err := i.wire.take(readBudget)
		if err != nil {
			w.rests[n] = Now().Add(failedRest)
		}
		most, left = max(most, got), left || more
	}
	w.gather = 0
	if most > 1 && !left {
		w.gather = Now().Add(flockSlot)
	}
}

// Wake implements carp.Waiter.
func (w *Waiter) Wake() {
	if !w.rung.Swap(true) && w.asleep.Load() {
		_, _ = w.bell.Write(w.ring[:])
	}
}

// add has the waiter read an interface from now on.
func (w *Waiter) add(i *Interface) {
	w.change(func(all []*Interface) []*Interface { return append(all, i) })
}

// remove ends that. A Read that is under way may go on.
func (w *Waiter) remove(i *Interface) {
	w.change(func(all []*Interface) []*Interface {
		return slices.DeleteFunc(all, func(other *Interface) bool { return other == i })
	})
}

func (w *Waiter) change(f func([]*Interface) []*Interface) {
	w.mu.Lock()
	all := f(slices.Clone(*w.sources.Load()))
	w.sources.Store(&all)
	w.mu.Unlock()
	w.Wake()
}

// Close releases the waiter, once nothing waits by it any more. A Wake after that
// is harmless.
func (w *Waiter) Close() error { return w.bell.Close() }

// The priorities of RealTime: above what asks for real time without a thought, far
// below the kernel's threads of interrupts (50); and the least, for those whose
// RLIMIT_RTPRIO allows no more.
const (
	rank      = 10
	leastRank = 1
)

// RealTime puts the calling thread, which runtime.LockOSThread holds, before all
// ordinary ones: SCHED_RR with a low priority of that kind. Threads and processes
// made by it are ordinary. Without CAP_SYS_NICE and RLIMIT_RTPRIO
// errors.Is(err, os.ErrPermission) holds; the thread then only wakes more exactly
// than others.
func RealTime() error {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	err := schedule(rank)
	if err != nil {
		err = schedule(leastRank)
	}
	if err != nil {
		return &OpError{
			Op: "schedule in real time", Object: "the thread of the adverts", Err: err,
			Hint: "give the daemon CAP_SYS_NICE, or LimitRTPRIO=10 in its unit",
		}
	}
	return nil
}

func schedule(priority uint32) error {
	return unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: priority,
	}, 0)
}
