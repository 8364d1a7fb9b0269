package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// hookRun is what one run of the recording program saw.
type hookRun struct {
	env  map[string]string
	held bool // the node had the IPv4 address as the program ran
	json struct {
		Schema    int       `json:"schema"`
		Name      string    `json:"name"`
		VHID      int       `json:"vhid"`
		Interface string    `json:"interface"`
		Node      string    `json:"node"`
		Phase     string    `json:"phase"`
		From      string    `json:"from"`
		To        string    `json:"to"`
		Reason    string    `json:"reason"`
		Peer      string    `json:"peer"`
		Epoch     uint64    `json:"epoch"`
		Time      time.Time `json:"time"`
		Addresses []string  `json:"addresses"`
	}
}

// recorder makes a program that notes each of its runs, and returns the hooks of
// an instance that run it in every phase.
func (n *node) recorder() []string {
	n.t.Helper()
	script := n.file("record.sh", `#!/bin/sh
run=$(mktemp -d `+n.dir+`/run.XXXXXX) || exit 1
ip -o addr show >$run/addresses
env >$run/env
cat >$run/json
mv $run `+n.dir+`/done.$(ls -d `+n.dir+`/done.* 2>/dev/null | wc -l)
`, 0o755)
	lines := []string{"hooks:"}
	for _, phase := range []string{"before-up", "after-up", "before-down", "after-down"} {
		lines = append(lines, hook(phase, script))
	}
	return lines
}

func hook(phase, script string) string {
	return fmt.Sprintf("  - {kind: exec, on: %s, with: {command: [%s]}}", phase, script)
}

// runs returns the recorded runs in their order.
func (n *node) runs() []hookRun {
	n.t.Helper()
	var all []hookRun
	for i := 0; ; i++ {
		dir := filepath.Join(n.dir, "done."+strconv.Itoa(i))
		text, err := os.ReadFile(filepath.Join(dir, "json"))
		if err != nil {
			return all
		}
		r := hookRun{env: map[string]string{}}
		if err := json.Unmarshal(text, &r.json); err != nil {
			n.t.Fatalf("%s: %v", text, err)
		}
		env, err := os.ReadFile(filepath.Join(dir, "env"))
		if err != nil {
			n.t.Fatal(err)
		}
		for line := range strings.Lines(string(env)) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			r.env[key] = value
		}
		addrs, err := os.ReadFile(filepath.Join(dir, "addresses"))
		if err != nil {
			n.t.Fatal(err)
		}
		r.held = strings.Contains(string(addrs), shared4.String()+"/")
		all = append(all, r)
	}
}

func TestHooksRunInOrderAroundTheAddresses(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.start(settings{more: p.a.recorder()})
	// What an earlier run of the daemon left is undone first, whatever it was.
	lab.Eventually(t, soon, "after-down of the start", func() bool { return len(p.a.runs()) >= 1 })
	p.a.promote()
	p.b.start(settings{advskew: 100})
	lab.Eventually(t, soon, "b to hear a", func() bool { return p.b.instance().Master != nil })
	lab.Eventually(t, soon, "after-up", func() bool { return len(p.a.runs()) >= 3 })
	p.a.post("/v1/handover", map[string]string{}, nil)
	lab.Eventually(t, soon, "after-down", func() bool { return len(p.a.runs()) >= 5 })
	p.b.await("MASTER")

	runs := p.a.runs()
	if len(runs) != 5 {
		t.Fatalf("%d runs, want 5: %+v", len(runs), runs)
	}
	epoch := runs[1].json.Epoch
	for i, want := range []struct {
		phase, from, to, reason string
		address                 string // on, off or moving
	}{
		{"after-down", "INIT", "BACKUP", "link-up", "off"},
		{"before-up", "BACKUP", "MASTER", "operator", "off"},
		{"after-up", "BACKUP", "MASTER", "operator", "on"},
		{"before-down", "MASTER", "RELEASING", "handover", "moving"},
		{"after-down", "RELEASING", "BACKUP", "released", "off"},
	} {
		got := runs[i]
		if got.json.Phase != want.phase || got.json.From != want.from || got.json.To != want.to || got.json.Reason != want.reason {
			t.Errorf("run %d: %+v, want %+v", i, got.json, want)
		}
		if want.address != "moving" && got.held != (want.address == "on") {
			t.Errorf("%s: the address was on: %v, want it %s", want.phase, got.held, want.address)
		}
		got.consistent(t)
		if first := i == 0; epoch == 0 || !first && got.json.Epoch != epoch || first && got.json.Epoch >= epoch {
			t.Errorf("%s: epoch %d, of the mastership %d", want.phase, got.json.Epoch, epoch)
		}
	}
}

