package systems_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/mariadb"
)

// The addresses that move.
const (
	proxyAddress  = "192.0.2.50" // of the proxies, for clients
	writerAddress = "192.0.2.60" // of the databases: the primary
	readerAddress = "192.0.2.61" // likewise: the replica, as long as there is one
)

// proxied is two proxies on one address before a primary and its replica.
type proxied struct {
	t       *testing.T
	lan     *lab.LAN
	client  *lab.Host
	proxies [2]*machine
	dbs     [2]*machine
	servers [2]*mariadb.Server
}

// TestLabProxiedPair is the system of two web servers with a proxy each, and a database
// with its replica. A client writes and reads by the proxies' address all the time, while
// each part is taken away in turn.
func TestLabProxiedPair(t *testing.T) {
	s := newProxied(t)
	w := work(t, "writes", s.servers[0], s.client, netip.MustParseAddrPort(proxyAddress+":3306"), write)
	r := work(t, "reads", s.servers[0], s.client, netip.MustParseAddrPort(proxyAddress+":3307"), read)
	w.more(100)
	r.more(100)
	if got := r.last(); got != "2" {
		t.Errorf("reads are answered by server %s, not by the replica", got)
	}
	tell := func(what string, since time.Time) {
		w.more(50)
		r.more(50)
		t.Logf("%-44s writes stood for %6v, reads for %6v", what, w.outage(since).Round(time.Millisecond), r.outage(since).Round(time.Millisecond))
	}

	since := time.Now()
	s.servers[1].Kill()
	lab.Eventually(t, soon, "reads go to the primary", func() bool { return r.last() == "1" })
	tell("the replica's server is killed", since)
	s.servers[1].Restart()
	s.servers[1].Exec("START SLAVE")
	s.servers[1].CatchUp(s.servers[0])
	lab.Eventually(t, soon, "reads go to the replica again", func() bool { return r.last() == "2" })

	since = time.Now()
	s.proxies[0].crash()
	s.proxies[1].await("web", "MASTER")
	tell("the machine of the active proxy dies", since)

	since = time.Now()
	s.dbs[0].handover("db")
	s.dbs[1].await("db", "MASTER")
	tell("the primary is handed over", since)
	if lost := w.missing(s.servers[1]); len(lost) > 0 {
		t.Errorf("the handover lost %d acknowledged rows: %v", len(lost), lost)
	}
	s.replicates(0, 1)
	s.dbs[0].post("/v1/resume", "db")

	since = time.Now()
	s.servers[1].Kill()
	s.dbs[0].await("db", "MASTER")
	tell("the primary's server is killed", since)
	s.servers[1].Restart()
	lost := s.returns(1, w)

	since = time.Now()
	s.dbs[0].crash()
	s.dbs[1].await("db", "MASTER")
	tell("the machine of the primary dies", since)
	w.end()
	r.end()
	s.servers[0].Restart()
	s.dbs[0].Plug()
	s.dbs[0].restart()
	lost += s.returns(0, w)
	t.Logf("%d rows were acknowledged; %d of them never left a primary that died, and it says so", w.count(), lost)
}

// returns checks that a server that died as the primary becomes a replica, or is named with
// what was lost, and returns how many acknowledged rows that is.
func (s *proxied) returns(i int, w *worker) (lost int) {
	s.t.Helper()
	var text, fault string
	lab.Eventually(s.t, 2*soon, "the old primary rejoins, or says why not", func() bool {
		text, fault = s.dbs[i].hook("db", "db").Text, s.dbs[i].hook("db", "follow").Error
		return strings.HasPrefix(text, "replica of") || strings.Contains(fault, "transactions that")
	})
	s.t.Logf("the old primary, %s: %s %s", s.dbs[i].Name, text, fault)
	lost = len(w.missing(s.servers[1-i]))
	if lost > 0 && !strings.Contains(fault, "transactions that") {
		s.t.Errorf("%d rows were lost, and the old primary says %q", lost, text)
	}
	if s.servers[i].Value("SELECT @@GLOBAL.read_only") != "1" {
		s.t.Error("the old primary can be written to")
	}
	return lost
}

// replicates waits until a server is the replica of another one.
func (s *proxied) replicates(i, from int) {
	s.t.Helper()
	lab.Eventually(s.t, soon, s.dbs[i].Name+" replicates from "+s.dbs[from].Name, func() bool {
		r := s.servers[i].Replication()
		return r["Master_Host"] == s.servers[from].Address.Addr().String() && r["Slave_IO_Running"] == "Yes" && r["Slave_SQL_Running"] == "Yes"
	})
}

