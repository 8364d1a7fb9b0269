package replicator_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/replicator"
)

var (
	failovers = flag.Int("failovers", 6, "masterships of TestNothingIsLostOverManyFailovers, for each seed")
	seed      = flag.Uint64("seed", 0, "the only seed; 0: some")
)

// cluster is some nodes of which one is the master. A change is a number that grows.
type cluster struct {
	t     *testing.T
	r     *rand.Rand
	nodes []*node
	lines [][]*remote // from, to
	epoch carp.Epoch
	last  int // change
}

func newCluster(t *testing.T, n int, seed uint64) *cluster {
	c := &cluster{t: t, r: rand.New(rand.NewPCG(seed, 1))}
	for i := range n {
		c.nodes = append(c.nodes, newNode(t, uint8(i+1)))
	}
	for range n {
		var to []*remote
		for _, far := range c.nodes {
			to = append(to, &remote{store: far})
		}
		c.lines = append(c.lines, to)
	}
	return c
}

// peers are all nodes but one, as it reaches them.
func (c *cluster) peers(of int) (all []replicator.Peer) {
	for i, line := range c.lines[of] {
		if i != of {
			all = append(all, replicator.Peer{Name: fmt.Sprint("node", i+1), Target: line})
		}
	}
	return all
}

// follow runs the loop of a standby on all nodes but one.
func (c *cluster) follow(but int) (stop func()) {
	var stops []func()
	for i, n := range c.nodes {
		if i != but {
			sound := func(context.Context, replicator.Manifest, map[string]int64) replicator.Verdict {
				return replicator.Verdict{}
			}
			_, stop := follow(c.t, replicator.StandbyConfig{Store: n, Verify: sound, Poll: 5 * time.Second, Keep: replicator.Keep{Count: 4}})
			stops = append(stops, stop)
		}
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// state is what a node would restore.
func (c *cluster) state(i int) (change int, v replicator.Version) {
	c.t.Helper()
	s, v := text(c.t, c.nodes[i])
	if s == "" {
		return 0, v
	}
	change, err := strconv.Atoi(s)
	if err != nil {
		c.t.Fatal(err)
	}
	return change, v
}

// commit is a change and when it was made.
type commit struct {
	change int
	at     time.Time
}

// mastership lets a node be master for some time. Peers are cut off, hang and lose their
// directories meanwhile; those that are whole at the end are returned, with the changes.
func (c *cluster) mastership(master int) (whole []int, commits []commit) {
	start, _ := c.state(master)
	s := newSource(fmt.Sprint(start))
	stopFollowing := c.follow(master)
	_, stop := lead(c.t, c.nodes[master], c.epoch, s, func(m *replicator.MasterConfig) { m.Keep.Count, m.ShipTimeout = 4, 10*time.Second }, c.peers(master)...)
	bad := make(map[int]bool)
	change := func(d, apart time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); {
			c.last++
			s.write(fmt.Sprint(c.last))
			commits = append(commits, commit{c.last, time.Now()})
			pass(time.Millisecond + time.Duration(c.r.Int64N(int64(apart))))
		}
	}
	change(time.Second, time.Second)
	for i := range c.nodes {
		if i == master {
			continue
		}
		switch c.r.IntN(5) {
		case 0:
			c.lines[master][i].set(func(r *remote) { r.cut = errors.New("cut") })
			bad[i] = true
		case 1:
			c.lines[master][i].set(func(r *remote) { r.hang = true })
			bad[i] = true
		case 2:
			c.nodes[i].lose(c.t)
		}
	}
	change(12*time.Second, 6*time.Second) // longer than until a peer is asked again what it has
	for i := range c.nodes {
		if bad[i] && c.r.IntN(2) == 0 {
			c.lines[master][i].set(func(r *remote) { r.cut, r.hang = nil, false })
			delete(bad, i)
		}
	}
	change(17*time.Second, 8*time.Second) // longer than a call that hangs and the longest pause
	change(3*time.Second, 700*time.Millisecond)
	stop()
	stopFollowing()
	for i := range c.nodes {
		c.lines[master][i].set(func(r *remote) { r.cut, r.hang = nil, false })
		if i != master && !bad[i] {
			whole = append(whole, i)
		}
	}
	return whole, commits
}

func TestNothingIsLostOverManyFailovers(t *testing.T) {
	seeds := []uint64{1, 2}
	if *seed != 0 {
		seeds = []uint64{*seed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 3, seed)
				var restored replicator.Version
				master := 0
				for round := range *failovers {
					if c.epoch++; c.r.IntN(4) == 0 {
						c.epoch = 1 // the node has lost its clock of epochs
					}
					whole, commits := c.mastership(master)
					end := time.Now()
					if len(whole) == 0 {
						continue // it stays the master
					}
					master = whole[c.r.IntN(len(whole))]
					change, v := c.state(master)
					if v.Compare(restored) <= 0 {
						t.Fatalf("round %d: %v is restored after %v", round, v, restored)
					}
					restored = v
					i := slices.IndexFunc(commits, func(c commit) bool { return end.Sub(c.at) < 2*time.Second })
					if want := commits[max(i-1, 0)].change; change < want {
						t.Fatalf("round %d: change %d is restored, and %d was there 2 s before the end", round, change, want)
					}
				}
			})
		})
	}
}
