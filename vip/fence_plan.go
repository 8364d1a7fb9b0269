package vip

import (
	"fmt"
	"time"

	"github.com/carpd/carpd/carp"
)

const (
	// FenceFloor is the master-down time from which on a fence is promised: not that it
	// closes in time, which it does at any, but that it does not close on a master that
	// lives.
	FenceFloor = 300 * time.Millisecond

	// A lease behind a fence that nobody else can remove only cleans up after a dead
	// daemon. It may be long, and forgives the worker long batches.
	fencedValid = 10 * time.Second
	fencedRenew = fencedValid / 4
)

// FencedLease is the lease for addresses behind a fence that is Guarded.
func FencedLease() Lease {
	return Lease{Valid: fencedValid, Renew: fencedRenew, Note: fmt.Sprintf(
		"it only cleans up after a dead daemon, within %v: until then the fence keeps its addresses silent", round(fencedValid+kernelLate))}
}

// FencePromise is what a fence promises for a group.
type FencePromise struct {
	Closed   time.Duration // after the last advert: from then on a dead or frozen node is silent
	Promised bool          // also that it does not close on a master that lives
	Note     string        // one clause for status and log
}

// PlanFence returns what a fence promises for a group whose fastest backup takes over
// masterDown after the last advert.
func PlanFence(masterDown time.Duration) FencePromise {
	p := FencePromise{Closed: carp.PermitTime(masterDown), Promised: masterDown >= FenceFloor}
	p.Note = fmt.Sprintf("a dead, hung or frozen node is silent %v after its last advert, %v before a backup takes over",
		p.Closed.Round(time.Millisecond), (masterDown - p.Closed).Round(time.Millisecond))
	if !p.Promised {
		p.Note += fmt.Sprintf("; but below a master-down time of %v a living one may be cut for moments when its machine is busy", FenceFloor)
	}
	return p
}
