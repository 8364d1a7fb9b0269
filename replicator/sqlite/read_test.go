package sqlite_test

import (
	"database/sql"
	"path/filepath"
	"slices"
	"testing"

	"github.com/carpd/carpd/replicator/sqlite"
)

func TestWhatIsReadAndWrittenAgainIsTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	values := []string{"NULL", "17", "-3", "1.5", "'plain'", "'it''s; -- #'", "CAST(X'002441243030352400' AS TEXT)", "X'00ff27'", "''", "X''", "CAST(X'c3bc' AS TEXT)", "CAST(X'ff' AS TEXT)", "9223372036854775807"}
	run := func(query string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatal(query, err)
		}
	}
	run(`CREATE TABLE "t ""x"(n INTEGER PRIMARY KEY, v)`)
	run(`CREATE TABLE again(n INTEGER PRIMARY KEY, v)`)
	for _, v := range values {
		run(`INSERT INTO "t ""x"(v) VALUES(` + v + ")")
	}
	columns, rows, err := sqlite.Read(t.Context(), path, `t "x`)
	if err != nil || !slices.Equal(columns, []string{"n", "v"}) || len(rows) != len(values) {
		t.Fatalf("%v, %d rows, %v", columns, len(rows), err)
	}
	for _, r := range rows {
		run("INSERT INTO again VALUES(" + r[0].Literal() + "," + r[1].Literal() + ")")
	}
	var same int
	err = db.QueryRowContext(t.Context(), `SELECT count(*) FROM "t ""x" a JOIN again b ON a.n=b.n AND a.v IS b.v AND typeof(a.v)=typeof(b.v)`).Scan(&same)
	if err != nil || same != len(values) {
		t.Errorf("%d of %d values are the same, %v", same, len(values), err)
	}
	if columns, _, err := sqlite.Read(t.Context(), path, "none"); err != nil || columns != nil {
		t.Errorf("a table that is not there: %v, %v", columns, err)
	}
}
