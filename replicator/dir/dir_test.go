package dir_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/storetest"
)

func open(t testing.TB, path string) *dir.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := dir.Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	storetest.Conformance(t, func(t *testing.T) storetest.Store {
		path := filepath.Join(t.TempDir(), "snapshots")
		s := open(t, path)
		return storetest.Store{Store: s,
			Reopen: func() replicator.Store { return open(t, path) },
			Damage: func(v replicator.Version) {
				f, err := os.OpenFile(s.Path(v), os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if _, err := f.WriteAt([]byte{0xff}, 1000); err != nil {
					t.Fatal(err)
				}
			}}
	})
}

// The steps in their order; a test below fails if there is another.
var (
	publishing  = []string{"write-data", "half", "read-back", "rename-data", "sync-data", "write-manifest", "rename-manifest", "sync-manifest"}
	pruning     = []string{"remove-manifest", "remove-data"}
	quarantined = []string{"write-reason", "rename-reason", "sync-reason", "hide", "move"}
)

var old, bad, fresh = storetest.V(1, 1, 1), storetest.V(1, 1, 2), storetest.V(2, 1, 1)

// act does one of three things to a store that holds old and bad. stop is called
// before each step, and within the writing of the data.
func act(ctx context.Context, s *dir.Store, what string, stop func(string) error) error {
	s.SetStep(stop)
	switch what {
	case "publish":
		m, data := storetest.Snapshot(fresh, 64<<10)
		return s.Publish(ctx, m, io.MultiReader(bytes.NewReader(data[:30<<10]), reader(func() error { return stop("half") }), bytes.NewReader(data[30<<10:])))
	case "prune":
		_, err := s.Prune(ctx, replicator.Keep{Count: 1}, time.Now())
		return err
	}
	return s.Quarantine(ctx, bad, replicator.Fault{Reason: replicator.Integrity, Text: "damaged"})
}

// reader gives nothing, and calls a function.
type reader func() error

