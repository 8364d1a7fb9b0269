package replicator_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/storetest"
)

func TestAChangeIsOnThePeerWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, s := newNode(t, 1), newNode(t, 2), newSource("one")
		far := &remote{store: b}
		m, stop := lead(t, a, 5, s, nil, replicator.Peer{Name: "b", Target: far})
		pass(time.Second)
		for i := range 5 {
			want := fmt.Sprint("change ", i)
			s.write(want)
			pass(time.Second)
			got, v := text(t, b)
			if got != want || v != storetest.V(5, 1, uint64(i+2)) {
				t.Errorf("the peer has %q as %v", got, v)
			}
		}
		status := m.Status()
		if status.Taken != 6 || status.Newest.Version.Sequence != 6 || !status.Pending.IsZero() || status.Age(time.Now()) != 0 || status.Newest.Source != "node1" {
			t.Errorf("%+v", status)
		}
		p := status.Peers[0]
		if p.State != replicator.PeerCurrent || p.Shipped != 6 || p.Bytes != 6*512 || p.Lag(time.Now()) != 0 || p.There != status.Newest.Version || p.LastSuccess.IsZero() {
			t.Errorf("%+v", p)
		}
		stop()
		if !far.closed {
			t.Error("the connection stays open after the mastership")
		}
		if left, _ := os.ReadDir(filepath.Join(filepath.Dir(a.where), "scratch")); len(left) > 0 {
			t.Errorf("left in the scratch directory: %v", left)
		}
	})
}

func TestABurstIsOneSnapshotAndEndlessChangesAreNeverLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, s := newNode(t, 1), newSource("one")
		m, _ := lead(t, a, 5, s, nil)
		pass(time.Minute)
		began := m.Status().Taken
		for i := range 50 {
			s.write(fmt.Sprint("burst ", i))
			pass(time.Millisecond)
		}
		pass(time.Second)
		if got := m.Status().Taken - began; got != 1 {
			t.Errorf("%d snapshots of a burst of 50 ms", got)
		}
		if got, _ := text(t, a); got != "burst 49" {
			t.Errorf("the end of the burst is not there but %q", got)
		}
		began = m.Status().Taken
		for i := range 1000 {
			s.write(fmt.Sprint("flood ", i))
			pass(10 * time.Millisecond)
			if age := m.Status().Age(time.Now()); age > replicator.DefaultLatest {
				t.Fatalf("a change is in no snapshot for %v", age)
			}
		}
		pass(time.Second)
		if got := m.Status().Taken - began; got < 18 || got > 25 {
			t.Errorf("%d snapshots in 10 s of changes, want about 20", got)
		}
	})
}

func TestAHalfSavedDatabaseIsTakenOnceItIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, s := newNode(t, 1), newNode(t, 2), newSource("whole")
		m, _ := lead(t, a, 5, s, nil, replicator.Peer{Name: "b", Target: &remote{store: b}})
		pass(time.Second)
		s.set(func(s *source) { s.empty, s.text = true, "half" })
		pass(30 * time.Second)
		status := m.Status()
		if status.Refused < 10 || status.Fault.Reason != replicator.Emptied || time.Since(status.Refusing) < 29*time.Second || status.Age(time.Now()) < 29*time.Second {
			t.Errorf("%+v", status)
		}
		if got, _ := text(t, b); got != "whole" {
			t.Errorf("the peer has %q", got)
		}
		s.set(func(s *source) { s.empty, s.text = false, "whole again" })
		pass(2100 * time.Millisecond)
		if got, _ := text(t, b); got != "whole again" {
			t.Errorf("2 s after it is whole the peer has %q", got)
		}
		if status := m.Status(); !status.Refusing.IsZero() || status.Fault != (replicator.Fault{}) || status.LastError != "" || status.ErrorAt.IsZero() {
			t.Errorf("%+v", status)
		}
	})
}

