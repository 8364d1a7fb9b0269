package modules_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/replicator/modules"
)

func modulesEpoch(n uint64) carp.Epoch { return carp.Epoch(n) }

// users is a module that must not be emptied, and rules one that may.
func users() modules.Module {
	return modules.Module{Name: "users", Guarded: []string{"users"}, Diffs: modules.DefaultDiffs}
}

// pair is two nodes that hold the same, of which the first is the holder.
func pair(t *testing.T) (w *world, a, b *node) {
	w = newWorld(t, 2, 1, users()).start()
	a, b = w.nodes[0], w.nodes[1]
	w.change(a, "users", "anna")
	w.run(2 * time.Second)
	w.hold(a, 1)
	w.until(10*time.Second, "both hold the holder's content", w.equal)
	return w, a, b
}

func (w *world) holds(n *node, values ...string) bool {
	return string(n.content("users")) == string(rows("users", values...))
}

func TestAChangeOfTheHolderIsOnThePeerWithinASecond(t *testing.T) {
	w, a, b := pair(t)
	w.change(a, "users", "anna", "bert")
	took := w.until(time.Second, "the change is there", func() bool { return w.holds(b, "anna", "bert") })
	w.until(time.Second, "and nothing is open", w.equal)
	t.Logf("%v", took)
}

func TestAFreshNodeIsNeverASource(t *testing.T) {
	for name, tc := range map[string]struct {
		holder  bool
		content []string
		lost    []string
	}{
		"it comes back empty":                    {false, nil, nil},
		"it comes back with other rows":          {false, []string{"old"}, nil},
		"it is the holder":                       {true, []string{"old"}, nil},
		"it is the holder, and a client changes": {true, []string{"old"}, []string{"changed"}},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, b := pair(t)
			w.stop(a)
			a.disk = nil
			w.change(a, "users", tc.content...)
			w.run(time.Second)
			w.boot(a)
			if tc.holder {
				w.hold(a, 2)
			} else {
				w.hold(b, 2)
			}
			if tc.lost != nil {
				w.change(a, "users", tc.lost...)
			}
			w.until(10*time.Second, "it took what the other has", w.equal)
			if !w.holds(b, "anna") {
				t.Errorf("the other node lost what it had")
			}
		})
	}
}

func TestFreshNodesWithDifferentContentWaitForAnOperator(t *testing.T) {
	w := newWorld(t, 2, 1, users()).start()
	a, b := w.nodes[0], w.nodes[1]
	w.change(a, "users", "anna")
	w.change(b, "users", "bert")
	w.run(2 * time.Second)
	w.hold(a, 1)
	w.run(time.Minute)
	if !w.holds(a, "anna") || !w.holds(b, "bert") {
		t.Fatal("one was replaced though nobody said which is right")
	}
	if _, err := b.core.Seed(b.time(w), "users"); err == nil {
		t.Error("a node that does not hold the address seeds the cluster")
	}
	w.seed(a)
	w.until(10*time.Second, "both hold the seed", w.equal)
	if !w.holds(b, "anna") || w.counts[modules.Conflict] != 1 {
		t.Errorf("%d conflicts told, want 1", w.counts[modules.Conflict])
	}
}

func TestAHolderThatIsFreshAndAloneWaits(t *testing.T) {
	w := newWorld(t, 3, 1, users()).start()
	w.run(2 * time.Second)
	a := w.nodes[0]
	w.stop(w.nodes[2]) // which may have a state
	w.stop(a)
	w.boot(a)
	w.change(a, "users", "anna")
	w.hold(a, 1)
	w.run(time.Minute)
	if s := a.module(w, "users"); s.Standing != modules.Fresh {
		t.Errorf("it stands as %v, want fresh: a node was never heard", s.Standing)
	}
}

func TestARestartKeepsStampsOnBothNodes(t *testing.T) {
	w, a, b := pair(t)
	before := a.module(w, "users").Stamp
	w.stop(a)
	w.stop(b)
	w.run(time.Second)
	w.boot(a)
	w.boot(b)
	w.run(5 * time.Second)
	if s := a.module(w, "users").Stamp; s != before {
		t.Errorf("the stamp is %v, was %v", s, before)
	}
	w.hold(b, 2) // the first change after it is seen, on whichever node it is made
	w.change(b, "users", "anna", "carl")
	w.until(5*time.Second, "a change after both restarted", func() bool { return w.holds(a, "anna", "carl") })
}

