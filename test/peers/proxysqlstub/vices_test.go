package proxysqlstub_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/sqlite"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers/proxysqlstub"
)

// users counts the users in a file.
func users(t *testing.T, path string) int64 {
	t.Helper()
	return sqlite.Verify(context.Background(), path, sqlite.Options{Rules: func(replicator.Content) replicator.Rules { return replicator.Rules{} }}).Rows["mysql_users"]
}

// TestASaveIsSeenHalfDone copies the database while a SAVE is between DELETE and INSERT:
// from outside without users, on the admin port not before the SAVE is over.
func TestASaveIsSeenHalfDone(t *testing.T) {
	t.Parallel()
	n, db := started(t, host(t), proxysqlstub.Options{})
	other := n.Admin("ops", "made-up-ops")
	t.Cleanup(func() { _ = other.Close() })
	same(t, other, "SELECT 1", "1")
	n.Fault("save-gap", "1s")
	saved := make(chan error, 1)
	go func() {
		_, err := db.Exec("SAVE MYSQL USERS TO DISK")
		saved <- err
	}()
	half := ""
	for i := 0; half == ""; i++ {
		path := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if _, err := sqlite.Take(context.Background(), n.Database(), path, sqlite.Options{}); err != nil {
			t.Fatal(err)
		}
		if users(t, path) == 0 {
			half = path
		}
		select {
		case <-saved:
			t.Fatal("no copy without users was made while the SAVE went on")
		default:
		}
	}
	inside := filepath.Join(n.Data, "inside.db")
	run(t, other, "VACUUM disk INTO '"+inside+"'")
	if err := <-saved; err != nil {
		t.Error(err)
	}
	if got := users(t, inside); got != 7 {
		t.Errorf("VACUUM disk INTO gave %d users, want 7", got)
	}

	n.Fault("save-gap", "")
	n.Fault("save-unlocked", "1s") // what its own cluster pulled
	go func() {
		_, err := db.Exec("SAVE MYSQL USERS TO DISK")
		saved <- err
	}()
	lab.Eventually(t, 5*time.Second, "the table to be empty for others", func() bool { return value(t, other, "SELECT count(*) FROM disk.mysql_users") == "0" })
	if err := <-saved; err != nil {
		t.Error(err)
	}
	same(t, other, "SELECT count(*) FROM disk.mysql_users", "7")
}

// TestAReaderOutsideFreezesTheAdminPort holds a read transaction on the file: a SAVE
// waits for its end, with the mutex that each statement needs.
func TestAReaderOutsideFreezesTheAdminPort(t *testing.T) {
	t.Parallel()
	n, db := started(t, host(t), proxysqlstub.Options{})
	other := n.Admin("ops", "made-up-ops")
	t.Cleanup(func() { _ = other.Close() })
	same(t, other, "SELECT 1", "1")

	file, err := sql.Open("sqlite3", "file:"+n.Database())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	reader, err := file.Begin()
	if err != nil {
		t.Fatal(err)
	}
	var count int
	if err := reader.QueryRow("SELECT count(*) FROM mysql_users").Scan(&count); err != nil {
		t.Fatal(err)
	}
	saved := make(chan error, 1)
	go func() {
		_, err := db.Exec("SAVE MYSQL USERS TO DISK")
		saved <- err
	}()
	hangs := func(db *sql.DB) bool {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		return errors.Is(db.PingContext(ctx), context.DeadlineExceeded) || errors.Is(db.QueryRowContext(ctx, "SELECT 1").Err(), context.DeadlineExceeded)
	}
	lab.Eventually(t, 5*time.Second, "SELECT 1 to hang", func() bool { return hangs(other) })
	select {
	case err := <-saved:
		t.Errorf("the SAVE is over: %v", err)
	default:
	}
	if err := reader.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-saved; err != nil {
		t.Error(err)
	}
	same(t, db, "SELECT count(*) FROM disk.mysql_users", "7")
}

