package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/cmd/daemon/config"
	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/proxysql"
	"github.com/carpd/carpd/replicator/sqlite"
)

const (
	compareTime    = 5 * time.Minute
	defaultChanges = 20 // rows of a sort and table that are listed
)

// Names of snapshots besides versions.
const (
	theNewest   = "newest"
	thePrevious = "previous" // the one before the newest
	theCurrent  = "current"  // the database as it is
)

// errNoReplication is wrapped by what replication returns.
var errNoReplication = errors.New("no such replication")

// replication returns the entry of this name; an empty name means the only one.
func (d *Daemon) replication(name string) (*replica, error) {
	d.mu.Lock()
	all := d.replicas
	d.mu.Unlock()
	var names []string
	for _, r := range all {
		if r.plan.Name == name || name == "" && len(all) == 1 {
			return r, nil
		}
		names = append(names, r.plan.Name)
	}
	switch {
	case len(all) == 0:
		return nil, refusal{"there is no replication in the configuration", "see replication in carpd.yaml(5)"}
	case name == "":
		return nil, refusal{fmt.Sprintf("there are %d replications: which one?", len(all)), "name one of " + strings.Join(names, ", ")}
	}
	return nil, refusal{fmt.Sprintf("%v: %q", errNoReplication, name), "there are " + strings.Join(names, ", ")}
}

// opened returns the store of an entry, also where it does not run.
func (r *replica) opened(ctx context.Context) (*dir.Store, error) {
	r.mu.Lock()
	s := r.store
	r.mu.Unlock()
	if s != nil {
		return s, nil
	}
	return dir.Open(ctx, r.plan.Store)
}

// listSnapshots answers /v1/snapshots.
func (r *replica) listSnapshots(ctx context.Context) (api.Snapshots, error) {
	out := api.Snapshots{Name: r.plan.Name, Store: r.plan.Store, Snapshots: []api.Snapshot{}, Quarantined: []api.Quarantine{}}
	store, err := r.opened(ctx)
	if err != nil {
		return out, err
	}
	all, err := store.List(ctx)
	if err != nil {
		return out, err
	}
	for _, m := range all {
		out.Snapshots = append(out.Snapshots, *snapshotOf(m))
	}
	away, err := store.Quarantined(ctx)
	for _, q := range away {
		out.Quarantined = append(out.Quarantined, quarantineOf(q))
	}
	return out, err
}

// choose finds the snapshot of a name among all, newest first.
func choose(all []replicator.Manifest, name string) (replicator.Manifest, error) {
	const hint = "carpctl snapshots lists them; newest and previous are names, too"
	at := -1
	switch name {
	case theNewest, "":
		at = 0
	case thePrevious:
		at = 1
	default:
		v, err := parseVersion(name)
		if err != nil {
			return replicator.Manifest{}, refusal{err.Error(), hint}
		}
		for i, m := range all {
			if m.Version == v {
				at = i
			}
		}
	}
	if at < 0 || at >= len(all) {
		return replicator.Manifest{}, refusal{fmt.Sprintf("there is no snapshot %s, of %d that are in service", name, len(all)), hint}
	}
	return all[at], nil
}

// parseVersion reads EPOCH-NODE-SEQUENCE, with leading zeros or without.
func parseVersion(s string) (replicator.Version, error) {
	bad := fmt.Errorf("%q is not a version: want EPOCH-NODE-SEQUENCE", s)
	parts := strings.Split(s, "-")
	if len(parts) != 3 {
		return replicator.Version{}, bad
	}
	epoch, err1 := strconv.ParseUint(parts[0], 10, 64)
	node, err2 := strconv.ParseUint(parts[1], 10, 8)
	sequence, err3 := strconv.ParseUint(parts[2], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return replicator.Version{}, bad
	}
	return replicator.Version{Epoch: carp.Epoch(epoch), Node: uint8(node), Sequence: sequence}, nil
}

// compared is one of two that are compared.
type compared struct {
	name, path string
	temporary  bool
}

