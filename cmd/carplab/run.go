package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/script"
)

// kernelJobs is how many scenarios are played on the kernel at once: they wait for
// protocol timers nearly all the time.
const kernelJobs = 8

// runFlags are the flags of carplab run.
type runFlags struct {
	kernel, rewrite, tap     bool
	junit, json, pcap, carpd string
	jobs                     int
}

func runCommand() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run [flags] FILE|DIRECTORY...",
		Short: "Play scenario files, and compare what comes out with what is written in them",
		Long: "run plays scenario files: commands with the transcript that is expected of them, one column a node. A\n" +
			"directory stands for its files named *.txt.\n\n" +
			"In the simulator a scenario takes milliseconds and its times are exact. With --kernel the same file is\n" +
			"played in network namespaces by the real daemon, times with tolerance; where this user may not make\n" +
			"namespaces, carplab runs itself again as root of a user namespace.\n\n" +
			"Exit code 0: all came out as written; 1: one did not; 2: usage, or a file that is no scenario; 77: with\n" +
			"--kernel, namespaces are not allowed here.",
		Example: "  carplab run scenarios/\n  carplab run --kernel --junit carp.xml --pcap out scenarios/*.txt",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if f.kernel {
				if code, ran := lab.Enter(); ran {
					os.Exit(code) // nothing was begun here: the second self did all
				}
			}
			return f.run(c.Context(), args, c.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&f.kernel, "kernel", false, "in network namespaces with the real daemon, not in the simulator")
	c.Flags().BoolVar(&f.rewrite, "rewrite", false, "write what came out into the files that are not as written")
	c.Flags().StringVar(&f.junit, "junit", "", "write a report in the form of JUnit to this `file`")
	c.Flags().StringVar(&f.json, "json", "", "write a report in JSON to this `file`")
	c.Flags().BoolVar(&f.tap, "tap", false, "print in the form of the Test Anything Protocol")
	c.Flags().StringVar(&f.pcap, "pcap", "", "with --kernel, keep packets and logs of a failed scenario in this `directory`")
	c.Flags().StringVar(&f.carpd, "carpd", "", "with --kernel, the daemon's `program`; default: beside carplab, else in PATH")
	c.Flags().IntVar(&f.jobs, "jobs", 0, fmt.Sprintf("how many at once; default: the number of CPUs, or %d with --kernel", kernelJobs))
	return c
}

func (f *runFlags) run(ctx context.Context, args []string, stdout io.Writer) error {
	files, err := scenarios(args)
	if err != nil {
		return failure{exitUsage, err.Error(), "give scenario files, or a directory with *.txt; their form is in carplab(8)"}
	}
	options, err := f.options(files)
	if err != nil {
		return err
	}
	results := f.playAll(ctx, files, options)
	if ctx.Err() != nil {
		return failure{exitFailed, "interrupted", ""}
	}
	if err := errors.Join(f.save(results), f.reports(results)); err != nil {
		return failure{exitNothing, err.Error(), "name files that can be written"}
	}
	if f.tap {
		err = script.WriteTAP(stdout, results)
	} else {
		err = tell(stdout, results)
	}
	if err != nil {
		return failure{exitNothing, err.Error(), ""}
	}
	return f.verdict(results)
}

// scenarios reads all files before anything is played.
func scenarios(args []string) ([]*script.File, error) {
	var paths []string
	for _, arg := range args {
		if info, err := os.Stat(arg); err != nil || !info.IsDir() {
			paths = append(paths, arg)
			continue
		}
		inside, err := filepath.Glob(filepath.Join(arg, "*.txt"))
		if err != nil || len(inside) == 0 {
			return nil, fmt.Errorf("%s: no file is named *.txt", arg)
		}
		paths = append(paths, inside...)
	}
	var files []*script.File
	var faults []error
	for _, path := range paths {
		f, err := script.Read(path)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		files = append(files, f)
	}
	return files, errors.Join(faults...)
}

