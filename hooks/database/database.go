package database

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/install"
	"github.com/carpd/carpd/replicator/sqlite"
)

// Program is what a kind knows of the program that uses the database.
type Program struct {
	Rules replicator.Rules // of a sound database; Rows and MayBeEmpty of the Config are added
	Local []sqlite.Rows    // rows of which each node has its own
	Drop  []sqlite.Rows    // those of them that a node without a database goes without
	// Ready returns nil when the program, started at begun, does its work; until then it
	// waits, as long as ctx lets it. ErrContent says that it is the database's fault.
	Ready func(ctx context.Context, begun Begun) error
	// Serves returns nil if the program does its work at this moment. It does not wait.
	Serves func(ctx context.Context) error
	// Restore gives the running program the configuration of a snapshot, which lies at
	// path, and returns when it does its work with it. nil: the program is stopped, the
	// snapshot put in place, the program started.
	// ErrContent says that it is the snapshot's fault.
	Restore func(ctx context.Context, path string) error
	// Drain ends the connections of the program's clients. nil: it cannot be drained.
	Drain func(ctx context.Context) error
}

// ErrContent is in the error of a program that cannot work with what its database holds,
// so that an older one may be better. All else is said of the machine: an older database
// would not mend it, and changes would be lost.
var ErrContent = errors.New("it is what the database holds")

// Begun is the start of a program.
type Begun struct {
	At   time.Time        // by the wall clock
	Rows map[string]int64 // by table of the database that it was started on; nil: unknown
}

// Database is one that a snapshot is put in the place of. Its methods are not called at
// the same time. It holds nothing that needs closing.
type Database struct {
	c       Config
	program Program
	place   *install.Place
	inside  atomic.Bool // promoted by this process: nothing is installed until it is demoted

	mu    sync.Mutex
	store *dir.Store // nil until it was opened
}

// New returns a Database, or all faults of its configuration. It touches nothing.
func New(c Config, p Program) (*Database, error) {
	faults := c.fill(p.Drain != nil)
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	owner, err := parseOwner(c.Owner)
	if err != nil {
		return nil, err
	}
	mode, err := parseMode(c.FileMode)
	if err != nil {
		return nil, err
	}
	p.Rules.Floors = c.Rows
	p.Rules.MayBeEmpty = c.MayBeEmpty
	place, err := install.New(install.Config{Database: c.Database, Owner: owner, Mode: mode, Keep: c.Keep, Local: p.Local, Drop: p.Drop,
		Verify: sqlite.Options{Rules: func(replicator.Content) replicator.Rules { return p.Rules }}})
	if err != nil {
		return nil, err
	}
	return &Database{c: c, program: p, place: place}, nil
}

// open opens the store, once.
func (d *Database) open(ctx context.Context) (*dir.Store, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.store != nil {
		return d.store, nil
	}
	s, err := dir.Open(ctx, d.c.Store)
	if err == nil {
		d.store = s
	}
	return s, err
}

// Up makes the newest configuration the one in service, as the package says.
func (d *Database) Up(ctx context.Context, ev hooks.Event) error {
	if err := hooks.Mark(ctx, "look"); err != nil {
		return err
	}
	running, err := d.runs(ctx)
	if err != nil {
		return err
	}
	if d.inside.Load() && running {
		return d.program.Serves(ctx) // it is in service, and newer than all snapshots
	}
	d.inside.Store(false)
	if d.program.Restore != nil {
		return d.upWarm(ctx, ev, running)
	}
	if err := d.stopMarked(ctx); err != nil {
		return err
	}
	store, err := d.open(ctx)
	if err != nil {
		return err
	}
	older, err := d.serve(ctx, ev, store)
	if err != nil {
		if ctx.Err() == nil { // what does not serve does not run; a demotion follows a cancellation
			err = errors.Join(err, d.stop(ctx))
		}
		return err
	}
	if err := hooks.Mark(ctx, "promoted"); err != nil {
		return err
	}
	return d.inService(ctx, ev, store, older)
}

