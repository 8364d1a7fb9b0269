// Package mariadb runs real MariaDB servers on the hosts of a lab, each with its own
// data directory, made by the test and gone with it.
//
//	kit := mariadb.Prepare(t)
//	one := kit.Start(t, lan.Host("a", "192.0.2.1/24"), mariadb.Options{ID: 1})
//	one.Exec("CREATE TABLE test.t (id INT PRIMARY KEY)")
//
// It needs the package mariadb-server; where it is missing the test skips, or fails
// with CARPD_LAB=required.
package mariadb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/carpd/carpd/test/lab"
)

// Port is where each server listens.
const Port = 3306

// Accounts that each server has, beside root without a password at the socket. All may
// log in from everywhere.
const (
	Admin         = "carpd" // may do what the kind mysql documents, and no more
	AdminPassword = "admin-secret"

	Replica         = "replica" // may replicate
	ReplicaPassword = "replica-secret"

	App         = "app" // may read and write in the schema test
	AppPassword = "app-secret"

	Check = "haproxy" // may log in, without a password
)

// StartTime is how long a server may take until it answers.
const StartTime = 60 * time.Second

// Kit is a data directory that servers are started with a copy of.
type Kit struct{ dir string }

// Options is how a server is run. Zero values are its defaults.
type Options struct {
	ID       int      // server_id; required, and unique among servers that replicate
	Settings []string // as on its command line: "--read-only=1"; they come last
	Extra    string   // SQL that is run at each start, without a trace in the binary log
}

// Server is one that was started. Its methods are safe for concurrent use but Stop, Kill
// and Restart.
type Server struct {
	Host    *lab.Host
	Address netip.AddrPort // at which others reach it
	Dir     string         // its data directory and socket are in it
	Socket  string

	t    lab.TB
	o    Options
	proc *lab.Proc
}

// Prepare makes the data directory. It takes some seconds; the Kit is good for as many
// servers as wanted, until the end of t.
func Prepare(t lab.TB) *Kit {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "a server is started as root of this or a new user namespace")
	}
	for _, program := range []string{"mariadbd", "mariadb-install-db"} {
		if _, err := exec.LookPath(program); err != nil {
			missing(t, program+" is not installed: scripts/bootstrap test, or apt-get install mariadb-server")
		}
	}
	k := &Kit{dir: directory(t)}
	out, err := exec.Command("mariadb-install-db", append(base(k.dir), "--auth-root-authentication-method=normal", "--skip-test-db",
		"--innodb-log-file-size=4M")...).CombinedOutput()
	if err != nil {
		t.Fatalf("mariadb: make a data directory: %v\n%s", err, out)
	}
	return k
}

// directory is a new one with a short name: that of a socket may have 107 bytes.
func directory(t lab.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mdb")
	if err != nil {
		t.Fatalf("mariadb: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("mariadb: %v", err)
		}
	})
	return dir
}

func missing(t lab.TB, hint string) {
	t.Helper()
	if os.Getenv("CARPD_LAB") == "required" {
		t.Fatal(hint)
	}
	t.Skip(hint)
}

// base are the arguments of all. A server that starts removes what lies in its directory
// for temporary tables: each has its own.
func base(dir string) []string {
	return []string{"--no-defaults", "--user=root", "--datadir=" + filepath.Join(dir, "data"), "--tmpdir=" + dir}
}

// Start starts a server on the first IPv4 address of a host, and returns when it answers.
// It ends with t.
func (k *Kit) Start(t lab.TB, h *lab.Host, o Options) *Server {
	t.Helper()
	s := k.New(t, h, o)
	s.Restart()
	return s
}

