package sqlite_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/proxysql"
	"github.com/carpd/carpd/replicator/sqlite"
)

// detect chooses the rules as carpd does.
func detect(c replicator.Content) replicator.Rules {
	if r := proxysql.Rules(); r.Is(c) {
		return r
	}
	return replicator.Rules{}
}

// lay writes files into a directory of their own and returns it.
func lay(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func check(t testing.TB, path string, o sqlite.Options) sqlite.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return sqlite.Verify(ctx, path, o)
}

// verdicts are what is said of each file that ProxySQL 2.7.1 was started on: first
// the reason ("" for sound), then words of the text or of a note.
var verdicts = map[string][2]string{
	"proxysql.db":                           {"", ""},
	"damaged/empty.db":                      {"empty", "first start"},
	"damaged/file-format-too-new.db":        {"file-format", "newer SQLite"},
	"damaged/header-only.db":                {"size", "cut off"},
	"damaged/hot-journal.db":                {"journal-beside", "interrupted"},
	"damaged/hot-journal.db alone":          {"size", "without its journal"},
	"damaged/index-disagrees.db":            {"integrity", "missing from index"},
	"damaged/no-uuid.db":                    {"", "makes a new one"},
	"damaged/not-a-database.db":             {"not-a-database", "first bytes"},
	"damaged/one-byte-in-a-hostname.db":     {"integrity", "missing from index"},
	"damaged/one-byte-in-a-password.db":     {"", ""}, // no look at the file alone can tell
	"damaged/schema-text-damaged.db":        {"integrity", "malformed database schema"},
	"damaged/servers-empty.db":              {"emptied", "mysql_servers"},
	"damaged/servers-page-garbage.db":       {"integrity", ""},
	"damaged/truncated-half.db":             {"size", "cut off"},
	"damaged/truncated-inside-page-1.db":    {"size", "cut off"},
	"damaged/truncated-last-page.db":        {"size", "223780"},
	"damaged/truncated-one-page-missing.db": {"size", "221184"},
	"damaged/users-empty.db":                {"emptied", "mysql_users"},
	"damaged/users-page-garbage.db":         {"integrity", ""},
	"damaged/users-page-zeroed.db":          {"integrity", ""},
	"damaged/users-table-missing.db":        {"table-missing", "mysql_users"},
	"damaged/variables-page-garbage.db":     {"integrity", ""},
	"damaged/wal-mode.db":                   {"wal-mode", "journal_mode=DELETE"},
	"damaged/wal-with-content.db":           {"wal-beside", "not in this file"},
	"damaged/wrong-magic.db":                {"not-a-database", "first bytes"},
	"schema-other/as-of-1.4.16.db":          {"", "mysql_users_v140"},
	"schema-other/as-of-2.0.18.db":          {"", "mysql_servers_ssl_params is not there"},
	"schema-other/as-of-2.5.5.db":           {"", "mysql_hostgroup_attributes_v252"},
	"schema-other/as-of-3.0.0-alpha.db":     {"", "pgsql_users"},
	"schema-other/column-added.db":          {"create-text", "made_up_future"},
	"schema-other/extra-index.db":           {"", "made_up_index"},
	"schema-other/extra-table.db":           {"", "made_up_extra"},
	"schema-other/spelling-differs.db":      {"create-text", "byte 51"},
}

