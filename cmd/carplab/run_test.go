package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const goodScenario = `node a
start
run 4s
holders
----
  0.000  a INIT -> BACKUP (link-up)
  3.000  a BACKUP -> MASTER (master-timed-out)
a
`

// badScenario is wrong in both backends: another time, another reason.
var badScenario = strings.Replace(goodScenario, "  3.000  a BACKUP -> MASTER (master-timed-out)", "  1.000  a BACKUP -> MASTER (bow-out)", 1)

// scenario writes scenario files and returns their directory.
func scenario(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// carplab runs one command line in this process.
func carplab(args ...string) (code int, stdout, stderr string) {
	var out, bad bytes.Buffer
	code = run(context.Background(), args, &out, &bad)
	return code, out.String(), bad.String()
}

func TestRunEndsWithTheCodeOfWhatItFound(t *testing.T) {
	dir := scenario(t, map[string]string{"good.txt": goodScenario, "bad.txt": badScenario, "broken.txt": "node a\nfly\n"})
	empty := t.TempDir()
	for name, tc := range map[string]struct {
		args []string
		want int
		says string
	}{
		"good":              {[]string{dir + "/good.txt"}, exitPassed, "1 passed, 0 failed, 0 skipped"},
		"bad":               {[]string{dir + "/good.txt", dir + "/bad.txt"}, exitFailed, "+  3.000  a BACKUP -> MASTER (master-timed-out)"},
		"how to repeat":     {[]string{dir + "/bad.txt"}, exitFailed, "repeat: carplab run " + dir + "/bad.txt"},
		"no scenario":       {[]string{dir}, exitUsage, "broken.txt:2: unknown command"},
		"no file":           {[]string{dir + "/none.txt"}, exitUsage, "no such file"},
		"empty directory":   {[]string{empty}, exitUsage, "no file is named *.txt"},
		"nothing":           {nil, exitUsage, "requires at least 1 arg"},
		"unwritable report": {[]string{"--junit", dir + "/no/such/dir", dir + "/good.txt"}, exitNothing, "no such file or directory"},
		"tap":               {[]string{"--tap", dir + "/good.txt"}, exitPassed, "TAP version 13\n1..1\nok 1 - "},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := carplab(append([]string{"run"}, tc.args...)...)
			if code != tc.want || !strings.Contains(stdout+stderr, tc.says) {
				t.Errorf("exit %d, want %d and %q:\n%s%s", code, tc.want, tc.says, stdout, stderr)
			}
		})
	}
}

func TestRewriteMakesAFailedScenarioPassAndChangesNothingAfterThat(t *testing.T) {
	dir := scenario(t, map[string]string{"bad.txt": badScenario})
	path := filepath.Join(dir, "bad.txt")
	for range 2 {
		if code, stdout, stderr := carplab("run", "--rewrite", path); code != exitPassed {
			t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != goodScenario {
			t.Fatalf("%v\n%s", err, text)
		}
	}
}

func TestKernelDoesNotRewriteWhatTheSimulatorMeasures(t *testing.T) {
	dir := scenario(t, map[string]string{"bad.txt": badScenario})
	code, _, stderr := carplab("run", "--kernel", "--rewrite", dir+"/bad.txt")
	if code != exitUsage || !strings.Contains(stderr, "the simulator is the measure") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestLabKernelRunReportsAndKeepsThePackets(t *testing.T) {
	if testing.Short() {
		t.Skip("plays in real time")
	}
	t.Parallel()
	dir := scenario(t, map[string]string{"good.txt": goodScenario, "bad.txt": badScenario})
	out := t.TempDir()
	cmd := exec.Command(program(t, "carplab"), "run", "--kernel", "--carpd", program(t, "carpd"),
		"--json", out+"/r.json", "--junit", out+"/r.xml", "--pcap", out, dir)
	text, err := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != exitFailed {
		t.Fatalf("exit %d (%v):\n%s", got, err, text)
	}
	for _, want := range []string{"ok    " + dir + "/good.txt", "number 2 is another one", "repeat: carplab run --kernel " + dir + "/bad.txt", "tcpdump -T carp -r " + out + "/bad.pcapng"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
	report, err := os.ReadFile(out + "/r.json")
	if err != nil {
		t.Fatal(err)
	}
	var r struct{ Counts map[string]int }
	if err := json.Unmarshal(report, &r); err != nil || r.Counts["pass"] != 1 || r.Counts["fail"] != 1 {
		t.Errorf("%v: %s", err, report)
	}
	for _, name := range []string{"r.xml", "bad.pcapng", "bad-a.log"} {
		if info, err := os.Stat(filepath.Join(out, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(out + "/good.pcapng"); err == nil {
		t.Error("packets of a scenario that passed were kept")
	}
}

// Without root the program runs itself again in a user namespace; where these are
// not allowed it says so, with 77.
func TestLabKernelRunNeedsNoRoot(t *testing.T) {
	if os.Getuid() != 0 || os.Getenv("CARPD_LAB_INSIDE") != "" {
		t.Skip("needs root, to become another user")
	}
	if testing.Short() {
		t.Skip("plays in real time")
	}
	t.Parallel()
	dir := scenario(t, map[string]string{"good.txt": goodScenario})
	for d := dir; d != os.TempDir() && len(d) > 1; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program(t, "carplab"), "run", "--kernel", "--carpd", program(t, "carpd"), dir+"/good.txt")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	text, err := cmd.CombinedOutput()
	switch code := cmd.ProcessState.ExitCode(); code {
	case exitPassed:
		if !strings.Contains(string(text), "1 passed, 0 failed, 0 skipped") {
			t.Errorf("%s", text)
		}
	case exitSkipped:
		if !strings.Contains(string(text), "hint: run as root") {
			t.Errorf("%s", text)
		}
	default:
		t.Errorf("exit %d (%v):\n%s", code, err, text)
	}
}