// New makes a server without starting it.
func (k *Kit) New(t lab.TB, h *lab.Host, o Options) *Server {
	t.Helper()
	dir := directory(t)
	if out, err := exec.Command("cp", "-a", filepath.Join(k.dir, "data"), dir).CombinedOutput(); err != nil {
		t.Fatalf("mariadb: copy the data directory: %v\n%s", err, out)
	}
	s := &Server{Host: h, Dir: dir, Socket: filepath.Join(dir, "s"), t: t, o: o}
	for _, p := range h.Addrs("eth0") {
		if p.Addr().Is4() && !s.Address.IsValid() {
			s.Address = netip.AddrPortFrom(p.Addr(), Port)
		}
	}
	accounts := "SET sql_log_bin = 0;\nCREATE DATABASE IF NOT EXISTS test;\n"
	for _, a := range [][3]string{
		{Admin, AdminPassword, "REPLICATION SLAVE ADMIN, REPLICATION MASTER ADMIN, REPLICA MONITOR, READ_ONLY ADMIN, CONNECTION ADMIN, BINLOG ADMIN, " +
			"RELOAD, PROCESS, SUPER, EVENT, SET USER ON *.*"},
		{Replica, ReplicaPassword, "REPLICATION SLAVE ON *.*"},
		{App, AppPassword, "ALL ON test.*"},
		{Check, "", "USAGE ON *.*"},
	} {
		identified := ""
		if a[1] != "" {
			identified = " IDENTIFIED BY '" + a[1] + "'"
		}
		accounts += fmt.Sprintf("CREATE USER IF NOT EXISTS '%s'@'%%'%s;\nGRANT %s TO '%s'@'%%';\n", a[0], identified, a[2], a[0])
	}
	if err := os.WriteFile(filepath.Join(dir, "init.sql"), []byte(accounts+o.Extra+"\n"), 0o600); err != nil {
		t.Fatalf("mariadb: %v", err)
	}
	return s
}

// Restart starts the server, which must not run, with the data that it has.
func (s *Server) Restart() {
	s.t.Helper()
	id := strconv.Itoa(s.o.ID)
	args := append(base(s.Dir), "--socket="+s.Socket, "--pid-file="+filepath.Join(s.Dir, "pid"), "--init-file="+filepath.Join(s.Dir, "init.sql"),
		"--bind-address=*", "--port="+strconv.Itoa(Port), "--skip-name-resolve", "--server-id="+id,
		"--log-bin="+filepath.Join(s.Dir, "data", "bin"), "--log-slave-updates=1", "--gtid-strict-mode=1", "--binlog-format=ROW",
		"--relay-log="+filepath.Join(s.Dir, "data", "relay"),
		"--innodb-buffer-pool-size=16M", "--innodb-log-file-size=4M", "--innodb-flush-log-at-trx-commit=2", "--key-buffer-size=1M",
		"--performance-schema=0", "--max-connections=100", "--slave-net-timeout=10")
	s.proc = s.Host.Start(exec.Command("mariadbd", append(args, s.o.Settings...)...))
	s.t.Cleanup(s.proc.Kill) // before its directory goes
	ctx, cancel := context.WithTimeout(context.Background(), StartTime)
	defer cancel()
	err := lab.Await(ctx, StartTime, func() bool {
		select {
		case <-s.proc.Done():
			cancel()
			return false
		default:
		}
		db := s.root()
		defer func() { _ = db.Close() }()
		return db.PingContext(ctx) == nil
	})
	if err != nil {
		s.t.Fatalf("mariadb: %s does not answer: %v\n%s", s.Host.Name, err, s.proc.Output())
	}
}

// Stop ends the server in order.
func (s *Server) Stop() {
	s.t.Helper()
	s.proc.Signal(syscall.SIGTERM)
	if err := s.proc.Wait(StartTime); errors.Is(err, lab.ErrRunning) {
		s.t.Fatalf("mariadb: %s does not end: %v", s.Host.Name, err)
	}
}

// Kill ends the server by SIGKILL.
func (s *Server) Kill() { s.proc.Kill() }

// Signal sends the server a signal, such as SIGSTOP.
func (s *Server) Signal(sig syscall.Signal) { s.proc.Signal(sig) }

// Output returns what the server has written.
func (s *Server) Output() string { return s.proc.Output() }

// root is a connection to the socket.
func (s *Server) root() *sql.DB {
	return s.open(func(c *driver.Config) { c.User, c.Net, c.Addr = "root", "unix", s.Socket })
}

