package galera

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/secret"
)

func init() { hooks.RegisterMonitor("galera", New) }

// Config says where the node is, and what passes. Address and User are required.
type Config struct {
	Address      string `yaml:"address"`       // HOST:PORT, or the path of its socket
	User         string `yaml:"user"`          // with no rights but to log in
	PasswordFile string `yaml:"password_file"` // first line of a file that others may not read; none: an empty password

	AvailableWhenDonor    bool   `yaml:"available_when_donor"`    // a donor is degraded instead of unfit
	AvailableWhenReadOnly bool   `yaml:"available_when_readonly"` // read_only does not matter
	DisableFile           string `yaml:"disable_file"`            // while this file is there, the node is unfit
	MinSize               int    `yaml:"min_size"`                // with fewer nodes in the component it is degraded
}

// New returns the monitor.
func New(c Config) (hooks.Monitor, error) {
	var faults []error
	if c.Address == "" {
		faults = append(faults, errors.New("address: required: HOST:PORT, or the path of a socket"))
	} else if _, _, err := net.SplitHostPort(c.Address); err != nil && !filepath.IsAbs(c.Address) {
		faults = append(faults, fmt.Errorf("address: %q is neither HOST:PORT nor an absolute path", c.Address))
	}
	if c.User == "" {
		faults = append(faults, errors.New("user: required: CREATE USER with no rights is enough"))
	}
	if c.PasswordFile != "" {
		if _, err := secret.Read(c.PasswordFile); err != nil {
			faults = append(faults, fmt.Errorf("password_file: %w", err))
		}
	}
	if c.DisableFile != "" && !filepath.IsAbs(c.DisableFile) {
		faults = append(faults, fmt.Errorf("disable_file: %q is no absolute path", c.DisableFile))
	}
	if c.MinSize < 0 {
		faults = append(faults, errors.New("min_size: use 1 or more"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return node{c}, nil
}

// node is one node of a cluster.
type node struct{ Config }

// Monitor asks the node, over a connection of its own: one that was open before would
// say nothing about whether it still takes connections. It implements hooks.Monitor.
func (n node) Monitor(ctx context.Context) (r hooks.Report, err error) {
	if n.DisableFile != "" {
		if _, err := os.Lstat(n.DisableFile); err == nil {
			return hooks.Report{Health: hooks.Unfit, Text: n.DisableFile + " is there"}, nil
		}
	}
	said, err := n.ask(ctx)
	if err != nil {
		return r, fmt.Errorf("galera: ask %s: %w", n.Address, err)
	}
	r.Health, r.Text = n.judge(said)
	return r, nil
}

// status is what a node says of itself: its status variables and system variables that
// judge looks at, by their names in lower case.
type status map[string]string

// The names that are asked for.
const (
	statusNames   = "'wsrep_cluster_status','wsrep_ready','wsrep_local_state','wsrep_local_state_comment','wsrep_cluster_size'"
	variableNames = "'wsrep_on','wsrep_reject_queries','wsrep_sst_donor_rejects_queries','read_only'"
)

func (n node) ask(ctx context.Context) (status, error) {
	connector, err := n.connector(ctx)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	said := make(status)
	for _, query := range []string{
		"SHOW GLOBAL STATUS WHERE Variable_name IN (" + statusNames + ")",
		"SHOW GLOBAL VARIABLES WHERE Variable_name IN (" + variableNames + ")",
	} {
		if err := said.read(ctx, conn, query); err != nil {
			return nil, err
		}
	}
	return said, nil
}

func (s status) read(ctx context.Context, conn *sql.Conn, query string) error {
	rows, err := conn.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return err
		}
		s[strings.ToLower(name)] = value
	}
	return rows.Err()
}

func (n node) connector(ctx context.Context) (driver.Connector, error) {
	c := mysql.NewConfig()
	c.User, c.Net, c.Addr = n.User, "tcp", n.Address
	if filepath.IsAbs(n.Address) {
		c.Net = "unix"
	}
	c.Logger = &mysql.NopLogger{} // what it would say is in the error
	if deadline, bounded := ctx.Deadline(); bounded {
		left := max(time.Until(deadline), time.Millisecond)
		c.Timeout, c.ReadTimeout, c.WriteTimeout = left, left, left
	}
	if n.PasswordFile != "" {
		var err error
		if c.Passwd, err = secret.Read(n.PasswordFile); err != nil {
			return nil, err
		}
	}
	return mysql.NewConnector(c)
}

// The values of wsrep_local_state.
const (
	donor  = "2" // donor, or desynced by hand
	synced = "4"
)

// judge says how fit a node is that says this of itself.
func (c Config) judge(said status) (hooks.Health, string) {
	on := func(name string) bool { return said[name] == "ON" || said[name] == "1" }
	state := said["wsrep_local_state_comment"]
	switch {
	case !on("wsrep_on") || said["wsrep_cluster_status"] == "":
		return hooks.Unfit, "it is no node of a cluster: wsrep_on is OFF, or no provider is loaded"
	case said["wsrep_cluster_status"] != "Primary":
		return hooks.Unfit, "its component is not the primary one: " + said["wsrep_cluster_status"]
	case !on("wsrep_ready"):
		return hooks.Unfit, "wsrep_ready is OFF: " + state
	case said["wsrep_reject_queries"] != "" && said["wsrep_reject_queries"] != "NONE":
		return hooks.Unfit, "wsrep_reject_queries is " + said["wsrep_reject_queries"]
	case on("read_only") && !c.AvailableWhenReadOnly:
		return hooks.Unfit, "it is read only"
	}
	size, _ := strconv.Atoi(said["wsrep_cluster_size"])
	switch local := said["wsrep_local_state"]; {
	case local == donor && on("wsrep_sst_donor_rejects_queries"):
		return hooks.Unfit, "it is a donor, and wsrep_sst_donor_rejects_queries is ON"
	case local == donor && c.AvailableWhenDonor:
		return hooks.Degraded, "it is " + state + " (donor, or desynced)"
	case local != synced:
		return hooks.Unfit, fmt.Sprintf("it is %s, not synced (wsrep_local_state %s)", state, local)
	case size < c.MinSize:
		return hooks.Degraded, fmt.Sprintf("%d nodes are in its component, fewer than %d", size, c.MinSize)
	}
	return hooks.Healthy, fmt.Sprintf("%s, one of %d nodes", state, size)
}
