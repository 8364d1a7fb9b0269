package bench

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const second = int64(time.Second)

func TestSpreadTakesTheSmallestValueThatCoversItsShare(t *testing.T) {
	var values []time.Duration
	for i := 200; i > 0; i-- {
		values = append(values, time.Duration(i)*time.Millisecond)
	}
	if got, want := spread(values), (Spread{200, 1, 100, 198, 200}); got != want {
		t.Errorf("1 to 200 ms: %+v, want %+v", got, want)
	}
	if got, want := spread([]time.Duration{7 * time.Millisecond}), (Spread{1, 7, 7, 7, 7}); got != want {
		t.Errorf("one value: %+v, want %+v", got, want)
	}
	if got := spread(nil); got != (Spread{}) {
		t.Errorf("no value: %+v", got)
	}
}

func TestBothHoldCountsOnlyWhileBothHaveTheAddress(t *testing.T) {
	const never = 1 << 62
	for name, c := range map[string]struct {
		changes  []holding
		from, to int64
		gone     int64
		want     time.Duration
		still    bool
	}{
		"nobody":                   {nil, 0, 10, never, 0, false},
		"one after the other":      {[]holding{{1, 0, true}, {4, 0, false}, {5, 1, true}}, 2, 10, never, 0, false},
		"overlap":                  {[]holding{{1, 0, true}, {4, 1, true}, {7, 0, false}}, 2, 10, never, 3, false},
		"to the end":               {[]holding{{1, 0, true}, {4, 1, true}}, 2, 10, never, 6, true},
		"overlap before the fault": {[]holding{{1, 0, true}, {2, 1, true}, {5, 1, false}}, 3, 10, never, 2, false},
		"twice":                    {[]holding{{1, 0, true}, {2, 1, true}, {3, 0, false}, {6, 0, true}, {8, 1, false}}, 0, 10, never, 3, false},
		"cable pulled":             {[]holding{{1, 0, true}, {4, 1, true}}, 2, 10, 2, 0, false},
		"cable pulled meanwhile":   {[]holding{{1, 0, true}, {4, 1, true}}, 2, 10, 5, 1, false},
	} {
		if sum, still := together(c.changes, c.from, c.to, c.gone); sum != c.want || still != c.still {
			t.Errorf("%s: %d, still %v; want %d, %v", name, sum, still, c.want, c.still)
		}
	}
}

func TestBothAnsweredCountsQuestionsThatBothAnswer(t *testing.T) {
	reply := func(at time.Duration, node int) sound {
		return sound{at: int64(at), kind: answer, from: VIP(1).As4(), mac: nodeMAC(node)}
	}
	const ms = time.Millisecond
	sounds := []sound{
		reply(1*ms, 0), reply(1*ms, 1), // before the fault
		reply(20*ms, 0), reply(21*ms, 1),
		reply(40*ms, 1), reply(40*ms, 0),
		reply(60*ms, 1), reply(80*ms, 0), // to different questions
		{at: int64(80 * ms), kind: answer, from: VIP(2).As4(), mac: nodeMAC(1)},
	}
	if got := bothAnswered(sounds, VIP(1), int64(10*ms)); got != 2*askEvery {
		t.Errorf("%v, want two questions' worth, %v", got, 2*askEvery)
	}
}