// inService notes that the database is in service, and for which mastership: later than
// all snapshots, also when a clock has lost its state. older says why a newer database was
// left, if one was.
func (d *Database) inService(ctx context.Context, ev hooks.Event, store *dir.Store, older string) error {
	all, err := store.List(ctx)
	if err != nil {
		return err
	}
	s, err := d.place.State()
	if err != nil {
		return err
	}
	s.Promoted, s.Served, s.Older, s.File = true, uint64(ev.Epoch), older, d.place.Identity()
	if len(all) > 0 {
		s.Served = uint64(replicator.First(all[0].Version, ev.Epoch, ev.NodeID).Epoch)
	}
	if err := d.place.SetState(s); err != nil {
		return err
	}
	d.inside.Store(true)
	if older != "" {
		hooks.Logger(ctx).Error("an older configuration is in service", "database", d.c.Database, "why", older)
	}
	return nil
}

func (d *Database) stopMarked(ctx context.Context) error {
	if err := hooks.Mark(ctx, "stop"); err != nil {
		return err
	}
	return d.stop(ctx)
}

// serve chooses a database and starts the program with it, until one does. older says why
// a newer one was left, if one was.
func (d *Database) serve(ctx context.Context, ev hooks.Event, store *dir.Store) (older string, err error) {
	var failed []replicator.Version // the zero value stands for the present database
	var faults []error
	for range d.c.Tries {
		if err := hooks.Mark(ctx, "install"); err != nil {
			return "", err
		}
		chosen, err := d.chooseNewest(ctx, ev, store, failed)
		if err != nil {
			return "", errors.Join(append(faults, err)...)
		}
		hooks.Logger(ctx).Info("database chosen", "database", d.c.Database, "it is", chosen.what)
		if older == "" {
			older = chosen.older
		}
		err = d.startOn(ctx)
		if err == nil {
			return older, nil
		}
		faults = append(faults, fmt.Errorf("%s: %w", chosen.what, err))
		if ctx.Err() != nil || !errors.Is(err, ErrContent) {
			break
		}
		older = fmt.Sprintf("%s: %v", chosen.what, err)
		hooks.Logger(ctx).Error("the program does not serve with this database: the next older snapshot is tried", "it is", chosen.what, "err", err)
		failed = append(failed, chosen.version)
		if err := d.stopMarked(ctx); err != nil {
			return "", errors.Join(append(faults, err)...)
		}
	}
	return "", errors.Join(faults...)
}

// startOn starts the program with the database in place. A program that ends is started
// once more, since a port may just not be free yet: that it ends again is ErrContent. One
// that runs and does not serve is not: that is said of the machine.
func (d *Database) startOn(ctx context.Context) (err error) {
	for again := range 2 {
		if again > 0 {
			hooks.Logger(ctx).Warn("the program has ended: it is started once more with the same database", "database", d.c.Database, "err", err)
			if err := d.stopMarked(ctx); err != nil {
				return err
			}
		}
		if err := hooks.MarkNoReturn(ctx, "start"); err != nil {
			return err
		}
		err = d.start(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrContent) {
			return err
		}
		running, e := d.runs(ctx)
		if e != nil || running {
			return errors.Join(err, e)
		}
	}
	return fmt.Errorf("%w, or it would not end: %w", ErrContent, err)
}

// choice is the database that the program is to be started with.
type choice struct {
	version replicator.Version // zero: the present one
	what    string             // for people
	older   string             // why a newer one was left; "": none is newer
}

// maxArrivals is how often a promotion chooses again because a newer snapshot has arrived.
const maxArrivals = 3

