package vip

import (
	"fmt"
	"time"

	"github.com/carpd/carpd/carp"
)

// Lease is the kernel lifetime of a set's addresses: the kernel takes them off
// when nobody renews them, so a daemon that is dead, killed or frozen stops
// answering for them. The zero value is no lease: the addresses stay until they
// are taken off.
type Lease struct {
	Valid    time.Duration // lifetime, whole seconds; 0 = no lease
	Renew    time.Duration // time between two renewals
	Late     time.Duration // how late the kernel may be; part of the promise, 0 without one
	Gone     time.Duration // after the last advert of a dead node at the latest; 0 without a promise
	Promised bool          // gone before the fastest backup takes over
	Note     string        // one sentence for status and log
}

const (
	// kernelLate is how much later than the lifetime the kernel may remove an
	// address: its check never runs sooner than 1 s after the last one, and any
	// address that is added or refreshed counts as a check. Measured: 1.067 s.
	kernelLate = 1100 * time.Millisecond
	// leaseFloor is the master-down time up to which whole seconds promise nothing.
	leaseFloor = 2200 * time.Millisecond
	maxValid   = 10 * time.Second
	minRenew   = 250 * time.Millisecond
)

// PlanLease returns the lease for a group whose fastest backup takes over
// masterDown after the last advert, and whose master advertises each interval.
// Of the lifetimes that keep the promise, at most 10 s, the one is taken that
// forgives the loop the longest pause (Slack), and of equals the shorter.
func PlanLease(masterDown, interval time.Duration) Lease {
	best := Lease{}
	for valid := time.Second; valid <= maxValid; valid += time.Second {
		if l := LeaseOf(valid, masterDown, interval); l.Promised && l.Slack() > best.Slack() {
			best = l
		}
	}
	if best.Promised {
		return best
	}
	return LeaseOf(time.Second, masterDown, interval)
}

// LeaseOf returns the lease with this lifetime, whole seconds from 1 s on, for a
// group as PlanLease describes it, and whether it keeps the promise.
//
// The last renewal before a death is at most interval - Renew younger than the last
// advert that a peer can have heard, so the address is gone by
//
//	(interval - Renew) + Valid + 1.1 s
//
// after that advert. This must be over at carp.PermitTime: there the permit ends, and
// with it what Allows. It is renewed four times a lifetime or, if
// that keeps no promise, twice.
func LeaseOf(valid, masterDown, interval time.Duration) Lease {
	for _, renew := range []time.Duration{min(valid/4, interval), min(valid/2, interval)} {
		gone := interval - renew + valid + kernelLate
		if masterDown > leaseFloor && gone <= carp.PermitTime(masterDown) {
			return Lease{Valid: valid, Renew: renew, Late: kernelLate, Gone: gone, Promised: true,
				Note: fmt.Sprintf("gone %v after the last advert at the latest, %v before a backup takes over",
					round(gone), round(masterDown-gone))}
		}
	}
	return Lease{Valid: valid, Renew: max(minRenew, min(valid/4, interval)),
		Note: fmt.Sprintf("not promised: a backup takes over %v after the last advert, and an address of a dead node may "+
			"outlive the permit and go only %v after its last renewal; lengthen the advert interval for a promise",
			round(masterDown), round(valid+kernelLate))}
}

// Slack is how late the loop that gives permits may be before a living node loses its
// own addresses; 0 without a lease.
func (l Lease) Slack() time.Duration { return l.Valid - l.Renew }

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }

// Allows reports whether an address may be added or renewed at now under p: with
// a promised lease the kernel must have removed it again by p.Until.
func (l Lease) Allows(p carp.Permit, now carp.Instant) bool {
	if !p.Live(now) {
		return false
	}
	return !l.Promised || now.Add(l.Valid+l.Late) <= p.Until
}

// renewGrid is what renewals are aligned to, so that those of many sets come
// together and share calls of the kernel.
const renewGrid = 50 * time.Millisecond

// next returns when to renew after a renewal at now: at most Renew later. One that
// would fall where p has no more room for it (a batch takes as long as took) comes
// before that, unless it is not half due: it would have to wait for the next permit.
func (l Lease) next(p carp.Permit, now carp.Instant, took time.Duration) carp.Instant {
	at := now.Add(l.Renew)
	if l.Renew > 2*renewGrid {
		at -= at % carp.Instant(renewGrid)
	}
	if last := p.Until.Add(-l.Valid - l.Late - took); l.Promised && at > last {
		if early := last.Add(-renewGrid); early >= now.Add(l.Renew/2) {
			return early
		}
	}
	return at
}

// lifetime returns the lifetime of an address under l.
func (l Lease) lifetime() time.Duration {
	if l.Valid == 0 {
		return Forever
	}
	return l.Valid
}
