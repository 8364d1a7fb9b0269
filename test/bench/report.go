package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Machine is where a Report comes from: its figures are to be compared with each
// other, and hardly with those of another machine.
type Machine struct {
	CPUs   int    `json:"cpus"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// Named is a speaker's name and version.
type Named struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Failover is all runs of one speaker with one fault at one interval.
type Failover struct {
	Speaker  string        `json:"speaker"`
	Fault    Fault         `json:"fault"`
	Interval time.Duration `json:"interval_ns"`
	Theory   float64       `json:"theory_ms"` // of the silence; negative: it says no farewell
	Failed   int           `json:"failed"`    // runs with an Error, which are in no Spread

	Silence      Spread `json:"silence_ms"`
	Announced    Spread `json:"announced_ms"`
	Outage       Spread `json:"outage_ms"`
	BothHold     Spread `json:"both_hold_ms"`
	BothAnswered Spread `json:"both_answered_ms"`
	Late         Spread `json:"late_ms"`

	Runs []Takeover `json:"runs"`
}

// Cost is what one Group of one speaker cost.
type Cost struct {
	Speaker   string        `json:"speaker"`
	Interval  time.Duration `json:"interval_ns"`
	Instances int           `json:"instances"`
	Steady
}

// Report is what a Measure found.
type Report struct {
	Machine   Machine       `json:"machine"`
	Speakers  []Named       `json:"speakers"`
	Began     time.Time     `json:"began"`
	Took      time.Duration `json:"took_ns"`
	Seed      uint64        `json:"seed"`
	Busy      int           `json:"busy"` // processes that loaded the machine
	Failovers []Failover    `json:"failovers"`
	Costs     []Cost        `json:"costs"`
}

// sum makes the spreads of all runs.
func (f *Failover) sum() {
	of := func(value func(*Takeover) float64) Spread {
		var all []time.Duration
		for i := range f.Runs {
			if r := &f.Runs[i]; r.Error == "" {
				all = append(all, time.Duration(value(r)*1e6))
			}
		}
		return spread(all)
	}
	f.Silence = of(func(r *Takeover) float64 { return r.Silence })
	f.Announced = of(func(r *Takeover) float64 { return r.Announced })
	f.Outage = of(func(r *Takeover) float64 { return r.Outage })
	f.BothHold = of(func(r *Takeover) float64 { return r.BothHold })
	f.BothAnswered = of(func(r *Takeover) float64 { return r.BothAnswered })
	f.Late = of(func(r *Takeover) float64 { return r.Late })
	f.Failed = len(f.Runs) - f.Silence.Count
}

// open counts the runs that a condition holds for.
func (f *Failover) open(cond func(*Takeover) bool) (n int) {
	for i := range f.Runs {
		if cond(&f.Runs[i]) {
			n++
		}
	}
	return n
}

// Failed counts the runs of which nothing can be said.
func (r *Report) Failed() (n int) {
	for i := range r.Failovers {
		n += r.Failovers[i].Failed
	}
	for i := range r.Costs {
		if r.Costs[i].Error != "" {
			n++
		}
	}
	return n
}

// WriteJSON writes all of it, each run too.
func (r *Report) WriteJSON(w io.Writer) error { return writeJSON(w, r) }

func writeJSON(w io.Writer, report any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(report)
}

func (t *Takeover) line() string {
	if t.Error != "" {
		return t.Error
	}
	return fmt.Sprintf("silence %.1f, announced %.1f, outage %.1f, both hold %.1f, late %.1f ms", t.Silence, t.Announced, t.Outage, t.BothHold, t.Late)
}

func (s *Steady) line() string {
	if s.Error != "" {
		return s.Error
	}
	return fmt.Sprintf("CPU %.2f and %.2f %%, spacing %s ms, %d false takeovers", s.Master.CPU, s.Backup.CPU, s.Spacing.short(), s.Takeovers)
}

// short is median, 99th percentile and maximum.
func (s Spread) short() string { return fmt.Sprintf("%.2f / %.2f / %.2f", s.Median, s.P99, s.Max) }

// long is minimum, median, 99th percentile and maximum.
func (s Spread) long() string {
	if s.Count == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f / %.1f / %.1f / %.1f", s.Min, s.Median, s.P99, s.Max)
}

// Table is the report as text: a column a speaker, those of one run beside each
// other.
func (r *Report) Table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d CPUs, Linux %s, %s, seed %d, %v", r.Machine.CPUs, r.Machine.Kernel, r.Machine.Go, r.Seed, r.Took)
	if r.Busy > 0 {
		fmt.Fprintf(&b, ", %d processes load the machine", r.Busy)
	}
	b.WriteByte('\n')
	for _, s := range r.Speakers {
		fmt.Fprintf(&b, "%s: %s\n", s.Name, s.Version)
	}
	if len(r.Failovers) > 0 {
		b.WriteString("\nfailover: min / median / p99 / max in ms\n")
		r.columns(&b, r.failoverTable)
	}
	if len(r.Costs) > 0 {
		b.WriteString("\ncost: CPU in percent of one core; spacing of adverts p50 / p99 / max in ms\n")
		r.columns(&b, r.costTable)
	}
	return b.String()
}

// columns aligns the rows that a function writes. Neither writer can fail.
func (r *Report) columns(b *strings.Builder, write func(w io.Writer)) {
	w := tabwriter.NewWriter(b, 0, 0, 3, ' ', 0)
	write(w)
	_ = w.Flush()
}

// row writes a label and a cell for each speaker.
func (r *Report) row(w io.Writer, label string, cell func(speaker string) string) {
	_, _ = io.WriteString(w, label)
	for _, s := range r.Speakers {
		_, _ = io.WriteString(w, "\t"+cell(s.Name))
	}
	_, _ = io.WriteString(w, "\n")
}

func (r *Report) failoverTable(b io.Writer) {
	for i := range r.Failovers {
		first := &r.Failovers[i]
		if i > 0 && r.Failovers[i-1].Fault == first.Fault && r.Failovers[i-1].Interval == first.Interval {
			continue // it is in the block before
		}
		_, _ = io.WriteString(b, "\n")
		r.row(b, fmt.Sprintf("%s, %v", first.Fault, first.Interval), func(s string) string { return s })
		cell := func(label string, text func(*Failover) string) {
			r.row(b, "  "+label, func(s string) string {
				at := slices.IndexFunc(r.Failovers, func(f Failover) bool {
					return f.Speaker == s && f.Fault == first.Fault && f.Interval == first.Interval
				})
				if at < 0 {
					return "-"
				}
				return text(&r.Failovers[at])
			})
		}
		cell("runs (failed)", func(f *Failover) string { return fmt.Sprintf("%d (%d)", len(f.Runs), f.Failed) })
		cell("silence, theory", func(f *Failover) string {
			if f.Theory < 0 {
				return "no farewell"
			}
			return fmt.Sprintf("%.1f", f.Theory)
		})
		cell("silence", func(f *Failover) string { return f.Silence.long() })
		cell("fault to announced", func(f *Failover) string { return f.Announced.long() })
		cell("client outage", func(f *Failover) string {
			return ended(f.Outage.long(), f.open(func(t *Takeover) bool { return t.OutageOpen && t.Error == "" }), "without end")
		})
		cell("both hold", func(f *Failover) string {
			return ended(f.BothHold.long(), f.open(func(t *Takeover) bool { return t.HoldOpen && t.Error == "" }), "without end")
		})
		cell("both answer ARP", func(f *Failover) string { return f.BothAnswered.long() })
		cell("bench late", func(f *Failover) string { return f.Late.long() })
	}
}

// ended adds how many runs did not see the end of it.
func ended(text string, open int, what string) string {
	if open == 0 {
		return text
	}
	return fmt.Sprintf("%s (%d %s)", text, open, what)
}

func (r *Report) costTable(b io.Writer) {
	for i := range r.Costs {
		first := &r.Costs[i]
		if i > 0 && r.Costs[i-1].Interval == first.Interval && r.Costs[i-1].Instances == first.Instances {
			continue
		}
		_, _ = io.WriteString(b, "\n")
		r.row(b, fmt.Sprintf("%d at %v, %.0f s", first.Instances, first.Interval, first.Seconds), func(s string) string { return s })
		cell := func(label string, text func(*Cost) string) {
			r.row(b, "  "+label, func(s string) string {
				at := slices.IndexFunc(r.Costs, func(c Cost) bool {
					return c.Speaker == s && c.Interval == first.Interval && c.Instances == first.Instances
				})
				switch {
				case at < 0:
					return "-"
				case r.Costs[at].Error != "":
					return "failed"
				}
				return text(&r.Costs[at])
			})
		}
		cell("CPU master, backup", func(c *Cost) string { return fmt.Sprintf("%.2f, %.2f", c.Master.CPU, c.Backup.CPU) })
		memory := func(n *Node) string { return fmt.Sprintf("%.1f, %.1f (%d)", n.RSS, n.PSS, n.Processes) }
		cell("RSS, PSS MiB master", func(c *Cost) string { return memory(&c.Master) })
		cell("RSS, PSS MiB backup", func(c *Cost) string { return memory(&c.Backup) })
		cell("spacing", func(c *Cost) string { return c.Spacing.short() })
		cell("adverts of expected", func(c *Cost) string { return fmt.Sprintf("%d of %d", c.Adverts, c.Expected) })
		cell("adverts by backup", func(c *Cost) string { return fmt.Sprint(c.Foreign) })
		cell("false takeovers", func(c *Cost) string {
			if c.Restless {
				return fmt.Sprintf("%d, was never at rest", c.Takeovers)
			}
			return fmt.Sprint(c.Takeovers)
		})
		cell("CPU bench, others", func(c *Cost) string { return fmt.Sprintf("%.2f, %.2f", c.Bench, c.Others) })
		cell("bench late", func(c *Cost) string { return c.Late.short() })
	}
}
