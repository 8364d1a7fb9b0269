package sim_test

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/sim"
)

var unfitSeeds = flag.Int("sim.unfit-seeds", 60, "seeds of the soak of unfit nodes")

// Nodes become unfit and fit again at random while everything else is broken, too. What
// must hold all the while holds, and at the end one node serves.
func TestSoakOfUnfitNodes(t *testing.T) {
	gave := 0
	for seed := range uint64(*unfitSeeds) {
		o := sim.Draw(seed)
		o.BreakTime = 10 * time.Minute
		if o.Protocol.VRRP() {
			o.Protocol, o.Mismatch = carp.CARP, sim.NoMismatch
		}
		o.Replay = carp.ReplaySealed
		unfitAtRandom(t, seed, o, &gave)
	}
	t.Logf("%d seeds, %d times an unfit master let go for a fit member", *unfitSeeds, gave)
	if gave < *unfitSeeds/4 {
		t.Errorf("an unfit master let go %d times in %d seeds: the test tries nothing", gave, *unfitSeeds)
	}
}

// In VRRP an unfit node is demoted and no more. Seed 685 is of one that was paused while
// the master left, and took the role again demoted: the node goes on, hears the bow-out and
// after it the worse master, over which it takes the role. It is to say that it preempts,
// which has a grace, and not that the master has left.
func TestSoakOfUnfitRouters(t *testing.T) {
	none := 0
	for seed := range uint64(3 * *unfitSeeds) {
		if o := sim.Draw(seed); o.Protocol.VRRP() {
			o.BreakTime = min(o.BreakTime, 10*time.Minute)
			unfitAtRandom(t, seed, o, &none)
		}
	}
	o := sim.Draw(685)
	o.BreakTime = 30 * time.Minute
	unfitAtRandom(t, 685, o, &none)
}

// unfitAtRandom plays a world whose nodes become unfit and fit, and counts masters that
// let go for that.
func unfitAtRandom(t *testing.T, seed uint64, o sim.Options, gave *int) {
	t.Helper()
	w, converged := sim.Build(seed, o)
	rng := rand.New(rand.NewPCG(seed, 3))
	hosts := w.Hosts()
	for at := time.Second; at < o.BreakTime; at += time.Duration(rng.Int64N(int64(20 * time.Second))) {
		w.After(at, func() { hosts[rng.IntN(len(hosts))].Unfit(rng.IntN(2) == 0) })
	}
	w.Require(resigned{gave})
	if err := converged.Play(w); err != nil {
		var b bytes.Buffer
		w.TraceSince(&b, w.Now()-30*time.Second)
		t.Fatalf("seed %d: %v\nrepeat: go test ./test/sim -run %s -sim.unfit-seeds=%d\n%s", seed, err, t.Name(), seed+1, b.String())
	}
}

// resigned counts masters that let go since they are unfit.
type resigned struct{ n *int }

func (resigned) Name() string { return "resigned" }

func (r resigned) Observe(_ *sim.World, e *sim.Event) {
	if e.Kind == sim.KindTransition && e.Change.Reason == carp.ReasonUnfit {
		*r.n++
	}
}

func (resigned) Look(*sim.World) {}
