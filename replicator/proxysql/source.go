package proxysql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/sqlite"
)

const (
	adminPoll  = time.Second      // how often checksums are asked for
	adminRetry = 10 * time.Second // how long an admin port that fails is left alone
	// compareShare: comparing memory with disk, under the lock of the admin port, takes a
	// twentieth of the time at most.
	compareShare = 20
	// saveTime and saveCopies: so long, and in so many copies, a table that had rows and
	// has none is taken for one that is being saved.
	saveTime   = 2 * time.Second
	saveCopies = 10
	// surveys are made, surveyPause apart, where nothing is known of the time before.
	surveys     = 3
	surveyPause = 60 * time.Millisecond
	exchange    = "carpd-exchange"
	// exchanged begins the names of the files that ProxySQL writes for us.
	exchanged = "carpd-snapshot-"
)

// SourceConfig says which ProxySQL is copied.
type SourceConfig struct {
	Database string // path of its proxysql.db
	// Admin is its admin port; nil: the file is all there is.
	Admin *Admin
	// Exchange is a directory that ProxySQL may write to, on this machine, and this
	// process may read and delete in, for this Source alone. "": carpd-exchange beside
	// the database, which is made for the database's owner, of mode 0700: ProxySQL writes
	// by its umask, and what it writes holds passwords.
	Exchange string
	// Rules are those of Rules, and what the operator added.
	Rules   replicator.Rules
	MaxSize int64 // bytes; 0: sqlite.MaxSize
}

// Source is the disk database of a ProxySQL that runs. Make one with NewSource. Its
// methods are called by one goroutine at a time.
//
// Where the admin port answers, ProxySQL makes the copy by itself, under the lock that
// its SAVE takes: half of a SAVE is in none. Else the file is copied in one step, as
// any other database is; never in many, which would freeze the admin port. Changes are
// seen by the file, and by the checksums of what runs.
type Source struct {
	SourceConfig
	file  *sqlite.Source
	db    *sql.DB // nil without Admin
	files int     // exchanged so far
	ours  bool    // Exchange is made here

	askAgain time.Time // the admin port
	sums     string    // as last told
	taken    string    // at the latest Take
	trouble  error     // of the admin port; nil: it answers

	empty map[string]emptied // tables that had rows, in the copies since the last sound one

	compareAt time.Time // memory with disk
	differ    []string  // tables, as last compared
}

var _ replicator.Source = (*Source)(nil)

// emptied is since when, and in how many copies in a row, a table was empty.
type emptied struct {
	since  time.Time
	copies int
}

// NewSource checks the configuration, and removes what a killed process left in the
// exchange. It connects to nothing.
func NewSource(c SourceConfig) (*Source, error) {
	if c.Database == "" {
		return nil, errors.New("proxysql: source: which database? The path of proxysql.db is missing")
	}
	var err error
	s := &Source{SourceConfig: c, empty: make(map[string]emptied), ours: c.Exchange == ""}
	s.Exchange, err = filepath.Abs(cmp.Or(c.Exchange, filepath.Join(filepath.Dir(c.Database), exchange)))
	if err != nil {
		return nil, fmt.Errorf("proxysql: source: %w", err)
	}
	s.file, err = sqlite.NewSource(sqlite.SourceConfig{Path: c.Database, Rules: s.rules, MaxSize: c.MaxSize})
	if err != nil {
		return nil, err
	}
	if c.Admin == nil {
		return s, nil
	}
	if s.db, err = c.Admin.open(); err != nil {
		return nil, err
	}
	left, err := filepath.Glob(filepath.Join(escape(s.Exchange), exchanged+"*.db"))
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("proxysql: source: clear %s: %w", s.Exchange, err), s.Close())
	}
	return s, nil
}

// escape makes a path match itself alone.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// Close ends the connections. The next call of another method opens those to the file
// again, and none to the admin port.
func (s *Source) Close() error {
	err := s.file.Close()
	if s.db != nil {
		err = errors.Join(err, s.db.Close())
	}
	return err
}

// rules are those of the operator, whatever the database holds.
func (s *Source) rules(replicator.Content) replicator.Rules { return s.Rules }

// Changed implements replicator.Source. Without the admin port it goes by the file.
func (s *Source) Changed(ctx context.Context) error {
	for {
		s.poll(ctx)
		if ctx.Err() == nil && s.sums != s.taken {
			return nil
		}
		limited, cancel := context.WithTimeout(ctx, adminPoll)
		err := s.file.Changed(limited)
		again := err != nil && limited.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !again {
			return err
		}
	}
}

// poll asks for the checksums, unless the admin port failed a moment ago.
func (s *Source) poll(ctx context.Context) {
	if s.db == nil || time.Now().Before(s.askAgain) {
		return
	}
	sums, err := checksums(ctx, s.db)
	if s.note(ctx, err) {
		s.sums = sums
	}
}

// note remembers how the admin port answered, and reports whether it did well.
func (s *Source) note(ctx context.Context, err error) bool {
	if err != nil && ctx.Err() != nil {
		return false // we gave up, it did not
	}
	s.trouble = err
	if err != nil {
		s.askAgain = time.Now().Add(adminRetry)
	}
	return err == nil
}

// Take implements replicator.Source. Notes of the verdict say where memory and disk
// differ, and why ProxySQL did not make the copy by itself.
func (s *Source) Take(ctx context.Context, path string, before map[string]int64) (replicator.Taken, error) {
	s.poll(ctx)
	sums := s.sums
	taken, err := s.file.TakeBy(ctx, func() (replicator.Taken, error) {
		if made, err := s.made(ctx, path); made || err != nil {
			if err != nil {
				return replicator.Taken{}, err
			}
			return sqlite.Adopt(ctx, path, s.rules, s.MaxSize, before)
		}
		if before == nil {
			before = s.survey(ctx, path)
		}
		return s.file.Take(ctx, path, before)
	})
	if err == nil {
		err = s.suspect(&taken, path, before)
	}
	if err != nil {
		return taken, err
	}
	s.taken = sums
	s.compare(ctx, &taken.Verdict)
	return taken, nil
}

