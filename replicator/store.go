package replicator

import (
	"context"
	"errors"
	"io"
	"time"
)

var (
	// ErrOlder is the error of publishing a version that is not newer than all there are.
	ErrOlder = errors.New("replicator: not newer than what is there")
	// ErrNotFound is the error of asking for a version that is not there.
	ErrNotFound = errors.New("replicator: no such snapshot")
	// ErrDamaged is the error of bytes that are not those of the manifest.
	ErrDamaged = errors.New("replicator: not the bytes of the manifest")
)

// Store keeps snapshots of one database. Whatever ends a call, at whatever point, the
// snapshots that were there before are there after it. All methods may be called by
// many at the same time; package storetest holds a Store to this contract.
type Store interface {
	// Publish adds a snapshot whose bytes are read from data. It is visible as a whole
	// and durable when Publish returns nil, and not at all when the bytes are not those
	// of the manifest (ErrDamaged) or the version is not greater than all there are
	// (ErrOlder). Publishing again what is the newest is done at once.
	Publish(ctx context.Context, m Manifest, data io.Reader) error
	// List returns all snapshots, newest first, without those in quarantine.
	List(ctx context.Context) ([]Manifest, error)
	// Open reads a snapshot. Where bytes were damaged since, its reader ends with
	// ErrDamaged instead of io.EOF. Close is the caller's.
	Open(ctx context.Context, v Version) (io.ReadCloser, error)
	// Prune deletes what Keep does not keep, after a look whether what stays is what it
	// was; what is not goes to quarantine. It returns what it deleted.
	Prune(ctx context.Context, keep Keep, now time.Time) ([]Version, error)
	// Quarantine takes a snapshot out of service and keeps it, with the reason, for
	// people to look at. A store may keep but the newest few.
	Quarantine(ctx context.Context, v Version, f Fault) error
	// Quarantined lists what is in quarantine, newest first.
	Quarantined(ctx context.Context) ([]Quarantined, error)
}

// Quarantined is a snapshot that is out of service.
type Quarantined struct {
	Version Version `json:"version"`
	Fault   Fault   `json:"fault"`
}

// Keep says which snapshots stay. The zero value keeps all.
type Keep struct {
	Count int           // at most so many; 0: any number
	Age   time.Duration // none that is older, by the time of its manifest; 0: any age
	Least int           // so many sound ones stay whatever Count and Age say; 0: one
}

// Choose divides snapshots, newest first, into those that are dropped and those that
// were found damaged. It asks sound from the newest on until Least were, and drops
// nothing before: so the last sound one stays, whatever is damaged.
func (k Keep) Choose(all []Manifest, now time.Time, sound func(Manifest) bool) (drop, damaged []Version) {
	found, kept := 0, 0
	for _, m := range all {
		switch {
		case found < max(k.Least, 1) && !sound(m):
			damaged = append(damaged, m.Version)
			continue
		case found < max(k.Least, 1):
			found++
		case k.Count > 0 && kept >= k.Count || k.Age > 0 && now.Sub(m.Time) > k.Age:
			drop = append(drop, m.Version)
			continue
		}
		kept++
	}
	return drop, damaged
}
