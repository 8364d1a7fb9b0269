package systems_test

import (
	"compress/gzip"
	"context"
	"database/sql"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/proxysql"
	"github.com/carpd/carpd/replicator/sqlite"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
	"github.com/carpd/carpd/test/peers/proxysqlstub"
)

var failovers = flag.Int("proxysql.failovers", 4, "how often the master of the ProxySQL pair dies")

// written is how old a commit is that no failover may lose.
const written = 2 * time.Second

// proxies are two ProxySQLs, active and passive, on one address, each with the stand-in's
// admin port: what is written at the active one is shipped to the other.
type proxies struct {
	t      *testing.T
	client *lab.Host
	nodes  [2]*machine
	proxy  [2]*proxysqlstub.Node
	sshd   [2]*peers.SSHD
	stores [2]*dir.Store
}

// TestLabProxySQLPair is the system of two ProxySQLs, with a stand-in for ProxySQL: a client
// changes the configuration all the time, and the machine with the role dies at random.
func TestLabProxySQLPair(t *testing.T) {
	s := newProxies(t)
	active := 0
	w := s.change(active)
	var restored replicator.Version
	for n := range *failovers {
		w.commits(3)
		_ = lab.Pass(t.Context(), rand.N(3*time.Second))
		passive := 1 - active
		began := time.Now()
		planned := n%4 == 3
		if planned {
			w.end() // whoever changes something while the role moves, is not answered
			began = time.Now()
			s.nodes[active].handover("proxy")
		} else {
			s.crash(active)
			w.end()
		}
		s.nodes[passive].await("proxy", "MASTER")
		took := time.Since(began)
		s.holds(passive, w, began, planned)
		newest := s.newest(passive)
		if newest.Compare(restored) < 0 {
			t.Errorf("failover %d restored %v, after %v", n+1, newest, restored)
		}
		restored = newest
		t.Logf("%3d: %-22s; of %4d acknowledged changes %2d are missing, the oldest from %4v before; %s served after %v", n+1,
			map[bool]string{false: "the machine died", true: "the role was handed on"}[planned], w.count(),
			w.lost, w.oldest(began).Round(time.Millisecond), s.nodes[passive].Name, took.Round(time.Millisecond))
		if planned {
			s.nodes[active].post("/v1/resume", "proxy")
		} else {
			s.boot(active)
		}
		s.nodes[active].await("proxy", "BACKUP")
		next := s.change(passive)
		next.known = w.kept()
		w, active = next, passive
		s.caughtUp(1 - active)
	}
	w.end()
}

func newProxies(t *testing.T) *proxies {
	t.Helper()
	program(t, "/usr/sbin/sshd", "openssh-server")
	binary := carpd(t)
	lan := lab.New(t)
	s := &proxies{t: t, client: lan.Host("client", "192.0.2.100/24")}
	for i := range s.nodes {
		h := lan.Host(fmt.Sprintf("proxy%d", i+1), fmt.Sprintf("192.0.2.%d/24", i+1))
		s.nodes[i] = newMachine(t, h, binary)
		s.proxy[i] = proxysqlstub.New(t, h, proxysqlstub.Options{Database: configured(t)})
		s.sshd[i] = peers.StartSSHD(t, h, netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), peers.SSHDOptions{Command: func(at *peers.SSHD) string {
			forAll(t, binary, at.Local)
			return fmt.Sprintf("%s/carpd receive --dir %s/store", at.Public, at.Home)
		}})
		store := s.store(i)
		if err := os.Mkdir(store, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(store, s.sshd[i].UID, s.sshd[i].UID); err != nil {
			t.Fatal(err)
		}
		var err error
		if s.stores[i], err = dir.Open(t.Context(), store); err != nil {
			t.Fatal(err)
		}
	}
	for i, state := range []string{"MASTER", "BACKUP"} {
		s.nodes[i].start(s.config(i))
		s.nodes[i].await("proxy", state)
	}
	s.caughtUp(1)
	return s
}

