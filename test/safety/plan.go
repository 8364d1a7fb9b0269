package safety

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/test/lab"
)

// Plan is what is broken how often.
type Plan struct {
	Daemons  []Daemon // side by side, in this order; required
	Rows     []string // names of Rows; required
	Runs     int      // of each row and daemon, 1 to MaxRuns; every other one has three nodes
	Parallel int      // LANs at the same time, 1 to MaxParallel
	Seed     uint64   // of the phases of faults, which are the same for all daemons

	Progress func(line string) // gets a line a run, from one goroutine at a time; nil is silent

	floods sync.Mutex // held while a row is measured that must be alone
}

// Limits of a Plan.
const (
	MaxRuns     = 1000
	MaxParallel = 32
)

// ErrPlan is in the error of a Measure that was asked for what cannot be.
var ErrPlan = errors.New("bad plan")

// check looks for what cannot be measured.
func (p *Plan) check() error {
	fault := func(format string, a ...any) error {
		return fmt.Errorf("safety: %w: %s", ErrPlan, fmt.Sprintf(format, a...))
	}
	switch {
	case len(p.Daemons) == 0:
		return fault("no daemon")
	case len(p.Rows) == 0:
		return fault("no row")
	case p.Runs < 1 || p.Runs > MaxRuns:
		return fault("%d runs, want 1 to %d", p.Runs, MaxRuns)
	case p.Parallel < 1 || p.Parallel > MaxParallel:
		return fault("%d at the same time, want 1 to %d", p.Parallel, MaxParallel)
	}
	for i, d := range p.Daemons {
		if slices.ContainsFunc(p.Daemons[:i], func(o Daemon) bool { return o.Name == d.Name }) {
			return fault("%s is named twice", d.Name)
		}
	}
	for i, name := range p.Rows {
		if _, ok := rowOf(name); !ok {
			return fault("row %q, want %v", name, rowNames())
		}
		if slices.Contains(p.Rows[:i], name) {
			return fault("%s is named twice", name)
		}
	}
	return nil
}

// task is one run to be made.
type task struct {
	daemon Daemon
	row    Row
	number int
}

// tasks are all runs of a plan. The daemons take turns, so that an hour in which the
// machine is slow is everybody's.
func (p *Plan) tasks() (all []task) {
	for _, name := range p.Rows {
		row, _ := rowOf(name)
		for number := range p.Runs {
			for _, d := range p.Daemons {
				if d.plays(name) {
					all = append(all, task{d, row, number})
				}
			}
		}
	}
	return all
}

// threads is how many threads of a site wait in the kernel: observer, client, switch
// and one that starts processes a host.
const threads = 3

// Measure makes all runs of a plan and returns what came out, also what did so far
// when ctx ends. The error holds lab.ErrSkipped where no namespace can be made.
func Measure(ctx context.Context, p *Plan) (Report, error) {
	r := Report{Machine: machine(), Seed: p.Seed, Parallel: p.Parallel, Began: time.Now().Round(time.Second), Rows: p.Rows}
	if err := p.check(); err != nil {
		return r, err
	}
	for _, d := range p.Daemons {
		r.Daemons = append(r.Daemons, Named{Name: d.Name, Title: d.Title, Version: d.Version, Interval: d.Interval, Only: d.Only, Cannot: d.Cannot})
	}
	if err := lab.Run("safety", nil, func(t lab.TB) { lab.New(t) }); err != nil {
		return r, err
	}
	// Threads that sleep in the kernel keep the runtime from others otherwise, until
	// its monitor notices, which takes up to 10 ms.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + threads*p.Parallel))
	r.Runs = p.all(ctx)
	r.Took = time.Since(r.Began).Round(time.Second)
	if err := ctx.Err(); err != nil {
		return r, fmt.Errorf("safety: %w", err)
	}
	return r, nil
}

// all makes all runs and returns those that were made: first those of which Parallel
// may go on at the same time, then those that disturb each other more.
func (p *Plan) all(ctx context.Context) (runs []Run) {
	keep := func(run Run) {
		runs = append(runs, run)
		if p.Progress != nil {
			p.Progress(run.line())
		}
	}
	var batches [3][]task
	beside := [3]int{p.Parallel, min(p.Parallel, besideMany), min(p.Parallel, besideFlood)}
	for _, t := range p.tasks() {
		batch := 0
		switch {
		case t.row.many:
			batch = 1
		case t.row.alone:
			batch = 2
		}
		batches[batch] = append(batches[batch], t)
	}
	for i, tasks := range batches {
		p.work(ctx, tasks, beside[i], keep)
	}
	return runs
}

// besideMany is how many LANs with many addresses there are at the same time: the
// kernel has one lock for the addresses of all namespaces. besideFlood is how many
// there are while one is flooded, with it: others only start.
const (
	besideMany  = 4
	besideFlood = 2
)

// work makes runs, so many at the same time, and gives those that were made to keep,
// one after the other.
func (p *Plan) work(ctx context.Context, tasks []task, parallel int, keep func(Run)) {
	next := make(chan task)
	var mu sync.Mutex
	var ended sync.WaitGroup
	for range parallel {
		ended.Go(func() {
			for t := range next {
				run := p.try(ctx, t.daemon, t.row, t.number)
				mu.Lock()
				if ctx.Err() == nil {
					keep(run)
				}
				mu.Unlock()
			}
		})
	}
	for _, t := range tasks {
		select {
		case next <- t:
		case <-ctx.Done():
		}
	}
	close(next)
	ended.Wait()
}

// machine describes where this runs.
func machine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Go: runtime.Version()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return m
}
