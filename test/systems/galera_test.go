package systems_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/test/galera"
	"github.com/carpd/carpd/test/lab"
)

// entry is two machines with HAProxy on one address, before three nodes of Galera.
type entry struct {
	t       *testing.T
	client  *lab.Host
	proxies [2]*machine
	cluster *galera.Cluster
}

// TestLabProxiesBeforeGalera is the system of one entry address before a Galera cluster. A
// client writes through it all the time, while the active HAProxy, then its whole machine,
// then the node of Galera that it writes to are killed. No row that was acknowledged may be
// missing on any node in the end.
func TestLabProxiesBeforeGalera(t *testing.T) {
	s := newEntry(t)
	db := s.cluster.Client(s.client, netip.MustParseAddrPort(proxyAddress+":3306"))
	w := workOn(t, "writes", db, insertAndName)
	w.more(100)
	tell := func(what string, since time.Time) {
		w.more(50)
		t.Logf("%-52s writes stood for %6v", what, w.outage(since).Round(time.Millisecond))
	}

	since := time.Now()
	s.killHAProxy(0)
	s.proxies[1].await("db", "MASTER")
	tell("the active HAProxy is killed, its machine lives", since)
	lab.Eventually(t, soon, "HAProxy to run again on the backup", func() bool {
		h := s.proxies[0].hook("db", "proxy")
		return h.Health == "ok" && h.Role == "demoted"
	})

	since = time.Now()
	s.proxies[1].crash()
	s.proxies[0].await("db", "MASTER")
	tell("the machine of the active HAProxy dies", since)

	since = time.Now()
	victim := s.cluster.Node(w.last())
	victim.Kill()
	tell("the node of Galera that is written to is killed", since)
	if now := w.last(); now == victim.Host.Name {
		t.Errorf("writes are still acknowledged by %s, which is dead", now)
	}
	w.end()
	s.cluster.AwaitSize(2)
	s.complete(w, "after all faults")

	victim.Rejoin()
	s.cluster.AwaitSize(3)
	s.complete(w, "after the dead node has joined again")
	t.Logf("%d rows were acknowledged, by %s; none is missing on any node unless an error above says so", w.count(), strings.Join(w.who(), ", "))
}

// insertAndName writes a row in a transaction of its own and tells which node of Galera
// acknowledged it. It is acknowledged when the answer has been read to its end.
func insertAndName(ctx context.Context, db *sql.DB, n int) (node string, err error) {
	rows, err := db.QueryContext(ctx, "INSERT INTO t VALUES (?) RETURNING @@wsrep_node_name", n)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&node); err != nil {
			return "", err
		}
	}
	return node, rows.Err()
}

// complete checks that each running node has each row that was acknowledged. A row that is
// missing was lost by Galera: HAProxy carries bytes, so the acknowledgement that the client
// read was written by the node that is named.
func (s *entry) complete(w *worker, when string) {
	s.t.Helper()
	for _, n := range s.cluster.Nodes {
		if !n.Running() {
			continue
		}
		db := n.Root()
		lost := w.missingFrom(db)
		db.Close()
		for _, id := range lost[:min(len(lost), 10)] {
			node, at := w.acknowledged(id)
			s.t.Errorf("%s, %s: row %d is missing; Galera's node %s acknowledged it at %s and lost it", when, n.Host.Name, id, node, at.Format(time.TimeOnly))
		}
		if len(lost) > 0 {
			s.t.Errorf("%s, %s: %d acknowledged rows are missing", when, n.Host.Name, len(lost))
		}
	}
}

// killHAProxy kills HAProxy on a machine, and nothing else.
func (s *entry) killHAProxy(i int) {
	s.t.Helper()
	m := s.proxies[i]
	out := m.Run("sh", "-c", `ns=$(readlink /proc/self/ns/net)
for p in /proc/[0-9]*; do
	[ "$(cat $p/comm 2>/dev/null)" = haproxy ] && [ "$(readlink $p/ns/net)" = "$ns" ] && echo ${p#/proc/}
done; true`)
	pids := strings.Fields(out)
	if len(pids) == 0 {
		s.t.Fatalf("no HAProxy runs on %s", m.Name)
	}
	for _, word := range pids {
		var pid int
		if _, err := fmt.Sscan(word, &pid); err != nil {
			s.t.Fatal(err)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func newEntry(t *testing.T) *entry {
	t.Helper()
	haproxy := program(t, "haproxy", "haproxy")
	binary := carpd(t)
	lan := lab.New(t)
	s := &entry{t: t, client: lan.Host("client", "192.0.2.100/24")}
	s.cluster = galera.Start(t, lan.Host("g1", "192.0.2.11/24"), lan.Host("g2", "192.0.2.12/24"), lan.Host("g3", "192.0.2.13/24"))
	if err := s.cluster.Nodes[0].Exec("CREATE TABLE test.t (id INT PRIMARY KEY) ENGINE=InnoDB"); err != nil {
		t.Fatal(err)
	}
	for i := range s.proxies {
		m := newMachine(t, lan.Host(fmt.Sprintf("p%d", i+1), fmt.Sprintf("192.0.2.%d/24", i+1)), binary)
		s.proxies[i] = m
		t.Cleanup(m.KillAll) // HAProxy is a daemon
		m.file("haproxy.cfg", entryConfig(m.dir))
		with := fmt.Sprintf("socket: %s/admin, master: %s/master, pid_file: %s/haproxy.pid, program: %s, config: %s/haproxy.cfg", m.dir, m.dir, m.dir, haproxy, m.dir)
		m.start(fmt.Sprintf(`node_id: %d
instances:
  - name: db
    vhid: 5
    interface: eth0
    passphrase: of the entry
    replay: sealed
    addresses: [%s/24]
    hooks:
      - {kind: haproxy, name: proxy, interval: 250ms, timeout: 15s, with: {%s, backends: [galera]}}
      - {kind: haproxy, name: runs, on: after-down, with: {action: start, %s}}
`, i+1, proxyAddress, with, with))
		if i == 0 {
			m.await("db", "MASTER")
		}
	}
	s.proxies[1].await("db", "BACKUP")
	lab.Eventually(t, soon, "the second HAProxy to be ready", func() bool { return s.proxies[1].hook("db", "proxy").Health == "ok" })
	return s
}

// entryConfig is what published set-ups have: roundrobin, and a check that is a login.
func entryConfig(dir string) string {
	return `
global
    maxconn 200
    stats socket ` + dir + `/admin mode 600 level admin expose-fd listeners
defaults
    mode tcp
    option tcpka
    timeout connect 500ms
    timeout client 60s
    timeout server 60s
    retries 2
    option redispatch
listen galera
    bind *:3306
    balance roundrobin
    option mysql-check user ` + galera.Check + ` post-41
    default-server check inter 250ms fall 2 rise 1 on-marked-down shutdown-sessions
    server g1 192.0.2.11:3306
    server g2 192.0.2.12:3306
    server g3 192.0.2.13:3306
`
}

// who lists the nodes that acknowledged.
func (w *worker) who() (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	names = slices.Clone(w.seen)
	slices.Sort(names)
	return slices.Compact(names)
}

// acknowledged returns who acknowledged a number, and when.
func (w *worker) acknowledged(n int) (who string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.done, n); i >= 0 {
		return w.seen[i], w.when[i]
	}
	return "nobody", time.Time{}
}
