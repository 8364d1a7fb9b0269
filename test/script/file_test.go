package script

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
)

func TestAllFaultsOfAFileAreFoundAtOnceWithTheirLines(t *testing.T) {
	const text = `node a skew 300
node b speed 3
node b
fly b
run fast
cut b -> c
partition b |
kill
demote b x
inject colour blue
expect holders z
link b sideways

tolerance 1s
only moon

reload b base
state b king
node c
`
	want := []string{
		`f.txt:1: node: skew "300": give a number from 0 to 254`,
		`f.txt:2: node: unknown option "speed"`,
		`f.txt:4: unknown command "fly": there are answers,`,
		`f.txt:5: run: "fast": give a duration`,
		`f.txt:6: cut: "c": no such node`,
		`f.txt:7: partition: a side is empty`,
		`f.txt:8: kill: give one node`,
		`f.txt:9: demote: "x": give a number from -255 to 255`,
		`f.txt:10: inject: unknown field "colour"`,
		`f.txt:11: expect: "z": no such node`,
		`f.txt:12: link: give a node, and up, down`,
		`f.txt:15: only: give sim or kernel`,
		`f.txt:17: reload: base: a value is missing`,
		`f.txt:18: state: give a node, and master or backup`,
	}
	_, err := Parse("f.txt", text)
	if err == nil {
		t.Fatal("no error")
	}
	got := strings.Split(err.Error(), "\n")
	if len(got) != len(want) {
		t.Errorf("%d faults, want %d:\n%v", len(got), len(want), err)
	}
	for i := range min(len(got), len(want)) {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("got  %s\nwant %s", got[i], want[i])
		}
	}
}