func TestTakeoverIsReadFromTheLastAdvertOfTheOldToTheFirstOfTheNew(t *testing.T) {
	ad := func(at int64, node int, id uint8) sound {
		return sound{at: at * 1e6, kind: advert, from: nodeAddr(node).As4(), id: id}
	}
	garp := func(at int64, node int) sound {
		return sound{at: at * 1e6, kind: announcement, from: VIP(1).As4(), mac: nodeMAC(node)}
	}
	var r Takeover
	r.tell([]sound{
		garp(-900, 1), ad(-900, 1, 1), // the other one was master for a moment at the start
		ad(10, 0, 1), garp(12, 0), ad(20, 0, 1), // the fault at 25
		ad(26, 0, 1), // a farewell
		ad(40, 1, 2), // of another instance
		ad(62, 1, 1), ad(72, 1, 1), garp(63, 0), garp(64, 1), ad(80, 0, 1),
	}, 25e6, 10*time.Millisecond)
	if want := (Takeover{Silence: 36, Announced: 39}); r != want {
		t.Errorf("%+v, want %+v", r, want)
	}
	r = Takeover{}
	r.tell([]sound{ad(10, 0, 1), ad(50, 1, 1)}, 12e6, 10*time.Millisecond)
	if r.Error == "" {
		t.Error("an address that was never announced passed as a takeover")
	}
	r = Takeover{}
	r.tell([]sound{ad(10, 0, 1), ad(15, 1, 1), ad(16, 0, 1), ad(60, 1, 1), garp(60, 1)}, 20e6, 10*time.Millisecond)
	if r.Error != disturbed {
		t.Errorf("the backup had taken over before the fault: %+v", r)
	}
}

func TestOutageIsTheLongestTimeWithoutAnAnswer(t *testing.T) {
	answers := []int64{1, 2, 3, 9, 10, 11, 15}
	for _, c := range []struct {
		from, to int64
		want     time.Duration
	}{{0, 15, 6}, {5, 15, 4}, {10, 15, 4}, {0, 40, 25}, {20, 30, 10}, {9, 11, 1}} {
		if got, _ := longest(answers, c.from, c.to); got != c.want {
			t.Errorf("from %d to %d: %d, want %d", c.from, c.to, got, c.want)
		}
	}
	if gap, began := longest(nil, 3, 9); gap != 6 || began != 3 {
		t.Errorf("without an answer from 3 to 9: %d from %d on", gap, began)
	}
	if _, began := longest(answers, 0, 15); began != 3 {
		t.Errorf("the outage began at %d, want 3, the last answer", began)
	}
}

func TestMeterCountsSpacingsOfEachInstanceAndTakeoversOfTheBackup(t *testing.T) {
	m := newMeter(10)
	hear := func(at int64, node int, id uint8) {
		m.take(node, sound{at: at, kind: advert, id: id})
	}
	hear(0*second+1, 0, 1)
	hear(0*second+2, 0, 2)
	hear(1*second+1, 0, 1)
	hear(1*second+5, 0, 2)
	hear(2*second, 1, 2) // a false takeover,
	hear(3*second, 1, 2) // which goes on
	hear(3*second+1, 0, 2)
	hear(4*second, 1, 2) // and a second one
	hear(4*second, 0, 1)
	m.end(9*second, time.Second)
	if m.takeover != 2 || m.adverts != [nodes]int{6, 3} {
		t.Errorf("%d takeovers of %v adverts, want 2 of [6 3]", m.takeover, m.adverts)
	}
	got := spread(m.gaps)
	// The gaps are 1, 3 and, to the end, 5 s of one; 1, 2 and 6 s of the other.
	if got.Count != 6 || got.Min != 1000 || got.Max != 6000 {
		t.Errorf("spacings %+v, want 6 of them from 1 to 6 s", got)
	}
}

