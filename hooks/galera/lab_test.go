package galera_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/galera"
	"github.com/carpd/carpd/hooks/hookstest"
	"github.com/carpd/carpd/hooks/mysqlcheck"
	cluster "github.com/carpd/carpd/test/galera"
	"github.com/carpd/carpd/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

const patience = 40 * time.Second // Galera gives a silent node up after 5 to 15 s

// look makes a monitor and asks it.
func look(t *testing.T, m hooks.Monitor, err error) (hooks.Report, error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	return m.Monitor(ctx)
}

// ask asks the monitor galera about a node.
func ask(t *testing.T, n *cluster.Node, change func(*galera.Config)) (hooks.Report, error) {
	t.Helper()
	c := galera.Config{Address: n.Socket, User: cluster.Check}
	change(&c)
	m, err := galera.New(c)
	return look(t, m, err)
}

func as(*galera.Config) {}

// TestLabThreeRealNodes shares one cluster: it takes longest to make.
func TestLabThreeRealNodes(t *testing.T) {
	lan := lab.New(t)
	c := cluster.Start(t, lan.Host("g1", "192.0.2.11/24"), lan.Host("g2", "192.0.2.12/24"), lan.Host("g3", "192.0.2.13/24"))
	client := lan.Host("client", "192.0.2.9/24")
	first, last := c.Nodes[0], c.Nodes[2]

	is := func(what string, n *cluster.Node, change func(*galera.Config), want hooks.Health, text string) {
		t.Helper()
		report, err := ask(t, n, change)
		if err != nil || report.Health != want || !strings.Contains(report.Text, text) {
			t.Errorf("%s: %+v, %v; want %v, %q", what, report, err, want, text)
		}
	}
	set := func(n *cluster.Node, statement string) {
		t.Helper()
		if err := n.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	check := func(change func(*mysqlcheck.Config)) (report hooks.Report, err error) {
		c := mysqlcheck.Config{Address: first.Address.String(), User: cluster.Check}
		change(&c)
		m, err := mysqlcheck.New(c)
		client.Do(func() { report, err = look(t, m, err) })
		return report, err
	}
	login := func(*mysqlcheck.Config) {}

	t.Run("contract", func(t *testing.T) {
		for _, m := range []struct {
			kind string
			open func() (hooks.Monitor, error)
		}{
			{"galera", func() (hooks.Monitor, error) {
				return galera.New(galera.Config{Address: first.Socket, User: cluster.Check})
			}},
			{"mysql-check", func() (hooks.Monitor, error) {
				return mysqlcheck.New(mysqlcheck.Config{Address: first.Socket, User: cluster.Check})
			}},
		} {
			t.Run(m.kind, func(t *testing.T) {
				hookstest.Monitors(t, func() hooks.Monitor {
					opened, err := m.open()
					if err != nil {
						t.Fatal(err)
					}
					return opened
				})
			})
		}
	})

	t.Run("the states of a node", func(t *testing.T) {
		for _, n := range c.Nodes {
			is("synced", n, as, hooks.Healthy, "Synced, one of 3")
		}
		is("few", first, func(c *galera.Config) { c.MinSize = 4 }, hooks.Degraded, "fewer than 4")

		set(first, "SET GLOBAL read_only=1")
		is("read only", first, as, hooks.Unfit, "read only")
		lab.Eventually(t, patience, "a read-only node to be synced", func() bool { // it is paused meanwhile
			report, err := ask(t, first, func(c *galera.Config) { c.AvailableWhenReadOnly = true })
			return err == nil && report.Health == hooks.Healthy
		})
		if report, err := check(login); err != nil {
			t.Errorf("mysql-check of a server that is read only: %+v, %v; HAProxy's says UP", report, err)
		}
		set(first, "SET GLOBAL read_only=0")

		set(first, "SET GLOBAL wsrep_desync=ON")
		is("desynced", first, as, hooks.Unfit, "not synced")
		is("desynced, allowed", first, func(c *galera.Config) { c.AvailableWhenDonor = true }, hooks.Degraded, "Donor")
		set(first, "SET GLOBAL wsrep_desync=OFF")
		lab.Eventually(t, patience, "the node to be synced again", func() bool {
			report, err := ask(t, first, as)
			return err == nil && report.Health == hooks.Healthy
		})

		set(first, "SET GLOBAL wsrep_reject_queries=ALL")
		is("rejecting queries", first, as, hooks.Unfit, "wsrep_reject_queries is ALL")
		set(first, "SET GLOBAL wsrep_reject_queries=NONE")

		off := filepath.Join(t.TempDir(), "off")
		if err := os.WriteFile(off, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		is("disabled by a file", first, func(c *galera.Config) { c.DisableFile = off }, hooks.Unfit, off)
	})

	t.Run("mysql-check", func(t *testing.T) {
		password := filepath.Join(t.TempDir(), "pass")
		if err := os.WriteFile(password, []byte(cluster.AppPassword+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		query := func(expect string) func(*mysqlcheck.Config) {
			return func(c *mysqlcheck.Config) {
				c.User, c.PasswordFile, c.Query, c.Expect = cluster.App, password, "SELECT @@read_only, 'more'", expect
			}
		}
		for _, c := range []struct {
			name   string
			change func(*mysqlcheck.Config)
			text   string // of the report
			fault  string // of the error; "" for none
		}{
			{"login", login, "takes logins", ""},
			{"greeting", func(c *mysqlcheck.Config) { c.User = "" }, "greets", ""},
			{"no such user", func(c *mysqlcheck.Config) { c.User = "nobody" }, "", "error 1045"},
			{"user with a password", func(c *mysqlcheck.Config) { c.User = cluster.App }, "", "error 1045"},
			{"nobody listens", func(c *mysqlcheck.Config) { c.Address = "192.0.2.11:3307" }, "", "refused"},
			{"query", query("0"), `"0"`, ""},
			{"query, otherwise", query("1"), "", `"0", not "1"`},
			{"query, wrong", func(c *mysqlcheck.Config) { query("")(c); c.Query = "SELECT nothing" }, "", "nothing"},
			{"query, no row", func(c *mysqlcheck.Config) { query("")(c); c.Query = "SELECT 1 FROM DUAL WHERE 1 = 0" }, "", "no row"},
		} {
			report, err := check(c.change)
			switch {
			case c.fault == "" && (err != nil || report.Health != hooks.Healthy || !strings.Contains(report.Text, c.text)):
				t.Errorf("%s: %+v, %v", c.name, report, err)
			case c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)):
				t.Errorf("%s: %+v, %v; want %q", c.name, report, err, c.fault)
			}
		}
		set(first, "SET GLOBAL max_connections=10")
		var open []interface{ Close() error }
		for range 10 {
			db := first.Root()
			open = append(open, db)
			_ = db.Ping() // the last one fails
		}
		if report, err := check(login); err == nil || !strings.Contains(err.Error(), "error 1040") {
			t.Errorf("all connections used up: %+v, %v", report, err)
		}
		for _, db := range open {
			db.Close()
		}
	})

	// Not for long: after 5 s the others give it up.
	t.Run("a node that stands still cannot be looked at", func(t *testing.T) {
		m, err := galera.New(galera.Config{Address: first.Socket, User: cluster.Check})
		if err != nil {
			t.Fatal(err)
		}
		first.Signal(syscall.SIGSTOP)
		defer first.Signal(syscall.SIGCONT)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if report, err := m.Monitor(ctx); err == nil {
			t.Errorf("galera: %+v", report)
		}
		c := mysqlcheck.Config{Address: first.Address.String(), User: cluster.Check}
		login, err := mysqlcheck.New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		client.Do(func() {
			if report, err := login.Monitor(ctx); err == nil {
				t.Errorf("mysql-check: %+v", report)
			}
		})
	})
	c.AwaitSize(3)

	t.Run("a node that is cut off is unfit, the others are not", func(t *testing.T) {
		last.Host.Isolate(true)
		began := time.Now()
		lab.Eventually(t, patience, "the node to leave the primary component", func() bool {
			report, err := ask(t, last, as)
			return err == nil && report.Health == hooks.Unfit
		})
		report, _ := ask(t, last, as)
		t.Logf("after %v: %s; mysql-check through its socket would still log in", time.Since(began).Round(100*time.Millisecond), report.Text)
		m, err := mysqlcheck.New(mysqlcheck.Config{Address: last.Socket, User: cluster.Check})
		if report, err := look(t, m, err); err != nil {
			t.Logf("mysql-check: %+v, %v", report, err)
		}
		for _, n := range c.Nodes[:2] {
			lab.Eventually(t, patience, "the others to be two", func() bool {
				report, err := ask(t, n, as)
				return err == nil && report.Health == hooks.Healthy && strings.Contains(report.Text, "one of 2")
			})
		}
	})
}
