package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/carpd/carpd/test/bench"
	"github.com/carpd/carpd/test/lab"
)

// benchFlags are the flags of carplab bench failover.
type benchFlags struct {
	speakers, faults         []string
	intervals, costIntervals []time.Duration
	instances                []int
	runs, seconds, busy      int
	seed                     uint64
	json, carpd              string
	quick, verbose           bool
	noFailovers, noCosts     bool
}

func benchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure speakers beside each other",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return failure{exitUsage, "bench what?", "see carplab bench --help"}
		},
	}
	c.AddCommand(failoverCommand(), latenessCommand(), safetyCommand(), addressesCommand())
	return c
}

func failoverCommand() *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use:   "failover [flags]",
		Short: "What a failover takes, and what a speaker costs: ours beside keepalived",
		Long: "failover builds a LAN of namespaces with two nodes and a client. On it speakers take turns: VRRP version 3,\n" +
			"priorities 200 and 100, preemption. It kills the master (kill -9 of all its processes), pulls its cable and\n" +
			"stops it, and measures the silence between the masters' adverts, the time until the new master announces\n" +
			"the address, the client's outage at a question each millisecond, and for how long both had the address.\n" +
			"Then it measures what 1, 100 and 255 instances cost while nothing happens.\n\n" +
			"With the defaults it needs nobody and takes about ten minutes, with --quick about one and a half. What it\n" +
			"measures, and how, is in docs/benchmarks.md. Each figure is as good as \"bench late\" in its block: run it on\n" +
			"a machine that does nothing else.\n\n" +
			"Speakers: ours (carpd), keepalived, frr, and for whole seconds ours-carp and ucarp.\n\n" +
			"Exit code 0: all was measured; 1: nobody took over in some run, or it was interrupted (what was measured is\n" +
			"printed); 2: usage; 3: a speaker is not installed or does not start; 77: namespaces are not allowed here.",
		Example: "  carplab bench failover --json bench.json\n" +
			"  carplab bench failover --faults kill --intervals 10ms --runs 200 --no-costs\n" +
			"  carplab bench failover --no-failovers --instances 255 --cost-intervals 10ms --seconds 60 --busy 2",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if code, ran := lab.Enter(); ran {
				os.Exit(code) // nothing was begun here: the second self did all
			}
			return f.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), c.Flags().Changed)
		},
	}
	c.Flags().StringSliceVar(&f.speakers, "speakers", []string{"ours", "keepalived"}, "who is measured, beside each other")
	c.Flags().StringSliceVar(&f.faults, "faults", []string{"kill", "unplug", "stop"}, "what happens to the master")
	c.Flags().DurationSliceVar(&f.intervals, "intervals", []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second}, "of adverts, for failovers")
	c.Flags().IntVar(&f.runs, "runs", 0, "failovers of each kind; default: 20 at up to 10 ms, 6 at up to 100 ms, else 2")
	c.Flags().IntSliceVar(&f.instances, "instances", []int{1, 100, 255}, "the sizes of groups, for costs")
	c.Flags().DurationSliceVar(&f.costIntervals, "cost-intervals", []time.Duration{10 * time.Millisecond, time.Second}, "of adverts, for costs")
	c.Flags().IntVar(&f.seconds, "seconds", 60, "how long the most instances at the shortest interval are watched; others 5 s, or a twelfth of it if that is more")
	c.Flags().Uint64Var(&f.seed, "seed", 1, "of the phases at which faults happen; all speakers get the same")
	c.Flags().IntVar(&f.busy, "busy", 0, "how many processes load the machine meanwhile")
	c.Flags().StringVar(&f.json, "json", "", "write all of it, each run too, to this `file`")
	c.Flags().StringVar(&f.carpd, "carpd", "", "the daemon's `program`; default: beside carplab, else in PATH")
	c.Flags().BoolVar(&f.noFailovers, "no-failovers", false, "measure costs only")
	c.Flags().BoolVar(&f.noCosts, "no-costs", false, "measure failovers only")
	c.Flags().BoolVar(&f.quick, "quick", false, "shorter where flags do not say otherwise: 10 ms only, fewer runs, costs of 1 and 255 for 5 s")
	c.Flags().BoolVar(&f.verbose, "verbose", false, "print each run to stderr as it is done")
	return c
}

