package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/hookstest"
)

// runs is a hook that runs a command, so that it has a logger, and a timeout.
type runs Command

func (r runs) Run(ctx context.Context, _ hooks.Event) error {
	_, err := Run(ctx, Command(r))
	return err
}

// alive reports whether the process of the pid in the file runs.
func alive(t *testing.T, script, file string) bool {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(hookstest.Read(t, script, file)))
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	state, _, _, _ := parseStat(stat)
	return state != 'Z' && state != 'X'
}

func TestProgramInheritsNoOpenFiles(t *testing.T) {
	leaked, err := syscall.Dup(1) // without close-on-exec, as from whoever started the daemon
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(leaked)
	ls := hookstest.Script(t, "exec ls /proc/self/fd")
	log, err := hookstest.Run(t, t.Context(), runs(Command{Path: ls}), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log, "line=2\n") || strings.Contains(log, fmt.Sprintf("line=%d\n", leaked)) || strings.Contains(log, "line=4\n") {
		t.Errorf("file %d was leaked; open are 0 to 2, and 3 by ls:\n%s", leaked, log)
	}
}

func TestFailureShowsCodeAndLastLines(t *testing.T) {
	path := hookstest.Script(t, "echo one; echo two; echo three; echo 'mount: no such device' >&2; exit 3")
	log, err := hookstest.Run(t, t.Context(), runs(Command{Path: path}), time.Minute)
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != 3 {
		t.Fatalf("got %v, want exit code 3", err)
	}
	for _, want := range []string{"exit code 3", "mount: no such device"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %q", want, err)
		}
	}
	if !strings.Contains(log, `stream=stderr line="mount: no such device"`) {
		t.Errorf("the log does not hold the line with its stream:\n%s", log)
	}
	killed := hookstest.Script(t, "kill -9 $$")
	if _, err := hookstest.Run(t, t.Context(), runs(Command{Path: killed}), time.Minute); err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("killed program gives %v", err)
	}
}

