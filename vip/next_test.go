package vip

import (
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
)

func TestNextTask(t *testing.T) {
	const now = carp.Instant(1000 * time.Second)
	at := func(d time.Duration) carp.Instant { return now.Add(d) }
	kept := Lease{Valid: time.Second, Renew: 250 * ms, Late: 1100 * ms, Promised: true}
	live := carp.Permit{Epoch: 1, Until: at(3 * time.Second)}
	short := carp.Permit{Epoch: 1, Until: at(2 * time.Second)} // alive, but no room for a lease
	placed := prefixes("192.0.2.9/32")
	for _, tc := range []struct {
		name  string
		st    state
		do    task
		until carp.Instant
	}{
		{"down, nothing on", state{}, taskWait, 0},
		{"down, nothing on, permit alive", state{permit: live, lease: kept}, taskWait, 0},
		{"ended, still on", state{placed: placed, permit: live}, taskClear, 0},
		{"ended, tried before", state{placed: placed, clearAt: at(ms)}, taskWait, at(ms)},
		{"down, device up", state{raised: true}, taskLower, 0},
		{"down, device waits", state{raised: true, lowerAt: at(ms)}, taskWait, at(ms)},
		{"ended, device up, still on", state{placed: placed, raised: true}, taskClear, 0},
		{"up, no permit", state{serving: true, placed: placed}, taskLapse, 0},
		{"up, permit ended now", state{serving: true, permit: carp.Permit{Epoch: 1, Until: now}}, taskLapse, 0},
		{"up, nothing due", state{serving: true, permit: live, lease: kept, renewAt: at(time.Second)}, taskWait, at(maxNap)},
		{"up, permit ends first", state{serving: true, permit: carp.Permit{Epoch: 1, Until: at(ms)}}, taskWait, at(ms)},
		{"up, renewal is next", state{serving: true, permit: live, lease: kept, renewAt: at(2 * ms)}, taskWait, at(2 * ms)},
		{"renewal due", state{serving: true, permit: live, lease: kept, renewAt: now}, taskRenew, 0},
		{"renewal due, no room", state{serving: true, permit: short, lease: kept, renewAt: now}, taskWait, at(maxNap)},
		{"no lease, no renewal", state{serving: true, permit: live}, taskWait, at(maxNap)},
		{"look due", state{serving: true, permit: live, lease: kept, lookAt: now}, taskLook, 0},
		{"look due, no room", state{serving: true, permit: short, lease: kept, lookAt: now, renewAt: at(time.Second)}, taskAsk, 0},
		{"look due, no room, asked", state{serving: true, permit: short, lease: kept, lookAt: now, askAt: at(ms), renewAt: at(time.Second)}, taskWait, at(ms)},
		{"look is next", state{serving: true, permit: live, lookAt: at(5 * ms)}, taskWait, at(5 * ms)},
		{"announcement due", state{serving: true, permit: short, lease: kept, rounds: []carp.Instant{now}}, taskAnnounce, 0},
		{"announcement is next", state{serving: true, permit: live, rounds: []carp.Instant{at(ms), at(2 * ms)}}, taskWait, at(ms)},
		{"look before renewal before announcement", state{serving: true, permit: live, lease: kept, lookAt: now, rounds: []carp.Instant{now}}, taskLook, 0},
		{"renewal before announcement", state{serving: true, permit: live, lease: kept, rounds: []carp.Instant{now}}, taskRenew, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if do, until := tc.st.next(now); do != tc.do || until != tc.until {
				t.Errorf("got task %d until %v, want %d until %v", do, until.Sub(now), tc.do, tc.until.Sub(now))
			}
		})
	}
}
