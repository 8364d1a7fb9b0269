package hookstest

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
)

// SafeDir returns a directory of the test's that is accepted as the place of a program
// that a hook runs, whatever the umask of who runs the tests. Its name is short, so that a
// socket may be in it.
func SafeDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hook-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Script writes a shell script that a hook may run, and returns its path. It runs in its
// own directory, where it may leave files.
func Script(t testing.TB, body string) string {
	t.Helper()
	path := filepath.Join(SafeDir(t), "hook.sh")
	if err := os.WriteFile(path, []byte("#!/bin/sh\ncd \"${0%/*}\" || exit 9\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// Within asks until ok, and fails the test after ten seconds. what is for the message.
func Within(t testing.TB, what string, ok func() bool) {
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

// Read returns what a script of Script has left in a file of its directory.
func Read(t testing.TB, script, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(filepath.Dir(script), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Run runs a hook in a Runner with a timeout, and returns its error and what was logged.
func Run(t testing.TB, ctx context.Context, h hooks.Hook, timeout time.Duration) (log string, err error) {
	t.Helper()
	var b Log
	r, err := hooks.NewRunner([]hooks.Step{{
		Name: "step", Kind: "test", Phase: hooks.AfterUp, OnFailure: hooks.Demote, Timeout: timeout, Hook: h,
	}}, hooks.Options{Log: slog.New(slog.NewTextHandler(&b, nil))})
	if err != nil {
		t.Fatal(err)
	}
	err = r.Run(ctx, hooks.AfterUp, SampleEvent(hooks.AfterUp))
	return b.String(), err
}

// Log takes log lines from several goroutines. The zero value is empty.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns all lines.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
