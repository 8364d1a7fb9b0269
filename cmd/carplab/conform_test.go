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
	for name, args := range map[string][]string{
		"no such command":   {"confirm"},
		"nothing given":     {"conform"},
		"unknown flag":      append(good[:len(good):len(good)], "--vhids", "9"),
		"unknown format":    append(good[:len(good):len(good)], "--format", "yaml"),
		"unknown protocol":  append(good[:len(good):len(good)], "--protocol", "vrrp2"),
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
	var stdout, stderr bytes.Buffer
	if code := run(context.Background(), []string{"conform", "--list"}, &stdout, &stderr); code != exitPassed {
		t.Fatalf("exit %d: %s", code, &stderr)
	}
	for _, r := range conform.Rows() {
		if !strings.Contains(stdout.String(), r.ID) || !strings.Contains(stdout.String(), r.Rule) {
			t.Errorf("%s is not listed", r.ID)
		}
	}
}