func TestEachDatabaseOfProxySQLGetsItsVerdict(t *testing.T) {
	if n := len(samples(t)) + 1; n != len(verdicts) {
		t.Errorf("%d verdicts for %d cases", len(verdicts), n)
	}
	whole := sha256.Sum256(sample(t, "proxysql.db"))
	for name, want := range verdicts {
		t.Run(name, func(t *testing.T) {
			file, alone := strings.CutSuffix(name, " alone")
			files := map[string][]byte{"proxysql.db": sample(t, file)}
			for _, side := range []string{"-journal", "-wal"} {
				if _, err := os.Stat(filepath.Join("testdata", "proxysql", file+side+".gz")); err == nil && !alone {
					files["proxysql.db"+side] = sample(t, file+side)
				}
			}
			dir := lay(t, files)
			path := filepath.Join(dir, "proxysql.db")
			got := check(t, path, sqlite.Options{Rules: detect})
			if string(got.Reason()) != want[0] {
				t.Errorf("%v, want %q", got.Verdict, want[0])
			}
			if said := got.Verdict.String() + strings.Join(got.Notes, "\n"); !strings.Contains(said, want[1]) {
				t.Errorf("%s does not say %q", said, want[1])
			}
			if got.Sound() && (got.Kind != "proxysql" || got.Rows["mysql_users"] != 7 || got.Rows["mysql_servers"] != 10 || got.Rows["mysql_query_rules"] != 5) {
				t.Errorf("kind %s, rows %v", got.Kind, got.Rows)
			}
			if name == "proxysql.db" && len(got.Notes) > 0 {
				t.Errorf("what ProxySQL itself wrote is unusual: %q", got.Notes)
			}
			// Whoever knows the digest of what was sent is never deceived.
			got = check(t, path, sqlite.Options{Rules: detect, SHA256: hex.EncodeToString(whole[:])})
			if got.Sound() != (name == "proxysql.db") {
				t.Errorf("with the digest of the original: %v", got.Verdict)
			}
			untouched(t, dir, files)
		})
	}
}

