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
			r, ran := hunt(m)
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

// hunt runs seeds until one finds the mutant.
func hunt(m sim.Mutant) (found sim.Report, ran int) {
	options := func(seed uint64) sim.Options {
		o := sim.Draw(seed)
		o.Mutant = m
		if m == sim.WrongKey {
			o.MutantHosts = 1
		}
		return o
	}
	sim.Sweep(context.Background(), 1, mutantSeeds, runtime.GOMAXPROCS(0), options, func(r sim.Report) bool {
		ran++
		found = r
		return r.Err == nil
	})
	return found, ran
}
