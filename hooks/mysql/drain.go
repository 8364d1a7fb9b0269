package mysql

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/carpd/carpd/hooks"
)

// progressEvery is the pause between two lines that say how far a drain has come.
const progressEvery = 2 * time.Second

// drain lets a replica receive and apply all that it can get. Until then its two threads
// are never both stopped: MariaDB throws away what it received when they were.
func (db *DB) drain(ctx context.Context, e *session, m muster) error {
	if err := hooks.Mark(ctx, "apply"); err != nil {
		return err
	}
	late, cancel := context.WithTimeout(ctx, db.limit(ctx))
	defer cancel()
	s, err := e.look(ctx)
	if err != nil {
		return err
	}
	r := s.source()
	if r == nil {
		return hooks.TryAgain(errors.New("its source went away meanwhile"))
	}
	from, alive := m.find(func(v view) bool { return r.at(v.server) })
	if err := db.start(ctx, e, s, alive); err != nil {
		return err
	}
	if alive {
		// What is here and not there when that one is read-only never came from there.
		if errant := extra(s.executed, from.state.executed); errant.count() > 0 && from.role() == hooks.RoleDemoted {
			return hooks.Refuse(fmt.Errorf("errant: it has %d transactions that %s has not: %v", errant.count(), from.name, errant))
		}
		if err := db.receive(ctx, late, e, from); err != nil {
			return err
		}
	}
	if err := hooks.Mark(ctx, "stop-receiving"); err != nil {
		return err
	}
	if err := e.exec(ctx, e.d.stopIO); err != nil {
		return err
	}
	if err := db.apply(ctx, late, e); err != nil {
		return err
	}
	if s, err = e.look(ctx); err != nil {
		return err
	}
	if !alive {
		if err := db.stale(ctx, s); err != nil {
			return err
		}
	}
	return db.rivals(ctx, s, m)
}

// start makes the thread run that applies, without a touch to the one that receives, as
// long as that one is not needed: whoever starts it when both are stopped has MariaDB
// throw away what it received.
func (db *DB) start(ctx context.Context, e *session, s *state, alive bool) error {
	r := s.source()
	bothStopped := r.sql != "Yes" && r.io == "No"
	if lost := s.pending(); e.d.maria && bothStopped && !alive && lost.count() > 0 {
		err := fmt.Errorf("both of its threads were stopped with %d transactions received and not applied, which MariaDB throws away, and its source %v does not answer: %v",
			lost.count(), r, lost)
		if db.OnTimeout != Promote {
			return hooks.Refuse(fmt.Errorf("%w: start the source, or set on_timeout: promote", err))
		}
		hooks.Logger(ctx).Warn("transactions are lost", "count", lost.count(), "err", err)
	}
	if r.sql != "Yes" {
		if err := e.exec(ctx, e.d.startSQL); err != nil {
			return err
		}
	}
	switch {
	case !alive || r.io == "Yes":
		return nil
	case r.io == "No":
		return e.exec(ctx, e.d.startIO)
	}
	// It waits for its next try, which by default is a minute: the source is here now.
	if err := e.exec(ctx, e.d.stopIO); err != nil {
		return err
	}
	return e.exec(ctx, e.d.startIO)
}

// receive waits until all is here that the source had when it was made read-only.
func (db *DB) receive(ctx, late context.Context, e *session, from view) error {
	return db.await(ctx, late, e, "from "+from.name, func(s *state) (gtids, error) {
		if r := s.source(); r.io == "No" && r.ioErr != "" {
			return nil, hooks.Refuse(errors.New(r.fault()))
		}
		return extra(from.state.executed, s.executed), nil
	})
}

// apply waits until all is applied that was received.
func (db *DB) apply(ctx, late context.Context, e *session) error {
	return db.await(ctx, late, e, "received and not applied", func(s *state) (gtids, error) {
		missing := s.pending()
		if missing.count() > 0 && s.source().sql != "Yes" {
			return nil, hooks.Refuse(fmt.Errorf("somebody stopped the thread that applies, with %d transactions to go", missing.count()))
		}
		return missing, nil
	})
}

// await waits until nothing is missing. When it is late the policy decides.
func (db *DB) await(ctx, late context.Context, e *session, what string, rest func(*state) (gtids, error)) error {
	var missing gtids
	told := time.Now()
	err := until(late, glance, func() (bool, error) {
		s, err := e.look(ctx) // not late: the end of a context ends the connection
		if err != nil {
			return false, err
		}
		r := s.source()
		if r == nil {
			return false, errors.New("its source went away meanwhile")
		}
		if r.sqlErr != "" {
			return false, hooks.Refuse(errors.New(r.fault()))
		}
		if missing, err = rest(s); err != nil {
			return false, err
		}
		if time.Since(told) >= progressEvery {
			told = time.Now()
			hooks.Logger(ctx).Info("waiting for transactions", "which", what, "count", missing.count())
		}
		return missing.count() == 0, nil
	})
	if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if db.OnTimeout != Promote {
		return hooks.Refuse(fmt.Errorf("%d transactions %s after %v: %v: wait, or set on_timeout: promote and lose them",
			missing.count(), what, db.ApplyTimeout, missing))
	}
	hooks.Logger(ctx).Warn("transactions are lost", "count", missing.count(), "which", what, "names", missing.String())
	return nil
}

// stale decides about a replica whose source is gone: what it lacks is known as far as
// Monitor has seen the source.
func (db *DB) stale(ctx context.Context, s *state) error {
	missing := extra(db.seen.position, s.executed)
	if missing.count() == 0 {
		return nil
	}
	behind := db.seen.behind()
	if behind > db.LagLimit && db.OnTimeout != Promote {
		return hooks.Refuse(fmt.Errorf("it was %v behind when its source was last seen, and lacks at least %d transactions: %v: start the source, or set on_timeout: promote and lose them",
			behind.Round(time.Second), missing.count(), missing))
	}
	hooks.Logger(ctx).Warn("transactions are lost: the source had them when it was last seen",
		"count", missing.count(), "behind", behind, "names", missing.String())
	return nil
}

// rivals looks whether another replica has what this one does not: that one is to be
// promoted.
func (db *DB) rivals(ctx context.Context, s *state, m muster) error {
	for _, v := range m.here {
		more := extra(v.state.executed, s.executed)
		if more.count() == 0 {
			continue
		}
		if db.OnTimeout == Promote {
			hooks.Logger(ctx).Warn("transactions are left behind", "server", v.name, "count", more.count(), "names", more.String())
			continue
		}
		return hooks.Refuse(fmt.Errorf("%s has %d transactions that are not here: %v: promote that one", v.name, more.count(), more))
	}
	return nil
}
