package database

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"syscall"

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
	what, older, err := d.restore(ctx, ev, store)
	for again := 1; errors.Is(err, errArrived) && again < maxArrivals; again++ {
		what, older, err = d.restore(ctx, ev, store)
	}
	if err != nil {
		return err
	}
	hooks.Logger(ctx).Info("configuration chosen", "database", d.c.Database, "it is", what)
	if err := hooks.Mark(ctx, "promoted"); err != nil {
		return err
	}
	return d.inService(ctx, ev, store, older)
}

// errArrived is the error of a restore when a newer snapshot has arrived meanwhile.
var errArrived = errors.New("a newer snapshot has arrived: another node may still be the master")

// restore gives the program the newest configuration that it serves with, and says which
// that is. older says why a newer one was left, if one was.
func (d *Database) restore(ctx context.Context, ev hooks.Event, store *dir.Store) (what, older string, err error) {
	all, err := store.List(ctx)
	if err != nil {
		return "", "", err
	}
	state, err := d.place.State()
	if err != nil {
		return "", "", err
	}
	if len(all) > 0 && newer(state, all[0], ev.NodeID, d.place.Identity()) {
		err := d.present(ctx, all[0].Rows)
		if err == nil {
			return "what it runs with: newer than the newest snapshot, " + all[0].Version.String(), "", nil
		}
		if !errors.Is(err, ErrContent) {
			return "", "", fmt.Errorf("what it runs with is newer than the newest snapshot, %v, and stays: %w", all[0].Version, err)
		}
		older = fmt.Sprintf("what it ran with was the newest: %v", err)
	}
	var faults []error
	none, tries := install.ErrNone, 0
	for _, m := range all[:min(len(all), install.MaxTries)] {
		if tries == d.c.Tries {
			break
		}
		if err := hooks.MarkNoReturn(ctx, "restore"); err != nil {
			return "", "", err
		}
		use := func(path string) error {
			if v, err := newest(ctx, store); err != nil || v.Compare(all[0].Version) > 0 {
				return cmp.Or(err, errArrived)
			}
			return d.restoreOne(ctx, m.Version, path)
		}
		verdict, err := d.place.Look(ctx, store, m, use)
		if errors.Is(err, syscall.EIO) {
			verdict, err = d.place.Look(ctx, store, m, use)
		}
		switch {
		case verdict.Sound() && err == nil:
			return "snapshot " + m.Version.String() + " of " + m.Source, older, nil
		case ctx.Err() != nil:
			return "", "", err
		case !verdict.Sound() && err == nil:
			err = errors.New(verdict.String())
			faults = append(faults, store.Quarantine(ctx, m.Version, verdict.Faults[0]))
		case errors.Is(err, ErrContent):
			tries++
		case install.Unread(err):
			if errors.Is(err, syscall.EIO) {
				none = errors.New("no snapshot can be used, and not all can be read")
			}
		default:
			return "", "", errors.Join(append(faults, fmt.Errorf("%v: %w", m.Version, err))...)
		}
		if older == "" {
			older = fmt.Sprintf("snapshot %v: %v", m.Version, err)
		}
		hooks.Logger(ctx).Error("this snapshot cannot be used: the next older one is tried", "version", m.Version.String(), "err", err)
		faults = append(faults, fmt.Errorf("%v: %w", m.Version, err))
	}
	if tries == 0 && none == install.ErrNone && d.mayKeep(ctx, store, state) {
		return "what it runs with: there is no snapshot", "", d.present(ctx, nil)
	}
	if tries == 0 {
		return "", "", fmt.Errorf("%w: put one into %s (carpctl snapshots), or set if_none", errors.Join(append(faults, none)...), d.c.Store)
	}
	return "", "", fmt.Errorf("it serves with no snapshot: %w", errors.Join(faults...))
}

// restoreOne gives the program a snapshot, which lies at path. What was in service here,
// or was never put here by us, is kept aside first.
func (d *Database) restoreOne(ctx context.Context, v replicator.Version, path string) error {
	s, err := d.place.State()
	if err != nil {
		return err
	}
	if s.Served != 0 || s.Installed.IsZero() {
		if err := d.place.Aside(ctx); err != nil {
			return err
		}
	}
	// From here on it is not what was in service here, whatever becomes of it.
	s.Installed, s.Served, s.Promoted = v, 0, false
	if err := d.place.SetState(s); err != nil {
		return err
	}
	return d.program.Restore(ctx, path)
}

// present returns nil if the running program serves, within start_timeout, and its
// database is sound, before which there were these rows. ErrContent: it is not sound.
func (d *Database) present(ctx context.Context, before map[string]int64) error {
	if err := d.awaitService(ctx); err != nil {
		return err
	}
	verdict, err := d.place.Running(ctx, before)
	if err == nil && !verdict.Sound() {
		err = fmt.Errorf("the present database is %v: %w", verdict, ErrContent)
	}
	return err
}

// awaitService waits until the running program serves: it may just have been started.
func (d *Database) awaitService(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.c.StartTimeout, fmt.Errorf("it does not serve within start_timeout, %v", d.c.StartTimeout))
	defer cancel()
	var last error
	err := await(ctx, func() bool {
		if err := d.program.Serves(ctx); err == nil || last == nil || ctx.Err() == nil {
			last = err // else it says only that the time is over
		}
		return last == nil
	})
	return errors.Join(err, last)
}
