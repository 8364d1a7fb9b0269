package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/replicator/modules"
)

// Tables is a database whose groups of tables are kept equal on many nodes: a backend of
// package modules for any program. Its methods are called by one goroutine at a time.
// Nothing is held between calls but a connection that has no lock.
type Tables struct {
	Path   string
	Groups map[string][]string // tables by module
	Local  []Rows              // that are of this node: not read, and left alone by Write

	watch dialled // open: data_version is of a connection
	file  string  // which file it has open
}

// Mark returns another text whenever another connection has changed the database, or
// another file is in its place.
func (t *Tables) Mark(ctx context.Context) (string, error) {
	if err := t.open(ctx); err != nil {
		return "", fmt.Errorf("sqlite: look at %s: %w", t.Path, err)
	}
	var version int64
	if err := t.watch.conn.QueryRowContext(ctx, "PRAGMA data_version").Scan(&version); err != nil {
		return "", fmt.Errorf("sqlite: look at %s: %w", t.Path, err)
	}
	return fmt.Sprintf("%s/%d", t.file, version), nil
}

// open opens the connection that watches, anew when the file is another one.
func (t *Tables) open(ctx context.Context) error {
	info, err := os.Stat(t.Path)
	if err != nil {
		return err
	}
	which := ""
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		which = fmt.Sprintf("%d:%d", s.Dev, s.Ino)
	}
	if t.watch.db != nil && which == t.file {
		return nil
	}
	if err := t.Close(); err != nil {
		return err
	}
	d, err := dial(ctx, t.Path, "ro")
	if err != nil {
		return err
	}
	t.watch, t.file = d, which
	return nil
}

// Close ends the connection that watches.
func (t *Tables) Close() error {
	if t.watch.db != nil {
		t.watch.close()
		t.watch = dialled{}
	}
	return nil
}

// Read returns the canonical content of a module: of one moment, also while its program
// writes. It never is what was only found: what is not in the file is not known here.
func (t *Tables) Read(ctx context.Context, module string) (b []byte, found bool, err error) {
	if err := t.open(ctx); err != nil {
		return nil, false, fmt.Errorf("sqlite: read %s of %s: %w", module, t.Path, err)
	}
	err = patiently(ctx, func() error {
		tx, err := t.watch.conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		var c modules.Content
		for _, name := range t.Groups[module] {
			table, err := t.readTable(ctx, tx, name)
			if err != nil {
				return fmt.Errorf("table %s: %w", name, err)
			}
			c = append(c, table)
		}
		b, err = c.Encode()
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("sqlite: read %s of %s: %w", module, t.Path, err)
	}
	return b, false, nil
}

// patiently tries again while the database is locked, for at most TakeTimeout.
func patiently(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, TakeTimeout, ErrBusy)
	defer cancel()
	tick := time.NewTicker(lockRetry)
	defer tick.Stop()
	for {
		err := try()
		if !isBusy(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// readTable reads the rows that are not of this node.
func (t *Tables) readTable(ctx context.Context, tx *sql.Tx, name string) (table modules.Table, err error) {
	table.Name = name
	if table.Columns, err = columnsOf(ctx, tx, name); err != nil {
		return table, err
	}
	var raw []string
	for _, c := range table.Columns {
		// As it is stored: of a plain column the driver makes a time where its type says so.
		raw = append(raw, "+"+quote(c))
	}
	where, args := t.shared(name)
	rows, err := tx.QueryContext(ctx, "SELECT "+strings.Join(raw, ",")+" FROM "+quote(name)+" NOT INDEXED WHERE "+where, args...)
	if err != nil {
		return table, err
	}
	defer rows.Close()
	size := 0
	for rows.Next() {
		row := make([]any, len(raw))
		into := make([]any, len(raw))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			return table, err
		}
		for _, v := range row {
			switch v := v.(type) {
			case string:
				size += len(v)
			case []byte:
				size += len(v)
			}
			size += 8
		}
		if size > modules.MaxContent {
			return table, fmt.Errorf("more than %d bytes", modules.MaxContent)
		}
		table.Rows = append(table.Rows, row)
	}
	return table, rows.Err()
}

// shared returns the condition of the rows that are not of this node.
func (t *Tables) shared(table string) (string, []any) {
	var parts []string
	var all []any
	for _, r := range t.Local {
		if r.Table == table {
			where, args := r.where()
			parts = append(parts, "NOT coalesce("+where+",0)")
			all = append(all, args...)
		}
	}
	if parts == nil {
		return "1", nil
	}
	return strings.Join(parts, " AND "), all
}

// columnsOf returns the columns of a table in their order.
func columnsOf(ctx context.Context, tx *sql.Tx, table string) (names []string, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT name FROM pragma_table_info(?)", table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	if len(names) == 0 && rows.Err() == nil {
		return nil, errors.New("there is no such table: its program makes it")
	}
	return names, rows.Err()
}

// Write replaces the content of a module in one transaction. A table that is not there, or
// has other columns, is an error, and nothing is changed then.
func (t *Tables) Write(ctx context.Context, module string, content []byte) error {
	c, err := modules.DecodeContent(content)
	if err == nil {
		err = patiently(ctx, func() error { return t.tryWrite(ctx, module, c) })
	}
	if err != nil {
		return fmt.Errorf("sqlite: write %s of %s: %w", module, t.Path, err)
	}
	return nil
}

func (t *Tables) tryWrite(ctx context.Context, module string, c modules.Content) error {
	d, err := dial(ctx, t.Path, "rw")
	if err != nil {
		return err
	}
	defer d.close()
	for _, pragma := range []string{"trusted_schema=OFF", "synchronous=FULL"} {
		if _, err := d.conn.ExecContext(ctx, "PRAGMA "+pragma); err != nil {
			return err
		}
	}
	tx, err := d.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	want := slices.Sorted(slices.Values(t.Groups[module]))
	var have []string
	for _, table := range c {
		have = append(have, table.Name)
	}
	if !slices.Equal(want, have) {
		return fmt.Errorf("it came with the tables %v, and is configured with %v: the same groups on all nodes", have, want)
	}
	for _, table := range c {
		if err := t.writeTable(ctx, tx, table); err != nil {
			return fmt.Errorf("table %s: %w", table.Name, err)
		}
	}
	return tx.Commit()
}

// writeTable replaces the rows that are not of this node.
func (t *Tables) writeTable(ctx context.Context, tx *sql.Tx, table modules.Table) error {
	names, err := columnsOf(ctx, tx, table.Name)
	if err != nil {
		return err
	}
	if !slices.Equal(names, table.Columns) {
		return fmt.Errorf("it has the columns %v, and what came has %v: the same release of its program on all nodes", names, table.Columns)
	}
	where, args := t.shared(table.Name)
	if _, err := tx.ExecContext(ctx, "DELETE FROM "+quote(table.Name)+" WHERE "+where, args...); err != nil {
		return err
	}
	var quoted []string
	for _, n := range names {
		quoted = append(quoted, quote(n))
	}
	insert, err := tx.PrepareContext(ctx, "INSERT INTO "+quote(table.Name)+" ("+strings.Join(quoted, ",")+") VALUES (?"+strings.Repeat(",?", len(names)-1)+")")
	if err != nil {
		return err
	}
	defer insert.Close()
	for _, row := range table.Rows {
		if _, err := insert.ExecContext(ctx, row...); err != nil {
			return err
		}
	}
	return nil
}
