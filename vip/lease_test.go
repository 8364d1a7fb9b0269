package vip

import (
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
)

const ms = time.Millisecond

func TestPlanLeaseTakesTheLongestThatKeepsThePromise(t *testing.T) {
	for _, tc := range []struct {
		name                 string
		masterDown, interval time.Duration
		valid, renew         time.Duration
		promised             bool
	}{
		{"CARP advbase 1, backup's advskew 0", 3000 * ms, 1000 * ms, 1 * time.Second, 250 * ms, true},
		{"advbase 1, advskew 100, FreeBSD", 3390 * ms, 1000 * ms, 1 * time.Second, 250 * ms, true},
		{"advbase 1, advskew 100, OpenBSD", 4171 * ms, 1000 * ms, 2 * time.Second, 500 * ms, true},
		{"VRRP 1 s, priority 100", 3610 * ms, 1000 * ms, 2 * time.Second, 500 * ms, true},
		{"VRRP 1 s, priority 254", 3010 * ms, 1000 * ms, 1 * time.Second, 250 * ms, true},
		{"exactly what two seconds need is too little", 3600 * ms, 1000 * ms, 1 * time.Second, 250 * ms, true},
		{"advbase 10", 30 * time.Second, 10 * time.Second, 10 * time.Second, 2500 * ms, true},
		{"advbase 255", 765 * time.Second, 255 * time.Second, 10 * time.Second, 2500 * ms, true},
		{"the floor, though the sum would do", 2200 * ms, 100 * ms, 1 * time.Second, 250 * ms, false},
		{"just above the floor", 2201 * ms, 100 * ms, 1 * time.Second, 100 * ms, true},
		{"above the floor, but adverts too far apart", 2300 * ms, 766 * ms, 1 * time.Second, 250 * ms, false},
		{"advbase 0, advskew 100", 1170 * ms, 390 * ms, 1 * time.Second, 250 * ms, false},
		{"VRRP 10 ms", 36 * ms, 10 * ms, 1 * time.Second, 250 * ms, false},
		{"nothing", 0, 0, 1 * time.Second, 250 * ms, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := PlanLease(tc.masterDown, tc.interval)
			if l.Valid != tc.valid || l.Renew != tc.renew || l.Promised != tc.promised {
				t.Errorf("got %v renewed each %v, promised %v; want %v, %v, %v", l.Valid, l.Renew, l.Promised, tc.valid, tc.renew, tc.promised)
			}
			if wantLate := map[bool]time.Duration{true: 1100 * ms}[tc.promised]; l.Late != wantLate {
				t.Errorf("Late is %v, want %v", l.Late, wantLate)
			}
			if l.Note == "" {
				t.Error("no note")
			}
		})
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
			permit := carp.Permit{Epoch: 1, Until: carp.Instant(0).Add(d)}
			for at := time.Duration(0); at < a; at += l.Renew {
				allowed := l.Allows(permit, carp.Instant(at))
				if gone := at + l.Valid + 1100*ms; allowed != (gone <= d) {
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
		at := l.next(now)
		if wait := at.Sub(now); at%carp.Instant(renewGrid) != 0 || wait > l.Renew || wait <= l.Renew-renewGrid {
			t.Errorf("after %v the next renewal is at %v", now, at)
		}
	}
	if at := (Lease{Renew: 100 * ms}).next(7); at != 7+carp.Instant(100*ms) {
		t.Errorf("a short period is kept as it is, got %v", at)
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