// made reports whether ProxySQL made the copy. The error is that of ctx: what else may
// go wrong is a reason to copy the file.
func (s *Source) made(ctx context.Context, path string) (bool, error) {
	if s.db == nil || time.Now().Before(s.askAgain) {
		return false, nil
	}
	err := s.fetch(ctx, path)
	return s.note(ctx, err), ctx.Err()
}

// survey returns the most rows that each table has at some moments that are a little
// apart. It is for the first copy, when nobody knows what was there before.
func (s *Source) survey(ctx context.Context, path string) map[string]int64 {
	most := make(map[string]int64)
	for range surveys {
		t, err := s.file.Take(ctx, path, nil) // refused or not, its rows count
		for table, n := range t.Manifest.Rows {
			most[table] = max(most[table], n)
		}
		if err == nil {
			err = removed(path)
		}
		if err != nil && !errors.Is(err, replicator.ErrUnsound) {
			break // the copy that follows says what is wrong
		}
		select {
		case <-ctx.Done():
		case <-time.After(surveyPause):
		}
	}
	return most
}

// fetch has ProxySQL write a copy, and brings it to path.
func (s *Source) fetch(ctx context.Context, path string) (err error) {
	s.files++
	name := filepath.Join(s.Exchange, fmt.Sprintf("%s%d-%d.db", exchanged, os.Getpid(), s.files))
	defer func() {
		if e := os.Remove(name); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}()
	info, err := os.Stat(s.Database)
	if err == nil && s.ours {
		err = makeExchange(s.Exchange, info)
	}
	if err != nil {
		return fmt.Errorf("proxysql: prepare a place for its copy: %w", err)
	}
	if err := copyTo(ctx, s.db, name, info.Size()); err != nil {
		return err
	}
	if err := bring(name, path, cmp.Or(s.MaxSize, sqlite.MaxSize)); err != nil {
		return errors.Join(fmt.Errorf("proxysql: read the copy that ProxySQL made: %w", err), removed(path))
	}
	return nil
}

// makeExchange makes a directory that the owner of the database can use, and nobody else.
// Its parent is that owner's: what is there already is not followed.
func makeExchange(path string, database os.FileInfo) error {
	switch err := os.Mkdir(path, 0o700); {
	case errors.Is(err, os.ErrExist):
	case err != nil:
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	is, want := info.Sys().(*syscall.Stat_t), database.Sys().(*syscall.Stat_t)
	if is.Uid != want.Uid || is.Gid != want.Gid {
		if err := f.Chown(int(want.Uid), int(want.Gid)); err != nil {
			return err
		}
	}
	if info.Mode().Perm() != 0o700 {
		return f.Chmod(0o700)
	}
	return nil
}

// bring copies a file that another user wrote into one of ours, durably.
func bring(from, to string, limit int64) error {
	in, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return fmt.Errorf("%s: %v of %d bytes, and the limit is %d", from, info.Mode(), info.Size(), limit)
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, limit+1))
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

func removed(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// suspect refuses a copy in which a table has lost all of its rows, until it has been
// empty in many copies in a row: then that is meant. ProxySQL saves a table by a DELETE
// and then an INSERT, and not all of its SAVEs take the lock that its own copy takes.
func (s *Source) suspect(t *replicator.Taken, path string, before map[string]int64) error {
	for _, table := range slices.Sorted(maps.Keys(before)) {
		if before[table] == 0 || t.Manifest.Rows[table] > 0 || slices.Contains(s.Rules.MayBeEmpty, table) {
			delete(s.empty, table)
			continue
		}
		seen := s.empty[table]
		if seen.copies++; seen.copies == 1 {
			seen.since = time.Now()
		}
		s.empty[table] = seen
		if seen.copies < saveCopies || time.Since(seen.since) < saveTime {
			t.Verdict.Refuse(replicator.Emptied, fmt.Sprintf("table %s is empty and had %d rows before: it may be half saved; taken if it stays so", table, before[table]))
		}
	}
	if t.Verdict.Sound() {
		clear(s.empty)
		return nil
	}
	return errors.Join(fmt.Errorf("proxysql: take a snapshot: %w: %v", replicator.ErrUnsound, t.Verdict), removed(path))
}

// compare notes what a standby does not get: what was never saved.
func (s *Source) compare(ctx context.Context, v *replicator.Verdict) {
	if s.db == nil {
		return
	}
	if began := time.Now(); s.trouble == nil && !began.Before(s.compareAt) {
		tables, err := unsaved(ctx, s.db, s.configuration())
		if s.note(ctx, err) {
			s.differ = tables
		}
		s.compareAt = time.Now().Add(compareShare * time.Since(began))
	}
	switch {
	case s.trouble != nil:
		v.Note("copied from the file: " + s.trouble.Error())
	case len(s.differ) > 0:
		v.Note("not saved: memory and disk differ in " + strings.Join(s.differ, ", ") + ": a standby gets what is on disk; SAVE ... TO DISK")
	}
}

// configuration lists the tables that are in memory and on disk.
func (s *Source) configuration() []string {
	var all []string
	for _, t := range s.Rules.Tables {
		if m := Module(t.Name, ""); m != "node" && t.Name != "mysql_collations" {
			all = append(all, t.Name)
		}
	}
	return all
}
