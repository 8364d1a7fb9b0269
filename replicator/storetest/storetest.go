// Package storetest holds a replicator.Store to its contract. It is for tests.
package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/replicator"
)

// Store is a store under test.
type Store struct {
	replicator.Store
	Reopen func() replicator.Store    // as after a restart
	Damage func(v replicator.Version) // changes a byte of a snapshot behind the store's back
}

// Snapshot makes a snapshot of size bytes, a multiple of 512, which depend on its version.
func Snapshot(v replicator.Version, size int) (replicator.Manifest, []byte) {
	data := bytes.Repeat([]byte(v.String()+"\n"), size/46+1)[:size]
	sum := sha256.Sum256(data)
	return replicator.Manifest{Version: v, Source: "node", Time: Day(v), Kind: "sqlite", Size: int64(size), PageSize: 512, Pages: int64(size / 512),
		SHA256: hex.EncodeToString(sum[:]), Rows: map[string]int64{"t": 3}}, data
}

// Day is the time of a snapshot: a day for each sequence.
func Day(v replicator.Version) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, int(v.Sequence))
}

// V makes a version.
func V(epoch carp.Epoch, node uint8, sequence uint64) replicator.Version {
	return replicator.Version{Epoch: epoch, Node: node, Sequence: sequence}
}

const size = 16 << 10