func (s *Server) open(set func(c *driver.Config)) *sql.DB {
	c := driver.NewConfig()
	c.Logger = silent{}
	c.Timeout = 5 * time.Second
	set(c)
	connector, err := driver.NewConnector(c)
	if err != nil {
		s.t.Fatalf("mariadb: %v", err)
	}
	db := sql.OpenDB(connector)
	return db
}

// silent keeps the driver from writing to standard error.
type silent struct{}

func (silent) Print(...any) {}

// Root opens connections to the socket as root, who may do all. The caller closes them.
func (s *Server) Root() *sql.DB { return s.root() }

// Client opens connections from a host to an address, as the account App, with the schema
// test. The caller closes them.
func (s *Server) Client(from *lab.Host, to netip.AddrPort) *sql.DB {
	return s.open(func(c *driver.Config) {
		c.User, c.Passwd, c.DBName, c.Net, c.Addr = App, AppPassword, "test", "tcp", to.String()
		c.DialFunc = Dialer(from)
	})
}

// Dialer opens connections from within a host.
func Dialer(h *lab.Host) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = h.DoErr(func() error {
			var d net.Dialer
			conn, err = d.DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}

// Exec runs statements as root.
func (s *Server) Exec(statements ...string) {
	s.t.Helper()
	db := s.root()
	defer func() { _ = db.Close() }()
	for _, text := range statements {
		if _, err := db.Exec(text); err != nil {
			s.t.Fatalf("mariadb: %s: %s: %v", s.Host.Name, text, err)
		}
	}
}

// Value returns the one value that a query has, as root; "" for NULL or no row.
func (s *Server) Value(query string) string {
	s.t.Helper()
	db := s.root()
	defer func() { _ = db.Close() }()
	var v sql.NullString
	if err := db.QueryRow(query).Scan(&v); err != nil && !errors.Is(err, sql.ErrNoRows) {
		s.t.Fatalf("mariadb: %s: %s: %v", s.Host.Name, query, err)
	}
	return v.String
}

// Replicate makes the server a replica of another one, by GTID, and starts it.
func (s *Server) Replicate(from *Server) {
	s.t.Helper()
	s.Exec(fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='%s', MASTER_PORT=%d, MASTER_USER='%s', MASTER_PASSWORD='%s', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1",
		from.Address.Addr(), Port, Replica, ReplicaPassword), "START SLAVE")
}

// Replication returns the columns of SHOW SLAVE STATUS, by their names; nil without a
// source.
func (s *Server) Replication() map[string]string {
	s.t.Helper()
	db := s.root()
	defer func() { _ = db.Close() }()
	rows, err := db.Query("SHOW SLAVE STATUS")
	if err != nil {
		s.t.Fatalf("mariadb: %s: %v", s.Host.Name, err)
	}
	defer func() { _ = rows.Close() }()
	names, err := rows.Columns()
	if err != nil || !rows.Next() {
		return nil
	}
	cells, into := make([]sql.NullString, len(names)), make([]any, len(names))
	for i := range cells {
		into[i] = &cells[i]
	}
	if err := rows.Scan(into...); err != nil {
		s.t.Fatalf("mariadb: %s: %v", s.Host.Name, err)
	}
	all := map[string]string{}
	for i, n := range names {
		all[n] = cells[i].String
	}
	return all
}

// CatchUp waits until the server has applied all that another one has now.
func (s *Server) CatchUp(with *Server) {
	s.t.Helper()
	pos := with.Value("SELECT @@GLOBAL.gtid_binlog_pos")
	if got := s.Value("SELECT MASTER_GTID_WAIT('" + pos + "', 20)"); got != "0" {
		s.t.Fatalf("mariadb: %s is not at %s after 20 s: %v", s.Host.Name, pos, strings.TrimSpace(s.Replication()["Last_SQL_Error"]))
	}
}

// Missing returns which of these rows test.t of a server has not.
func Missing(t lab.TB, db *sql.DB, ids []int) (lost []int) {
	t.Helper()
	rows, err := db.Query("SELECT id FROM test.t")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	have := map[int]bool{}
	for rows.Next() {
		var id int
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		have[id] = true
	}
	for _, id := range ids {
		if !have[id] {
			lost = append(lost, id)
		}
	}
	return lost
}
