package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/cmd/daemon/config"
	"github.com/carpd/carpd/hooks"
	_ "github.com/carpd/carpd/hooks/exec"
)

func TestSinkNeverWaitsForItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe() // nobody reads
		s := newSink(w)
		log, err := newLogger(s, "json")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for n := range 3 * sinkLines {
			log.Info("line", "n", n)
		}
		if time.Since(start) != 0 {
			t.Errorf("it took %v", time.Since(start))
		}
		if n := s.dropped.Load(); n < sinkLines {
			t.Errorf("only %d lines were dropped", n)
		}
		s.close()
		if took := time.Since(start); took != sinkFlush {
			t.Errorf("closing a dead sink took %v", took)
		}
		r.Close() // lets the writer end
		synctest.Wait()
	})
}

func TestSinkSaysHowMuchItDropped(t *testing.T) {
	r, w := io.Pipe()
	s := newSink(w)
	for n := range 2 * sinkLines {
		fmt.Fprintf(s, "line %d\n", n)
	}
	var got strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(got.String(), "were dropped") {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got.Write(buf[:n])
	}
	s.close()
}

func TestLogFormats(t *testing.T) {
	for _, format := range []string{"console", "json"} {
		var out bytes.Buffer
		s := newSink(&out)
		log, err := newLogger(s, format)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("9@eth0: BACKUP -> MASTER", "epoch", 7)
		log.Debug("not shown")
		s.close()
		if line := out.String(); !strings.Contains(line, "BACKUP -> MASTER") || strings.Count(line, "\n") != 1 {
			t.Errorf("%s: %q", format, line)
		}
		var fields map[string]any
		if format == "json" && json.Unmarshal(out.Bytes(), &fields) != nil {
			t.Errorf("not JSON: %q", out.String())
		}
	}
	if _, err := newLogger(nil, "xml"); err == nil {
		t.Error("an unknown format is taken")
	}
}

func TestBookKeepsTheLastEventsAndWakesFollowers(t *testing.T) {
	b := newBook(slog.New(slog.DiscardHandler))
	_, news := b.since(0)
	for range maxEvents + 10 {
		b.add(api.Event{Kind: "transition", Text: "x"})
	}
	<-news
	events, _ := b.since(0)
	if len(events) != maxEvents || events[0].Seq != 11 || events[maxEvents-1].Seq != maxEvents+10 {
		t.Errorf("%d events from %d", len(events), events[0].Seq)
	}
	if events, _ := b.since(maxEvents + 9); len(events) != 1 {
		t.Errorf("%d events after the last but one", len(events))
	}
}

func TestAlarmIsOneEventHoweverOftenItIsRaised(t *testing.T) {
	b := newBook(slog.New(slog.DiscardHandler))
	for range 5 {
		b.raise("9@eth0", "bad-hash", "other passphrase")
	}
	b.raise("", "reload", "refused")
	if a := b.standing("9@eth0"); len(a) != 1 || a[0].Count != 5 {
		t.Errorf("standing %+v", a)
	}
	b.clear("9@eth0", "bad-hash")
	b.clear("9@eth0", "bad-hash")
	events, _ := b.since(0)
	var kinds []string
	for _, e := range events {
		kinds = append(kinds, e.Kind)
	}
	if got := strings.Join(kinds, " "); got != "alarm alarm alarm-end" {
		t.Errorf("events %s", got)
	}
	if len(b.standing("")) != 1 {
		t.Error("the node's alarm went with the instance's")
	}
}

func TestDemotionsAddUpByOwnerAndTarget(t *testing.T) {
	var d demotions
	for _, x := range []api.Demotion{
		{Owner: "disk", Target: globalTarget, Amount: 10},
		{Owner: "operator", Target: groupTarget("web"), Amount: 20},
		{Owner: "operator", Target: "9@eth0", Amount: 40},
		{Owner: "operator", Target: "8@eth0", Amount: 80},
		{Owner: "disk", Target: globalTarget, Amount: 11},
	} {
		if err := d.set(x.Target, x.Owner, x.Amount); err != nil {
			t.Fatal(err)
		}
	}
	nine := config.Instance{Name: "9@eth0", Interface: "eth0", Groups: []string{"web"}}
	sum := func(m map[string]int) (n int) {
		for _, a := range m {
			n += a
		}
		return n
	}
	if n := sum(d.of(nine)); n != 71 {
		t.Errorf("9@eth0 is demoted by %d", n)
	}
	if n := sum(d.of(config.Instance{Name: "8@eth0", Interface: "eth0"})); n != 91 {
		t.Errorf("8@eth0 is demoted by %d", n)
	}
	d.set(groupTarget("web"), "operator", 0)
	d.set(groupTarget("web"), "operator", 0)
	if n := sum(d.of(nine)); n != 51 || len(d.list()) != 3 {
		t.Errorf("after the undo: %d, %v", n, d.list())
	}
	for n := range maxDemotions {
		d.set("x", fmt.Sprint(n), 1)
	}
	if d.set("x", "one too many", 1) == nil {
		t.Error("the table has no limit")
	}
}

// Otherwise the owner of a VRRP address would start as a backup, if its interface
// comes up before it is seen that it is.
func TestAnInterfaceThatIsDownDemotesTheInstancesOnOthers(t *testing.T) {
	var d demotions
	if err := d.set(globalTarget, downOwner("eth0"), linkDemotion); err != nil {
		t.Fatal(err)
	}
	if got := d.of(config.Instance{Name: "9@eth0", Interface: "eth0"}); len(got) != 0 {
		t.Errorf("on the interface itself: %v", got)
	}
	got := d.of(config.Instance{Name: "9@eth1", Interface: "eth1"})
	if want := map[string]int{"global: interface eth0 down": linkDemotion}; !maps.Equal(got, want) {
		t.Errorf("on another interface: %v, want %v", got, want)
	}
}

