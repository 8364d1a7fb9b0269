package config

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const before = `
groups: [lan]
hooks: [{kind: exec, on: after-up, with: {command: /bin/a, args: [x, y]}}]
instances:
  - vhid: 9
    interface: eth0
    passphrase: mekmitasdigoat
    addresses: [192.0.2.10/24, 192.0.2.11/24]
    hooks: [{kind: exec, name: own, on: after-up}]
  - vhid: 10
    interface: eth0
    passphrase: mekmitasdigoat
    addresses: [192.0.2.20/24]
`

const after = `
node_id: 4
control: /run/other.sock
listen: :9550
replication: [{instance: 9@eth0, source: {kind: sqlite, database: /srv/b.db}, peers: [{address: b, user: u, key_file: /k, known_hosts: /h}]}]
preempt: true
groups: [lan, wan]
hooks: [{kind: exec, on: after-up, with: {command: /bin/b, args: [x, y]}}]
instances:
  - vhid: 11
    interface: eth0
    passphrase: mekmitasdigoat
    addresses: [192.0.2.30/24, 192.0.2.31/24]
  - vhid: 9
    interface: eth0
    passphrase: another
    advskew: 100
    preempt: false
    preempt_delay: 90
    lease: off
    peers: [192.0.2.3]
    groups: [wan]
    addresses: [192.0.2.11/24, 192.0.2.12/24]
    hooks: [{kind: exec, name: mine, on: after-up}]
`

func TestDiffSaysEachChangeInOneLine(t *testing.T) {
	want := `node_id none -> 4 (needs a restart)
control /run/carpd/carpd.sock -> /run/other.sock (needs a restart)
listen none -> :9550
groups added wan
hooks changed exec-after-up
replication added sqlite
vhid 9 on eth0: advskew 0 -> 100
vhid 9 on eth0: preempt_delay 0s -> 1m30s
vhid 9 on eth0: lease on -> off
vhid 9 on eth0: passphrase changed
vhid 9 on eth0: addresses added 192.0.2.12/24, removed 192.0.2.10/24
vhid 9 on eth0: peers added 192.0.2.3 (needs a restart)
vhid 9 on eth0: groups added wan
vhid 9 on eth0: hooks added mine, removed own
vhid 10 on eth0: removed
vhid 11 on eth0: added with 192.0.2.30/24 192.0.2.31/24`
	got := lines(mustParse(t, before).Diff(mustParse(t, after)))
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if d := mustParse(t, before).Diff(mustParse(t, before)); len(d) != 0 {
		t.Errorf("the same text differs from itself: %v", d)
	}
}

func lines(changes []Change) string {
	out := make([]string, len(changes))
	for i, c := range changes {
		out[i] = c.String()
	}
	return strings.Join(out, "\n")
}

func mustParse(t interface{ Fatalf(string, ...any) }, yaml string) *File {
	f, err := Parse("carpd.yaml", []byte(yaml), lan())
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, yaml)
	}
	return f
}

// settingsOf draws the keys of an instance, as texts in YAML's flow style.
func settingsOf(t *rapid.T) map[string]string {
	all := map[string]*rapid.Generator[string]{
		"advskew":          rapid.SampledFrom([]string{"0", "1", "100", "254"}),
		"source_mac":       rapid.SampledFrom([]string{"virtual", "interface"}),
		"preempt":          rapid.SampledFrom([]string{"true", "false"}),
		"preempt_delay":    rapid.SampledFrom([]string{"1", "2s", "3m"}),
		"preempt_grace":    rapid.SampledFrom([]string{"1", "50ms", "3s"}),
		"announce_refresh": rapid.SampledFrom([]string{"0", "1m", "90"}),
		"on_conflict":      rapid.SampledFrom([]string{"defend", "alarm"}),
		"startup_delay":    rapid.SampledFrom([]string{"1", "2s", "3m"}),
		"mac":              rapid.SampledFrom([]string{"virtual", "interface"}),
		"lease":            rapid.SampledFrom([]string{"on", "off", "1", "2s"}),
		"fence":            rapid.SampledFrom([]string{"auto", "on", "off"}),
		"compat":           rapid.SampledFrom([]string{"bsd", "none"}),
		"families":         rapid.SampledFrom([]string{"shared", "each"}),
		"roll":             rapid.SampledFrom([]string{"1m", "90"}),
		"groups":           rapid.SampledFrom([]string{"[lan]", "[lan, wan]", "wan"}),
		"peers":            rapid.SampledFrom([]string{"[192.0.2.3]", "[192.0.2.3, 192.0.2.4]"}),
		"passphrase":       rapid.SampledFrom([]string{"one", "two"}),
		"hooks":            rapid.SampledFrom([]string{"[{kind: exec, on: after-up, with: {command: a, args: [b]}}]", "[{kind: exec, on: after-down}]"}),
		"addresses":        rapid.SampledFrom([]string{"[192.0.2.1/24]", "[192.0.2.1/24, 2001:db8::1/64]"}),
	}
	all["addresses_excluded"] = rapid.SampledFrom([]string{"192.0.2.8/24", `["2001:db8::8/64"]`})
	if rapid.Bool().Draw(t, "VRRP") {
		for _, key := range []string{"advskew", "compat", "families", "roll", "passphrase"} {
			delete(all, key)
		}
		all["priority"] = rapid.SampledFrom([]string{"1", "100", "255"})
		all["interval"] = rapid.SampledFrom([]string{"1", "20ms", "40s"})
		all["checksum"] = rapid.SampledFrom([]string{"pseudo-header", "rfc5798", "rfc9568"})
		all["peers"] = rapid.SampledFrom([]string{"[192.0.2.3]", "[{address: 192.0.2.3, max_ttl: 9}, 192.0.2.4]"})
		all["addresses"] = rapid.SampledFrom([]string{"[192.0.2.1/24]", "[192.0.2.1/24, 192.0.2.2/24]"})
	}
	out := map[string]string{"vhid": "9", "interface": "eth0", "addresses": "[192.0.2.9/24]"}
	if all["priority"] != nil {
		out["protocol"] = "vrrp3"
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if rapid.Bool().Draw(t, key+" given") {
			out[key] = all[key].Draw(t, key)
		}
	}
	return out
}