func TestFramesAreReadAsFarAsTheyGo(t *testing.T) {
	ethernet := func(kind string, body []byte) []byte {
		return append([]byte("\x01\x00\x5e\x00\x00\x12\x02\x00\x00\x00\x00\x01"+kind), body...)
	}
	vrrp := ethernet("\x08\x00", []byte("\x45\xc0\x00\x20\x00\x01\x00\x00\xff\x70\x00\x00\x0a\x09\x00\x01\xe0\x00\x00\x12\x31\x33\x96\x01\x00\x01\x00\x00\x0a\x09\x01\x33"))
	garp := ethernet("\x08\x06", []byte("\x00\x01\x08\x00\x06\x04\x00\x01\x02\x00\x00\x00\x00\x02\x0a\x09\x01\x01\xff\xff\xff\xff\xff\xff\x0a\x09\x01\x01"))
	if s, ok := parse(vrrp); !ok || s.kind != advert || s.id != 0x33 || s.weight != 0x96 || s.from != nodeAddr(0).As4() || s.mac != nodeMAC(0) {
		t.Errorf("an advert: %+v, %v", s, ok)
	}
	if s, ok := parse(garp); !ok || s.kind != announcement || s.from != VIP(1).As4() || s.mac != nodeMAC(1) {
		t.Errorf("a gratuitous ARP: %+v, %v", s, ok)
	}
	for _, frame := range [][]byte{vrrp, garp} {
		for n := range frame {
			parse(frame[:n]) // is not to panic
		}
	}
	long := append([]byte(nil), vrrp...)
	long[14] = 0x4f // options up to beyond the end
	if _, ok := parse(long); ok {
		t.Error("an advert without its first bytes was read")
	}
}

func TestPlansThatCannotBeMeasuredAreRefused(t *testing.T) {
	good := func() Plan {
		return Plan{Speakers: []Speaker{{Name: "x"}}, Faults: Faults(), Intervals: []time.Duration{MinInterval, time.Second},
			Runs: func(time.Duration) int { return 1 }, Instances: []int{1, 255}}
	}
	if p := good(); p.check() != nil {
		t.Fatal(p.check())
	}
	for name, change := range map[string]func(*Plan){
		"no speaker":      func(p *Plan) { p.Speakers = nil },
		"one twice":       func(p *Plan) { p.Speakers = []Speaker{{Name: "x"}, {Name: "x"}} },
		"no runs":         func(p *Plan) { p.Runs = nil },
		"no watch":        func(p *Plan) { p.CostIntervals = []time.Duration{time.Second} },
		"too fast":        func(p *Plan) { p.Intervals = []time.Duration{time.Millisecond} },
		"between units":   func(p *Plan) { p.CostIntervals = []time.Duration{15 * time.Millisecond} },
		"no instance":     func(p *Plan) { p.Instances = []int{0} },
		"too many":        func(p *Plan) { p.Instances = []int{256} },
		"unknown fault":   func(p *Plan) { p.Faults = []Fault{"fire"} },
		"too busy":        func(p *Plan) { p.Busy = MaxBusy + 1 },
		"a load below 0":  func(p *Plan) { p.Busy = -1 },
		"slower than is ": func(p *Plan) { p.Intervals = []time.Duration{41 * time.Second} },
	} {
		p := good()
		change(&p)
		if _, err := Measure(t.Context(), p); err == nil || !strings.Contains(err.Error(), ErrPlan.Error()) {
			t.Errorf("%s: %v, want %v", name, err, ErrPlan)
		}
	}
}

