package admin_test

import (
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"database/sql"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/replicator/modules"
	"github.com/carpd/carpd/replicator/modules/admin"
	"github.com/carpd/carpd/replicator/modules/mesh"
	"github.com/carpd/carpd/replicator/modules/node"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers/proxysqlstub"
)

func TestMain(m *testing.M) {
	proxysqlstub.Enter()
	lab.Main(m)
}

// sample unpacks a database that ProxySQL 2.7.1 wrote.
func sample(t testing.TB) string {
	t.Helper()
	f, err := os.Open("../../sqlite/testdata/proxysql/proxysql.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	path := filepath.Join(t.TempDir(), "proxysql.db")
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// member is a node with ProxySQL.
type member struct {
	t     testing.TB
	id    int
	proxy *proxysqlstub.Node
	db    *sql.DB
	node  *node.Node
}

func key(t testing.TB, id int) ssh.Signer {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = byte(id)
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// backend is the admin interface of a node, from its own host.
func (m *member) backend() *admin.Admin {
	return &admin.Admin{Address: m.proxy.AdminAddr(), User: "ops", Password: "made-up-ops", Names: append(admin.DefaultNames(), "admin_variables"), Local: []string{"mysql-eventslog_*"},
		Dial: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = m.proxy.Host.DoErr(func() error {
				c, err = (&net.Dialer{}).DialContext(ctx, network, address)
				return err
			})
			return c, err
		}}
}

// cluster is nodes with ProxySQL in namespaces; their meshes talk over sockets in a
// directory.
func cluster(t *testing.T, count int) []*member {
	t.Helper()
	net1 := lab.New(t)
	dir := t.TempDir()
	file := sample(t)
	var all []*member
	for id := 1; id <= count; id++ {
		m := &member{t: t, id: id}
		m.proxy = proxysqlstub.New(t, net1.Host(fmt.Sprintf("n%d", id), fmt.Sprintf("192.0.2.%d/24", id)), proxysqlstub.Options{Database: file, AdminWait: -1})
		m.proxy.Start()
		m.db = m.proxy.Admin("ops", "made-up-ops")
		t.Cleanup(func() { _ = m.db.Close() })
		m.run(dir, count)
		all = append(all, m)
	}
	return all
}

// run runs the node until the test ends.
func (m *member) run(dir string, count int) {
	socket := func(id int) string { return filepath.Join(dir, fmt.Sprint(id)) }
	listen, err := net.Listen("unix", socket(m.id))
	if err != nil {
		m.t.Fatal(err)
	}
	c := mesh.Config{Self: uint8(m.id), Cluster: "test", Key: key(m.t, m.id), Listen: listen,
		Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", address)
		}}
	cfg := node.Config{Config: modules.Config{Self: uint8(m.id), Interval: 200 * time.Millisecond}, Backend: m.backend(),
		State: &node.StateFile{Path: filepath.Join(m.proxy.Dir, "state")}, Look: 50 * time.Millisecond}
	if cfg.Modules, err = admin.Modules(append(admin.DefaultNames(), "admin_variables"), modules.DefaultDiffs); err != nil {
		m.t.Fatal(err)
	}
	for id := 1; id <= count; id++ {
		if id != m.id {
			c.Peers = append(c.Peers, mesh.Peer{Node: uint8(id), Address: socket(id), Key: key(m.t, id).PublicKey()})
			cfg.Peers = append(cfg.Peers, uint8(id))
		}
	}
	lines, err := mesh.New(c)
	if err != nil {
		m.t.Fatal(err)
	}
	cfg.Mesh = lines
	if m.node, err = node.New(cfg); err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- lines.Run(ctx) }()
	go func() { ended <- m.node.Run(ctx) }()
	m.t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				m.t.Error(err)
			}
		}
	})
}

func (m *member) exec(statements ...string) {
	m.t.Helper()
	for _, s := range statements {
		if _, err := m.db.Exec(s); err != nil {
			m.t.Fatalf("node %d: %s: %v", m.id, s, err)
		}
	}
}

func (m *member) value(query string) string {
	m.t.Helper()
	var s sql.NullString
	if err := m.db.QueryRow(query).Scan(&s); err != nil {
		m.t.Fatalf("node %d: %s: %v", m.id, query, err)
	}
	return s.String
}

func (m *member) module(name string) modules.ModuleStatus {
	m.t.Helper()
	s, err := m.node.Status(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	for _, x := range s.Modules {
		if x.Name == name {
			return x
		}
	}
	return modules.ModuleStatus{}
}

// until polls a condition.
func until(t testing.TB, what string, all []*member, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(begin) > 40*time.Second {
			for _, m := range all {
				s, err := m.node.Status(t.Context())
				t.Logf("node %d: %+v, %v", m.id, s.Modules, err)
				for _, e := range s.Events {
					t.Log(e.Kind, e.Module, e.Text)
				}
			}
			t.Fatalf("not within 40 s: %s", what)
		}
		<-tick.C
	}
	return time.Since(begin)
}

