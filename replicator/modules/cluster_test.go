package modules_test

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator/modules"
)

var (
	size  = flag.Int("modules.nodes", 200, "nodes of the large cluster")
	seeds = flag.Int("modules.seeds", 12, "random histories to play")
)

// many is how many nodes there are where the cost of a node does not depend on it: fewer
// with the race detector, which makes each ten times as slow.
func many() int {
	if raceDetector {
		return min(*size, 60)
	}
	return *size
}

// cluster is a large one, in which all hold what the first node was seeded with.
func cluster(t *testing.T, n int, prepare func(w *world)) *world {
	w := newWorld(t, n, 11)
	if prepare != nil {
		prepare(w)
	}
	w.start()
	for _, m := range w.specs {
		w.change(w.nodes[0], m.Name, "one", "two")
	}
	w.run(3 * time.Second)
	w.hold(w.nodes[0], 1)
	w.run(2 * time.Second)
	w.seed(w.nodes[0])
	t.Logf("%d nodes hold the seed after %v", n, w.until(time.Minute, "all hold the seed", w.equal))
	return w
}

// traffic returns bytes per second and node over so long: the mean, and that of the node
// that sends most.
func (w *world) traffic(d time.Duration) (mean, most float64) {
	before := make([]int64, len(w.nodes))
	for i, n := range w.nodes {
		before[i] = n.sent
	}
	w.run(d)
	for i, n := range w.nodes {
		rate := float64(n.sent-before[i]) / d.Seconds()
		mean += rate / float64(len(w.nodes))
		most = max(most, rate)
	}
	return mean, most
}

func TestALargeClusterCostsLittleWhenIdle(t *testing.T) {
	w := cluster(t, *size, nil)
	w.run(5 * time.Second)
	mean, most := w.traffic(10 * time.Second)
	t.Logf("idle, %d nodes, each second: a node sends %.0f bytes (the busiest %.0f), and receives as many", *size, mean, most)
	if most > 5000/2 {
		t.Errorf("the busiest node sends %.0f bytes a second: both ways more than 5000", most)
	}
}

func TestAChangeReachesALargeCluster(t *testing.T) {
	for _, tc := range []struct {
		name         string
		loss, resent float64
		limit        time.Duration
	}{
		{"no losses", 0, 0, 2 * time.Second},
		{"a fifth of all packets lost and sent again", 0, 0.2, 10 * time.Second},
		{"a twentieth of all messages lost for good", 0.05, 0, 30 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := cluster(t, many(), nil)
			w.loss, w.resent = tc.loss, tc.resent
			var times []time.Duration
			holder := w.nodes[0]
			before := w.total()
			const changes = 5
			for i := range changes {
				w.run(time.Duration(w.rand.Int64N(int64(time.Second))))
				v := fmt.Sprint("change ", i)
				w.change(holder, "mysql_users", "one", v)
				times = append(times, w.until(tc.limit, "the change is everywhere", func() bool { return w.all("mysql_users", "one", v) }))
			}
			slices.Sort(times)
			t.Logf("%d nodes hold a change after %v (median), %v (at most); a change costs each node %d bytes, with the polls of that time", many(), times[changes/2], times[changes-1], (w.total()-before)/int64(many())/changes)
			w.loss, w.resent = 0, 0
			w.until(time.Minute, "nothing is open", w.equal)
		})
	}
}

func (w *world) total() (n int64) {
	for _, x := range w.nodes {
		n += x.sent
	}
	return n
}

// all reports whether every node that is up holds these rows.
func (w *world) all(module string, values ...string) bool {
	want := string(rows(module, values...))
	for _, n := range w.nodes {
		if n.up && string(n.content(module)) != want {
			return false
		}
	}
	return true
}

