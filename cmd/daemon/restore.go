package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/cmd/daemon/config"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/install"
	"github.com/carpd/carpd/replicator/proxysql"
	"github.com/carpd/carpd/replicator/sqlite"
)

// restoreTime bounds a restore: the role of the instance does not move meanwhile.
const restoreTime = 30 * time.Second

// serveRestore puts a snapshot in the place of a database, or says what that would change.
func (d *Daemon) serveRestore(ctx context.Context, req api.RestoreRequest) (any, error) {
	if req.Name == "" {
		return nil, refusal{"the replication is not named", "see carpctl status for its name"}
	}
	if req.Version == theCurrent {
		return nil, refusal{"the database as it is, is there already", "name a version of carpctl snapshots"}
	}
	r, err := d.replication(req.Name)
	if err != nil {
		return nil, err
	}
	m, err := r.snapshotNamed(ctx, req.Version)
	if err != nil {
		return nil, err
	}
	i, err := d.find(r.plan.Instance)
	if err != nil {
		return nil, err
	}
	out := api.RestoreResult{Version: m.Version.String()}
	if out.Diff, err = r.changesBy(ctx, m); err != nil {
		return nil, err
	}
	database := r.plan.Source.Database
	holders := holdersOf(ctx, database)
	warm := i.restorer(database)
	what := fmt.Sprintf("%s, taken by %s at %s, in the place of %s", m.Version, m.Source, m.Time.UTC().Format(time.RFC3339), database)
	if len(holders) > 0 && warm != nil {
		what = fmt.Sprintf("%s, taken by %s at %s, into %s, which goes on", m.Version, m.Source, m.Time.UTC().Format(time.RFC3339), strings.Join(holders, ", "))
	}
	switch {
	case req.DryRun && len(holders) > 0 && warm == nil:
		out.Text = "would put " + what + ", once nobody has it open: " + strings.Join(holders, ", ") + " does"
		return out, nil
	case req.DryRun:
		out.Text = "would put " + what
		return out, nil
	case len(holders) > 0 && warm == nil:
		return nil, refusal{fmt.Sprintf("%s is open in %s", database, strings.Join(holders, ", ")), "stop that program first; nothing was done"}
	case len(holders) > 0:
		err = r.restoreInto(ctx, warm, m)
	default:
		err = i.between(ctx, func(ctx context.Context) error {
			place, err := i.place(r.plan)
			if err != nil {
				return err
			}
			return r.install(ctx, place, m, i.serving.now())
		})
		what += "; the database that was there is kept in " + database + ".carpd"
	}
	if err != nil {
		return nil, err
	}
	out.Done, out.Text = true, "put "+what
	d.book.add(api.Event{Instance: i.name, Kind: "restore", Reason: r.plan.Name, Text: i.name + ": " + out.Text})
	return out, nil
}

// What holds a database for a moment only is no program that uses it: each program that
// this daemon starts has its files until it is one.
const (
	holderLooks = 5
	holderPause = 20 * time.Millisecond
)

// holdersOf names the programs that have a database open, and stay.
func holdersOf(ctx context.Context, database string) []string {
	holders := install.Holders(database)
	for range holderLooks {
		if len(holders) == 0 || !moment(ctx) {
			break
		}
		holders = install.Holders(database)
	}
	return holders
}

