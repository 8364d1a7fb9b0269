package replicator_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/storetest"
)

// arrive publishes snapshots in a node's store, as a master would.
func arrive(t *testing.T, n *node, sequences ...uint64) {
	t.Helper()
	for _, i := range sequences {
		m, data := storetest.Snapshot(storetest.V(5, 1, i), 512)
		m.Rows = map[string]int64{"t": int64(i)}
		m.Time = time.Now()
		if err := n.Publish(t.Context(), m, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
}

// judge says of some versions that they are not sound.
type judge struct {
	mu     sync.Mutex
	bad    map[uint64]replicator.Reason
	before map[uint64]int64 // rows of the one before
	calls  int
}

func (j *judge) verify(_ context.Context, m replicator.Manifest, before map[string]int64) replicator.Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.calls++
	if j.before == nil {
		j.before = make(map[uint64]int64)
	}
	j.before[m.Version.Sequence] = before["t"]
	if r := j.bad[m.Version.Sequence]; r != "" {
		return replicator.Refused(r, "as the test wants it")
	}
	return replicator.Verdict{}
}

func (j *judge) say(bad map[uint64]replicator.Reason) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.bad = bad
}

// follow runs a standby until stop is called.
func follow(t *testing.T, c replicator.StandbyConfig) (s *replicator.Standby, stop func()) {
	t.Helper()
	s, err := replicator.NewStandby(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

func TestWhatArrivesIsVerifiedAndWhatIsNotSoundIsTakenOutOfService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, j := newNode(t, 2), &judge{bad: map[uint64]replicator.Reason{3: replicator.Integrity}}
		s, _ := follow(t, replicator.StandbyConfig{Store: n, Verify: j.verify})
		synctest.Wait()
		arrive(t, n, 1, 2, 3)
		pass(1100 * time.Millisecond)
		status := s.Status()
		if status.Newest.Version.Sequence != 2 || status.Verified != 2 || status.Refused != 1 || status.Waiting != 0 || time.Since(status.Arrived) > 200*time.Millisecond {
			t.Errorf("%+v", status)
		}
		st := status.Store
		if st.Snapshots != 2 || st.Bytes != 1024 || st.Quarantined != 1 || st.LastQuarantine.Version.Sequence != 3 || st.LastQuarantine.Fault.Reason != replicator.Integrity {
			t.Errorf("%+v", st)
		}
		if got := versions(t, n); !slices.Equal(got, []replicator.Version{storetest.V(5, 1, 2), storetest.V(5, 1, 1)}) {
			t.Errorf("%v", got)
		}
		if j.before[2] != 1 || j.before[1] != 0 || j.calls != 3 {
			t.Errorf("rows before: %v, in %d calls", j.before, j.calls)
		}
		pass(time.Hour)
		if j.calls != 3 {
			t.Errorf("verified %d times", j.calls)
		}
	})
}

func TestWhatCannotBeVerifiedNowIsTriedAgainAndStaysInService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, j := newNode(t, 2), &judge{bad: map[uint64]replicator.Reason{2: replicator.Timeout}}
		arrive(t, n, 1, 2)
		s, _ := follow(t, replicator.StandbyConfig{Store: n, Verify: j.verify})
		pass(time.Minute)
		status := s.Status()
		if status.Refused != 0 || status.Store.Quarantined != 0 || status.Waiting != 1 || status.Newest.Version.Sequence != 1 || !strings.Contains(status.LastError, "timeout") || j.calls > 20 {
			t.Errorf("%d calls, %+v", j.calls, status)
		}
		j.say(nil)
		pass(11 * time.Second)
		if status := s.Status(); status.Newest.Version.Sequence != 2 || status.LastError != "" {
			t.Errorf("%+v", status)
		}
	})
}

func TestAStandbyPrunesAndNeverTheLastSoundOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, j := newNode(t, 2), &judge{}
		s, _ := follow(t, replicator.StandbyConfig{Store: n, Verify: j.verify, Keep: replicator.Keep{Count: 3, Age: time.Hour}})
		for i := range 20 {
			arrive(t, n, uint64(i+1))
			pass(time.Second)
		}
		pass(10 * time.Second)
		if got := versions(t, n); len(got) != 3 || got[0].Sequence != 20 {
			t.Errorf("%v", got)
		}
		pass(2 * time.Hour)
		if got := versions(t, n); len(got) != 1 || got[0].Sequence != 20 {
			t.Errorf("after their time: %v", got)
		}
		if got := s.Status(); got.Store.Pruned != 19 || got.Store.Snapshots != 1 || got.Store.PruneError != "" {
			t.Errorf("%+v", got)
		}
	})
}

func TestASnapshotThatCannotBeVerifiedKeepsNoOtherFromPruningAndVerifying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, j := newNode(t, 2), &judge{bad: map[uint64]replicator.Reason{30: replicator.Unreadable}}
		c := replicator.StandbyConfig{Store: n, Verify: j.verify, Keep: replicator.Keep{Count: 3}}
		s, stop := follow(t, c)
		for i := range uint64(30) {
			arrive(t, n, i+1)
			pass(time.Second)
		}
		pass(10 * time.Second)
		if got := versions(t, n); len(got) != 3 {
			t.Errorf("%v", got)
		}
		if got := s.Status(); got.Newest.Version.Sequence != 29 || got.Waiting != 1 || got.LastError == "" {
			t.Errorf("%+v", got)
		}
		stop()
		j.say(nil)
		calls := j.calls
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Run(ctx); err != nil { // the next time that this node is no master
			t.Error(err)
		}
		if got := s.Status(); got.Newest.Version.Sequence != 30 || got.LastError != "" || j.calls != calls+1 {
			t.Errorf("%d more, %+v", j.calls-calls, got)
		}
	})
}

func TestAStandbyThatIsToldLooksAtOnceAndElseNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, j := newNode(t, 2), &judge{}
		told := make(chan error)
		s, _ := follow(t, replicator.StandbyConfig{Store: n, Verify: j.verify, Arrived: func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case err := <-told:
				return err
			}
		}})
		pass(time.Second)
		arrive(t, n, 1)
		told <- nil
		synctest.Wait()
		if got := s.Status().Newest.Version.Sequence; got != 1 {
			t.Errorf("told, and the newest is %d", got)
		}
		told <- errors.New("too many watches")
		arrive(t, n, 2)
		pass(time.Second)
		if got := s.Status(); got.Newest.Version.Sequence != 2 || !strings.Contains(got.WatchError, "too many watches") {
			t.Errorf("%+v", got)
		}
		arrive(t, n, 3)
		pass(6 * time.Second)
		if got := s.Status(); got.Newest.Version.Sequence != 3 || got.WatchError != "" {
			t.Errorf("%+v", got)
		}
	})
}

func TestAStandbyWhoseStoreIsDeletedGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, j := newNode(t, 2), &judge{}
		s, _ := follow(t, replicator.StandbyConfig{Store: n, Verify: j.verify})
		arrive(t, n, 1, 2)
		pass(2 * time.Second)
		n.lose(t)
		pass(2 * time.Second)
		if got := s.Status(); !got.Newest.Version.IsZero() || got.Store.Snapshots != 0 {
			t.Errorf("%+v", got)
		}
		arrive(t, n, 2)
		pass(2 * time.Second)
		if got := s.Status(); got.Newest.Version.Sequence != 2 || got.Verified != 3 {
			t.Errorf("%+v", got)
		}
	})
}
