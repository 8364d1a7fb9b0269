package vip

import (
	"fmt"
	"net/netip"
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

	// Renewals of all addresses of an interface may take this part of the time.
	renewalShare = 8
)

// FencedLease is the lease for addresses behind a fence that is Guarded, on an interface
// where a renewal of all addresses has this cost (RenewalCost): long enough for that.
func FencedLease(cost time.Duration) Lease {
	valid := max(fencedValid, (4*renewalShare*cost).Truncate(time.Second)+time.Second)
	return Lease{Valid: valid, Renew: valid / 4, Note: fmt.Sprintf(
		"it only cleans up after a dead daemon, within %v: until then the fence keeps its addresses silent", round(valid+kernelLate))}
}

// Bears reports whether renewals of this cost leave the kernel most of its time. Where
// they do not, addresses go because others are being renewed.
func (l Lease) Bears(cost time.Duration) bool { return l.Valid == 0 || renewalShare*cost <= l.Renew }

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

// RenewalCost estimates how long the kernel takes to renew all addresses of an interface
// once, of whatever instances they are: it walks the list of them for each one. The
// figures are those of a machine of 2026 (BenchmarkRenewal).
func RenewalCost(on []netip.Prefix) time.Duration {
	var v4, v6 time.Duration
	for _, p := range on {
		if p.Addr().Is4() {
			v4++
		} else {
			v6++
		}
	}
	const each4, pair4, each6, pair6 = 2000, 2, 50_000, 240 // nanoseconds
	return v4*each4 + v4*v4*pair4 + v6*each6 + v6*v6*pair6
}