// settled reports whether all hold the same of all modules.
func settled(all []*member) func() bool {
	return func() bool {
		for _, m := range all {
			s, err := m.node.Status(m.t.Context())
			if err != nil {
				m.t.Fatal(err)
			}
			for _, x := range s.Modules {
				if x.Standing != modules.InSync || x.Stamp != all[0].module(x.Name).Stamp {
					return false
				}
			}
		}
		return true
	}
}

func TestModulesOfProxySQL(t *testing.T) {
	all := cluster(t, 2)
	a, b := all[0], all[1]
	until(t, "looked at", all, func() bool { return a.module("mysql_users").Holds != modules.Sum{} })
	if err := a.node.Hold(t.Context(), carp.Epoch(1)); err != nil {
		t.Fatal(err)
	}
	// Both have the same databases: nobody loses anything, and no operator is needed.
	until(t, "all begin", all, settled(all))

	t.Run("a change is loaded and saved", func(t *testing.T) {
		a.exec(`INSERT INTO mysql_users (username, password, active, comment) VALUES ('new', 'it''s \ "made-up"', 1, 'a'), ('idle', NULL, 0, '')`, "LOAD MYSQL USERS TO RUNTIME")
		took := until(t, "it is there", all, func() bool {
			return b.value("SELECT count(*) FROM disk.mysql_users WHERE username IN ('new', 'idle')") == "2"
		})
		until(t, "and settled", all, settled(all))
		if got := b.value("SELECT password FROM disk.mysql_users WHERE username='new'"); got != `it's \ "made-up"` {
			t.Errorf("the password on disk is %q", got)
		}
		for _, q := range []string{"SELECT count(*) FROM runtime_mysql_users", "SELECT group_concat(hex(password)) FROM (SELECT password FROM main.mysql_users ORDER BY username)"} {
			if x, y := a.value(q), b.value(q); x != y {
				t.Errorf("%s: %q and %q", q, x, y)
			}
		}
		t.Logf("on disk of the other node after %v", took)
	})
	t.Run("what its own cluster leaves out", func(t *testing.T) {
		a.exec(`INSERT INTO scheduler (interval_ms, filename, active) VALUES (1000, '/bin/true', 0)`, "LOAD SCHEDULER TO RUNTIME",
			`INSERT INTO mysql_firewall_whitelist_users (active, username, client_address, mode, comment) VALUES (1, 'new', '', 'DETECTING', '')`, "LOAD MYSQL FIREWALL TO RUNTIME",
			`UPDATE mysql_query_rules SET active = 0 WHERE rule_id = (SELECT min(rule_id) FROM mysql_query_rules)`, "LOAD MYSQL QUERY RULES TO RUNTIME")
		until(t, "they are there", all, func() bool {
			return b.value("SELECT count(*) FROM disk.scheduler WHERE filename='/bin/true'") == "1" &&
				b.value("SELECT count(*) FROM disk.mysql_firewall_whitelist_users WHERE username='new'") == "1" &&
				b.value("SELECT count(*) FROM disk.mysql_query_rules WHERE active=0") == a.value("SELECT count(*) FROM mysql_query_rules WHERE active=0")
		})
		until(t, "and settled", all, settled(all))
	})
	t.Run("what is not loaded is left alone", func(t *testing.T) {
		a.exec("UPDATE mysql_users SET comment='half' WHERE username='new'", "UPDATE mysql_servers SET weight=7", "LOAD MYSQL SERVERS TO RUNTIME")
		until(t, "the servers", all, func() bool { return b.value("SELECT min(weight) FROM disk.mysql_servers") == "7" })
		if got := b.value("SELECT comment FROM mysql_users WHERE username='new'"); got != "a" {
			t.Errorf("an edit that nobody loaded was sent: %q", got)
		}
		a.exec("LOAD MYSQL USERS TO RUNTIME")
		until(t, "loaded", all, func() bool { return b.value("SELECT comment FROM disk.mysql_users WHERE username='new'") == "half" })
		until(t, "and settled", all, settled(all))
	})
	t.Run("variables of a node stay", func(t *testing.T) {
		a.exec("UPDATE global_variables SET variable_value='0.0.0.0:16033' WHERE variable_name='mysql-interfaces'",
			"UPDATE global_variables SET variable_value='mine' WHERE variable_name='mysql-eventslog_filename'",
			"UPDATE global_variables SET variable_value='777' WHERE variable_name='mysql-max_connections'", "LOAD MYSQL VARIABLES TO RUNTIME")
		until(t, "the other variable", all, func() bool {
			return b.value("SELECT variable_value FROM runtime_global_variables WHERE variable_name='mysql-max_connections'") == "777"
		})
		until(t, "and settled", all, settled(all))
		for _, v := range []string{"mysql-interfaces", "mysql-eventslog_filename"} {
			if got := b.value("SELECT variable_value FROM global_variables WHERE variable_name='" + v + "'"); got == "mine" || strings.HasSuffix(got, "16033") {
				t.Errorf("%s was sent: %q", v, got)
			}
		}
	})
	t.Run("emptied users are refused", func(t *testing.T) {
		a.exec("SAVE MYSQL USERS TO DISK", "DELETE FROM mysql_users", "LOAD MYSQL USERS TO RUNTIME")
		until(t, "refused", all, func() bool { return a.module("mysql_users").Standing == modules.Refusing })
		if b.value("SELECT count(*) FROM runtime_mysql_users") == "0" {
			t.Error("the other node has no users")
		}
		a.exec("LOAD MYSQL USERS FROM DISK", "LOAD MYSQL USERS TO RUNTIME")
		until(t, "and settled", all, settled(all))
	})
	t.Run("a SAVE that failed and said OK", func(t *testing.T) {
		b.proxy.Fault("disk", "database or disk is full")
		a.exec("UPDATE mysql_users SET comment='kept' WHERE username='new'", "LOAD MYSQL USERS TO RUNTIME")
		until(t, "it is noticed", all, func() bool { return strings.Contains(b.module("mysql_users").Reason, "SAVE answered OK") })
		b.proxy.Fault("disk", "")
		until(t, "it is saved", all, func() bool { return b.value("SELECT comment FROM disk.mysql_users WHERE username='new'") == "kept" })
		until(t, "and settled", all, settled(all))
	})
	t.Run("ProxySQL of the holder is restarted on an older disk", func(t *testing.T) {
		a.exec("UPDATE mysql_users SET comment='not saved' WHERE username='new'", "LOAD MYSQL USERS TO RUNTIME")
		until(t, "the change", all, func() bool {
			return b.value("SELECT comment FROM disk.mysql_users WHERE username='new'") == "not saved"
		})
		until(t, "and settled", all, settled(all))
		a.proxy.Kill()
		a.proxy.Start()
		until(t, "the change is put back", all, func() bool {
			return a.value("SELECT comment FROM disk.mysql_users WHERE username='new'") == "not saved"
		})
		if got := b.value("SELECT comment FROM disk.mysql_users WHERE username='new'"); got != "not saved" {
			t.Errorf("the other node lost it: %q", got)
		}
		until(t, "and settled", all, settled(all))
	})
	t.Run("a change at the other node is put back", func(t *testing.T) {
		b.exec("UPDATE mysql_users SET comment='mallory' WHERE username='new'", "LOAD MYSQL USERS TO RUNTIME")
		until(t, "it is put back", all, func() bool {
			return b.value("SELECT comment FROM mysql_users WHERE username='new'") == "not saved"
		})
		until(t, "and settled", all, settled(all))
	})
}