func TestAPeerThatHangsKeepsNoOtherWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c, s := newNode(t, 1), newNode(t, 2), newNode(t, 3), newSource("one")
		stuck := &remote{store: b, hang: true}
		m, stop := lead(t, a, 5, s, func(c *replicator.MasterConfig) { c.ShipTimeout = time.Minute },
			replicator.Peer{Name: "b", Target: stuck}, replicator.Peer{Name: "c", Target: &remote{store: c}})
		for i := range 20 {
			s.write(fmt.Sprint("change ", i))
			pass(5 * time.Second)
			if got, _ := text(t, c); got != fmt.Sprint("change ", i) {
				t.Fatalf("the other peer has %q", got)
			}
		}
		p := m.Status().Peers[0]
		if p.State != replicator.PeerFailing || p.Lag(time.Now()) < 95*time.Second || p.LastError == "" || p.Failures < 2 {
			t.Errorf("%+v", p)
		}
		stuck.set(func(r *remote) { r.hang = false })
		pass(31*time.Second + time.Minute)
		if got, v := text(t, b); got != "change 19" || v.Sequence != m.Status().Newest.Version.Sequence {
			t.Errorf("the peer that hung has %q as %v", got, v)
		}
		if p := m.Status().Peers[0]; p.State != replicator.PeerCurrent || p.Shipped != 1 || p.Lag(time.Now()) != 0 {
			t.Errorf("it got more than the newest, or is not current: %+v", p)
		}
		stuck.set(func(r *remote) { r.hang = true })
		s.write("last")
		pass(time.Second)
		now := time.Now()
		stop()
		if d := time.Since(now); d != 0 {
			t.Errorf("the role is given up %v later", d)
		}
	})
}

func TestASmallerMastershipIsRefusedAndAlarmedAndNothingIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, 1), newNode(t, 2)
		toA, toB := &remote{store: a, cut: errors.New("cut")}, &remote{store: b, cut: errors.New("cut")}
		sa, sb := newSource("a"), newSource("b")
		ma, _ := lead(t, a, 41, sa, nil, replicator.Peer{Name: "b", Target: toB})
		mb, _ := lead(t, b, 42, sb, nil, replicator.Peer{Name: "a", Target: toA})
		pass(10 * time.Second)
		sa.write("a2")
		sb.write("b2")
		pass(10 * time.Second)
		for _, m := range []*replicator.Master{ma, mb} {
			if p := m.Status().Peers[0]; p.State != replicator.PeerFailing {
				t.Errorf("behind the cut: %+v", p)
			}
		}
		toA.set(func(r *remote) { r.cut = nil })
		toB.set(func(r *remote) { r.cut = nil })
		pass(time.Minute)
		sa.write("a3")
		pass(time.Minute)
		// The greater is on both nodes, what the smaller had is still on its own.
		if got := versions(t, b); !slices.Equal(got, []replicator.Version{storetest.V(42, 2, 2), storetest.V(42, 2, 1)}) {
			t.Errorf("the node of the greater has %v", got)
		}
		if got, v := text(t, a); got != "b2" || v != storetest.V(42, 2, 2) {
			t.Errorf("the node of the smaller has %q as %v", got, v)
		}
		if got := read(t, a, storetest.V(41, 1, 2)); got != "a2" {
			t.Errorf("what the smaller had is lost: %q", got)
		}
		status := ma.Status()
		if p := status.Peers[0]; p.State != replicator.PeerOlder || p.There != storetest.V(42, 2, 2) && p.There != storetest.V(42, 2, 1) {
			t.Errorf("no alarm: %+v", p)
		}
		if status.Superseded.Epoch != 42 {
			t.Errorf("no alarm of the own store: %+v", status)
		}
		if p := mb.Status().Peers[0]; p.State != replicator.PeerCurrent {
			t.Errorf("the greater: %+v", p)
		}
		var ships int
		toB.set(func(r *remote) { ships = r.ships })
		sa.write("a4")
		pass(time.Hour)
		toB.set(func(r *remote) {
			if r.ships != ships {
				t.Error("the smaller goes on shipping")
			}
		})
	})
}

