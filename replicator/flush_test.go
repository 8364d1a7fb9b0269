package replicator_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/storetest"
)

func TestTheLastChangeIsFlushedBeforeARoleIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c, s := newNode(t, 1), newNode(t, 2), newNode(t, 3), newSource("one")
		dead := &remote{store: c}
		m, _ := lead(t, a, 5, s, nil, replicator.Peer{Name: "b", Target: &remote{store: b}}, replicator.Peer{Name: "c", Target: dead})
		pass(time.Minute)
		flush := func(limit time.Duration) (time.Duration, error) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			began := time.Now()
			err := m.Flush(ctx)
			return time.Since(began), err
		}
		if took, err := flush(time.Second); err != nil || took > 20*time.Millisecond || m.Status().Taken != 1 {
			t.Errorf("nothing changed: %v, %v, %d snapshots", took, err, m.Status().Taken)
		}
		s.write("last")
		if took, err := flush(time.Second); err != nil || took > 20*time.Millisecond {
			t.Errorf("%v, %v", took, err)
		}
		for _, n := range []*node{b, c} {
			if got, _ := text(t, n); got != "last" {
				t.Errorf("%q", got)
			}
		}
		dead.set(func(r *remote) { r.cut = errors.New("cut") })
		s.write("not for c")
		if took, err := flush(time.Second); !errors.Is(err, replicator.ErrNotFlushed) || !strings.HasSuffix(err.Error(), "not with c") || took > 20*time.Millisecond {
			t.Errorf("with a dead peer: %v, %v", took, err)
		}
		if got, _ := text(t, b); got != "not for c" {
			t.Errorf("the peer that lives has %q", got)
		}
		s.set(func(s *source) { s.empty, s.text = true, "half" })
		if took, err := flush(time.Second); !errors.Is(err, replicator.ErrNotFlushed) || !strings.Contains(err.Error(), "no snapshot") || took != time.Second {
			t.Errorf("half saved: %v, %v", took, err)
		}
	})
}

func TestAPeerThatHasWhatWasNeverHereIsAnAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, 1), newNode(t, 2)
		toB := &remote{store: b}
		_, stop := lead(t, a, 200, newSource("both"), nil, replicator.Peer{Name: "b", Target: toB})
		pass(time.Second)
		stop()
		sa := newSource("both")
		_, stop = lead(t, a, 201, sa, nil)
		pass(time.Second)
		sa.write("a alone")
		pass(time.Second)
		stop()
		m, _ := lead(t, b, 300, newSource("both"), nil, replicator.Peer{Name: "a", Target: &remote{store: a}})
		pass(time.Second)
		lost := storetest.V(201, 1, 2)
		if s := m.Status(); s.Lost != lost || s.Peers[0].Lost != lost || s.Peers[0].State != replicator.PeerCurrent {
			t.Errorf("%+v", s)
		}
		if got := read(t, a, lost); got != "a alone" {
			t.Errorf("%q", got)
		}
		pass(time.Hour)
		if s := m.Status(); s.Lost != lost {
			t.Errorf("forgotten: %+v", s)
		}
	})
}
