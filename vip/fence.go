package vip

import (
	"errors"
	"net/netip"
	"time"
)

// Fence is what Gates needs of the kernel's packet filter: rules under which our
// addresses answer only while something in the kernel lives that ends by itself. Its
// methods may be called from several goroutines at once. OpenFence returns the real
// one, package viptest a fake; viptest.FenceConformance says what both promise.
//
// An address belongs to a mark, a mark is set to a tag, and a tag lives for a time.
// A packet of the address passes only if the tag that its mark is set to lives:
// what arrives for the address, what leaves with it as the source, ARP that names it
// as the sender, and neighbour advertisements for it. What goes to the address from
// here passes always, so that a backup can use it at the master.
type Fence interface {
	// Protect makes addrs the addresses of a mark, instead of those it had. A mark
	// that is new is closed; one that is known goes on as it is, and so do the
	// addresses that stay. Link-local addresses count on the named interfaces only.
	// An address of another mark is refused with ErrFenced, and nothing is changed.
	Protect(mark uint32, links []string, addrs []netip.Addr) error
	// Forget drops a mark and its addresses, which pass from then on.
	Forget(mark uint32) error
	// Stage gives tags a life, rounded down to milliseconds, counted from an instant
	// within the call. No mark is set to them, so nothing passes because of them. All
	// or none.
	Stage(stages []Stage) error
	// Set sets marks to tags, alive or not; tag 0 never lives. All or none. To set a
	// mark to a tag does not lengthen the tag's life.
	Set(points []Point) error
	// Restore makes everything anew, closed, after ErrFenceLost.
	Restore() error
	// Lost is told when somebody else has destroyed the fence. Where the kernel keeps
	// others from that (Guarded), it never is.
	Lost() <-chan struct{}
	// Guarded reports whether the kernel refuses others to change the fence, and keeps
	// it when this process is killed.
	Guarded() bool
	// RemoveStale removes the fences that dead daemons left, and returns their names.
	RemoveStale() ([]string, error)
	// Close removes the fence; calling it twice is harmless.
	Close() error
}

// Stage is a tag and how long it is to live.
type Stage struct {
	Tag  uint32
	Life time.Duration
}

// Point is a mark and the tag that it is to be set to, 0 to close it.
type Point struct{ Mark, Tag uint32 }

// Causes that callers branch on.
var (
	// ErrNoFence: the kernel has no nf_tables that could serve, or does not let us.
	ErrNoFence = errors.New("no packet filter to be had")
	// ErrFenceLost: somebody else has removed or changed the fence.
	ErrFenceLost = errors.New("somebody else has removed the fence")
	// ErrFenced: the address belongs to another mark.
	ErrFenced = errors.New("the address is fenced for another instance already")
	// ErrGatesEnded: Run has ended.
	ErrGatesEnded = errors.New("the gates are no longer looked after")
)
