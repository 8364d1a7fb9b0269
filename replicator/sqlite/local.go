package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Rows names rows of a table. Without a column it is all of them.
type Rows struct {
	Table  string
	Column string   // by whose value rows are told apart
	Values []string // patterns of SQLite's GLOB: "admin-web_port", "mysql-ssl_p2s_*"
}

// where returns the condition that the rows fulfil, and its arguments.
func (r Rows) where() (string, []any) {
	if r.Column == "" {
		return "1", nil
	}
	var args []any
	for _, v := range r.Values {
		args = append(args, v)
	}
	one := quote(r.Column) + " GLOB ?"
	return "(0" + strings.Repeat(" OR "+one, len(args)) + ")", args
}

// KeepLocal gives the database path those rows that the database local has, and none
// else of them: each node has its own. A table that one of the two has not, or has with
// other columns, is left as it is. Columns are matched by name. local == "": the rows
// are taken out of path and nothing comes instead. Both are files that no program uses,
// path alone is written to; it is durable when KeepLocal returns nil.
func KeepLocal(ctx context.Context, path, local string, rows []Rows) error {
	if err := keepLocal(ctx, path, local, rows); err != nil {
		return fmt.Errorf("sqlite: keep the rows of this node in %s: %w", path, err)
	}
	return nil
}

func keepLocal(ctx context.Context, path, local string, rows []Rows) (err error) {
	d, err := dial(ctx, path, "rw")
	if err != nil {
		return err
	}
	defer d.close()
	run := func(query string, args ...any) error {
		if err != nil {
			return err
		}
		_, err = d.conn.ExecContext(ctx, query, args...)
		return err
	}
	run("PRAGMA trusted_schema=OFF")
	run("PRAGMA synchronous=FULL")
	if local != "" {
		run("ATTACH DATABASE ? AS local", still(local))
	}
	run("BEGIN IMMEDIATE")
	for _, r := range rows {
		if err != nil {
			break
		}
		var own, others []string
		if own, err = columns(ctx, d, "main", r.Table); err != nil || len(own) == 0 {
			continue
		}
		if local != "" {
			if others, err = columns(ctx, d, "local", r.Table); err != nil || !slices.Equal(own, others) {
				continue
			}
		}
		where, args := r.where()
		run("DELETE FROM main."+quote(r.Table)+" WHERE "+where, args...)
		if local != "" {
			list := strings.Join(own, ",")
			run("INSERT INTO main."+quote(r.Table)+" ("+list+") SELECT "+list+" FROM local."+quote(r.Table)+" WHERE "+where, args...)
		}
	}
	run("COMMIT")
	return err
}

// columns lists the columns of a table, quoted and sorted; none if there is no table.
func columns(ctx context.Context, d dialled, schema, table string) (names []string, err error) {
	rows, err := d.conn.QueryContext(ctx, "SELECT name FROM pragma_table_info(?,?) ORDER BY name", table, schema)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, quote(name))
	}
	return names, rows.Err()
}

// Settle has SQLite do what the next program that opens the database would have it do:
// roll back a journal that a killed writer left, or write its log back. The file then is
// whole by itself, in rollback-journal mode. It is for a copy, together with the copies
// of its journals, that no program uses.
func Settle(ctx context.Context, path string) error {
	d, err := dial(ctx, path, "rw")
	if err != nil {
		return fmt.Errorf("sqlite: settle %s: %w", path, err)
	}
	defer d.close()
	var n int64
	var mode string
	err = d.conn.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&n)
	if err == nil {
		err = d.conn.QueryRowContext(ctx, "PRAGMA journal_mode=DELETE").Scan(&mode)
	}
	if err == nil && mode != "delete" {
		err = errors.New("it stays in journal mode " + mode)
	}
	if err != nil {
		return fmt.Errorf("sqlite: settle %s: %w", path, err)
	}
	return nil
}
