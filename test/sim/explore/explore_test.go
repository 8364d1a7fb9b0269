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
var states = flag.Int("explore.states", 12_000, "how many states of each world are visited at most, of VRRP's and of sealed ones a third")

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

// routers are nodes of VRRP.
func routers(p carp.Protocol, preempt bool, priorities ...uint8) []carp.Config {
	all := nodes(preempt, make([]uint8, len(priorities))...)
	for i := range all {
		all[i].Protocol, all[i].Priority, all[i].AdvBase, all[i].Passphrase = p, priorities[i], 0, nil
	}
	return all
}

// but changes one node.
func but(all []carp.Config, i int, change func(*carp.Config)) []carp.Config {
	change(&all[i])
	return all
}

func another(c *carp.Config) {
	c.Addresses = append(c.Addresses, netip.MustParseAddr("192.0.2.101"))
}
func version2(c *carp.Config) { c.Protocol = carp.VRRP2 }
func slower(c *carp.Config)   { c.Interval = 2 * time.Second }

// sealed makes all nodes members of a sealed group.
func sealed(all []carp.Config) []carp.Config {
	for i := range all {
		all[i].Replay = carp.ReplaySealed
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

		"two sealed nodes":              {Nodes: sealed(nodes(false, 0, 100)), Settled: true, Depth: 8, Losses: 1, Duplicates: 1, Delays: 2, Handovers: 1, Replays: 2},
		"two sealed nodes that preempt": {Nodes: sealed(nodes(true, 0, 100)), Settled: true, Depth: 8, Losses: 1, Delays: 1, Handovers: 1, Replays: 1},
		"three sealed nodes":            {Nodes: sealed(nodes(true, 0, 50, 100)), Settled: true, Depth: 5, Losses: 1, Handovers: 1, Replays: 1},

		"two VRRP nodes begin":           {Nodes: routers(carp.VRRP3, true, 200, 100), Depth: 12, Losses: 1, Duplicates: 1, Delays: 2, Crashes: 1, Freezes: 1},
		"two VRRP nodes, sticky":         {Nodes: routers(carp.VRRP2, false, 200, 100), Settled: true, Depth: 12, Losses: 1, Duplicates: 1, Delays: 2, Crashes: 1, Freezes: 1, Handovers: 1},
		"two VRRP nodes that preempt":    {Nodes: routers(carp.VRRP3, true, 200, 100), Settled: true, Depth: 12, Losses: 1, Duplicates: 1, Delays: 2, Freezes: 1, Handovers: 1},
		"two equal VRRP nodes":           {Nodes: routers(carp.VRRP3, true, 100, 100), Depth: 12, Losses: 1, Duplicates: 1, Delays: 2, Crashes: 1, Freezes: 1},
		"a VRRP owner and another":       {Nodes: routers(carp.VRRP3, false, 255, 100), Depth: 12, Losses: 1, Duplicates: 1, Delays: 2, Crashes: 1, Freezes: 1, Handovers: 1},
		"two VRRP owners":                {Nodes: routers(carp.VRRP3, false, 255, 255), Depth: 12, Losses: 1, Delays: 2, Freezes: 1},
		"VRRP lists differ":              {Nodes: but(routers(carp.VRRP3, true, 200, 100), 1, another), Settled: true, Depth: 12, Losses: 1, Delays: 2, Freezes: 1, Handovers: 1},
		"VRRP versions differ":           {Nodes: but(routers(carp.VRRP3, true, 200, 100), 1, version2), Depth: 12, Losses: 1, Delays: 2, Crashes: 1, Freezes: 1},
		"VRRP2 intervals differ":         {Nodes: but(routers(carp.VRRP2, true, 200, 100), 1, slower), Settled: true, Depth: 12, Losses: 1, Delays: 2, Freezes: 1, Handovers: 1},
		"three VRRP nodes that preempt":  {Nodes: routers(carp.VRRP3, true, 200, 150, 100), Settled: true, Depth: 7, Losses: 1, Duplicates: 1, Delays: 2, Crashes: 1, Freezes: 1, Handovers: 1},
		"three VRRP nodes, sticky":       {Nodes: routers(carp.VRRP3, false, 200, 150, 100), Settled: true, Depth: 7, Losses: 1, Delays: 2, Crashes: 1, Freezes: 1, Handovers: 1},
		"three VRRP nodes, one slower":   {Nodes: but(routers(carp.VRRP3, false, 200, 150, 100), 0, slower), Settled: true, Depth: 7, Losses: 1, Delays: 3, Freezes: 1, Handovers: 1},
		"three VRRP nodes, one mismatch": {Nodes: but(routers(carp.VRRP3, true, 200, 150, 100), 1, another), Settled: true, Depth: 7, Losses: 1, Delays: 2, Crashes: 1, Freezes: 1, Handovers: 1},
	}
}

func TestNoStateOfASmallWorldBreaksAPromise(t *testing.T) {
	for name, w := range worlds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if w.MaxStates = *states; w.Nodes[0].Protocol.VRRP() || w.Nodes[0].Replay == carp.ReplaySealed {
				w.MaxStates /= 3 // there are more of these worlds, or they cost more
			}
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
	for name, group := range map[string][]carp.Config{"carp": nodes(true, 0, 100), "vrrp": routers(carp.VRRP3, true, 200, 100)} {
		for _, f := range []explore.Fault{explore.IgnorePermit, explore.NoLease, explore.SentLate, explore.KeepAddress} {
			t.Run(name+" "+f.String(), func(t *testing.T) {
				r := explore.Run(explore.World{
					Nodes: group, Settled: true, Depth: 14, Crashes: 1, Freezes: 1, Handovers: 1, Delays: 1, Fault: f,
				})
				if r.Err == nil {
					t.Fatalf("not found: %v", &r)
				}
				t.Log(r.String())
			})
		}
	}
}

func TestFaultOfASealedGroupIsFoundWithAShortestTrace(t *testing.T) {
	for _, f := range []explore.Fault{explore.KeepAddress, explore.Forget} {
		t.Run(f.String(), func(t *testing.T) {
			r := explore.Run(explore.World{
				Nodes: sealed(nodes(false, 0, 100)), Settled: true, Depth: 14, Handovers: 1, Delays: 1, Replays: 1, Fault: f,
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
