package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/sqlite"
)

// Limits.
const (
	DefaultKeep  = 5  // databases that were here before
	MaxKeep      = 64 // likewise, at most
	MaxTries     = 16 // snapshots that Newest looks at in one call
	DefaultMode  = fs.FileMode(0o600)
	maxStateSize = 64 << 10 // bytes of a file of ours
)

// ErrNone is the error of Newest when the store holds no snapshot that can be used.
var ErrNone = errors.New("no sound snapshot is in the store")

// ErrInUse is the error of putting a database in place that a program has open.
var ErrInUse = errors.New("a program has the database open")

// Owner is whom a file belongs to.
type Owner struct{ UID, GID int }

// Config says what is installed, and where.
type Config struct {
	Database string         // absolute path of the file that the program opens; required
	Verify   sqlite.Options // rules and size; the digest is that of the manifest
	Local    []sqlite.Rows  // rows of which each node has its own
	Drop     []sqlite.Rows  // those of them that a node without a database of its own goes without
	Owner    *Owner         // nil: that of the present database, or of its directory
	Mode     fs.FileMode    // 0: DefaultMode
	Keep     int            // databases that were here before; 0: DefaultKeep
}

// Place is where a database lies. Its methods are not called at the same time, nor by two
// processes. It holds nothing that needs closing.
type Place struct {
	c    Config
	work string
	step func(string) error // tests stop and kill here; nil: nothing
}

// New returns a Place, or what is wrong with its configuration. It touches nothing.
func New(c Config) (*Place, error) {
	switch {
	case c.Database == "":
		return nil, errors.New("install: database is required: the file that the program opens")
	case !filepath.IsAbs(c.Database) || filepath.Clean(c.Database) != c.Database:
		return nil, fmt.Errorf("install: database %q: write an absolute path, and none with . or .. in it", c.Database)
	case c.Keep < 0 || c.Keep > MaxKeep:
		return nil, fmt.Errorf("install: keep %d: use 1 to %d", c.Keep, MaxKeep)
	case c.Mode&^0o666 != 0 || c.Mode != 0 && c.Mode&0o600 != 0o600:
		return nil, fmt.Errorf("install: mode %#o: use 0600, or more for group and others, without execution", c.Mode)
	}
	if c.Keep == 0 {
		c.Keep = DefaultKeep
	}
	if c.Mode == 0 {
		c.Mode = DefaultMode
	}
	return &Place{c: c, work: c.Database + ".carpd"}, nil
}

// Database returns the path of the database.
func (p *Place) Database() string { return p.c.Database }

func (p *Place) file(name string) string { return filepath.Join(p.work, name) }

// at is called before each step that changes something.
func (p *Place) at(step string) error {
	if p.step == nil {
		return nil
	}
	return p.step(step)
}

// journals are what SQLite may leave beside a database.
func journals() []string { return []string{"-journal", "-wal", "-shm"} }

// Newest installs the newest snapshot that is sound and that skip does not name, and
// returns its manifest. One that is not sound goes to the store's quarantine with the
// reason, and the next older one is taken; so it is where one is gone meanwhile, or the
// disk does not give it back, asked twice. Without any the error is ErrNone, unless there
// is one that could not be read, and the database is what it was. The program is stopped.
func (p *Place) Newest(ctx context.Context, store replicator.Store, skip func(replicator.Version) bool) (replicator.Manifest, error) {
	all, err := store.List(ctx)
	if err != nil {
		return replicator.Manifest{}, fmt.Errorf("install: %w", err)
	}
	var faults []error
	none, tried := ErrNone, 0
	for _, m := range all {
		if skip != nil && skip(m.Version) {
			continue
		}
		if tried++; tried > MaxTries {
			break
		}
		verdict, err := p.Install(ctx, store, m)
		if errors.Is(err, syscall.EIO) {
			verdict, err = p.Install(ctx, store, m)
		}
		if Unread(err) {
			if errors.Is(err, syscall.EIO) {
				none = errors.New("no snapshot can be used, and not all can be read")
			}
			faults = append(faults, err)
			continue
		}
		if err != nil {
			return m, err
		}
		if verdict.Sound() {
			return m, nil
		}
		faults = append(faults, fmt.Errorf("%v: %v", m.Version, verdict))
		if err := store.Quarantine(ctx, m.Version, verdict.Faults[0]); err != nil {
			faults = append(faults, err)
		}
	}
	return replicator.Manifest{}, fmt.Errorf("install: %w", errors.Join(append([]error{none}, faults...)...))
}

// Unread reports whether an error of Install or Look is one of a snapshot that is gone, or
// that the disk does not give back: another one may be read.
func Unread(err error) bool {
	return errors.Is(err, replicator.ErrNotFound) || errors.Is(err, syscall.EIO)
}

