package systems_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/mariadb"
	"github.com/carpd/carpd/test/peers/blockdev"
)

// replicated is a database on a block device that is replicated between two machines: of
// either only the one with the address has it in use.
type replicated struct {
	t       *testing.T
	client  *lab.Host
	nodes   [2]*machine
	disks   [2]*blockdev.Node
	servers [2]*mariadb.Server // never started by the test: for their sockets
}

// TestLabDatabaseOnAReplicatedDevice is the system of a database on HAST, with a stand-in
// for HAST: a client writes all the time, while the machine with the role dies, comes back
// and is handed the role again.
func TestLabDatabaseOnAReplicatedDevice(t *testing.T) {
	s := newReplicated(t)
	w := work(t, "writes", s.servers[0], s.client, netip.MustParseAddrPort("192.0.2.50:3306"), write)
	w.more(100)

	since := time.Now()
	s.fault(0, "dirty", "2097152")
	if answer := s.ask(0, "/v1/handover"); !strings.Contains(answer, "2097152 bytes are dirty") {
		t.Errorf("a handover while something is dirty: %s", answer)
	}
	w.more(50)
	if state := s.nodes[0].instance("db").State; state != "MASTER" {
		t.Errorf("the refused handover left it as %s", state)
	}
	t.Logf("%-52s writes stood for %6v", "a handover is refused, something being dirty", w.outage(since).Round(time.Millisecond))
	s.fault(0, "dirty", "")
	w.more(50)
	s.whole(1) // it may have looked while something was dirty, and would not take over now

	since = time.Now()
	s.nodes[0].crash()
	s.nodes[1].await("db", "MASTER")
	w.more(50)
	t.Logf("%-52s writes stood for %6v", "the machine with the database dies", w.outage(since).Round(time.Millisecond))
	s.lostNothing(1, w)

	s.boot(0)
	s.nodes[0].await("db", "BACKUP")
	s.whole(0)
	since = time.Now()
	s.nodes[1].handover("db")
	s.nodes[0].await("db", "MASTER")
	w.more(50)
	t.Logf("%-52s writes stood for %6v", "it has come back, and is handed the role by hand", w.outage(since).Round(time.Millisecond))
	w.end()
	s.lostNothing(0, w)
	s.whole(1)
	t.Logf("%d rows were acknowledged, and all are there", w.count())
}

