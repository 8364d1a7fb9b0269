package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/test/lab"
)

// Plan is what is measured. The zero value of a field means what its comment says.
type Plan struct {
	Speakers []Speaker // side by side, in this order; required
	Seed     uint64    // of the phases of faults

	Faults    []Fault                          // what happens to the master; none: no failovers
	Intervals []time.Duration                  // of adverts; none: no failovers
	Runs      func(interval time.Duration) int // of each fault, MaxRuns at most; required for failovers
	Instances []int                            // sizes of groups; none: no costs

	CostIntervals []time.Duration             // of adverts; none: no costs
	Watch         func(g Group) time.Duration // how long a group is, MaxWatch at most; required for costs
	WarmUp        time.Duration               // before a cost is measured; 0 is 6 s

	Busy     int               // how many processes load the machine meanwhile
	Progress func(line string) // nil is silent
}

// threads is how many threads of the bench wait in the kernel: ear, holders, client
// or pulse.
const threads = 3 + nodes

// Limits of a Plan.
const (
	MinInterval = 10 * time.Millisecond // VRRP's unit
	MaxInterval = 40950 * time.Millisecond
	MaxRuns     = 1000
	MaxBusy     = 64
	MaxWatch    = 150 * time.Second
)

// ErrPlan is in the error of a Measure that was asked for what cannot be.
var ErrPlan = errors.New("bad plan")

// check looks for what cannot be measured.
func (p *Plan) check() error {
	fault := func(format string, a ...any) error {
		return fmt.Errorf("bench: %w: %s", ErrPlan, fmt.Sprintf(format, a...))
	}
	switch {
	case len(p.Speakers) == 0:
		return fault("no speaker")
	case len(p.Faults) > 0 && len(p.Intervals) > 0 && p.Runs == nil, len(p.Instances) > 0 && len(p.CostIntervals) > 0 && p.Watch == nil:
		return fault("neither Runs nor Watch may be left out")
	case p.Busy < 0 || p.Busy > MaxBusy:
		return fault("a load of %d, want 0 to %d", p.Busy, MaxBusy)
	}
	for i, s := range p.Speakers {
		if slices.ContainsFunc(p.Speakers[:i], func(o Speaker) bool { return o.Name == s.Name }) {
			return fault("%s is named twice", s.Name)
		}
	}
	for _, interval := range slices.Concat(p.Intervals, p.CostIntervals) {
		if interval < MinInterval || interval > MaxInterval || interval%MinInterval != 0 {
			return fault("interval %v, want %v to %v in steps of %v", interval, MinInterval, MaxInterval, MinInterval)
		}
	}
	for _, n := range p.Instances {
		if n < 1 || n > 255 {
			return fault("%d instances, want 1 to 255", n)
		}
	}
	for _, f := range p.Faults {
		if !slices.Contains(Faults(), f) {
			return fault("fault %q, want %v", f, Faults())
		}
	}
	return nil
}

// Measure makes all runs of a plan and returns what came out, also what did so far
// when ctx ends or a speaker cannot be started. The error holds lab.ErrSkipped
// where no namespace can be made.
func Measure(ctx context.Context, p Plan) (Report, error) {
	r := Report{Machine: machine(), Seed: p.Seed, Busy: p.Busy, Began: time.Now().Round(time.Second)}
	if err := p.check(); err != nil {
		return r, err
	}
	if p.Progress == nil {
		p.Progress = func(string) {}
	}
	if p.WarmUp == 0 {
		p.WarmUp = warmUp
	}
	for _, s := range p.Speakers {
		r.Speakers = append(r.Speakers, Named{s.Name, s.Version})
	}
	// Threads that sleep in the kernel keep the runtime from others otherwise, until
	// its monitor notices, which takes up to 10 ms.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + threads))
	var failed error
	err := lab.Run("bench", nil, func(t lab.TB) {
		f := newField(ctx, t)
		f.load(p.Busy)
		if failed = f.failovers(&p, &r); failed == nil {
			failed = f.costs(&p, &r)
		}
	})
	r.Took = time.Since(r.Began).Round(time.Second)
	if err := ctx.Err(); err != nil {
		return r, fmt.Errorf("bench: %w", err)
	}
	return r, errors.Join(failed, err)
}

// load keeps the machine busy until the test ends.
func (f *field) load(n int) {
	if n == 0 {
		return
	}
	h := f.client
	for range n {
		h.Start(exec.Command("/bin/sh", "-c", "while :; do :; done"))
	}
}

// failovers makes the runs of all speakers in turn.
func (f *field) failovers(p *Plan, r *Report) error {
	random := rand.New(rand.NewPCG(p.Seed, 0))
	for _, interval := range p.Intervals {
		for _, fault := range p.Faults {
			block := len(r.Failovers)
			for _, s := range p.Speakers {
				if why := s.refuses(Group{Interval: interval, Instances: 1}); why == "" {
					r.Failovers = append(r.Failovers, Failover{
						Speaker: s.Name, Fault: fault, Interval: interval, Theory: ms(s.theory(fault, interval)),
					})
				}
			}
			for i := range min(p.Runs(interval), MaxRuns) {
				phase := random.Float64()
				for at := range r.Failovers[block:] {
					one := &r.Failovers[block+at]
					run, err := f.try(p.speaker(one.Speaker), fault, interval, phase)
					if err != nil {
						return err
					}
					one.Runs = append(one.Runs, run)
					one.sum() // each time: the next run may be interrupted
					p.Progress(fmt.Sprintf("%s, %v, run %d, %s: %s", fault, interval, i+1, one.Speaker, run.line()))
				}
			}
		}
	}
	return nil
}

// try makes one run, again if it was disturbed.
func (f *field) try(s Speaker, fault Fault, interval time.Duration, phase float64) (run Takeover, err error) {
	for again := range maxTries {
		run, err = f.failover(s, fault, interval, phase)
		run.Again = again
		if err != nil || run.Error != disturbed {
			break
		}
	}
	return run, err
}

// costs measures all groups of all speakers in turn.
func (f *field) costs(p *Plan, r *Report) error {
	for _, interval := range p.CostIntervals {
		for _, n := range p.Instances {
			g := Group{Interval: interval, Instances: n}
			for _, s := range p.Speakers {
				if s.refuses(g) != "" {
					continue
				}
				run, err := f.steady(s, g, min(p.Watch(g), MaxWatch), p.WarmUp)
				if err != nil {
					return err
				}
				r.Costs = append(r.Costs, Cost{s.Name, interval, n, run})
				p.Progress(fmt.Sprintf("cost, %v, %d instances, %s: %s", interval, n, s.Name, run.line()))
			}
		}
	}
	return nil
}

func (p *Plan) speaker(name string) Speaker {
	return p.Speakers[slices.IndexFunc(p.Speakers, func(s Speaker) bool { return s.Name == name })]
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
