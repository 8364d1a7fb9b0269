package guardian

import (
	"time"

	"github.com/carpd/carpd/carp"
)

const (
	// lookMost is the longest time between two looks at the page: by them the daemon
	// knows that its guardian lives.
	lookMost = time.Second
	// turnMost is how old the last turn of the daemon's loop may be before the loop
	// hangs; it waits a quarter of a second at most. Of short permits half a permit
	// is enough for a bow-out, but not for the hooks, which all instances share: after
	// a pause of some milliseconds the daemon cancels by itself those that it must.
	turnMost = time.Second
)

// sight is one instance as the guardian sees it.
type sight struct {
	until  carp.Instant  // end of its permit; 0: it holds none; taken
	permit time.Duration // how long a permit is at least, when it is given
	margin time.Duration // from the end of the permit until the fastest backup takes over
}

// verdict is what is to be done for one instance.
type verdict struct {
	clear bool // take its addresses off
	bow   bool // send its bow-outs
	hooks bool // end the hooks of the daemon, before all else
}

// judge says what to do at now. gone: the daemon has died without a goodbye; turned:
// when its loop turned last.
//
// A bow-out is not sent when a backup may have taken over: to those who follow that
// one it means nothing, but a BSD takes over by any.
func judge(now carp.Instant, gone bool, turned carp.Instant, s sight) verdict {
	switch {
	case s.until == 0:
		return verdict{}
	case s.until == taken:
		return verdict{clear: gone, hooks: gone || now.Sub(turned) > turnMost}
	case !gone && now < s.lapse():
		return verdict{}
	}
	silent := now.Sub(turned)
	hangs := silent > min(turnMost, s.permit/2)
	return verdict{clear: true, bow: (gone || hangs) && now < s.until.Add(s.margin), hooks: gone || silent > turnMost}
}

// lapse is the instant from which on the guardian acts, if the permit is not renewed.
// The margin is spent: the daemon's workers go first, and a loop that is late by
// less than a quarter of it has not been late for anybody.
func (s sight) lapse() carp.Instant { return s.until.Add(s.margin / 4) }

// next is when to look again. One that holds no permit now has none that ends
// sooner than a whole permit from now, whatever happens meanwhile.
func next(now carp.Instant, all []sight) carp.Instant {
	at := now.Add(lookMost)
	for _, s := range all {
		if s.until > 0 {
			at = min(at, s.lapse())
		} else {
			at = min(at, now.Add(s.permit))
		}
	}
	return max(at, now+1)
}
