package replicator

import "time"

// Defaults of MasterConfig and StandbyConfig.
const (
	// DefaultSettle is how long a change waits for others before a snapshot is taken.
	DefaultSettle = 100 * time.Millisecond
	// DefaultLatest is how long it waits at most while changes go on and on.
	DefaultLatest = 500 * time.Millisecond
	// DefaultLook is after how long a database that shows no change is copied all the
	// same and compared: the net below the watching.
	DefaultLook = time.Minute
	// DefaultRecheck is how often a peer is asked whether it still has what it got.
	DefaultRecheck = 10 * time.Second
	// DefaultTakeTimeout bounds taking, publishing and verifying one snapshot.
	DefaultTakeTimeout = 5 * time.Minute
	// DefaultShipTimeout bounds one try to ship a snapshot to one peer.
	DefaultShipTimeout = 10 * time.Minute
	// DefaultPoll is how often a store is looked at that cannot say when something arrives.
	DefaultPoll = time.Second
)

const (
	askTimeout    = 10 * time.Second // for a peer to say what it has
	pruneEvery    = 10 * time.Minute // at least: pruning looks at what it keeps
	pruneSpacing  = 5 * time.Second  // at most so often while snapshots come in a row
	takeRetry     = 100 * time.Millisecond
	takeRetryMax  = 10 * time.Second
	lookShare     = 50          // times what a snapshot costs is at least between two looks without a sign of a change
	blindEvery    = time.Second // a look at a database whose changes cannot be seen
	emptyRetry    = 50 * time.Millisecond
	emptyRetryMax = 2 * time.Second
	emptyTries    = 20 // in a row, emptyRetry apart
	shipRetry     = 250 * time.Millisecond
	shipRetryMax  = 5 * time.Second
	lostRetryMax  = 5 * time.Minute // for a peer that takes snapshots and does not keep them
)

// settle returns how long a change waits for others: the shortest time after a rest of
// that length, and twice the time before it, up to latest, while one snapshot follows
// another. What a snapshot took counts: half of the time at most goes into them. Quiet is
// how long ago the last one was finished, before is what its change had waited.
func settle(shortest, latest, took, before, quiet time.Duration) time.Duration {
	latest = max(latest, took)
	if before == 0 || quiet >= max(shortest, took) {
		return min(shortest, latest)
	}
	return min(2*before, latest)
}

// halfSaved returns how long to wait after so many snapshots in a row of which each held
// half a configuration: the other half comes soon, or it was meant.
func halfSaved(failures int) time.Duration {
	if failures <= emptyTries {
		return emptyRetry
	}
	return backoff(2*emptyRetry, emptyRetryMax, failures-emptyTries)
}

// backoff returns how long to wait after so many failures in a row.
func backoff(first, most time.Duration, failures int) time.Duration {
	d := first
	for i := 1; i < failures && d < most; i++ {
		d *= 2
	}
	return min(d, most)
}
