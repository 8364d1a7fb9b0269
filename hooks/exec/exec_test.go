package exec

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/hookstest"
)

func open(t *testing.T, c Config) hooks.Hook {
	t.Helper()
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestConformance(t *testing.T) {
	path := hookstest.Script(t, "cat >/dev/null")
	hookstest.Conformance(t, func() hooks.Hook { return open(t, Config{Command: []string{path}}) })
}

func TestProgramGetsTheDocumentedSurroundings(t *testing.T) {
	t.Setenv("SECRET_OF_THE_DAEMON", "1")
	path := filepath.Join(hookstest.SafeDir(t), "hook.sh")
	body := `#!/bin/sh
out=${0%/*}
pwd >$out/pwd; umask >$out/umask; env >$out/env;
cat >$out/stdin; echo "$@" >$out/args; cut -d' ' -f5,6 /proc/$$/stat >$out/ids; echo $$ >>$out/ids
`
	if err := os.WriteFile(path, []byte(body), 0o700); err != nil {
		t.Fatal(err)
	}
	if log, err := hookstest.Run(t, t.Context(), open(t, Config{Command: []string{path, "one", "$HOME two"}}), time.Minute); err != nil {
		t.Fatal(err, log)
	}
	for name, want := range map[string]string{"pwd": "/\n", "umask": "0077\n", "args": "one $HOME two\n"} {
		if got := hookstest.Read(t, path, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	ids := strings.Fields(hookstest.Read(t, path, "ids"))
	if len(ids) != 3 || ids[0] != ids[2] || ids[1] != ids[2] {
		t.Errorf("group, session and process are %v, want all the same", ids)
	}
	ev := hookstest.SampleEvent(hooks.AfterUp)
	want, _ := json.Marshal(ev)
	if got := strings.TrimSpace(hookstest.Read(t, path, "stdin")); got != string(want) {
		t.Errorf("stdin is %s\nwant %s", got, want)
	}
	checkEnvironment(t, strings.Split(strings.TrimSpace(hookstest.Read(t, path, "env")), "\n"), ev)
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
		if got := strings.Join(append(tc.c.Command[1:], tc.c.arguments(tc.ev)...), " "); got != tc.want {
			t.Errorf("style %q: arguments %q, want %q", tc.c.Style, got, tc.want)
		}
	}
}

func TestExit75IsTriedAgainUntilItWorks(t *testing.T) {
	path := hookstest.Script(t, `echo x >>tries; [ $(wc -l <tries) -ge 3 ] || { echo "not yet"; exit 75; }`)
	if _, err := hookstest.Run(t, t.Context(), open(t, Config{Command: []string{path}}), time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := hookstest.Read(t, path, "tries"); got != "x\nx\nx\n" {
		t.Errorf("tries %q, want three", got)
	}
}

// The end of its context comes while the program runs: what it said before counts.
func TestExit75ForEverFailsWithWhatTheProgramSaid(t *testing.T) {
	path := hookstest.Script(t, `echo x >>tries; [ $(wc -l <tries) -lt 2 ] || { echo x >second; exec sleep 600; }; echo "still syncing"; exit 75`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	h := open(t, Config{Command: []string{path}})
	go func() { ended <- h.Run(ctx, hookstest.SampleEvent(hooks.AfterUp)) }()
	hookstest.Within(t, "the second try", func() bool {
		_, err := os.Stat(filepath.Join(filepath.Dir(path), "second"))
		return err == nil
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "still syncing") || !strings.Contains(err.Error(), "in try 2") {
		t.Errorf("got %v", err)
	}
}

func TestProgramThatDoesNotReadItsInputIsNoTrouble(t *testing.T) {
	h := open(t, Config{Command: []string{hookstest.Script(t, "exec <&-; exit 0")}})
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

func TestExitCodesOfANotification(t *testing.T) {
	for code, want := range map[int]string{1: "exit code 1", 77: "it has not the rights", 78: "exit code 78", 124: "a time limit", 137: "was killed"} {
		err := open(t, Config{Command: []string{hookstest.Script(t, "exit "+strconv.Itoa(code))}}).Run(t.Context(), hookstest.SampleEvent(hooks.AfterUp))
		if err == nil || !strings.Contains(err.Error(), want) || hooks.Refused(err) != (code == 78) {
			t.Errorf("code %d: %v", code, err)
		}
	}
}
