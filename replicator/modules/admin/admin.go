// Package admin keeps modules of ProxySQL equal through its admin interface, instead of
// ProxySQL's own cluster: it is a backend of package modules.
//
// What counts is the memory layer at the time of a LOAD ... TO RUNTIME, inactive rows
// included: the runtime layer lacks those, and the disk layer what nobody has saved.
// Rows that are edited and not loaded yet are left alone until they are.
//
// Its answers are not believed: OK is said of a SAVE that failed and of a LOAD that
// emptied a table. So what was written is read back before it is loaded, and what was
// saved is compared with the memory layer.
package admin

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/carpd/carpd/replicator/modules"
)

// Limits.
const (
	connectTime  = 3 * time.Second
	silence      = 15 * time.Second // of ProxySQL, within a statement
	maxStatement = 256 << 10        // bytes of an INSERT
)

// Admin is the admin interface of the ProxySQL of this node. Its methods are called by
// one goroutine at a time.
type Admin struct {
	Address  string // HOST:PORT, or the path of a socket
	User     string
	Password string   // not logged, and in no error
	Names    []string // of the modules that are kept equal
	Local    []string // patterns of further variables that are of this node

	// Dial connects; nil: net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	db    *sql.DB
	sums  map[string]loaded
	cache map[string]cached
	first map[string][]byte // what modules without a checksum held first
}

// loaded is a row of runtime_checksums_values: which LOAD was the latest.
type loaded struct {
	version         int64
	epoch, checksum string
}

// cached is what a module held when it was loaded.
type cached struct {
	load    loaded
	content []byte
}

// Close ends the connection. What memory holds at the next one is looked at anew.
func (a *Admin) Close() error {
	a.sums, a.cache, a.first = nil, nil, nil
	if a.db == nil {
		return nil
	}
	db := a.db
	a.db = nil
	return db.Close()
}

// open opens the one connection: each takes a thread there, without a limit.
func (a *Admin) open() error {
	if a.db != nil {
		return nil
	}
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr = a.User, a.Password, "tcp", a.Address
	if strings.HasPrefix(a.Address, "/") {
		c.Net = "unix"
	}
	c.Timeout, c.ReadTimeout, c.WriteTimeout = connectTime, silence, silence
	c.MaxAllowedPacket = modules.MaxContent
	c.Logger = &mysql.NopLogger{}
	if a.Dial != nil {
		c.DialFunc = a.Dial
	}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return err
	}
	a.db = sql.OpenDB(connector)
	a.db.SetMaxOpenConns(1)
	a.db.SetConnMaxIdleTime(time.Minute)
	a.forget()
	return nil
}

// rows runs a query whose columns are text. ProxySQL has no prepared statements: there
// are no arguments, and values are quoted by quote.
func (a *Admin) rows(ctx context.Context, query string) (columns []string, all [][]any, err error) {
	if err := a.open(); err != nil {
		return nil, nil, err
	}
	r, err := a.db.QueryContext(ctx, query)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	if columns, err = r.Columns(); err != nil {
		return nil, nil, err
	}
	size := 0
	for r.Next() {
		texts := make([]sql.NullString, len(columns))
		into := make([]any, len(columns))
		for i := range texts {
			into[i] = &texts[i]
		}
		if err := r.Scan(into...); err != nil {
			return nil, nil, err
		}
		row := make([]any, len(columns))
		for i, t := range texts {
			if t.Valid {
				row[i] = t.String
				size += len(t.String)
			}
		}
		if size > modules.MaxContent {
			return nil, nil, fmt.Errorf("more than %d bytes", modules.MaxContent)
		}
		all = append(all, row)
	}
	return columns, all, r.Err()
}

// forget begins anew with a ProxySQL that was started.
func (a *Admin) forget() {
	a.sums, a.cache, a.first = map[string]loaded{}, map[string]cached{}, map[string][]byte{}
}

func (a *Admin) exec(ctx context.Context, statement string) error {
	if err := a.open(); err != nil {
		return err
	}
	_, err := a.db.ExecContext(ctx, statement)
	return err
}

