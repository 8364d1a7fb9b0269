package proxysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Admin is how the admin port of the ProxySQL of this machine is reached. Its user is
// one of admin-admin_credentials: users for statistics see nothing of the configuration.
type Admin struct {
	Address  string // HOST:PORT, or the path of a socket
	User     string
	Password string
	// Dial opens connections; nil: a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

const (
	askTimeout  = 500 * time.Millisecond // for an answer without much work; changes are not seen meanwhile
	workTimeout = time.Second            // for comparing memory with disk, and for copying
	copySpeed   = 32 << 20               // bytes a second, at least, beyond that
	idleTime    = time.Minute            // after which a connection is not used again
)

// open prepares the one connection: each costs ProxySQL a thread. There are no prepared
// statements on that port, and no transactions.
func (a Admin) open() (*sql.DB, error) {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Addr, c.Net = a.User, a.Password, a.Address, "tcp"
	if strings.HasPrefix(a.Address, "/") {
		c.Net = "unix"
	}
	c.Timeout, c.WriteTimeout = askTimeout, askTimeout
	c.InterpolateParams = true
	c.Logger = silent{}
	c.DialFunc = a.Dial
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("proxysql: admin port: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	db.SetConnMaxIdleTime(idleTime)
	return db, nil
}

// silent keeps the driver from writing to standard error: what it would say is in errors.
type silent struct{}

func (silent) Print(...any) {}

// within bounds one exchange with the admin port, connecting included.
func within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
}

// explain adds why a context ended, and what to do about the refusals that are known.
func explain(ctx context.Context, what string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	var said *mysql.MySQLError
	hint := ""
	if errors.As(err, &said) {
		switch {
		case said.Number == 1040:
			hint = " (this user may log in from localhost only)"
		case strings.Contains(said.Message, "Access denied"):
			hint = " (user and password are those of admin-admin_credentials)"
		case strings.Contains(said.Message, "no such table: runtime_"):
			hint = " (that user is one for statistics: name one of admin-admin_credentials)"
		case strings.Contains(said.Message, "readonly database"):
			hint = " (PROXYSQL READONLY is in force, or that user is one for statistics)"
		}
	}
	return fmt.Errorf("proxysql: admin port: %s: %w%s", what, err, hint)
}

// checksums returns the configuration that runs, in short. It changes with each LOAD ...
// TO RUNTIME.
func checksums(ctx context.Context, db *sql.DB) (string, error) {
	limited, cancel := within(ctx, askTimeout)
	defer cancel()
	rows, err := db.QueryContext(limited, "SELECT name, version, epoch, checksum FROM runtime_checksums_values ORDER BY name")
	if err != nil {
		return "", explain(limited, "ask for checksums", err)
	}
	defer rows.Close()
	var all strings.Builder
	for rows.Next() {
		var name, version, epoch, sum string
		if err := rows.Scan(&name, &version, &epoch, &sum); err != nil {
			return "", explain(limited, "ask for checksums", err)
		}
		fmt.Fprintln(&all, name, version, epoch, sum)
	}
	if err := rows.Err(); err != nil {
		return "", explain(limited, "ask for checksums", err)
	}
	return all.String(), nil
}

// unsaved returns the tables in which memory and disk differ, by module. A table that one
// of the two has not is left out: releases differ.
func unsaved(ctx context.Context, db *sql.DB, tables []string) ([]string, error) {
	limited, cancel := within(ctx, workTimeout)
	defer cancel()
	var all []string
	for _, t := range tables {
		q := "SELECT (SELECT count(*) FROM (SELECT * FROM main." + t + " EXCEPT SELECT * FROM disk." + t + ")) + " +
			"(SELECT count(*) FROM (SELECT * FROM disk." + t + " EXCEPT SELECT * FROM main." + t + "))"
		var n int
		err := db.QueryRowContext(limited, q).Scan(&n)
		var said *mysql.MySQLError
		if errors.As(err, &said) {
			continue
		}
		if err != nil {
			return nil, explain(limited, "compare memory with disk", err)
		}
		if n > 0 {
			all = append(all, t)
		}
	}
	return all, nil
}

// copyTo has ProxySQL write its disk database, of about size bytes, into a file that is
// not there yet.
func copyTo(ctx context.Context, db *sql.DB, file string, size int64) error {
	limited, cancel := within(ctx, workTimeout+time.Duration(size)*time.Second/copySpeed)
	defer cancel()
	if _, err := db.ExecContext(limited, "VACUUM disk INTO '"+strings.ReplaceAll(file, "'", "''")+"'"); err != nil {
		return explain(limited, "VACUUM INTO", err)
	}
	return nil
}
