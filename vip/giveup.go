package vip

import (
	"context"
	"time"

	"github.com/carpd/carpd/carp"
)

const (
	// patience is how long none of the addresses can be put back before the set gives
	// up, which serves no more than a dead node would.
	patience = 500 * time.Millisecond
	// patientTry is the time between two attempts meanwhile. All of them are among those
	// of a full bucket, see restoreBurst.
	patientTry = 100 * time.Millisecond
)

// defeat is a mastership that could not be served any longer.
type defeat struct {
	epoch carp.Epoch
	err   error
}

// none reports whether what is placed is known to be off, all of it. Of an interface
// that is gone nothing is known: the loop hears of that by itself.
func (st *state) none() bool {
	return len(st.placed) > 0 && len(absent(st.placed, st.present)) == len(st.placed)
}

// despair records an attempt to put addresses back that has failed at now, and reports
// whether to give up: none was on, since patience or longer ago, in spite of attempts.
func (st *state) despair(now carp.Instant) bool {
	switch {
	case !st.serving || !st.none():
		st.lostAt = 0
		return false
	case st.lostAt == 0:
		st.lostAt = now
	}
	st.lookAt = now.Add(patientTry)
	return now.Sub(st.lostAt) >= patience
}

// backFailed is lookFailed for an attempt to put addresses back, and gives up in the
// end. The caller has the token.
func (s *Set) backFailed(err error, epoch carp.Epoch) {
	s.lookFailed(err, epoch)
	if s.giveUp == nil {
		return
	}
	now := s.clock()
	s.mu.Lock()
	over := s.state.despair(now)
	if over {
		s.end(EventFailed)
		s.state.owed = &defeat{s.state.epoch, err}
	}
	s.mu.Unlock()
	if over {
		_ = s.clear(context.Background()) // what is left is retried, and told, by the worker
	}
}

// confess tells that a mastership was given up, now that nothing of it is left.
func (s *Set) confess(d *defeat) {
	if d != nil {
		go s.giveUp(d.epoch, d.err)
	}
}