// consistent checks that standard input and environment are as documented and
// say the same.
func (r hookRun) consistent(t *testing.T) {
	t.Helper()
	j := r.json
	if j.Schema != 1 || j.Name != "9@eth0" || j.VHID != 9 || j.Interface != "eth0" || j.Node != "a" {
		t.Errorf("standard input: %+v", j)
	}
	if age := time.Since(j.Time); age < 0 || age > time.Minute {
		t.Errorf("time %v", j.Time)
	}
	addresses := strings.Join(j.Addresses, " ")
	if addresses != "192.0.2.50/24 2001:db8::50/64" {
		t.Errorf("addresses %q", addresses)
	}
	for key, want := range map[string]string{
		"CARP_SCHEMA": "1", "CARP_NAME": j.Name, "CARP_VHID": "9", "CARP_INTERFACE": j.Interface, "CARP_NODE": j.Node,
		"CARP_PHASE": j.Phase, "CARP_FROM": j.From, "CARP_TO": j.To, "CARP_REASON": j.Reason, "CARP_PEER": j.Peer,
		"CARP_EPOCH": strconv.FormatUint(j.Epoch, 10), "CARP_ADDRESSES": addresses,
		"CARP_TIME": j.Time.Format(time.RFC3339Nano),
	} {
		if r.env[key] != want {
			t.Errorf("%s is %q, want %q", key, r.env[key], want)
		}
	}
	for key := range r.env {
		if known := strings.HasPrefix(key, "CARP_") || key == "PATH" || key == "PWD" || key == "OLDPWD" || key == "SHLVL" || key == "_"; !known {
			t.Errorf("the environment holds %s, which no program asked for", key)
		}
	}
}

func TestKilledDaemonsProgramsDieWithIt(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	pid := filepath.Join(p.a.dir, "pid")
	gate := p.a.file("gate.sh", "#!/bin/sh\necho $$ >"+pid+".new; mv "+pid+".new "+pid+"; exec sleep 60\n", 0o755)
	p.a.start(settings{more: []string{"hooks:", hook("before-up", gate)}})
	p.a.await("BACKUP")
	p.a.post("/v1/state", map[string]string{"state": "master"}, nil)
	var text []byte
	lab.Eventually(t, soon, "the gate to run", func() (ok bool) {
		var err error
		text, err = os.ReadFile(pid)
		return err == nil
	})
	p.a.proc.Kill()
	lab.Eventually(t, soon, "the gate to be gone", func() bool {
		state, err := os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/stat")
		return err != nil || strings.Contains(string(state), ") Z ")
	})
}

func TestFailingGateMakesTheOtherNodeMaster(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	gate := p.a.file("gate.sh", "#!/bin/sh\necho the database is not here\nexit 1\n", 0o755)
	p.a.start(settings{more: []string{"hooks:", hook("before-up", gate)}})
	p.a.await("BACKUP")
	p.b.start(settings{advskew: 100})
	i := p.b.await("MASTER")
	if i.Reason != "bow-out" {
		t.Errorf("b is master because of %s", i.Reason)
	}
	if e := p.a.awaitEvent(0, "transition", "failed"); e.To != "BACKUP" {
		t.Errorf("a went to %s", e.To)
	}
	if text := p.a.alarm("not-served"); !strings.Contains(text, "database is not here") {
		t.Errorf("the alarm does not tell the program's last words: %q", text)
	}
	if i := p.a.instance(); i.EffectiveAdvSkew != 240 {
		t.Errorf("a is not demoted: advskew %d", i.EffectiveAdvSkew)
	}
	if had := p.a.addrs.all(time.Time{}, shared4); len(had) > 0 {
		t.Errorf("a had the address: %+v", had)
	}
}

// What fails after the addresses are up takes them off again before anybody is
// called in.
func TestHookThatFailsAfterTheAddressesAreUpLeavesNoneBehind(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	addrs, s := manyAddresses()
	fail := p.a.file("after-up.sh", "#!/bin/sh\nexit 1\n", 0o755)
	s.more = []string{"hooks:", strings.TrimSuffix(hook("after-up", fail), "}") + ", if_it_fails: retreat}"}
	asked := p.someOf(addrs)
	for _, addr := range asked {
		p.client.Probe(addr)
	}
	mark, at := p.wire.Len(), time.Now()
	p.a.start(s)
	bow, ok := p.wire.WaitAfter(mark, takeover, bowsOut("a"))
	if !ok {
		t.Fatal("a never bowed out")
	}
	p.a.addrs.await(t, at, addrs[0], true, takeover)
	p.a.checkAllOffBefore(addrs, at, bow.Time)
	p.silentAfter("a", bow.Time, asked...)
}

func TestSlowGateKeepsTheAddressOffAndTheAdvertsGoing(t *testing.T) {
	t.Parallel()
	const slow = 5 * time.Second
	p := newPair(t)
	gate := p.a.file("gate.sh", fmt.Sprintf("#!/bin/sh\nsleep %d\n", int(slow.Seconds())), 0o755)
	p.a.start(settings{more: []string{"hooks:", hook("before-up", gate)}})
	p.b.start(settings{advskew: 100})
	p.a.await("BACKUP")
	at, seqB := time.Now(), p.b.seq()
	p.a.post("/v1/state", map[string]string{"state": "master"}, nil)
	up := p.a.addrs.await(t, at, shared4, true, takeover)
	if took := up.At.Sub(at); took < slow {
		t.Errorf("the address was up after %v, before the gate was through", took)
	}
	p.a.await("MASTER")
	sent := adverts(p.wire, "a", 9, at)
	if gap := longestGap(sent); gap > lateAdvert || len(sent) < int(slow.Seconds()) {
		t.Errorf("%d adverts while the gate ran, the longest gap %v", len(sent), gap)
	}
	for _, e := range p.b.transitions(seqB) {
		if e.To == "MASTER" {
			t.Errorf("b moved: %+v", e)
		}
	}
}