// shorten is --quick, for what was not said on the command line.
func (f *benchFlags) shorten(given func(flag string) bool) {
	short := []time.Duration{10 * time.Millisecond}
	for flag, change := range map[string]func(){
		"intervals":      func() { f.intervals = short },
		"cost-intervals": func() { f.costIntervals = short },
		"instances":      func() { f.instances = []int{1, 255} },
		"runs":           func() { f.runs = 5 },
		"seconds":        func() { f.seconds = 5 },
	} {
		if !given(flag) {
			change()
		}
	}
}

func (f *benchFlags) run(ctx context.Context, stdout, stderr io.Writer, given func(flag string) bool) error {
	if f.quick {
		f.shorten(given)
	}
	plan, err := f.plan(given)
	if err != nil {
		return err
	}
	if f.verbose {
		plan.Progress = func(line string) { fmt.Fprintln(stderr, line) }
	}
	report, err := bench.Measure(ctx, plan)
	return outcome{
		bench: "failover", err: err, some: len(report.Failovers)+len(report.Costs) > 0, failed: report.Failed(), parts: "runs",
		deliver: func() error { return deliver(stdout, &report, f.json) }, files: "--json a file",
	}.conclude(ctx, stderr)
}

// plan makes of the flags what is measured.
func (f *benchFlags) plan(given func(flag string) bool) (p bench.Plan, err error) {
	if f.runs < 0 || f.runs > bench.MaxRuns || given("runs") && f.runs == 0 {
		return p, failure{exitUsage, fmt.Sprintf("--runs %d: want 1 to %d", f.runs, bench.MaxRuns), ""}
	}
	if most := int(bench.MaxWatch / time.Second); f.seconds < 1 || f.seconds > most {
		return p, failure{exitUsage, fmt.Sprintf("--seconds %d: want 1 to %d", f.seconds, most), ""}
	}
	p = bench.Plan{
		Seed: f.seed, Busy: f.busy, Intervals: f.intervals, Runs: f.runsAt,
		Instances: f.instances, CostIntervals: f.costIntervals, Watch: f.watched,
	}
	if f.noFailovers {
		p.Intervals = nil
	}
	if f.noCosts {
		p.CostIntervals = nil
	}
	for _, name := range f.faults {
		p.Faults = append(p.Faults, bench.Fault(name))
	}
	for _, name := range f.speakers {
		s, err := f.speaker(name)
		if err != nil {
			return p, err
		}
		p.Speakers = append(p.Speakers, s)
	}
	return p, nil
}

// runsAt is how many failovers of each kind there are.
func (f *benchFlags) runsAt(interval time.Duration) int {
	switch {
	case f.runs > 0:
		return f.runs
	case interval <= 10*time.Millisecond:
		return 20
	case interval <= 100*time.Millisecond:
		return 6
	}
	return 2
}

// watched is how long a group is watched.
func (f *benchFlags) watched(g bench.Group) time.Duration {
	long := time.Duration(f.seconds) * time.Second
	for _, n := range f.instances {
		if n > g.Instances {
			return max(long/12, min(long, 5*time.Second))
		}
	}
	for _, interval := range f.costIntervals {
		if interval < g.Interval {
			return max(long/12, min(long, 5*time.Second))
		}
	}
	return long
}

// speaker finds one by its name.
func (f *benchFlags) speaker(name string) (s bench.Speaker, err error) {
	switch name {
	case "ours", "ours-carp":
		path, err := (&runFlags{carpd: f.carpd}).daemon()
		if err != nil {
			return s, failure{exitUsage, err.Error(), "give --carpd PROGRAM"}
		}
		if name == "ours" {
			return bench.Ours(path), nil
		}
		return bench.OursCARP(path), nil
	case "keepalived":
		s, err = bench.Keepalived()
	case "keepalived-rt":
		s, err = bench.KeepalivedRealTime()
	case "frr":
		s, err = bench.FRR()
	case "ucarp":
		s, err = bench.Ucarp()
	default:
		all := []string{"ours", "keepalived", "keepalived-rt", "frr", "ours-carp", "ucarp"}
		return s, failure{exitUsage, fmt.Sprintf("unknown speaker %q", name), "known are " + strings.Join(all, ", ")}
	}
	if err != nil {
		return s, failure{exitNothing, err.Error(), "apt-get install it, or leave it out of --speakers"}
	}
	return s, nil
}
