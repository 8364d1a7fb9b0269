package main

import (
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
)

func TestMain(m *testing.M) { lab.Main(m) }

// program builds a command of ours.
func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "carplab") // t.TempDir is no place for another user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, name)
	out, err := exec.Command("go", "build", "-o", path, "github.com/carpd/carpd/cmd/"+name).CombinedOutput()
	if err = errors.Join(err, os.Chmod(dir, 0o755)); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return path
}

// carpd starts our daemon with an advskew on a host.
func carpd(t *testing.T, h *lab.Host, advskew int) {
	t.Helper()
	binary := program(t, "carpd")
	dir := filepath.Dir(binary)
	text := fmt.Sprintf("node: speaker\nstate_dir: %s/state\ncontrol: %s/sock\ninstances:\n  - vhid: 9\n    interface: eth0\n"+
		"    passphrase: a secret\n    advskew: %d\n    addresses: [10.77.0.50/24]\n", dir, dir, advskew)
	if err := os.WriteFile(filepath.Join(dir, "carpd.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Start(exec.Command(binary, "run", "--config", filepath.Join(dir, "carpd.yaml")))
}

func code(t *testing.T, p *lab.Proc) int {
	t.Helper()
	err := p.Wait(5 * time.Minute)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		return exit.ExitCode()
	}
	return 0
}

func TestConformEndsWithTheCodeOfWhatItFound(t *testing.T) {
	for _, tc := range []struct {
		name    string
		advskew int // the speaker's; 0: nobody is there
		uid     uint32
		want    int
		says    string
	}{
		{"a good speaker", 100, 0, exitPassed, "none is contrary to a must"},
		{"a speaker with another advskew than said", 140, 0, exitFailed, "contrary to a must: A-TIMING"},
		{"nobody", 0, 0, exitNothing, "no advert of the group was heard"},
		{"no right to raw sockets", 0, 65534, exitSkipped, "hint: run as root"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if testing.Short() && tc.advskew > 0 {
				t.Skip("takes a minute")
			}
			t.Parallel()
			lan := lab.New(t)
			speaker, tester := lan.Host("speaker", "10.77.0.10/24"), lan.Host("tester", "10.77.0.20/24")
			if tc.advskew > 0 {
				carpd(t, speaker, tc.advskew)
			}
			binary := program(t, "carplab")
			out := filepath.Join(t.TempDir(), "report.xml")
			cmd := exec.Command(binary, "conform", "--interface", "eth0", "--vhid", "9", "--key", "a secret",
				"--address", "10.77.0.50", "--quick", "--format", "junit", "--out", out)
			if tc.uid != 0 {
				if os.Getuid() != 0 || os.Getenv("CARPD_LAB_INSIDE") != "" {
					t.Skip("needs root, to become another user")
				}
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tc.uid, Gid: tc.uid}}
			}
			p := tester.Start(cmd)
			if got := code(t, p); got != tc.want || !strings.Contains(p.Output(), tc.says) {
				t.Errorf("exit %d, want %d and %q:\n%s", got, tc.want, tc.says, p.Output())
			}
			report, err := os.ReadFile(out)
			if wrote := err == nil; wrote != (tc.advskew > 0) {
				t.Fatalf("report: %v", err)
			}
			if tc.advskew > 0 && strings.Contains(string(report), "<failure") != (tc.want == exitFailed) {
				t.Errorf("the report and the exit code %d disagree:\n%s", tc.want, report)
			}
		})
	}
}
