package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// Load is what keeps the machine busy while adverts are looked at: a process that
// spins for each core.
type Load string

// The loads.
const (
	Idle     Load = "idle"      // none
	Busy     Load = "busy"      // processes of ordinary rank
	Greedy   Load = "greedy"    // the same with nice -20
	RealTime Load = "real-time" // the same with SCHED_RR and the lowest priority of it
)

// Loads returns all of them.
func Loads() []Load { return []Load{Idle, Busy, Greedy, RealTime} }

// commands starts the load on a machine with so many cores.
func (l Load) commands(cores int) (all []*exec.Cmd) {
	spin := []string{"/bin/sh", "-c", "while :; do :; done"}
	switch l {
	case Idle:
		return nil
	case Greedy:
		spin = append([]string{"nice", "-n", "-20"}, spin...)
	case RealTime:
		spin = append([]string{"chrt", "-r", "1"}, spin...)
	}
	for range cores {
		all = append(all, exec.Command(spin[0], spin[1:]...))
	}
	return all
}

// LatenessPlan is what MeasureLateness looks at: each load with each interval, each
// number of instances and each speaker.
type LatenessPlan struct {
	Speakers  []Speaker // side by side, in this order; required
	Loads     []Load
	Intervals []time.Duration
	Instances []int
	Watch     time.Duration     // for how long each, MaxWatch at most
	Progress  func(line string) // nil is silent
}

// check looks for what cannot be measured.
func (p *LatenessPlan) check() error {
	if p.Watch < time.Second || p.Watch > MaxWatch {
		return fmt.Errorf("bench: %w: a watch of %v, want 1s to %v", ErrPlan, p.Watch, MaxWatch)
	}
	for _, l := range p.Loads {
		if !slices.Contains(Loads(), l) {
			return fmt.Errorf("bench: %w: load %q, want %v", ErrPlan, l, Loads())
		}
	}
	return (&Plan{
		Speakers: p.Speakers, CostIntervals: p.Intervals, Instances: p.Instances, Watch: func(Group) time.Duration { return p.Watch },
	}).check()
}

// Lateness is how late the adverts of one master were under one load: how much
// farther apart than the interval, of all instances.
type Lateness struct {
	Speaker   string        `json:"speaker"`
	Load      Load          `json:"load"`
	Interval  time.Duration `json:"interval_ns"`
	Instances int           `json:"instances"`
	Late      Spread        `json:"late_ms"`
	Adverts   int           `json:"adverts"`
	Expected  int           `json:"expected"`
	Takeovers int           `json:"false_takeovers"`
	Lost      uint64        `json:"lost_frames"`     // by the observer
	Error     string        `json:"error,omitempty"` // the rest says nothing
}

// LatenessReport is what MeasureLateness found.
type LatenessReport struct {
	Machine  Machine       `json:"machine"`
	Speakers []Named       `json:"speakers"`
	Began    time.Time     `json:"began"`
	Took     time.Duration `json:"took_ns"`
	Watch    time.Duration `json:"watch_ns"`
	Rows     []Lateness    `json:"rows"`
}

// MeasureLateness looks at the adverts of speakers in turn. It returns what came out
// so far when ctx ends or a speaker cannot be started. The error holds
// lab.ErrSkipped where no namespace can be made.
func MeasureLateness(ctx context.Context, p LatenessPlan) (LatenessReport, error) {
	r := LatenessReport{Machine: machine(), Watch: p.Watch, Began: time.Now().Round(time.Second)}
	if err := p.check(); err != nil {
		return r, err
	}
	if p.Progress == nil {
		p.Progress = func(string) {}
	}
	for _, s := range p.Speakers {
		r.Speakers = append(r.Speakers, Named{s.Name, s.Version})
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + threads))
	var failed error
	err := lab.Run("bench", nil, func(t lab.TB) {
		failed = newField(ctx, t).allLateness(&p, &r)
	})
	r.Took = time.Since(r.Began).Round(time.Second)
	if err := ctx.Err(); err != nil {
		return r, fmt.Errorf("bench: %w", err)
	}
	return r, errors.Join(failed, err)
}

