package script

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Result is what came of one scenario.
type Result struct {
	File      string
	Backend   string // "sim" or "kernel"
	Err       error  // what kept it from being played to its end, or an expectation that was not met
	Skipped   string // why it was not played here; "" if it was
	Denied    bool   // skipped because this system allows no namespaces
	Faults    []Fault
	Simulated time.Duration // on the scenario's clock
	Took      time.Duration
	Late      time.Duration // on the kernel: how late this machine's timers were at worst
	Told      []string      // what was told until Err
	Text      string        // the file with the output that came out below its commands
	Rewrites  bool          // Text may be written into the file: this backend is the measure
	Repeat    string        // the command that plays it again
	Capture   string        // the .pcapng of a failed run, if it was kept
}

// Fault is a piece of output that is not as written.
type Fault struct {
	Line      int // of the block's first command
	Want, Got []string
	Why       string // "" if the difference says it
}

// OK reports whether the scenario was played and came out as written.
func (r *Result) OK() bool { return r.Err == nil && r.Skipped == "" && len(r.Faults) == 0 }

// Report writes out what went wrong, as a difference of lines, and how to repeat
// it; "" if nothing did.
func (r *Result) Report() string {
	if r.OK() || r.Skipped != "" {
		return ""
	}
	var b strings.Builder
	for _, f := range r.Faults {
		fmt.Fprintf(&b, "%s:%d: not as written", r.File, f.Line)
		if f.Why != "" {
			fmt.Fprintf(&b, ": %s", f.Why)
		}
		b.WriteByte('\n')
		for _, line := range diff(f.Want, f.Got) {
			b.WriteString("  " + line + "\n")
		}
	}
	if r.Err != nil {
		for _, line := range r.Told {
			b.WriteString("   " + line + "\n")
		}
		fmt.Fprintf(&b, "%v\n", r.Err)
	}
	if r.Late > tooLate {
		fmt.Fprintf(&b, "this machine was too busy to keep time: it was %v late\n", r.Late.Round(time.Millisecond))
	}
	if r.Capture != "" {
		fmt.Fprintf(&b, "packets: tcpdump -T carp -r %s\n", r.Capture)
	}
	fmt.Fprintf(&b, "repeat: %s\n", r.Repeat)
	return b.String()
}

// player plays one file on one backend.
type player struct {
	f      *File
	b      Backend
	real   bool // times are compared with tolerance, questions repeated
	clock  time.Duration
	calm   bool // nothing was told since the last run began
	output []string
	told   []told
}

// told is an event and the block in which it was seen.
type told struct {
	Event
	block int
}

// play runs the file's blocks and judges their output.
func play(f *File, b Backend, real bool) (r Result) {
	p := &player{f: f, b: b, real: real, calm: true}
	r.File = f.Name
	outputs := make([][]string, len(f.Blocks))
	for i := range f.Blocks {
		p.output = nil
		r.Err = p.block(i)
		outputs[i] = p.output
		if r.Err != nil {
			break
		}
		if want := f.Blocks[i].Want; !real && !slices.Equal(want, p.output) {
			r.Faults = append(r.Faults, Fault{Line: f.Blocks[i].Line, Want: want, Got: p.output})
		}
	}
	r.Simulated = p.clock
	if r.Err != nil {
		for _, t := range p.told {
			r.Told = append(r.Told, f.line(t.Event))
		}
	}
	if real && r.Err == nil {
		outputs[len(outputs)-1], r.Err = p.lastEvents()
	}
	if real && r.Err == nil {
		r.Faults = p.judge(outputs)
	}
	r.Text = f.rewrite(outputs)
	return r
}

// lastEvents waits for what may come a little later than written.
func (p *player) lastEvents() ([]string, error) {
	var late time.Duration
	for _, b := range p.f.Blocks {
		for _, line := range b.Want {
			if e, ok := p.f.parseLine(line); ok {
				late = max(late, e.At+p.slack(e))
			}
		}
	}
	if late > p.clock {
		if err := p.b.Run(late); err != nil {
			return p.output, err
		}
	}
	err := p.tell(len(p.f.Blocks) - 1)
	return p.output, err
}