// write makes a configuration in a directory of its own and returns its path.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "carpd.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const oneInstance = `
node: a
instances:
  - vhid: 9
    interface: eth0
    passphrase: secret
    addresses: [192.0.2.50/24]
`

func TestPlanTurnsAFileIntoValues(t *testing.T) {
	_, plans, err := load(write(t, oneInstance+`
    advskew: 100
    preempt: true
    preempt_grace: 0s
    hooks:
      - {kind: exec, name: gate, on: before-up, if_it_fails: retreat, with: {command: [/bin/true]}}
      - {kind: exec, name: leave, on: before-down, timeout: 3s, with: {command: [/bin/true]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	p := plans[0]
	if p.Name != "9@eth0" || p.carp.AdvSkew != 100 || !p.carp.Leased || p.lease.Valid != time.Second || !p.lease.Promised {
		t.Errorf("plan %+v", p)
	}
	if p.carp.PreemptGrace >= 0 {
		t.Errorf("a zero in the file is a default in the engine: grace %v", p.carp.PreemptGrace)
	}
	if few, many := releaseBudget(1), releaseBudget(5000); few != carp.DefaultReleaseBudget || many != 2*time.Second {
		t.Errorf("the budgets of 1 and 5000 addresses are %v and %v", few, many)
	}
	if !p.gated() || p.steps[0].OnFailure != hooks.Retreat || p.carp.ReleaseBudget != 3900*time.Millisecond {
		t.Errorf("steps %+v, budget %v", p.steps, p.carp.ReleaseBudget)
	}
}

func TestLeaseThatCannotKeepItsPromiseSaysSo(t *testing.T) {
	for _, test := range []struct {
		lease    config.LeaseSetting
		advbase  uint8
		valid    time.Duration
		promised bool
	}{
		{config.LeaseSetting{}, 1, time.Second, true},
		{config.LeaseSetting{Off: true}, 1, 0, false},
		{config.LeaseSetting{Valid: 5 * time.Second}, 1, 5 * time.Second, false},
		{config.LeaseSetting{Valid: time.Second}, 2, time.Second, true},
		{config.LeaseSetting{}, 0, time.Second, false},
	} {
		l := planLease(test.lease, &carp.Config{AdvBase: test.advbase, AdvSkew: 64, Leased: true})
		if l.Valid != test.valid || l.Promised != test.promised || l.Note == "" {
			t.Errorf("advbase %d, %v: %+v", test.advbase, test.lease, l)
		}
		if !l.Promised && l.Late != 0 {
			t.Errorf("advbase %d, %v: no promise, but renewals stop early for it", test.advbase, test.lease)
		}
	}
}

func TestReloadComparesPlans(t *testing.T) {
	of := func(text string) *plan {
		_, plans, err := load(write(t, text))
		if err != nil {
			t.Fatal(err)
		}
		return &plans[0]
	}
	a := of(oneInstance)
	if !same(a, of(oneInstance)) {
		t.Error("the same file is a change")
	}
	if same(a, of(oneInstance+"    advskew: 7\n")) {
		t.Error("advskew is no change")
	}
	if same(a, of("hooks: [{kind: exec, on: after-up, with: {command: [/bin/true]}}]\n"+oneInstance)) {
		t.Error("a hook of the file is no change")
	}
	for text, keys := range map[string]string{
		"    source_mac: interface\n":            "source_mac",
		"    peers: [192.0.2.2]\n":               "peers",
		"    name: other\n":                      "name",
		"    mac: virtual\n":                     "mac",
		"    advskew: 7\n":                       "",
		"    addresses_excluded: [192.0.2.51]\n": "",
	} {
		if got := a.frozen(of(oneInstance + text)); got != keys {
			t.Errorf("%q: frozen %q", text, got)
		}
	}
}

func TestCommandLine(t *testing.T) {
	good, bad := write(t, oneInstance), write(t, "instances: []\nnoed: x\n")
	for _, test := range []struct {
		args []string
		code int
		want string // in standard output or error
	}{
		{[]string{"check", "--config", good}, 0, "is sound: 1 instances"},
		{[]string{"check", "--config", bad}, 1, ":2:1"},
		{[]string{"check", "--config", "/nonexistent.yaml"}, 1, "nonexistent"},
		{[]string{"run", "--config", bad}, 1, "node"},
		{[]string{"run", "--config", good, "--log-format", "xml"}, 2, "log format"},
		{[]string{"frobnicate"}, 2, "frobnicate"},
		{[]string{"check", "--frob"}, 2, "frob"},
		{[]string{"check", "extra"}, 2, "extra"},
		{nil, 2, "name a command"},
		{[]string{"version"}, 0, release},
		{[]string{"kinds"}, 0, "exec"},
	} {
		var out, errs bytes.Buffer
		code := run(test.args, &out, &errs)
		if code != test.code || !strings.Contains(out.String()+errs.String(), test.want) {
			t.Errorf("%q: exit %d\n%s%s", test.args, code, out.String(), errs.String())
		}
	}
}

func TestNamesOfDemotionTargetsAreRefused(t *testing.T) {
	for _, name := range []string{"global", "group web"} {
		if _, _, err := load(write(t, oneInstance+"    name: "+name+"\n")); err == nil {
			t.Errorf("an instance may be called %q", name)
		}
	}
}
