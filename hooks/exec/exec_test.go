package exec

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/hookstest"
)

// safeDir returns a directory of the test's that path checks accept, whatever
// the umask of who runs the tests.
func safeDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// script writes a shell script and returns its path. $0's directory is where it
// may leave files.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(safeDir(t), "hook.sh")
	if err := os.WriteFile(path, []byte("#!/bin/sh\ncd \"${0%/*}\" || exit 9\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, c Config) hooks.Hook {
	t.Helper()
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// lockedBuffer takes log lines from several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

// run runs the hook in a runner with the given timeout and returns its error
// and what was logged.
func run(t *testing.T, ctx context.Context, h hooks.Hook, timeout time.Duration) (string, error) {
	t.Helper()
	var log lockedBuffer
	r, err := hooks.NewRunner([]hooks.Step{{
		Name: "step", Kind: "exec", Phase: hooks.AfterUp, OnFailure: hooks.Demote, Timeout: timeout, Hook: h,
	}}, hooks.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	err = r.Run(ctx, hooks.AfterUp, hookstest.SampleEvent(hooks.AfterUp))
	log.mu.Lock()
	defer log.mu.Unlock()
	return log.String(), err
}

func read(t *testing.T, script, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(filepath.Dir(script), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// within polls until ok, and fails the test after ten seconds.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited ten seconds for: %s", what)
		}
	}
}

// alive reports whether the process of the pid in the file runs.
func alive(t *testing.T, script, file string) bool {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(read(t, script, file)))
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

func TestConformance(t *testing.T) {
	path := script(t, "cat >/dev/null")
	hookstest.Conformance(t, func() hooks.Hook { return open(t, Config{Command: []string{path}}) })
}

func TestProgramGetsTheDocumentedSurroundings(t *testing.T) {
	t.Setenv("SECRET_OF_THE_DAEMON", "1")
	path := filepath.Join(safeDir(t), "hook.sh")
	body := `#!/bin/sh
out=${0%/*}
pwd >$out/pwd; umask >$out/umask; env >$out/env;
cat >$out/stdin; echo "$@" >$out/args; cut -d' ' -f5,6 /proc/$$/stat >$out/ids; echo $$ >>$out/ids
`
	if err := os.WriteFile(path, []byte(body), 0o700); err != nil {
		t.Fatal(err)
	}
	if log, err := run(t, t.Context(), open(t, Config{Command: []string{path, "one", "$HOME two"}}), time.Minute); err != nil {
		t.Fatal(err, log)
	}
	for name, want := range map[string]string{"pwd": "/\n", "umask": "0077\n", "args": "one $HOME two\n"} {
		if got := read(t, path, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	ids := strings.Fields(read(t, path, "ids"))
	if len(ids) != 3 || ids[0] != ids[2] || ids[1] != ids[2] {
		t.Errorf("group, session and process are %v, want all the same", ids)
	}
	ev := hookstest.SampleEvent(hooks.AfterUp)
	want, _ := json.Marshal(ev)
	if got := strings.TrimSpace(read(t, path, "stdin")); got != string(want) {
		t.Errorf("stdin is %s\nwant %s", got, want)
	}
	checkEnvironment(t, strings.Split(strings.TrimSpace(read(t, path, "env")), "\n"), ev)
}

func TestProgramInheritsNoOpenFiles(t *testing.T) {
	leaked, err := syscall.Dup(1) // without close-on-exec, as from whoever started the daemon
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(leaked)
	ls := script(t, "exec ls /proc/self/fd")
	log, err := run(t, t.Context(), open(t, Config{Command: []string{ls}}), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log, "line=2\n") || strings.Contains(log, fmt.Sprintf("line=%d\n", leaked)) || strings.Contains(log, "line=4\n") {
		t.Errorf("file %d was leaked; open are 0 to 2, and 3 by ls:\n%s", leaked, log)
	}
}

func checkEnvironment(t *testing.T, got []string, ev hooks.Event) {
	t.Helper()
	want := append(Environment(ev), "PWD=/") // the shell's own
	want = append(want, "OLDPWD=", "SHLVL=", "_=")
	for _, line := range got {
		name, _, _ := strings.Cut(line, "=")
		if !slices.Contains(want, line) && !slices.Contains(want, name+"=") {
			t.Errorf("unexpected in the environment: %s", line)
		}
	}
	for _, line := range []string{
		"CARP_SCHEMA=1", "CARP_NAME=9@eth0", "CARP_VHID=9", "CARP_INTERFACE=eth0", "CARP_NODE=node-a",
		"CARP_PHASE=after-up", "CARP_FROM=BACKUP", "CARP_TO=MASTER", "CARP_REASON=master-timed-out",
		"CARP_PEER=192.0.2.2", "CARP_EPOCH=41", "CARP_TIME=2026-01-02T03:04:05Z",
		"CARP_ADDRESSES=192.0.2.50/24 2001:db8::50/64",
	} {
		if !slices.Contains(got, line) {
			t.Errorf("missing in the environment: %s", line)
		}
	}
}

func TestStyleDecidesWhichArgumentsFollow(t *testing.T) {
	up := hookstest.SampleEvent(hooks.AfterUp)
	down := hookstest.SampleEvent(hooks.AfterDown)
	stop, fault := down, down
	stop.Reason, stop.To = carp.ReasonStopping, carp.Init
	fault.Reason, fault.To = carp.ReasonLinkDown, carp.Init
	for _, tc := range []struct {
		c    Config
		ev   hooks.Event
		want string
	}{
		{Config{}, up, "arg"},
		{Config{Style: Carpd}, up, "arg"},
		{Config{Style: UCARP}, up, "arg eth0 192.0.2.50"},
		{Config{Style: UCARP, XParam: "x y"}, up, "arg eth0 192.0.2.50 x y"},
		{Config{Style: UCARP}, hooks.Event{Interface: "eth0"}, "arg eth0 "},
		{Config{Style: Keepalived}, up, "arg INSTANCE 9@eth0 MASTER 100"},
		{Config{Style: Keepalived, Priority: 50}, down, "arg INSTANCE 9@eth0 BACKUP 50"},
		{Config{Style: Keepalived}, stop, "arg INSTANCE 9@eth0 STOP 100"},
		{Config{Style: Keepalived}, fault, "arg INSTANCE 9@eth0 FAULT 100"},
	} {
		tc.c.Command = []string{"/bin/true", "arg"}
		if got := strings.Join(tc.c.arguments(tc.ev), " "); got != tc.want {
			t.Errorf("style %q: arguments %q, want %q", tc.c.Style, got, tc.want)
		}
	}
}

func TestFailureShowsCodeAndLastLines(t *testing.T) {
	path := script(t, "echo one; echo two; echo three; echo 'mount: no such device' >&2; exit 3")
	log, err := run(t, t.Context(), open(t, Config{Command: []string{path}}), time.Minute)
	var exit *exitError
	if !errors.As(err, &exit) || exit.code != 3 {
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
	killed := script(t, "kill -9 $$")
	if _, err := run(t, t.Context(), open(t, Config{Command: []string{killed}}), time.Minute); err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("killed program gives %v", err)
	}
}

func TestCancelEndsTheWholeGroupEvenIfItIgnoresSIGTERM(t *testing.T) {
	path := script(t, `
sh -c 'trap "" TERM; echo $$ >child.tmp; mv child.tmp child; n=0; while [ $n -lt 60 ]; do sleep 1; n=$((n+1)); done' &
trap 'echo told >told' TERM
echo $$ >self
wait; wait`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := run(t, ctx, open(t, Config{Command: []string{path}}), time.Minute)
		done <- err
	}()
	within(t, "the grandchild to run", func() bool {
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
	read(t, path, "told") // SIGTERM came first
	if alive(t, path, "self") || alive(t, path, "child") {
		t.Error("a process outlived the cancellation")
	}
}

// timeout(1), setpgid and shells with job control make groups of their own.
func TestCancelEndsEveryGroupOfTheSession(t *testing.T) {
	path := script(t, `
set -m
sh -c 'trap "" TERM; echo $$ >deaf; while :; do sleep 1; done' &
timeout 100 sh -c 'echo $$ >child.tmp; mv child.tmp child; sleep 100'
wait`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := run(t, ctx, open(t, Config{Command: []string{path}}), time.Minute)
		done <- err
	}()
	for _, name := range []string{"child", "deaf"} {
		within(t, name+" to run", func() bool {
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
	path := script(t, "echo $$ >self; exec sleep 100")
	start := time.Now()
	_, err := run(t, t.Context(), open(t, Config{Command: []string{path}}), 300*time.Millisecond)
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
	path := script(t, "sleep 100 & echo $! >child; exit 0")
	log, err := run(t, t.Context(), open(t, Config{Command: []string{path}}), time.Minute)
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
	path := script(t, "setsid sleep 100 & echo $! >child; while [ \"$(cut -d' ' -f6 /proc/$!/stat)\" != $! ]; do :; done; exit 0")
	start := time.Now()
	_, err := run(t, t.Context(), open(t, Config{Command: []string{path}}), time.Minute)
	if took := time.Since(start); err != nil || took > 10*time.Second {
		t.Errorf("%v after %v", err, took)
	}
	if !alive(t, path, "child") {
		t.Error("a process in a session of its own was ended")
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(read(t, path, "child")))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

func TestExit75IsTriedAgainUntilItWorks(t *testing.T) {
	path := script(t, `echo x >>tries; [ $(wc -l <tries) -ge 3 ] || { echo "not yet"; exit 75; }`)
	if _, err := run(t, t.Context(), open(t, Config{Command: []string{path}}), time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path, "tries"); got != "x\nx\nx\n" {
		t.Errorf("tries %q, want three", got)
	}
}

func TestExit75ForEverFailsAtTheTimeout(t *testing.T) {
	path := script(t, `echo "still syncing"; exit 75`)
	_, err := run(t, t.Context(), open(t, Config{Command: []string{path}}), time.Second)
	if err == nil || !strings.Contains(err.Error(), "timeout of 1s") || !strings.Contains(err.Error(), "still syncing") {
		t.Errorf("got %v", err)
	}
}

func TestOutputIsBoundedAndTheRestCounted(t *testing.T) {
	path := script(t, `head -c 1000000 /dev/zero | tr '\0' x | fold -w 99; echo; echo "the end"; exit 1`)
	log, err := run(t, t.Context(), open(t, Config{Command: []string{path}}), time.Minute)
	if err == nil || !strings.Contains(err.Error(), "the end") {
		t.Errorf("the last line is missing in %v", err)
	}
	kept := strings.Count(log, "x")
	if kept < maxKept*9/10 || kept > maxKept*11/10 {
		t.Errorf("%d bytes of output in the log, want about %d", kept, maxKept)
	}
	if !strings.Contains(log, "the rest is not shown") || !strings.Contains(log, "bytes=9") {
		t.Errorf("the rest is not counted: %s", log[max(0, len(log)-400):])
	}
}

func TestOneEndlessLineIsBoundedToo(t *testing.T) {
	var log lockedBuffer
	out := newOutput(slog.New(slog.NewTextHandler(&log, nil)))
	s := out.stream("stdout")
	for range 100 {
		if n, err := s.Write(bytes.Repeat([]byte("y"), 10000)); n != 10000 || err != nil {
			t.Fatal(n, err)
		}
	}
	s.flush()
	if cap(s.partial) > 4*maxLine || log.Len() > 2*maxKept {
		t.Errorf("holds %d bytes and logged %d", cap(s.partial), log.Len())
	}
	if out.rest < 1000000-2*maxKept {
		t.Errorf("counted %d", out.rest)
	}
}

func TestControlCharactersDoNotReachTheLog(t *testing.T) {
	if got := printable([]byte("a\x1b[31mred\x07\tb\xff\r"), 100); got != "a\ufffd[31mred\ufffd b\ufffd" {
		t.Errorf("printable gives %q", got)
	}
}

func TestProgramThatDoesNotReadItsInputIsNoTrouble(t *testing.T) {
	h := open(t, Config{Command: []string{script(t, "exec <&-; exit 0")}})
	ev := hookstest.SampleEvent(hooks.AfterUp)
	for len(ev.Addresses) < 20000 { // more than a pipe holds
		ev.Addresses = append(ev.Addresses, ev.Addresses...)
	}
	ev.Addresses = ev.Addresses[:20000]
	err := h.Run(t.Context(), ev)
	// That many addresses do not fit the environment of a program; the kernel says so.
	if err == nil || !errors.Is(err, syscall.E2BIG) {
		t.Errorf("20000 addresses: %v", err)
	}
	ev.Addresses = ev.Addresses[:4000]
	for range 20 {
		if err := h.Run(t.Context(), ev); err != nil {
			t.Fatal(err)
		}
	}
}