func TestALargeClusterSurvivesWhatHappensToIt(t *testing.T) {
	ahead := 3 // a node whose clock is 300 s ahead
	w := cluster(t, many(), func(w *world) { w.nodes[ahead].ahead = 300 * time.Second })
	holder := w.nodes[0]
	step := func(name string, limit time.Duration, value string) {
		t.Helper()
		took := w.until(limit, name, func() bool { return w.all("mysql_users", value) && w.equal() })
		t.Logf("%-60s %v", name, took)
	}

	w.apart = func(a, b uint8) bool { return (int(a) <= len(w.nodes)/2) != (int(b) <= len(w.nodes)/2) }
	w.run(30 * time.Second)
	w.change(holder, "mysql_users", "during the partition")
	w.run(10 * time.Second)
	w.apart = func(a, b uint8) bool { return false }
	step("a partition of halves has healed", 30*time.Second, "during the partition")

	for i := range len(w.nodes) / 4 { // with state, and without
		n := w.nodes[len(w.nodes)/2+i]
		w.stop(n)
		if i%2 == 0 {
			n.disk = nil
			clear(n.db)
		}
	}
	w.run(20 * time.Second)
	w.change(holder, "mysql_users", "while a quarter was away")
	w.run(5 * time.Second)
	for _, n := range w.nodes {
		if !n.up {
			w.boot(n)
		}
	}
	step("a quarter is back, half of that without its state", 30*time.Second, "while a quarter was away")

	w.release(holder)
	holder = w.nodes[ahead]
	w.hold(holder, 2)
	w.change(holder, "mysql_users", "by the node whose clock is ahead")
	step("a change of a holder whose clock is 300 s ahead", 10*time.Second, "by the node whose clock is ahead")
	w.stop(holder)
	holder = w.nodes[7]
	w.hold(holder, 3)
	w.change(holder, "mysql_users", "by its successor")
	step("a change of its successor, whose clock is right", 10*time.Second, "by its successor")

	holder.disk = nil
	clear(holder.db)
	w.stop(holder)
	w.run(time.Second)
	w.boot(holder)
	w.hold(holder, 4) // an empty node holds the address
	step("the holder came back without anything", 30*time.Second, "by its successor")
	w.change(holder, "mysql_users", "after that")
	step("and its next change", 10*time.Second, "after that")
}

// Whatever happens, in the end all nodes hold the same; with one holder at a time that
// hears its neighbours, that is its latest change.
func TestRandomHistoriesEndInOneContent(t *testing.T) {
	for seed := range uint64(*seeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { play(t, seed) })
	}
}

func play(t *testing.T, seed uint64) {
	w := newWorld(t, 9, seed, users(), modules.Module{Name: "rules", Diffs: 3})
	w.policy = modules.Policy(seed % 2)
	for _, n := range w.nodes {
		n.ahead = time.Duration(w.rand.IntN(7)-3) * 100 * time.Second
		for _, m := range w.specs {
			w.change(n, m.Name, "begin")
		}
	}
	w.start()
	w.run(2 * time.Second)
	w.hold(w.nodes[0], 1)
	w.until(time.Minute, "they begin", w.equal)
	term := uint64(1)
	for i := range 60 {
		n := w.nodes[w.rand.IntN(len(w.nodes))]
		switch w.rand.IntN(9) {
		case 0:
			w.loss = w.rand.Float64() / 4
		case 1:
			cut := uint8(w.rand.IntN(len(w.nodes)))
			w.apart = func(a, b uint8) bool { return (a <= cut) != (b <= cut) }
		case 2:
			w.apart = func(a, b uint8) bool { return false }
		case 3, 4: // another holder; sometimes the former does not know it yet
			term++
			for _, o := range w.nodes {
				if o.up && o.term != 0 && w.rand.IntN(3) > 0 {
					w.release(o)
				}
			}
			if n.up {
				w.hold(n, term)
			}
		case 5:
			if n.up {
				w.stop(n)
			} else {
				w.boot(n)
			}
		case 6:
			if n.up && n.term == 0 && w.rand.IntN(4) == 0 && w.upWithState() > 4 {
				w.stop(n)
				n.disk = nil // reinstalled
				clear(n.db)
			}
		default:
			w.change(n, w.specs[w.rand.IntN(2)].Name, fmt.Sprint("change ", i))
		}
		w.run(time.Duration(w.rand.Int64N(int64(4 * time.Second))))
	}
	w.loss = 0
	w.apart = func(a, b uint8) bool { return false }
	for _, n := range w.nodes {
		if !n.up {
			w.boot(n)
		} else if n.term != 0 {
			w.release(n)
		}
	}
	w.hold(w.nodes[4], term+1)
	w.until(3*time.Minute, "one content", w.equal)
	w.change(w.nodes[4], "users", "the end")
	w.until(10*time.Second, "the last change", func() bool { return w.equal() && w.all("users", "the end") })
	if w.counts[modules.Mismatch] > 0 {
		t.Errorf("%d contents were not what their stamps say", w.counts[modules.Mismatch])
	}
}

// upWithState counts those that know what the cluster had.
func (w *world) upWithState() (n int) {
	for _, x := range w.nodes {
		if x.up && x.disk != nil {
			n++
		}
	}
	return n
}