// moment waits a little, and reports whether ctx has not ended.
func moment(ctx context.Context) bool {
	again := time.NewTimer(holderPause)
	defer again.Stop()
	select {
	case <-again.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// restorer returns the runner of the resource that can give a running program a snapshot
// of this database, or nil.
func (i *instance) restorer(database string) *hooks.Runner {
	own := i.runner.Load()
	switch {
	case own.Restores(database):
		return own
	case i.group != nil && i.group.runner.Restores(database):
		return i.group.runner
	}
	return nil
}

// restoreInto verifies a snapshot once more and gives it to the program that runs.
func (r *replica) restoreInto(ctx context.Context, runner *hooks.Runner, m replicator.Manifest) error {
	ctx, cancel := context.WithTimeoutCause(ctx, restoreTime, fmt.Errorf("it takes longer than %v", restoreTime))
	defer cancel()
	store, err := r.opened(ctx)
	if err != nil {
		return err
	}
	path := store.Path(m.Version)
	if v := verifySnapshot(ctx, r.plan, path, m.SHA256, nil); !v.Sound() {
		return refusal{fmt.Sprintf("%v is not sound: %v", m.Version, v), "nothing was done: name another version"}
	}
	if err := runner.Restore(ctx, r.plan.Source.Database, path); err != nil {
		return refusal{err.Error(), "look at what runs there now: carpctl snapshots diff current newest; then restore again, or another version"}
	}
	return nil
}

// between runs f while no hook or resource of the instance is at work.
func (i *instance) between(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, restoreTime, fmt.Errorf("it takes longer than %v", restoreTime))
	defer cancel()
	own := func(ctx context.Context) error { return i.runner.Load().Between(ctx, f) }
	if i.group == nil {
		return own(ctx)
	}
	return i.group.runner.Between(ctx, own)
}

// snapshotNamed finds a snapshot of the own store.
func (r *replica) snapshotNamed(ctx context.Context, name string) (replicator.Manifest, error) {
	store, err := r.opened(ctx)
	if err != nil {
		return replicator.Manifest{}, err
	}
	all, err := store.List(ctx)
	if err != nil {
		return replicator.Manifest{}, err
	}
	return choose(all, name)
}

// changesBy compares the present database with a snapshot; nil if there is none, or none
// that can be read: then there is nothing to lose.
func (r *replica) changesBy(ctx context.Context, m replicator.Manifest) (*api.Diff, error) {
	if _, err := os.Stat(r.plan.Source.Database); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	d, err := r.diff(ctx, api.DiffRequest{Before: theCurrent, After: m.Version.String()})
	if refused := (refusal{}); errors.As(err, &refused) {
		return nil, nil
	}
	return &d, err
}

// placed is a resource that says how snapshots are put in the place of its database.
type placed interface {
	Database() string
	Place() *install.Place
}

// place returns where the snapshots of an entry are put: with the owner, mode and local rows
// of its resource if there is one, else with those of the present database.
func (i *instance) place(p config.Replication) (*install.Place, error) {
	steps := i.plan.Load().steps
	if i.group != nil {
		steps = append(slices.Clone(steps), i.group.steps...)
	}
	for _, s := range steps {
		if one, ok := s.Resource.(placed); ok && one.Database() == p.Source.Database {
			return one.Place(), nil
		}
	}
	c := install.Config{Database: p.Source.Database, Verify: sqlite.Options{Rules: rulesOf(p, nil), MaxSize: p.MaxSize}}
	if p.Source.Kind == config.SourceProxySQL {
		c.Local, c.Drop = proxysql.Local(), proxysql.Identity()
	}
	if info, err := os.Stat(p.Source.Database); err == nil {
		c.Mode = info.Mode().Perm()&0o666 | 0o600
	}
	return install.New(c)
}

// install verifies a snapshot once more and puts it in place. In this mastership, which is
// 0 on a node that does not serve, the database is newer than all snapshots from then on:
// a promotion puts none over it.
func (r *replica) install(ctx context.Context, place *install.Place, m replicator.Manifest, serving carp.Epoch) error {
	store, err := r.opened(ctx)
	if err != nil {
		return err
	}
	before, err := place.State()
	if err != nil {
		return err
	}
	verdict, err := place.Install(ctx, store, m)
	for range holderLooks {
		if !errors.Is(err, install.ErrInUse) || !moment(ctx) {
			break
		}
		verdict, err = place.Install(ctx, store, m)
	}
	switch {
	case errors.Is(err, install.ErrInUse):
		return refusal{err.Error(), "stop that program first; the database is what it was"}
	case err != nil:
		return err
	case !verdict.Sound():
		return refusal{fmt.Sprintf("%v is not sound: %v", m.Version, verdict), "the database is what it was: name another version"}
	case serving == 0:
		return nil
	}
	after, err := place.State()
	if err != nil {
		return err
	}
	after.Served, after.Promoted = uint64(max(serving, carp.Epoch(before.Served))), before.Promoted
	return place.SetState(after)
}
