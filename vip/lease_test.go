package vip

import (
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
)

const ms = time.Millisecond

func TestPlanLeaseForgivesTheLongestPauseThatKeepsThePromise(t *testing.T) {
	const s = time.Second
	for _, tc := range []struct {
		name                 string
		masterDown, interval time.Duration
		valid, renew, gone   time.Duration // gone 0: not promised
	}{
		{"CARP advbase 1, backup's advskew 0", 3 * s, s, s, 250 * ms, 2850 * ms},
		{"advbase 1, backup's advskew 100, FreeBSD", 3390 * ms, s, 2 * s, s, 3100 * ms},
		{"advbase 1, backup's advskew 100, OpenBSD", 4171 * ms, s, 2 * s, 500 * ms, 3600 * ms},
		{"VRRP 1 s, backup's priority 100", 3610 * ms, s, 2 * s, s, 3100 * ms},
		{"VRRP 1 s, two nodes near priority 254", 3010 * ms, s, s, 250 * ms, 2850 * ms},
		{"two seconds fit in nothing but the margin", 3199 * ms, s, s, 250 * ms, 2850 * ms},
		{"advbase 2", 6 * s, 2 * s, 3 * s, 750 * ms, 5350 * ms},
		{"advbase 3", 9 * s, 3 * s, 6 * s, 1500 * ms, 8600 * ms},
		{"advbase 4", 12 * s, 4 * s, 9 * s, 2250 * ms, 11850 * ms},
		{"advbase 10", 30 * s, 10 * s, 10 * s, 2500 * ms, 18600 * ms},
		{"advbase 255", 765 * s, 255 * s, 10 * s, 2500 * ms, 263600 * ms},
		{"adverts so far apart that two renewals a second must do", 2640 * ms, 880 * ms, s, 500 * ms, 2480 * ms},
		{"the floor, though the sum would do", 2200 * ms, 0, s, 250 * ms, 0},
		{"just enough", 2201 * ms, 100 * ms, s, 100 * ms, 2100 * ms},
		{"above the floor, but adverts too far apart", 2300 * ms, 766 * ms, s, 250 * ms, 0},
		{"advbase 0, advskew 100", 1170 * ms, 390 * ms, s, 250 * ms, 0},
		{"VRRP 10 ms", 36 * ms, 10 * ms, s, 250 * ms, 0},
		{"nothing", 0, 0, s, 250 * ms, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := PlanLease(tc.masterDown, tc.interval)
			if l.Valid != tc.valid || l.Renew != tc.renew || l.Gone != tc.gone || l.Promised != (tc.gone != 0) {
				t.Errorf("got %v renewed each %v, gone by %v, promised %v; want %v, %v, %v", l.Valid, l.Renew, l.Gone, l.Promised, tc.valid, tc.renew, tc.gone)
			}
			if wantLate := map[bool]time.Duration{true: 1100 * ms}[tc.gone != 0]; l.Late != wantLate {
				t.Errorf("Late is %v, want %v", l.Late, wantLate)
			}
			if l.Slack() != tc.valid-tc.renew || l.Note == "" {
				t.Errorf("Slack %v, note %q", l.Slack(), l.Note)
			}
		})
	}
}

func TestALeaseOfAGivenLengthIsPromisedOnlyIfItFits(t *testing.T) {
	const s = time.Second
	for _, tc := range []struct {
		valid, masterDown, interval time.Duration
		renew, gone                 time.Duration
	}{
		{2 * s, 3 * s, s, 500 * ms, 0}, // at (2 s, 1 s) 3.1 s
		{1 * s, 6 * s, 2 * s, 250 * ms, 3850 * ms},
		{4 * s, 6 * s, 2 * s, 2 * s, 5100 * ms},
		{5 * s, 3 * s, s, s, 0},
		{3600 * s, 3 * s, s, s, 0},
		{1 * s, 300 * ms, 100 * ms, 250 * ms, 0},
	} {
		if l := LeaseOf(tc.valid, tc.masterDown, tc.interval); l.Valid != tc.valid || l.Renew != tc.renew || l.Gone != tc.gone || l.Promised != (tc.gone != 0) {
			t.Errorf("LeaseOf(%v, %v, %v) = %+v", tc.valid, tc.masterDown, tc.interval, l)
		}
	}
}

