package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/safety"
)

// safetyFlags are the flags of carplab bench safety.
type safetyFlags struct {
	rows, daemons       []string
	runs, parallel      int
	seed                uint64
	json, update, carpd string
	markdown, verbose   bool
	stdout, stderr      io.Writer
}

func safetyCommand() *cobra.Command {
	var f safetyFlags
	c := &cobra.Command{
		Use:   "safety [flags]",
		Short: "Break carpd, keepalived and ucarp in many ways; see who answers for their address",
		Long: "safety builds LANs of namespaces, each with two or three nodes, a client, an observer and an attacker, and runs\n" +
			"one daemon after the other on them. It kills, freezes and parts them and more, a row of the report each, at a\n" +
			"random phase of the advert interval, and measures for how long two hosts answered for the shared address, for how\n" +
			"long none did, the client's outage, and how often a backup took over from a master that was well.\n\n" +
			"What each row does, and how it is measured, is in docs/safety.md. With the defaults it takes about an hour.\n\n" +
			"Rows: " + strings.Join(safetyRows(), ", ") + ".\n" +
			"Daemons: " + strings.Join(safetyDaemons(), ", ") + "; one that is not installed is left out.\n\n" +
			"Exit code 0: all was measured; 1: a run gave no figures, or it was interrupted (what was measured is printed);\n" +
			"2: usage; 3: no daemon can be measured, or a file not be written; 77: namespaces are not allowed here.",
		Example: "  carplab bench safety --json safety.json\n" +
			"  carplab bench safety --rows kill,freeze --runs 5 --daemons carpd,keepalived --verbose\n" +
			"  carplab bench safety --update docs/safety.md",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if code, ran := lab.Enter(); ran {
				os.Exit(code) // nothing was begun here: the second self did all
			}
			f.stdout, f.stderr = c.OutOrStdout(), c.ErrOrStderr()
			return f.run(c.Context())
		},
	}
	c.Flags().StringSliceVar(&f.rows, "rows", safetyRows(), "what is done")
	c.Flags().StringSliceVar(&f.daemons, "daemons", safetyDaemons(), "to whom, beside each other")
	c.Flags().IntVar(&f.runs, "runs", 30, "of each row and daemon; every other one has three nodes")
	c.Flags().IntVar(&f.parallel, "parallel", 12, "LANs at the same time")
	c.Flags().Uint64Var(&f.seed, "seed", 1, "of the phases at which faults happen; all daemons get the same")
	c.Flags().StringVar(&f.json, "json", "", "write all of it, each run too, to this `file`")
	c.Flags().StringVar(&f.update, "update", "", "write the table into this `file`, between its markers")
	c.Flags().StringVar(&f.carpd, "carpd", "", "the daemon's `program`; default: beside carplab, else in PATH")
	c.Flags().BoolVar(&f.markdown, "markdown", false, "print the table as docs/safety.md has it, with its markers")
	c.Flags().BoolVar(&f.verbose, "verbose", false, "print each run to stderr as it is done")
	return c
}

// safetyRows are the names of all rows.
func safetyRows() (names []string) {
	for _, r := range safety.Rows() {
		names = append(names, r.Name)
	}
	return names
}

// safetyDaemons are the names of all daemons.
func safetyDaemons() []string {
	return []string{"carpd", "carpd-sealed", "carpd-paths", "keepalived", "ucarp", "carpd-100ms", "keepalived-100ms"}
}

// fast is the interval of the daemons that are named after it.
const fast = 100 * time.Millisecond

func (f *safetyFlags) run(ctx context.Context) error {
	plan := safety.Plan{Rows: f.rows, Runs: f.runs, Parallel: f.parallel, Seed: f.seed}
	for _, name := range f.daemons {
		d, err := f.daemon(name)
		if errors.Is(err, safety.ErrMissing) {
			fmt.Fprintf(f.stderr, "carplab: %s is left out: %v\n", name, err)
			continue
		}
		if err != nil {
			return err
		}
		plan.Daemons = append(plan.Daemons, d)
	}
	if len(plan.Daemons) == 0 {
		return failure{exitNothing, "none of the daemons is installed", "apt-get install keepalived ucarp, or give --carpd PROGRAM"}
	}
	if f.verbose {
		plan.Progress = func(line string) { fmt.Fprintln(f.stderr, line) }
	}
	report, err := safety.Measure(ctx, &plan)
	return outcome{
		bench: "safety", err: err, some: len(report.Runs) > 0, failed: report.Failed(), parts: "runs",
		deliver: func() error { return f.deliver(&report) }, files: "--json and --update files",
	}.conclude(ctx, f.stderr)
}

// deliver prints the report, and writes what was asked for.
func (f *safetyFlags) deliver(report *safety.Report) (err error) {
	text := report.Markdown()
	if f.markdown {
		text = safety.Marked(text)
	}
	if _, err = io.WriteString(f.stdout, text); err != nil {
		return err
	}
	if f.json != "" {
		if err := writeFile(f.json, report); err != nil {
			return err
		}
	}
	if f.update == "" {
		return nil
	}
	page, err := os.ReadFile(f.update)
	if err != nil {
		return err
	}
	changed, err := safety.Replace(string(page), report.Markdown())
	if err != nil {
		return fmt.Errorf("%s: %w", f.update, err)
	}
	return os.WriteFile(f.update, []byte(changed), 0o644)
}

// daemon finds one by its name.
func (f *safetyFlags) daemon(name string) (d safety.Daemon, err error) {
	if strings.HasPrefix(name, "carpd") && slices.Contains(safetyDaemons(), name) {
		path, err := (&runFlags{carpd: f.carpd}).daemon()
		if err != nil {
			return d, failure{exitUsage, err.Error(), "give --carpd PROGRAM"}
		}
		switch name {
		case "carpd":
			return safety.Carpd(path), nil
		case "carpd-sealed":
			return safety.CarpdSealed(path), nil
		case "carpd-paths":
			return safety.CarpdPaths(path), nil
		}
		return safety.CarpdVRRP(name, path, fast), nil
	}
	switch name {
	case "keepalived":
		return safety.Keepalived(name, time.Second)
	case "keepalived-100ms":
		return safety.Keepalived(name, fast)
	case "ucarp":
		return safety.Ucarp()
	}
	return d, failure{exitUsage, fmt.Sprintf("unknown daemon %q", name), "known are " + strings.Join(safetyDaemons(), ", ")}
}
