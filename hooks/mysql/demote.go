package mysql

import (
	"context"
	"errors"
	"fmt"

	"github.com/carpd/carpd/hooks"
)

// Demote makes this node's server refuse writes, ends all connections to it, and makes it
// a replica of the new primary if there is one already and that is safe. Where it is not,
// the server stays read-only, and Monitor says why. It implements hooks.Resource.
func (db *DB) Demote(ctx context.Context, ev hooks.Event) error {
	e, err := db.self.connect(ctx)
	if stopped(err) {
		hooks.Logger(ctx).Warn("the server does not run: there is nothing to demote", "err", err)
		return nil
	}
	if err != nil {
		return hooks.TryAgain(err)
	}
	defer e.close()
	s, err := e.look(ctx)
	if err != nil {
		return err
	}
	// A replica is in nobody's way; its readers may stay.
	if r := s.source(); s.role() != hooks.RoleDemoted || r == nil || !r.running() {
		if err := hooks.Mark(ctx, "read-only"); err != nil {
			return err
		}
		if err := e.fence(ctx); err != nil {
			if passing(err) {
				err = hooks.TryAgain(err)
			}
			return err
		}
		if s, err = e.look(ctx); err != nil {
			return err
		}
		db.gave = digest(s.executed)
	}
	if err := hooks.Mark(ctx, "switches"); err != nil {
		return err
	}
	if err := db.switches(ctx, e, false); err != nil {
		return err
	}
	if len(db.peers) == 0 {
		return nil
	}
	if err := hooks.Mark(ctx, "rejoin"); err != nil {
		return err
	}
	// It let go: what follows is not part of that.
	if _, err := db.rejoin(ctx, db.self, db.ask(ctx)); err != nil {
		hooks.Logger(ctx).Warn("not a replica yet", "err", err)
	}
	return nil
}

// Run follows a role that has moved. After it went away (after-down), it waits for the new
// primary and makes this node's server its replica. After it came (after-up), it points
// replicas of others here. It implements hooks.Hook.
func (db *DB) Run(ctx context.Context, ev hooks.Event) error {
	switch ev.Phase {
	case hooks.AfterDown:
		return db.follow(ctx)
	case hooks.AfterUp:
		return db.lead(ctx)
	}
	return nil
}

// follow waits until there is a primary to replicate from.
func (db *DB) follow(ctx context.Context) error {
	if len(db.peers) == 0 {
		return nil
	}
	last := errors.New("no peer is promoted")
	err := until(ctx, 10*glance, func() (bool, error) {
		done, err := db.rejoin(ctx, db.self, db.ask(ctx))
		if err != nil {
			last = err
		}
		if hooks.Refused(err) {
			return false, err
		}
		return done, nil
	})
	if err != nil && !hooks.Refused(err) {
		return fmt.Errorf("%w: %w", err, last)
	}
	return err
}

// lead points replicas of others here. Who has no source is left to its own carpd.
func (db *DB) lead(ctx context.Context) error {
	if len(db.peers) == 0 {
		return nil
	}
	if !db.self.at.IsValid() {
		return errors.New("address is missing: replicas need it to reach this server")
	}
	e, s, err := db.open(ctx)
	if err != nil {
		return err
	}
	e.close()
	if s.role() != hooks.RolePromoted {
		hooks.Logger(ctx).Info("not promoted: no replica is pointed here")
		return nil // the resource says so
	}
	self := view{server: db.self, state: s}
	var faults []error
	for _, v := range db.ask(ctx) {
		switch {
		case v.state == nil:
			hooks.Logger(ctx).Info("a peer does not answer, and is not pointed here", "server", v.name, "err", v.err)
		case v.role() == hooks.RolePromoted:
			faults = append(faults, fmt.Errorf("%s can be written to, too", v.name))
		case v.state.source() != nil && !v.state.source().at(db.self):
			_, err := db.rejoin(ctx, v.server, []view{self})
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
