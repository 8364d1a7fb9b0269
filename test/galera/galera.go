// Package galera runs a real Galera cluster, MariaDB servers with galera-4, on hosts of a
// lab, with data directories made by the test and gone with it.
//
//	c := galera.Start(t, lan.Host("g1", "192.0.2.11/24"), lan.Host("g2", "192.0.2.12/24"))
//	db := c.Nodes[0].Root()
//
// Each commit is flushed (innodb_flush_log_at_trx_commit=1), which is not what Galera's
// documentation advises: without it nodes that crash one after the other lose rows that
// were acknowledged.
//
// It needs the packages mariadb-server, galera-4 and rsync; where one is missing the test
// skips, or fails with CARPD_LAB=required.
package galera

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/carpd/carpd/test/lab"
)

// Port is where each node takes clients.
const Port = 3306

// Accounts that may log in from everywhere.
const (
	Check       = "haproxy" // without a password and without rights: HAProxy's mysql-check
	App         = "app"     // reads and writes in the schema test
	AppPassword = "app-secret"
)

const (
	// serverUser is whom the servers run as. As root the rsync of a joiner would change
	// to nobody, who may not write there.
	serverUser = "mysql"

	provider  = "/usr/lib/galera/libgalera_smm.so"
	startTime = 90 * time.Second
)

// Cluster is one that was started. Its methods are for the goroutine of the test.
type Cluster struct {
	Nodes []*Node

	t lab.TB
}

// Node is one server of a cluster.
type Node struct {
	Host    *lab.Host
	Address netip.AddrPort
	Socket  string // of its server

	t    lab.TB
	dir  string
	args []string
	proc *lab.Proc
}

// Start starts a node on the first IPv4 address of each host, and returns when all are
// synced. They end with t.
func Start(t lab.TB, hosts ...*lab.Host) *Cluster {
	t.Helper()
	installed(t)
	c := &Cluster{t: t}
	var members []string
	for _, h := range hosts {
		n := &Node{Host: h, t: t, dir: directory(t)}
		n.Socket = filepath.Join(n.dir, "s")
		for _, p := range h.Addrs("eth0") {
			if p.Addr().Is4() && !n.Address.IsValid() {
				n.Address = netip.AddrPortFrom(p.Addr(), Port)
			}
		}
		members = append(members, n.Address.Addr().String())
		c.Nodes = append(c.Nodes, n)
	}
	for i, n := range c.Nodes {
		n.configure(members)
		if i == 0 {
			n.install()
			n.begin("--wsrep-new-cluster")
			n.accounts()
			continue
		}
		n.begin()
	}
	c.AwaitSize(len(hosts))
	return c
}

func installed(t lab.TB) {
	t.Helper()
	missing := ""
	for program, pkg := range map[string]string{
		"/usr/sbin/mariadbd": "mariadb-server", "/usr/bin/mariadb-install-db": "mariadb-server", provider: "galera-4", "/usr/bin/rsync": "rsync",
	} {
		if _, err := os.Stat(program); err != nil {
			missing = pkg
		}
	}
	hint := missing + " is not installed: scripts/bootstrap test, or apt-get install " + missing
	if missing == "" {
		dir, err := os.MkdirTemp("", "wsrep")
		if err == nil {
			err = own(dir)
			os.RemoveAll(dir)
		}
		if err == nil {
			return
		}
		hint = "files cannot be given to the user " + serverUser + ", as a user namespace of one user forbids: run it as root"
	}
	if os.Getenv("CARPD_LAB") == "required" {
		t.Fatal(hint)
	}
	t.Skip(hint)
}

// directory is a new one with a short name: that of a socket may have 107 bytes.
func directory(t lab.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "wsrep")
	if err == nil {
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Errorf("galera: %v", err)
			}
		})
		err = os.Mkdir(filepath.Join(dir, "data"), 0o700)
	}
	if err == nil {
		err = errors.Join(own(dir), own(filepath.Join(dir, "data")))
	}
	if err != nil {
		t.Fatalf("galera: make a directory: %v", err)
	}
	return dir
}

// own gives a directory to the user of the servers.
func own(dir string) error {
	u, err := user.Lookup(serverUser)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	return os.Chown(dir, uid, gid)
}

func (n *Node) data() string { return filepath.Join(n.dir, "data") }

func (n *Node) configure(members []string) {
	address := n.Address.Addr().String()
	n.args = []string{"--no-defaults", "--user=" + serverUser, "--datadir=" + n.data(), "--socket=" + n.Socket, "--pid-file=" + filepath.Join(n.dir, "pid"),
		"--bind-address=0.0.0.0", fmt.Sprintf("--port=%d", Port), "--skip-name-resolve", "--skip-log-bin", "--binlog-format=ROW",
		"--default-storage-engine=InnoDB", "--innodb-autoinc-lock-mode=2", "--innodb-flush-log-at-trx-commit=1",
		"--innodb-buffer-pool-size=16M", "--innodb-log-file-size=4M", "--key-buffer-size=1M", "--performance-schema=0", "--max-connections=60",
		"--wsrep-on=ON", "--wsrep-provider=" + provider, "--wsrep-cluster-name=lab", "--wsrep-cluster-address=gcomm://" + strings.Join(members, ","),
		"--wsrep-node-address=" + address, "--wsrep-node-name=" + n.Host.Name, "--wsrep-sst-method=rsync", "--wsrep-slave-threads=2",
		"--wsrep-provider-options=gcache.size=8M;gcache.page_size=8M;base_host=" + address}
}

