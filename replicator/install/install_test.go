package install_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/install"
	"github.com/carpd/carpd/replicator/proxysql"
	"github.com/carpd/carpd/replicator/sqlite"
)

// sample returns a file of those that ProxySQL 2.7.1 was started on.
func sample(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "sqlite", "testdata", "proxysql", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// changed returns the sample after some statements.
func changed(t testing.TB, statements ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.db")
	put(t, path, sample(t, "proxysql.db"))
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(s, err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// version is that of the n-th snapshot of a test.
func version(n uint64) replicator.Version { return replicator.Version{Epoch: 7, Node: 1, Sequence: n} }

// publish offers bytes as a snapshot, with a manifest that says what they are: as from a
// source that does not look.
func publish(t testing.TB, s *dir.Store, n uint64, b []byte) {
	t.Helper()
	sum := sha256.Sum256(b)
	m := replicator.Manifest{Version: version(n), Source: "left", Time: time.Unix(1e9, 0), Kind: "proxysql", Size: int64(len(b)),
		SHA256: hex.EncodeToString(sum[:]), PageSize: 1, Pages: int64(len(b))}
	if err := s.Publish(t.Context(), m, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, path string) *dir.Store {
	t.Helper()
	s, err := dir.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// uuid and addresses are rows that each node of ProxySQL has of its own.
func rows() (local, drop []sqlite.Rows) {
	uuid := sqlite.Rows{Table: "global_settings", Column: "variable_name", Values: []string{"uuid"}}
	return []sqlite.Rows{uuid, {Table: "global_variables", Column: "variable_name", Values: []string{"mysql-interfaces", "mysql-ssl_p2s_*"}}, {Table: "proxysql_servers"}}, []sqlite.Rows{uuid}
}

func place(t testing.TB, database string) *install.Place {
	t.Helper()
	local, drop := rows()
	p, err := install.New(install.Config{Database: database, Local: local, Drop: drop, Verify: sqlite.Options{
		Rules: func(replicator.Content) replicator.Rules { return proxysql.Rules() },
	}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ask returns a value of the database as its program would see it: a journal beside it
// counts.
func ask(t testing.TB, database, query string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "seen.db")
	for _, suffix := range []string{"", "-journal", "-wal"} {
		b, err := os.ReadFile(database + suffix)
		if errors.Is(err, os.ErrNotExist) && suffix != "" {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		put(t, path+suffix, b)
	}
	if err := sqlite.Settle(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var value string
	if err := db.QueryRowContext(t.Context(), query).Scan(&value); err != nil {
		t.Fatal(query, err)
	}
	return value
}

const (
	whose     = "SELECT max(comment) FROM mysql_users"
	setWhose  = "UPDATE mysql_users SET comment='%s'"
	whichUUID = "SELECT variable_value FROM global_settings WHERE variable_name='uuid'"
)

// offered is what is said of each file when it is the newest snapshot. "" is for a sound
// one, which is taken.
var offered = map[string]string{
	"proxysql.db":                           "",
	"damaged/file-format-too-new.db":        "file-format",
	"damaged/header-only.db":                "size",
	"damaged/hot-journal.db":                "size", // a snapshot is one file: its journal is lost
	"damaged/index-disagrees.db":            "integrity",
	"damaged/no-uuid.db":                    "",
	"damaged/not-a-database.db":             "not-a-database",
	"damaged/one-byte-in-a-hostname.db":     "integrity",
	"damaged/one-byte-in-a-password.db":     "", // with a manifest of its own; not with that of the original, see below
	"damaged/schema-text-damaged.db":        "integrity",
	"damaged/servers-empty.db":              "emptied",
	"damaged/servers-page-garbage.db":       "integrity",
	"damaged/truncated-half.db":             "size",
	"damaged/truncated-inside-page-1.db":    "size",
	"damaged/truncated-last-page.db":        "size",
	"damaged/truncated-one-page-missing.db": "size",
	"damaged/users-empty.db":                "emptied",
	"damaged/users-page-garbage.db":         "integrity",
	"damaged/users-page-zeroed.db":          "integrity",
	"damaged/users-table-missing.db":        "table-missing",
	"damaged/variables-page-garbage.db":     "integrity",
	"damaged/wal-mode.db":                   "wal-mode",
	"damaged/wal-with-content.db":           "wal-mode",
	"damaged/wrong-magic.db":                "not-a-database",
	"schema-other/as-of-1.4.16.db":          "",
	"schema-other/as-of-2.0.18.db":          "",
	"schema-other/as-of-2.5.5.db":           "",
	"schema-other/as-of-3.0.0-alpha.db":     "",
	"schema-other/column-added.db":          "create-text",
	"schema-other/extra-index.db":           "",
	"schema-other/extra-table.db":           "",
	"schema-other/spelling-differs.db":      "create-text",
}

// TestEachDamagedDatabaseOfferedAsTheNewestIsRefusedAndTheNextOlderIsTaken offers each
// file of testdata: as a source would that verifies nothing, and as what a disk made of
// a snapshot that was sound.
func TestEachDamagedDatabaseOfferedAsTheNewestIsRefusedAndTheNextOlderIsTaken(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "sqlite", "testdata", "proxysql", "*", "*.db.gz"))
	if err != nil || len(files) != len(offered) { // empty.db has no manifest of its own, proxysql.db lies above
		t.Errorf("%d files and %d verdicts, %v", len(files), len(offered), err)
	}
	sound := changed(t, fmt.Sprintf(setWhose, "sound"))
	for name, want := range offered {
		t.Run(name, func(t *testing.T) {
			store := open(t, filepath.Join(t.TempDir(), "store"))
			publish(t, store, 1, sound)
			publish(t, store, 2, sample(t, name))
			promoted(t, store, want)
		})
	}
	for name := range offered {
		if name != "proxysql.db" {
			rots(t, name, sound)
		}
	}
	rots(t, "damaged/empty.db", sound)
}

// rots has a sound snapshot turn into a file behind the store's back.
func rots(t *testing.T, name string, sound []byte) {
	t.Run("rotten/"+name, func(t *testing.T) {
		store := open(t, filepath.Join(t.TempDir(), "store"))
		publish(t, store, 1, sound)
		publish(t, store, 2, sample(t, "proxysql.db"))
		put(t, store.Path(version(2)), sample(t, name))
		promoted(t, store, "*")
	})
}

// promoted installs the newest of two snapshots, and checks which it is and what was said
// of the other. "*": any reason.
func promoted(t *testing.T, store *dir.Store, reason string) {
	t.Helper()
	p := place(t, filepath.Join(t.TempDir(), "proxysql.db"))
	m, err := p.Newest(t.Context(), store, nil)
	if err != nil {
		t.Fatal(err)
	}
	wanted := version(1)
	if reason == "" {
		wanted = version(2)
	}
	if m.Version != wanted {
		t.Errorf("%v is installed, want %v", m.Version, wanted)
	}
	if reason != "" && ask(t, p.Database(), whose) != "sound" {
		t.Error("the database is another one")
	}
	if v, err := p.Present(t.Context(), nil); err != nil || !v.Sound() {
		t.Errorf("what is installed is %v, %v", v, err)
	}
	all, err := store.Quarantined(t.Context())
	switch {
	case err != nil:
		t.Error(err)
	case reason == "*" || reason == "" && len(all) == 0:
	case reason == "" || len(all) != 1 || all[0].Version != version(2) || string(all[0].Fault.Reason) != reason:
		t.Errorf("in quarantine is %v, want the newest for %q", all, reason)
	}
}

func TestWithoutASoundSnapshotTheDatabaseStaysAndTheErrorSaysWhy(t *testing.T) {
	store := open(t, filepath.Join(t.TempDir(), "store"))
	p := place(t, filepath.Join(t.TempDir(), "proxysql.db"))
	if _, err := p.Newest(t.Context(), store, nil); !errors.Is(err, install.ErrNone) {
		t.Errorf("of an empty store: %v", err)
	}
	if v, err := p.Present(t.Context(), nil); err != nil || v.Reason() != replicator.Missing {
		t.Errorf("no database is %v, %v", v, err)
	}
	old := changed(t, fmt.Sprintf(setWhose, "old"))
	put(t, p.Database(), old)
	publish(t, store, 1, sample(t, "damaged/users-empty.db"))
	if _, err := p.Newest(t.Context(), store, nil); !errors.Is(err, install.ErrNone) || !strings.Contains(fmt.Sprint(err), "mysql_users is empty") {
		t.Error(err)
	}
	if b, err := os.ReadFile(p.Database()); err != nil || !bytes.Equal(b, old) {
		t.Error("the database was touched:", err)
	}
	clean(t, p.Database(), 0)
}

func TestEachNodeKeepsItsOwnRows(t *testing.T) {
	store := open(t, filepath.Join(t.TempDir(), "store"))
	publish(t, store, 1, changed(t, fmt.Sprintf(setWhose, "new"), "UPDATE global_variables SET variable_value='/left.pem' WHERE variable_name='mysql-ssl_p2s_cert'",
		"UPDATE global_variables SET variable_value='77' WHERE variable_name='mysql-max_connections'"))
	p := place(t, filepath.Join(t.TempDir(), "proxysql.db"))
	put(t, p.Database(), changed(t, "UPDATE global_settings SET variable_value='my-own'", "DELETE FROM proxysql_servers",
		"UPDATE global_variables SET variable_value='192.0.2.2:6033' WHERE variable_name='mysql-interfaces'"))
	if _, err := p.Newest(t.Context(), store, nil); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{
		whichUUID:                               "my-own",
		whose:                                   "new",
		"SELECT count(*) FROM proxysql_servers": "0",
		"SELECT variable_value FROM global_variables WHERE variable_name='mysql-interfaces'":         "192.0.2.2:6033",
		"SELECT variable_value FROM global_variables WHERE variable_name='mysql-ssl_p2s_cert'":       "",
		"SELECT variable_value FROM global_variables WHERE variable_name='mysql-max_connections'":    "77",
		"SELECT count(*) FROM global_variables":                                                      "212",
		"SELECT name||count(*) FROM pragma_table_info('global_settings') WHERE name='variable_name'": "variable_name1",
	} {
		if got := ask(t, p.Database(), query); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

func TestANodeWithoutADatabaseOfUseMakesAnIdentityOfItsOwn(t *testing.T) {
	for name, present := range map[string][]byte{"none": nil, "empty": {}, "noise": sample(t, "damaged/not-a-database.db"), "half": sample(t, "damaged/truncated-half.db")} {
		store := open(t, filepath.Join(t.TempDir(), "store"))
		publish(t, store, 1, sample(t, "proxysql.db"))
		p := place(t, filepath.Join(t.TempDir(), "proxysql.db"))
		if name != "none" {
			put(t, p.Database(), present)
		}
		if _, err := p.Newest(t.Context(), store, nil); err != nil {
			t.Fatal(name, err)
		}
		if n := ask(t, p.Database(), "SELECT count(*) FROM global_settings WHERE variable_name='uuid'"); n != "0" {
			t.Errorf("%s: it has the identity of the other node", name)
		}
	}
}

// hot lays a database whose writer was killed, with the journal that belongs to it.
func hot(t testing.TB, database string) {
	put(t, database, sample(t, "damaged/hot-journal.db"))
	put(t, database+"-journal", sample(t, "damaged/hot-journal.db-journal"))
}

func TestJournalsOfTheOldDatabaseNeverTouchTheNewOneAndStayWithTheirOwn(t *testing.T) {
	for _, name := range []string{"hot-journal", "wal-with-content"} {
		store := open(t, filepath.Join(t.TempDir(), "store"))
		publish(t, store, 1, changed(t, fmt.Sprintf(setWhose, "new")))
		p := place(t, filepath.Join(t.TempDir(), "proxysql.db"))
		put(t, p.Database(), sample(t, "damaged/"+name+".db"))
		side := map[string]string{"hot-journal": "-journal", "wal-with-content": "-wal"}[name]
		put(t, p.Database()+side, sample(t, "damaged/"+name+".db"+side))
		put(t, p.Database()+"-shm", []byte("stale"))
		want := ask(t, p.Database(), whose)
		if _, err := p.Newest(t.Context(), store, nil); err != nil {
			t.Fatal(name, err)
		}
		clean(t, p.Database(), 1)
		if got := ask(t, p.Database(), whose); got != "new" {
			t.Errorf("%s: the new database says %q", name, got)
		}
		if got := ask(t, filepath.Join(p.Database()+".carpd", "old-1"), whose); got != want {
			t.Errorf("%s: the old database, kept aside, says %q, was %q", name, got, want)
		}
	}
}

func TestOwnerAndModeAreThoseThatTheProgramNeeds(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	store := open(t, filepath.Join(t.TempDir(), "store"))
	publish(t, store, 1, sample(t, "proxysql.db"))
	owned := func(p *install.Place) (uint32, os.FileMode) {
		t.Helper()
		if _, err := p.Newest(t.Context(), store, nil); err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(p.Database())
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Uid, info.Mode()
	}
	where := t.TempDir()
	if err := os.Chown(where, 4242, 4242); err != nil {
		t.Fatal(err)
	}
	p := place(t, filepath.Join(where, "proxysql.db"))
	if uid, mode := owned(p); uid != 4242 || mode != 0o600 {
		t.Errorf("user %d, mode %v; want those of the directory and 0600", uid, mode)
	}
	if err := os.Chown(p.Database(), 4343, 4343); err != nil {
		t.Fatal(err)
	}
	if uid, _ := owned(p); uid != 4343 {
		t.Errorf("user %d; want that of the database before", uid)
	}
	p, err := install.New(install.Config{Database: p.Database(), Owner: &install.Owner{UID: 4444, GID: 1}, Mode: 0o640})
	if err != nil {
		t.Fatal(err)
	}
	if uid, mode := owned(p); uid != 4444 || mode != 0o640 {
		t.Errorf("user %d, mode %v; want what was asked for", uid, mode)
	}
}

func TestDatabasesKeptAsideAreBounded(t *testing.T) {
	store := open(t, filepath.Join(t.TempDir(), "store"))
	publish(t, store, 1, sample(t, "proxysql.db"))
	p, err := install.New(install.Config{Database: filepath.Join(t.TempDir(), "x.db"), Keep: 3})
	if err != nil {
		t.Fatal(err)
	}
	for range 7 {
		if _, err := p.Newest(t.Context(), store, nil); err != nil {
			t.Fatal(err)
		}
	}
	clean(t, p.Database(), 3)
}

// clean fails if there is anything beside the database but so many old ones.
func clean(t testing.TB, database string, olds int) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(database))
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Base(database)
	for _, e := range entries {
		if e.Name() != base && e.Name() != base+".carpd" && e.Name() != "store" {
			t.Errorf("%s is beside the database", e.Name())
		}
	}
	entries, err = os.ReadDir(database + ".carpd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		old, isOld := strings.CutPrefix(e.Name(), "old-")
		switch {
		case isOld && !strings.Contains(old, "-"):
			n++
		case !isOld && e.Name() != "state":
			t.Errorf("%s is left over", e.Name())
		}
	}
	if n != olds {
		t.Errorf("%d databases are kept aside, want %d", n, olds)
	}
}

func TestADatabaseThatAProgramHasOpenIsNotReplaced(t *testing.T) {
	store := open(t, filepath.Join(t.TempDir(), "store"))
	publish(t, store, 1, sample(t, "proxysql.db"))
	p := place(t, filepath.Join(t.TempDir(), "proxysql.db"))
	put(t, p.Database(), sample(t, "proxysql.db"))
	stop := holdOpen(t, p.Database())
	if _, err := p.Newest(t.Context(), store, nil); !errors.Is(err, install.ErrInUse) || !strings.Contains(err.Error(), "sleep[") {
		t.Errorf("%v, want who has it open", err)
	}
	stop()
	if _, err := p.Newest(t.Context(), store, nil); err != nil {
		t.Error(err)
	}
	clean(t, p.Database(), 1)
}

func TestALinkInThePlaceOfTheDatabaseIsRefused(t *testing.T) {
	store := open(t, filepath.Join(t.TempDir(), "store"))
	publish(t, store, 1, sample(t, "proxysql.db"))
	where := t.TempDir()
	put(t, filepath.Join(where, "elsewhere"), []byte("precious"))
	p, err := install.New(install.Config{Database: filepath.Join(where, "x.db")})
	if err == nil {
		err = os.Symlink("elsewhere", p.Database())
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Newest(t.Context(), store, nil); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(where, "elsewhere")); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestACancelledInstallationChangesNothing(t *testing.T) {
	store := open(t, filepath.Join(t.TempDir(), "store"))
	publish(t, store, 1, sample(t, "proxysql.db"))
	p := place(t, filepath.Join(t.TempDir(), "proxysql.db"))
	for _, step := range []string{"copy", "verify", "local"} {
		ctx, cancel := context.WithCancel(t.Context())
		p.SetStep(func(s string) error {
			if s == step {
				cancel()
			}
			return nil
		})
		if _, err := p.Newest(ctx, store, nil); !errors.Is(err, context.Canceled) && !strings.Contains(fmt.Sprint(err), "timeout") {
			t.Errorf("at %s: %v", step, err)
		}
		cancel()
		if all, err := store.Quarantined(t.Context()); err != nil || len(all) > 0 {
			t.Errorf("at %s: a snapshot is in quarantine since there was no time: %v, %v", step, all, err)
		}
	}
}

// unreadable is a store of which some snapshots cannot be opened.
type unreadable struct {
	replicator.Store
	why map[uint64]error // by sequence
}

// Open implements replicator.Store.
func (u unreadable) Open(ctx context.Context, v replicator.Version) (io.ReadCloser, error) {
	if err := u.why[v.Sequence]; err != nil {
		return nil, err
	}
	return u.Store.Open(ctx, v)
}

func TestASnapshotThatIsGoneOrThatTheDiskDoesNotGiveBackIsPassedOver(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "store"))
	for n := range uint64(3) {
		publish(t, s, n+1, changed(t, fmt.Sprintf("UPDATE mysql_users SET comment='%d'", n+1)))
	}
	p := place(t, filepath.Join(dir, "proxysql.db"))
	m, err := p.Newest(t.Context(), unreadable{s, map[uint64]error{3: replicator.ErrNotFound, 2: syscall.EIO}}, nil)
	if err != nil || m.Version != version(1) {
		t.Errorf("%v, %v", m.Version, err)
	}
	// What cannot be read is not what is not there.
	_, err = p.Newest(t.Context(), unreadable{s, map[uint64]error{3: syscall.EIO, 2: syscall.EIO, 1: syscall.EIO}}, nil)
	if err == nil || errors.Is(err, install.ErrNone) {
		t.Error(err)
	}
	if q, err := s.Quarantined(t.Context()); err != nil || len(q) > 0 {
		t.Errorf("%v, %v", q, err)
	}
}
