package proxysqlstub_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers/proxysqlstub"
)

// TestTheAngelHidesACrashAndTheWorkerOutlivesIt kills one, then the other.
func TestTheAngelHidesACrashAndTheWorkerOutlivesIt(t *testing.T) {
	t.Parallel()
	n, db := started(t, host(t), proxysqlstub.Options{AngelWait: 50 * time.Millisecond})
	worker := n.Pids("worker")[0]
	if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 10*time.Second, "another worker", func() bool {
		now := n.Pids("worker")
		return len(now) == 1 && now[0] != worker && n.AwaitPorts(time.Second) == nil
	})
	same(t, db, "SELECT count(*) FROM mysql_users", "7")

	text, err := os.ReadFile(filepath.Join(n.Data, "proxysql.pid"))
	if err != nil || strings.TrimSpace(string(text)) != fmt.Sprint(n.Pids("angel")[0]) {
		t.Errorf("the PID file holds %q, %v, want that of the angel", text, err)
	}
	if err := syscall.Kill(n.Pids("angel")[0], syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 5*time.Second, "the angel to be gone", func() bool { return len(n.Pids("angel")) == 0 })
	same(t, db, "SELECT count(*) FROM mysql_users", "7") // the worker goes on

	// Another one starts beside it, on the same ports, and takes its share.
	n.Start()
	lab.Eventually(t, 5*time.Second, "a second worker", func() bool { return len(n.Pids("worker")) == 2 })
	lab.Eventually(t, 5*time.Second, "two listeners on each port", func() bool {
		sockets := n.Host.Run("cat", "/proc/net/tcp")
		return strings.Count(sockets, ":1790 00000000:0000 0A") == 2 && strings.Count(sockets, ":1791 00000000:0000 0A") == 2
	})
	n.Stop()
	if n.Greets(n.ClientAddr()) || n.Greets(n.AdminAddr()) {
		t.Error("a port greets after all processes were stopped")
	}
	if _, err := os.Stat(filepath.Join(n.Data, "proxysql.pid")); err != nil {
		t.Errorf("the PID file does not stay: %v", err)
	}
	n.Start() // a stale one does no harm
	if err := n.Begin(); err == nil {
		t.Error("a second start beside one that runs is answered with success")
	}
}

// TestClientsAreTakenBeforeTheAdminPortOpens also is what a start script sees: nothing.
func TestClientsAreTakenBeforeTheAdminPortOpens(t *testing.T) {
	t.Parallel()
	n := proxysqlstub.New(t, host(t), proxysqlstub.Options{Database: sample(t, "proxysql.db")})
	n.Fault("client-late", "1s")
	n.Fault("admin-late", "500ms")
	begin := time.Now()
	if err := n.Begin(); err != nil {
		t.Fatal(err)
	}
	if n.Greets(n.ClientAddr()) {
		t.Error("the start was answered after the port for clients was open")
	}
	lab.Eventually(t, 10*time.Second, "the port for clients to greet", func() bool { return n.Greets(n.ClientAddr()) })
	if n.Greets(n.AdminAddr()) {
		t.Error("the admin port greets as soon as that for clients")
	}
	if err := n.AwaitPorts(proxysqlstub.StartTime); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 2*time.Second {
		t.Errorf("ready after %v, want 2 s at least", took)
	}
	n.Fault("admin-mute", "yes") // wedged: connections are taken, and that is all
	if n.Greets(n.AdminAddr()) {
		t.Error("a mute admin port greets")
	}
}