func TestEveryPromisedLeaseEndsBeforeTheBackup(t *testing.T) {
	for d := 100 * ms; d < 40*time.Second; d += 70 * ms {
		for a := 10 * ms; a <= d; a += 90 * ms {
			l := PlanLease(d, a)
			if l.Valid%time.Second != 0 || l.Valid < time.Second || l.Valid > 10*time.Second || l.Renew <= 0 {
				t.Fatalf("PlanLease(%v, %v) = %+v: not whole seconds from 1 to 10", d, a, l)
			}
			if !l.Promised {
				continue
			}
			// Each renewal at r, 2r, ... after the advert at 0 that is allowed at all:
			permit := carp.Permit{Epoch: 1, Until: carp.Instant(0).Add(d - 100*ms)} // as package carp gives it
			for at := time.Duration(0); at < a; at += l.Renew {
				allowed := l.Allows(permit, carp.Instant(at))
				if gone := at + l.Valid + 1100*ms; allowed != (gone <= d-100*ms) {
					t.Fatalf("PlanLease(%v, %v): renewal at %v allowed %v, but the address may last until %v", d, a, at, allowed, gone)
				}
				if at <= a-l.Renew && !allowed {
					t.Fatalf("PlanLease(%v, %v): renewal at %v is due and not allowed", d, a, at)
				}
			}
		}
	}
}

func TestAllowsAsksForAPermitOfAnEpoch(t *testing.T) {
	none, kept := Lease{}, Lease{Valid: time.Second, Late: 1100 * ms, Promised: true}
	best := Lease{Valid: time.Second}
	for _, tc := range []struct {
		name  string
		lease Lease
		p     carp.Permit
		now   carp.Instant
		want  bool
	}{
		{"no permit", none, carp.Permit{}, 1, false},
		{"no epoch", none, carp.Permit{Until: 100}, 1, false},
		{"without lease until the end", none, carp.Permit{Epoch: 1, Until: 100}, 99, true},
		{"without lease not at the end", none, carp.Permit{Epoch: 1, Until: 100}, 100, false},
		{"lease fits exactly", kept, carp.Permit{Epoch: 1, Until: carp.Instant(2100*ms) + 5}, 5, true},
		{"lease is a nanosecond too long", kept, carp.Permit{Epoch: 1, Until: carp.Instant(2100*ms) + 5}, 6, false},
		{"not promised: until the end", best, carp.Permit{Epoch: 1, Until: 100}, 99, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.lease.Allows(tc.p, tc.now); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestRenewalsOfManySetsMeet(t *testing.T) {
	l := Lease{Valid: time.Second, Renew: 250 * ms}
	for now := carp.Instant(1); now < carp.Instant(time.Second); now += carp.Instant(7 * ms) {
		at := l.next(carp.Permit{}, now, 0)
		if wait := at.Sub(now); at%carp.Instant(renewGrid) != 0 || wait > l.Renew || wait <= l.Renew-renewGrid {
			t.Errorf("after %v the next renewal is at %v", now, at)
		}
	}
	if at := (Lease{Renew: 100 * ms}).next(carp.Permit{}, 7, 0); at != 7+carp.Instant(100*ms) {
		t.Errorf("a short period is kept as it is, got %v", at)
	}
}

// From one advert to the next, no two renewals are farther apart than one and a half
// times what is planned.
func TestTheRoomOfAPermitIsUsedUpByRenewals(t *testing.T) {
	for d := 2250 * ms; d < 40*time.Second; d += 35 * ms {
		for _, a := range []time.Duration{d / 3, d / 4, min(d/3, time.Second)} {
			l := PlanLease(d, a)
			if !l.Promised {
				continue
			}
			permit := carp.Permit{Epoch: 1, Until: carp.Instant(0).Add(d - 100*ms)}
			last := carp.Instant(0)
			for n := 0; n < 1000; n++ {
				next := l.next(permit, last, 0)
				if next <= last {
					t.Fatalf("PlanLease(%v, %v): after %v the next renewal is at %v", d, a, last, next)
				}
				if next >= carp.Instant(a) || !l.Allows(permit, next) {
					break
				}
				last = next
			}
			if gap := a - time.Duration(last); gap > l.Renew+l.Renew/2+renewGrid {
				t.Fatalf("PlanLease(%v, %v) = %v each %v: the last renewal of an interval is at %v, %v before the next advert", d, a, l.Valid, l.Renew, last, gap)
			}
		}
	}
}

func TestAPermitWakesTheWorkerForWhatItAllowsOnly(t *testing.T) {
	for _, test := range []struct {
		name  string
		state state
		waits bool
		wakes bool
	}{
		{"nothing to do", state{serving: true, renewAt: 500}, false, false},
		{"a renewal that had no room", state{serving: true, renewAt: 90}, false, true},
		{"a look that had no room", state{serving: true, renewAt: 500, lookAt: 90}, false, true},
		{"a look later on", state{serving: true, renewAt: 500, lookAt: 400}, false, false},
		{"somebody waits to put addresses on", state{renewAt: 500}, true, true},
		{"down", state{}, false, false},
	} {
		s := New(nil, Config{Now: func() carp.Instant { return 100 }})
		s.state = test.state
		s.state.permit = carp.Permit{Epoch: 1, Until: 1000}
		if test.waits {
			s.change()
		}
		s.Permit(carp.Permit{Epoch: 1, Until: 2000})
		if woken := len(s.wake) > 0; woken != test.wakes {
			t.Errorf("%s: woken %v", test.name, woken)
		}
	}
}