// TestRepliesLie replaces the file under a server that runs, and damages it: every
// command is answered with OK.
func TestRepliesLie(t *testing.T) {
	t.Parallel()
	n, db := started(t, host(t), proxysqlstub.Options{})
	replace := func(name string) {
		t.Helper()
		text, err := os.ReadFile(sample(t, name))
		if err == nil {
			err = os.WriteFile(n.Database()+".new", text, 0o600)
		}
		if err == nil {
			err = os.Rename(n.Database()+".new", n.Database())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	replace("damaged/users-empty.db")
	run(t, db, "LOAD MYSQL USERS FROM DISK", "DELETE FROM mysql_users WHERE username='reporting'", "SAVE MYSQL USERS TO DISK")
	same(t, db, "SELECT count(*) FROM main.mysql_users", "6") // of the file that is gone
	if !strings.Contains(n.Log(), "attempt to write a readonly database") {
		t.Errorf("the log says nothing of the SAVE that failed:\n%s", n.Log())
	}
	if got := users(t, n.Database()); got != 0 {
		t.Errorf("%d users in the new file, want 0", got)
	}
	run(t, db, "PROXYSQL FLUSH CONFIGDB", "SAVE MYSQL USERS TO DISK")
	if got := users(t, n.Database()); got != 6 {
		t.Errorf("%d users in the new file after FLUSH CONFIGDB, want 6", got)
	}

	replace("damaged/users-page-garbage.db")
	run(t, db, "PROXYSQL FLUSH CONFIGDB", "LOAD MYSQL USERS FROM DISK")
	same(t, db, "SELECT count(*) FROM main.mysql_users", "0")
	rows, err := db.Query("SELECT * FROM disk.mysql_users")
	if err != nil || rows.Next() || rows.Err() != nil {
		t.Errorf("a damaged table answers %v, want no row and no error", errors.Join(err, rows.Err()))
	}
	_ = rows.Close()
	if got := value(t, db, "PRAGMA disk.quick_check"); got == "ok" {
		t.Error("quick_check finds nothing")
	}
	same(t, db, "SELECT count(*) FROM main.mysql_servers", "10")
	replace("damaged/not-a-database.db")
	run(t, db, "PROXYSQL FLUSH CONFIGDB", "LOAD MYSQL SERVERS FROM DISK")
	same(t, db, "SELECT count(*) FROM main.mysql_servers", "0")
	same(t, db, "SELECT count(*) FROM runtime_mysql_servers", "10")
}

// TestAWriteToDiskFailsInTheLogOnly is a full disk.
func TestAWriteToDiskFailsInTheLogOnly(t *testing.T) {
	t.Parallel()
	n, db := started(t, host(t), proxysqlstub.Options{})
	n.Fault("disk", "database or disk is full")
	run(t, db, "DELETE FROM mysql_users", "SAVE MYSQL USERS TO DISK")
	same(t, db, "SELECT count(*) FROM disk.mysql_users", "7")
	if !strings.Contains(n.Log(), "database or disk is full") {
		t.Errorf("the log is:\n%s", n.Log())
	}
	n.Fault("disk", "")
	run(t, db, "SAVE MYSQL USERS TO DISK")
	same(t, db, "SELECT count(*) FROM disk.mysql_users", "0")
}

// TestEachBackupFromInsideIsWhole saves all the time, and makes backups on the admin port
// meanwhile: none is half a configuration. Clients come and go, and the monitor asks.
func TestEachBackupFromInsideIsWhole(t *testing.T) {
	t.Parallel()
	n, db := started(t, host(t), proxysqlstub.Options{})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var busy sync.WaitGroup
	defer busy.Wait()
	defer stop()
	for _, text := range []string{"SAVE MYSQL USERS TO DISK", "SAVE MYSQL SERVERS TO DISK", "SELECT * FROM runtime_mysql_users, stats_mysql_processlist", "LOAD MYSQL SERVERS TO RUNTIME"} {
		db := n.Admin("ops", "made-up-ops")
		t.Cleanup(func() { _ = db.Close() })
		busy.Go(func() {
			for ctx.Err() == nil {
				if _, err := db.Exec(text); err != nil {
					t.Errorf("%s: %v", text, err)
					return
				}
			}
		})
	}
	busy.Go(func() {
		for ctx.Err() == nil {
			app := n.Open(n.ClientAddr(), "orders_app", "made-up-orders")
			if err := app.Ping(); err != nil {
				t.Errorf("a client: %v", err)
			}
			_ = app.Close()
		}
	})
	for i := range 30 {
		path := filepath.Join(n.Data, fmt.Sprintf("backup-%d.db", i))
		run(t, db, "VACUUM disk INTO '"+path+"'")
		if got := users(t, path); got != 7 {
			t.Errorf("backup %d holds %d users, want 7", i, got)
		}
	}
}

// TestWhatLiesBesideTheFileIsApplied puts a database where another one's journal or WAL
// was left: that is rolled back into the new file, or applied to it.
func TestWhatLiesBesideTheFileIsApplied(t *testing.T) {
	t.Parallel()
	h := host(t)
	for _, c := range []struct{ file, left, suffix, query, want string }{
		{"damaged/users-empty.db", "damaged/hot-journal.db", "-journal", "SELECT count(*) FROM mysql_users", "7"},
		{"damaged/servers-empty.db", "damaged/wal-with-content.db", "-wal", "SELECT comment FROM mysql_users WHERE username='reporting'", "only in the wal"},
	} {
		file := sample(t, c.file)
		if err := os.Rename(sample(t, c.left, c.suffix)+c.suffix, file+c.suffix); err != nil {
			t.Fatal(err)
		}
		n, db := started(t, h, proxysqlstub.Options{Database: file})
		same(t, db, c.query, c.want)
		n.Kill()
	}
}
