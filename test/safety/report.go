package safety

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// Machine is where a Report comes from.
type Machine struct {
	CPUs   int    `json:"cpus"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// Named is a daemon of a Report.
type Named struct {
	Name     string            `json:"name"`
	Title    string            `json:"title"`
	Version  string            `json:"version"`
	Interval time.Duration     `json:"interval_ns"`
	Only     []string          `json:"only,omitempty"`   // the rows that it took part in, if not in all
	Cannot   map[string]string `json:"cannot,omitempty"` // rows that nothing can be said of, and why
}

// Report is what a Measure found.
type Report struct {
	Machine  Machine       `json:"machine"`
	Daemons  []Named       `json:"daemons"`
	Rows     []string      `json:"rows"`
	Began    time.Time     `json:"began"`
	Took     time.Duration `json:"took_ns"`
	Seed     uint64        `json:"seed"`
	Parallel int           `json:"parallel"`
	Runs     []Run         `json:"runs"`
}

// Spread is a set of values by its least values that cover half, 95 % and all of it,
// in milliseconds.
type Spread struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	Max float64 `json:"max"`
}

// spread describes values.
func spread(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	at := func(share int) float64 { return sorted[(len(sorted)*share+99)/100-1] }
	return Spread{at(50), at(95), at(100)}
}

func (s Spread) String() string {
	if s.Max == 0 {
		return "0"
	}
	return fmt.Sprintf("%s / %s / %s", short(s.P50), short(s.P95), short(s.Max))
}

// short is a time in milliseconds with no more digits than it deserves.
func short(ms float64) string {
	if ms > 0 && ms < 9.95 {
		return fmt.Sprintf("%.1f", ms)
	}
	return fmt.Sprintf("%.0f", ms)
}

// Cell is what all runs of one row and one daemon say.
type Cell struct {
	Runs, Failed, Late     int // Late are among Runs
	Two, None, Outage, Gap Spread
	Healed                 Spread
	Mends                  bool // the fault is mended: Healed says something
	TwoOpen, OutageOpen    int  // runs in which it had not ended
	False                  int  // of all runs
	TwoRuns                int  // runs with any time with two holders
}

// Cell sums up the runs of a row and a daemon.
func (r *Report) Cell(row, daemon string) (c Cell) {
	var two, none, out, healed, gap []float64
	for i := range r.Runs {
		run := &r.Runs[i]
		if run.Row != row || run.Daemon != daemon {
			continue
		}
		if run.Error != "" {
			c.Failed++
			continue
		}
		c.Runs++
		two, none, out, gap = append(two, run.Two), append(none, run.None), append(out, run.Outage), append(gap, run.Gap)
		if run.Healed >= 0 {
			healed, c.Mends = append(healed, run.Healed), true
		}
		c.False += run.False
		c.Late += count(run.Late)
		c.TwoOpen += count(run.TwoOpen)
		c.OutageOpen += count(run.OutageOpen)
		c.TwoRuns += count(run.Two > 0)
	}
	c.Two, c.None, c.Outage, c.Healed, c.Gap = spread(two), spread(none), spread(out), spread(healed), spread(gap)
	return c
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// Failed counts the runs of which nothing can be said.
func (r *Report) Failed() (n int) {
	for i := range r.Runs {
		n += count(r.Runs[i].Error != "")
	}
	return n
}

// WriteJSON writes all of it, each run too.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("safety: write report: %w", err)
	}
	return nil
}

// line is a run in a line.
func (r *Run) line() string {
	head := fmt.Sprintf("%s, run %d, %d nodes, %s: ", r.Row, r.Number+1, r.Nodes, r.Daemon)
	if r.Error != "" {
		return head + r.Error
	}
	line := fmt.Sprintf("two %s%s, none %s%s, outage %s%s", short(r.Two), open(r.TwoOpen), short(r.None), open(r.NoneOpen), short(r.Outage), open(r.OutageOpen))
	if r.Healed >= 0 {
		line += fmt.Sprintf(" (%s healed)", short(r.Healed))
	}
	if r.Sent > 0 {
		line += fmt.Sprintf(", %d bad packets", r.Sent)
	}
	return head + line + fmt.Sprintf(", takeovers %d (%d false), watched %.1f s, gap %s ms", r.Takeovers, r.False, r.Watched/1000, short(r.Gap))
}

func open(yes bool) string {
	if yes {
		return "+"
	}
	return ""
}
