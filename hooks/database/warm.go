package database

import (
	"context"
	"errors"
	"fmt"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/install"
)

// upWarm makes the newest configuration the one of a program that runs on all nodes.
func (d *Database) upWarm(ctx context.Context, ev hooks.Event, running bool) error {
	if !running {
		if err := hooks.MarkNoReturn(ctx, "start"); err != nil {
			return err
		}
		if err := d.start(ctx); err != nil {
			return err
		}
	}
	store, err := d.open(ctx)
	if err != nil {
		return err
	}
	what, err := d.restore(ctx, ev, store)
	if err != nil {
		return err
	}
	hooks.Logger(ctx).Info("configuration chosen", "database", d.c.Database, "it is", what)
	if err := hooks.Mark(ctx, "promoted"); err != nil {
		return err
	}
	return d.inService(ctx, ev, store)
}

// restore gives the program the newest configuration that it serves with, and says which
// that is.
func (d *Database) restore(ctx context.Context, ev hooks.Event, store *dir.Store) (what string, err error) {
	all, err := store.List(ctx)
	if err != nil {
		return "", err
	}
	state, err := d.place.State()
	if err != nil {
		return "", err
	}
	if len(all) > 0 && newer(state, all[0], ev.Node) {
		err := d.present(ctx)
		if err == nil {
			return "what it runs with: newer than the newest snapshot, " + all[0].Version.String(), nil
		}
		hooks.Logger(ctx).Warn("what it runs with was the newest, and cannot be used", "err", err)
	}
	var faults []error
	tries := 0
	for _, m := range all[:min(len(all), install.MaxTries)] {
		if tries == d.c.Tries {
			break
		}
		if err := hooks.MarkNoReturn(ctx, "restore"); err != nil {
			return "", err
		}
		// From here on it is not what was in service here, whatever becomes of it.
		if err := d.notServed(); err != nil {
			return "", err
		}
		verdict, err := d.place.Look(ctx, store, m, func(path string) error { return d.program.Restore(ctx, path) })
		switch {
		case verdict.Sound() && err == nil:
			return "snapshot " + m.Version.String() + " of " + m.Source, d.installed(m.Version)
		case ctx.Err() != nil:
			return "", err
		case !verdict.Sound() && err == nil:
			err = errors.New(verdict.String())
			faults = append(faults, store.Quarantine(ctx, m.Version, verdict.Faults[0]))
		default:
			tries++
		}
		hooks.Logger(ctx).Warn("this snapshot cannot be used: the next older one is tried", "version", m.Version.String(), "err", err)
		faults = append(faults, fmt.Errorf("%v: %w", m.Version, err))
	}
	if tries == 0 && d.mayKeep(ctx, store, state) {
		return "what it runs with: there is no snapshot", d.present(ctx)
	}
	if tries == 0 {
		return "", fmt.Errorf("%w: put one into %s (carpctl snapshots), or set if_none", errors.Join(append(faults, install.ErrNone)...), d.c.Store)
	}
	return "", fmt.Errorf("it serves with no snapshot: %w", errors.Join(faults...))
}

// present returns nil if the running program serves, and its database is sound.
func (d *Database) present(ctx context.Context) error {
	if err := d.program.Serves(ctx); err != nil {
		return err
	}
	verdict, err := d.place.Running(ctx)
	if err == nil && !verdict.Sound() {
		err = errors.New("the present database is " + verdict.String())
	}
	return err
}

// notServed notes that what the program has may be another configuration from now on.
func (d *Database) notServed() error {
	s, err := d.place.State()
	if err != nil || s.Served == 0 && !s.Promoted {
		return err
	}
	s.Served, s.Promoted = 0, false
	return d.place.SetState(s)
}

// installed notes which snapshot the program has.
func (d *Database) installed(v replicator.Version) error {
	s, err := d.place.State()
	if err != nil {
		return err
	}
	s.Installed = v
	return d.place.SetState(s)
}
