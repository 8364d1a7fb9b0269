package bench

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// beat is how often a pulse wakes, as often as the client asks.
const beat = time.Millisecond

// maxBeats bounds a pulse: ten minutes.
const maxBeats = 600_000

// stamp is now, as the kernel stamps frames.
func stamp() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_REALTIME, &now) // cannot fail
	return now.Nano()
}

// pulse is a thread of ordinary rank that wakes each millisecond and notes how late
// it was: so late is everything else that is measured, and the client's questions.
type pulse struct {
	each    func(n int) // nil: nothing
	stopped atomic.Bool
	ended   sync.WaitGroup
	late    []time.Duration
}

// newPulse starts one, which calls each, unless it is nil, as often as it wakes.
func newPulse(expected time.Duration, each func(n int)) *pulse {
	p := &pulse{each: each, late: make([]time.Duration, 0, min(int(expected/beat)*5/4+1000, maxBeats))}
	p.ended.Go(p.run)
	return p
}

func (p *pulse) run() {
	runtime.LockOSThread()                             // never unlocked: the thread ends with the goroutine
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // 50 us is the default
	next := monotonic()
	for n := range maxBeats {
		if p.stopped.Load() {
			return
		}
		next += int64(beat)
		sleepUntil(unix.CLOCK_MONOTONIC, next)
		now := monotonic()
		p.late = append(p.late, time.Duration(now-next))
		if p.each != nil {
			p.each(n)
		}
		next = max(next, now-int64(beat)) // what was slept through is one lateness
	}
}

// stop ends the pulse and returns how late it was.
func (p *pulse) stop() []time.Duration {
	p.stopped.Store(true)
	p.ended.Wait()
	return p.late
}

func monotonic() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // cannot fail
	return now.Nano()
}

// sleepUntil sleeps until an instant of a clock.
func sleepUntil(clock int32, at int64) {
	t := unix.NsecToTimespec(at)
	for unix.ClockNanosleep(clock, unix.TIMER_ABSTIME, &t, nil) == unix.EINTR {
	}
}