func TestSettingsStandBeforeTheFirstCommand(t *testing.T) {
	_, err := Parse("f.txt", "node a\nstart\n\nnode b\n")
	if err == nil || err.Error() != "f.txt:4: node: stands before the first start" {
		t.Errorf("%v", err)
	}
	for text, want := range map[string]string{
		"start\n":                   "f.txt:1: no node: begin with node NAME",
		"node a peers b\nstart\n":   "f.txt:1: peer b of node a: no such node",
		"\n----\n  1.000  a x -> y": "output without a command",
		"node a\nclient a\n":        "f.txt:2: client: give a name that nobody has yet",
		"node stranger\n":           "f.txt:1: node: give a name",
	} {
		if _, err := Parse("f.txt", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

const small = `# A comment stays.
node a

start   # and so does this
----
  0.000  a INIT -> BACKUP (link-up)

# Nothing happens here.
run 1s

run 3s
holders
----
  3.000  a BACKUP -> MASTER (master-timed-out)
a
`

func TestWhatCameOutIsWrittenIntoTheSamePlacesAndIsStable(t *testing.T) {
	stripped := ""
	for line := range strings.Lines(small) {
		if !strings.Contains(line, "->") && line != "a\n" {
			stripped += line
		}
	}
	for name, text := range map[string]string{"as it was": small, "without output": stripped} {
		f, err := Parse("f.txt", text)
		if err != nil {
			t.Fatal(err)
		}
		r := Simulate(f)
		if r.Err != nil || r.Text != small {
			t.Errorf("%s: %v\n%s", name, r.Err, r.Text)
		}
		if r.OK() != (name == "as it was") {
			t.Errorf("%s: OK is %v", name, r.OK())
		}
	}
}

func TestADifferenceIsReportedWithItsLineAndHowToRepeatIt(t *testing.T) {
	f, err := Parse("f.txt", strings.Replace(small, "  3.000  a BACKUP", "  2.000  a BACKUP", 1))
	if err != nil {
		t.Fatal(err)
	}
	r := PlayFile(t.Context(), f, nil)
	want := `f.txt:11: not as written
  -  2.000  a BACKUP -> MASTER (master-timed-out)
  +  3.000  a BACKUP -> MASTER (master-timed-out)
   a
repeat: carplab run f.txt
`
	if got := r.Report(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestAnExpectationFailsWhateverIsWritten(t *testing.T) {
	for _, tc := range []struct{ expect, want string }{
		{"expect holders nobody", "expect: want holders nobody, got a"},
		{"expect state a backup", "expect: want state a backup, got MASTER"},
		{"expect quiet", "expect: want quiet, got a change"},
		{"expect answers c nobody", "expect: want answers c nobody, got a"},
		{"expect outage c < 3s", "expect: want outage c < 3s, got 3.001s"},
		{"expect one holder", ""},
		{"expect overlap < 1ms", ""},
		{"expect outage c < 4s", ""},
	} {
		f, err := Parse("f.txt", "node a\nclient c\nstart\nrun 4s\n"+tc.expect+"\n")
		if err != nil {
			t.Fatal(err)
		}
		r := Simulate(f)
		switch {
		case tc.want == "" && r.Err != nil:
			t.Errorf("%s: %v", tc.expect, r.Err)
		case tc.want != "" && (r.Err == nil || r.Err.Error() != "f.txt:5: "+tc.want):
			t.Errorf("%s: %v, want %s", tc.expect, r.Err, tc.want)
		}
	}
}

func TestTheSimulatorsCheckersGuardScenarios(t *testing.T) {
	text := "node a\nnode b pass another\nstart\nrun 20s\n----\n"
	f, err := Parse("f.txt", text)
	if err != nil {
		t.Fatal(err)
	}
	if r := Simulate(f); r.Err == nil || !strings.Contains(r.Err.Error(), "both answered") {
		t.Errorf("two holders for 17 s: %v", r.Err)
	}
	f, err = Parse("f.txt", "unchecked\n"+text)
	if err != nil {
		t.Fatal(err)
	}
	if r := Simulate(f); r.Err != nil {
		t.Error(r.Err)
	}
}

func TestReloadsOfANodeAddUp(t *testing.T) {
	f, err := Parse("f.txt", "node a skew 7\nstart\nreload a base 2\nreload a preempt\n\nreload a skew 9\n")
	if err != nil {
		t.Fatal(err)
	}
	n := f.Blocks[1].Commands[0].Node
	if n.Skew != 9 || n.Base != 2 || !n.Preempt {
		t.Errorf("%+v", n)
	}
	if f.Tolerance != 500*time.Millisecond {
		t.Errorf("tolerance %v", f.Tolerance)
	}
}

func TestAConfigurationThatTheEngineRefusesIsAFaultOfItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"node a base 0\nstart\n":                                  "f.txt:1: node a: advbase 0 with advskew 0",
		"node a\nnode b priority 100\nstart\n":                    "f.txt:2: node b: priority, interval, checksum or TTL of peers: these are VRRP's",
		"node a protocol vrrp3 skew 1\nstart\n":                   "f.txt:1: node a: advbase, advskew, compat or families: these are CARP's",
		"node a protocol vrrp2 interval 100ms\nstart\n":           "f.txt:1: node a: interval 100ms: version 2 has whole seconds",
		"node a protocol vrrp3 pass x\nstart\n":                   "f.txt:1: node a: passphrase: VRRP version 3 has no authentication",
		"node a protocol vrrp3\nnode b peers a.6 protocol vrrp3":  "f.txt:2: node b: peer fe80::ff:fe00:1: not IPv4",
		"node a protocol vrrp3\nstart\nreload a interval 5ms\n":   "f.txt:3: reload: interval 5ms: use 10ms to 40.95s",
		"node a protocol vrrp4\n":                                 `f.txt:1: node: protocol carp: unknown protocol "vrrp4"`,
		"node a protocol vrrp3 priority 0\n":                      "f.txt:1: node: priority 0: give a number from 1 to 255",
		"node a protocol vrrp3\nstart\ninject checksum funny\n":   `f.txt:3: inject: checksum "funny": give bad, pseudo-header`,
		"node a\nstart\ninject protocol vrrp3 interval never\n":   `f.txt:3: inject: interval "never": give a duration`,
		"node a protocol vrrp3 checksum old-unicast\nstart\n":     `f.txt:1: node: checksum "old-unicast": the only value is rfc9568`,
		"node a protocol vrrp3 addr fe80::1,192.0.2.100\nstart\n": "f.txt:1: node a: address 192.0.2.100: VRRP has one family",
	} {
		if _, err := Parse("f.txt", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// What a stranger says is, by default, what the first node would.
func TestAnInjectedAdvertIsThatOfTheFirstNodesProtocol(t *testing.T) {
	for text, want := range map[string]string{
		"node a protocol vrrp3 interval 100ms\nstart\ninject\n":            "31 09 fe 01 00 0a",
		"node a protocol vrrp2 interval 3s pass x\nstart\ninject bowout\n": "21 09 00 01 01 03",
		"node a protocol vrrp3\nstart\ninject protocol carp\n":             "21 09 00 07 00 01",
		"node a\nstart\ninject protocol vrrp2 priority 7 interval 2s\n":    "21 09 07 01 01 02",
		"node a protocol vrrp3\nstart\ninject version 4 interval 40.95s\n": "41 09 fe 01 0f ff",
		"node a protocol vrrp3\nstart\ninject addr 192.0.2.1,192.0.2.2\n":  "31 09 fe 02 00 64",
	} {
		f, err := Parse("f.txt", text)
		if err != nil {
			t.Fatal(err)
		}
		c := f.Blocks[0].Commands[1]
		if got := fmt.Sprintf("% x", c.Advert.packet(0, place(1), carp.Local{}).Payload[:6]); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
