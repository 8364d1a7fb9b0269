package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/sqlite"
)

// journals are the modes in which writers write.
var journals = []string{"DELETE", "TRUNCATE", "PERSIST", "WAL"}

func source(t testing.TB, c sqlite.SourceConfig) *sqlite.Source {
	t.Helper()
	s, err := sqlite.NewSource(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// snap takes a snapshot that has to be sound, and returns how many rows table t has.
func snap(t testing.TB, s replicator.Source) int64 {
	t.Helper()
	taken, err := s.Take(t.Context(), filepath.Join(t.TempDir(), "copy.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return taken.Manifest.Rows["t"]
}

// changed reports whether a source says within a time that something has changed.
func changed(t testing.TB, s replicator.Source, within time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	err := s.Changed(ctx)
	if err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	return err == nil
}

const (
	soon  = 10 * time.Second      // for what has to come, on a busy machine
	quiet = 30 * time.Millisecond // for what must not come
)

func TestAChangeIsSeenAndNothingElse(t *testing.T) {
	for _, mode := range journals {
		for _, poll := range []time.Duration{time.Hour, time.Millisecond} { // by the files, and by asking
			path := create(t, "PRAGMA journal_mode="+mode, "CREATE TABLE t (x)")
			writer := database(t, path+"?_busy_timeout=10000")
			s := source(t, sqlite.SourceConfig{Path: path, Poll: poll})
			if !changed(t, s, soon) {
				t.Fatalf("%s: nothing is there before the first snapshot", mode)
			}
			snap(t, s)
			for i := range int64(5) {
				if changed(t, s, quiet) {
					t.Errorf("%s: changed, and nobody wrote", mode)
				}
				seen := make(chan bool)
				go func() { seen <- changed(t, s, soon) }()
				do(t, writer, "BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)", "COMMIT")
				if !<-seen {
					t.Fatalf("%s, asked each %v: a change is not seen", mode, poll)
				}
				if n := snap(t, s); n != i+1 {
					t.Errorf("%s: %d rows after %d changes", mode, n, i+1)
				}
			}
			do(t, writer, "BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)", "ROLLBACK")
			if changed(t, s, quiet) {
				t.Errorf("%s: changed by what was taken back", mode)
			}
		}
	}
}

func TestWhatIsWrittenDuringTheCopyIsAChangeAfterIt(t *testing.T) {
	for _, mode := range journals {
		path := create(t, "PRAGMA journal_mode="+mode, "CREATE TABLE t (x)")
		s := source(t, sqlite.SourceConfig{Path: path, Poll: time.Hour})
		_, err := s.TakeBy(t.Context(), func() (replicator.Taken, error) {
			defer do(t, database(t, path), "INSERT INTO t VALUES (1)")
			r, err := sqlite.Take(t.Context(), path, filepath.Join(t.TempDir(), "copy.db"), sqlite.Options{})
			return replicator.Taken{Manifest: r.Manifest(), Verdict: r.Verdict}, err
		})
		if err != nil || !changed(t, s, soon) || snap(t, s) != 1 || changed(t, s, quiet) {
			t.Errorf("%s: it is lost: %v", mode, err)
		}
	}
}

func TestAFileThatTookTheNameIsAChange(t *testing.T) {
	path := create(t, "CREATE TABLE t (x)")
	s := source(t, sqlite.SourceConfig{Path: path, Poll: time.Hour})
	snap(t, s)
	if err := os.Rename(create(t, "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)"), path); err != nil {
		t.Fatal(err)
	}
	if !changed(t, s, soon) || snap(t, s) != 1 || changed(t, s, quiet) {
		t.Error("the new file is not what was taken")
	}
	do(t, database(t, path), "INSERT INTO t VALUES (2)")
	if !changed(t, s, soon) || snap(t, s) != 2 {
		t.Error("changes of the new file are not seen")
	}
}

func TestADatabaseThatIsNotThereOrNotMendedIsAnErrorUntilItIs(t *testing.T) {
	where := lay(t, map[string][]byte{"x.db": sample(t, "damaged/hot-journal.db"), "x.db-journal": sample(t, "damaged/hot-journal.db-journal")})
	interrupted := filepath.Join(where, "x.db")
	gone := filepath.Join(t.TempDir(), "gone.db")
	for path, mend := range map[string]func(){
		interrupted: func() { do(t, database(t, interrupted), "SELECT count(*) FROM mysql_users") },
		gone:        func() { do(t, database(t, gone), "CREATE TABLE t (x)") },
	} {
		s := source(t, sqlite.SourceConfig{Path: path})
		for range 3 {
			if err := s.Changed(t.Context()); err == nil {
				t.Errorf("%s: no error", path)
			}
		}
		mend()
		if err := s.Changed(t.Context()); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		snap(t, s)
		if changed(t, s, quiet) {
			t.Errorf("%s: changed, and nobody wrote", path)
		}
	}
}

func TestWatchingLeavesNoLock(t *testing.T) {
	for _, mode := range journals {
		path := create(t, "PRAGMA journal_mode="+mode, "CREATE TABLE t (x)")
		s := source(t, sqlite.SourceConfig{Path: path, Poll: time.Hour})
		snap(t, s)
		if changed(t, s, quiet) {
			t.Error("changed, and nobody wrote")
		}
		do(t, database(t, path+"?_busy_timeout=0"), "BEGIN EXCLUSIVE", "INSERT INTO t VALUES (1)", "COMMIT") // would fail at once
		if !changed(t, s, soon) {
			t.Errorf("%s: not seen", mode)
		}
	}
}

func TestWhatIsNotSoundIsNoSnapshotAndIsTakenOnceItIs(t *testing.T) {
	path := filepath.Join(lay(t, map[string][]byte{"proxysql.db": sample(t, "proxysql.db")}), "proxysql.db")
	s := source(t, sqlite.SourceConfig{Path: path, Rules: detect})
	first, err := s.Take(t.Context(), filepath.Join(t.TempDir(), "copy.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		emptied string
		before  map[string]int64
	}{
		{"mysql_users", nil},
		{"mysql_servers", first.Manifest.Rows},
	} {
		db := database(t, path)
		do(t, db, "CREATE TEMP TABLE kept AS SELECT * FROM "+tc.emptied, "DELETE FROM "+tc.emptied)
		if !changed(t, s, soon) {
			t.Fatal("not seen")
		}
		dest := filepath.Join(t.TempDir(), "copy.db")
		taken, err := s.Take(t.Context(), dest, tc.before)
		if !errors.Is(err, replicator.ErrUnsound) || !taken.Verdict.Has(replicator.Emptied) {
			t.Errorf("%s: %v, %v", tc.emptied, taken.Verdict, err)
		}
		if left, err := os.ReadDir(filepath.Dir(dest)); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
		if !changed(t, s, soon) {
			t.Error("what is in no snapshot is no change any more")
		}
		do(t, db, "INSERT INTO "+tc.emptied+" SELECT * FROM kept", "DROP TABLE kept")
		if _, err := s.Take(t.Context(), dest, tc.before); err != nil {
			t.Error(err)
		}
	}
}

// shelf is a store that notes when how many rows were there.
type shelf struct {
	*dir.Store
	mu   sync.Mutex
	rows []int64
	when []time.Time
}

func (s *shelf) Publish(ctx context.Context, m replicator.Manifest, data io.Reader) error {
	err := s.Store.Publish(ctx, m, data)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.rows, s.when = append(s.rows, m.Rows["t"]), append(s.when, time.Now())
	}
	return err
}

// since returns when a snapshot with n rows was there, or zero.
func (s *shelf) since(n int64) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, rows := range s.rows {
		if rows >= n {
			return s.when[i]
		}
	}
	return time.Time{}
}

// mastership runs a Master on a database, whose verified snapshots are in the shelf.
func mastership(t testing.TB, s replicator.Source) (*shelf, *replicator.Master) {
	t.Helper()
	store, err := dir.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	on := &shelf{Store: store}
	m, err := replicator.NewMaster(replicator.MasterConfig{Source: s, Store: on, Scratch: filepath.Join(t.TempDir(), "scratch"), Epoch: 1, Node: 1, Name: "a",
		Keep: replicator.Keep{Count: 5}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return on, m
}

// write commits a row at each tick, and returns when each commit was through.
func write(t testing.TB, db *sql.DB, n int, every time.Duration) (when []time.Time) {
	t.Helper()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for range n {
		do(t, db, "INSERT INTO t VALUES (randomblob(200))")
		when = append(when, time.Now())
		<-tick.C
	}
	return when
}

// delays returns for each change how long it took until a verified snapshot held it,
// smallest first.
func delays(t testing.TB, on *shelf, when []time.Time) (all []time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for on.since(int64(len(when))).IsZero() {
		select {
		case <-ctx.Done():
			t.Fatalf("the last of %d changes is in no snapshot; there are %v", len(when), on.rows)
		case <-tick.C:
		}
	}
	for i, at := range when {
		all = append(all, max(0, on.since(int64(i+1)).Sub(at)))
	}
	slices.Sort(all)
	return all
}

func TestEachCommitIsInASoundSnapshotWithinTwoSeconds(t *testing.T) {
	for _, mode := range journals {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			path := create(t, "PRAGMA journal_mode="+mode, "CREATE TABLE t (x)")
			on, m := mastership(t, source(t, sqlite.SourceConfig{Path: path}))
			when := write(t, database(t, path+"?_busy_timeout=10000"), 100, 20*time.Millisecond)
			all := delays(t, on, when)
			if last := all[len(all)-1]; last > 2*time.Second {
				t.Errorf("%v until a change is in a snapshot; %v; %+v", last, all, m.Status())
			}
			if taken := m.Status().Taken; taken > 20 {
				t.Errorf("%d snapshots of 2 s of changes", taken)
			}
		})
	}
}

// BenchmarkChangeToSnapshot: single changes of ProxySQL's sample, one each 700 ms; until
// they are in a verified snapshot of the own store.
func BenchmarkChangeToSnapshot(b *testing.B) {
	path := filepath.Join(lay(b, map[string][]byte{"proxysql.db": sample(b, "proxysql.db")}), "proxysql.db")
	do(b, database(b, path), "CREATE TABLE t (x)")
	on, _ := mastership(b, source(b, sqlite.SourceConfig{Path: path, Rules: detect}))
	all := delays(b, on, write(b, database(b, path+"?_busy_timeout=10000"), b.N, 700*time.Millisecond))
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(all[(len(all)*p-1)/100].Microseconds())/1000, fmt.Sprintf("ms-p%d", p))
	}
}