// samples lists the databases of testdata.
func samples(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.db.gz", "*/*.db.gz"} {
		names, err := filepath.Glob(filepath.Join("testdata", "proxysql", pattern))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, names...)
	}
	return all
}

// untouched fails if a directory holds anything but these files.
func untouched(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(files) {
		t.Errorf("%d files instead of %d: %v", len(entries), len(files), entries)
	}
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s was changed (%v)", name, err)
		}
	}
}

func TestWhatIsNoFileIsNamed(t *testing.T) {
	dir := lay(t, map[string][]byte{"file": []byte("x")})
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.Mkdir(at("directory"), 0o700),
		syscall.Mkfifo(at("pipe"), 0o600),
		os.Symlink("nowhere", at("dangling")),
		os.Symlink("round", at("round")),
		os.Symlink("pipe", at("to-pipe")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]replicator.Reason{
		at("none"): replicator.Missing, at("dangling"): replicator.Missing, at("round"): replicator.Unreadable,
		at("directory"): replicator.NotAFile, at("pipe"): replicator.NotAFile, at("to-pipe"): replicator.NotAFile,
		"/dev/zero": replicator.NotAFile, "": replicator.Missing, at("file") + "/below": replicator.Unreadable,
		at("file"): replicator.NotADatabase, strings.Repeat("x", 300): replicator.Unreadable, "a\x00b": replicator.Unreadable,
	} {
		if got := check(t, name, sqlite.Options{}); got.Reason() != want {
			t.Errorf("%q: %v, want %s", name, got.Verdict, want)
		}
	}
}

func TestAFileThatMayNotBeReadIsRefused(t *testing.T) {
	if os.Getuid() != 0 {
		dir := lay(t, map[string][]byte{"x.db": sample(t, "proxysql.db")})
		path := filepath.Join(dir, "x.db")
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		if got := check(t, path, sqlite.Options{}); got.Reason() != replicator.Unreadable {
			t.Error(got.Verdict)
		}
		return
	}
	// Root reads everything but what the kernel does not give: /proc/self/mem at 0.
	if got := check(t, "/proc/self/mem", sqlite.Options{}); got.Sound() {
		t.Error(got.Verdict)
	}
}

func TestAHugeFileIsRefusedUnread(t *testing.T) {
	dir := lay(t, map[string][]byte{"x.db": sample(t, "proxysql.db")})
	path := filepath.Join(dir, "x.db")
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Skip("no sparse files here:", err)
	}
	if got := check(t, path, sqlite.Options{}); got.Reason() != replicator.TooLarge {
		t.Error(got.Verdict)
	}
	if got := check(t, path, sqlite.Options{MaxSize: 1 << 41}); got.Reason() != replicator.BadSize {
		t.Error(got.Verdict)
	}
}

func TestJournalsCountWhereSQLiteWouldApplyThem(t *testing.T) {
	db, journal := sample(t, "proxysql.db"), sample(t, "damaged/hot-journal.db-journal")
	zeroed := append([]byte{0}, journal[1:]...)
	for name, tc := range map[string]struct {
		side string
		b    []byte
		want replicator.Reason
	}{
		"hot":                      {"-journal", journal, replicator.Journal},
		"truncated after use":      {"-journal", nil, ""},
		"zeroed after use":         {"-journal", zeroed, ""},
		"log":                      {"-wal", sample(t, "damaged/wal-with-content.db-wal"), replicator.WAL},
		"log without a frame":      {"-wal", nil, ""},
		"shared memory of a log":   {"-shm", journal, ""},
		"journal of somebody else": {"x-journal", journal, ""},
	} {
		files := map[string][]byte{"x.db": db, "x.db" + tc.side: tc.b}
		dir := lay(t, files)
		if err := os.Symlink("x.db", filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"x.db", "link"} {
			if got := check(t, filepath.Join(dir, path), sqlite.Options{Rules: detect}); got.Reason() != tc.want {
				t.Errorf("%s, %s: %v, want %q", name, path, got.Verdict, tc.want)
			}
		}
		if err := os.Remove(filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		untouched(t, dir, files)
	}
}

func TestNamesOfFilesMeanNothing(t *testing.T) {
	for _, name := range []string{"a?mode=rwc&immutable=0", "a%3fb", "a#b", "-rf", "a b", "ä\nß", "\xff\xfe", "file:x", ":memory:", "a&b=c"} {
		files := map[string][]byte{name: sample(t, "proxysql.db")}
		dir := lay(t, files)
		if got := check(t, filepath.Join(dir, name), sqlite.Options{Rules: detect}); !got.Sound() || got.Rows["mysql_users"] != 7 {
			t.Errorf("%q: %v %v", name, got.Verdict, got.Rows)
		}
		t.Run("relative", func(t *testing.T) {
			t.Chdir(dir)
			if got := check(t, name, sqlite.Options{Rules: detect}); !got.Sound() {
				t.Errorf("%q: %v", name, got.Verdict)
			}
		})
		untouched(t, dir, files)
	}
}

// create makes a database by SQL and returns its path.
func create(t testing.TB, statements ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(s, err)
		}
	}
	return path
}

func TestAnyDatabaseIsJudgedByWhatItsOwnerAsksFor(t *testing.T) {
	path := create(t, `CREATE TABLE "odd "" name" (x)`, `INSERT INTO "odd "" name" VALUES (1), (2)`, "CREATE TABLE none (x)",
		"CREATE TABLE keyed (k PRIMARY KEY, v) WITHOUT ROWID", "INSERT INTO keyed VALUES (1, 2)", "CREATE VIEW v AS SELECT * FROM none",
		"CREATE TABLE numbered (id INTEGER PRIMARY KEY AUTOINCREMENT)", "CREATE VIRTUAL TABLE words USING fts4(text)")
	rules := func(r replicator.Rules) sqlite.Options {
		return sqlite.Options{Rules: func(replicator.Content) replicator.Rules { return r }}
	}
	got := check(t, path, sqlite.Options{})
	if !got.Sound() || got.Kind != "sqlite" || got.Rows[`odd " name`] != 2 || got.Rows["keyed"] != 1 || len(got.Notes) > 0 {
		t.Errorf("%v %+v", got.Verdict, got)
	}
	for name, tc := range map[string]struct {
		rules replicator.Rules
		want  replicator.Reason
	}{
		"enough rows":         {replicator.Rules{Floors: map[string]int64{"keyed": 1}}, ""},
		"too few rows":        {replicator.Rules{Floors: map[string]int64{"keyed": 2}}, replicator.TooFewRows},
		"no such table":       {replicator.Rules{Floors: map[string]int64{"gone": 1}}, replicator.TableMissing},
		"empty before, too":   {replicator.Rules{Before: map[string]int64{"none": 0}}, ""},
		"suddenly empty":      {replicator.Rules{Before: map[string]int64{"none": 9}}, replicator.Emptied},
		"emptied on purpose":  {replicator.Rules{Before: map[string]int64{"none": 9}, MayBeEmpty: []string{"none"}}, ""},
		"suddenly not there":  {replicator.Rules{Before: map[string]int64{"gone": 9}}, replicator.TableMissing},
		"another text":        {replicator.Rules{Tables: []replicator.Table{{Name: "none", Create: "CREATE TABLE none (y)"}}}, replicator.CreateText},
		"the same text":       {replicator.Rules{Tables: []replicator.Table{{Name: "none", Create: "CREATE TABLE none (x)"}}}, ""},
		"a view is no table":  {replicator.Rules{Tables: []replicator.Table{{Name: "v"}}}, replicator.TableMissing},
		"a row that is there": {replicator.Rules{Needs: []replicator.Row{{Table: "keyed", Column: "k", Value: "1"}}}, replicator.RowMissing}, // 1 is not '1'
	} {
		if got := check(t, path, rules(tc.rules)); got.Reason() != tc.want {
			t.Errorf("%s: %v, want %q", name, got.Verdict, tc.want)
		}
	}
}

// changing writes to a file, or to its directory, once it was opened: the choice of
// rules is asked for in the middle of a verification.
func changing(t *testing.T, change func() error) sqlite.Options {
	return sqlite.Options{Rules: func(c replicator.Content) replicator.Rules {
		if err := change(); err != nil {
			t.Error(err)
		}
		return detect(c)
	}}
}

func TestAFileThatChangesMeanwhileIsRefused(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"written to": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte{1}, 200_000)
			return errors.Join(err, f.Close())
		},
		"cut off": func(path string) error { return os.Truncate(path, 4096) },
		"replaced": func(path string) error {
			return errors.Join(os.Rename(path, path+".old"), os.WriteFile(path, nil, 0o600))
		},
		"removed": os.Remove,
		"journal begun": func(path string) error {
			return os.WriteFile(path+"-journal", []byte(strings.Repeat("x", 512)), 0o600)
		},
	} {
		path := filepath.Join(lay(t, map[string][]byte{"x.db": sample(t, "proxysql.db")}), "x.db")
		got := check(t, path, changing(t, func() error { return change(path) }))
		if got.Reason() != replicator.Changed || len(got.Faults) != 1 {
			t.Errorf("%s: %v, want changed alone", name, got.Verdict)
		}
	}
}

func TestVerificationEndsWithItsContext(t *testing.T) {
	path := filepath.Join(lay(t, map[string][]byte{"x.db": sample(t, "proxysql.db")}), "x.db")
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if got := sqlite.Verify(ended, path, sqlite.Options{}); got.Reason() != replicator.Timeout || !strings.Contains(got.String(), "enough") {
		t.Error(got.Verdict)
	}
	inTheMiddle, cancel := context.WithCancelCause(t.Context())
	o := changing(t, func() error { cancel(errors.New("enough")); return nil })
	if got := sqlite.Verify(inTheMiddle, path, o); got.Reason() != replicator.Timeout {
		t.Error(got.Verdict)
	}
}

func TestMessagesAreBoundedAndHoldNoValues(t *testing.T) {
	var values []string
	for i := range 3000 {
		values = append(values, fmt.Sprintf("('secret-%d')", i))
	}
	path := create(t, "CREATE TABLE t (x UNIQUE)", "INSERT INTO t VALUES "+strings.Join(values, ","), "PRAGMA writable_schema=ON",
		"UPDATE sqlite_schema SET rootpage = 2 WHERE name LIKE 'sqlite_autoindex%'")
	got := check(t, path, sqlite.Options{})
	if text := got.String(); got.Sound() || len(text) > 400 || strings.Contains(text, "secret") || slices.Contains([]byte(text), '\n') {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}

func BenchmarkVerify(b *testing.B) {
	path := filepath.Join(lay(b, map[string][]byte{"x.db": sample(b, "proxysql.db")}), "x.db")
	for b.Loop() {
		if got := check(b, path, sqlite.Options{Rules: detect}); !got.Sound() {
			b.Fatal(got.Verdict)
		}
	}
}
