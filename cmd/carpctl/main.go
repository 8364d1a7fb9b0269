// Command carpctl asks and steers a running carpd over its control socket. It
// knows nothing of the protocol: it sends requests and prints answers, and what
// it prints with --json is what the daemon said.
//
// The exit codes are part of its interface: 0 done, 1 refused or no, 2 usage,
// 3 cannot reach the daemon. See carpctl(8).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
)

// The exit codes.
const (
	exitDone        = 0
	exitNo          = 1 // refused, or the answer is no
	exitUsage       = 2
	exitUnreachable = 3
)

// failure is an error with its exit code and what to do about it.
type failure struct {
	code       int
	what, hint string
}

func (f failure) Error() string { return f.what }

func usage(hint, format string, args ...any) error {
	return failure{exitUsage, fmt.Sprintf(format, args...), hint}
}

// errNo ends a command whose answer is no and has been printed.
var errNo = errors.New("no")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr, time.Now)
	stop()
	os.Exit(code)
}

// run runs one command and returns its exit code. now is the clock that "since"
// is told by.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, now func() time.Time) int {
	p := &program{out: stdout, now: now}
	root := p.commands()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errNo):
		return exitNo
	}
	var f failure
	if !errors.As(err, &f) {
		f = failure{exitUsage, err.Error(), "see carpctl --help"} // only cobra's own errors are no failures
	}
	// A wrong command line may end before the flag is read.
	if p.json || slices.Contains(args, "--json") {
		json.NewEncoder(stdout).Encode(api.Error{Error: f.what, Hint: f.hint})
		return f.code
	}
	fmt.Fprintf(stderr, "carpctl: %s\n", f.what)
	if f.hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", f.hint)
	}
	return f.code
}
