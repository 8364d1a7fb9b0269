package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/carpd/carpd/test/bench"
	"github.com/carpd/carpd/test/lab"
)

// addressFlags are the flags of carplab bench addresses.
type addressFlags struct {
	benchFlags
	counts []int
}

func addressesCommand() *cobra.Command {
	var f addressFlags
	c := &cobra.Command{
		Use:   "addresses [flags]",
		Short: "What it takes to put thousands of addresses on: ours, keepalived and one bare batch",
		Long: "addresses runs a speaker alone in a namespace with many addresses beside the one in its adverts, and measures how\n" +
			"long it takes to put all of them on, to announce them, and at SIGTERM to take them off. Beside it stands one batch of\n" +
			"netlink messages for the same addresses without a daemon: that is what the kernel costs. All take turns.\n\n" +
			"Exit code 0: all was measured; 1: some run gave no figures, or it was interrupted (what was measured is printed);\n" +
			"2: usage; 3: a speaker is not installed or does not start; 77: namespaces are not allowed here.",
		Example: "  carplab bench addresses\n  carplab bench addresses --counts 1000 --runs 20 --speakers ours --json addresses.json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if code, ran := lab.Enter(); ran {
				os.Exit(code) // nothing was begun here: the second self did all
			}
			return f.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().StringSliceVar(&f.speakers, "speakers", []string{"ours", "keepalived"}, "who is measured, beside the bare batch")
	c.Flags().IntSliceVar(&f.counts, "counts", []int{1000, 5000, bench.MaxAddresses}, "how many addresses")
	c.Flags().IntVar(&f.runs, "runs", 3, "runs of each")
	c.Flags().StringVar(&f.json, "json", "", "write all of it, each run too, to this `file`")
	c.Flags().StringVar(&f.carpd, "carpd", "", "the daemon's `program`; default: beside carplab, else in PATH")
	c.Flags().BoolVar(&f.verbose, "verbose", false, "print each run to stderr as it is done")
	return c
}

func (f *addressFlags) run(ctx context.Context, stdout, stderr io.Writer) error {
	plan := bench.AddressPlan{Counts: f.counts, Runs: f.runs}
	for _, name := range f.speakers {
		s, err := f.speaker(name)
		if err != nil {
			return err
		}
		plan.Speakers = append(plan.Speakers, s)
	}
	if f.verbose {
		plan.Progress = func(line string) { fmt.Fprintln(stderr, line) }
	}
	report, err := bench.MeasureAddresses(ctx, plan)
	return outcome{
		bench: "addresses", err: err, some: len(report.Runs) > 0, failed: report.Failed(), parts: "runs",
		deliver: func() error { return deliver(stdout, &report, f.json) }, files: "--json a file",
	}.conclude(ctx, stderr)
}
