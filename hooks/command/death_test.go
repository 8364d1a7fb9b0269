package command

import (
	"bufio"
	"context"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks/hookstest"
)

// daemonEnv tells the test binary to be a daemon that runs the named program.
const daemonEnv = "CARPD_TEST_COMMAND_DAEMON"

// starveEnv tells that daemon to run out of files, and then to cancel.
const starveEnv = "CARPD_TEST_COMMAND_STARVE"

func TestMain(m *testing.M) {
	if path := os.Getenv(daemonEnv); path != "" {
		ctx := context.Background()
		if os.Getenv(starveEnv) != "" {
			ctx = starve(filepath.Join(filepath.Dir(path), "self"))
		}
		_, err := Run(ctx, Command{Path: path})
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// starve returns a context that ends when the file is there. By then this process
// can open no file any more.
func starve(file string) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
			if _, err := os.Stat(file); err == nil {
				_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{})
				cancel()
				return
			}
		}
	}()
	return ctx
}

func TestProgramIsKilledAlsoWhereProcCannotBeRead(t *testing.T) {
	path := hookstest.Script(t, `trap "" TERM; echo $$ >self.tmp; mv self.tmp self; while :; do sleep 1; done`)
	var said strings.Builder
	daemon := osexec.Command("/proc/self/exe")
	daemon.Env = append(os.Environ(), daemonEnv+"="+path, starveEnv+"=1")
	daemon.Stderr = &said
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); daemon.Wait() }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		daemon.Process.Kill()
		<-ended
		t.Fatal("the run did not end")
	}
	if !strings.Contains(said.String(), "too many open files") {
		t.Errorf("the error does not say why the end was not seen: %s", said.String())
	}
	hookstest.Within(t, "the program to die", func() bool { return !alive(t, path, "self") })
}

func TestProgramDiesWithTheDaemon(t *testing.T) {
	path := hookstest.Script(t, "echo $$ >self.tmp; mv self.tmp self; exec sleep 100")
	daemon := osexec.Command("/proc/self/exe")
	daemon.Env = append(os.Environ(), daemonEnv+"="+path)
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	hookstest.Within(t, "the program to run", func() bool {
		_, err := os.Stat(filepath.Join(filepath.Dir(path), "self"))
		return err == nil
	})
	if !alive(t, path, "self") {
		t.Error("the program does not run")
	}
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	daemon.Wait()
	hookstest.Within(t, "the program to die", func() bool { return !alive(t, path, "self") })
}

// The kernel sends PDEATHSIG when the thread that forked ends. A daemon whose
// threads come and go must not kill its hooks by that.
func TestProgramOutlivesOtherThreadsOfTheDaemon(t *testing.T) {
	path := hookstest.Script(t, "read line <wait; exit 0")
	fifo := filepath.Join(filepath.Dir(path), "wait")
	must(t, syscall.Mkfifo(fifo, 0o600))
	done := make(chan error, 1)
	go func() {
		_, err := hookstest.Run(t, t.Context(), runs(Command{Path: path}), time.Minute)
		done <- err
	}()
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // returns when the program reads
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { runtime.LockOSThread() }) // ends its thread
	}
	all.Wait()
	runtime.Gosched()
	if _, err := w.WriteString("go\n"); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestUmaskOfTheDaemonStaysAsItIs(t *testing.T) {
	before := umasks(t)
	if _, err := hookstest.Run(t, t.Context(), runs(Command{Path: "/bin/true"}), time.Minute); err != nil {
		t.Fatal(err)
	}
	if after := umasks(t); after != before {
		t.Errorf("umask was %s and is %s", before, after)
	}
}

func umasks(t *testing.T) string {
	t.Helper()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if u, ok := strings.CutPrefix(s.Text(), "Umask:"); ok {
			return strings.TrimSpace(u)
		}
	}
	t.Fatal("no Umask in /proc/self/status")
	return ""
}