func TestAStaleNodeNeverOverwritesANewerState(t *testing.T) {
	w, a, b := pair(t)
	w.stop(b)
	w.change(a, "users", "anna", "bert")
	w.run(2 * time.Second)
	w.boot(b)                   // it holds what was before
	w.change(b, "users", "old") // and a client changes that at once
	w.release(a)
	w.hold(b, 2)
	w.until(10*time.Second, "the newer state", w.equal)
	if !w.holds(a, "anna", "bert") || w.counts[modules.Conflict] != 1 {
		t.Errorf("%d conflicts told, want 1", w.counts[modules.Conflict])
	}
}

func TestANewHolderHearsItsNeighboursFirst(t *testing.T) {
	w, a, b := pair(t)
	w.stop(b)
	w.change(a, "users", "anna", "bert")
	w.run(2 * time.Second)
	w.release(a)
	w.slow = 1200 * time.Millisecond // longer than a change takes to settle
	w.change(b, "users", "old")
	w.boot(b)
	w.hold(b, 2)
	w.until(20*time.Second, "the newer state", w.equal)
	if !w.holds(a, "anna", "bert") || w.counts[modules.Stamped] != 2 {
		t.Errorf("%d stamps were made, want the two of the first holder", w.counts[modules.Stamped])
	}
}

func TestAClockAheadHidesNoLaterChange(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"ahead": 300 * time.Second, "behind": -300 * time.Second, "years ahead": 100000 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2, 1, users())
			a, b := w.nodes[0], w.nodes[1]
			a.ahead = ahead
			w.start()
			w.change(a, "users", "anna")
			w.run(2 * time.Second)
			w.hold(a, 1)
			w.until(10*time.Second, "equal", w.equal)
			w.release(a)
			w.hold(b, 2)
			w.change(b, "users", "anna", "bert")
			w.until(2*time.Second, "the change of the node with the right clock", func() bool { return w.holds(a, "anna", "bert") })
			w.until(time.Second, "equal", w.equal)
			w.release(b)
			w.hold(a, 3)
			w.run(10 * time.Second)
			if !w.holds(b, "anna", "bert") {
				t.Error("an unrelated change of role reverted it")
			}
		})
	}
}

func TestEmptyingIsRefusedUnlessAllowed(t *testing.T) {
	w, a, b := pair(t)
	w.change(a, "users")
	w.run(10 * time.Second)
	if !w.holds(b, "anna") || a.module(w, "users").Standing != modules.Refusing || w.counts[modules.Refused] != 1 {
		t.Fatalf("the peer holds its rows: %v, the holder is %v, told %d times", w.holds(b, "anna"), a.module(w, "users").Standing, w.counts[modules.Refused])
	}
	w.do(a, a.core.Allow(a.time(w), "users"))
	w.until(5*time.Second, "it is empty everywhere", func() bool { return w.equal() && w.holds(b) })
	// A node that comes back takes it with the permission that came along.
	w.stop(b)
	w.change(b, "users", "anna")
	w.run(time.Second)
	w.boot(b)
	w.until(10*time.Second, "and there, too", w.equal)
	if !w.holds(b) {
		t.Error("a permission was forgotten")
	}
}

func TestAnEmptyStateIsRefusedByTheReceiver(t *testing.T) {
	w := newWorld(t, 2, 1, users()).start()
	a, b := w.nodes[0], w.nodes[1]
	w.change(b, "users", "bert")
	w.run(2 * time.Second)
	w.hold(a, 1)
	w.seed(a) // of nothing
	w.run(10 * time.Second)
	if !w.holds(b, "bert") || b.module(w, "users").Standing != modules.Refusing {
		t.Fatalf("the receiver is %v", b.module(w, "users").Standing)
	}
	w.do(b, b.core.Allow(b.time(w), "users"))
	w.until(5*time.Second, "an operator allowed it there", w.equal)
}

// A program that was restarted may have lost what was never saved to disk.
func TestWhatAProgramFoundAtItsStartIsNoChange(t *testing.T) {
	w, a, b := pair(t)
	w.change(a, "users", "anna", "bert")
	w.until(5*time.Second, "a change", w.equal)
	a.found = true
	w.change(a, "users", "anna")
	w.until(10*time.Second, "it is put back at the holder", func() bool { return w.holds(a, "anna", "bert") })
	if !w.holds(b, "anna", "bert") {
		t.Error("the other node lost a change")
	}
	a.found = false
	w.change(a, "users", "anna", "carl")
	w.until(5*time.Second, "the next change counts", func() bool { return w.equal() && w.holds(b, "anna", "carl") })
}

