package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/carpd/carpd/replicator"
)

// Limits of a comparison.
const (
	MaxChanges = 1000 // of each sort in a table that are listed
	maxCell    = 200  // bytes of a value that are shown
)

// Diff compares two snapshots table by table and row by row: values with their types, and
// text byte by byte, whatever the collation. Of each table at most most rows of each sort
// are listed, 0 meaning MaxChanges; secrets are masked. Tables without a difference are
// left out. It only reads, and nobody may write to the files meanwhile.
func Diff(ctx context.Context, before, after string, most int) ([]replicator.Difference, error) {
	var paths [2]string
	for i, p := range []string{before, after} {
		var err error
		if paths[i], err = filepath.Abs(p); err != nil {
			return nil, fmt.Errorf("sqlite: compare %s: %w", p, err)
		}
	}
	db, err := sql.Open(driver, still(paths[0]))
	if err != nil {
		return nil, fmt.Errorf("sqlite: compare: %w", err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // what is attached belongs to a connection
	other := url.URL{Scheme: "file", Path: paths[1], RawQuery: "mode=ro&immutable=1"}
	if _, err := db.ExecContext(ctx, "ATTACH ? AS "+afterName, other.String()); err != nil {
		return nil, fmt.Errorf("sqlite: compare: open %s: %w", after, err)
	}
	for _, pragma := range []string{"trusted_schema=OFF", "cell_size_check=ON", "query_only=ON", "mmap_size=0"} {
		if _, err := db.ExecContext(ctx, "PRAGMA "+pragma); err != nil {
			return nil, fmt.Errorf("sqlite: compare: %w", err)
		}
	}
	if most <= 0 || most > MaxChanges {
		most = MaxChanges
	}
	c := comparison{ctx, db, most}
	all, err := c.tables()
	if err != nil {
		return nil, fmt.Errorf("sqlite: compare %s and %s: %w", before, after, err)
	}
	return all, nil
}

// The two databases as SQL knows them.
const (
	beforeName = "main"
	afterName  = "later"
)

// comparison compares main, the older one, with the attached one.
type comparison struct {
	ctx  context.Context
	db   *sql.DB
	most int
}

// stored lists the tables of one of them, with their CREATE texts.
func (c *comparison) stored(schema string) (map[string]string, error) {
	type table struct{ name, text string }
	all, err := list(c.ctx, c.db, "SELECT name, coalesce(sql,'') FROM "+schema+".sqlite_schema WHERE type='table' AND rootpage>0 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
		func(rows *sql.Rows) (t table, err error) { return t, rows.Scan(&t.name, &t.text) })
	if err == nil && len(all) > maxTables {
		err = fmt.Errorf("%d tables, and the limit is %d", len(all), maxTables)
	}
	texts := make(map[string]string)
	for _, t := range all {
		texts[t.name] = t.text
	}
	return texts, err
}

func (c *comparison) tables() ([]replicator.Difference, error) {
	was, err := c.stored(beforeName)
	if err != nil {
		return nil, err
	}
	is, err := c.stored(afterName)
	if err != nil {
		return nil, err
	}
	names := maps.Clone(was)
	maps.Copy(names, is)
	all := []replicator.Difference{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		d, err := c.table(name, was, is)
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", name, err)
		}
		if d.Added+d.Removed+d.Changed > 0 || d.Note != "" {
			all = append(all, d)
		}
	}
	return all, nil
}

// table compares one table.
func (c *comparison) table(name string, was, is map[string]string) (d replicator.Difference, err error) {
	d = replicator.Difference{Table: name, Changes: []replicator.Change{}}
	old, there := was[name]
	text, still := is[name]
	switch {
	case !there || !still:
		schema := afterName
		if d.Note = "the table is new"; there {
			schema, d.Note = beforeName, "the table is not there any more"
		}
		return d, c.lone(&d, schema, there)
	case old != text:
		d.Note = "made by another CREATE text; the columns that both have are compared"
	}
	a, err := c.columns(beforeName, name)
	if err != nil {
		return d, err
	}
	b, err := c.columns(afterName, name)
	if err != nil {
		return d, err
	}
	t := pairing{table: name}
	for _, col := range a {
		if !slices.ContainsFunc(b, func(o column) bool { return o.name == col.name }) {
			continue
		}
		t.columns = append(t.columns, col.name)
		if col.key > 0 {
			t.keys = append(t.keys, col.name)
		}
	}
	if len(t.columns) == 0 {
		return d, nil
	}
	if !slices.Equal(a.keys(), b.keys()) {
		t.keys = nil // rows cannot be told apart by it
	}
	for _, one := range []struct {
		what  string
		count *int64
		query string
	}{
		{replicator.RowRemoved, &d.Removed, t.missing(beforeName, afterName)},
		{replicator.RowAdded, &d.Added, t.missing(afterName, beforeName)},
		{replicator.RowChanged, &d.Changed, t.different()},
	} {
		if one.query == "" {
			continue
		}
		if err := c.fill(&d, t, one.what, one.count, one.query); err != nil {
			return d, err
		}
	}
	return d, nil
}

// lone lists a table that only one of them has.
func (c *comparison) lone(d *replicator.Difference, schema string, removed bool) error {
	cols, err := c.columns(schema, d.Table)
	if err != nil {
		return err
	}
	t := pairing{table: d.Table, keys: cols.keys()}
	for _, col := range cols {
		t.columns = append(t.columns, col.name)
	}
	what, count := replicator.RowAdded, &d.Added
	if removed {
		what, count = replicator.RowRemoved, &d.Removed
	}
	return c.fill(d, t, what, count, "SELECT "+t.values("x")+" FROM "+schema+"."+quote(d.Table)+" x")
}

// fill counts what a query finds, and lists the first of it.
func (c *comparison) fill(d *replicator.Difference, t pairing, what string, count *int64, query string) error {
	if err := c.db.QueryRowContext(c.ctx, "SELECT count(*) FROM ("+query+")").Scan(count); err != nil || *count == 0 {
		return err
	}
	width := len(t.columns)
	if what == replicator.RowChanged {
		width *= 2
	}
	changes, err := list(c.ctx, c.db, fmt.Sprintf("%s LIMIT %d", query, c.most), func(rows *sql.Rows) (replicator.Change, error) {
		values := make([]string, width)
		into := make([]any, width)
		for i := range values {
			into[i] = &values[i]
		}
		err := rows.Scan(into...)
		return t.change(what, values), err
	})
	for _, one := range changes {
		one.Mask()
		one.Key, one.Cells = short(one.Key), short(one.Cells)
		d.Changes = append(d.Changes, one)
	}
	return err
}

// short cuts long values, after they were compared and masked.
func short(cells []replicator.Cell) []replicator.Cell {
	for i := range cells {
		for _, s := range []*string{&cells[i].Before, &cells[i].After} {
			if len(*s) > maxCell {
				*s = strings.ToValidUTF8((*s)[:maxCell], "") + "..."
			}
		}
	}
	return cells
}

type column struct {
	name string
	key  int // its place in the primary key, from 1 on; 0: no part of it
}

type layout []column

// keys lists the primary key in its order.
func (l layout) keys() (names []string) {
	parts := slices.DeleteFunc(slices.Clone(l), func(one column) bool { return one.key == 0 })
	slices.SortFunc(parts, func(a, b column) int { return cmp.Compare(a.key, b.key) })
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

func (c *comparison) columns(schema, table string) (layout, error) {
	return list(c.ctx, c.db, fmt.Sprintf("SELECT name, pk FROM pragma_table_info(%s, %s)", literal(table), literal(schema)),
		func(rows *sql.Rows) (one column, err error) { return one, rows.Scan(&one.name, &one.key) })
}

// literal makes a text of SQL.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// pairing is how the rows of a table are compared: by their key, or as a whole if there is
// none.
type pairing struct {
	table         string
	columns, keys []string
}

// exact is a value as a literal: equal if and only if type and bytes are. Of a text with a
// zero byte quote would take what is before it.
func exact(alias, column string) string {
	v := alias + "." + quote(column)
	return fmt.Sprintf("CASE WHEN typeof(%[1]s)='text' AND instr(CAST(%[1]s AS BLOB), x'00') THEN quote(CAST(%[1]s AS BLOB)) ELSE quote(%[1]s) END", v)
}

func (t pairing) values(alias string) string {
	all := make([]string, len(t.columns))
	for i, c := range t.columns {
		all[i] = exact(alias, c)
	}
	return strings.Join(all, ", ")
}

// sameKey pairs rows. IS finds NULL equal to NULL, and uses the index of the key.
func (t pairing) sameKey() string {
	all := make([]string, len(t.keys))
	for i, k := range t.keys {
		all[i] = "x." + quote(k) + " IS y." + quote(k)
	}
	return strings.Join(all, " AND ")
}

// missing finds the rows of one that the other has not.
func (t pairing) missing(from, in string) string {
	name := quote(t.table)
	if len(t.keys) == 0 {
		return fmt.Sprintf("SELECT %s FROM %s.%s x EXCEPT SELECT %s FROM %s.%s y", t.values("x"), from, name, t.values("y"), in, name)
	}
	return fmt.Sprintf("SELECT %s FROM %s.%s x WHERE NOT EXISTS (SELECT 1 FROM %s.%s y WHERE %s)", t.values("x"), from, name, in, name, t.sameKey())
}

// different finds the rows with the same key and other values, "" if there is no key.
func (t pairing) different() string {
	if len(t.keys) == 0 {
		return ""
	}
	name := quote(t.table)
	var unequal []string
	for _, c := range t.columns {
		unequal = append(unequal, exact("x", c)+" <> "+exact("y", c))
	}
	return fmt.Sprintf("SELECT %s, %s FROM %s.%s x JOIN %s.%s y ON %s WHERE %s",
		t.values("x"), t.values("y"), beforeName, name, afterName, name, t.sameKey(), strings.Join(unequal, " OR "))
}

// change makes a row of what a query gave: its values, of a changed one those before and
// those after.
func (t pairing) change(what string, values []string) replicator.Change {
	c := replicator.Change{What: what}
	for i, name := range t.columns {
		cell := replicator.Cell{Column: name, Before: values[i]}
		switch what {
		case replicator.RowAdded:
			cell.Before, cell.After = "", values[i]
		case replicator.RowChanged:
			cell.After = values[len(t.columns)+i]
		}
		isKey := slices.Contains(t.keys, name)
		if isKey {
			c.Key = append(c.Key, cell)
		}
		if !isKey && cell.Before != cell.After || isKey && what == replicator.RowChanged && cell.Before != cell.After {
			c.Cells = append(c.Cells, cell)
		}
	}
	return c
}