// TestWhatEndsAStart goes through what a start does not survive, and how it says so.
func TestWhatEndsAStart(t *testing.T) {
	t.Parallel()
	h := host(t)
	ends := func(t *testing.T, n *proxysqlstub.Node) {
		t.Helper()
		if err := n.Begin(); err != nil {
			t.Errorf("the start is answered with %v, want success", err)
		}
		lab.Eventually(t, 10*time.Second, "all processes to end", func() bool { return len(n.Pids("angel"))+len(n.Pids("worker")) == 0 })
		if n.Greets(n.ClientAddr()) {
			t.Error("the port for clients greets")
		}
	}
	t.Run("one file of TLS", func(t *testing.T) {
		n := proxysqlstub.New(t, h, proxysqlstub.Options{})
		if err := os.WriteFile(filepath.Join(n.Data, "proxysql-ca.pem"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		ends(t, n)
		if out, err := n.Host.RunErr(append([]string{n.Program(), "-f"}, n.Args()...)...); err != nil {
			t.Errorf("in the foreground: %v, want exit code 0\n%s", err, out)
		}
	})
	const somebody = 65534
	permitted := exec.Command("/bin/true")
	permitted.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: somebody, Gid: somebody}}
	if err := permitted.Run(); err != nil {
		t.Logf("not as another user: %v", err) // of a user namespace with one user only
		return
	}
	t.Run("a file that may not be read", func(t *testing.T) {
		n := proxysqlstub.New(t, h, proxysqlstub.Options{Database: sample(t, "proxysql.db"), User: somebody})
		if err := os.Chmod(n.Database(), 0o600); err != nil {
			t.Fatal(err)
		}
		ends(t, n)
		if log := n.Log(); strings.Contains(log, "crashed") || !strings.Contains(log, "unable to open") {
			t.Errorf("the log is:\n%s", log)
		}
	})
	t.Run("a file that may not be written", func(t *testing.T) {
		n := proxysqlstub.New(t, h, proxysqlstub.Options{Database: sample(t, "proxysql.db"), User: somebody, AngelWait: time.Millisecond})
		ends(t, n)
		if log := n.Log(); !strings.Contains(log, "attempt to write a readonly database") || !strings.Contains(log, "giving up") {
			t.Errorf("the log is:\n%s", log)
		}
	})
}

// TestCommandsThatEndItAnswerNothing closes the connection, and what runs afterwards.
func TestCommandsThatEndItAnswerNothing(t *testing.T) {
	t.Parallel()
	n, db := started(t, host(t), proxysqlstub.Options{})
	worker := n.Pids("worker")[0]
	if _, err := db.Exec("PROXYSQL RESTART"); err == nil {
		t.Error("RESTART is answered")
	}
	lab.Eventually(t, 10*time.Second, "another worker", func() bool { return len(n.Pids("worker")) == 1 && n.Pids("worker")[0] != worker })
	if err := n.AwaitPorts(proxysqlstub.StartTime); err != nil {
		t.Fatal(err)
	}
	run(t, db, "PROXYSQL PAUSE")
	same(t, db, "SELECT Variable_Value FROM stats_mysql_global WHERE Variable_Name='mysql_listener_paused'", "true")
	if n.Greets(n.ClientAddr()) {
		t.Error("the port for clients greets while it is paused")
	}
	run(t, db, "PROXYSQL RESUME")
	if !n.Greets(n.ClientAddr()) {
		t.Error("the port for clients does not greet after RESUME")
	}
	if _, err := db.Exec("PROXYSQL SHUTDOWN"); err == nil {
		t.Error("SHUTDOWN is answered")
	}
	lab.Eventually(t, 10*time.Second, "all processes to end", func() bool { return len(n.Pids("angel"))+len(n.Pids("worker")) == 0 })
}

