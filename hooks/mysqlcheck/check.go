package mysqlcheck

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/secret"
)

func init() { hooks.RegisterMonitor("mysql-check", New) }

// Config says whom to ask, and what. Address is required.
type Config struct {
	Address string `yaml:"address"` // HOST:PORT, or the path of a socket
	User    string `yaml:"user"`    // to log in as; none: only the greeting is read

	Query        string `yaml:"query"`         // SQL that changes nothing; needs a user
	Expect       string `yaml:"expect"`        // what the first column of its first row is then; none: any row passes
	PasswordFile string `yaml:"password_file"` // of the query's user: first line of a file that others may not read
}

// New returns the monitor.
func New(c Config) (hooks.Monitor, error) {
	var faults []error
	if c.Address == "" {
		faults = append(faults, errors.New("address: required: HOST:PORT, or the path of a socket"))
	} else if _, _, err := net.SplitHostPort(c.Address); err != nil && !filepath.IsAbs(c.Address) {
		faults = append(faults, fmt.Errorf("address: %q is neither HOST:PORT nor an absolute path", c.Address))
	}
	if strings.ContainsRune(c.User, 0) {
		faults = append(faults, errors.New("user: contains a zero byte"))
	}
	switch {
	case c.Query != "" && c.User == "":
		faults = append(faults, errors.New("user: a query needs one"))
	case c.Query == "" && (c.Expect != "" || c.PasswordFile != ""):
		faults = append(faults, errors.New("expect, password_file: only a query needs them: HAProxy's check logs in without a password"))
	}
	if c.PasswordFile != "" {
		if _, err := secret.Read(c.PasswordFile); err != nil {
			faults = append(faults, fmt.Errorf("password_file: %w", err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return server{c}, nil
}

// server is one server, or what stands before it.
type server struct{ Config }

// Monitor asks it. It implements hooks.Monitor.
func (s server) Monitor(ctx context.Context) (r hooks.Report, err error) {
	if s.Query != "" {
		r.Text, err = s.query(ctx)
	} else {
		r.Text, err = s.login(ctx)
	}
	if ctx.Err() != nil && err != nil {
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	if err != nil {
		return hooks.Report{}, fmt.Errorf("mysqlcheck: ask %s: %w", s.Address, err)
	}
	return r, nil
}

func (s server) network() string {
	if filepath.IsAbs(s.Address) {
		return "unix"
	}
	return "tcp"
}

func (s server) login(ctx context.Context) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, s.network(), s.Address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	return login(conn, s.User)
}

func (s server) query(ctx context.Context) (string, error) {
	c := mysql.NewConfig()
	c.User, c.Net, c.Addr = s.User, s.network(), s.Address
	c.Logger = &mysql.NopLogger{} // what it would say is in the error
	if deadline, bounded := ctx.Deadline(); bounded {
		left := max(time.Until(deadline), time.Millisecond)
		c.Timeout, c.ReadTimeout, c.WriteTimeout = left, left, left
	}
	if s.PasswordFile != "" {
		var err error
		if c.Passwd, err = secret.Read(s.PasswordFile); err != nil {
			return "", err
		}
	}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return "", err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	return s.first(ctx, db)
}

// first runs the query and judges the first column of its first row.
func (s server) first(ctx context.Context, db *sql.DB) (string, error) {
	rows, err := db.QueryContext(ctx, s.Query)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	if !rows.Next() {
		return "", errors.Join(rows.Err(), errors.New("the query returned no row"))
	}
	columns, err := rows.Columns()
	if err != nil {
		return "", err
	}
	var value sql.NullString
	into := make([]any, len(columns))
	for i := range into {
		into[i] = new(sql.RawBytes)
	}
	into[0] = &value
	if err := rows.Scan(into...); err != nil {
		return "", err
	}
	if s.Expect != "" && value.String != s.Expect {
		return "", fmt.Errorf("the query returned %.80q, not %q", value.String, s.Expect)
	}
	return fmt.Sprintf("%.80q", value.String), nil
}