func TestAHalfChangeIsNotStamped(t *testing.T) {
	w, a, b := pair(t)
	m := w.specs[0]
	for range 20 { // DELETE, then INSERT, with a look between them
		w.change(a, "users")
		w.look(a, m.Name)
		w.change(a, "users", "anna", "bert")
		w.look(a, m.Name)
	}
	w.until(2*time.Second, "the whole change", func() bool { return w.holds(b, "anna", "bert") })
	if v := a.module(w, "users").Stamp.Version; v != 2 {
		t.Errorf("number %d, want 2: what was seen once was stamped", v)
	}
}

func TestAChangeElsewhereIsPutBackOrForwarded(t *testing.T) {
	for name, tc := range map[string]struct {
		policy modules.Policy
		also   bool // the holder changes at the same time
		want   []string
		kinds  []modules.EventKind
	}{
		"refuse":        {modules.Refuse, false, []string{"anna"}, []modules.EventKind{modules.Reverted}},
		"forward":       {modules.Forward, false, []string{"bert"}, []modules.EventKind{modules.Forwarded}},
		"forward, both": {modules.Forward, true, []string{"carl"}, []modules.EventKind{modules.Conflict}},
		"refuse, both":  {modules.Refuse, true, []string{"carl"}, []modules.EventKind{modules.Conflict}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3, 1, users())
			w.policy = tc.policy
			w.start()
			a, b := w.nodes[0], w.nodes[1]
			for _, n := range w.nodes {
				w.change(n, "users", "anna")
			}
			w.run(2 * time.Second)
			w.hold(a, 1)
			w.until(10*time.Second, "equal", w.equal)
			w.change(b, "users", "bert")
			if tc.also {
				w.change(a, "users", "carl")
			}
			w.until(10*time.Second, "one content", func() bool { return w.equal() && w.holds(b, tc.want...) })
			for _, k := range tc.kinds {
				if w.counts[k] == 0 {
					t.Errorf("%s was not told: %v", k, w.counts)
				}
			}
		})
	}
}

func TestAForwardedChangeThatEmptiesIsNotTaken(t *testing.T) {
	w, _, b := pair(t)
	w.policy = modules.Forward
	for _, n := range w.nodes {
		w.stop(n)
		w.boot(n)
	}
	w.hold(w.nodes[0], 2)
	w.run(2 * time.Second)
	w.change(b, "users")
	w.until(15*time.Second, "it is put back", func() bool { return w.counts[modules.NotTaken] == 1 && w.equal() })
	if !w.holds(b, "anna") {
		t.Error("the rows are lost")
	}
}

func TestTwoStatesOfAPartitionAreAConflictAndTheGreaterWins(t *testing.T) {
	w, a, b := pair(t)
	w.apart = func(x, y uint8) bool { return true }
	w.run(5 * time.Second)
	w.hold(b, 2) // both hold the address now
	w.change(a, "users", "anna", "left")
	w.run(5 * time.Second)
	w.change(b, "users", "anna", "right")
	w.run(5 * time.Second)
	w.apart = func(x, y uint8) bool { return false }
	w.until(time.Minute, "one content", w.equal)
	if !w.holds(a, "anna", "right") || w.counts[modules.Conflict] != 1 || w.counts[modules.TwoHolders] == 0 {
		t.Errorf("told: %v", w.counts)
	}
	if c := a.core.Holder(); c.Node != 2 {
		t.Errorf("node %d is taken for the holder, want the later", c.Node)
	}
}

// The master told of a change and died before anybody had it.
func TestAStateThatDiedWithItsNodeKeepsNobodyFromChanging(t *testing.T) {
	for name, dirty := range map[string]bool{"the node died": false, "its database holds something else": true} {
		t.Run(name, func(t *testing.T) {
			w, a, b := pair(t)
			w.mangle = func(from uint8, m modules.Message) modules.Message {
				if d, ok := m.(modules.Data); ok && from == a.id {
					return modules.Gone{Module: d.Module, Stamp: d.Meta.Stamp, Reason: "lost"}
				}
				return m
			}
			w.change(a, "users", "anna", "bert")
			w.until(5*time.Second, "the other node has heard of it", func() bool { return !b.module(w, "users").Wanted.IsZero() })
			if dirty {
				w.release(a)
				w.change(a, "users", "anna", "bert", "more")
			} else {
				w.stop(a)
			}
			w.mangle = nil
			w.hold(b, 2)
			w.change(b, "users", "anna", "carl")
			w.until(20*time.Second, "the new holder's change counts", func() bool { return b.module(w, "users").Standing == modules.InSync })
			if !a.up {
				w.boot(a)
			}
			w.until(20*time.Second, "all hold it", w.equal)
			if !w.holds(a, "anna", "carl") || w.counts[modules.Conflict] == 0 {
				t.Errorf("told: %v", w.counts)
			}
		})
	}
}