// TestWhoANodeIsAndWhereItListens is what must not travel with a database.
func TestWhoANodeIsAndWhereItListens(t *testing.T) {
	t.Parallel()
	h := host(t)
	const uuid = "SELECT variable_value FROM disk.global_settings WHERE variable_name='uuid'"
	t.Run("the uuid comes with the file", func(t *testing.T) {
		n, db := started(t, h, proxysqlstub.Options{})
		same(t, db, uuid, "855cca58-8975-4b24-b3cd-8444804d33f6")
		n.Kill()
	})
	t.Run("the configuration file overwrites it", func(t *testing.T) {
		n, db := started(t, h, proxysqlstub.Options{Config: "uuid=\"6f3c0000-0000-4000-8000-000000000001\"\nmysql_variables={ threads=9 }\n"})
		same(t, db, uuid, "6f3c0000-0000-4000-8000-000000000001")
		same(t, db, "SELECT @@mysql-threads", "2") // of the database, which is there
		n.Kill()
	})
	t.Run("the command line overwrites both", func(t *testing.T) {
		n, db := started(t, h, proxysqlstub.Options{Args: []string{"-U", "one-of-mine"}, Config: "uuid=\"another\";"})
		same(t, db, uuid, "one-of-mine")
		n.Kill()
	})
	t.Run("an address that is not here", func(t *testing.T) {
		n := proxysqlstub.New(t, h, proxysqlstub.Options{AdminWait: -1, Config: "mysql_variables=\n{\n\tinterfaces=\"192.0.2.9:6033\" # of another node\n}\n" +
			"admin_variables={ admin_credentials=\"ops:secret\"; }\nmysql_users=( { username=\"u\", password=\"p\\\"q\", default_hostgroup=1 }, { username=\"v\" } )\n" +
			"mysql_servers = ( { address=\"192.0.2.31\", port=3306, hostgroup=1 } )\n"})
		if err := n.Begin(); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, 10*time.Second, "the admin port to greet", func() bool { return n.Greets(n.AdminAddr()) })
		if n.Greets(n.ClientAddr()) || !strings.Contains(n.Log(), "bind()") {
			t.Errorf("the log is:\n%s", n.Log())
		}
		db := n.Admin("ops", "secret")
		defer func() { _ = db.Close() }()
		// All of it is in the first database, too.
		same(t, db, "SELECT group_concat(username || coalesce(password, '-')) FROM disk.mysql_users", `up"q,v-`)
		same(t, db, "SELECT hostgroup_id || hostname FROM disk.mysql_servers", "1192.0.2.31")
		// Only a start listens elsewhere: the runtime resets what it was told.
		run(t, db, "SET mysql-interfaces='0.0.0.0:6033'", "LOAD MYSQL VARIABLES TO RUNTIME")
		same(t, db, "SELECT @@mysql-interfaces", "192.0.2.9:6033")
		if n.Greets(n.ClientAddr()) {
			t.Error("it listens elsewhere without a start")
		}
		n.Kill()
	})
	t.Run("a socket for everybody", func(t *testing.T) {
		at := filepath.Join(t.TempDir(), "s")
		n := proxysqlstub.New(t, h, proxysqlstub.Options{AdminWait: -1, Config: "mysql_variables={ interfaces=\"0.0.0.0:6033;" + at + "\" }"})
		n.Start()
		if info, err := os.Stat(at); err != nil || info.Mode().Perm() != 0o777 {
			t.Errorf("%v, %v", info, err)
		}
		n.Kill()
	})
	t.Run("initial", func(t *testing.T) {
		n, db := started(t, h, proxysqlstub.Options{Args: []string{"--initial"}, Config: "admin_variables={ admin_credentials=\"ops:made-up-ops\" }"})
		same(t, db, "SELECT count(*) FROM mysql_users", "0")
		if _, err := os.Stat(n.Database() + ".bak"); err != nil {
			t.Error(err)
		}
	})
}

// TestTheServiceManagerEndsAllProcesses plays a unit.
func TestTheServiceManagerEndsAllProcesses(t *testing.T) {
	t.Parallel()
	h := host(t)
	n := proxysqlstub.New(t, h, proxysqlstub.Options{Database: sample(t, "proxysql.db"), AdminWait: -1})
	says := func(verb string, want int) {
		t.Helper()
		out, err := h.RunErr(n.Control(verb)...)
		code := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if code != want {
			t.Errorf("%s: exit code %d, want %d\n%s", verb, code, want, out)
		}
	}
	says("status", 3)
	says("stop", 0)
	says("start", 0)
	says("start", 0)
	if err := n.AwaitPorts(proxysqlstub.StartTime); err != nil {
		t.Fatal(err)
	}
	says("status", 0)
	if err := syscall.Kill(n.Pids("angel")[0], syscall.SIGKILL); err != nil { // the worker is of the unit, too
		t.Fatal(err)
	}
	says("stop", 0)
	says("status", 3)
	if n.Greets(n.ClientAddr()) {
		t.Error("the port for clients greets")
	}
}

// aloneEnv has TestNothingIsLeftOfAKilledTest be the test that is killed.
const aloneEnv = "CARPD_TEST_PROXYSQL_ALONE"

func TestNothingIsLeftOfAKilledTest(t *testing.T) {
	t.Parallel()
	if os.Getenv(aloneEnv) != "" {
		n, _ := started(t, host(t), proxysqlstub.Options{})
		fmt.Println(n.Dir)
		select {} // until it is killed
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), aloneEnv+"=yes", "TMPDIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }()
	dir, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	dir = strings.TrimSpace(dir)
	if _, err := os.Stat(filepath.Join(dir, "data", "proxysql.db")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	lab.Eventually(t, 10*time.Second, "processes and directory to be gone", func() bool {
		_, err := os.Stat(dir)
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is sound
		for _, path := range all {
			if text, _ := os.ReadFile(path); strings.HasPrefix(string(text), dir) {
				return false
			}
		}
		return errors.Is(err, os.ErrNotExist)
	})
}
