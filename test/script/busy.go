package script

import (
	"sync"
	"sync/atomic"
	"time"
)

// A machine that is this late with a timer cannot be trusted with times: a failed
// scenario is played again, maxPlays times at most.
const (
	tooLate  = 100 * time.Millisecond
	maxPlays = 3
)

// pulse measures how late this machine is.
type pulse struct {
	worst atomic.Int64 // nanoseconds
	quit  chan struct{}
	ended sync.WaitGroup
}

// beat is how often a pulse is taken.
const beat = 5 * time.Millisecond

func newPulse() *pulse {
	p := &pulse{quit: make(chan struct{})}
	p.ended.Go(p.run)
	return p
}

func (p *pulse) run() {
	for {
		began := time.Now()
		timer := time.NewTimer(beat)
		select {
		case <-timer.C:
			if late := int64(time.Since(began) - beat); late > p.worst.Load() {
				p.worst.Store(late)
			}
		case <-p.quit:
			timer.Stop()
			return
		}
	}
}

// stop ends the measuring and returns the longest lateness.
func (p *pulse) stop() time.Duration {
	close(p.quit)
	p.ended.Wait()
	return time.Duration(p.worst.Load())
}