func newReplicated(t *testing.T) *replicated {
	t.Helper()
	if err := blockdev.Possible(); err != nil {
		t.Skip(err)
	}
	admin := program(t, "mariadb-admin", "mariadb-client")
	kit, binary := mariadb.Prepare(t), carpd(t)
	lan := lab.New(t)
	s := &replicated{t: t, client: lan.Host("client", "192.0.2.100/24")}
	for i := range s.nodes {
		h := lan.Host(fmt.Sprintf("db%d", i+1), fmt.Sprintf("192.0.2.%d/24", i+1))
		s.nodes[i] = newMachine(t, h, "")
		m := s.nodes[i]
		// Mounts of the machine are its own, and gone with its last process.
		m.binary = m.script("carpd", fmt.Sprintf(`exec unshare --mount --propagation private %s "$@"`, binary))
		var err error
		s.disks[i], err = blockdev.Install(blockdev.Settings{Kind: "hast", Dir: filepath.Join(m.dir, "hast"), Name: "test", Size: 256 << 20,
			Listen: fmt.Sprintf("192.0.2.%d:8457", i+1), Remote: fmt.Sprintf("192.0.2.%d:8457", 2-i), Timeout: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
	}
	s.format(kit)
	for i := range s.nodes {
		if i == 0 { // of a new pair somebody has to say which copy is the right one
			s.nodes[0].file("state.json.trust", "")
		}
		m := s.nodes[i]
		s.boot(i, s.config(i, admin))
		m.await("db", []string{"MASTER", "BACKUP"}[i])
	}
	s.whole(1)
	return s
}

// format makes a database, and both disks with it.
func (s *replicated) format(kit *mariadb.Kit) {
	s.t.Helper()
	first := kit.Start(s.t, s.nodes[0].Host, mariadb.Options{ID: 1})
	first.Exec("CREATE TABLE test.t (id INT PRIMARY KEY) ENGINE=InnoDB", "INSERT INTO test.t VALUES (0)")
	first.Stop()
	if err := blockdev.Format(s.disks[0], s.disks[1], "mkfs.ext4", "-q", "-F", "-d", filepath.Join(first.Dir, "data")); err != nil {
		s.t.Fatal(err)
	}
	for i := range s.servers {
		one := *first
		one.Host, one.Socket = s.nodes[i].Host, filepath.Join(s.nodes[i].dir, "s")
		s.servers[i] = &one
	}
}

// config is the configuration of a machine.
func (s *replicated) config(i int, admin string) string {
	m, dir := s.nodes[i], s.nodes[i].dir
	mount := filepath.Join(dir, "mount")
	if err := os.Mkdir(mount, 0o700); err != nil {
		s.t.Fatal(err)
	}
	start := m.script("start", fmt.Sprintf(`rm -f %[1]s/began
setsid sh -c 'echo yes >%[1]s/began; exec mariadbd --no-defaults --user=root --datadir=%[2]s --socket=%[1]s/s --pid-file=%[1]s/pid --bind-address=0.0.0.0 --skip-name-resolve --innodb-buffer-pool-size=16M --innodb-log-file-size=4M --key-buffer-size=1M --performance-schema=0 --max-connections=100' </dev/null >%[1]s/mariadbd.log 2>&1 &
while ! [ -s %[1]s/began ]; do sleep 0.01; done`, dir, mount))
	stop := m.script("stop", fmt.Sprintf("exec %s --no-defaults -u root -S %s/s shutdown", admin, dir))
	probe := m.script("probe", fmt.Sprintf("exec %s --no-defaults -u root -S %s/s ping", admin, dir))
	other := s.disks[1-i].Program("hastctl")
	peer := m.script("peer", fmt.Sprintf("%[1]s list test && %[1]s dump test", other))
	return fmt.Sprintf(`node_id: %d
instances:
  - name: db
    vhid: 1
    interface: eth0
    passphrase: testpass
    advskew: %d
    addresses: [192.0.2.50/24]
    hooks:
      - kind: hast
        name: disk
        timeout: 60s
        release_timeout: 60s
        interval: 500ms
        look_timeout: 5s
        with:
          resource: test
          hastctl: %s
          device: %s
          state: %s
          peer: [%s]
          volume: {mount: %s, options: [noatime]}
          services:
            - {name: mariadb, start: [%s], stop: [%s], probe: [%s], pidfile: %s}
`, i+1, 100*i, s.disks[i].Program("hastctl"), s.disks[i].Device(), filepath.Join(m.dir, "state.json"), peer, mount, start, stop, probe, filepath.Join(m.dir, "pid"))
}

// boot starts hastd and carpd of a machine, with a configuration or with that it had.
func (s *replicated) boot(i int, config ...string) {
	s.t.Helper()
	m := s.nodes[i]
	m.Plug()
	daemon, err := s.disks[i].Daemon()
	if err != nil {
		s.t.Fatal(err)
	}
	m.Start(daemon)
	lab.Eventually(s.t, soon, "hastd on "+m.Name+" answers", s.disks[i].Up)
	if len(config) > 0 {
		m.start(config[0])
		return
	}
	m.restart()
}

// script writes a program of a machine, and returns its path.
func (m *machine) script(name, body string) string {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		m.t.Fatal(err)
	}
	return path
}

func (s *replicated) fault(i int, name, value string) {
	s.t.Helper()
	if err := s.disks[i].Fault(name, value); err != nil {
		s.t.Fatal(err)
	}
}

// ask posts to a machine's control socket, and returns what it says if that is a refusal.
func (s *replicated) ask(i int, path string) string {
	s.t.Helper()
	answer, err := s.nodes[i].client.Post("http://carpd"+path, "application/json", strings.NewReader(`{"name":"db"}`))
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusOK {
		return "done"
	}
	var text [4096]byte
	n, _ := answer.Body.Read(text[:])
	return string(text[:n])
}

// whole waits until the copy of a backup is known to be whole.
func (s *replicated) whole(i int) {
	s.t.Helper()
	lab.Eventually(s.t, soon, "the copy of "+s.nodes[i].Name+" is whole", func() bool {
		h := s.nodes[i].hook("db", "disk")
		return h.Role == "demoted" && h.Health == "ok"
	})
}

// lostNothing checks that a machine has all rows that were acknowledged.
func (s *replicated) lostNothing(i int, w *worker) {
	s.t.Helper()
	if lost := w.missing(s.servers[i]); len(lost) > 0 {
		s.t.Errorf("%d acknowledged rows are missing on %s: %v", len(lost), s.nodes[i].Name, lost)
	}
}