func TestAMasterThatDiedBeforeItShippedIsServedByTheNextOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, 1), newNode(t, 2)
		toA, sb := &remote{store: a}, newSource("shipped")
		_, stop := lead(t, b, 41, sb, nil, replicator.Peer{Name: "a", Target: toA})
		pass(time.Second)
		toA.set(func(r *remote) { r.cut = errors.New("cut") })
		sb.write("not shipped")
		pass(time.Second)
		stop()
		// The next one has no snapshot of its own yet when it hears what is there.
		sa := newSource("next")
		sa.fail = errors.New("the admin port does not answer")
		ma, _ := lead(t, a, 42, sa, nil, replicator.Peer{Name: "b", Target: &remote{store: b}})
		pass(10 * time.Second)
		if p := ma.Status().Peers[0]; p.State != replicator.PeerBehind || p.There != storetest.V(41, 2, 2) {
			t.Errorf("before its first snapshot: %+v", p)
		}
		sa.set(func(s *source) { s.fail = nil })
		pass(10 * time.Second)
		if got, v := text(t, b); got != "next" || v != storetest.V(42, 1, 1) {
			t.Errorf("the old master has %q as %v", got, v)
		}
	})
}

func TestALostStateDirectoryIsFilledAgainBeforeTheNextFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := []*node{newNode(t, 1), newNode(t, 2)}
		var last replicator.Version
		for round := range 8 {
			here, there := nodes[round%2], nodes[(round+1)%2]
			if got, v := text(t, here); v != last {
				t.Fatalf("round %d begins with %q as %v, and %v was there before", round, got, v, last)
			}
			s := newSource(fmt.Sprint("round ", round))
			epoch := carp.Epoch(round + 1)
			if round%3 == 2 {
				epoch = 1 // the clock of epochs was in the directory, too
			}
			_, stop := lead(t, here, epoch, s, nil, replicator.Peer{Name: "peer", Target: &remote{store: there}})
			pass(time.Second)
			there.lose(t)
			pass(11 * time.Second)
			got, v := text(t, there)
			if got != fmt.Sprint("round ", round) || v.Compare(last) <= 0 {
				t.Fatalf("round %d: the peer has %q as %v, after %v", round, got, v, last)
			}
			last = v
			stop()
		}
	})
}

func TestAPeerThatDoesNotKeepWhatItGetsIsNotFlooded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, s := newNode(t, 1), newNode(t, 2), newSource("one")
		far := &remote{store: b}
		m, _ := lead(t, a, 5, s, nil, replicator.Peer{Name: "b", Target: far})
		for range 3600 / 5 {
			pass(5 * time.Second)
			for _, v := range versions(t, b) { // its rules are other than ours
				if err := b.Quarantine(t.Context(), v, replicator.Fault{Reason: replicator.TooFewRows}); err != nil {
					t.Fatal(err)
				}
			}
		}
		far.set(func(r *remote) {
			if r.ships > 25 {
				t.Errorf("shipped %d times in an hour", r.ships)
			}
		})
		if p := m.Status().Peers[0]; p.State != replicator.PeerFailing || !strings.Contains(p.LastError, "quarantine") {
			t.Errorf("%+v", p)
		}
		s.write("two")
		pass(900 * time.Millisecond)
		if got, _ := text(t, b); got != "two" {
			t.Errorf("a new snapshot is not offered: %q", got)
		}
	})
}

func TestAFullStoreIsPrunedAndElseKeepsWhatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, s := newNode(t, 1), newSource("one")
		n := *a
		n.Store = &small{Store: a.Store, room: 3}
		_, stop := lead(t, &n, 5, s, func(c *replicator.MasterConfig) { c.Keep.Count = 2 })
		for i := range 5 {
			s.write(fmt.Sprint("change ", i))
			pass(time.Second)
			if got, _ := text(t, a); got != fmt.Sprint("change ", i) {
				t.Errorf("%q", got)
			}
		}
		stop()
		m, _ := lead(t, &n, 6, s, func(c *replicator.MasterConfig) { c.Keep.Count = 100 })
		pass(time.Second)
		s.write("makes room")
		pass(time.Second)
		if got, _ := text(t, a); got != "makes room" || len(versions(t, a)) != 3 {
			t.Errorf("%q, %v: below its count the store is not pruned for a new one", got, versions(t, a))
		}
		n.Store.(*small).set(0)
		before := versions(t, a)
		s.write("no room")
		pass(time.Minute)
		status := m.Status()
		if now := versions(t, a); len(now) == 0 || now[0] != before[0] || !strings.Contains(status.LastError, syscall.ENOSPC.Error()) || status.Age(time.Now()) < 59*time.Second {
			t.Errorf("%v, %+v", versions(t, a), status)
		}
		s.set(func(s *source) {
			if s.takes > 40 {
				t.Errorf("%d tries", s.takes)
			}
		})
		n.Store.(*small).set(3)
		pass(11 * time.Second)
		if got, v := text(t, a); got != "no room" || v.Compare(before[0]) <= 0 {
			t.Errorf("%q as %v", got, v)
		}
	})
}

