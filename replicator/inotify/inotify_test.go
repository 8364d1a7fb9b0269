package inotify_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator/inotify"
)

// watch watches a new directory for files whose name is "a".
func watch(t *testing.T) (string, *inotify.Watch) {
	t.Helper()
	where := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(where, 0o700); err != nil {
		t.Fatal(err)
	}
	w, err := inotify.Open(where, func(name string) bool { return name == "a" })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return where, w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEachChangeOfARelevantFileIsSeenAndNoOther(t *testing.T) {
	where, w := watch(t)
	a, b := filepath.Join(where, "a"), filepath.Join(where, "b")
	for name, change := range map[string]func() error{
		"made":    func() error { return os.WriteFile(a, []byte("1"), 0o600) },
		"written": func() error { return os.WriteFile(a, []byte("2"), 0o600) },
		"replaced": func() error {
			return errors.Join(os.WriteFile(b, nil, 0o600), os.Rename(b, a))
		},
		"removed": func() error { return os.RemoveAll(a) },
	} {
		must(t, os.WriteFile(a, nil, 0o600))
		for {
			changed, err := w.Wait(t.Context(), time.Millisecond)
			must(t, err)
			if !changed {
				break
			}
		}
		must(t, change())
		if changed, err := w.Wait(t.Context(), 10*time.Second); err != nil || !changed {
			t.Errorf("%s: %v, %v", name, changed, err)
		}
		for changed := true; changed; {
			var err error
			changed, err = w.Wait(t.Context(), time.Millisecond)
			must(t, err)
		}
		must(t, os.WriteFile(b, []byte("1"), 0o600))
		if changed, err := w.Wait(t.Context(), time.Millisecond); err != nil || changed {
			t.Errorf("%s: another file: %v, %v", name, changed, err)
		}
	}
}

func TestWaitingEndsWithItsContextAndWithTheDirectory(t *testing.T) {
	where, w := watch(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := w.Wait(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if changed, err := w.Wait(t.Context(), time.Millisecond); changed || err != nil {
		t.Errorf("the next wait: %v, %v", changed, err)
	}
	must(t, os.Remove(where))
	if _, err := w.Wait(t.Context(), 10*time.Second); !errors.Is(err, inotify.ErrGone) {
		t.Error(err)
	}
	if _, err := inotify.Open(where, nil); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
