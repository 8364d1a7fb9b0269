package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/carpd/carpd/test/bench"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/safety"
)

// figures is the report of a bench.
type figures interface {
	Table() string
	WriteJSON(w io.Writer) error
}

// deliver prints a report as a table, and writes all of it to a file if that has a name.
func deliver(stdout io.Writer, r figures, file string) error {
	if _, err := io.WriteString(stdout, r.Table()); err != nil || file == "" {
		return err
	}
	return writeFile(file, r)
}

func writeFile(name string, r interface{ WriteJSON(w io.Writer) error }) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(r.WriteJSON(file), file.Close())
}

// outcome is what a bench came to.
type outcome struct {
	bench   string       // as in the command line
	err     error        // of the measuring
	some    bool         // there are figures, also where err is set
	failed  int          // parts without figures
	parts   string       // what they are called
	deliver func() error // prints and writes the figures
	files   string       // the flags that name where to
}

// conclude delivers the figures and returns what ends the command.
func (o outcome) conclude(ctx context.Context, stderr io.Writer) error {
	switch {
	case errors.Is(o.err, bench.ErrPlan), errors.Is(o.err, safety.ErrPlan):
		return failure{exitUsage, o.err.Error(), "see carplab bench " + o.bench + " --help"}
	case errors.Is(o.err, lab.ErrSkipped):
		return failure{exitSkipped, o.err.Error(), "run as root, or allow user namespaces"}
	}
	if o.some {
		if err := o.deliver(); err != nil {
			return failure{exitNothing, "write report: " + err.Error(), "give " + o.files + " that can be written"}
		}
	}
	switch {
	case ctx.Err() != nil:
		return failure{exitFailed, "interrupted", ""}
	case o.err != nil:
		return failure{exitNothing, o.err.Error(), "try one alone, with --verbose"}
	case o.failed > 0:
		fmt.Fprintf(stderr, "carplab: %d %s gave no figures\n", o.failed, o.parts)
		return errFailed
	}
	return nil
}
