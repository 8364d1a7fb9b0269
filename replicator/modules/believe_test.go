package modules_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator/modules"
)

// One that a broken node says would leave no greater one for later changes.
func TestClocksAndMastershipsThatCannotBeAreNotBelieved(t *testing.T) {
	const absurd = 1<<62 - 1
	for name, r := range map[string]modules.Report{
		"clock":               {Why: modules.Pushed, Entries: []modules.Entry{{Module: "users", Stamp: modules.Stamp{Epoch: absurd, Term: 1, Node: 2, Version: 9}}}},
		"mastership":          {Why: modules.Pushed, Entries: []modules.Entry{{Module: "users", Stamp: modules.Stamp{Epoch: 9, Term: absurd, Node: 2, Version: 9}}}},
		"mastership, claimed": {Why: modules.Pushed, Claim: modules.Claim{Term: absurd, Node: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, b := pair(t)
			before := a.core.State()
			for range 3 {
				w.do(a, a.core.Hear(a.time(w), b.id, r))
			}
			if s := a.core.State(); s.Seen != before.Seen || s.Term != before.Term {
				t.Errorf("believed: clock %d, mastership %d", s.Seen, s.Term)
			}
			if w.counts[modules.Absurd] != 1 {
				t.Errorf("told %d times, want once", w.counts[modules.Absurd])
			}
			if s := a.module(w, "users"); !s.Wanted.IsZero() || a.core.Holder().Node != a.id {
				t.Errorf("wanted: %v, holder: %+v", s.Wanted, a.core.Holder())
			}
			w.change(a, "users", "anna", "bert")
			w.until(5*time.Second, "the next change is everywhere", func() bool { return w.equal() && w.holds(b, "anna", "bert") })
		})
	}
}

func TestAMastershipThatCannotBeIsNotHeld(t *testing.T) {
	w, a, b := pair(t)
	w.hold(a, 1<<63-1)
	w.change(a, "users", "anna", "bert")
	w.until(5*time.Second, "the change is everywhere", func() bool { return w.equal() && w.holds(b, "anna", "bert") })
	if h := a.core.Holder(); h.Term != 2 || w.counts[modules.Absurd] > 0 {
		t.Errorf("%+v, told: %v", h, w.counts)
	}
}

func TestAClaimOfNoMastershipIsNotRead(t *testing.T) {
	for _, term := range []uint64{1 << 62, 1<<64 - 1} {
		r := modules.Report{Claim: modules.Claim{Term: modulesEpoch(term), Node: 2}}
		if _, err := modules.Decode(modules.Append(nil, r)); err == nil {
			t.Errorf("%d was read: no later mastership could have a greater one", term)
		}
	}
}

// A number of changes is for people: at the greatest one the clock still orders.
func TestTheNumberOfChangesStopsAndChangesGoOn(t *testing.T) {
	w, a, b := pair(t)
	for _, n := range w.nodes {
		w.stop(n)
		n.disk = bytes.Replace(n.disk, []byte(`"version":1,`), []byte(`"version":4611686018427387903,`), 1)
		n.stamps = map[string]modules.Stamp{}
		w.boot(n)
	}
	w.hold(a, 2)
	w.change(a, "users", "anna", "bert")
	w.until(10*time.Second, "the next change is everywhere", func() bool { return w.equal() && w.holds(b, "anna", "bert") })
}

// The order is that of snapshots: a clock that is ahead makes nobody the later holder.
func TestOfTwoHoldersTheLaterWinsWhateverTheClocks(t *testing.T) {
	w := newWorld(t, 2, 1, users())
	a, b := w.nodes[0], w.nodes[1]
	a.ahead = time.Hour
	w.start()
	w.change(a, "users", "anna")
	w.run(2 * time.Second)
	w.hold(a, 1)
	w.until(10*time.Second, "equal", w.equal)
	w.apart = func(x, y uint8) bool { return true }
	w.run(5 * time.Second)
	w.hold(b, 2)
	w.change(b, "users", "anna", "the later holder")
	w.run(5 * time.Second)
	w.change(a, "users", "anna", "the clock that is ahead")
	w.run(5 * time.Second)
	w.change(a, "users", "anna", "and once more")
	w.run(5 * time.Second)
	w.apart = func(x, y uint8) bool { return false }
	w.until(time.Minute, "one content", w.equal)
	if !w.holds(a, "anna", "the later holder") || w.counts[modules.Conflict] == 0 {
		t.Errorf("told: %v", w.counts)
	}
	// The former goes on from it, though it still takes itself for the holder.
	w.change(a, "users", "anna", "what follows")
	w.until(10*time.Second, "its next change is based on that", func() bool { return w.equal() && w.holds(b, "anna", "what follows") })
}
