package daemon

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
)

// speakers is the loop that every speaker of the daemon runs in, on a thread of its
// own that goes before all ordinary ones where the kernel allows it.
type speakers struct {
	*carp.Loop
	realTime bool // the kernel allows it

	waiter *link.Waiter
	stop   context.CancelFunc
	done   chan struct{}
}

const (
	// spareProcs are the processors of Go's scheduler beside those that the machine
	// has. A thread in real time that comes back from a system call still needs one,
	// and ordinary goroutines hold theirs for up to 10 ms.
	spareProcs = 2
	// gcPercent makes the collector run a quarter as often as usual; each run takes
	// processors from the loop. It costs some ten megabytes.
	gcPercent = 400
)

// tuneRuntime makes room for the loop, unless the environment says otherwise.
// docs/benchmarks.md has what it is worth.
func tuneRuntime() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + spareProcs)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// startSpeakers starts the loop. Without the right to real time it says so in the
// log and goes on: adverts are late then when the machine is busy. turned is called
// by the loop after each of its turns, and must return at once; hold by its thread, and
// what it returns when the loop has ended.
func startSpeakers(log *slog.Logger, turned func(carp.Instant), hold func() (release func())) (*speakers, error) {
	waiter, err := link.OpenWaiter()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &speakers{Loop: carp.NewLoop(waiter), waiter: waiter, stop: stop, done: make(chan struct{})}
	s.Turned = func() { turned(link.Now()) }
	refused := make(chan error)
	go func() {
		defer close(s.done)
		runtime.LockOSThread() // never unlocked: the thread ends with its priority
		refused <- link.RealTime()
		defer hold()()
		s.Run(ctx)
	}()
	if err := <-refused; err != nil {
		log.Warn("adverts are not sent in real time, and late when this machine is busy: " + err.Error())
	} else {
		s.realTime = true
	}
	return s, nil
}

// end ends the loop, whose speakers have stopped, and waits for it.
func (s *speakers) end() error {
	s.stop()
	<-s.done
	return s.waiter.Close()
}
