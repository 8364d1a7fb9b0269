package daemon

import (
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
)

// watchdog tells systemd that the loop of the adverts lives (WatchdogSec= of the
// unit). It is fed by the loop itself: who only reports that the process lives would
// keep one alive that has stopped to speak. The zero value does nothing.
type watchdog struct {
	stop, done chan struct{}
	starving   atomic.Bool
}

// feedings is how often it is fed in the time that systemd grants.
const feedings = 4

// turned is called by the loop after each turn.
func (d *Daemon) turned(now carp.Instant) {
	d.lastTurn.Store(int64(now))
	d.guard.keeper.Turned(now)
}

// start feeds the watchdog until end, if systemd wants that (WATCHDOG_USEC). turn is
// when the loop turned last.
func (w *watchdog) start(turn *atomic.Int64) {
	granted, err := daemon.SdWatchdogEnabled(false)
	if err != nil || granted <= 0 {
		return // nobody asks for it, or in words that systemd does not use
	}
	w.stop, w.done = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(w.done)
		tick := time.NewTicker(max(granted/feedings, time.Millisecond))
		defer tick.Stop()
		for {
			if feeds(link.Now(), carp.Instant(turn.Load()), granted) && !w.starving.Load() {
				daemon.SdNotify(false, daemon.SdNotifyWatchdog) // an error means that nobody listens
			}
			select {
			case <-tick.C:
			case <-w.stop:
				return
			}
		}
	}()
}

// feeds reports whether a loop that turned last at that instant lives: it turns four
// times a second though it has nothing to do, so half of what systemd grants is
// ample. Before its first turn it does not live.
func feeds(now, turned carp.Instant, granted time.Duration) bool {
	return turned != 0 && now.Sub(turned) < granted/2
}

// starve stops the feeding for good, so that systemd ends the service and does what its
// unit says of that (FailureAction=).
func (w *watchdog) starve() { w.starving.Store(true) }

// end stops the feeding: nothing is left that could hang.
func (w *watchdog) end() {
	if w.stop != nil {
		close(w.stop)
		<-w.done
	}
}