func TestADatabaseWhoseChangesCannotBeSeenIsCopiedAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, s := newNode(t, 1), newSource("one")
		s.blind = errors.New("the admin port does not answer")
		m, _ := lead(t, a, 5, s, nil)
		pass(time.Second)
		s.write("two")
		pass(1500 * time.Millisecond)
		if got, _ := text(t, a); got != "two" {
			t.Errorf("%q", got)
		}
		if got := m.Status(); !strings.Contains(got.WatchError, "does not answer") || got.LastError != "" {
			t.Errorf("%+v", got)
		}
		s.set(func(s *source) { s.blind = nil })
		pass(2 * time.Minute)
		if got := m.Status(); got.WatchError != "" || got.Same == 0 {
			t.Errorf("%+v", got)
		}
		s.mu.Lock()
		s.text = "unseen" // nothing is signalled
		s.mu.Unlock()
		pass(replicator.DefaultLook)
		if got, _ := text(t, a); got != "unseen" {
			t.Errorf("a change without a sign is not there after %v: %q", replicator.DefaultLook, got)
		}
	})
}

func TestADamagedSnapshotOfTheOwnStoreIsTakenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, s := newNode(t, 1), newNode(t, 2), newSource("one")
		far := &remote{store: b, cut: errors.New("cut")}
		_, _ = lead(t, a, 5, s, nil, replicator.Peer{Name: "b", Target: far})
		pass(time.Second)
		_, v := text(t, a)
		if err := os.WriteFile(a.Store.(*dir.Store).Path(v), []byte(strings.Repeat("x", 512)), 0o600); err != nil {
			t.Fatal(err)
		}
		far.set(func(r *remote) { r.cut = nil })
		pass(2 * time.Minute)
		if got, there := text(t, b); got != "one" || there.Sequence != 2 {
			t.Errorf("%q as %v", got, there)
		}
	})
}

func TestNumbersAreNeverGivenTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, s := newNode(t, 1), newSource("one")
		_, stop := lead(t, a, 5, s, nil)
		pass(time.Second)
		stop()
		_, v := text(t, a)
		if err := a.Quarantine(t.Context(), v, replicator.Fault{Reason: replicator.Digest}); err != nil {
			t.Fatal(err)
		}
		lead(t, a, 5, s, nil) // restarted within the mastership
		pass(time.Second)
		if _, next := text(t, a); next != storetest.V(5, 1, 2) {
			t.Errorf("%v after %v, which peers may have", next, v)
		}
	})
}

func TestAMasterWithoutWhatItNeedsIsNotMade(t *testing.T) {
	s, n := newSource(""), newNode(t, 1)
	for _, c := range []replicator.MasterConfig{
		{Store: n, Scratch: "x", Node: 1},
		{Source: s, Scratch: "x", Node: 1},
		{Source: s, Store: n, Scratch: "x"},
		{Source: s, Store: n, Node: 1},
		{Source: s, Store: n, Scratch: "x", Node: 1, Peers: []replicator.Peer{{Name: "b"}}},
	} {
		if _, err := replicator.NewMaster(c); err == nil {
			t.Errorf("%+v", c)
		}
	}
	if _, err := replicator.NewStandby(replicator.StandbyConfig{Store: n}); err == nil {
		t.Error("a standby that verifies nothing")
	}
}
