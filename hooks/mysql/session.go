package mysql

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	driver "github.com/go-sql-driver/mysql"
)

// The errors of servers that decisions depend on.
const (
	errLockWait = 1205 // a lock was not free in time
	errNoThread = 1094 // KILL: the connection has ended by itself
	errTooMany  = 1040 // connections
	errShutdown = 1053 // of the server is under way
)

// account is how servers are logged in to.
type account struct {
	user     string
	file     string // of the password
	roots    *x509.CertPool
	dial     dialer
	patience time.Duration // for a connection to come about, and for a peer to answer
}

// server is one that may be asked. It holds no connection.
type server struct {
	account
	name   string // for messages
	local  bool   // this node's own
	socket string // "": use at
	at     netip.AddrPort
}

// session is one connection to a server. It is used by one goroutine.
type session struct {
	*server
	db   *sql.DB
	conn *sql.Conn
	d    dialect
	id   uint64 // of the connection
}

// silent keeps the driver from writing to standard error: what is wrong is in errors.
type silent struct{}

func (silent) Print(...any) {}

func (s *server) settings() (*driver.Config, error) {
	password, err := readSecret(s.file)
	if err != nil {
		return nil, err
	}
	c := driver.NewConfig()
	c.User, c.Passwd = s.user, password
	c.Net, c.Addr = "tcp", s.at.String()
	c.Logger = silent{}
	c.Timeout = s.patience
	c.InterpolateParams = true
	if s.dial != nil {
		c.DialFunc = s.dial
	}
	switch {
	case s.socket != "":
		c.Net, c.Addr = "unix", s.socket
	case s.roots != nil:
		c.TLS = &tls.Config{RootCAs: s.roots, ServerName: s.at.Addr().String(), MinVersion: tls.VersionTLS12}
	}
	return c, nil
}

// connect logs in and finds the dialect. The caller closes the session.
func (s *server) connect(ctx context.Context) (*session, error) {
	c, err := s.settings()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	connector, err := driver.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	e := &session{server: s, db: sql.OpenDB(connector)}
	within, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	if e.conn, err = e.db.Conn(within); err == nil {
		err = e.begin(within)
	}
	if err != nil {
		e.close()
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return e, nil
}

// begin sets what all statements rely on.
func (e *session) begin(ctx context.Context) error {
	var text string
	if err := e.conn.QueryRowContext(ctx, "SELECT @@version, CONNECTION_ID()").Scan(&text, &e.id); err != nil {
		return err
	}
	var err error
	if e.d, err = dialectOf(text); err != nil {
		return err
	}
	// One second is the least: who has to wait longer for a lock gets errLockWait.
	_, err = e.conn.ExecContext(ctx, "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES', lock_wait_timeout = 1")
	return err
}

// close ends the connection; what was open on it is rolled back.
func (e *session) close() {
	if e.conn != nil {
		_ = e.conn.Close() // it is only given back
	}
	_ = e.db.Close() // nothing can be done about it
}

// exec runs a statement. Errors name the server and the words that say what it was: never
// more of it, since there may be a password in it.
func (e *session) exec(ctx context.Context, statement string) error {
	_, err := e.conn.ExecContext(ctx, statement)
	if err == nil {
		return nil
	}
	words := strings.Fields(statement)
	what := strings.Join(words[:min(len(words), 4)], " ")
	var said *driver.MySQLError
	if strings.Contains(statement, "PASSWORD") && errors.As(err, &said) {
		return fmt.Errorf("%s: %s: error %d", e.name, what, said.Number) // its text may quote the statement
	}
	return fmt.Errorf("%s: %s: %w", e.name, what, err)
}

// row is one row by the names of its columns, in lower case; NULL is not in it.
type row map[string]string

// query returns all rows, at most maxRows.
func (e *session) query(ctx context.Context, statement string) (all []row, err error) {
	rows, err := e.conn.QueryContext(ctx, statement)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", e.name, statement, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	cells, into := make([]sql.NullString, len(names)), make([]any, len(names))
	for i := range cells {
		into[i] = &cells[i]
	}
	for rows.Next() && len(all) < maxRows {
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		one := row{}
		for i, c := range cells {
			if c.Valid {
				one[strings.ToLower(names[i])] = c.String
			}
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// maxRows bounds what is read: of connections there may be many.
const maxRows = 100_000

// number is the code of a server's error, 0 if it is none.
func number(err error) uint16 {
	var said *driver.MySQLError
	if errors.As(err, &said) {
		return said.Number
	}
	return 0
}

// absent reports whether an error of connect says that nobody answers there, as opposed to
// a server that does not let us in: that one lives.
func absent(err error) bool {
	op, dialled := errors.AsType[*net.OpError](err)
	return dialled && op.Op == "dial" || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || stopped(err)
}

// stopped reports whether nothing listens there at all: no such socket, or refused.
func stopped(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
}

// passing reports whether a server says that it is about to change by itself.
func passing(err error) bool {
	n := number(err)
	return n == errTooMany || n == errShutdown || n == errLockWait
}
