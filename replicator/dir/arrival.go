package dir

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/carpd/carpd/replicator/inotify"
)

// arrivalPoll is how often Arrivals.Wait says that something may have arrived without a
// sign of it.
const arrivalPoll = 5 * time.Second

// Arrivals waits for snapshots that others publish in a store. The zero value is not
// of use; get one from Store.Arrivals. It is of one goroutine.
type Arrivals struct {
	store *Store
	watch *inotify.Watch
}

// Arrivals returns what waits for snapshots. Close is the caller's.
func (s *Store) Arrivals() *Arrivals { return &Arrivals{store: s} }

// Wait returns when a snapshot may have arrived since the last Wait: at the first call,
// when a manifest took its name, and every few seconds. Its error is that of ctx, or says
// why the directory cannot be watched.
func (a *Arrivals) Wait(ctx context.Context) error {
	if a.watch == nil {
		w, err := inotify.Open(a.store.path, func(name string) bool { return strings.HasSuffix(name, manifestSuffix) })
		if err != nil {
			return fmt.Errorf("dir: watch %s: %w", a.store.path, err)
		}
		a.watch = w
		return nil // what came before it was watched
	}
	if _, err := a.watch.Wait(ctx, arrivalPoll); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("dir: watch %s: %w", a.store.path, a.end(err))
	}
	return nil
}

// end gives up a watch that is of no use any more; the next Wait begins another.
func (a *Arrivals) end(err error) error {
	_ = a.watch.Close() // nothing was written
	a.watch = nil
	return err
}

// Close ends the watch.
func (a *Arrivals) Close() error {
	if a.watch == nil {
		return nil
	}
	return a.watch.Close()
}
