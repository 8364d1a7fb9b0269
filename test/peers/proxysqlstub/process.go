package proxysqlstub

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Program is the name under which the test binary is the stand-in.
const Program = "proxysql"

// roleEnv says which of the processes this is: nothing for the one that was started.
const roleEnv = "CARPD_TEST_PROXYSQL"

// Exit codes: of an abort, as a shell has it for signal 6, and of a worker that wants to be
// started anew.
const (
	abortCode   = 134
	restartCode = 33
)

// arguments are those of a command line.
type arguments struct {
	data, configPath, uuid         string
	foreground, noAngel, noMonitor bool
	adminOnly, initial, reload     bool
	config                         config
}

// Enter is called first by TestMain. Where the test binary was started under the name
// proxysql, or as its service manager, it is that and does not return.
func Enter() {
	switch filepath.Base(os.Args[0]) { // os.Exit of a -race build waits for a second
	case Program:
		unix.Exit(Main())
	case ControlProgram:
		unix.Exit(control(filepath.Dir(os.Args[0]), os.Args[1:]))
	}
}

// Main is ProxySQL with the arguments of this process; it returns the exit code.
func Main() int {
	set := readSettings(filepath.Dir(os.Args[0]))
	args, err := parseArguments(os.Args[1:])
	if set.User != 0 && os.Geteuid() == 0 {
		err = errors.Join(err, syscall.Setgroups(nil), syscall.Setgid(set.User), syscall.Setuid(set.User))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	switch os.Getenv(roleEnv) {
	case "worker":
		return work(set, args)
	case "angel":
		return guard(set, args)
	}
	return begin(set, args)
}

func parseArguments(line []string) (a arguments, err error) {
	f := flag.NewFlagSet(Program, flag.ContinueOnError)
	f.StringVar(&a.data, "D", "", "data directory")
	f.StringVar(&a.configPath, "c", "/etc/proxysql.cnf", "configuration file")
	f.StringVar(&a.uuid, "U", "", "UUID")
	f.BoolVar(&a.foreground, "f", false, "stay in the foreground")
	f.BoolVar(&a.noAngel, "e", false, "no restart after a crash")
	f.BoolVar(&a.noMonitor, "M", false, "no monitor")
	f.BoolVar(&a.adminOnly, "n", false, "only the admin port")
	f.BoolVar(&a.initial, "initial", false, "rename the database and start anew")
	f.BoolVar(&a.reload, "reload", false, "merge the configuration file into the database")
	f.Bool("idle-threads", false, "")
	f.Bool("no-version-check", false, "")
	if err := f.Parse(line); err != nil {
		return a, err
	}
	a.config = readConfig(a.configPath)
	if a.data == "" {
		a.data = a.config.data
	}
	a.data, err = filepath.Abs(a.data)
	return a, err
}

// child is this program again, in another role.
func child(role string, a arguments) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.Dir = a.data
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

// begin starts the angel, and answers as soon as that has written its number: before
// anything is known of the database.
func begin(set settings, a arguments) int {
	path := filepath.Join(a.data, pidName)
	if pid := readPid(path); pid > 0 && named(pid) != "" { // to ProxySQL a zombie runs, too
		fmt.Fprintf(os.Stderr, "[FATAL]: daemon already running on PID file %d\n", pid)
		return 1
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if a.foreground {
		return guard(set, a)
	}
	out, err := os.OpenFile(filepath.Join(a.data, logName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := child("angel", a)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	gone := make(chan struct{})
	go func() { _ = cmd.Wait(); close(gone) }()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for readPid(path) != cmd.Process.Pid {
		select {
		case <-gone:
			return 1
		case <-tick.C:
		}
	}
	return 0
}

// named is the command line of a process; "" if there is none, or it is about to go.
func named(pid int) string {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline") // "" without one
	return string(text)
}

func readPid(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text))) // half a file is no number
	return n
}

// register leaves the number of this process for the test, which ends it, and has it
// end with the test, and the directory of the node as well.
func (set settings) register(role string) {
	if set.Test == 0 {
		return
	}
	name := filepath.Join(set.dir, "pids", role+"-"+strconv.Itoa(os.Getpid()))
	_ = os.WriteFile(name, nil, 0o644) // the directory may be gone already
	go func() {
		for born(set.Test) == set.Born {
			pass(500 * time.Millisecond)
		}
		_ = os.RemoveAll(set.dir) // nobody else will; the others may be at it, too
		unix.Exit(1)
	}()
}

// born is when a process was started, in ticks since the boot; "" if there is none.
func born(pid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	if fields := strings.Fields(rest); len(fields) > 19 && fields[0] != "Z" && fields[0] != "X" {
		return fields[19]
	}
	return ""
}

// restarts is how often the angel tries a worker that does not live, and healthy is what
// counts as living.
const (
	restarts = 5
	healthy  = 10 * time.Second
)

// guard is the angel: it starts the worker, and starts it again when it crashes.
func guard(set settings, a arguments) int {
	set.register("angel")
	if err := os.WriteFile(filepath.Join(a.data, pidName), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if a.noAngel {
		return work(set, a)
	}
	wait, tries := set.AngelWait, 0
	for {
		begin := time.Now()
		cmd := child("worker", a)
		err := cmd.Run()
		if err == nil {
			return 0
		}
		fmt.Fprintf(os.Stderr, "ProxySQL crashed (%v). Restarting!\n", err)
		switch {
		case cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == restartCode:
			continue
		case time.Since(begin) >= healthy:
			wait, tries = set.AngelWait, 0
			continue
		case tries == restarts:
			fmt.Fprintln(os.Stderr, "ProxySQL crashed too often: giving up")
			return 1
		}
		pass(wait)
		wait, tries = 2*wait, tries+1
	}
}

// work is the worker; it returns when it was told to.
func work(set settings, a arguments) int {
	set.register("worker")
	over := make(chan int, 1)
	end := func(code int) {
		select {
		case over <- code:
		default:
		}
	}
	s := &server{set: set, args: a, data: a.data, started: time.Now(), out: os.Stderr, exit: end}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	go func() {
		<-signals
		unix.Exit(0) // no drain: files and sockets stay as they are
	}()
	if !s.certificates() {
		return 0
	}
	if a.initial {
		_ = os.Rename(s.diskPath(), s.diskPath()+".bak") // there may be none
	}
	if d := set.faultTime(faultCrash); d > 0 {
		time.AfterFunc(d, func() { s.abort(errors.New("signal 11")) })
	}
	switch err := s.open(); {
	case errors.Is(err, errUnreadable):
		s.log("[ERROR] %v", err)
		return 0
	case err != nil:
		s.abort(err)
	}
	if !a.adminOnly {
		s.pause(faultClientLate)
		s.mu.Lock()
		s.speak()
		s.mu.Unlock()
		if !a.noMonitor {
			go s.watch()
		}
	}
	pass(set.AdminWait + set.faultTime(faultAdminLate))
	s.mu.Lock()
	s.listen(cmp.Or(set.Admin, s.variable("admin-mysql_ifaces")), s.talkAdmin)
	s.mu.Unlock()
	return <-over
}

// speak opens the port for clients, and hush closes it; who is connected stays.
func (s *server) speak() {
	if len(s.clients) == 0 && s.set.fault(faultClientPort) == "" {
		s.clients = s.listen(cmp.Or(s.set.Client, s.variable("mysql-interfaces")), s.talkClient)
	}
}

func (s *server) hush() {
	for _, l := range s.clients {
		_ = l.Close()
	}
	s.clients = nil
}

// abort ends the worker as an assertion does.
func (s *server) abort(why error) {
	s.log("Error: signal 6: %v", why)
	unix.Exit(abortCode)
}

// listen opens what a variable of interfaces says. What cannot be bound is logged, and
// not tried again.
func (s *server) listen(ifaces string, talk func(*session)) (all []net.Listener) {
	shared := net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			if network != "unix" {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) // or bind says so
			}
		})
	}}
	for at := range strings.FieldsFuncSeq(ifaces, func(r rune) bool { return r == ';' || r == ',' }) {
		network := "tcp"
		if strings.HasPrefix(at, "/") {
			network = "unix"
			_ = os.Remove(at) // of one that was killed
		} else if strings.HasPrefix(at, "0.0.0.0") {
			network = "tcp4"
		}
		l, err := shared.Listen(context.Background(), network, at)
		if err != nil {
			s.log("[ERROR] bind(): %v", err)
			continue
		}
		if network == "unix" {
			_ = os.Chmod(at, 0o777) // whoever reaches it
		}
		all = append(all, l)
		go s.serve(l, talk)
	}
	return all
}
