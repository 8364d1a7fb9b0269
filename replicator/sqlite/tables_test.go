package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carpd/carpd/replicator/modules"
	"github.com/carpd/carpd/replicator/sqlite"
)

// program is a database in use, with tables of every kind of value.
func program(t *testing.T, name string, statements ...string) (*sql.DB, *sqlite.Tables) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	db := database(t, path)
	tables := &sqlite.Tables{Path: path, Groups: map[string][]string{"users": {"users", "groups"}, "settings": {"settings"}},
		Local: []sqlite.Rows{{Table: "settings", Column: "name", Values: []string{"node-*"}}}}
	t.Cleanup(func() { _ = tables.Close() })
	do(t, db, append([]string{
		`CREATE TABLE users (name TEXT PRIMARY KEY, born TIMESTAMP, active BOOLEAN, weight REAL, picture BLOB, "a ""b""" ANY)`,
		`CREATE TABLE groups (id INTEGER PRIMARY KEY AUTOINCREMENT, name VARCHAR NOT NULL)`,
		`CREATE TABLE settings (name TEXT PRIMARY KEY, value)`,
	}, statements...)...)
	return db, tables
}

func readModule(t *testing.T, tables *sqlite.Tables, module string) []byte {
	t.Helper()
	b, _, err := tables.Read(t.Context(), module)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAModuleIsWrittenAsItWasRead(t *testing.T) {
	_, from := program(t, "from.db",
		`INSERT INTO users VALUES ('anna', '2026-11-20 12:00:00', 1, 1.5, x'00ff', NULL), ('b''o', 1795132800, 'yes', '', '', 3), ('', NULL, NULL, NULL, NULL, '3')`,
		`INSERT INTO groups (name) VALUES ('one'), ('two')`)
	db, to := program(t, "to.db", `INSERT INTO users (name) VALUES ('old')`)
	want := readModule(t, from, "users")
	if err := to.Write(t.Context(), "users", want); err != nil {
		t.Fatal(err)
	}
	if got := readModule(t, to, "users"); !bytes.Equal(got, want) {
		t.Errorf("it holds something else: %q, want %q", got, want)
	}
	var kinds string
	if err := db.QueryRow(`SELECT group_concat(typeof(born)||typeof(active)||typeof(weight)||typeof("a ""b"""), ' ') FROM users`).Scan(&kinds); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(kinds, "textintegerrealnull") || !strings.Contains(kinds, "integertexttextinteger") {
		t.Errorf("values changed their type: %s", kinds)
	}
}

func TestRowsOfANodeStayThere(t *testing.T) {
	_, from := program(t, "from.db", `INSERT INTO settings VALUES ('node-id', 'a'), ('limit', 5)`)
	db, to := program(t, "to.db", `INSERT INTO settings VALUES ('node-id', 'b'), ('old', 1)`)
	b := readModule(t, from, "settings")
	if bytes.Contains(b, []byte("node-id")) {
		t.Error("a row of the node is sent")
	}
	if err := to.Write(t.Context(), "settings", b); err != nil {
		t.Fatal(err)
	}
	var all string
	if err := db.QueryRow(`SELECT group_concat(name||'='||value, ' ') FROM (SELECT * FROM settings ORDER BY name)`).Scan(&all); err != nil || all != "limit=5 node-id=b" {
		t.Errorf("it holds %q, %v", all, err)
	}
}

func TestTheMarkChangesWithTheDatabaseAlone(t *testing.T) {
	db, tables := program(t, "a.db")
	mark := func() string {
		t.Helper()
		m, err := tables.Mark(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first := mark()
	readModule(t, tables, "users")
	if mark() != first {
		t.Error("another mark, and nothing was written")
	}
	do(t, db, `INSERT INTO groups (name) VALUES ('x')`)
	second := mark()
	if second == first {
		t.Error("a change has the same mark")
	}
	if err := tables.Write(t.Context(), "users", readModule(t, tables, "users")); err != nil {
		t.Fatal(err)
	}
	if mark() == second {
		t.Error("a change of our own has the same mark")
	}
	third := mark()
	if err := os.WriteFile(tables.Path+".new", mustRead(t, tables.Path), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tables.Path+".new", tables.Path); err != nil {
		t.Fatal(err)
	}
	if mark() == third {
		t.Error("another file has the same mark")
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnotherSchemaIsRefusedWhole(t *testing.T) {
	_, from := program(t, "from.db", `INSERT INTO users (name) VALUES ('new')`, `INSERT INTO groups (name) VALUES ('new')`, `ALTER TABLE users ADD COLUMN more`)
	_, to := program(t, "to.db", `INSERT INTO groups (name) VALUES ('old')`)
	before := readModule(t, to, "users")
	if err := to.Write(t.Context(), "users", readModule(t, from, "users")); err == nil || !strings.Contains(err.Error(), "same release") {
		t.Errorf("another column: %v", err)
	}
	if err := to.Write(t.Context(), "users", readModule(t, from, "settings")); err == nil || !strings.Contains(err.Error(), "same groups") {
		t.Errorf("other tables: %v", err)
	}
	if !bytes.Equal(readModule(t, to, "users"), before) {
		t.Error("something was changed")
	}
	to.Groups["gone"] = []string{"gone"}
	if _, _, err := to.Read(t.Context(), "gone"); err == nil {
		t.Error("a table that is not there is read as empty")
	}
}

// A writer in the middle is waited for; what it has not committed is not read.
func TestAModuleIsReadOfOneMoment(t *testing.T) {
	db, tables := program(t, "a.db", `INSERT INTO users (name) VALUES ('anna')`)
	before := readModule(t, tables, "users")
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(`DELETE FROM users`); err != nil {
		t.Fatal(err)
	}
	if got := readModule(t, tables, "users"); !bytes.Equal(got, before) {
		t.Error("half a change was read")
	}
	written := make(chan error)
	go func() { written <- tables.Write(context.Background(), "users", before) }()
	if _, err := tx.Exec(`INSERT INTO users (name) VALUES ('bert')`); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Errorf("a write did not wait for the program: %v", err)
	}
	if s, err := modules.Summarize(readModule(t, tables, "users")); err != nil || len(s.Filled) != 1 {
		t.Errorf("%v, %v", s, err)
	}
}
