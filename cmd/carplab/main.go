// Command carplab is the packet-level test harness as a program: what package
// test/... offers to Go, for the shell and for CI.
//
// The exit codes are part of its interface: 0 passed, 1 failed, 2 usage, 3 there
// is nothing to say (no speaker, no interface, a file that cannot be written),
// 77 skipped because this system does not allow what is needed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	exitPassed  = 0
	exitFailed  = 1
	exitUsage   = 2
	exitNothing = 3
	exitSkipped = 77
)

// failure is an error with its exit code and what to do about it.
type failure struct {
	code       int
	what, hint string
}

func (f failure) Error() string { return f.what }

// errFailed ends a command whose result is a failure and has been printed.
var errFailed = errors.New("failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs one command and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "carplab",
		Short: "Test speakers of CARP on the wire",
		Long: "carplab tests speakers of CARP on the wire, ours and others.\n\n" +
			"Exit codes: 0 passed, 1 failed, 2 usage, 3 nothing to say (no speaker was heard, ...), 77 not allowed here.",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.AddCommand(runCommand(), soakCommand(), conformCommand(), benchCommand())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitPassed
	case errors.Is(err, errFailed):
		return exitFailed
	}
	var f failure
	if !errors.As(err, &f) {
		f = failure{exitUsage, err.Error(), "see carplab --help"} // only cobra's own errors are no failures
	}
	fmt.Fprintf(stderr, "carplab: %s\n", f.what)
	if f.hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", f.hint)
	}
	return f.code
}
