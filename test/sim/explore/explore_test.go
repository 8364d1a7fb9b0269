package explore_test

import (
	"flag"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/sim/explore"
)

// With 300 000, the deepest worlds take a minute each.
var states = flag.Int("explore.states", 12_000, "how many states of each world are visited at most")

func nodes(preempt bool, skews ...uint8) []carp.Config {
	var all []carp.Config
	for _, skew := range skews {
		all = append(all, carp.Config{
			VHID: 9, AdvBase: 1, AdvSkew: skew, Passphrase: []byte("secret"), Preempt: preempt,
			Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.100")},
		})
	}
	return all
}

func worlds() map[string]explore.World {
	return map[string]explore.World{
		"two equal nodes begin":        {Nodes: nodes(false, 0, 0), Depth: 12, Losses: 1, Duplicates: 1, Delays: 2, Crashes: 1, Freezes: 1},
		"two nodes, one is master":     {Nodes: nodes(false, 0, 100), Settled: true, Depth: 12, Losses: 1, Duplicates: 1, Delays: 2, Crashes: 1, Freezes: 1, Handovers: 1},
		"two nodes that preempt":       {Nodes: nodes(true, 0, 100), Settled: true, Depth: 12, Losses: 1, Duplicates: 1, Delays: 2, Freezes: 1, Handovers: 1},
		"two nodes lose much":          {Nodes: nodes(true, 0, 100), Settled: true, Depth: 14, Losses: 5, Delays: 2},
		"three nodes, one is master":   {Nodes: nodes(false, 0, 50, 100), Settled: true, Depth: 7, Losses: 1, Duplicates: 1, Delays: 2, Crashes: 1, Freezes: 1, Handovers: 1},
		"three equal nodes that begin": {Nodes: nodes(true, 0, 0, 0), Depth: 7, Losses: 1, Delays: 4, Crashes: 1, Freezes: 1},
	}
}

func TestNoStateOfASmallWorldBreaksAPromise(t *testing.T) {
	for name, w := range worlds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w.MaxStates = *states
			start := time.Now()
			r := explore.Run(w)
			if r.Err != nil {
				t.Fatal(r.String())
			}
			t.Logf("%s in %v; new states by depth %v", r.String(), time.Since(start).Round(time.Millisecond), r.ByDepth)
		})
	}
}

func TestEachFaultIsFoundWithAShortestTrace(t *testing.T) {
	for _, f := range []explore.Fault{explore.IgnorePermit, explore.NoLease, explore.SentLate, explore.KeepAddress} {
		t.Run(f.String(), func(t *testing.T) {
			r := explore.Run(explore.World{
				Nodes: nodes(true, 0, 100), Settled: true, Depth: 14, Crashes: 1, Freezes: 1, Handovers: 1, Delays: 1, Fault: f,
			})
			if r.Err == nil {
				t.Fatalf("not found: %v", &r)
			}
			t.Log(r.String())
		})
	}
}

func ExampleRun() {
	r := explore.Run(explore.World{Nodes: nodes(false, 0, 100), Depth: 4, Crashes: 1})
	fmt.Println(r.Err == nil && r.Complete)
	// Output: true
}
