package proxysqlstub

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"
)

// store is one connection to SQLite. It is not safe for concurrent use.
type store struct {
	db   *sql.DB
	conn *sql.Conn
}

// result is what a statement answers: columns and rows, or how many rows it changed.
type result struct {
	columns []string
	rows    [][]*string // nil is NULL
	changed int64
	info    string // of the OK packet
	numeric bool   // the columns are announced as numbers
}

// busyRetry is how often a statement on a locked database is tried again: ProxySQL does
// so for ever, with its mutex held.
const busyRetry = time.Millisecond

// open opens a database: a path, or a name in memory that several connections share.
func open(path, query string) (*store, error) {
	name := url.URL{Scheme: "file", Path: path, RawQuery: query + "&_busy_timeout=0"}
	if query == memory {
		name.Path, name.Opaque = "", path
	}
	db, err := sql.Open("sqlite3", name.String())
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(context.Background())
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &store{db, conn}, nil
}

// memory is the query of a database in memory.
const memory = "mode=memory&cache=shared"

// do runs the first statement of a text; what follows it is ignored. It waits for as
// long as the database is locked.
func (s *store) do(text string) (*result, error) {
	tick := time.NewTicker(busyRetry)
	defer tick.Stop()
	for {
		r, err := s.try(text)
		if !locked(err) {
			return r, err
		}
		<-tick.C
	}
}

// exec runs a statement of our own.
func (s *store) exec(format string, a ...any) error {
	text := fmt.Sprintf(format, a...)
	if _, err := s.do(text); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	return nil
}

// locked reports whether somebody else holds a lock.
func locked(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrBusy || e.Code == sqlite3.ErrLocked)
}

func (s *store) try(text string) (*result, error) {
	ctx := context.Background()
	st, err := s.conn.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	defer func() { _ = st.Close() }()
	rows, err := st.QueryContext(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	r := &result{}
	if r.columns, err = rows.Columns(); err != nil {
		return nil, err
	}
	cells, into := make([]any, len(r.columns)), make([]any, len(r.columns))
	for i := range cells {
		into[i] = &cells[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		row := make([]*string, len(cells))
		for i, c := range cells {
			row[i] = text1(c)
		}
		r.rows = append(r.rows, row)
	}
	err = rows.Err()
	if len(r.columns) > 0 {
		if locked(err) {
			return nil, err
		}
		return r, nil // the rows read so far: what ended them is not told
	}
	if err != nil {
		return nil, err
	}
	_ = rows.Close()
	err = s.conn.QueryRowContext(ctx, "SELECT changes()").Scan(&r.changed)
	return r, err
}

// text1 is a value as SQLite writes it; nil is NULL.
func text1(v any) *string {
	var text string
	switch v := v.(type) {
	case nil:
		return nil
	case int64:
		text = strconv.FormatInt(v, 10)
	case float64:
		text = strconv.FormatFloat(v, 'g', 15, 64)
		if !strings.ContainsAny(text, ".eIN") {
			text += ".0"
		}
	case []byte:
		text = string(v)
	default:
		text = fmt.Sprint(v)
	}
	return &text
}

// value returns the one value that a query has; "" for NULL or no row.
func (s *store) value(format string, a ...any) string {
	r, err := s.do(fmt.Sprintf(format, a...))
	if err != nil || len(r.rows) == 0 || len(r.rows[0]) == 0 || r.rows[0][0] == nil {
		return ""
	}
	return *r.rows[0][0]
}

// quote makes a text a literal of SQL.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
