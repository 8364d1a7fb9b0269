package proxysql_test

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/proxysql"
	"github.com/carpd/carpd/replicator/sqlite"
)

var changes = flag.Int("changes", 8, "changes that TestASaveIsVerifiedOnTheStandbyWithinASecond measures")

// near is a target without a line: the time of the transport is that of its own tests.
type near struct{ *dir.Store }

func (n near) Newest(ctx context.Context) (replicator.Manifest, error) {
	all, err := n.List(ctx)
	if err == nil && len(all) == 0 {
		err = replicator.ErrNotFound
	}
	if err != nil {
		return replicator.Manifest{}, err
	}
	return all[0], nil
}

func (n near) Ship(ctx context.Context, m replicator.Manifest, from replicator.Store) (int64, error) {
	data, err := from.Open(ctx, m.Version)
	if err != nil {
		return 0, err
	}
	defer data.Close()
	return m.Size, n.Publish(ctx, m, data)
}

func (near) Close() error { return nil }

// store opens a store of its own.
func store(t *testing.T) *dir.Store {
	t.Helper()
	s, err := dir.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// running runs a loop until the test ends.
func running(t *testing.T, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestASaveIsVerifiedOnTheStandbyWithinASecond(t *testing.T) {
	s := newSite(t)
	far := store(t)
	arrivals := far.Arrivals()
	t.Cleanup(func() { arrivals.Close() })
	standby, err := replicator.NewStandby(replicator.StandbyConfig{Store: far, Arrived: arrivals.Wait, Keep: replicator.Keep{Count: 10},
		Verify: func(ctx context.Context, m replicator.Manifest, before map[string]int64) replicator.Verdict {
			return sqlite.Verify(ctx, far.Path(m.Version), sqlite.Options{SHA256: m.SHA256, Rules: func(replicator.Content) replicator.Rules {
				r := proxysql.Rules()
				r.Before = before
				return r
			}}).Verdict
		}})
	if err != nil {
		t.Fatal(err)
	}
	running(t, standby.Run)
	master, err := replicator.NewMaster(replicator.MasterConfig{Source: s.source(t, nil), Store: store(t), Scratch: filepath.Join(t.TempDir(), "scratch"),
		Epoch: 1, Node: 1, Name: "a", Keep: replicator.Keep{Count: 10}, Peers: []replicator.Peer{{Name: "b", Target: near{far}}}})
	if err != nil {
		t.Fatal(err)
	}
	running(t, master.Run)
	await(t, "the first snapshot", func() bool { return !standby.Status().Newest.Version.IsZero() })
	users := standby.Status().Newest.Rows["mysql_users"]
	var all []time.Duration
	apart := time.NewTicker(600 * time.Millisecond) // single changes; one after the other waits up to DefaultLatest
	defer apart.Stop()
	for i := range *changes {
		<-apart.C
		s.do(t, fmt.Sprintf(addUser, i, i), loadUser, saveUser)
		began := time.Now()
		users++
		await(t, "the change", func() bool { return standby.Status().Newest.Rows["mysql_users"] == users })
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	p50, p99 := all[(len(all)-1)/2], all[(len(all)*99-1)/100]
	t.Logf("from SAVE to verified on the standby, %d changes: p50 %v, p99 %v, most %v", len(all), p50, p99, all[len(all)-1])
	if p50 > time.Second || all[len(all)-1] > soon/2 {
		t.Errorf("%v", all)
	}
	if status := standby.Status(); status.Refused > 0 || master.Status().Refused > 0 || status.Store.Quarantined > 0 {
		t.Errorf("%+v, %+v", master.Status(), status)
	}
}
