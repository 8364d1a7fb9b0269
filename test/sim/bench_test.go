package sim_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/carpd/carpd/test/sim"
)

// BenchmarkSoak runs three hosts with every kind of fault, a seed for each
// iteration, on all processors.
func BenchmarkSoak(b *testing.B) {
	var simulated time.Duration
	faults := 0
	start := time.Now()
	sim.Sweep(context.Background(), 1, b.N, runtime.GOMAXPROCS(0), func(uint64) sim.Options { return sim.AllFaults() },
		func(r sim.Report) bool {
			simulated += r.Simulated
			faults += r.Faults
			return true
		})
	b.ReportMetric(simulated.Hours()/time.Since(start).Minutes(), "simulated-hours/min")
	b.ReportMetric(float64(faults)/simulated.Minutes(), "faults/simulated-min")
	b.ReportMetric(0, "ns/op")
}
