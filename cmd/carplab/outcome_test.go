package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/carpd/carpd/test/bench"
	"github.com/carpd/carpd/test/lab"
)

// What was measured is printed in every case, and the exit code says what is missing.
func TestBenchEndsAsWhatItMeasured(t *testing.T) {
	live := t.Context()
	over, cancel := context.WithCancel(live)
	cancel()
	fault := errors.New("does not start")
	for name, c := range map[string]struct {
		ctx       context.Context
		o         outcome
		unwritten error
		code      int // of the failure; -1: errFailed
	}{
		"all":              {live, outcome{some: true}, nil, exitPassed},
		"bad plan":         {live, outcome{err: fmt.Errorf("x: %w", bench.ErrPlan)}, nil, exitUsage},
		"no namespaces":    {live, outcome{err: fmt.Errorf("x: %w", lab.ErrSkipped)}, nil, exitSkipped},
		"fault half way":   {live, outcome{some: true, err: fault}, nil, exitNothing},
		"interrupted":      {over, outcome{some: true, err: over.Err(), failed: 1}, nil, exitFailed},
		"without figures":  {live, outcome{some: true, failed: 2}, nil, -1},
		"file not written": {live, outcome{some: true, failed: 2}, fault, exitNothing},
	} {
		delivered := false
		c.o.deliver = func() error { delivered = true; return c.unwritten }
		err := c.o.conclude(c.ctx, io.Discard)
		var f failure
		errors.As(err, &f)
		if errors.Is(err, errFailed) {
			f.code = -1
		}
		if f.code != c.code || delivered != c.o.some {
			t.Errorf("%s: %v, code %d, want %d; delivered %v", name, err, f.code, c.code, delivered)
		}
	}
}
