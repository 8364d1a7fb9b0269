package sim_test

import (
	"context"
	"runtime"
	"strings"
	"testing"

	"github.com/carpd/carpd/test/sim"
)

// mutantSeeds is within how many seeds each mutant must be found.
const mutantSeeds = 400

// A simulator that never fails proves nothing.
func TestSoakFindsEveryMutant(t *testing.T) {
	found := 0
	for _, m := range sim.Mutants() {
		t.Run(m.String(), func(t *testing.T) {
			r, ran := hunt(m, false)
			if r.Err == nil {
				t.Fatalf("not found by %d seeds", ran)
			}
			found++
			text, _, _ := strings.Cut(r.Err.Error(), "\n")
			t.Logf("found by the %dth seed (%d), after %.0f s: %.120s", ran, r.Seed, r.Simulated.Seconds(), text)
		})
	}
	t.Logf("%d of %d mutants found", found, len(sim.Mutants()))
}

// The same in VRRP alone, where other checks do it.
func TestSoakOfVRRPFindsEveryMutant(t *testing.T) {
	for _, m := range sim.Mutants() {
		if m == sim.WrongKey {
			continue // nothing is signed
		}
		t.Run(m.String(), func(t *testing.T) {
			if r, ran := hunt(m, true); r.Err == nil {
				t.Fatalf("not found by %d seeds", ran)
			}
		})
	}
}

// And where hosts share a resource, those of what moves it.
func TestSoakOfASharedResourceFindsEveryMutant(t *testing.T) {
	for _, m := range append(sim.ResourceMutants(), sim.IgnorePermits, sim.PermitForever, sim.KeepPermit, sim.ReleasedEarly, sim.TwoHooks, sim.OldestWins) {
		t.Run(m.String(), func(t *testing.T) {
			var found sim.Report
			ran := 0
			sim.Sweep(context.Background(), 1, mutantSeeds, runtime.GOMAXPROCS(0), func(seed uint64) sim.Options {
				o := sim.DrawResource(seed)
				o.Mutant = m
				return o
			}, func(r sim.Report) bool {
				ran, found = ran+1, r
				return r.Err == nil
			})
			if found.Err == nil {
				t.Fatalf("not found by %d seeds", ran)
			}
			text, _, _ := strings.Cut(found.Err.Error(), "\n")
			t.Logf("found by the %dth seed (%d), after %.0f s: %.160s", ran, found.Seed, found.Simulated.Seconds(), text)
		})
	}
}

// hunt runs seeds, or only those that are VRRP's, until one finds the mutant.
func hunt(m sim.Mutant, vrrp bool) (found sim.Report, ran int) {
	seeds := mutantSeeds
	if vrrp {
		seeds *= 4
	}
	options := func(seed uint64) sim.Options {
		o := sim.Draw(seed)
		o.Mutant = m
		if vrrp && !o.Protocol.VRRP() {
			return sim.Options{BreakTime: 1, QuietTime: 1}
		}
		if m == sim.WrongKey {
			o.MutantHosts = 1
		}
		return o
	}
	sim.Sweep(context.Background(), 1, seeds, runtime.GOMAXPROCS(0), options, func(r sim.Report) bool {
		if vrrp && !r.Options.Protocol.VRRP() {
			return true
		}
		ran++
		found = r
		return r.Err == nil
	})
	return found, ran
}