// Install puts one snapshot in the place of the database. A verdict that is not sound
// says that the snapshot cannot be used and that the database is what it was; an error,
// that it could not be installed.
func (p *Place) Install(ctx context.Context, store replicator.Store, m replicator.Manifest) (replicator.Verdict, error) {
	if err := p.Repair(ctx); err != nil {
		return replicator.Verdict{}, err
	}
	verdict, err := p.prepare(ctx, store, m)
	if err == nil && verdict.Sound() {
		err = p.put(ctx, m.Version)
	}
	if err != nil || !verdict.Sound() {
		err = errors.Join(err, p.discard())
	}
	if err != nil {
		return verdict, fmt.Errorf("install: put %v in the place of %s: %w", m.Version, p.c.Database, err)
	}
	return verdict, nil
}

// discard takes the copy away, and what was made for it.
func (p *Place) discard() error {
	var err error
	if _, begun := os.Lstat(p.file(intentFile)); begun == nil {
		return nil // it may be needed: Repair decides
	}
	for _, name := range []string{"new", "local", "look"} {
		for _, suffix := range append(journals(), "") {
			err = errors.Join(err, remove(p.file(name+suffix)))
		}
	}
	return err
}

// prepare makes the file new from a snapshot: whole, with the rows of this node, of the
// right owner and mode, durable.
func (p *Place) prepare(ctx context.Context, store replicator.Store, m replicator.Manifest) (replicator.Verdict, error) {
	owner, err := p.owner()
	if err != nil {
		return replicator.Verdict{}, err
	}
	fresh := p.file("new")
	if err := p.at("copy"); err != nil {
		return replicator.Verdict{}, err
	}
	damaged, err := copyOut(ctx, store, m.Version, fresh, p.c.Verify.MaxSize)
	if err != nil || !damaged.Sound() {
		return damaged, err
	}
	if err := p.at("verify"); err != nil {
		return replicator.Verdict{}, err
	}
	options := p.c.Verify
	options.SHA256 = m.SHA256
	if verdict, err := judge(ctx, fresh, options); err != nil || !verdict.Sound() {
		return verdict, err
	}
	if err := p.localize(ctx, fresh); err != nil {
		return replicator.Verdict{}, err
	}
	if err := p.at("own"); err != nil {
		return replicator.Verdict{}, err
	}
	return replicator.Verdict{}, handOver(fresh, owner, p.c.Mode)
}

// judge verifies a file. That it could not be read, or not in time, is said of this
// machine and not of the snapshot: an error.
func judge(ctx context.Context, path string, o sqlite.Options) (replicator.Verdict, error) {
	v := sqlite.Verify(ctx, path, o).Verdict
	for _, r := range []replicator.Reason{replicator.Timeout, replicator.Unreadable, replicator.Changed, replicator.Missing} {
		if v.Has(r) {
			return v, errors.New(v.String())
		}
	}
	return v, nil
}

// copyOut writes a snapshot of a store to a file that is not there yet.
func copyOut(ctx context.Context, store replicator.Store, v replicator.Version, path string, limit int64) (verdict replicator.Verdict, err error) {
	if limit == 0 {
		limit = sqlite.MaxSize
	}
	from, err := store.Open(ctx, v)
	if err == nil {
		defer from.Close()
		err = write(path, func(f io.Writer) error {
			n, err := io.Copy(f, io.LimitReader(patient{ctx, from}, limit+1))
			if err == nil && n > limit {
				verdict = replicator.Refused(replicator.TooLarge, fmt.Sprintf("more than %d bytes, which is the limit", limit))
			}
			return err
		})
	}
	if errors.Is(err, replicator.ErrDamaged) {
		return replicator.Refused(replicator.Digest, err.Error()), nil
	}
	return verdict, err
}

// localize gives the copy the rows of this node. A present database that cannot be read
// has none, and then the copy goes without those of Drop.
func (p *Place) localize(ctx context.Context, fresh string) error {
	if len(p.c.Local)+len(p.c.Drop) == 0 {
		return nil
	}
	if err := p.at("local"); err != nil {
		return err
	}
	local, err := p.copyLocal(ctx)
	if err != nil {
		return err
	}
	rows := p.c.Local
	if local == "" {
		rows = p.c.Drop
	}
	if err := sqlite.KeepLocal(ctx, fresh, local, rows); err != nil {
		return err
	}
	// The snapshot was sound: that it is not any more is the doing of the present database.
	verdict, err := judge(ctx, fresh, p.c.Verify)
	if err == nil && !verdict.Sound() {
		err = fmt.Errorf("with the rows of this node it is not sound: %v: mend the present database, or move it away", verdict)
	}
	return err
}

