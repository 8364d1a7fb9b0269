package proxysqlstub

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net"
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

// Ports of a server that was told nothing.
const (
	AdminPort  = 6032
	ClientPort = 6033
)

// StartTime is how long Start waits for the ports.
const StartTime = 20 * time.Second

// Options is how a node is run. Zero values are ProxySQL's defaults.
type Options struct {
	Database  string        // a file that is copied as proxysql.db, with its -journal and -wal; none: the first start makes one
	Config    string        // text of proxysql.cnf
	Args      []string      // on the command line, after -D and -c
	Admin     string        // ADDRESS:PORT of the admin port, whatever the variable says
	Client    string        // likewise, of the port for clients
	AdminWait time.Duration // default AdminWait; less than 0: none
	AngelWait time.Duration // default AngelWait
	User      int           // uid and gid that it takes on, as root; 0: those of who starts it
}

// Node is one ProxySQL with its data directory. Its methods are safe for concurrent use
// but those that start and end it.
type Node struct {
	Host *lab.Host // nil: this machine as it is
	Dir  string    // with the program, and what a test tells it
	Data string    // the data directory

	t lab.TB
	o Options
}

// New makes the directory of a node on a host, or with nil on this machine, without
// starting it. All of it ends with t.
func New(t lab.TB, h *lab.Host, o Options) *Node {
	t.Helper()
	dir, err := os.MkdirTemp("", "psql")
	if err != nil {
		t.Fatalf("proxysqlstub: %v", err)
	}
	n := &Node{Host: h, Dir: dir, Data: filepath.Join(dir, "data"), t: t, o: o}
	t.Cleanup(func() {
		n.Kill()
		for _, fault := range []string{"DATA RACE", "panic:", "fatal error:"} { // of the stand-in itself
			if strings.Contains(n.Log(), fault) {
				t.Errorf("proxysqlstub: %s", fault)
			}
		}
		if t.Failed() {
			t.Logf("--- proxysqlstub: %s\n%s", n.Dir, n.Log())
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("proxysqlstub: %v", err)
		}
	})
	set := settings{Test: os.Getpid(), Born: born(os.Getpid()), Admin: o.Admin, Client: o.Client, AdminWait: max(0, o.AdminWait), AngelWait: o.AngelWait, User: o.User}
	if o.AdminWait == 0 {
		set.AdminWait = AdminWait
	}
	if o.AngelWait == 0 {
		set.AngelWait = AngelWait
	}
	text, err := json.Marshal(set)
	self, errSelf := os.Executable()
	err = errors.Join(err, errSelf,
		os.Chmod(dir, 0o755),
		os.Mkdir(n.Data, 0o755),
		os.Mkdir(filepath.Join(dir, "pids"), 0o755),
		os.Chown(filepath.Join(dir, "pids"), o.User, o.User),
		os.Mkdir(filepath.Join(dir, "faults"), 0o755),
		os.WriteFile(filepath.Join(dir, settingsFile), text, 0o644),
		os.Symlink(self, n.Program()),
		os.Symlink(self, filepath.Join(dir, ControlProgram)),
		os.Chown(n.Data, o.User, o.User))
	if err == nil && o.Config != "" {
		err = os.WriteFile(n.config(), []byte(o.Config), 0o644)
	}
	if err == nil && o.Database != "" {
		err = n.Install(o.Database)
	}
	if err != nil {
		t.Fatalf("proxysqlstub: %v", err)
	}
	return n
}

// Program is the path of the program proxysql: it is started with Args by whoever plays
// the service manager.
func (n *Node) Program() string { return filepath.Join(n.Dir, Program) }

func (n *Node) config() string { return filepath.Join(n.Dir, "proxysql.cnf") }

// Args are the arguments of the program.
func (n *Node) Args() []string {
	return append([]string{"-D", n.Data, "-c", n.config()}, n.o.Args...)
}

// Database is the path of proxysql.db.
func (n *Node) Database() string { return filepath.Join(n.Data, diskName) }

