package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/carpd/carpd/test/bench"
	"github.com/carpd/carpd/test/lab"
)

// latenessFlags are the flags of carplab bench lateness.
type latenessFlags struct {
	speakers, loads []string
	intervals       []time.Duration
	instances       []int
	seconds         int
	json, carpd     string
	verbose         bool
}

func latenessCommand() *cobra.Command {
	var f latenessFlags
	c := &cobra.Command{
		Use:   "lateness [flags]",
		Short: "How late adverts are while the machine is busy: ours beside keepalived",
		Long: "lateness builds a LAN of namespaces with two nodes. On it speakers take turns: VRRP version 3, priorities 200 and\n" +
			"100. When the first node is the master, every core is loaded, and the spacing of its adverts is measured by the\n" +
			"kernel's stamps at a third host. It prints p50 / p99 / max of what an advert was farther from the one before than\n" +
			"the interval, in milliseconds, and how often the backup took over, as a table in Markdown.\n\n" +
			"Loads: idle; busy (processes that spin, one a core); greedy (the same, nice -20); real-time (the same, SCHED_RR:\n" +
			"nothing else on the machine runs then for 19 of 20 parts of the time; nice and chrt are needed for these two).\n" +
			"Speakers: as those of carplab bench failover; keepalived-rt is keepalived with vrrp_rt_priority and vrrp_no_swap.\n\n" +
			"Exit code 0: all was measured; 1: a group did not come to rest, or it was interrupted (what was measured is\n" +
			"printed); 2: usage; 3: a speaker is not installed or does not start; 77: namespaces are not allowed here.",
		Example: "  carplab bench lateness --json lateness.json\n" +
			"  carplab bench lateness --loads idle,busy,greedy,real-time --intervals 100ms --instances 1 --seconds 5",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if code, ran := lab.Enter(); ran {
				os.Exit(code) // nothing was begun here: the second self did all
			}
			return f.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().StringSliceVar(&f.speakers, "speakers", []string{"ours", "keepalived", "keepalived-rt"}, "who is measured, beside each other")
	c.Flags().StringSliceVar(&f.loads, "loads", []string{"idle", "busy", "greedy"}, "what keeps the cores busy")
	c.Flags().DurationSliceVar(&f.intervals, "intervals", []time.Duration{10 * time.Millisecond, 100 * time.Millisecond}, "of adverts")
	c.Flags().IntSliceVar(&f.instances, "instances", []int{1, 255}, "the sizes of groups")
	c.Flags().IntVar(&f.seconds, "seconds", 10, "how long each is watched")
	c.Flags().StringVar(&f.json, "json", "", "write all of it to this `file`")
	c.Flags().StringVar(&f.carpd, "carpd", "", "the daemon's `program`; default: beside carplab, else in PATH")
	c.Flags().BoolVar(&f.verbose, "verbose", false, "print each run to stderr as it is done")
	return c
}

func (f *latenessFlags) run(ctx context.Context, stdout, stderr io.Writer) error {
	plan := bench.LatenessPlan{Intervals: f.intervals, Instances: f.instances, Watch: time.Duration(f.seconds) * time.Second}
	for _, load := range f.loads {
		plan.Loads = append(plan.Loads, bench.Load(load))
	}
	for _, name := range f.speakers {
		s, err := (&benchFlags{carpd: f.carpd}).speaker(name)
		if err != nil {
			return err
		}
		plan.Speakers = append(plan.Speakers, s)
	}
	if f.verbose {
		plan.Progress = func(line string) { fmt.Fprintln(stderr, line) }
	}
	report, err := bench.MeasureLateness(ctx, plan)
	return outcome{
		bench: "lateness", err: err, some: len(report.Rows) > 0, failed: report.Failed(), parts: "groups",
		deliver: func() error { return deliver(stdout, &report, f.json) }, files: "--json a file",
	}.conclude(ctx, stderr)
}
