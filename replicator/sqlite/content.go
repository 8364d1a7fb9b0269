package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/mattn/go-sqlite3"

	"github.com/carpd/carpd/replicator"
)

const (
	maxTables   = 4096 // in one database: each is counted
	maxFindings = 3    // of integrity_check, the first say enough
	maxText     = 300  // bytes of a message of SQLite
)

// driver is the name under which go-sqlite3 registers.
const driver = "sqlite3"

// still returns the data source name of a file that nobody writes to: SQLite then
// looks for no journal, takes no lock and writes nothing.
func still(path string) string {
	return (&url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro&immutable=1"}).String()
}

// lookInside has SQLite check the file, and judges its content by the rules.
func (v *verification) lookInside(ctx context.Context) error {
	db, err := sql.Open(driver, still(v.path))
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // pragmas are of a connection
	// What the file says is not trusted: no functions with side effects, no broken cells.
	for _, pragma := range []string{"trusted_schema=OFF", "cell_size_check=ON", "query_only=ON", "mmap_size=0", "temp_store=MEMORY"} {
		if _, err := db.ExecContext(ctx, "PRAGMA "+pragma); err != nil {
			return err
		}
	}
	findings, err := integrity(ctx, db)
	if err != nil {
		return err
	}
	if len(findings) > 0 {
		v.Refuse(replicator.Integrity, cut(strings.Join(findings, "; ")))
		return nil // what it seems to hold means nothing
	}
	return v.judgeContent(ctx, db)
}

// integrity returns what SQLite finds wrong. quick_check would not compare indexes
// with their tables.
func integrity(ctx context.Context, db *sql.DB) ([]string, error) {
	lines, err := list(ctx, db, fmt.Sprintf("PRAGMA integrity_check(%d)", maxFindings), func(rows *sql.Rows) (line string, err error) {
		return line, rows.Scan(&line)
	})
	if err != nil || len(lines) == 1 && lines[0] == "ok" {
		return nil, err
	}
	if len(lines) == 0 {
		return nil, errors.New("integrity_check gave no answer")
	}
	return lines, nil
}

// judgeContent reads tables and rows.
func (v *verification) judgeContent(ctx context.Context, db *sql.DB) error {
	type entry struct {
		replicator.Object
		root int64
	}
	entries, err := list(ctx, db, "SELECT type, name, coalesce(rootpage,0), coalesce(sql,'') FROM sqlite_schema", func(rows *sql.Rows) (e entry, err error) {
		return e, rows.Scan(&e.Type, &e.Name, &e.root, &e.SQL)
	})
	if err != nil {
		return err
	}
	var c replicator.Content
	var stored []string
	for _, e := range entries {
		c.Objects = append(c.Objects, e.Object)
		if e.Type == "table" && e.root > 0 && !strings.HasPrefix(e.Name, "sqlite_") {
			stored = append(stored, e.Name)
		}
	}
	if len(stored) > maxTables {
		v.Refuse(replicator.TooLarge, fmt.Sprintf("%d tables, and the limit is %d", len(stored), maxTables))
		return nil
	}
	var rules replicator.Rules
	if v.Rules != nil {
		rules = v.Rules(c)
	}
	if rules.Kind != "" {
		v.Kind = rules.Kind
	}
	c.Rows = make(map[string]int64)
	for _, name := range stored {
		if c.Rows[name], err = count(ctx, db, name, ""); err != nil {
			return fmt.Errorf("count %s: %w", name, err)
		}
	}
	c.Present = make(map[replicator.Row]bool)
	for _, r := range slices.Concat(rules.Needs, rules.Wanted) {
		if _, there := c.Rows[r.Table]; there {
			n, err := count(ctx, db, r.Table, " WHERE "+quote(r.Column)+" = ?", r.Value)
			if err != nil {
				return fmt.Errorf("look for %s in %s: %w", r.Value, r.Table, err)
			}
			c.Present[r] = n > 0
		}
	}
	v.Rows = c.Rows
	judged := rules.Judge(c)
	v.Faults = append(v.Faults, judged.Faults...)
	v.Notes = append(v.Notes, judged.Notes...)
	return nil
}

// count counts rows through the table itself: an index may be whole where it is not.
func count(ctx context.Context, db *sql.DB, table, where string, args ...any) (n int64, err error) {
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM "+quote(table)+" NOT INDEXED"+where, args...).Scan(&n)
	return n, err
}

// quote makes a name of SQL.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// list collects the rows of a query.
func list[T any](ctx context.Context, db *sql.DB, query string, scan func(*sql.Rows) (T, error)) ([]T, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// reasonOf tells a file that cannot be read from one that is damaged.
func reasonOf(err error) replicator.Reason {
	var read unreadable
	var sqlite sqlite3.Error
	if errors.As(err, &read) {
		return replicator.Unreadable
	}
	if errors.As(err, &sqlite) {
		switch sqlite.Code {
		case sqlite3.ErrIoErr, sqlite3.ErrCantOpen, sqlite3.ErrPerm, sqlite3.ErrAuth, sqlite3.ErrNomem:
			return replicator.Unreadable
		}
	}
	return replicator.Integrity
}

// cut makes a message of SQLite one line of bounded length.
func cut(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return s
}