func TestEqualClocksAreDecided(t *testing.T) {
	base := modules.Stamp{Epoch: 5, Term: 2, Node: 1, Version: 3}
	for name, greater := range map[string]modules.Stamp{
		"a later mastership": {Epoch: 5, Term: 3, Node: 1, Version: 3},
		"a greater node id":  {Epoch: 5, Term: 2, Node: 2, Version: 3},
		"a later number":     {Epoch: 5, Term: 2, Node: 1, Version: 4},
		"another checksum":   {Epoch: 5, Term: 2, Node: 1, Version: 3, Sum: modules.Sum{1}},
		"a later clock":      {Epoch: 6, Term: 2},
		"a later holder":     {Epoch: 4, Term: 3},
	} {
		if greater.Compare(base) != 1 || base.Compare(greater) != -1 {
			t.Errorf("%s does not decide", name)
		}
	}
	if base.Compare(base) != 0 || base.Compare(modules.Stamp{}) != 1 {
		t.Error("a stamp is equal to itself alone, and newer than none")
	}
}

func TestWhatArrivesDamagedIsNotTaken(t *testing.T) {
	w, a, b := pair(t)
	w.mangle = func(from uint8, m modules.Message) modules.Message {
		if d, ok := m.(modules.Data); ok && len(d.Content) > 0 {
			d.Content = rows("users", "mallory")
			return d
		}
		return m
	}
	w.change(a, "users", "anna", "bert")
	w.run(5 * time.Second)
	if !w.holds(b, "anna") || w.counts[modules.Mismatch] == 0 {
		t.Fatalf("told: %v", w.counts)
	}
	if n := w.counts[modules.Mismatch]; n > 6 {
		t.Errorf("asked %d times in 5 s: no back-off", n)
	}
	w.mangle = nil
	w.until(time.Minute, "the right bytes", w.equal)
}

func TestADatabaseThatTakesNothingIsTriedWithBackOff(t *testing.T) {
	w, a, b := pair(t)
	b.refuses = errors.New("disk full")
	w.change(a, "users", "anna", "bert")
	w.run(30 * time.Second)
	if n := w.counts[modules.Failed]; n < 2 || n > 10 {
		t.Errorf("tried %d times in 30 s", n)
	}
	if s := b.module(w, "users"); s.Standing == modules.InSync || !strings.Contains(s.Reason, "disk full") {
		t.Errorf("it says %v, %q", s.Standing, s.Reason)
	}
	b.refuses = nil
	w.until(time.Minute, "it is tried again", w.equal)
}

// Memory may hold what came, and the disk not.
func TestAnInstallThatFailedHalfWayIsDoneAgain(t *testing.T) {
	w, a, b := pair(t)
	b.refuses = errors.New("saved nowhere")
	w.change(a, "users", "anna", "bert")
	w.until(2*time.Second, "it fails", func() bool { return w.counts[modules.Failed] > 0 })
	w.change(b, "users", "anna", "bert") // what memory holds
	w.run(time.Second)
	tried := w.counts[modules.Failed]
	w.until(30*time.Second, "it is written again", func() bool { return w.counts[modules.Failed] > tried })
	if b.module(w, "users").Stamp.Version != 1 {
		t.Error("it took the stamp though its database did not take the content")
	}
	b.refuses = nil
	w.until(time.Minute, "once more", w.equal)
}

// A database may answer OK and hold something else.
func TestAWriteThatLiedIsFound(t *testing.T) {
	w, a, b := pair(t)
	w.change(a, "users", "anna", "bert")
	w.until(time.Second, "an install is under way", func() bool { return b.module(w, "users").Standing == modules.Installing })
	s, err := modules.Summarize(rows("users", "half"))
	if err != nil {
		t.Fatal(err)
	}
	w.do(b, b.core.Installed(b.time(w), "users", s, nil))
	if b.module(w, "users").Stamp.Version != 1 || w.counts[modules.Failed] != 1 {
		t.Errorf("it took the stamp: %v", b.module(w, "users"))
	}
	w.until(10*time.Second, "it is written again", w.equal)
}

func TestModulesWithoutDiffsAreShownAndNeverPulled(t *testing.T) {
	m := users()
	m.Diffs = 0
	w := newWorld(t, 2, 1, m).start()
	a, b := w.nodes[0], w.nodes[1]
	w.change(a, "users", "anna")
	w.change(b, "users", "anna")
	w.run(2 * time.Second)
	w.hold(a, 1)
	w.seed(a)
	w.change(a, "users", "bert")
	w.run(20 * time.Second)
	if s := b.module(w, "users"); !w.holds(b, "anna") || s.Standing != modules.Behind {
		t.Errorf("it is %v", s.Standing)
	}
}