// copyLocal copies the present database and its journals, and settles the copy. It
// returns "" if there is none of use.
func (p *Place) copyLocal(ctx context.Context) (string, error) {
	local := p.file("local")
	for _, suffix := range append([]string{""}, journals()...) {
		if err := remove(local + suffix); err != nil {
			return "", err
		}
		err := copyFile(ctx, p.c.Database+suffix, local+suffix)
		if errors.Is(err, fs.ErrNotExist) {
			if suffix == "" {
				return "", nil
			}
			continue
		}
		if err != nil {
			return "", err
		}
	}
	if sqlite.Settle(ctx, local) != nil || !sqlite.Verify(ctx, local, sqlite.Options{}).Sound() {
		return "", ctx.Err() // a database that is damaged gives no rows away
	}
	return local, nil
}

// Present says what the present database is worth, as its program would see it at its
// start: a journal that a killed writer left counts. It changes nothing of it. before are
// the rows by table of a snapshot that it should hold more than; nil: unknown.
func (p *Place) Present(ctx context.Context, before map[string]int64) (replicator.Verdict, error) {
	if err := p.Repair(ctx); err != nil {
		return replicator.Verdict{}, err
	}
	if _, err := os.Lstat(p.c.Database); errors.Is(err, fs.ErrNotExist) {
		return replicator.Refused(replicator.Missing, "there is no such file"), nil
	}
	local := p.file("local")
	path, err := p.copyLocal(ctx)
	if err == nil && path == "" {
		path = local // it says what is wrong
	}
	var verdict replicator.Verdict
	if err == nil {
		verdict, err = judge(ctx, path, p.after(before))
	}
	if err = errors.Join(err, p.discard()); err != nil {
		return verdict, fmt.Errorf("install: look at %s: %w", p.c.Database, err)
	}
	return verdict, nil
}

// after returns the rules of a database before which there was one with these rows. Tables
// of which each node has its own are no matter of another's.
func (p *Place) after(before map[string]int64) sqlite.Options {
	o := p.c.Verify
	before = maps.Clone(before)
	for _, r := range slices.Concat(p.c.Local, p.c.Drop) {
		delete(before, r.Table)
	}
	if choose := o.Rules; choose != nil && before != nil {
		o.Rules = func(c replicator.Content) replicator.Rules {
			r := choose(c)
			r.Before = before
			return r
		}
	}
	return o
}

// owner returns whom the new file is to belong to.
func (p *Place) owner() (Owner, error) {
	if p.c.Owner != nil {
		return *p.c.Owner, nil
	}
	info, err := os.Lstat(p.c.Database)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = os.Stat(filepath.Dir(p.c.Database))
	}
	if err != nil {
		return Owner{}, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return Owner{int(st.Uid), int(st.Gid)}, nil
}

// handOver sets owner and mode and makes the file durable.
func handOver(path string, o Owner, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Chown(o.UID, o.GID), f.Chmod(mode), f.Sync(), f.Close())
}

// Look copies a snapshot, verifies the copy, and calls use with its path if it is sound.
// It is gone afterwards. A verdict and an error mean what they do of Install; the error of
// use is returned as it is.
func (p *Place) Look(ctx context.Context, store replicator.Store, m replicator.Manifest, use func(path string) error) (replicator.Verdict, error) {
	err := p.makeWork()
	if err == nil {
		err = p.discard()
	}
	fresh := p.file("look")
	if err == nil {
		err = remove(fresh)
	}
	var verdict replicator.Verdict
	if err == nil {
		verdict, err = copyOut(ctx, store, m.Version, fresh, p.c.Verify.MaxSize)
	}
	if err == nil && verdict.Sound() {
		options := p.c.Verify
		options.SHA256 = m.SHA256
		verdict, err = judge(ctx, fresh, options)
	}
	if err != nil {
		return verdict, errors.Join(fmt.Errorf("install: look at %v: %w", m.Version, err), remove(fresh))
	}
	if verdict.Sound() {
		err = use(fresh)
	}
	return verdict, errors.Join(err, remove(fresh))
}

// Running says what the present database is worth while its program runs: a copy of it is
// taken in one step, and judged by the rules. before is as for Present.
func (p *Place) Running(ctx context.Context, before map[string]int64) (replicator.Verdict, error) {
	err := p.makeWork()
	copied := p.file("look")
	if err == nil {
		err = remove(copied)
	}
	if err != nil {
		return replicator.Verdict{}, fmt.Errorf("install: look at %s: %w", p.c.Database, err)
	}
	report, err := sqlite.Take(ctx, p.c.Database, copied, p.after(before))
	if err = errors.Join(err, remove(copied)); err != nil {
		return replicator.Verdict{}, fmt.Errorf("install: look at %s: %w", p.c.Database, err)
	}
	return report.Verdict, nil
}
