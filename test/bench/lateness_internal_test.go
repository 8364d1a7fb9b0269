package bench

import (
	"strings"
	"testing"
	"time"
)

func TestLatenessTableHasAColumnASpeaker(t *testing.T) {
	late := func(speaker string, load Load, takeovers int, err string) Lateness {
		return Lateness{Speaker: speaker, Load: load, Interval: 10 * time.Millisecond, Instances: 255, Takeovers: takeovers, Error: err,
			Late: Spread{Count: 9, Min: -1, Median: 0.25, P99: 1, Max: 30.5}}
	}
	r := LatenessReport{
		Machine: Machine{2, "6.1", "go1.26"}, Speakers: []Named{{"a", "a 1"}, {"b", "b 2"}}, Watch: 5 * time.Second, Took: time.Minute,
		Rows: []Lateness{late("a", Idle, 0, ""), late("b", Idle, 7, ""), late("a", Busy, 0, "timed out")},
	}
	want := `2 CPUs, Linux 6.1, go1.26, 5s each, 1m0s in all. a: a 1. b: b 2.

| load | instances, interval | a | b |
|---|---|---|---|
| idle | 255, 10ms | 0.25 / 1.00 / 30.50 | 0.25 / 1.00 / 30.50 (7 false takeovers) |
| busy | 255, 10ms | failed | - |
`
	if got := r.Table(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if r.Failed() != 1 {
		t.Errorf("%d failed", r.Failed())
	}
}

func TestLatenessPlansThatCannotBeAreRefused(t *testing.T) {
	for name, change := range map[string]func(*LatenessPlan){
		"no speaker":    func(p *LatenessPlan) { p.Speakers = nil },
		"unknown load":  func(p *LatenessPlan) { p.Loads = []Load{"fire"} },
		"too short":     func(p *LatenessPlan) { p.Watch = time.Millisecond },
		"too long":      func(p *LatenessPlan) { p.Watch = time.Hour },
		"too fast":      func(p *LatenessPlan) { p.Intervals = []time.Duration{time.Millisecond} },
		"too many of a": func(p *LatenessPlan) { p.Instances = []int{256} },
	} {
		p := LatenessPlan{Speakers: []Speaker{{Name: "x"}}, Loads: Loads(), Intervals: []time.Duration{time.Second}, Instances: []int{1}, Watch: time.Second}
		if err := p.check(); err != nil {
			t.Fatal(err)
		}
		change(&p)
		if _, err := MeasureLateness(t.Context(), p); err == nil || !strings.Contains(err.Error(), ErrPlan.Error()) {
			t.Errorf("%s: %v, want %v", name, err, ErrPlan)
		}
	}
}

func TestEachLoadSpinsOnEveryCore(t *testing.T) {
	for l, want := range map[Load]string{Idle: "", Busy: "/bin/sh", Greedy: "nice -n -20 /bin/sh", RealTime: "chrt -r 1 /bin/sh"} {
		all := l.commands(3)
		if l == Idle {
			if len(all) > 0 {
				t.Errorf("idle is %d processes", len(all))
			}
			continue
		}
		if len(all) != 3 || !strings.HasPrefix(strings.Join(all[0].Args, " "), want) {
			t.Errorf("%s: %d processes, the first is %q", l, len(all), all[0].Args)
		}
	}
}
