package proxysql

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/database"
	"github.com/carpd/carpd/hooks/secret"
	rules "github.com/carpd/carpd/replicator/proxysql"
	"github.com/carpd/carpd/replicator/sqlite"
)

func init() { hooks.RegisterResource("proxysql", New) }

// Defaults of Config.
const (
	DefaultDatabase = "/var/lib/proxysql/proxysql.db"
	DefaultUnit     = "proxysql.service"
	DefaultAdmin    = "127.0.0.1:6032"
	DefaultClient   = "127.0.0.1:6033"
	DefaultUser     = "admin"
)

// The modes.
const (
	Warm = "warm"
	Cold = "cold"
)

// What is waited for of the servers behind ProxySQL.
const (
	Wait   = "wait"
	Ignore = "ignore"
)

// Config is the configuration of one ProxySQL.
type Config struct {
	database.Config

	Mode           string   `yaml:"mode"`                 // warm or cold
	Admin          string   `yaml:"admin"`                // HOST:PORT of the admin port, or the path of its socket
	User           string   `yaml:"user"`                 // whom to log in as there
	PasswordFile   string   `yaml:"password_file"`        // with its password; required
	Client         string   `yaml:"client"`               // HOST:PORT of the port for clients, or the path of its socket
	ClientUser     string   `yaml:"client_user"`          // whom to log in as there; "": only its greeting is read
	ClientPassword string   `yaml:"client_password_file"` // with the password of that user
	Backends       string   `yaml:"backends"`             // wait or ignore
	NodeLocal      []string `yaml:"node_local"`           // variables of which each node has its own, beside those that always are; patterns of GLOB
	ShareServers   bool     `yaml:"share_proxysql_servers"`
}

// resource implements hooks.Resource.
type resource struct {
	c     Config
	d     *database.Database
	local []string // variables
}

// New returns the resource, or all faults of its configuration. It touches nothing.
func New(c Config) (hooks.Resource, error) {
	faults := c.fill()
	r := &resource{c: c, local: slices.Concat(rules.LocalVariables(), c.NodeLocal)}
	p := database.Program{
		Rules: rules.Rules(), Drop: rules.Identity(), Ready: r.ready, Serves: r.serves, Drain: r.drain,
		Local: append(rules.Identity(), sqlite.Rows{Table: "global_variables", Column: "variable_name", Values: r.local}),
	}
	if !c.ShareServers {
		p.Local = append(p.Local, sqlite.Rows{Table: "proxysql_servers"})
	}
	if c.Mode == Warm {
		p.Restore = r.restore
	}
	d, err := database.New(c.Config, p)
	if err := errors.Join(append(faults, err)...); err != nil {
		return nil, fmt.Errorf("proxysql: %w", err)
	}
	r.d = d
	return r, nil
}

// fill replaces zero values by defaults, and returns all faults but those of the database.
func (c *Config) fill() (faults []error) {
	fault := func(format string, a ...any) { faults = append(faults, fmt.Errorf(format, a...)) }
	c.Mode = cmp.Or(c.Mode, Warm)
	c.Database = cmp.Or(c.Database, DefaultDatabase)
	c.Admin, c.Client, c.User = cmp.Or(c.Admin, DefaultAdmin), cmp.Or(c.Client, DefaultClient), cmp.Or(c.User, DefaultUser)
	c.Backends = cmp.Or(c.Backends, Wait)
	if c.Unit == "" && len(c.Start)+len(c.Stop)+len(c.Status) == 0 {
		c.Unit = DefaultUnit
	}
	switch {
	case c.Mode == Warm:
		c.OnDemotion = cmp.Or(c.OnDemotion, database.Drain)
		if c.OnDemotion == database.Stop {
			fault("on_demotion stop: in mode warm ProxySQL runs on all nodes: use drain or keep, or mode: cold")
		}
	case c.Mode != Cold:
		fault("mode %q: use %s (ProxySQL runs on all nodes) or %s (it runs where the role is)", c.Mode, Warm, Cold)
	}
	for _, a := range []struct{ key, address string }{{"admin", c.Admin}, {"client", c.Client}} {
		if _, _, err := net.SplitHostPort(a.address); err != nil && !filepath.IsAbs(a.address) {
			fault("%s %q: write HOST:PORT, such as 127.0.0.1:6032, or the path of the socket", a.key, a.address)
		}
	}
	if c.PasswordFile == "" {
		fault("password_file is required: the file with the password of user %s on the admin port", c.User)
	} else if _, err := secret.Read(c.PasswordFile); err != nil {
		fault("password_file: %w", err)
	}
	switch {
	case c.ClientUser != "" && c.ClientPassword == "":
		fault("client_password_file is required with client_user")
	case c.ClientUser == "" && c.ClientPassword != "":
		fault("client_user is required with client_password_file")
	case c.ClientUser != "":
		if _, err := secret.Read(c.ClientPassword); err != nil {
			fault("client_password_file: %w", err)
		}
	}
	if c.Backends != Wait && c.Backends != Ignore {
		fault("backends %q: use %s or %s", c.Backends, Wait, Ignore)
	}
	for _, v := range c.NodeLocal {
		if !strings.HasPrefix(v, "mysql-") && !strings.HasPrefix(v, "admin-") && !strings.HasPrefix(v, "pgsql-") || strings.ContainsAny(v, " '\"") {
			fault("node_local %q: write the name of a variable, such as mysql-server_version; * stands for any letters", v)
		}
	}
	return faults
}

// patience of one question to ProxySQL: its admin port answers nobody while it works.
const patience = 5 * time.Second
