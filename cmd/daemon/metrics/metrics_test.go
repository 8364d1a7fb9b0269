package metrics

import (
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"

	"github.com/carpd/carpd/cmd/daemon/api"
)

var update = flag.Bool("update", false, "write the expected output of testdata anew")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// full is a status in which everything is that can be.
func full() api.Status {
	seen := noon.Add(-time.Second)
	return api.Status{
		Node: "left", Version: "0.1.0", RealTime: true, Log: &api.LogStatus{Dropped: 2},
		Config:   &api.ConfigStatus{File: "/etc/carpd/carpd.yaml", Loaded: noon.Add(-time.Hour)},
		Guardian: &api.Guardian{PID: 7, Restarts: 1},
		Alarms:   []api.Alarm{{Name: "reload", Text: "the reload was refused"}},
		Instances: []api.Instance{{
			Name: "9@eth0", Protocol: "carp", VHID: 9, Interface: "eth0", State: "MASTER", Since: noon.Add(-time.Minute), Epoch: 42,
			EffectiveAdvSkew: 100, Demotion: 50, PermitMS: 2250, Health: "degraded",
			Addresses: []api.Address{{Prefix: "192.0.2.50/24", Present: true}, {Prefix: "192.0.2.51/24"}},
			Counters:  api.Counters{Received: 10, Sent: 20, SendErrors: 1, Transitions: 3, Restored: 4, Lapses: 5},
			Drops:     map[string]uint64{"hash": 6},
			Seal:      &api.Seal{Replay: "sealed"}, Members: []api.Member{{NodeID: 2}, {NodeID: 3, Gone: true}},
			Master: &api.Master{Address: "192.0.2.2", LastHeardMS: 1500},
			Alarms: []api.Alarm{{Name: "bad-hash"}},
			Hooks: []api.Hook{
				{Name: "notify", Kind: "exec", Phase: "after-up", State: "ok", Runs: 3, Failures: 1, LastMS: 250},
				{Name: "db", Kind: "mysql", Phase: "resource", State: "ok", Seen: &seen, Health: "unfit", Role: "demoted"},
				{Name: "web", Kind: "http", Phase: "monitor", State: "idle", Seen: &seen, Health: "ok", Blind: "no route"},
			},
		}, {
			Name: "10@eth0", Protocol: "vrrp3", VHID: 10, Interface: "eth0", State: "BACKUP", EffectivePriority: 150,
		}},
		Replication: []api.Replication{{
			Name: "proxy", Instance: "9@eth0", Kind: "proxysql", Role: "master", AgeMS: 1500, LastSuccess: &seen,
			Newest: &api.Snapshot{Time: seen, Size: 225280}, Snapshots: 7, Bytes: 1576960, Quarantined: 1,
			Taken: 9, Refused: 2, Failed: 3, Verified: 4, Pruned: 5,
			Peers: []api.ReplicationPeer{{Name: "right", State: "behind", LagMS: 250, Failures: 2, LastSuccess: &seen, Shipped: 8, Bytes: 4096}},
		}, {
			Name: "app", Instance: "10@eth0", Kind: "sqlite", Role: "standby", Waiting: 1,
			Peers: []api.ReplicationPeer{{Name: "right", State: "idle", Shipped: 1, Bytes: 2}},
		}},
		Groups: []api.Group{{Name: "lan", State: "down", Hooks: []api.Hook{
			{Name: "disk", Kind: "drbd", Phase: "resource", State: "running", Seen: &seen, Health: "ok", Role: "promoted"},
		}}},
	}
}

func gathered(t *testing.T, st api.Status) string {
	t.Helper()
	r := prometheus.NewPedanticRegistry() // finds what is described and not collected as such
	if err := r.Register(NewCollector(func() api.Status { return st })); err != nil {
		t.Fatal(err)
	}
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range all {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestEachPartOfTheStatusIsAMetric(t *testing.T) {
	const golden = "testdata/full.txt"
	got := gathered(t, full())
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, name := range Names() {
		if !strings.Contains(got, "\n"+name+" ") && !strings.Contains(got, "\n"+name+"{") {
			t.Errorf("%s is announced, and no status makes it", name)
		}
	}
}

func TestMetricsAreNamedAsPrometheusAsks(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(gathered(t, full()))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestEveryMetricIsInTheManual(t *testing.T) {
	text, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families() {
		row := "| `" + f.name + "` |"
		if len(f.labels) > 0 {
			row = "| `" + f.name + "{" + strings.Join(f.labels, ",") + "}` |"
		}
		if !strings.Contains(string(text), row) {
			t.Errorf("docs/metrics.md has no row %s", row)
		}
	}
}

func TestARoleThatIsNotTheStatesIsAMismatch(t *testing.T) {
	for _, tc := range []struct {
		state, role string
		want        bool
	}{
		{"MASTER", "promoted", false}, {"MASTER", "demoted", true}, {"MASTER", "unknown", true},
		{"BACKUP", "demoted", false}, {"BACKUP", "promoted", true}, {"BACKUP", "unknown", false},
		{"INIT", "demoted", false}, {"INIT", "promoted", true},
		{"RELEASING", "promoted", false}, {"RELEASING", "demoted", false},
	} {
		if got := mismatch(wish(tc.state), tc.role); got != tc.want {
			t.Errorf("%s and %s: %v", tc.state, tc.role, got)
		}
	}
	for state, want := range map[string]bool{"down": true, "waiting": true, "up": false, "promote": false, "demote": false} {
		if got := mismatch(wishOfGroup(state), "promoted"); got != want {
			t.Errorf("a group that is %s, and promoted: %v", state, got)
		}
	}
}

func TestMetricsAreServedAndNothingElse(t *testing.T) {
	s := httptest.NewServer(Handler(full))
	defer s.Close()
	get := func(path string) (int, string) {
		answer, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
	code, text := get("/metrics")
	if code != http.StatusOK {
		t.Fatal(code, text)
	}
	for _, line := range []string{`carpd_state{name="9@eth0",state="MASTER"} 1`, "go_goroutines ", "process_open_fds "} {
		if !slices.ContainsFunc(strings.Split(text, "\n"), func(l string) bool { return strings.HasPrefix(l, line) }) {
			t.Errorf("%q is not among the metrics", line)
		}
	}
	for _, path := range []string{"/", "/debug/pprof/", "/v1/status"} {
		if code, _ := get(path); code != http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
}
