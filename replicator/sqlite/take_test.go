package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/sqlite"
)

// database opens a file with one connection.
func database(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	return db
}

func do(t testing.TB, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(s, err)
		}
	}
}

// take takes a snapshot that has to be there, and alone.
func take(t testing.TB, source string, o sqlite.Options) (path string, r sqlite.Report) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "copy.db")
	r, err := sqlite.Take(t.Context(), source, path, o)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the snapshot are %v, %v", entries, err)
	}
	return path, r
}

func TestASnapshotOfAQuietDatabaseIsTheSameEachTime(t *testing.T) {
	files := map[string][]byte{"proxysql.db": sample(t, "proxysql.db")}
	where := lay(t, files)
	source := filepath.Join(where, "proxysql.db")
	path, first := take(t, source, sqlite.Options{Rules: detect})
	_, second := take(t, source, sqlite.Options{Rules: detect, SHA256: first.SHA256})
	if !first.Sound() || !second.Sound() || first.Rows["mysql_users"] != 7 || first.Kind != "proxysql" || len(first.Notes) > 0 {
		t.Errorf("%v, then %v; %+v", first.Verdict, second.Verdict, first)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	untouched(t, where, files)
}

func TestASnapshotUnderAWriterIsOneMomentOfIt(t *testing.T) {
	for _, mode := range []string{"DELETE", "WAL"} {
		source := create(t, "PRAGMA journal_mode="+mode, "CREATE TABLE a (x, pad)", "CREATE TABLE b (x, pad)")
		writer := database(t, source+"?_busy_timeout=60000&_synchronous=OFF") // as ProxySQL writes
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		written := make(chan int, 1)
		go func() {
			n := 0
			defer func() { written <- n }()
			pause := time.NewTicker(2 * time.Millisecond)
			defer pause.Stop()
			for ; ctx.Err() == nil; <-pause.C {
				tx, err := writer.Begin()
				for _, table := range []string{"a", "b"} {
					if err == nil {
						_, err = tx.Exec("INSERT INTO " + table + " VALUES (1, randomblob(3000))")
					}
				}
				if err == nil {
					err = tx.Commit()
				}
				if err != nil {
					t.Error(err)
					return
				}
				n++
			}
		}()
		var last int64
		for range 8 {
			_, r := take(t, source, sqlite.Options{})
			if !r.Sound() || r.Rows["a"] != r.Rows["b"] || r.Rows["a"] < last || r.Header.WAL {
				t.Errorf("%s: %v, %v after %d", mode, r.Verdict, r.Rows, last)
			}
			last = r.Rows["a"]
		}
		stop()
		if n := <-written; n == 0 || last == 0 {
			t.Errorf("%s: the writer wrote %d times, %d were seen: nothing was tested", mode, n, last)
		}
	}
}

func TestWhatIsInTheWriteAheadLogIsInTheSnapshot(t *testing.T) {
	source := create(t, "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)")
	db := database(t, source)
	do(t, db, "PRAGMA wal_autocheckpoint=0", "INSERT INTO t VALUES (1), (2)")
	if got := check(t, source, sqlite.Options{}); got.Reason() != replicator.WAL {
		t.Errorf("the database itself: %v", got.Verdict)
	}
	if _, r := take(t, source, sqlite.Options{}); !r.Sound() || r.Rows["t"] != 2 {
		t.Errorf("%v %v", r.Verdict, r.Rows)
	}
}

func TestALockedDatabaseIsWaitedForAndNotForEver(t *testing.T) {
	source := create(t, "CREATE TABLE t (x)")
	db := database(t, source)
	do(t, db, "BEGIN EXCLUSIVE", "INSERT INTO t VALUES (1)")
	dest := filepath.Join(t.TempDir(), "copy.db")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("enough"))
	defer cancel()
	if _, err := sqlite.Take(ctx, source, dest, sqlite.Options{}); err == nil || ctx.Err() == nil {
		t.Errorf("taken while it was locked: %v", err)
	}
	if _, err := os.Stat(dest); !errors.Is(err, os.ErrNotExist) {
		t.Error("a copy that is of no use is left:", err)
	}
	done := make(chan sqlite.Report, 1)
	go func() {
		r, err := sqlite.Take(t.Context(), source, dest, sqlite.Options{})
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	deadline := time.Now().Add(5 * time.Second)
	for { // until it waits for the lock: its file is there
		if _, err := os.Stat(dest); err == nil || time.Now().After(deadline) {
			break
		}
		runtime.Gosched()
	}
	do(t, db, "COMMIT")
	if r := <-done; !r.Sound() || r.Rows["t"] != 1 {
		t.Errorf("%v %v", r.Verdict, r.Rows)
	}
}

func TestWhatCannotBeTakenLeavesNothing(t *testing.T) {
	where := lay(t, map[string][]byte{"x.db": sample(t, "proxysql.db"), "noise.db": sample(t, "damaged/not-a-database.db"), "there.db": []byte("mine")})
	at := func(name string) string { return filepath.Join(where, name) }
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		source, dest string
		o            sqlite.Options
	}{
		"no source":      {at("gone.db"), at("copy.db"), sqlite.Options{}},
		"a pipe":         {at("pipe"), at("copy.db"), sqlite.Options{}},
		"a directory":    {where, at("copy.db"), sqlite.Options{}},
		"too large":      {at("x.db"), at("copy.db"), sqlite.Options{MaxSize: 1000}},
		"noise":          {at("noise.db"), at("copy.db"), sqlite.Options{}},
		"dest is there":  {at("x.db"), at("there.db"), sqlite.Options{}},
		"dest is source": {at("x.db"), at("x.db"), sqlite.Options{}},
		"no directory":   {at("x.db"), at("none/copy.db"), sqlite.Options{}},
	} {
		if r, err := sqlite.Take(t.Context(), tc.source, tc.dest, tc.o); err == nil {
			t.Errorf("%s: taken, %v", name, r.Verdict)
		}
	}
	if b, err := os.ReadFile(at("there.db")); err != nil || string(b) != "mine" {
		t.Errorf("a file that was there is now %q, %v", b, err)
	}
	if entries, err := os.ReadDir(where); err != nil || len(entries) != 4 {
		t.Error(entries, err)
	}
}