func newProxied(t *testing.T) *proxied {
	t.Helper()
	haproxy := program(t, "haproxy", "haproxy")
	kit, binary := mariadb.Prepare(t), carpd(t)
	s := &proxied{t: t, lan: lab.New(t)}
	s.client = s.lan.Host("client", "192.0.2.100/24")
	for i := range s.dbs {
		h := s.lan.Host(fmt.Sprintf("db%d", i+1), fmt.Sprintf("192.0.2.%d/24", i+1))
		s.dbs[i] = newMachine(t, h, binary)
		s.servers[i] = kit.Start(t, h, mariadb.Options{ID: i + 1, Settings: []string{"--read-only=1"}})
	}
	s.servers[0].Exec("CREATE TABLE test.t (id INT PRIMARY KEY) ENGINE=InnoDB", "INSERT INTO test.t VALUES (0)")
	s.servers[1].Replicate(s.servers[0])
	s.servers[1].CatchUp(s.servers[0])
	for i := range s.dbs {
		s.dbs[i].start(s.database(i))
		if i == 0 {
			s.dbs[0].await("db", "MASTER")
		}
	}
	s.dbs[1].await("db", "BACKUP")
	s.dbs[1].await("reader", "MASTER")
	for i := range s.proxies {
		m := newMachine(t, s.lan.Host(fmt.Sprintf("web%d", i+1), fmt.Sprintf("192.0.2.%d/24", 11+i)), binary)
		s.proxies[i] = m
		m.Host.Start(exec.Command(haproxy, "-db", "-f", m.file("haproxy.cfg", proxyConfig)))
		m.start(fmt.Sprintf("node_id: %d\ninstances:\n  - {name: web, vhid: 5, interface: eth0, passphrase: of the web, advskew: %d, addresses: [%s/24]}\n",
			11+i, 100*i, proxyAddress))
	}
	s.proxies[0].await("web", "MASTER")
	return s
}

// database is the configuration of a machine with a database: the address of the writer
// goes with the promoted server, that of the reader prefers the second machine, and leaves
// one whose server does not run.
func (s *proxied) database(i int) string {
	m := s.dbs[i]
	with := fmt.Sprintf("{socket: %s, address: '%v', user: %s, password_file: %s, peers: ['%v'], replication_user: %s, replication_password_file: %s, peer_timeout: 500ms}",
		s.servers[i].Socket, s.servers[i].Address, mariadb.Admin, m.file("admin", mariadb.AdminPassword+"\n"), s.servers[1-i].Address,
		mariadb.Replica, m.file("replica", mariadb.ReplicaPassword+"\n"))
	return fmt.Sprintf(`node_id: %d
instances:
  - name: db
    vhid: 6
    interface: eth0
    passphrase: of the databases
    replay: sealed
    preempt: true # of one that is unfit: they are equal otherwise
    addresses: [%s/24]
    hooks:
      - {kind: mysql, name: db, interval: 1s, timeout: 20s, with: %s}
      - {kind: mysql, name: follow, on: after-down, timeout: 60s, with: %s}
  - name: reader
    vhid: 7
    interface: eth0
    passphrase: of the readers
    advskew: %d
    preempt: true
    addresses: [%s/24]
    hooks:
      - {kind: mysql, name: serves, on: monitor, interval: 500ms, with: %s}
`, i+1, writerAddress, with, with, 100*(1-i), readerAddress, with)
}

// proxyConfig is that of both proxies. They run all the time: the address alone moves. The
// shared address of the databases is where the writer is, whoever that is.
const proxyConfig = `
global
    maxconn 200
defaults
    mode tcp
    timeout connect 500ms
    timeout client 60s
    timeout server 60s
    retries 2
listen writes
    bind ` + proxyAddress + `:3306 transparent
    option mysql-check user ` + mariadb.Check + ` post-41
    server writer ` + writerAddress + `:3306 check inter 250ms fall 2 rise 1 on-marked-down shutdown-sessions
listen reads
    bind ` + proxyAddress + `:3307 transparent
    option mysql-check user ` + mariadb.Check + ` post-41
    server reader ` + readerAddress + `:3306 check inter 250ms fall 2 rise 1 on-marked-down shutdown-sessions on-marked-up shutdown-backup-sessions
    server writer ` + writerAddress + `:3306 check inter 250ms fall 2 rise 1 backup
`
