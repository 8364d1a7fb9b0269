package sqlite

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strings"
)

// MaxRead is how many rows Read returns at most.
const MaxRead = 1 << 20

// Value is one value of a row with its storage class: "null", "integer", "real", "text"
// or "blob". Text is what a program that asks for text is given, byte for byte.
type Value struct{ Class, Text string }

// Literal returns the value as SQL. What could be misread on its way is in hex.
func (v Value) Literal() string {
	switch v.Class {
	case "null":
		return "NULL"
	case "integer", "real":
		return v.Text
	case "blob":
		return "X'" + hex.EncodeToString([]byte(v.Text)) + "'"
	}
	for _, c := range []byte(v.Text) {
		if c < ' ' || c > '~' || strings.IndexByte(`'\;#`+"`", c) >= 0 {
			return "CAST(X'" + hex.EncodeToString([]byte(v.Text)) + "' AS TEXT)"
		}
	}
	return "'" + v.Text + "'"
}

// Read returns the columns of a table and all of its rows, in no order. A table that is
// not there has no columns. The database lies still.
func Read(ctx context.Context, path, table string) (columns []string, rows [][]Value, err error) {
	db, err := sql.Open(driver, still(path))
	if err == nil {
		defer db.Close()
		columns, rows, err = read(ctx, db, table)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("sqlite: read %s of %s: %w", table, path, err)
	}
	return columns, rows, nil
}

func read(ctx context.Context, db *sql.DB, table string) (columns []string, rows [][]Value, err error) {
	columns, err = list(ctx, db, "SELECT name FROM pragma_table_info("+literal(table)+")", func(r *sql.Rows) (name string, err error) {
		return name, r.Scan(&name)
	})
	if err != nil || len(columns) == 0 {
		return nil, nil, err
	}
	var asked []string
	for _, c := range columns {
		asked = append(asked, "typeof("+quote(c)+"), CAST("+quote(c)+" AS BLOB)")
	}
	rows, err = list(ctx, db, "SELECT "+strings.Join(asked, ", ")+" FROM "+quote(table)+fmt.Sprintf(" NOT INDEXED LIMIT %d", MaxRead+1), func(r *sql.Rows) ([]Value, error) {
		row, texts, into := make([]Value, len(columns)), make([][]byte, len(columns)), make([]any, 0, 2*len(columns))
		for i := range row {
			into = append(into, &row[i].Class, &texts[i])
		}
		err := r.Scan(into...)
		for i := range row {
			row[i].Text = string(texts[i])
		}
		return row, err
	})
	if err == nil && len(rows) > MaxRead {
		err = fmt.Errorf("more than %d rows", MaxRead)
	}
	return columns, rows, err
}