// Mark returns another text whenever something was loaded. Modules without a checksum are
// looked at themselves: they are small.
func (a *Admin) Mark(ctx context.Context) (string, error) {
	mark, err := a.look(ctx)
	if err != nil {
		return "", fmt.Errorf("admin: look at ProxySQL: %w", err)
	}
	return mark, nil
}

func (a *Admin) look(ctx context.Context) (string, error) {
	_, rows, err := a.rows(ctx, "SELECT name, version, epoch, checksum FROM runtime_checksums_values ORDER BY name")
	if err != nil {
		return "", err
	}
	sums := map[string]loaded{}
	var mark strings.Builder
	for _, r := range rows {
		text := func(i int) string { s, _ := r[i].(string); return s }
		version, err := strconv.ParseInt(text(1), 10, 64)
		if err != nil {
			return "", fmt.Errorf("version %q of %s: %w", text(1), text(0), err)
		}
		l := loaded{version, text(2), text(3)}
		sums[text(0)] = l
		// The driver connects anew without a word; versions are counted from 1 by each process.
		if was := a.sums[text(0)]; l.version < was.version || l.version == 1 && was.version == 1 && l.epoch != was.epoch {
			a.forget()
		}
		fmt.Fprintln(&mark, text(0), version, text(2), text(3))
	}
	a.sums = sums
	if len(rows) == 0 {
		return "", errors.New("runtime_checksums_values is empty: is this a user of admin-admin_credentials?")
	}
	for _, name := range a.Names {
		if specs()[name].sum != "" {
			continue
		}
		b, err := a.memory(ctx, name)
		if err != nil {
			return "", err
		}
		s, err := modules.Summarize(b)
		if err != nil {
			return "", err
		}
		if a.first[name] == nil {
			a.first[name] = b
		}
		fmt.Fprintln(&mark, name, s.Sum)
	}
	return mark.String(), nil
}

// Read returns what a module held when it was loaded last. found is true of what ProxySQL
// found when it was started: nothing was loaded since.
func (a *Admin) Read(ctx context.Context, module string) (content []byte, found bool, err error) {
	if content, found, err = a.read(ctx, module); err != nil {
		return nil, false, fmt.Errorf("admin: read %s: %w", module, err)
	}
	return content, found, nil
}

func (a *Admin) read(ctx context.Context, module string) ([]byte, bool, error) {
	s, ok := specs()[module]
	if !ok {
		return nil, false, errors.New("no such module")
	}
	if _, err := a.look(ctx); err != nil {
		return nil, false, err
	}
	load := a.sums[s.sum]
	if c, ok := a.cache[module]; ok && s.sum != "" && c.load == load {
		return c.content, load.version <= 1, nil
	}
	b, err := a.memory(ctx, module)
	if err != nil {
		return nil, false, err
	}
	if s.sum == "" {
		return b, !a.touched() && bytes.Equal(b, a.first[module]), nil
	}
	a.cache[module] = cached{load, b}
	return b, load.version <= 1, nil
}

// touched reports whether anything was loaded since ProxySQL was started. Of a module
// without a checksum nothing better is known.
func (a *Admin) touched() bool {
	for _, l := range a.sums {
		if l.version > 1 {
			return true
		}
	}
	return false
}

// memory reads a module of the memory layer.
func (a *Admin) memory(ctx context.Context, module string) ([]byte, error) {
	s := specs()[module]
	var c modules.Content
	if s.prefix != "" {
		t, err := a.variables(ctx, "main", s.prefix)
		if err != nil {
			return nil, err
		}
		return modules.Content{t}.Encode()
	}
	for _, name := range s.tables {
		columns, rows, err := a.rows(ctx, "SELECT * FROM main."+name)
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", name, err)
		}
		c = append(c, modules.Table{Name: name, Columns: columns, Rows: rows})
	}
	return c.Encode()
}

// variables reads those that are not of this node.
func (a *Admin) variables(ctx context.Context, schema, prefix string) (modules.Table, error) {
	columns, rows, err := a.rows(ctx, "SELECT variable_name, variable_value FROM "+schema+"."+variables+" WHERE variable_name LIKE '"+prefix+"%'")
	rows = slices.DeleteFunc(rows, func(r []any) bool {
		name, _ := r[0].(string)
		return a.isLocal(name)
	})
	return modules.Table{Name: variables, Columns: columns, Rows: rows}, err
}
