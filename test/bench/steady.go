package bench

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// warmUp passes between an election and the measuring of its cost: both ours and
// keepalived repeat their announcements five seconds after a takeover.
const warmUp = 6 * time.Second

// Node is the cost of one node.
type Node struct {
	CPU       float64 `json:"cpu_percent"` // of one core
	Processes int     `json:"processes"`
	Memory
}

// Steady is the cost of a Group while nothing happens.
type Steady struct {
	Seconds   float64 `json:"seconds"`
	Master    Node    `json:"master"`
	Backup    Node    `json:"backup"`
	Spacing   Spread  `json:"spacing_ms"` // between two adverts of one instance, of all
	Adverts   int     `json:"adverts"`    // by the master
	Expected  int     `json:"expected"`   // by the interval
	Foreign   int     `json:"adverts_by_backup"`
	Takeovers int     `json:"false_takeovers"` // times that the backup began to advertise an instance
	Bench     float64 `json:"bench_cpu_percent"`
	Others    float64 `json:"others_cpu_percent"` // everything else on the machine, the load of Busy too
	Late      Spread  `json:"late_ms"`            // of the bench's own thread
	Lost      uint64  `json:"lost_frames"`        // by the observer: not in Adverts
	Restless  bool    `json:"restless"`           // the backup did not let the master alone before it began
	Error     string  `json:"error,omitempty"`    // no master of all instances was ever heard: the rest says nothing
}

// steady measures a group for a time.
func (f *field) steady(s Speaker, g Group, last, warm time.Duration) (Steady, error) {
	f.clear()
	f.ear.forget()
	run := Steady{Seconds: last.Seconds(), Expected: int(float64(g.Instances) * float64(last) / float64(g.Interval))}
	_, err := f.settle(s, g, alone(g.Interval))
	if run.Restless = errors.Is(err, errRestless); run.Restless {
		err = nil
	}
	if err == nil {
		err = f.pass(warm) // what happens meanwhile is no fault of what is measured
	}
	if err != nil {
		run.Error = err.Error()
		if errors.Is(err, lab.ErrTime) {
			return run, nil
		}
		return run, err
	}
	var pids [nodes][]int
	for n, h := range f.hosts {
		if pids[n], err = processes(h); err != nil {
			return run, err
		}
	}
	m := newMeter(run.Expected)
	beats := newPulse(last, nil)
	before := readCPU(pids)
	f.ear.measure(m)
	err = f.pass(last)
	f.ear.measure(nil)
	end := stamp()
	used := readCPU(pids).since(before)
	late := beats.stop()
	if err != nil {
		return run, err
	}
	m.end(end, g.Interval)
	run.fill(m, used, pids)
	run.Late, run.Lost = spread(late), f.ear.overruns()
	return run, nil
}

// fill puts in what was counted.
func (r *Steady) fill(m *meter, used spent, pids [nodes][]int) {
	for n, node := range []*Node{&r.Master, &r.Backup} {
		node.CPU, node.Processes, node.Memory = used.percent(used.nodes[n]), len(pids[n]), memoryOf(pids[n])
	}
	r.Bench = used.percent(used.bench)
	r.Others = max(used.percent(used.machine-used.bench-used.nodes[0]-used.nodes[1]), 0)
	r.Adverts, r.Foreign, r.Takeovers = m.adverts[0], m.adverts[1], m.takeover
	r.Spacing = spread(m.gaps)
}

// cpu is a reading of run times.
type cpu struct {
	at             time.Time
	nodes          [nodes]usage
	bench, machine time.Duration
}

func readCPU(pids [nodes][]int) cpu {
	c := cpu{at: time.Now(), bench: self(), machine: machineBusy()}
	for n := range nodes {
		c.nodes[n] = usageOf(pids[n])
	}
	return c
}

// spent is the difference of two readings.
type spent struct {
	took           time.Duration
	nodes          [nodes]time.Duration
	bench, machine time.Duration
}

func (c cpu) since(before cpu) spent {
	s := spent{took: c.at.Sub(before.at), bench: c.bench - before.bench, machine: c.machine - before.machine}
	for n := range nodes {
		s.nodes[n] = c.nodes[n].since(before.nodes[n])
	}
	return s
}

// percent is a run time in percent of one core.
func (s spent) percent(d time.Duration) float64 {
	return float64(int(1e5*float64(d)/float64(s.took)+0.5)) / 1e3
}

// userHZ is the unit of /proc/stat.
const userHZ = 100

// machineBusy is how long all cores together were not idle, stolen time included:
// the first line of /proc/stat, in units of 10 ms.
func machineBusy() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var sum int64
	for i, field := range strings.Fields(line) {
		if i == 0 || i == 4 || i == 5 || i > 8 { // its name, idle, iowait; guests are in user
			continue
		}
		n, _ := strconv.ParseInt(field, 10, 64) // 0 is no fault: it is a note
		sum += n
	}
	return time.Duration(sum) * time.Second / userHZ
}
