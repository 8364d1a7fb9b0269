package replicator

import (
	"context"
	"sync"
	"time"
)

// keeper prunes a store and counts what is in it. It is of one goroutine, get excepted.
type keeper struct {
	store Store
	keep  Keep

	mu     sync.Mutex
	status StoreStatus
}

// tend prunes soon after there is something to drop, and now and then: that is also a
// look whether what is kept is what it was.
func (k *keeper) tend(ctx context.Context) {
	s, spacing := k.get(), pruneEvery
	if k.keep.Count > 0 && s.Snapshots > k.keep.Count {
		spacing = pruneSpacing
	}
	if time.Since(s.LastPrune) >= spacing {
		k.prune(ctx)
	}
}

// prune returns how many snapshots it deleted.
func (k *keeper) prune(ctx context.Context) int { return k.pruneTo(ctx, k.keep) }

// pruneTo is prune with another rule.
func (k *keeper) pruneTo(ctx context.Context, keep Keep) int {
	now := time.Now()
	dropped, err := k.store.Prune(ctx, keep, now)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.LastPrune, k.status.PruneError = now, ""
	k.status.Pruned += uint64(len(dropped))
	if err != nil {
		k.status.PruneError = err.Error()
	}
	return len(dropped)
}

// look returns what is in service, newest first.
func (k *keeper) look(ctx context.Context) ([]Manifest, error) {
	all, err := k.store.List(ctx)
	if err != nil {
		return nil, err
	}
	away, err := k.store.Quarantined(ctx)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &k.status
	s.Snapshots, s.Bytes, s.Quarantined, s.LastQuarantine = len(all), 0, len(away), Quarantined{}
	for _, m := range all {
		s.Bytes += m.Size
	}
	if len(away) > 0 {
		s.LastQuarantine = away[0]
	}
	return all, nil
}

func (k *keeper) get() StoreStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}