// configured unpacks the database of a ProxySQL that is in use.
func configured(t *testing.T) string {
	t.Helper()
	f, err := os.Open("../../replicator/sqlite/testdata/proxysql/proxysql.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "proxysql.db")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// store is where the snapshots of a machine are.
func (s *proxies) store(i int) string { return filepath.Join(s.sshd[i].Local, "home", "store") }

// forAll copies a program to where every user may run it.
func forAll(t *testing.T, program, into string) {
	t.Helper()
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(into, filepath.Base(program))
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
}

func (s *proxies) config(i int) string {
	m, proxy, other := s.nodes[i], s.proxy[i], s.sshd[1-i]
	verb := func(v string) string { return "[" + strings.Join(proxy.Control(v), ", ") + "]" }
	password := m.file("admin.pass", "made-up-ops\n")
	return fmt.Sprintf(`node_id: %d
instances:
  - name: proxy
    vhid: 9
    interface: eth0
    passphrase: testpass
    addresses: [192.0.2.50/24]
    hooks:
      - kind: proxysql
        name: config
        timeout: 60s
        with:
          mode: cold
          database: %[2]s
          store: %[3]s
          start: %[4]s
          stop: %[5]s
          status: %[6]s
          admin: %[7]s
          user: ops
          password_file: %[8]s
          client: %[14]s
replication:
  - name: proxysql
    instance: proxy
    source: {kind: proxysql, database: %[2]s, admin: {address: %[7]s, user: ops, password_file: %[8]s}}
    store: %[3]s
    peers:
      - {name: proxy%[9]d, address: %[10]s, user: %[11]s, key_file: %[12]s, known_hosts: %[13]s, method: receive}
`, i+1, proxy.Database(), s.store(i), verb("start"), verb("stop"), verb("status"), proxy.AdminAddr(), password,
		2-i, other.Address, other.User, other.KeyFile, other.KnownHosts, proxy.ClientAddr())
}

// crash is the end of a machine: its cable is out, and nothing of it lives but sshd, which
// nobody reaches.
func (s *proxies) crash(i int) {
	s.t.Helper()
	s.nodes[i].Unplug()
	s.proxy[i].Kill()
	s.nodes[i].proc.Kill()
}

func (s *proxies) boot(i int) {
	s.t.Helper()
	s.nodes[i].Plug()
	s.nodes[i].restart()
}

// newest is the version of the newest snapshot that a machine has.
func (s *proxies) newest(i int) replicator.Version {
	s.t.Helper()
	all, err := s.stores[i].List(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if len(all) == 0 {
		return replicator.Version{}
	}
	return all[0].Version
}

// caughtUp waits until a passive machine has verified what the active one has.
func (s *proxies) caughtUp(i int) {
	s.t.Helper()
	lab.Eventually(s.t, soon, s.nodes[i].Name+" has verified the newest snapshot", func() bool {
		v := s.newest(1 - i)
		st, err := s.nodes[i].status()
		if v.IsZero() || err != nil || len(st.Replication) == 0 || st.Replication[0].Newest == nil {
			return false
		}
		verified, err := replicator.ParseVersion(st.Replication[0].Newest.Version)
		return err == nil && verified.Compare(v) >= 0
	})
}

// holds checks what a machine serves after another one died, or gave the role away, at an
// instant.
func (s *proxies) holds(i int, w *changes, went time.Time, planned bool) {
	s.t.Helper()
	before := went.Add(-written)
	if planned {
		before = went
	}
	s.sound(i)
	db := s.proxy[i].Admin("ops", "made-up-ops")
	defer func() { _ = db.Close() }()
	for _, table := range []string{"main.mysql_servers", "disk.mysql_servers", "main.mysql_query_rules", "disk.mysql_query_rules"} {
		var n int
		if err := db.QueryRow("SELECT COUNT(*) FROM " + table).Scan(&n); err != nil || n == 0 {
			s.t.Errorf("%s: %s has %d rows: %v", s.nodes[i].Name, table, n, err)
		}
	}
	for _, table := range []string{"disk.mysql_users", "runtime_mysql_users"} {
		there, err := users(db, table)
		if err != nil {
			s.t.Fatal(err)
		}
		if lost := w.missing(there, before); len(lost) > 0 {
			s.t.Errorf("%s: %s lacks %d changes that were saved before %v, when the other machine went at %v: %v", s.nodes[i].Name, table, len(lost), before, went, lost)
		}
	}
}

// sound checks the database of a machine.
func (s *proxies) sound(i int) {
	s.t.Helper()
	copied := filepath.Join(s.t.TempDir(), "copy.db")
	report, err := sqlite.Take(s.t.Context(), s.proxy[i].Database(), copied, sqlite.Options{
		Rules: func(replicator.Content) replicator.Rules { return proxysql.Rules() },
	})
	if err != nil || !report.Verdict.Sound() {
		s.t.Errorf("the database of %s: %v %v", s.nodes[i].Name, report.Verdict, err)
	}
}

// users lists the made-up users of a table.
func users(db *sql.DB, table string) (names []string, err error) {
	rows, err := db.Query("SELECT DISTINCT username FROM " + table + " WHERE username LIKE 'change-%'")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// changes is a client that changes the configuration of an active machine, one user at a
// time, and knows which changes were saved.
type changes struct {
	t     *testing.T
	stop  context.CancelFunc
	ended sync.WaitGroup

	mu        sync.Mutex
	known     []string // of those before, and found there
	done      []string
	when      []time.Time
	lastThere time.Time // when the latest change was saved that was found
	lost      int       // of those that were done, by the last look
	lostSince time.Time // when the oldest of them was saved
}

// change starts the client.
func (s *proxies) change(i int) *changes {
	s.t.Helper()
	ctx, stop := context.WithCancel(s.t.Context())
	w := &changes{t: s.t, stop: stop}
	db := s.proxy[i].Admin("ops", "made-up-ops")
	prefix := fmt.Sprintf("change-%d-%d", i+1, time.Now().UnixNano())
	w.ended.Go(func() {
		defer func() { _ = db.Close() }()
		for n := 1; lab.Pass(ctx, 50*time.Millisecond) == nil; n++ {
			name := fmt.Sprintf("%s-%d", prefix, n)
			if save(ctx, db, name) != nil {
				continue
			}
			w.mu.Lock()
			w.done, w.when = append(w.done, name), append(w.when, time.Now())
			w.mu.Unlock()
		}
	})
	s.t.Cleanup(w.end)
	return w
}

// save makes one change, in all three layers.
func save(ctx context.Context, db *sql.DB, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, text := range []string{
		"INSERT INTO mysql_users (username, password) VALUES ('" + name + "', 'made-up')",
		"LOAD MYSQL USERS TO RUNTIME",
		"SAVE MYSQL USERS TO DISK",
	} {
		if _, err := db.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

func (w *changes) end() {
	w.stop()
	w.ended.Wait()
}

func (w *changes) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.done)
}

// commits waits until so many more changes are saved.
func (w *changes) commits(n int) {
	w.t.Helper()
	from := w.count()
	lab.Eventually(w.t, soon, "changes are saved", func() bool { return w.count() >= from+n })
}

// missing returns which changes are not there that were saved before an instant.
func (w *changes) missing(there []string, before time.Time) (lost []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range w.known {
		if !slices.Contains(there, name) {
			lost = append(lost, name)
		}
	}
	w.lost, w.lostSince = 0, time.Time{}
	for n, name := range w.done {
		if slices.Contains(there, name) {
			w.lastThere = w.when[n]
			continue
		}
		if w.lost++; w.lost == 1 {
			w.lostSince = w.when[n]
		}
		if w.when[n].Before(before) {
			lost = append(lost, name)
		}
	}
	return lost
}

// oldest is how old the oldest missing change was at an instant; 0 if none is missing.
func (w *changes) oldest(at time.Time) time.Duration {
	if w.lost == 0 {
		return 0
	}
	return at.Sub(w.lostSince)
}

// kept are the changes that were found, of those before as well.
func (w *changes) kept() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := slices.Clone(w.known)
	for n, name := range w.done {
		if !w.when[n].After(w.lastThere) {
			kept = append(kept, name)
		}
	}
	return kept
}