// options are nil for the simulator.
func (f *runFlags) options(files []*script.File) (*script.KernelOptions, error) {
	if !f.kernel {
		return nil, nil
	}
	foreign := slices.ContainsFunc(files, func(s *script.File) bool { return s.Only != "kernel" })
	if f.rewrite && foreign {
		return nil, failure{exitUsage, "--rewrite with --kernel: the simulator is the measure of all but kernel-only scenarios",
			"leave out --kernel, or name only files that say: only kernel"}
	}
	path, err := f.daemon()
	if err != nil {
		return nil, failure{exitUsage, err.Error(), "build carpd, and say --carpd PATH"}
	}
	return &script.KernelOptions{Carpd: path, Pcap: f.pcap}, nil
}

// daemon finds the program of carpd.
func (f *runFlags) daemon() (string, error) {
	if f.carpd != "" {
		path, err := exec.LookPath(f.carpd)
		if err != nil {
			return "", fmt.Errorf("--carpd: %w", err)
		}
		return filepath.Abs(path)
	}
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), "carpd"); executable(beside) {
			return beside, nil
		}
	}
	path, err := exec.LookPath("carpd")
	if err != nil {
		return "", errors.New("carpd is neither beside carplab nor in PATH")
	}
	return filepath.Abs(path)
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// playAll plays some at once; the results are in the order of the files.
func (f *runFlags) playAll(ctx context.Context, files []*script.File, o *script.KernelOptions) []script.Result {
	jobs := f.jobs
	switch {
	case jobs > 0:
	case f.kernel:
		jobs = kernelJobs
	default:
		jobs = runtime.GOMAXPROCS(0)
	}
	results := make([]script.Result, len(files))
	next := make(chan int)
	var all sync.WaitGroup
	for range jobs {
		all.Go(func() {
			for i := range next {
				results[i] = script.PlayFile(ctx, files[i], o)
			}
		})
	}
	for i := range files {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	all.Wait()
	return results
}

// save writes what came out into the files, where that is asked for; such a
// scenario counts as passed.
func (f *runFlags) save(results []script.Result) error {
	if !f.rewrite {
		return nil
	}
	for i := range results {
		r := &results[i]
		if !r.Rewrites || r.Err != nil || len(r.Faults) == 0 {
			continue
		}
		if err := os.WriteFile(r.File, []byte(r.Text), 0o644); err != nil {
			return err
		}
		r.Faults = nil
	}
	return nil
}

func (f *runFlags) reports(results []script.Result) error {
	write := func(path string, form func(io.Writer, []script.Result) error) error {
		if path == "" {
			return nil
		}
		var b bytes.Buffer
		if err := form(&b, results); err != nil {
			return err
		}
		return os.WriteFile(path, b.Bytes(), 0o644)
	}
	return errors.Join(write(f.junit, script.WriteJUnit), write(f.json, script.WriteJSON))
}

// tell prints a line a scenario, and of those that failed the difference and how
// to repeat it.
func tell(w io.Writer, results []script.Result) error {
	var b bytes.Buffer
	passed, failed, skipped := 0, 0, 0
	for i := range results {
		r := &results[i]
		switch {
		case r.Skipped != "":
			skipped++
			fmt.Fprintf(&b, "skip  %s: %s\n", r.File, r.Skipped)
		case r.OK():
			passed++
			fmt.Fprintf(&b, "ok    %s (%.1f s)\n", r.File, r.Simulated.Seconds())
		default:
			failed++
			fmt.Fprintf(&b, "FAIL  %s\n%s", r.File, r.Report())
		}
	}
	fmt.Fprintf(&b, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	_, err := w.Write(b.Bytes())
	return err
}

// verdict is the exit code as an error.
func (f *runFlags) verdict(results []script.Result) error {
	denied := ""
	for i := range results {
		r := &results[i]
		if r.Denied {
			denied = r.Skipped
		}
		if !r.OK() && r.Skipped == "" {
			return errFailed
		}
	}
	if denied != "" {
		return failure{exitSkipped, denied, "run as root, or where unprivileged user namespaces are allowed"}
	}
	return nil
}