func (s compared) discard() {
	if s.temporary {
		_ = os.Remove(s.path) // the next comparison clears away what stays
	}
}

// sideOf finds a snapshot, or takes a copy of the database as it is.
func (r *replica) sideOf(ctx context.Context, store *dir.Store, all []replicator.Manifest, name string) (compared, error) {
	if name != theCurrent {
		m, err := choose(all, name)
		return compared{name: m.Version.String(), path: store.Path(m.Version)}, err
	}
	scratch := filepath.Join(r.scratch, "current")
	if err := errors.Join(os.RemoveAll(scratch), os.MkdirAll(scratch, 0o700)); err != nil {
		return compared{}, err
	}
	s := compared{name, filepath.Join(scratch, "current.db"), true}
	report, err := sqlite.Take(ctx, r.plan.Source.Database, s.path, sqlite.Options{Rules: rulesOf(r.plan, nil), MaxSize: r.plan.MaxSize})
	if err != nil {
		return compared{}, refusal{err.Error(), "is the database there, and does nobody hold it locked?"}
	}
	if report.Has(replicator.Integrity) {
		s.discard()
		return compared{}, refusal{"the database as it is cannot be compared: " + report.Verdict.String(), ""}
	}
	return s, nil
}

// diff compares two snapshots. There is one comparison at a time.
func (r *replica) diff(ctx context.Context, req api.DiffRequest) (api.Diff, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, compareTime, fmt.Errorf("the comparison takes longer than %v", compareTime))
	defer cancel()
	select {
	case r.comparing <- struct{}{}:
		defer func() { <-r.comparing }()
	case <-ctx.Done():
		return api.Diff{}, context.Cause(ctx)
	}
	store, err := r.opened(ctx)
	if err != nil {
		return api.Diff{}, err
	}
	all, err := store.List(ctx)
	if err != nil {
		return api.Diff{}, err
	}
	before, err := r.sideOf(ctx, store, all, req.Before)
	if err != nil {
		return api.Diff{}, err
	}
	defer before.discard()
	after, err := r.sideOf(ctx, store, all, req.After)
	if err != nil {
		return api.Diff{}, err
	}
	defer after.discard()
	most := req.Limit
	if most <= 0 {
		most = defaultChanges
	}
	tables, err := sqlite.Diff(ctx, before.path, after.path, sqlite.MaxChanges)
	if err != nil {
		return api.Diff{}, err
	}
	return api.Diff{Name: r.plan.Name, Before: before.name, After: after.name, Modules: modulesOf(r.plan, tables, most)}, nil
}

// modulesOf sorts differences by module, and lists so many rows of each sort at most.
func modulesOf(p config.Replication, tables []replicator.Difference, most int) []api.Module {
	out := []api.Module{}
	if p.Source.Kind == config.SourceProxySQL {
		for _, m := range proxysql.Modules(tables) {
			out = append(out, moduleOf(m.Module, m.Tables, most))
		}
		return out
	}
	for _, d := range tables {
		out = append(out, moduleOf(d.Table, []replicator.Difference{d}, most))
	}
	return out
}

func moduleOf(name string, tables []replicator.Difference, most int) api.Module {
	m := api.Module{Module: name}
	for _, d := range tables {
		t := api.Table{Table: d.Table, Note: d.Note, Added: d.Added, Removed: d.Removed, Changed: d.Changed, Changes: []api.Change{}}
		listed := map[string]int{}
		for _, c := range d.Changes {
			if listed[c.What]++; listed[c.What] <= most {
				t.Changes = append(t.Changes, api.Change{What: c.What, Key: cellsOf(c.Key), Cells: cellsOf(c.Cells)})
			}
		}
		m.Tables = append(m.Tables, t)
	}
	return m
}

func cellsOf(all []replicator.Cell) (out []api.Cell) {
	for _, c := range all {
		out = append(out, api.Cell(c))
	}
	return out
}