// Conformance runs the contract against stores that open makes, each empty.
func Conformance(t *testing.T, open func(t *testing.T) Store) {
	for name, test := range map[string]func(t *testing.T, s Store){
		"WhatIsPublishedIsThere":             published,
		"ASmallerVersionReplacesNothing":     smaller,
		"OtherBytesThanTheManifestsAreNever": otherBytes,
		"AFailedPublishLeavesTheLast":        failed,
		"PruneKeepsTheLastSoundOne":          prune,
		"QuarantineTakesOutOfService":        quarantine,
		"WhatIsNotThereIsNotFound":           notFound,
		"ManyAtOnce":                         many,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// publish publishes and fails the test if that fails.
func publish(t *testing.T, s replicator.Store, v replicator.Version) replicator.Manifest {
	t.Helper()
	m, data := Snapshot(v, size)
	if err := s.Publish(t.Context(), m, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return m
}

// Holds fails unless the store holds these versions, newest first, each with its bytes.
func Holds(t testing.TB, s replicator.Store, want ...replicator.Version) {
	t.Helper()
	all, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []replicator.Version
	for _, m := range all {
		got = append(got, m.Version)
		expected, data := Snapshot(m.Version, int(m.Size))
		read, err := readAll(t.Context(), s, m.Version)
		if err != nil || !bytes.Equal(read, data) || m.SHA256 != expected.SHA256 || !m.Time.Equal(expected.Time) || m.Rows["t"] != 3 {
			t.Errorf("%v is not what was published: %v, %+v", m.Version, err, m)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("there are %v, want %v", got, want)
	}
}

func readAll(ctx context.Context, s replicator.Store, v replicator.Version) ([]byte, error) {
	r, err := s.Open(ctx, v)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

func published(t *testing.T, s Store) {
	Holds(t, s)
	order := []replicator.Version{V(1, 2, 1), V(1, 2, 9), V(1, 2, 10), V(1, 3, 1), V(2, 1, 1), V(10, 1, 1)}
	for _, v := range order {
		publish(t, s, v)
	}
	slices.Reverse(order)
	Holds(t, s, order...)
	Holds(t, s.Reopen(), order...)
}

func smaller(t *testing.T, s Store) {
	newest := V(5, 5, 5)
	m := publish(t, s, newest)
	for _, v := range []replicator.Version{V(4, 9, 9), V(5, 4, 9), V(5, 5, 4), V(1, 1, 1)} {
		old, data := Snapshot(v, size)
		if err := s.Publish(t.Context(), old, bytes.NewReader(data)); !errors.Is(err, replicator.ErrOlder) {
			t.Errorf("%v after %v: %v, want ErrOlder", v, newest, err)
		}
	}
	if err := s.Publish(t.Context(), m, bytes.NewReader(nil)); err != nil {
		t.Errorf("the newest again: %v", err)
	}
	other, data := Snapshot(newest, 2*size)
	if err := s.Publish(t.Context(), other, bytes.NewReader(data)); !errors.Is(err, replicator.ErrOlder) {
		t.Errorf("other bytes under a version that is there: %v, want ErrOlder", err)
	}
	Holds(t, s, newest)
	Holds(t, s.Reopen(), newest)
}

func otherBytes(t *testing.T, s Store) {
	last := V(1, 1, 1)
	publish(t, s, last)
	m, data := Snapshot(V(1, 1, 2), size)
	changed := bytes.Clone(data)
	changed[size/2] ^= 1
	for name, b := range map[string][]byte{"changed": changed, "short": data[:size-1], "long": append(bytes.Clone(data), 0), "none": nil} {
		if err := s.Publish(t.Context(), m, bytes.NewReader(b)); !errors.Is(err, replicator.ErrDamaged) {
			t.Errorf("%s: %v, want ErrDamaged", name, err)
		}
		Holds(t, s, last)
	}
	if err := s.Publish(t.Context(), replicator.Manifest{}, bytes.NewReader(nil)); err == nil {
		t.Error("an empty manifest is taken")
	}
	publish(t, s, m.Version)
	Holds(t, s, m.Version, last)
}

// interrupted gives some bytes, then fails.
type interrupted struct {
	r   io.Reader
	end func() error
}

func (i interrupted) Read(b []byte) (int, error) {
	n, err := i.r.Read(b)
	if err == io.EOF {
		err = i.end()
	}
	return n, err
}

func failed(t *testing.T, s Store) {
	last := V(1, 1, 1)
	publish(t, s, last)
	m, data := Snapshot(V(1, 1, 2), size)
	cut := errors.New("the line was cut")
	half := func(end func() error) io.Reader { return interrupted{bytes.NewReader(data[:size/2]), end} }
	if err := s.Publish(t.Context(), m, half(func() error { return cut })); !errors.Is(err, cut) {
		t.Errorf("%v, want %v", err, cut)
	}
	Holds(t, s, last)
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Publish(ctx, m, half(func() error { cancel(); return nil })); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled in the middle: %v", err)
	}
	if err := s.Publish(ctx, m, bytes.NewReader(data)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	Holds(t, s, last)
	Holds(t, s.Reopen(), last)
	publish(t, s, m.Version)
	Holds(t, s, m.Version, last)
}

func prune(t *testing.T, s Store) {
	var all []replicator.Version
	for i := range uint64(6) {
		all = append(all, V(1, 1, i+1))
		publish(t, s, all[i])
	}
	now := Day(all[5])
	drop := func(k replicator.Keep, want ...replicator.Version) {
		t.Helper()
		got, err := s.Prune(t.Context(), k, now)
		slices.SortFunc(got, replicator.Version.Compare)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%+v drops %v, %v; want %v", k, got, err, want)
		}
	}
	drop(replicator.Keep{})
	drop(replicator.Keep{Count: 5}, all[0])
	drop(replicator.Keep{Age: 3 * 24 * time.Hour}, all[1])
	s.Damage(all[5])
	s.Damage(all[4])
	drop(replicator.Keep{Count: 1, Age: time.Hour}, all[2]) // 3 is the last sound one, and old
	Holds(t, s, all[3])
	if q, err := s.Quarantined(t.Context()); err != nil || len(q) != 2 || q[0].Version != all[5] || q[0].Fault.Reason != replicator.Digest {
		t.Errorf("in quarantine are %v, %v", q, err)
	}
	drop(replicator.Keep{Count: 1, Age: time.Nanosecond})
	Holds(t, s.Reopen(), all[3])
}

func quarantine(t *testing.T, s Store) {
	old, bad := V(1, 1, 1), V(1, 1, 2)
	publish(t, s, old)
	publish(t, s, bad)
	fault := replicator.Fault{Reason: replicator.Emptied, Text: "table users is empty"}
	if err := s.Quarantine(t.Context(), bad, fault); err != nil {
		t.Fatal(err)
	}
	for _, st := range []replicator.Store{s, s.Reopen()} {
		Holds(t, st, old)
		if q, err := st.Quarantined(t.Context()); err != nil || len(q) != 1 || q[0] != (replicator.Quarantined{Version: bad, Fault: fault}) {
			t.Errorf("in quarantine are %v, %v", q, err)
		}
		if _, err := readAll(t.Context(), st, bad); !errors.Is(err, replicator.ErrNotFound) {
			t.Errorf("what is in quarantine is opened: %v", err)
		}
	}
	publish(t, s, bad) // it came again, and was verified again
	Holds(t, s, bad, old)
	Holds(t, s.Reopen(), bad, old)
	if q, err := s.Quarantined(t.Context()); err != nil || len(q) != 0 {
		t.Errorf("in quarantine are %v, %v", q, err)
	}
	s.Damage(bad)
	if _, err := readAll(t.Context(), s, bad); !errors.Is(err, replicator.ErrDamaged) {
		t.Errorf("what was damaged is read: %v", err)
	}
}

func notFound(t *testing.T, s Store) {
	v := V(1, 1, 1)
	if _, err := s.Open(t.Context(), v); !errors.Is(err, replicator.ErrNotFound) {
		t.Error("open:", err)
	}
	if err := s.Quarantine(t.Context(), v, replicator.Fault{Reason: replicator.Digest}); !errors.Is(err, replicator.ErrNotFound) {
		t.Error("quarantine:", err)
	}
	if drop, err := s.Prune(t.Context(), replicator.Keep{Count: 1}, Day(v)); err != nil || len(drop) > 0 {
		t.Error("prune:", drop, err)
	}
}

// many publishes, reads and prunes at once: the greatest version wins, whoever comes
// first.
func many(t *testing.T, s Store) {
	var wait sync.WaitGroup
	for i := range uint64(8) {
		wait.Go(func() {
			m, data := Snapshot(V(1, 1, i+1), size)
			if err := s.Publish(t.Context(), m, bytes.NewReader(data)); err != nil && !errors.Is(err, replicator.ErrOlder) {
				t.Error(err)
			}
			all, err := s.List(t.Context())
			if err != nil || len(all) == 0 {
				t.Error(len(all), err)
				return
			}
			if _, err := readAll(t.Context(), s, all[0].Version); err != nil && !errors.Is(err, replicator.ErrNotFound) {
				t.Error(err)
			}
			if _, err := s.Prune(t.Context(), replicator.Keep{Count: 2}, time.Now()); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	all, err := s.List(t.Context())
	if err != nil || len(all) == 0 || len(all) > 2 || all[0].Version != V(1, 1, 8) {
		t.Error(fmt.Sprint(all), err)
	}
}