// chooseNewest chooses, and again if a newer snapshot has arrived meanwhile: once the
// program has started it would be lost.
func (d *Database) chooseNewest(ctx context.Context, ev hooks.Event, store *dir.Store, failed []replicator.Version) (c choice, err error) {
	older := ""
	for range maxArrivals {
		before, err := newest(ctx, store)
		if err != nil {
			return c, err
		}
		if c, err = d.choose(ctx, ev, store, failed); err != nil {
			return c, err
		}
		if err := hooks.Mark(ctx, "chosen"); err != nil {
			return c, err
		}
		after, err := newest(ctx, store)
		if older = cmp.Or(older, c.older); err != nil || after.Compare(before) <= 0 {
			c.older = older
			return c, err
		}
	}
	return c, errors.New("snapshots arrive faster than one can be put in place: another node may still be the master")
}

// newest returns the version of the newest snapshot; zero if there is none.
func newest(ctx context.Context, store *dir.Store) (v replicator.Version, err error) {
	all, err := store.List(ctx)
	if len(all) > 0 {
		v = all[0].Version
	}
	return v, err
}

// choose puts the database in place that the program is to be started with.
func (d *Database) choose(ctx context.Context, ev hooks.Event, store *dir.Store, failed []replicator.Version) (c choice, err error) {
	if err := d.place.Repair(ctx); err != nil {
		return c, err
	}
	all, err := store.List(ctx)
	if err != nil {
		return c, err
	}
	state, err := d.place.State()
	if err != nil {
		return c, err
	}
	if len(failed) == 0 && len(all) > 0 && newer(state, all[0], ev.NodeID, d.place.Identity()) {
		verdict, err := d.place.Present(ctx, all[0].Rows)
		if err != nil {
			return c, err
		}
		if verdict.Sound() {
			c.what = "the present database: it is newer than the newest snapshot, " + all[0].Version.String()
			return c, nil
		}
		c.older = "the present database was the newest, and is " + verdict.String()
	}
	m, err := d.place.Newest(ctx, store, func(v replicator.Version) bool { return slices.Contains(failed, v) })
	if err == nil {
		if len(all) > 0 && m.Version.Compare(all[0].Version) < 0 && c.older == "" {
			c.older = fmt.Sprintf("snapshot %v could not be used", all[0].Version)
		}
		c.version, c.what = m.Version, "snapshot "+m.Version.String()+" of "+m.Source
		return c, nil
	}
	if !errors.Is(err, install.ErrNone) {
		return c, err
	}
	if len(failed) > 0 {
		return c, errors.New("the store has no other sound snapshot")
	}
	if !d.mayKeep(ctx, store, state) {
		return c, fmt.Errorf("%w: put one into %s (carpctl snapshots), or set if_none", err, d.c.Store)
	}
	verdict, err := d.place.Present(ctx, nil)
	if err == nil && !verdict.Sound() {
		err = errors.New("the present database is " + verdict.String())
	}
	c.what = "the present database: there is no snapshot"
	return c, err
}

// newer reports whether the present database holds more than a snapshot, the newest one:
// whether the first snapshot of the mastership in which it was in service here is, or would
// be, a later version than that one, or that one was taken of it. Names of nodes say
// nothing: hosts that were cloned have the same.
func newer(s install.State, m replicator.Manifest, node uint8, present install.Identity) bool {
	if s.Served == 0 || s.File != (install.Identity{}) && s.File != present {
		return false // it was never in service here, or another file was
	}
	switch served := carp.Epoch(s.Served); {
	case served != m.Version.Epoch:
		return served > m.Version.Epoch
	default:
		return node >= m.Version.Node && node != 0
	}
}

// mayKeep reports whether the present database may be used without a sound snapshot.
func (d *Database) mayKeep(ctx context.Context, store *dir.Store, s install.State) bool {
	switch d.c.IfNone {
	case Keep:
		return true
	case Retreat:
		return false
	}
	away, err := store.Quarantined(ctx)
	return err == nil && len(away) == 0 && d.isOurs(s)
}

// isOurs reports whether the present database is no copy of a snapshot that may be old: none
// was ever put in place, or it was in service here since.
func (d *Database) isOurs(s install.State) bool {
	return s.Installed.IsZero() || s.Served != 0 && (s.File == install.Identity{} || s.File == d.place.Identity())
}