// written puts the keys in a drawn order and style.
func written(t *rapid.T, keys map[string]string) string {
	order := rapid.Permutation(slices.Sorted(maps.Keys(keys))).Draw(t, "order")
	parts := make([]string, len(order))
	for i, k := range order {
		parts[i] = k + ": " + keys[k]
	}
	body := "  - {" + strings.Join(parts, ", ") + "}\n"
	if rapid.Bool().Draw(t, "block") {
		body = "  - " + strings.Join(parts, "   # a remark\n    ") + "\n"
	}
	return "groups: [lan, wan]\ninstances:\n" + body
}

func TestEqualFilesHaveNoDiffHoweverWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := settingsOf(t)
		a, b := mustParse(t, written(t, keys)), mustParse(t, written(t, keys))
		if d := a.Diff(b); len(d) != 0 {
			t.Fatalf("differs: %v", d)
		}
	})
}

func TestOneChangedKeyIsOneChange(t *testing.T) {
	other := map[string]string{
		"advskew": "77", "roll": "77s", "lease": "77", "groups": "[lan, wan, lab]", "passphrase": "seventyseven",
		"priority": "77", "interval": "7", "addresses_excluded": "[192.0.2.78]",
		"peers": "[192.0.2.77]", "addresses": "[192.0.2.77/24]", "startup_delay": "77", "name": "seventyseven",
		"hooks": "[{kind: exec, on: after-up, with: {command: seventyseven}}]",
	}
	rapid.Check(t, func(t *rapid.T) {
		keys := settingsOf(t)
		a := mustParse(t, strings.Replace(written(t, keys), "wan]", "wan, lab]", 1))
		key := rapid.SampledFrom(slices.Sorted(maps.Keys(other))).Draw(t, "changed")
		if vrrp := keys["protocol"] != ""; vrrp && slices.Contains([]string{"advskew", "roll", "passphrase"}, key) || !vrrp && slices.Contains([]string{"priority", "interval"}, key) {
			t.Skip("a key of the other protocol")
		}
		keys[key] = other[key]
		b := mustParse(t, strings.Replace(written(t, keys), "wan]", "wan, lab]", 1))
		d := a.Diff(b)
		if len(d) != 1 || d[0].Key != key || !strings.HasSuffix(strings.TrimSuffix(d[0].Label, " over IPv4"), "id 9 on eth0") || d[0].What != Changed || strings.Contains(d[0].String(), "passphrase seven") {
			t.Fatalf("changed %s: got %v", key, d)
		}
	})
}

func TestDecodeFindsAllFaultsOfTheSettingsOfAHook(t *testing.T) {
	type inner struct {
		Name string `yaml:"name"`
	}
	type settings struct {
		URL     string            `yaml:"url"`
		Wait    time.Duration     `yaml:"wait"`
		Plain   time.Duration     `yaml:"plain"`
		Count   uint8             `yaml:"count"`
		Debt    int               `yaml:"debt"`
		Ratio   float64           `yaml:"ratio"`
		Once    bool              `yaml:"once"`
		Peer    netip.Addr        `yaml:"peer"`
		Args    []string          `yaml:"args"`
		Env     map[string]string `yaml:"env"`
		Inner   *inner            `yaml:"inner"`
		Many    []inner           `yaml:"many"`
		Default string            `yaml:"default"`
		Hidden  string            `yaml:"-"`
	}
	hook := func(with string) Hook {
		o := lan()
		o.CheckHook = nil
		f, err := Parse("x", []byte("hooks:\n  - kind: exec\n    on: after-up\n    with:\n"+with+"instances: [{vhid: 9, interface: eth0, addresses: 192.0.2.1}]\n"), o)
		if err != nil {
			t.Fatal(err)
		}
		return f.Hooks[0]
	}
	got := settings{Default: "kept"}
	err := hook(`
      url: https://example.org/
      wait: 3s
      plain: 5
      count: 200
      debt: -3
      ratio: 0.5
      once: yes
      peer: 2001:db8::1
      args: [a, 1, true]
      env: {PATH: /bin, N: 1}
      inner: {name: x}
      many: [{name: y}, {name: z}]
`).Decode(&got)
	want := settings{
		"https://example.org/", 3 * time.Second, 5 * time.Second, 200, -3, 0.5, true, netip.MustParseAddr("2001:db8::1"),
		[]string{"a", "1", "true"}, map[string]string{"PATH": "/bin", "N": "1"}, &inner{"x"}, []inner{{"y"}, {"z"}}, "kept", "",
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	err = hook(`
      urll: x
      wait: long
      count: 256
      once: maybe
      peer: nobody
      args: {a: b}
      env: [a]
      inner: {nam: x}
      many: [{name: [y]}]
      default:
      hidden: x
      token: verysecret
`).Decode(&settings{})
	golden(t, "testdata/decode.txt", err.Error()+"\n")
	if strings.Contains(err.Error(), "verysecret") {
		t.Error("a secret is shown")
	}
	if err := hook("\n").Decode(&settings{}); err != nil {
		t.Errorf("no settings: %v", err)
	}
	if err := hook("\n").Decode(settings{}); err == nil {
		t.Error("a struct that cannot be filled is accepted")
	}
}
