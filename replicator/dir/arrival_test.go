package dir_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator/storetest"
)

func TestAnArrivalIsSeenAtOnceAlsoAfterTheDirectoryWasDeleted(t *testing.T) {
	where := filepath.Join(t.TempDir(), "store")
	s := open(t, where)
	a := s.Arrivals()
	defer a.Close()
	if err := a.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	arrive := func(sequence uint64) {
		t.Helper()
		seen := make(chan error, 1)
		began := time.Now()
		go func() { seen <- a.Wait(t.Context()) }()
		m, data := storetest.Snapshot(storetest.V(5, 1, sequence), 512)
		if err := s.Publish(t.Context(), m, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		if err := <-seen; err != nil || time.Since(began) > 4*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	}
	arrive(1)
	if err := os.RemoveAll(where); err != nil {
		t.Fatal(err)
	}
	for a.Wait(t.Context()) == nil { // what is deleted is a change, too
	}
	if err := a.Wait(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory, and no error: %v", err)
	}
	open(t, where)
	if err := a.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	arrive(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
