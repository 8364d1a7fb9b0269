package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/carpd/carpd/test/sim"
)

// soakFlags are the flags of carplab soak.
type soakFlags struct {
	seeds   int
	first   uint64
	minutes float64
	jobs    int
	verbose bool
}

func soakCommand() *cobra.Command {
	var f soakFlags
	c := &cobra.Command{
		Use:   "soak [--seeds N] [--first S] [--minutes M]",
		Short: "Break simulated groups in every way, one seed after the other, and see that they keep their promises",
		Long: "soak plays one simulated group a seed: the seed chooses the climate, the faults and their order. Things\n" +
			"are broken for simulated minutes, and nothing that is promised may be broken with them; then all is made\n" +
			"whole, and there must be one holder, the right one, in time.\n\n" +
			"It ends after all seeds or after --minutes, whichever comes first, and at the first seed that fails: it\n" +
			"prints the end of its trace and the command that repeats it. The same seed gives the same run.\n\n" +
			"Exit code 0: all seeds passed; 1: one failed; 2: usage.",
		Example: "  carplab soak --seeds 2000\n  carplab soak --minutes 60 --first 100000",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return f.run(c.Context(), c.OutOrStdout()) },
	}
	c.Flags().IntVar(&f.seeds, "seeds", 0, "how many seeds; default: 1000, or with --minutes as many as there is time for")
	c.Flags().Uint64Var(&f.first, "first", 1, "the first seed; the others follow it")
	c.Flags().Float64Var(&f.minutes, "minutes", 0, "end after so many minutes")
	c.Flags().IntVar(&f.jobs, "jobs", runtime.GOMAXPROCS(0), "how many at once")
	c.Flags().BoolVar(&f.verbose, "verbose", false, "print a line a seed")
	return c
}

func (f *soakFlags) run(ctx context.Context, stdout io.Writer) error {
	if f.seeds < 0 || f.minutes < 0 || math.IsNaN(f.minutes) || f.jobs < 1 {
		return failure{exitUsage, "--seeds, --minutes and --jobs cannot be negative", "see carplab soak --help"}
	}
	n := f.seeds
	switch {
	case n == 0 && f.minutes > 0:
		n = math.MaxInt
	case n == 0:
		n = 1000
	}
	if f.minutes > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, time.Duration(f.minutes*float64(time.Minute)))
		defer stop()
	}
	var total soakTotal
	start := time.Now()
	sim.Sweep(ctx, f.first, n, f.jobs, sim.Draw, func(r sim.Report) bool {
		total.add(&r)
		if f.verbose && r.Err == nil {
			fmt.Fprintln(stdout, r.String())
		}
		return r.Err == nil
	})
	return total.tell(stdout, time.Since(start))
}

// soakTotal is what came of all seeds so far.
type soakTotal struct {
	seeds, faults int
	simulated     time.Duration
	failed        *sim.Report
}

func (t *soakTotal) add(r *sim.Report) {
	t.seeds++
	t.faults += r.Faults
	t.simulated += r.Simulated
	if r.Err != nil && (t.failed == nil || r.Seed < t.failed.Seed) {
		t.failed = r
	}
}

func (t *soakTotal) tell(w io.Writer, took time.Duration) error {
	if r := t.failed; r != nil {
		fmt.Fprintf(w, "%sseed %d: %v\nrepeat: carplab soak --first %d --seeds 1\n", r.Trace(), r.Seed, r.Err, r.Seed)
	}
	fmt.Fprintf(w, "%d seeds, %.1f simulated hours, %d faults in %v", t.seeds, t.simulated.Hours(), t.faults, took.Round(10*time.Millisecond))
	if minutes := took.Minutes(); minutes > 0 {
		fmt.Fprintf(w, ": %.0f simulated hours a minute", t.simulated.Hours()/minutes)
	}
	fmt.Fprintln(w)
	switch {
	case t.failed != nil:
		return errFailed
	case t.seeds == 0:
		return failure{exitNothing, "no seed was played to its end", "give more --minutes"}
	}
	return nil
}
