package proxysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/carpd/carpd/hooks/secret"
)

// admin is one connection to the admin port. ProxySQL has a thread for each, and one lock
// for all.
type admin struct {
	db   *sql.DB
	conn *sql.Conn
}

func network(address string) string {
	if filepath.IsAbs(address) {
		return "unix"
	}
	return "tcp"
}

// connect logs in. Statements are sent as text: ProxySQL prepares none.
func connect(ctx context.Context, address, user, passwordFile string) (admin, error) {
	password, err := secret.Read(passwordFile)
	if err != nil {
		return admin{}, err
	}
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr = user, password, network(address), address
	c.Timeout, c.ReadTimeout, c.WriteTimeout = patience, 4*patience, 4*patience
	c.Logger = &mysql.NopLogger{} // what it would say is in the error
	c.MaxAllowedPacket = 0
	c.AllowNativePasswords = true
	c.MaxAllowedPacket = maxBatch * 2
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return admin{}, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(ctx)
	if err != nil {
		return admin{}, errors.Join(fmt.Errorf("log in at %s as %s: %w", address, user, err), db.Close())
	}
	return admin{db, conn}, nil
}

func (r *resource) admin(ctx context.Context) (admin, error) {
	return connect(ctx, r.c.Admin, r.c.User, r.c.PasswordFile)
}

func (a admin) close() {
	_ = a.conn.Close() // what it had to say was asked for
	_ = a.db.Close()
}

// run runs a statement. That it is answered with OK says little.
func (a admin) run(ctx context.Context, statement string) error {
	_, err := a.conn.ExecContext(ctx, statement)
	return err
}

// rows returns the rows of a query, as text.
func (a admin) rows(ctx context.Context, query string) (all [][]sql.NullString, err error) {
	rows, err := a.conn.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		row, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

// count returns the number that a query answers with.
func (a admin) count(ctx context.Context, query string) (int64, error) {
	rows, err := a.rows(ctx, query)
	if err != nil {
		return 0, err
	}
	if len(rows) != 1 || len(rows[0]) != 1 {
		return 0, fmt.Errorf("%d rows instead of one number: %s", len(rows), query)
	}
	return strconv.ParseInt(rows[0][0].String, 10, 64)
}

// greeting is the first byte of what a server says first: its protocol, or an error.
const (
	protocol10 = 10
	refusal    = 0xff
)

// serves asks the port for clients: for a login, or for its greeting if there is no user
// to log in as. It implements database.Program.
func (r *resource) serves(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if r.c.ClientUser != "" {
		c, err := connect(ctx, r.c.Client, r.c.ClientUser, r.c.ClientPassword)
		if err != nil {
			return fmt.Errorf("clients are not served: %w", err)
		}
		c.close()
		return nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network(r.c.Client), r.c.Client)
	if err != nil {
		return fmt.Errorf("clients are not served: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	var b [5]byte // length and number of the packet, then the protocol
	for n := 0; n < len(b); {
		m, err := conn.Read(b[n:])
		if n += m; err != nil {
			return fmt.Errorf("clients are not served: %s takes connections and does not greet: %w", r.c.Client, err)
		}
	}
	if b[4] != protocol10 {
		what := "what greets is no server of MySQL's protocol"
		if b[4] == refusal {
			what = "it greets with an error"
		}
		return fmt.Errorf("clients are not served at %s: %s", r.c.Client, what)
	}
	return nil
}