// install makes the data of the first node; the others get theirs from it.
func (n *Node) install() {
	n.t.Helper()
	out, err := exec.Command("mariadb-install-db", "--no-defaults", "--user="+serverUser, "--datadir="+n.data(), "--skip-test-db",
		"--auth-root-authentication-method=normal", "--innodb-log-file-size=4M").CombinedOutput()
	if err != nil {
		n.t.Fatalf("galera: make a data directory: %v\n%s", err, out)
	}
}

// begin starts the server and waits until it is synced.
func (n *Node) begin(more ...string) {
	n.t.Helper()
	cmd := exec.Command("/usr/sbin/mariadbd", append(n.args, more...)...)
	n.proc = n.Host.Start(cmd)
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	err := lab.Await(ctx, startTime, func() bool {
		select {
		case <-n.proc.Done():
			cancel()
			return false
		default:
		}
		return n.Status("wsrep_local_state") == "4"
	})
	if err != nil {
		n.t.Fatalf("galera: %s is not synced: %v\n%s", n.Host.Name, err, tail(n.proc.Output()))
	}
}

func tail(s string) string { return s[max(0, len(s)-6000):] }

// accounts makes the accounts; the cluster copies them.
func (n *Node) accounts() {
	n.t.Helper()
	for _, statement := range []string{
		"CREATE DATABASE test", "CREATE USER '" + Check + "'@'%'",
		"CREATE USER '" + App + "'@'%' IDENTIFIED BY '" + AppPassword + "'", "GRANT ALL ON test.* TO '" + App + "'@'%'",
	} {
		if err := n.Exec(statement); err != nil {
			n.t.Fatalf("galera: %s: %v", statement, err)
		}
	}
}

// AwaitSize waits until all nodes that run are synced members of a component of this
// size.
func (c *Cluster) AwaitSize(size int) {
	c.t.Helper()
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		lab.Eventually(c.t, startTime, fmt.Sprintf("%s to be one of %d", n.Host.Name, size), func() bool {
			return n.Status("wsrep_cluster_size") == fmt.Sprint(size) && n.Status("wsrep_local_state") == "4" && n.Status("wsrep_ready") == "ON"
		})
	}
}

// Running reports whether the server's process lives.
func (n *Node) Running() bool {
	select {
	case <-n.proc.Done():
		return false
	default:
		return true
	}
}

// Kill ends the server by SIGKILL.
func (n *Node) Kill() { n.proc.Kill() }

// Signal sends the server a signal, such as SIGSTOP.
func (n *Node) Signal(sig syscall.Signal) { n.proc.Signal(sig) }

// Output returns the last lines that the server has written.
func (n *Node) Output() string { return tail(n.proc.Output()) }

// Rejoin starts a server that has ended again, and waits until it is synced.
func (n *Node) Rejoin() {
	n.t.Helper()
	n.begin()
}

// Root opens the server by its socket as root. The caller closes it.
func (n *Node) Root() *sql.DB {
	c := mysql.NewConfig()
	c.User, c.Net, c.Addr = "root", "unix", n.Socket
	c.Logger = &mysql.NopLogger{}
	c.Timeout, c.ReadTimeout, c.WriteTimeout = 5*time.Second, 20*time.Second, 5*time.Second
	connector, err := mysql.NewConnector(c)
	if err != nil {
		n.t.Fatalf("galera: %v", err)
	}
	return sql.OpenDB(connector)
}

// Client opens connections from a host to an address, as the account App, with the schema
// test. The caller closes them.
func (c *Cluster) Client(from *lab.Host, to netip.AddrPort) *sql.DB {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.DBName, cfg.Net, cfg.Addr = App, AppPassword, "test", "tcp", to.String()
	cfg.Logger = &mysql.NopLogger{}
	cfg.Timeout = 5 * time.Second
	cfg.DialFunc = func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = from.DoErr(func() error {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		c.t.Fatalf("galera: %v", err)
	}
	return sql.OpenDB(connector)
}

// Node returns the node on the host of a name.
func (c *Cluster) Node(name string) *Node {
	c.t.Helper()
	for _, n := range c.Nodes {
		if n.Host.Name == name {
			return n
		}
	}
	c.t.Fatalf("galera: there is no node %q", name)
	return nil
}

// Exec runs a statement as root.
func (n *Node) Exec(statement string) error {
	db := n.Root()
	defer db.Close()
	_, err := db.Exec(statement)
	return err
}

// Status returns a status variable of the server, "" if it does not answer.
func (n *Node) Status(name string) string {
	db := n.Root()
	defer db.Close()
	var key, value string
	err := db.QueryRow("SHOW GLOBAL STATUS LIKE '"+name+"'").Scan(&key, &value)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return ""
	}
	return value
}