// Install copies a file over the database, with the -journal and -wal beside it. ProxySQL
// must not run.
func (n *Node) Install(file string) error {
	for _, suffix := range []string{"", "-journal", "-wal"} {
		text, err := os.ReadFile(file + suffix)
		if suffix != "" && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(n.Database()+suffix, text, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Start runs the program, which answers before it is known whether the database can be
// read, and then waits until both ports greet.
func (n *Node) Start() {
	n.t.Helper()
	if err := n.Begin(); err != nil {
		n.t.Fatalf("proxysqlstub: %v", err)
	}
	if err := n.AwaitPorts(StartTime); err != nil {
		n.t.Fatalf("proxysqlstub: the ports do not greet: %v\n%s", err, n.Log())
	}
}

// Begin runs the program and returns what it says at once: nothing of worth.
func (n *Node) Begin() error {
	if n.Host != nil {
		out, err := n.Host.RunErr(append([]string{n.Program()}, n.Args()...)...)
		if err != nil {
			return errors.Join(err, errors.New(out))
		}
		return nil
	}
	return exec.Command(n.Program(), n.Args()...).Run()
}

// AwaitPorts waits until the admin port and the one for clients greet.
func (n *Node) AwaitPorts(limit time.Duration) error {
	for _, addr := range []string{n.ClientAddr(), n.AdminAddr()} {
		if err := lab.Await(context.Background(), limit, func() bool { return n.Greets(addr) }); err != nil {
			return err
		}
	}
	return nil
}

// Greets reports whether a server says its first packet at an address.
func (n *Node) Greets(addr string) bool {
	conn, err := n.dial(context.Background(), "tcp", addr)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Second)) // the next read fails otherwise
	_, err = conn.Read(make([]byte, 5))
	return err == nil
}

// AdminAddr is where the admin port is reached from its own host.
func (n *Node) AdminAddr() string { return address(n.o.Admin, AdminPort) }

// ClientAddr is where the port for clients is reached from its own host.
func (n *Node) ClientAddr() string { return address(n.o.Client, ClientPort) }

func address(set string, port int) string {
	if set != "" {
		return set
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func (n *Node) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	d := net.Dialer{Timeout: 2 * time.Second}
	if n.Host == nil {
		return d.DialContext(ctx, network, address)
	}
	err = n.Host.DoErr(func() error {
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Open opens connections from the node's own host to an address. The caller closes them.
func (n *Node) Open(addr, user, password string) *sql.DB {
	n.t.Helper()
	c := driver.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr = user, password, "tcp", addr
	c.InterpolateParams = true
	c.Logger = silent{}
	c.DialFunc = n.dial
	connector, err := driver.NewConnector(c)
	if err != nil {
		n.t.Fatalf("proxysqlstub: %v", err)
	}
	return sql.OpenDB(connector)
}

// silent keeps the driver from writing to standard error.
type silent struct{}

func (silent) Print(...any) {}

// Admin opens one connection to the admin port as a user of admin-admin_credentials. The
// caller closes it.
func (n *Node) Admin(user, password string) *sql.DB {
	n.t.Helper()
	db := n.Open(n.AdminAddr(), user, password)
	db.SetMaxOpenConns(1)
	return db
}

// Backends sets what the monitor finds, for each "HOST:PORT"; it finds the others as they
// are configured. It counts from the next check on.
func (n *Node) Backends(all map[string]Backend) {
	n.t.Helper()
	text, err := json.Marshal(all)
	temp := filepath.Join(n.Dir, monitorFile+".new")
	err = errors.Join(err, os.WriteFile(temp, text, 0o644))
	if err == nil {
		err = os.Rename(temp, filepath.Join(n.Dir, monitorFile))
	}
	if err != nil {
		n.t.Fatalf("proxysqlstub: %v", err)
	}
}

// Fault sets a fault, or ends it where the value is empty:
//
//	save-gap      TIME  a SAVE waits so long between DELETE and INSERT
//	save-unlocked TIME  likewise, and others are served meanwhile, as when its own cluster saves
//	disk          TEXT  a SAVE fails with this text, in the log only
//	admin-slow    TIME  each statement on the admin port takes so much longer, and all wait
//	admin-mute    any   the admin port takes connections and does not greet
//	admin-late    TIME  the admin port opens so much later
//	client-port   any   the port for clients is not opened at the next start
//	client-late   TIME  the port for clients, and all that follows, comes so much later
//	monitor-late  TIME  the monitor's first check comes so long after that port
//	backends      TEXT  each check of the monitor fails with this text
//	crash         TIME  the worker crashes so long after its start
func (n *Node) Fault(name, value string) {
	n.t.Helper()
	if err := writeFault(n.Dir, name, value); err != nil {
		n.t.Fatalf("proxysqlstub: %v", err)
	}
}

// Log returns what ProxySQL has logged.
func (n *Node) Log() string {
	text, _ := os.ReadFile(filepath.Join(n.Data, logName)) // none before the first start
	return string(text)
}

// Pids returns the processes of a role, "angel" or "worker", that run.
func (n *Node) Pids(role string) []int { return processes(n.Dir, role) }

// Control is the command that plays the service manager: its verb is start, stop or
// status. It exits with 0, and with 3 where status finds nothing that runs.
func (n *Node) Control(verb string) []string {
	return append([]string{filepath.Join(n.Dir, ControlProgram), verb}, n.Args()...)
}

// Stop ends ProxySQL as a service manager does that signals all of its processes.
func (n *Node) Stop() { n.end(syscall.SIGTERM) }

// Kill ends ProxySQL by SIGKILL.
func (n *Node) Kill() { n.end(syscall.SIGKILL) }

func (n *Node) end(sig syscall.Signal) {
	n.t.Helper()
	if err := endBy(n.Dir, sig, StartTime); err != nil {
		n.t.Errorf("proxysqlstub: it does not end: %v", err)
	}
}