func TestTheoryFollowsTheProtocols(t *testing.T) {
	for name, c := range map[string]struct{ got, want time.Duration }{
		"VRRP, 1 s":    {vrrpSilence(time.Second), 3609375 * time.Microsecond},
		"VRRP, 10 ms":  {vrrpSilence(10 * time.Millisecond), 36093750},
		"VRRP, bye":    {vrrpSkew(10 * time.Millisecond), 6093750},
		"CARP, 1 s":    {carpSilence(time.Second), 3390625 * time.Microsecond},
		"ucarp, 1 s":   {ucarpSilence(time.Second), 4171875 * time.Microsecond},
		"no goodbye":   {Speaker{Farewell: none}.theory(Stop, time.Second), -time.Millisecond},
		"killed":       {Speaker{Silence: vrrpSilence}.theory(Kill, time.Second), vrrpSilence(time.Second)},
		"crashed":      {Speaker{Silence: vrrpSilence, Farewell: vrrpSkew, Relieved: true}.theory(Crash, time.Second), vrrpSkew(time.Second)},
		"frozen":       {Speaker{Silence: vrrpSilence}.theory(Freeze, time.Second), vrrpSilence(time.Second)},
		"cable pulled": {Speaker{Silence: vrrpSilence}.theory(Unplug, time.Second), vrrpSilence(time.Second)},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
}

func TestCostIsReadFromProc(t *testing.T) {
	before := usage{"a": 10, "gone": 5}
	if got := (usage{"a": 30, "new": 7}).since(before); got != 27 {
		t.Errorf("run time %d, want 20 of the old thread and 7 of the new one", got)
	}
	mine := []int{os.Getpid()}
	first := usageOf(mine)
	for until := time.Now().Add(30 * time.Millisecond); time.Now().Before(until); {
	}
	if ran := usageOf(mine).since(first); ran < 5*time.Millisecond || ran > 10*time.Second {
		t.Errorf("30 ms of work on one core are %v", ran)
	}
	if m := memoryOf(mine); m.RSS < 1 || m.PSS <= 0 || m.PSS > m.RSS {
		t.Errorf("this process has %+v MiB", m)
	}
	if machineBusy() <= 0 {
		t.Error("the machine was never busy")
	}
}

// report is one of each kind, with odd figures.
func report() *Report {
	r := &Report{
		Machine: Machine{2, "6.1", "go1.26"}, Seed: 7, Busy: 2, Took: time.Minute,
		Speakers: []Named{{"ours", "carpd 1"}, {"other", "other 2"}},
		Failovers: []Failover{
			{Speaker: "ours", Fault: Kill, Interval: 10 * time.Millisecond, Theory: 36.094, Runs: []Takeover{
				{Silence: 36.1, Announced: 30, Outage: 31, Late: 0.1, Watched: 600},
				{Silence: 36.4, Announced: 33, Outage: 34, Late: 0.2, Watched: 600},
				{Error: "timed out"},
			}},
			{Speaker: "other", Fault: Kill, Interval: 10 * time.Millisecond, Theory: 36.094, Runs: []Takeover{
				{Silence: 37, Announced: 30, Outage: 500, OutageOpen: true, BothHold: 520, HoldOpen: true, BothAnswered: 500, Late: 0.1},
			}},
			{Speaker: "other", Fault: Stop, Interval: time.Second, Theory: -1, Runs: []Takeover{{Silence: 4200, Announced: 4000, Outage: 4000}}},
		},
		Costs: []Cost{
			{"ours", 10 * time.Millisecond, 255, Steady{
				Seconds: 60, Master: Node{CPU: 8.25, Processes: 1, Memory: Memory{20, 15}}, Backup: Node{CPU: 3, Processes: 1},
				Spacing: Spread{9, 9.9, 10, 10.5, 12}, Adverts: 1_529_000, Expected: 1_530_000, Bench: 4, Late: Spread{9, 0, 0.02, 0.1, 3},
			}},
			{"other", 10 * time.Millisecond, 255, Steady{Seconds: 60, Error: "timed out"}},
		},
	}
	for i := range r.Failovers {
		r.Failovers[i].sum()
	}
	return r
}

func TestTableIsAsWritten(t *testing.T) {
	const name = "testdata/table.txt"
	got := report().Table()
	if os.Getenv("CARPD_REWRITE") != "" {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s(CARPD_REWRITE=1 writes it)", got, want)
	}
}

func TestReportCountsWhatGaveNoFigures(t *testing.T) {
	r := report()
	if r.Failed() != 2 {
		t.Errorf("%d, want the run and the cost that failed", r.Failed())
	}
	var b strings.Builder
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil {
		t.Fatal(err)
	}
	if back.Failovers[0].Silence != r.Failovers[0].Silence || back.Costs[0].Master.CPU != 8.25 || back.Costs[0].Master.RSS != 20 {
		t.Errorf("JSON does not hold what was written:\n%s", b.String())
	}
}
