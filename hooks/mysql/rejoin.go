package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/carpd/carpd/hooks"
)

// startTime is how long the threads of a replica may take to run: it logs in and asks for
// what follows.
const startTime = 5 * time.Second

// rejoin makes a server a replica of the one among views that is promoted, if it has
// nothing that that one has not. done is true when it is; an error that is no refusal
// passes.
func (db *DB) rejoin(ctx context.Context, who *server, views []view) (done bool, err error) {
	e, err := who.connect(ctx)
	if err != nil {
		return false, err
	}
	defer e.close()
	if err := e.alone(ctx); err != nil {
		return false, err
	}
	s, err := e.look(ctx)
	if err != nil {
		return false, err
	}
	to, found, err := primary(views)
	if err != nil {
		return false, hooks.Refuse(err)
	}
	if !found {
		return db.keep(ctx, e, s, views)
	}
	if s.role() != hooks.RoleDemoted {
		return false, hooks.Refuse(fmt.Errorf("%s can be written to, and so can %s", e.name, to.name))
	}
	// This one was asked after the primary: what it has and that one not may be new there.
	if err := db.fits(ctx, s, to); err != nil {
		return false, err
	}
	r := s.source()
	if r == nil || !r.at(to.server) || !r.byGTID {
		if err := db.point(ctx, e, s, to.server); err != nil {
			return false, err
		}
	} else if !r.running() {
		if err := e.exec(ctx, e.d.startBoth); err != nil {
			return false, err
		}
	}
	return true, e.runs(ctx)
}

// fits says why a server may not become the replica of another one: it has transactions
// that that one lacks.
func (db *DB) fits(ctx context.Context, s *state, to view) error {
	more := extra(s.executed, to.state.executed)
	if more.count() == 0 {
		return nil
	}
	e, err := to.connect(ctx)
	if err != nil {
		return err
	}
	defer e.close()
	now, err := e.look(ctx)
	if err != nil {
		return err
	}
	if more = extra(s.executed, now.executed); more.count() == 0 {
		return nil
	}
	return hooks.Refuse(diverged(s, to.name, more))
}

func diverged(s *state, other string, more gtids) error {
	return fmt.Errorf("%s has %d transactions that %s has not: %v: it stays read-only; save them with mysqlbinlog, then make it anew from a backup of the other",
		s.name, more.count(), other, more)
}

// keep lets a replica go on whose source is there, though nobody is promoted.
func (db *DB) keep(ctx context.Context, e *session, s *state, views []view) (done bool, err error) {
	r := s.source()
	if r == nil || s.role() != hooks.RoleDemoted {
		return false, errors.New("no peer is promoted")
	}
	if r.running() {
		return true, nil
	}
	for _, v := range views {
		if v.state != nil && r.at(v.server) {
			return true, e.resume(ctx, r)
		}
	}
	return false, errors.New("no peer is promoted, and its source does not answer")
}

// resume starts what does not run, the thread that applies first: see DB.start.
func (e *session) resume(ctx context.Context, r *replication) error {
	if r.sql != "Yes" {
		if err := e.exec(ctx, e.d.startSQL); err != nil {
			return err
		}
	}
	if r.io == "No" {
		return e.exec(ctx, e.d.startIO)
	}
	return nil
}

// point makes the server a replica of another one. What it received of its last source and
// did not apply comes again, from the new one.
func (db *DB) point(ctx context.Context, e *session, s *state, to *server) error {
	password, err := readSecret(db.ReplicationPasswordFile)
	if err != nil {
		return err
	}
	if len(s.sources) > 1 {
		return hooks.Refuse(fmt.Errorf("%s has several sources: only one can be left to this", e.name))
	}
	if len(s.sources) > 0 {
		if err := e.exec(ctx, e.d.stopBoth); err != nil {
			return err
		}
	}
	if e.d.maria && len(s.sources) == 0 {
		// What it wrote as a primary is part of where it is.
		if err := e.exec(ctx, "SET GLOBAL gtid_slave_pos = @@GLOBAL.gtid_current_pos"); err != nil {
			return err
		}
	}
	from := source{host: to.at.Addr().String(), port: to.at.Port(), user: db.ReplicationUser, password: password, ca: db.TLSCA}
	if err := e.exec(ctx, e.d.changeSource(from)); err != nil {
		return err
	}
	hooks.Logger(ctx).Info("it is pointed at a new source", "server", e.name, "source", to.name)
	return e.exec(ctx, e.d.startBoth)
}

// runs waits until both threads run.
func (e *session) runs(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	var last *replication
	err := until(within, glance, func() (bool, error) {
		s, err := e.look(ctx)
		if err != nil {
			return false, err
		}
		if last = s.source(); last == nil {
			return false, errors.New("its source went away meanwhile")
		}
		if fault := last.fault(); fault != "" && last.io == "No" {
			return false, hooks.Refuse(fmt.Errorf("%s does not replicate from %v: %s", e.name, last, fault))
		}
		return last.running(), nil
	})
	if err != nil && last != nil && errors.Is(err, context.DeadlineExceeded) {
		why := strings.TrimSpace(last.ioErr + " " + last.sqlErr)
		return fmt.Errorf("%s does not replicate from %v after %v: io %s, sql %s: %s", e.name, last, startTime, last.io, last.sql, why)
	}
	return err
}

// alone takes the lock under which a server is pointed somewhere: its own carpd and that of
// the new primary may both want to. It is free when the session ends.
func (e *session) alone(ctx context.Context) error {
	got, err := e.one(ctx, "SELECT GET_LOCK('carpd', 5)")
	if err == nil && got != "1" {
		err = fmt.Errorf("%s: somebody else is pointing it at a source", e.name)
	}
	return err
}
