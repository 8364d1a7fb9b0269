package replicator

import (
	"cmp"
	"context"
	"errors"
	"io"

	"github.com/carpd/carpd/carp"
)

// ErrUnsound is the error of a snapshot that was taken and refused.
var ErrUnsound = errors.New("replicator: the snapshot is not sound")

// Source is a database that snapshots are taken of. Its methods are called by one
// goroutine at a time.
type Source interface {
	// Changed returns when the database may hold something else than the latest Take
	// saw, and at once before the first Take. It may return for no reason, but not
	// again and again; its error is that of ctx, or says why nothing can be seen.
	Changed(ctx context.Context) error
	// Take writes a snapshot to path, where nothing is yet, and verifies it: durable, in
	// rollback-journal mode, mode 0600. before is Rules.Before of the verdict. On an
	// error nothing is left at path. A snapshot that is not sound is none: the error is
	// then ErrUnsound, and the verdict says why.
	Take(ctx context.Context, path string, before map[string]int64) (Taken, error)
}

// Taken is what a Source took.
type Taken struct {
	Manifest Manifest // without Version, Source and Time
	Verdict  Verdict
}

// Target is where snapshots are shipped to: the store of another node. Its methods are
// called by one goroutine at a time, and return soon after ctx ends, also when the
// other node hangs: a role is given up no faster than that.
type Target interface {
	// Newest returns the manifest of the newest snapshot that is there, or ErrNotFound.
	Newest(ctx context.Context) (Manifest, error)
	// Ship publishes a snapshot of a store there, under the contract of Store.Publish:
	// ErrOlder, ErrDamaged. It may read other snapshots of from, to send only what
	// differs. sent counts the bytes that went onto the wire, also on an error.
	Ship(ctx context.Context, m Manifest, from Store) (sent int64, err error)
	// Close ends the connection, if there is one; the next call opens another.
	io.Closer
}

// First returns the version of the first snapshot of a mastership, given the newest
// that is in the node's own store, or the zero value if there is none. It is greater
// than that one also when the clock that epochs come from has lost its state.
// Snapshots of the same mastership follow by Sequence.
func First(newest Version, epoch carp.Epoch, node uint8) Version {
	v := Version{Epoch: max(epoch, newest.Epoch), Node: node, Sequence: 1}
	switch cmp.Compare(v.Node, newest.Node) {
	case 0:
		if v.Epoch == newest.Epoch {
			v.Sequence = newest.Sequence + 1
		}
	case -1:
		if v.Epoch == newest.Epoch {
			v.Epoch++
		}
	}
	return v
}
