package script

import (
	"strings"
	"testing"
	"time"
)

// canned is a backend that has no time: its events and answers are given.
type canned struct {
	events  []Event
	holders []string
	now     time.Duration
}

func (c *canned) Do(Command) error                     { return nil }
func (c *canned) Run(to time.Duration) error           { c.now = to; return nil }
func (c *canned) Ask(Command) (string, error)          { return "c refused nothing", nil }
func (c *canned) Holders() ([]string, error)           { return c.holders, nil }
func (c *canned) State(string) (string, error)         { return "MASTER", nil }
func (c *canned) Outage(string) (time.Duration, error) { return 1200 * time.Millisecond, nil }
func (c *canned) Mark(string)                          {}
func (c *canned) Overlap() time.Duration               { return 0 }

func (c *canned) Events() (past []Event, _ error) {
	for len(c.events) > 0 && c.events[0].At <= c.now {
		past = append(past, c.events[0])
		c.events = c.events[1:]
	}
	return past, nil
}

const written = `tolerance 50ms
show addresses
node a
node b
client c
start
run 5s
holders
outage c
----
  1.000  a INIT -> BACKUP (link-up)
  1.000                                b INIT -> BACKUP (link-up)
  3.000  a address off (lifetime over)
  4.980  a BACKUP -> MASTER (bow-out)
a
1.180s
`

// TestOnTheKernelOrderAndReasonsCountAndTimesWithTolerance plays canned events
// against what is written.
func TestOnTheKernelOrderAndReasonsCountAndTimesWithTolerance(t *testing.T) {
	good := func() []Event {
		ms := time.Millisecond
		return []Event{
			{1010 * ms, "b", "INIT -> BACKUP (link-up)"}, {1049 * ms, "a", "INIT -> BACKUP (link-up)"},
			{4100 * ms, "a", "address off"}, {5020 * ms, "a", "BACKUP -> MASTER (bow-out)"}, // after the run's end
		}
	}
	for name, tc := range map[string]struct {
		change func([]Event) []Event
		holder string
		loose  bool
		want   string // in the report; "": it passes
	}{
		"as written":     {func(e []Event) []Event { return e }, "a", false, ""},
		"too late":       {func(e []Event) []Event { e[1].At += time.Millisecond * 2; return e }, "a", false, "of a, number 1 is 51ms off; 50ms is tolerated"},
		"too early":      {func(e []Event) []Event { e[0].At = 900 * time.Millisecond; return e }, "a", false, "of b, number 1 is -100ms off"},
		"another reason": {func(e []Event) []Event { e[0].Text = "INIT -> BACKUP (operator)"; return e }, "a", false, "of b, number 1 is another one"},
		"one missing":    {func(e []Event) []Event { return e[:3] }, "a", false, "4.980  a BACKUP -> MASTER (bow-out) never came"},
		"one more": {func(e []Event) []Event {
			return append(e, Event{5030 * time.Millisecond, "b", "BACKUP -> INIT (link-down)"})
		}, "a", false, "nothing more is written of b"},
		"lease very late": {func(e []Event) []Event { e[2].At += 60 * time.Millisecond; return e }, "a", false, "of a, number 1 is 1.16s off"},
		"other holder":    {func(e []Event) []Event { return e }, "b", false, "+b"},
		"loose":           {func([]Event) []Event { return nil }, "a", true, ""},
		"loose, wrong":    {func([]Event) []Event { return nil }, "b", true, "+b"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Parse("f.txt", written)
			if err != nil {
				t.Fatal(err)
			}
			f.Loose = tc.loose
			r := play(f, &canned{events: tc.change(good()), holders: []string{tc.holder}}, true)
			if got := r.Report(); r.OK() != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("want %q in:\n%s", tc.want, got)
			}
		})
	}
}

func TestDiffKeepsWhatIsCommon(t *testing.T) {
	got := strings.Join(diff([]string{"a", "b", "c"}, []string{"b", "x", "c", "d"}), "|")
	if got != "-a| b|+x| c|+d" {
		t.Error(got)
	}
}
