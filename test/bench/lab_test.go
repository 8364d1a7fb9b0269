package bench_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/carpd/carpd/test/bench"
	"github.com/carpd/carpd/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// once is a plan of one of each.
func once(t *testing.T) bench.Plan {
	t.Helper()
	s, err := bench.Keepalived()
	if err != nil {
		if os.Getenv("CARPD_LAB") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return bench.Plan{
		Speakers: []bench.Speaker{s}, Seed: 1,
		Faults: []bench.Fault{bench.Kill, bench.Unplug, bench.Stop}, Intervals: []time.Duration{50 * time.Millisecond}, Runs: func(time.Duration) int { return 1 },
		Instances: []int{3}, CostIntervals: []time.Duration{50 * time.Millisecond},
		Watch: func(bench.Group) time.Duration { return time.Second }, WarmUp: 300 * time.Millisecond,
	}
}

// measure skips where no namespace can be made.
func measure(t *testing.T, ctx context.Context, p bench.Plan) (bench.Report, error) {
	t.Helper()
	r, err := bench.Measure(ctx, p)
	if errors.Is(err, lab.ErrSkipped) {
		t.Skip(err)
	}
	return r, err
}

// What keepalived does is known (its figures are in the documentation), so that it
// is the measure of the bench.
func TestKeepalivedComesOutAsItIs(t *testing.T) {
	r, err := measure(t, t.Context(), once(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + r.Table())
	if r.Failed() > 0 || len(r.Failovers) != 3 || len(r.Costs) != 1 {
		t.Fatalf("%d runs failed; %d kinds of failover and %d costs, want 3 and 1", r.Failed(), len(r.Failovers), len(r.Costs))
	}
	for _, f := range r.Failovers {
		run := f.Runs[0]
		// A busy machine makes it later, but a whole interval earlier or none at all
		// would be the bench's fault.
		if run.Silence < f.Theory-1 || run.Silence > f.Theory+1000 || run.Announced <= 0 {
			t.Errorf("%s: silence %.1f, theory %.1f, announced %.1f", f.Fault, run.Silence, f.Theory, run.Announced)
		}
		if f.Fault == bench.Kill && (!run.HoldOpen || run.BothHold < 100 || run.BothAnswered < 100) {
			t.Errorf("kill: both hold for %.1f ms, still %v, both answer for %.1f: keepalived leaves the address up", run.BothHold, run.HoldOpen, run.BothAnswered)
		}
		if f.Fault == bench.Unplug && (run.Outage < 50 || run.BothHold > 0) {
			t.Errorf("unplug: the client was without answer for %.1f ms, both held for %.1f", run.Outage, run.BothHold)
		}
	}
	c := r.Costs[0]
	if c.Adverts < c.Expected/2 || c.Adverts > c.Expected*3/2 || c.Master.CPU <= 0 || c.Master.RSS <= 1 || c.Master.Processes != 2 {
		t.Errorf("cost: %+v", c)
	}
	if c.Spacing.Median < 40 || c.Spacing.Median > 200 || c.Late.Count < 100 {
		t.Errorf("adverts of 50 ms have a spacing of %+v; %+v", c.Spacing, c.Late)
	}
}

func TestInterruptEndsAMeasureAndKeepsWhatIsDone(t *testing.T) {
	p := once(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.Runs = func(time.Duration) int { return bench.MaxRuns }
	p.Progress = func(string) { cancel() } // after the first run
	r, err := measure(t, ctx, p)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, want %v", err, context.Canceled)
	}
	if len(r.Failovers) == 0 || len(r.Failovers[0].Runs) != 1 || r.Failovers[0].Silence.Count+r.Failovers[0].Failed != 1 {
		t.Errorf("the one run that was made is not in the report: %+v", r.Failovers)
	}
}

func TestASpeakerThatDoesNotStartEndsTheMeasure(t *testing.T) {
	p := once(t)
	program := filepath.Join(t.TempDir(), "carpd")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho no such protocol\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.Speakers = []bench.Speaker{bench.Ours(program)}
	_, err := measure(t, t.Context(), p)
	if err == nil || errors.Is(err, context.Canceled) {
		t.Fatalf("%v, want what the program said", err)
	}
	t.Log(err)
}

func TestLatenessOfAMasterOnABusyMachine(t *testing.T) {
	p := bench.LatenessPlan{
		Speakers: once(t).Speakers, Loads: []bench.Load{bench.Idle, bench.Busy}, Intervals: []time.Duration{50 * time.Millisecond},
		Instances: []int{3}, Watch: time.Second,
	}
	r, err := bench.MeasureLateness(t.Context(), p)
	if errors.Is(err, lab.ErrSkipped) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + r.Table())
	if r.Failed() > 0 || len(r.Rows) != 2 {
		t.Fatalf("%d of %d rows have no figures, want 2 that have", r.Failed(), len(r.Rows))
	}
	for _, row := range r.Rows {
		// Keepalived is late when the machine is busy, and even early after that.
		if row.Adverts < row.Expected/3 || row.Late.Count < row.Expected/3 || row.Late.Median < -25 || row.Late.Median > 500 {
			t.Errorf("%+v", row)
		}
	}
}