// Down lets go of the database, as the package says.
func (d *Database) Down(ctx context.Context) error {
	if d.c.OnDemotion == Stop {
		if err := d.stopMarked(ctx); err != nil {
			return err
		}
	}
	if d.c.OnDemotion == Drain {
		if err := d.drain(ctx); err != nil {
			return err
		}
	}
	if err := hooks.Mark(ctx, "demoted"); err != nil {
		return err
	}
	d.inside.Store(false)
	err := d.outOfService()
	if err != nil && d.c.OnDemotion == Stop {
		// It does not run, which is what counts: a full disk keeps nobody from letting go.
		hooks.Logger(ctx).Warn("the demotion cannot be noted", "database", d.c.Database, "err", err)
		return nil
	}
	return err
}

// drain ends the connections of clients, if there can be any.
func (d *Database) drain(ctx context.Context) error {
	if err := hooks.Mark(ctx, "drain"); err != nil {
		return err
	}
	// Where the program goes on nothing of the role depends on it: a port that answers
	// nobody holds no demotion up.
	limited, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	running, err := d.runs(limited)
	if err == nil && running {
		err = d.program.Drain(limited)
	}
	if err != nil && ctx.Err() == nil {
		hooks.Logger(ctx).Warn("the connections of clients may not have ended", "database", d.c.Database, "err", err)
		return nil
	}
	return err
}

// outOfService notes that the database is not in service.
func (d *Database) outOfService() error {
	s, err := d.place.State()
	if err != nil || !s.Promoted {
		return err
	}
	s.Promoted = false
	return d.place.SetState(s)
}

// Look says how it is, and changes nothing.
func (d *Database) Look(ctx context.Context) (hooks.Report, error) {
	running, err := d.runs(ctx)
	if err != nil {
		return hooks.Report{}, err
	}
	state, err := d.place.State()
	if err != nil {
		return hooks.Report{}, err
	}
	r := hooks.Report{}
	switch {
	case running && state.Promoted:
		r.Role, r.Text = hooks.RolePromoted, "in service"
		if state.Older != "" {
			r.Health, r.Text = hooks.Degraded, "an older configuration is in service: "+state.Older
		}
		if err := d.program.Serves(ctx); err != nil {
			r.Health, r.Text = hooks.Unfit, err.Error()
		}
		return r, nil
	case running && d.c.OnDemotion == Stop:
		r.Text = "the program runs, and it is not in service here"
		return r, nil
	}
	r.Role = hooks.RoleDemoted
	r, err = d.lookAtStore(ctx, r, state)
	if err == nil && !running && d.program.Restore != nil && r.Health == hooks.Healthy {
		r.Health, r.Text = hooks.Degraded, "the program does not run; "+r.Text
	}
	return r, err
}

// lookAtStore judges what a promotion would find.
func (d *Database) lookAtStore(ctx context.Context, r hooks.Report, s install.State) (hooks.Report, error) {
	if _, err := os.Lstat(d.c.Store); err != nil {
		return d.withoutSnapshot(r, d.c.IfNone != Retreat, s), nil
	}
	store, err := d.open(ctx)
	if err != nil {
		return r, err
	}
	all, err := store.List(ctx)
	if err != nil {
		return r, err
	}
	if len(all) == 0 {
		return d.withoutSnapshot(r, d.mayKeep(ctx, store, s), s), nil
	}
	r.Text = fmt.Sprintf("newest snapshot %v of %s, taken %s", all[0].Version, all[0].Source, all[0].Time.UTC().Format(time.RFC3339))
	return r, nil
}

func (d *Database) withoutSnapshot(r hooks.Report, keep bool, s install.State) hooks.Report {
	r.Text = "no snapshot yet: the present database would be used"
	if _, err := os.Lstat(d.c.Database); !keep || err != nil || d.c.IfNone == First && !d.isOurs(s) {
		r.Health, r.Text = hooks.Unfit, strings.TrimSpace("no snapshot in "+d.c.Store+", and no database to go on with")
	}
	return r
}
