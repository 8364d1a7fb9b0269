package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/test/bench"
	"github.com/carpd/carpd/test/safety"
)

func TestBenchRefusesWhatCannotBeMeasured(t *testing.T) {
	for args, want := range map[string]string{
		"bench":                            "bench what?",
		"bench failover extra":             "unknown command",
		"bench failover --speakers nobody": "unknown speaker",
		"bench failover --speakers ours --carpd /no/x":         "--carpd",
		"bench failover --speakers ucarp --runs 0":             "--runs 0",
		"bench failover --runs 1001":                           "--runs 1001",
		"bench failover --seconds 0":                           "--seconds 0",
		"bench failover --seconds 151":                         "--seconds 151",
		"bench failover --busy -1 --carpd /bin/true":           "a load of -1",
		"bench failover --faults fire --carpd /bin/true":       "fault \"fire\"",
		"bench failover --intervals 1ms --carpd /bin/true":     "interval 1ms",
		"bench lateness extra":                                 "unknown command",
		"bench lateness --speakers nobody":                     "unknown speaker",
		"bench lateness --loads fire --carpd /bin/true":        "load \"fire\"",
		"bench lateness --seconds 0 --carpd /bin/true":         "a watch of 0s",
		"bench lateness --seconds 151 --carpd /bin/true":       "a watch of 2m31s",
		"bench lateness --intervals 1ms --carpd /bin/true":     "interval 1ms",
		"bench safety extra":                                   "unknown command",
		"bench addresses extra":                                "unknown command",
		"bench addresses --speakers nobody":                    "unknown speaker",
		"bench addresses --runs 0 --carpd /bin/true":           "0 runs",
		"bench addresses --counts 10000 --carpd /bin/true":     "10000 addresses",
		"bench safety --daemons nobody":                        "unknown daemon",
		"bench safety --daemons carpd-2ms":                     "unknown daemon",
		"bench safety --daemons carpd --carpd /no/x":           "--carpd",
		"bench safety --rows fire --carpd /bin/true":           "row \"fire\"",
		"bench safety --rows kill,kill --carpd /bin/true":      "kill is named twice",
		"bench safety --daemons carpd,carpd --carpd /bin/true": "carpd is named twice",
		"bench safety --runs 0 --carpd /bin/true":              "0 runs",
		"bench safety --runs 1001 --carpd /bin/true":           "1001 runs",
		"bench safety --parallel 33 --carpd /bin/true":         "33 at the same time",
	} {
		code, _, stderr := carplab(strings.Fields(args)...)
		if strings.Contains(stderr, "not installed") {
			t.Logf("%s: %s", args, stderr)
			continue
		}
		if code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("carplab %s: exit code %d, %q; want %d and %q", args, code, stderr, exitUsage, want)
		}
	}
}

// given says which flags a command line has.
func given(flags ...string) func(string) bool {
	return func(flag string) bool { return strings.Contains(strings.Join(flags, " "), flag) }
}

func TestQuickKeepsWhatWasSaid(t *testing.T) {
	f := benchFlags{intervals: []time.Duration{time.Second}, instances: []int{1, 100, 255}, seconds: 60}
	f.shorten(given("intervals"))
	if f.intervals[0] != time.Second || f.runs != 5 || f.seconds != 5 || len(f.instances) != 2 {
		t.Errorf("after --quick --intervals 1s: %+v", f)
	}
}

func TestOnlyTheMostDemandingGroupIsWatchedForLong(t *testing.T) {
	f := benchFlags{seconds: 60, instances: []int{1, 255}, costIntervals: []time.Duration{10 * time.Millisecond, time.Second}}
	for _, c := range []struct {
		interval  time.Duration
		instances int
		want      time.Duration
	}{
		{10 * time.Millisecond, 255, time.Minute},
		{10 * time.Millisecond, 1, 5 * time.Second},
		{time.Second, 255, 5 * time.Second},
	} {
		if got := f.watched(bench.Group{Interval: c.interval, Instances: c.instances}); got != c.want {
			t.Errorf("%d at %v: %v, want %v", c.instances, c.interval, got, c.want)
		}
	}
}

func TestBenchMeasuresKeepalivedAndWritesJSON(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	out := filepath.Join(t.TempDir(), "bench.json")
	code, stdout, stderr := carplab("bench", "failover", "--speakers", "keepalived", "--faults", "stop", "--intervals", "50ms", "--runs", "1",
		"--no-costs", "--json", out, "--verbose")
	if code == exitSkipped || strings.Contains(stderr, "not installed") {
		t.Skip(stderr)
	}
	if code != exitPassed || !strings.Contains(stdout, "stop, 50ms") || !strings.Contains(stderr, "stop, 50ms, run 1, keepalived: silence") {
		t.Fatalf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var r bench.Report
	if err := json.Unmarshal(text, &r); err != nil || len(r.Failovers) != 1 || len(r.Failovers[0].Runs) != 1 {
		t.Errorf("%v in\n%s", err, text)
	}
}

func TestBenchSafetyWritesItsTableIntoAPage(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	dir := t.TempDir()
	out, page := filepath.Join(dir, "safety.json"), filepath.Join(dir, "page.md")
	if err := os.WriteFile(page, []byte("# Page\n\n"+safety.Marked("what was there")+"\nThe end.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := carplab("bench", "safety", "--daemons", "keepalived-100ms", "--rows", "kill", "--runs", "1",
		"--json", out, "--update", page, "--verbose")
	if code == exitSkipped || strings.Contains(stderr, "is left out") {
		t.Skip(stderr)
	}
	if code != exitPassed || !strings.Contains(stdout, "| kill -9 | keepalived, VRRP, 100ms | 1 |") || !strings.Contains(stderr, "kill, run 1, 2 nodes, keepalived-100ms: two ") {
		t.Fatalf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	text, err := os.ReadFile(page)
	if err != nil || !strings.Contains(string(text), stdout) || strings.Contains(string(text), "what was there") || !strings.HasSuffix(string(text), "\nThe end.\n") {
		t.Errorf("%v in\n%s", err, text)
	}
	var r safety.Report
	if text, err = os.ReadFile(out); err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil || len(r.Runs) != 1 || r.Runs[0].Two == 0 {
		t.Errorf("%v in\n%s", err, text)
	}
}