func TestAnotherReleaseIsRefusedAndNothingChanged(t *testing.T) {
	host := lab.New(t).Host("a", "192.0.2.1/24")
	m := &member{t: t, proxy: proxysqlstub.New(t, host, proxysqlstub.Options{Database: sample(t), AdminWait: -1})}
	m.proxy.Start()
	m.db = m.proxy.Admin("ops", "made-up-ops")
	defer func() { _ = m.db.Close() }()
	x := m.backend()
	defer func() { _ = x.Close() }()
	b, found, err := x.Read(t.Context(), "mysql_users")
	if err != nil || !found {
		t.Fatalf("nothing was loaded since the start: found %v, %v", found, err)
	}
	c, err := modules.DecodeContent(b)
	if err != nil {
		t.Fatal(err)
	}
	c[0].Columns[2] = "other"
	c[0].Rows = nil
	other, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Write(t.Context(), "mysql_users", other); err == nil || !strings.Contains(err.Error(), "same release") {
		t.Errorf("%v", err)
	}
	if n := m.value("SELECT count(*) FROM mysql_users"); n != "7" {
		t.Errorf("%s users are left", n)
	}
	// A row that memory refuses: what was there is put back.
	c, _ = modules.DecodeContent(b)
	c[0].Rows[0][2] = "5" // active: 0 or 1
	bad, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Write(t.Context(), "mysql_users", bad); err == nil || strings.Contains(err.Error(), "made-up-") {
		t.Errorf("%v", err)
	}
	if n := m.value("SELECT count(*) FROM mysql_users"); n != "7" {
		t.Errorf("%s users are left", n)
	}
	x.Password = "wrong"
	_ = x.Close()
	if _, err := x.Mark(t.Context()); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("%v", err)
	}
}