func (r reader) Read([]byte) (int, error) {
	if err := r(); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

// filled makes a store that holds old and bad.
func filled(t testing.TB) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "snapshots")
	s := open(t, path)
	for _, v := range []replicator.Version{old, bad} {
		m, data := storetest.Snapshot(v, 16<<10)
		if err := s.Publish(t.Context(), m, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// after says what a store may hold when an action stopped at a step: what it held
// before, until what makes the difference is done.
func after(what, step string) []replicator.Version {
	switch {
	case what == "publish" && step == "sync-manifest":
		return []replicator.Version{fresh, bad, old}
	case what == "prune" && step == "remove-data":
		return []replicator.Version{bad}
	case what == "quarantine" && (step == "hide" || step == "move" || step == "sync-reason"):
		return []replicator.Version{old} // the reason is written: the next start finishes it
	}
	return []replicator.Version{bad, old}
}

// each calls a test with each step of each action.
func each(t *testing.T, test func(t *testing.T, what, step string)) {
	for what, steps := range map[string][]string{"publish": publishing, "prune": pruning, "quarantine": quarantined} {
		for _, step := range steps {
			t.Run(what+"/"+step, func(t *testing.T) { test(t, what, step) })
		}
	}
}

func TestAllStepsAreKnown(t *testing.T) {
	for what, want := range map[string][]string{"publish": publishing, "prune": pruning, "quarantine": quarantined} {
		var got []string
		if err := act(t.Context(), open(t, filled(t)), what, func(s string) error { got = append(got, s); return nil }); err != nil {
			t.Error(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
}

// TestACrashAtAnyStepLeavesWhatWasThere kills a process of its own before each step.
func TestACrashAtAnyStepLeavesWhatWasThere(t *testing.T) {
	if where := os.Getenv("CARPD_STORE"); where != "" {
		what, step, _ := strings.Cut(os.Getenv("CARPD_STEP"), "/")
		err := act(context.Background(), open(t, where), what, func(s string) error {
			if s != step {
				return nil
			}
			return errors.Join(syscall.Kill(os.Getpid(), syscall.SIGKILL), io.ErrNoProgress)
		})
		t.Fatal("still there:", err)
	}
	each(t, func(t *testing.T, what, step string) {
		path := filled(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		child := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestACrashAtAnyStepLeavesWhatWasThere$")
		child.Env = append(os.Environ(), "CARPD_STORE="+path, "CARPD_STEP="+what+"/"+step)
		var exit *exec.ExitError
		out, err := child.CombinedOutput()
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the process was not killed: %v\n%s", err, out)
		}
		s := open(t, path) // the next start
		storetest.Holds(t, s, after(what, step)...)
		leftovers(t, path)
		// And it goes on: what was cut off can be done again.
		if err := act(t.Context(), s, "publish", func(string) error { return nil }); err != nil {
			t.Error(err)
		}
		if all, err := s.List(t.Context()); err != nil || all[0].Version != fresh {
			t.Error(all, err)
		}
	})
}

// TestAFailureAtAnyStepLeavesWhatWasThere has each step fail, as on a full disk.
func TestAFailureAtAnyStepLeavesWhatWasThere(t *testing.T) {
	each(t, func(t *testing.T, what, step string) {
		path := filled(t)
		s := open(t, path)
		err := act(t.Context(), s, what, func(at string) error {
			if at == step {
				return &os.PathError{Op: "write", Path: path, Err: syscall.ENOSPC}
			}
			return nil
		})
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%v, want that the disk is full", err)
		}
		s = open(t, path)
		storetest.Holds(t, s, after(what, step)...)
		leftovers(t, path)
	})
}

// leftovers fails if a directory holds what belongs to no snapshot.
func leftovers(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, e := range entries {
		names[e.Name()] = true
	}
	for name := range names {
		base, isData := strings.CutSuffix(name, ".db")
		if strings.HasPrefix(name, ".new-") || isData && !names[base+".json"] {
			t.Errorf("%s is left over", name)
		}
	}
}

func TestSnapshotsAreForTheirOwnerOnly(t *testing.T) {
	path := filled(t)
	err := filepath.WalkDir(path, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAManifestThatSaysNothingIsPutAway(t *testing.T) {
	for name, change := range map[string]func(text string) string{
		"torn":         func(s string) string { return s[:len(s)/2] },
		"empty":        func(string) string { return "" },
		"of another":   func(s string) string { return strings.Replace(s, `"sequence": 2`, `"sequence": 7`, 1) },
		"newer format": func(s string) string { return strings.Replace(s, `"format": 1`, `"format": 2`, 1) },
		"of other size": func(s string) string {
			return strings.Replace(strings.Replace(s, "16384", "512", 1), `"pages": 32`, `"pages": 1`, 1)
		},
	} {
		path := filled(t)
		file := filepath.Join(path, bad.String()+".json")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(change(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, path)
		storetest.Holds(t, s, old)
		if q, err := s.Quarantined(t.Context()); err != nil || len(q) != 1 || q[0].Version != bad || q[0].Fault.Reason != replicator.Unreadable {
			t.Errorf("%s: %v, %v", name, q, err)
		}
	}
}

func TestASnapshotWithoutItsDataIsNotThere(t *testing.T) {
	path := filled(t)
	if err := os.Remove(filepath.Join(path, bad.String()+".db")); err != nil {
		t.Fatal(err)
	}
	storetest.Holds(t, open(t, path), old)
}

func TestQuarantineIsBounded(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "snapshots"))
	for i := range uint64(12) {
		v := storetest.V(1, 1, i+1)
		m, data := storetest.Snapshot(v, 512)
		if err := errors.Join(s.Publish(t.Context(), m, bytes.NewReader(data)), s.Quarantine(t.Context(), v, replicator.Fault{Reason: replicator.Digest})); err != nil {
			t.Fatal(err)
		}
	}
	if q, err := s.Quarantined(t.Context()); err != nil || len(q) != 8 || q[0].Version.Sequence != 12 {
		t.Error(q, err)
	}
}

func TestWhoWaitsForTheLockGivesUpInTime(t *testing.T) {
	path := filled(t)
	s := open(t, path)
	inside, leave := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- act(context.Background(), s, "publish", func(step string) error {
			if step == "half" {
				close(inside)
				<-leave
			}
			return nil
		})
	}()
	<-inside
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := dir.Open(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the lock was not waited for: %v", err)
	}
	storetest.Holds(t, s, bad, old) // reading waits for nobody
	close(leave)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	storetest.Holds(t, s, fresh, bad, old)
}

func TestADirectoryThatCannotBeIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Open(t.Context(), file); err == nil || !strings.HasPrefix(fmt.Sprint(err), "dir: ") {
		t.Error(err)
	}
}

func TestADirectoryThatWasDeletedIsMadeAgain(t *testing.T) {
	where := filepath.Join(t.TempDir(), "store")
	s, err := dir.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	m, data := storetest.Snapshot(storetest.V(5, 1, 1), 512)
	if os.Geteuid() == 0 { // it belongs to the user who writes from afar
		if err := os.Lchown(where, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if s, err = dir.Open(t.Context(), where); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := os.RemoveAll(where); err != nil {
			t.Fatal(err)
		}
		if all, err := s.List(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("%v, %v", all, err)
		}
		if err := s.Publish(t.Context(), m, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		storetest.Holds(t, s, m.Version)
		for _, name := range []string{where, filepath.Join(where, "quarantine"), s.Path(m.Version)} {
			if info, err := os.Stat(name); err != nil || os.Geteuid() == 0 && info.Sys().(*syscall.Stat_t).Uid != 12345 {
				t.Errorf("%s belongs to another: %v, %v", name, info.Sys(), err)
			}
		}
	}
}