func (p *player) block(i int) error {
	for _, c := range p.f.Blocks[i].Commands {
		if err := p.command(i, c); err != nil {
			return fmt.Errorf("%s:%d: %s: %w", p.f.Name, c.Line, c.Verb, err)
		}
	}
	return p.tell(i)
}

func (p *player) command(block int, c Command) error {
	switch c.Verb {
	case "run":
		p.calm = true
		p.clock += c.For
		if err := p.b.Run(p.clock); err != nil {
			return err
		}
		return p.tell(block)
	case "expect":
		if err := p.tell(block); err != nil {
			return err
		}
		return p.patiently(c, func() (string, bool, error) { return p.expect(c) })
	case "holders", "answers", "outage", "status", "drops", "mac":
		return p.ask(block, c)
	}
	return p.b.Do(c)
}

// ask appends the answer to a question. What is written below the block says
// what to wait for on the kernel: the answer with the same number.
func (p *player) ask(block int, c Command) error {
	if err := p.tell(block); err != nil {
		return err
	}
	nth := 0
	for _, line := range p.output {
		if _, event := p.f.parseLine(line); !event {
			nth++
		}
	}
	want := ""
	for _, line := range p.f.Blocks[block].Want {
		if _, event := p.f.parseLine(line); !event {
			if nth == 0 {
				want = line
			}
			nth--
		}
	}
	answer := ""
	err := p.patiently(c, func() (said string, ok bool, err error) {
		said, err = p.answer(c)
		answer = said
		return said, c.Verb == "outage" || said == want, err
	})
	var not *unmet
	if err != nil && !errors.As(err, &not) {
		return err
	}
	p.output = append(p.output, answer)
	return nil
}

func (p *player) answer(c Command) (string, error) {
	switch c.Verb {
	case "holders":
		all, err := p.b.Holders()
		return names(all), err
	case "outage":
		d, err := p.b.Outage(c.Names[0])
		p.b.Mark(c.Names[0])
		return seconds(d), err
	}
	return p.b.Ask(c)
}

// unmet is an expectation that was not met.
type unmet struct{ want, got string }

func (u *unmet) Error() string { return fmt.Sprintf("want %s, got %s", u.want, u.got) }

// patiently asks once, or on the kernel until the answer is right or the tolerance
// is over.
func (p *player) patiently(c Command, try func() (got string, ok bool, err error)) error {
	var deadline <-chan time.Time
	if p.real && c.Word != "quiet" {
		timer := time.NewTimer(p.f.Tolerance)
		defer timer.Stop()
		deadline = timer.C
	} else {
		closed := make(chan time.Time)
		close(closed)
		deadline = closed
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		got, ok, err := try()
		if err != nil || ok {
			return err
		}
		select {
		case <-deadline:
			return &unmet{expected(c), got}
		case <-tick.C:
		}
	}
}

// expected is what an expectation says, as it was written.
func expected(c Command) string {
	s := c.Word
	if len(c.Names) > 0 {
		s += " " + strings.Join(c.Names, " ")
	}
	if c.For > 0 {
		s += " < " + c.For.String()
	}
	return s
}

func (p *player) expect(c Command) (got string, ok bool, err error) {
	switch c.Word {
	case "holders", "one":
		all, err := p.b.Holders()
		got = names(all)
		if c.Word == "one" {
			return got, len(all) == 1, err
		}
		sorted := slices.Sorted(slices.Values(all))
		return got, names(sorted) == strings.Join(c.Names, " "), err
	case "state":
		got, err = p.b.State(c.Names[0])
		return got, strings.EqualFold(got, c.Names[1]), err
	case "answers":
		got, err = p.b.Ask(Command{Line: c.Line, Verb: "answers", Names: c.Names[:1]})
		return got, got == c.Names[1], err
	case "outage":
		d, err := p.b.Outage(c.Names[0])
		return seconds(d), d < c.For, err
	case "overlap":
		d := p.b.Overlap()
		return seconds(d), d < c.For, nil
	}
	if p.calm {
		return "", true, nil
	}
	return "a change", false, nil
}

// tell appends what happened to the output.
func (p *player) tell(block int) error {
	events, err := p.b.Events()
	for _, e := range events {
		p.calm = false
		p.output = append(p.output, p.f.line(e))
		p.told = append(p.told, told{e, block})
	}
	return err
}