// TestAnInterruptedWriterIsNotMended: to take its changes back is for the program
// whose database it is.
func TestAnInterruptedWriterIsNotMended(t *testing.T) {
	files := map[string][]byte{"x.db": sample(t, "damaged/hot-journal.db"), "x.db-journal": sample(t, "damaged/hot-journal.db-journal")}
	where := lay(t, files)
	dest := filepath.Join(t.TempDir(), "copy.db")
	if r, err := sqlite.Take(t.Context(), filepath.Join(where, "x.db"), dest, sqlite.Options{Rules: detect}); err == nil {
		t.Errorf("taken: %v", r.Verdict)
	}
	untouched(t, where, files)
}

func TestASnapshotBetweenDeleteAndInsertIsRefused(t *testing.T) {
	source := filepath.Join(lay(t, map[string][]byte{"proxysql.db": sample(t, "proxysql.db")}), "proxysql.db")
	do(t, database(t, source), "DELETE FROM mysql_users")
	if _, r := take(t, source, sqlite.Options{Rules: detect}); r.Reason() != replicator.Emptied {
		t.Error(r.Verdict)
	}
}

func TestWhatIsTakenIsPublishedAndSoundWhenItIsReadAgain(t *testing.T) {
	source := filepath.Join(lay(t, map[string][]byte{"proxysql.db": sample(t, "proxysql.db")}), "proxysql.db")
	path, r := take(t, source, sqlite.Options{Rules: detect})
	m := r.Manifest()
	m.Version, m.Source, m.Time = replicator.Version{Epoch: 7, Node: 1, Sequence: 1}, "a", time.Now()
	store, err := dir.Open(t.Context(), filepath.Join(t.TempDir(), "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Publish(t.Context(), m, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	all, err := store.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Rows["mysql_servers"] != 10 {
		t.Fatal(all, err)
	}
	if got := check(t, store.Path(all[0].Version), sqlite.Options{Rules: detect, SHA256: all[0].SHA256}); !got.Sound() {
		t.Error(got.Verdict)
	}
}

func BenchmarkTake(b *testing.B) {
	source := filepath.Join(lay(b, map[string][]byte{"proxysql.db": sample(b, "proxysql.db")}), "proxysql.db")
	dest := filepath.Join(b.TempDir(), "copy.db")
	for b.Loop() {
		if r, err := sqlite.Take(b.Context(), source, dest, sqlite.Options{Rules: detect}); err != nil || !r.Sound() {
			b.Fatal(r.Verdict, err)
		}
		if err := os.Remove(dest); err != nil {
			b.Fatal(err)
		}
	}
}