func TestCancelEndsTheWholeGroupEvenIfItIgnoresSIGTERM(t *testing.T) {
	path := hookstest.Script(t, `
sh -c 'trap "" TERM; echo $$ >child.tmp; mv child.tmp child; n=0; while [ $n -lt 60 ]; do sleep 1; n=$((n+1)); done' &
trap 'echo told >told' TERM
echo $$ >self
wait; wait`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := hookstest.Run(t, ctx, runs(Command{Path: path}), time.Minute)
		done <- err
	}()
	hookstest.Within(t, "the grandchild to run", func() bool {
		_, err := os.Stat(filepath.Join(filepath.Dir(path), "child"))
		return err == nil
	})
	start := time.Now()
	cancel()
	err := <-done
	if took := time.Since(start); took < grace || took > hooks.CancelGrace {
		t.Errorf("took %v: SIGKILL comes after %v", took, grace)
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	hookstest.Read(t, path, "told") // SIGTERM came first
	if alive(t, path, "self") || alive(t, path, "child") {
		t.Error("a process outlived the cancellation")
	}
}

// timeout(1), setpgid and shells with job control make groups of their own.
func TestCancelEndsEveryGroupOfTheSession(t *testing.T) {
	path := hookstest.Script(t, `
set -m
sh -c 'trap "" TERM; echo $$ >deaf; while :; do sleep 1; done' &
timeout 100 sh -c 'echo $$ >child.tmp; mv child.tmp child; sleep 100'
wait`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := hookstest.Run(t, ctx, runs(Command{Path: path}), time.Minute)
		done <- err
	}()
	for _, name := range []string{"child", "deaf"} {
		hookstest.Within(t, name+" to run", func() bool {
			b, _ := os.ReadFile(filepath.Join(filepath.Dir(path), name))
			return strings.HasSuffix(string(b), "\n")
		})
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if alive(t, path, "child") || alive(t, path, "deaf") {
		t.Error("a process in a group of its own outlived the cancellation")
	}
}

func TestTimeoutEndsAProgramThatObeysAtOnce(t *testing.T) {
	path := hookstest.Script(t, "echo $$ >self; exec sleep 100")
	start := time.Now()
	_, err := hookstest.Run(t, t.Context(), runs(Command{Path: path}), 300*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "timeout of 300ms") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > grace {
		t.Errorf("took %v, though the program obeys SIGTERM", took)
	}
	if alive(t, path, "self") {
		t.Error("the program lives")
	}
}

func TestWhatAProgramLeavesBehindIsEndedAndNamed(t *testing.T) {
	path := hookstest.Script(t, "sleep 100 & echo $! >child; exit 0")
	log, err := hookstest.Run(t, t.Context(), runs(Command{Path: path}), time.Minute)
	if err != nil {
		t.Error(err)
	}
	if alive(t, path, "child") {
		t.Error("the background process lives")
	}
	if !strings.Contains(log, "left processes behind") {
		t.Errorf("the log does not say so:\n%s", log)
	}
}

func TestProcessThatHoldsTheOutputFromAnotherSessionDoesNotHangTheRun(t *testing.T) {
	path := hookstest.Script(t, "setsid sleep 100 & echo $! >child; while [ \"$(cut -d' ' -f6 /proc/$!/stat)\" != $! ]; do :; done; exit 0")
	start := time.Now()
	_, err := hookstest.Run(t, t.Context(), runs(Command{Path: path}), time.Minute)
	if took := time.Since(start); err != nil || took > 10*time.Second {
		t.Errorf("%v after %v", err, took)
	}
	if !alive(t, path, "child") {
		t.Error("a process in a session of its own was ended")
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(hookstest.Read(t, path, "child")))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

func TestOutputIsBoundedAndTheRestCounted(t *testing.T) {
	path := hookstest.Script(t, `head -c 1000000 /dev/zero | tr '\0' x | fold -w 99; echo; echo "the end"; exit 1`)
	log, err := hookstest.Run(t, t.Context(), runs(Command{Path: path}), time.Minute)
	if err == nil || !strings.Contains(err.Error(), "the end") {
		t.Errorf("the last line is missing in %v", err)
	}
	kept := strings.Count(log, "x")
	if kept < maxShown*9/10 || kept > maxShown*11/10 {
		t.Errorf("%d bytes of output in the log, want about %d", kept, maxShown)
	}
	if !strings.Contains(log, "the rest is not shown") || !strings.Contains(log, "bytes=9") {
		t.Errorf("the rest is not counted: %s", log[max(0, len(log)-400):])
	}
}

func TestOneEndlessLineIsBoundedToo(t *testing.T) {
	var log hookstest.Log
	out := newOutput(slog.New(slog.NewTextHandler(&log, nil)), Command{})
	s := out.stream(stdout)
	for range 100 {
		if n, err := s.Write(bytes.Repeat([]byte("y"), 10000)); n != 10000 || err != nil {
			t.Fatal(n, err)
		}
	}
	s.flush()
	if cap(s.partial) > 4*maxLine || len(log.String()) > 2*maxShown {
		t.Errorf("holds %d bytes and logged %d", cap(s.partial), len(log.String()))
	}
	if out.rest < 1000000-2*maxShown {
		t.Errorf("counted %d", out.rest)
	}
}

func TestControlCharactersDoNotReachTheLog(t *testing.T) {
	if got := printable([]byte("a\x1b[31mred\x07\tb\xff\r"), 100); got != "a\ufffd[31mred\ufffd b\ufffd" {
		t.Errorf("printable gives %q", got)
	}
}

func TestProgramGetsPathAloneAndNothingToReadByDefault(t *testing.T) {
	t.Setenv("SECRET_OF_THE_DAEMON", "1")
	got, err := Run(t.Context(), Command{Path: "/usr/bin/env", Keep: 4096})
	if want := "PATH=" + SearchPath + "\n"; err != nil || string(got) != want {
		t.Errorf("environment is %q, %v; want %q", got, err, want)
	}
	if got, err = Run(t.Context(), Command{Path: "/bin/cat", Keep: 10}); err != nil || len(got) > 0 {
		t.Errorf("input is %q, %v", got, err)
	}
	if got, err = Run(t.Context(), Command{Path: "/bin/cat", Args: []string{"-"}, Stdin: []byte("in"), Keep: 10}); err != nil || string(got) != "in" {
		t.Errorf("input is %q, %v", got, err)
	}
}

func TestAnswerIsReturnedAndNotLoggedAndNeverCutInSilence(t *testing.T) {
	answer := hookstest.Script(t, "echo the answer; echo a remark >&2; exit $1")
	got, err := Run(t.Context(), Command{Path: answer, Args: []string{"0"}, Keep: 100})
	if err != nil || string(got) != "the answer\n" {
		t.Errorf("got %q, %v", got, err)
	}
	var exit *ExitError
	got, err = Run(t.Context(), Command{Path: answer, Args: []string{"7"}, Keep: 100})
	if !errors.As(err, &exit) || exit.Code != 7 || string(got) != "the answer\n" {
		t.Errorf("with exit code 7: got %q, %v", got, err)
	}
	got, err = Run(t.Context(), Command{Path: answer, Args: []string{"0"}, Keep: 9})
	if err == nil || !strings.Contains(err.Error(), "more than 9 bytes") || string(got) != "the answe" {
		t.Errorf("of nine bytes: got %q, %v", got, err)
	}
	log, err := hookstest.Run(t, t.Context(), runs(Command{Path: answer, Args: []string{"0"}, Keep: 100}), time.Minute)
	if err != nil || strings.Contains(log, "the answer") || !strings.Contains(log, "a remark") {
		t.Errorf("%v, log:\n%s", err, log)
	}
}

func TestQuietCommandShowsItsLastLinesInTheErrorOnly(t *testing.T) {
	log, err := hookstest.Run(t, t.Context(), runs(Command{Path: hookstest.Script(t, "echo again and again; exit 1"), Quiet: true}), time.Minute)
	if err == nil || !strings.Contains(err.Error(), "again and again") || strings.Contains(log, "hook output") {
		t.Errorf("%v, log:\n%s", err, log)
	}
}

func TestWhatADaemonLeavesRunningStays(t *testing.T) {
	script := hookstest.Script(t, "sleep 600 & echo $! >left")
	if _, err := Run(t.Context(), Command{Path: script, Daemon: true}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(script), "left"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("what it left running is gone: %v", err)
	}
}
