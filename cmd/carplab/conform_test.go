package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carpd/carpd/test/conform"
)

func TestWrongCommandLinesEndWithTwoAndAHint(t *testing.T) {
	good := []string{"conform", "--interface", "lo", "--vhid", "9", "--key", "k", "--address", "192.0.2.50"}
	vrrp := []string{"conform", "--protocol", "vrrp3", "--interface", "lo", "--vrid", "9", "--address", "192.0.2.50"}
	for name, args := range map[string][]string{
		"no such command":   {"confirm"},
		"nothing given":     {"conform"},
		"unknown flag":      append(good[:len(good):len(good)], "--vhids", "9"),
		"unknown format":    append(good[:len(good):len(good)], "--format", "yaml"),
		"unknown protocol":  append(good[:len(good):len(good)], "--protocol", "hsrp"),
		"list of nothing":   {"conform", "--list", "--protocol", "hsrp"},
		"vrrp2 of IPv6":     append(vrrp[:len(vrrp):len(vrrp)], "--protocol", "vrrp2", "--address", "2001:db8::1"),
		"vrrp2 in between":  append(vrrp[:len(vrrp):len(vrrp)], "--protocol", "vrrp2", "--interval", "1500ms"),
		"vrrp3 with a key":  append(vrrp[:len(vrrp):len(vrrp)], "--key", "k"),
		"both families":     append(vrrp[:len(vrrp):len(vrrp)], "--address", "2001:db8::1"),
		"priority too high": append(vrrp[:len(vrrp):len(vrrp)], "--priority", "254"),
		"interval too long": append(vrrp[:len(vrrp):len(vrrp)], "--interval", "10s"),
		"both keys":         append(good[:len(good):len(good)], "--key-file", "/dev/null"),
		"no such key file":  {"conform", "--interface", "lo", "--vhid", "9", "--key-file", "/nonexistent", "--address", "192.0.2.50"},
		"a prefix":          append(good[:len(good):len(good)], "--address", "192.0.2.51/24"),
		"vhid 0":            append(good[:len(good):len(good)], "--vhid", "0"),
		"vhid 256":          append(good[:len(good):len(good)], "--vhid", "256"),
		"advskew too small": append(good[:len(good):len(good)], "--advskew", "3"),
		"an argument":       append(good[:len(good):len(good)], "eth0"),
	} {
		var stdout, stderr bytes.Buffer
		if code := run(context.Background(), args, &stdout, &stderr); code != exitUsage || !strings.Contains(stderr.String(), "hint: ") || stdout.Len() > 0 {
			t.Errorf("%s: exit %d\nstdout: %s\nstderr: %s", name, code, &stdout, &stderr)
		}
	}
}

func TestAnInterfaceThatIsNoneEndsWithThree(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("k\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	args := []string{"conform", "--interface", "nosuch0", "--vhid", "9", "--key-file", key, "--address", "192.0.2.50"}
	if code := run(context.Background(), args, &stdout, &stderr); code != exitNothing || !strings.Contains(stderr.String(), "nosuch0") {
		t.Errorf("exit %d: %s", code, &stderr)
	}
}

func TestListNamesEveryRow(t *testing.T) {
	for _, tc := range []struct {
		args []string
		rows []conform.Row
	}{
		{nil, conform.Rows()},
		{[]string{"--protocol", "vrrp2"}, conform.VRRPRows(2, false)},
		{[]string{"--protocol", "vrrp3"}, conform.VRRPRows(3, false)},
		{[]string{"--protocol", "vrrp3", "--address", "fe80::51"}, conform.VRRPRows(3, true)},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(context.Background(), append([]string{"conform", "--list"}, tc.args...), &stdout, &stderr); code != exitPassed {
			t.Fatalf("%v: exit %d: %s", tc.args, code, &stderr)
		}
		for _, r := range tc.rows {
			if !strings.Contains(stdout.String(), r.ID) || !strings.Contains(stdout.String(), r.Rule) {
				t.Errorf("%v: %s is not listed", tc.args, r.ID)
			}
		}
	}
}

// What a command of --restart leaves running must not be waited for, since it is
// the speaker, and its failure must not be taken for a start.
func TestRestartAndStopAreShellCommandsWithThePriorityInTheEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "said")
	var stderr bytes.Buffer
	if err := shell(t.Context(), &stderr, "--restart", "echo $PRIORITY >"+file+"; sleep 1 &", "PRIORITY=200"); err != nil {
		t.Fatal(err)
	}
	if said, err := os.ReadFile(file); err != nil || string(said) != "200\n" {
		t.Errorf("%q, %v", said, err)
	}
	if err := shell(t.Context(), &stderr, "--stop", "echo no; exit 3"); err == nil || !strings.Contains(err.Error(), "--stop") || stderr.String() != "no\n" {
		t.Errorf("%v, %q", err, &stderr)
	}
}
