package replicator

import (
	"testing"
	"time"
)

func TestAChangeWaitsLongerWhileOneSnapshotFollowsAnother(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct{ took, before, quiet, want time.Duration }{
		{10 * ms, 0, 0, 100 * ms},                // the first
		{10 * ms, 100 * ms, time.Hour, 100 * ms}, // after a rest
		{10 * ms, 500 * ms, 150 * ms, 100 * ms},  // a change now and then never waits long
		{10 * ms, 100 * ms, 5 * ms, 200 * ms},
		{10 * ms, 400 * ms, 5 * ms, 500 * ms},
		{10 * ms, 500 * ms, 0, 500 * ms},
		{4000 * ms, 500 * ms, 150 * ms, 1000 * ms}, // a large database: half of the time at most
		{4000 * ms, 4000 * ms, 0, 4000 * ms},
		{4000 * ms, 4000 * ms, 4000 * ms, 100 * ms},
	} {
		if got := settle(100*ms, 500*ms, tc.took, tc.before, tc.quiet); got != tc.want {
			t.Errorf("took %v, waited %v, quiet for %v: %v, want %v", tc.took, tc.before, tc.quiet, got, tc.want)
		}
	}
	if got := settle(time.Second, 500*ms, 0, 0, 0); got != 500*ms {
		t.Errorf("%v is later than the latest", got)
	}
}

func TestTriesBecomeRareAndNeverEnd(t *testing.T) {
	for n, want := range map[int]time.Duration{0: 1, 1: 1, 2: 2, 3: 4, 4: 8, 5: 10, 100: 10, 1 << 40: 10} {
		if got := backoff(time.Second, 10*time.Second, n); got != want*time.Second {
			t.Errorf("%d failures: %v, want %ds", n, got, want)
		}
	}
}

func TestHalfASaveIsWaitedForWithoutDelay(t *testing.T) {
	var waited time.Duration
	for n := 1; n <= 20; n++ {
		waited += halfSaved(n)
	}
	if waited > time.Second || halfSaved(21) <= halfSaved(20) || halfSaved(100) != 2*time.Second {
		t.Errorf("%v for 20 tries, then %v, then %v", waited, halfSaved(21), halfSaved(100))
	}
}