func TestPollsAloneNeedSoManyObservations(t *testing.T) {
	w, a, b := pair(t)
	w.mangle = func(from uint8, m modules.Message) modules.Message {
		if r, ok := m.(modules.Report); ok && r.Why == modules.Pushed {
			return modules.Same{} // lost
		}
		return m
	}
	w.change(a, "users", "anna", "bert")
	w.until(2*time.Second, "it is stamped", func() bool { return a.module(w, "users").Stamp.Version == 2 })
	var most int
	w.until(10*time.Second, "it is pulled", func() bool {
		if s := b.module(w, "users"); s.Standing == modules.Behind {
			most = max(most, s.Seen)
		}
		return w.holds(b, "anna", "bert")
	})
	if most != modules.DefaultDiffs-1 {
		t.Errorf("pulled after %d observations and one more, want %d in all", most, modules.DefaultDiffs)
	}
}

func TestAStampOfNoClockIsNotRead(t *testing.T) {
	r := modules.Report{Entries: []modules.Entry{{Module: "m", Stamp: modules.Stamp{Epoch: 1 << 62}}}}
	if _, err := modules.Decode(modules.Append(nil, r)); err == nil {
		t.Error("it was read: no later change could have a greater one")
	}
}

func TestContentIsCanonical(t *testing.T) {
	enc := func(c modules.Content) string {
		b, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	one := func(rows ...[]any) modules.Content {
		return modules.Content{{Name: "t", Columns: []string{"a", "b"}, Rows: rows}}
	}
	if enc(one([]any{int64(1), "x"}, []any{int64(2), "y"})) != enc(one([]any{int64(2), "y"}, []any{int64(1), "x"})) {
		t.Error("the order of rows counts")
	}
	// ProxySQL's own checksum takes these for equal: no separators, and NULL is "".
	different := []modules.Content{one([]any{"ab", "c"}), one([]any{"a", "bc"}), one([]any{"abc", nil}), one([]any{"abc", ""}), one([]any{nil, "abc"}),
		one([]any{"1", ""}), one([]any{int64(1), ""}), one([]any{1.0, ""}), one([]any{[]byte("1"), ""}), one()}
	seen := map[string]bool{}
	for _, c := range different {
		seen[enc(c)] = true
		back, err := modules.DecodeContent([]byte(enc(c)))
		if err != nil || enc(back) != enc(c) {
			t.Errorf("%v is read as %v, %v", c, back, err)
		}
	}
	if len(seen) != len(different) {
		t.Errorf("%d forms of %d contents", len(seen), len(different))
	}
}

func TestNeighboursReachAllInFewSteps(t *testing.T) {
	for _, n := range []int{2, 3, 5, 12, 200, modules.MaxNodes} {
		w := newWorld(t, n, 1, users())
		steps := map[uint8][]uint8{}
		for _, x := range w.nodes {
			w.boot(x)
			for _, p := range x.core.Status(x.time(w)).Peers {
				if p.Neighbour {
					steps[x.id] = append(steps[x.id], p.Node)
					steps[p.Node] = append(steps[p.Node], x.id) // news go both ways
				}
			}
		}
		reached, edge, depth := map[uint8]bool{1: true}, []uint8{1}, 0
		for len(edge) > 0 {
			var next []uint8
			for _, x := range edge {
				for _, y := range steps[x] {
					if !reached[y] {
						reached[y] = true
						next = append(next, y)
					}
				}
			}
			if edge = next; len(edge) > 0 {
				depth++
			}
		}
		if len(reached) != n || depth > 9 {
			t.Errorf("of %d nodes %d are reached, in %d steps", n, len(reached), depth)
		}
		for id, p := range steps {
			slices.Sort(p)
			if len(slices.Compact(p)) > 2*modules.DefaultFanout {
				t.Errorf("node %d of %d has %d lines", id, n, len(p))
			}
		}
	}
}

func TestConfigsThatNoClusterCanHaveAreRefused(t *testing.T) {
	m := []modules.Module{users()}
	for name, c := range map[string]modules.Config{
		"no id":              {Peers: []uint8{1}, Modules: m},
		"one id twice":       {Self: 1, Peers: []uint8{1}, Modules: m},
		"no modules":         {Self: 1},
		"a module twice":     {Self: 1, Modules: []modules.Module{users(), users()}},
		"a module sans name": {Self: 1, Modules: []modules.Module{{}}},
	} {
		if _, err := modules.New(c, modules.State{}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