func (f *field) allLateness(p *LatenessPlan, r *LatenessReport) error {
	for _, load := range p.Loads {
		for _, interval := range p.Intervals {
			for _, n := range p.Instances {
				g := Group{Interval: interval, Instances: n}
				for _, s := range p.Speakers {
					if s.refuses(g) != "" {
						continue
					}
					row, err := f.lateness(s, g, load, p.Watch)
					if err != nil {
						return err
					}
					r.Rows = append(r.Rows, row)
					p.Progress(fmt.Sprintf("%s, %d at %v, %s: %s", load, n, interval, s.Name, row.cell()))
				}
			}
		}
	}
	return nil
}

// lateness lets a group elect its masters in peace, and then watches them at work
// while the machine is loaded.
func (f *field) lateness(s Speaker, g Group, load Load, watch time.Duration) (Lateness, error) {
	row := Lateness{
		Speaker: s.Name, Load: load, Interval: g.Interval, Instances: g.Instances,
		Expected: int(float64(g.Instances) * float64(watch) / float64(g.Interval)),
	}
	f.clear()
	f.ear.forget()
	if _, err := f.settle(s, g, alone(g.Interval)); errors.Is(err, lab.ErrTime) {
		row.Error = err.Error()
		return row, nil
	} else if err != nil {
		return row, err
	}
	defer f.burden(load)()
	if err := f.pass(time.Second); err != nil {
		return row, err
	}
	m := newMeter(row.Expected)
	f.ear.overruns()
	f.ear.measure(m)
	err := f.pass(watch)
	f.ear.measure(nil)
	m.end(stamp(), g.Interval)
	for i := range m.gaps {
		m.gaps[i] -= g.Interval
	}
	row.Late, row.Adverts, row.Takeovers, row.Lost = spread(m.gaps), m.adverts[0], m.takeover, f.ear.overruns()
	return row, err
}

// burden loads the machine, and returns what ends that.
func (f *field) burden(l Load) (end func()) {
	var all []*lab.Proc
	for _, c := range l.commands(runtime.NumCPU()) {
		all = append(all, f.client.Start(c))
	}
	return func() {
		for _, p := range all {
			p.Signal(syscall.SIGKILL)
			<-p.Done()
		}
	}
}

// Failed counts the rows without figures.
func (r *LatenessReport) Failed() (n int) {
	for i := range r.Rows {
		if r.Rows[i].Error != "" {
			n++
		}
	}
	return n
}

// WriteJSON writes all of it.
func (r *LatenessReport) WriteJSON(w io.Writer) error { return writeJSON(w, r) }

// Table is the report as a table in Markdown, a column a speaker.
func (r *LatenessReport) Table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d CPUs, Linux %s, %s, %v each, %v in all.", r.Machine.CPUs, r.Machine.Kernel, r.Machine.Go, r.Watch, r.Took)
	for _, s := range r.Speakers {
		fmt.Fprintf(&b, " %s: %s.", s.Name, s.Version)
	}
	b.WriteString("\n\n| load | instances, interval |")
	for _, s := range r.Speakers {
		fmt.Fprintf(&b, " %s |", s.Name)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(r.Speakers)) + "\n")
	for i := range r.Rows {
		first := &r.Rows[i]
		if i > 0 && r.Rows[i-1].same(first) {
			continue // it is in the line before
		}
		fmt.Fprintf(&b, "| %s | %d, %v |", first.Load, first.Instances, first.Interval)
		for _, s := range r.Speakers {
			cell := "-"
			for k := range r.Rows {
				if row := &r.Rows[k]; row.same(first) && row.Speaker == s.Name {
					cell = row.cell()
				}
			}
			fmt.Fprintf(&b, " %s |", cell)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// same reports whether two rows stand beside each other.
func (l *Lateness) same(other *Lateness) bool {
	return l.Load == other.Load && l.Interval == other.Interval && l.Instances == other.Instances
}

func (l *Lateness) cell() string {
	if l.Error != "" {
		return "failed"
	}
	return l.Late.short() + ended("", l.Takeovers, "false takeovers")
}
