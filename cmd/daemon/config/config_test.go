package config

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
)

var update = flag.Bool("update", false, "write the expected problems of testdata/bad anew")

// lan answers for the system: no test asks the machine that it runs on.
func lan() Options {
	return Options{
		Hostname: func() (string, error) { return "here", nil },
		Interfaces: func(a netip.Addr) ([]string, error) {
			switch {
			case netip.MustParsePrefix("192.0.2.0/24").Contains(a):
				return []string{"eth0"}, nil
			case netip.MustParsePrefix("198.51.100.0/24").Contains(a):
				return []string{"eth0", "eth1"}, nil
			}
			return nil, nil
		},
		Kinds: func(hooks.Class) []string { return []string{"exec"} },
		CheckHook: func(h Hook) error {
			var c struct {
				Command string
				Args    []string
				Timeout time.Duration
				Retries int
			}
			return h.Decode(&c)
		},
	}
}

func TestEachFaultIsReportedWithPlaceExcerptAndHint(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 12 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			f, err := Parse(name, data, lan())
			var problems Problems
			if f != nil || !errors.As(err, &problems) || problems.Faults() == 0 {
				t.Fatalf("got %v, %v, want Problems", f, err)
			}
			for _, secret := range []string{"only the length", "not to be shown", "mekmitasdigoat", "exactly20", "two lines"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the problems show a passphrase:\n%v", err)
				}
			}
			golden(t, strings.TrimSuffix(name, ".yaml")+".txt", err.Error()+"\n")
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew): got\n%s\nwant\n%s", name, got, want)
	}
}

// goodFile parses an example with its passphrase file put in place.
func goodFile(t *testing.T, name string) *File {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata/good", name))
	if err != nil {
		t.Fatal(err)
	}
	pass := secretFile(t, "mekmitasdigoat\n", 0o600)
	f, err := Parse(name, []byte(strings.ReplaceAll(string(data), "PASSFILE", pass)), lan())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func secretFile(t *testing.T, text string, mode fs.FileMode) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	return name
}

func TestTheFileOfAFirstUserLoadsWithTheDefaults(t *testing.T) {
	f := goodFile(t, "first.yaml")
	if len(f.Instances) != 1 || len(f.Warnings) != 0 {
		t.Fatalf("got %d instances and warnings %v", len(f.Instances), f.Warnings)
	}
	got := fmt.Sprintf("%+v", f.Instances[0])
	want := fmt.Sprintf("%+v", Instance{
		Name: "9@eth0", Protocol: "carp", VHID: 9, Interface: "eth0", SourceMAC: "virtual",
		Passphrase: []byte("mekmitasdigoat"), AdvBase: 1, PreemptGrace: 100 * time.Millisecond, AnnounceRefresh: time.Minute, OnConflict: "defend", OnContest: "regate",
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.1.50/24")},
		MAC:       "interface", Fence: "auto", Replay: "window", Compat: "none", Families: "shared", Roll: 10 * time.Minute,
		Line: 3, Column: 5,
	})
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if f.Node != "here" || f.StateDir != DefaultStateDir || f.Control != DefaultControl || f.Preempt {
		t.Errorf("got %+v", f)
	}
}

func TestPathsAndWhoIsAskedOnTheClientSide(t *testing.T) {
	f := goodFile(t, "paths.yaml")
	i := f.Instances[0]
	if got, want := fmt.Sprint(i.Paths), "[eth1 eth0 to 192.0.2.2 eth2 to 10.0.0.2,fd00::2]"; got != want {
		t.Errorf("paths %s, want %s", got, want)
	}
	want := "[192.0.2.254 (interval 200ms, deadline 200ms, fall 3, rise 2) 2001:db8::1 (interval 500ms, deadline 200ms, fall 5, rise 1)]"
	if got := fmt.Sprint(i.Track); got != want {
		t.Errorf("track %s, want %s", got, want)
	}
	if got := fmt.Sprint(f.Instances[1].Paths); got != "[eth0]" {
		t.Errorf("paths of one value: %s", got)
	}
	if changed := i.Frozen(Instance{Name: i.Name, Protocol: i.Protocol, SourceMAC: i.SourceMAC, MAC: i.MAC, Addresses: i.Addresses}); !slices.Equal(changed, []string{"paths"}) {
		t.Errorf("what a reload cannot change: %v, want paths", changed)
	}
}

func TestEveryKeyIsRead(t *testing.T) {
	f := goodFile(t, "all-keys.yaml")
	a, b := f.Instances[0], f.Instances[1]
	for what, ok := range map[string]bool{
		"file":         f.Node == "left" && f.NodeID == 1 && f.Listen == "[::1]:9550" && f.Preempt && slices.Equal(f.Groups, []string{"lan", "wan"}),
		"name":         a.Name == "inside" && b.Name == "10@eth0",
		"vrid":         a.VHID == 9,
		"interface":    b.Interface == "eth0",
		"source_mac":   a.SourceMAC == "interface",
		"passphrase":   string(a.Passphrase) == "mekmitasdigoat",
		"interval":     a.AdvBase == 1 && a.AdvSkew == 100 && b.AdvBase == 0 && b.AdvSkew == 20,
		"preempt":      !a.Preempt && b.Preempt && b.PreemptDelay == 90*time.Second && b.PreemptGrace == 200*time.Millisecond,
		"startup":      a.StartupDelay == 30*time.Second,
		"addresses":    fmt.Sprint(a.Addresses) == "[192.168.1.50/24 192.168.1.51/32 2001:db8::50/64]" && len(b.Addresses) == 1,
		"peers":        fmt.Sprint(a.Peers) == "[192.168.1.3 2001:db8::3]",
		"lease":        a.Lease == LeaseSetting{Valid: 2 * time.Second} && b.Lease == LeaseSetting{Off: true},
		"fence":        a.Fence == "on" && b.Fence == "auto",
		"on_conflict":  a.OnConflict == "alarm" && b.OnConflict == "defend",
		"compat":       a.Compat == "bsd" && a.Families == "each" && a.Roll == 5*time.Minute,
		"groups":       slices.Equal(a.Groups, []string{"lan"}) && slices.Equal(b.Groups, []string{"wan", "lan"}),
		"file's hooks": len(f.Hooks) == 1 && f.Hooks[0].Name == "exec-after-up" && f.Hooks[0].IfItFails == "continue" && f.Hooks[0].Timeout == 20*time.Second,
		"own hooks":    len(a.Hooks) == 1 && a.Hooks[0].Name == "gate" && a.Hooks[0].On == "before-up" && a.Hooks[0].Timeout == 5*time.Second,
		"replication": reflect.DeepEqual(f.Replication, []Replication{{
			Name: "proxy", Instance: "inside", Store: "/srv/snapshots", Keep: Keeping{20, 168 * time.Hour, 2},
			Source: Database{SourceProxySQL, "/var/lib/proxysql/proxysql.db", &Admin{"localhost:6032", "admin", "/etc/carpd/admin.pass", "/srv/exchange"}},
			Peers: []Shipping{
				{"right", "192.168.1.3:2222", "_carpd", "/etc/carpd/ship.key", "/etc/carpd/known_hosts", MethodSFTP, "/srv/snapshots"},
				{"third", "third", "carpd", "/etc/carpd/ship.key", "/etc/carpd/known_hosts", MethodReceive, ""},
			},
			Rows: map[string]int64{"mysql_users": 1, "mysql_servers": 2}, MayBeEmpty: []string{"mysql_query_rules"},
			MaxSize: 64 << 20, Bandwidth: 1 << 20, Settle: 50 * time.Millisecond, Latest: 2 * time.Second, AlarmAfter: time.Minute, Line: 9, Column: 5,
		}, {
			Name: "sqlite", Instance: "10@eth0", Store: "/var/lib/carpd/replication/sqlite", Keep: Keeping{DefaultKeepCount, 0, DefaultKeepLeast},
			Source: Database{Kind: SourceSQLite, Database: "/var/lib/app/app.db"},
			Peers:  []Shipping{{"2001:db8::3", "2001:db8::3", "carpd", "/etc/carpd/ship.key", "/etc/carpd/known_hosts", MethodReceive, ""}},
			Sync: &Sync{
				Listen: "192.168.1.2:6020", KeyFile: "/etc/carpd/modules.key", Nodes: []SyncNode{{2, "192.168.1.3:6020", "ssh-ed25519 AAAA"}},
				Modules:  []SyncModule{{"accounts", []string{"users", "groups"}}, {"rules", []string{"rules"}}},
				Interval: 500 * time.Millisecond, Diffs: 5, Fanout: 4, Changes: ChangesForward, at: f.Replication[1].Sync.at,
			},
			AlarmAfter: DefaultAlarmAfter, Line: 33, Column: 5,
		}}),
		"order": len(f.HooksOf(a)) == 2 && f.HooksOf(a)[1].Name == "gate",
	} {
		if !ok {
			t.Errorf("%s: got %+v", what, f)
		}
	}
	if len(f.Warnings) != 0 {
		t.Errorf("warnings: %v", f.Warnings)
	}
	goodFile(t, "many.yaml")
}

func TestPassphraseFileOfOthersIsRefused(t *testing.T) {
	for _, c := range []struct {
		text string
		mode fs.FileMode
		want string // "" for none
	}{
		{"secret\n", 0o600, ""},
		{"secret", 0o400, ""},
		{"secret\nsecond line\n", 0o600, ""},
		{"secret\n", 0o644, "chmod 600"},
		{"secret\n", 0o640, "chmod 600"},
		{"secret\n", 0o620, "chmod 600"},
		{"", 0o600, "is empty"},
		{"\nsecret\n", 0o600, "is empty"},
		{"exactly20characters!\n", 0o600, "the first 19"},
		{"secret\r\n", 0o600, "carriage return"},
		{"21 characters are more\n", 0o600, "has room for 20"},
		{"a\x00b\n", 0o600, "zero byte"},
	} {
		name := secretFile(t, c.text, c.mode)
		yaml := "instances: [{vhid: 9, interface: eth0, addresses: 192.0.2.1/24, passphrase_file: " + name + "}]"
		f, err := Parse("carpd.yaml", []byte(yaml), lan())
		said := fmt.Sprint(err)
		if err == nil {
			said = f.Warnings.Error()
		}
		if (c.want == "") != (said == "") || !strings.Contains(said, c.want) {
			t.Errorf("%q with mode %o: got %q, want %q", c.text, c.mode, said, c.want)
		}
		if strings.Contains(said, "secret") || strings.Contains(said, "characters") {
			t.Errorf("%q is shown: %s", c.text, said)
		}
		if err == nil && c.want == "" && string(f.Instances[0].Passphrase) != "secret" {
			t.Errorf("%q: got %q", c.text, f.Instances[0].Passphrase)
		}
	}
}

func TestAMistypedKeyShowsNoPassphrase(t *testing.T) {
	for _, line := range []string{
		"passphrse: hunter2", "pasphrase: hunter2", "passphrases: hunter2", "pssaphrase: hunter2", "password2: hunter2",
		"psk: hunter2", "auth_key: hunter2", "pw: hunter2", "kennwort: hunter2", "Passphrase: hunter2", `"passphrse": hunter2`,
		`"pw\u0078": hunter2`, "passphrase hunter2", "pasphrase hunter2", "passphrase= hunter2", "passphrase=hunter2",
		"passphrase:hunter2", "passphrase; hunter2", "passphrase hunter2:", "passphrase: !hunter2", "passphrase: &hunter2 x",
		"passphrase:\n    hunter2", "passphrse:\n      hunter2", "kennwort:\n      [hunter2]", "passphrase: [hunter2]", "passphrase: {hunter2: a}",
		"passphrase: hunter2: a", "passphrase: 'hunter2", "passphrase: [hunter2", "passphrase: a\n      hunter2: b", "pass word: hunter2",
		"# passphrase: hunter2\n    vhid: 10", "hooks: [{kind: exec, on: after-up, with: {auth: hunter2}}]",
		"hooks: [{kind: exec, on: after-up, with: {passphrase hunter2, passphrase hunter2}}]",
	} {
		for _, file := range []string{
			"instances:\n  - vhid: 9\n    " + line + "\n    addresses: 192.0.2.1\n    advskew: 999\n",
			"instances:\n  - vhid: 9\n    addresses: 192.0.2.1\n    advskew: 999\n    " + line + "\n",
			"instances:\n  - " + line + "\n    addresses: 192.0.2.1\n    advskew: 999\n",
			"instances: [{advskew: 999, " + strings.ReplaceAll(line, "\n", "\n  ") + ", lease: 1m1}]\n",
		} {
			_, err := Parse("carpd.yaml", []byte(file), lan())
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s\ngives %v", file, err)
			}
		}
	}
}

func TestMaskLeavesWhatIsNoSecret(t *testing.T) {
	for line, want := range map[string]string{
		"    interface: eth0":                      "    interface: eth0",
		"    passphrase_file: web.pass":            "    passphrase_file: web.pass",
		"  - {vhid: 9, pasphrase: a b, name: x}":   "  - {vhid: 9, pasphrase: *************",
		"    if_it_fails: retreat # like a secret": "    if_it_fails: retreat # like a secret",
		"    passphrase hunter2":                   "    passphrase *******",
		"    with: {command: [/bin/passwd, -S]}":   "    with: {command: [/bin/passwd, -S]}",
	} {
		if got := mask([]string{line})[0]; got != want {
			t.Errorf("%s: got %s", line, got)
		}
	}
	for _, key := range Keys() {
		if secretWord(key, Keys()) != (key == "passphrase") {
			t.Errorf("%s is taken for the opposite", key)
		}
	}
}

func TestPassphraseFileIsRelativeToTheConfiguration(t *testing.T) {
	pass := secretFile(t, "secret\n", 0o600)
	yaml := "instances:\n  - {vhid: 9, interface: eth0, addresses: 192.0.2.1/24, passphrase_file: " + filepath.Base(pass) + "}\n"
	name := filepath.Join(filepath.Dir(pass), "carpd.yaml")
	if err := os.WriteFile(name, []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := lan().Load(name)
	if err != nil || string(f.Instances[0].Passphrase) != "secret" || f.Path != name {
		t.Errorf("got %+v, %v", f, err)
	}
}

func TestAPassphraseInAFileThatOthersReadIsWarnedOf(t *testing.T) {
	yaml := "instances: [{vhid: 9, interface: eth0, addresses: 192.0.2.1/24, passphrase: secret}]"
	for mode, want := range map[fs.FileMode]int{0o600: 0, 0o644: 1} {
		f, err := lan().Load(secretFile(t, yaml, mode))
		if err != nil || len(f.Warnings) != want {
			t.Errorf("mode %o: got %v, %v", mode, f.Warnings, err)
		}
	}
}

func TestWhatCannotBeReadIsAProblemToo(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("directory: %v", err)
	}
	if _, err := Parse("big", make([]byte, MaxFile+1), lan()); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("big file: %v", err)
	}
	if _, err := Parse("x", []byte("instances: [{vhid: 1, interface: e, addresses: 192.0.2.1, passphrase_file: none}]"), lan()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing passphrase file: %v", err)
	}
}

func TestAConfigurationThatIsAPipeHoldsNothingUp(t *testing.T) {
	t.Parallel()
	load := func(name string) (*File, error) {
		t.Helper()
		type result struct {
			f   *File
			err error
		}
		done := make(chan result, 1)
		go func() { f, err := lan().Load(name); done <- result{f, err} }()
		select {
		case r := <-done:
			return r.f, r.err
		case <-time.After(5 * readTime):
			t.Fatal("it is waited for")
			return nil, nil
		}
	}
	name := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(name); err == nil {
		t.Error("a pipe that nobody writes to was taken")
	}
	other, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := load(name); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a pipe whose writer is silent: %v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("instances: [{vhid: 9, interface: eth0, passphrase: x, addresses: 192.0.2.1/24}]"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if f, err := load(fmt.Sprintf("/dev/fd/%d", r.Fd())); err != nil || len(f.Instances) != 1 {
		t.Errorf("a pipe with a configuration: %v", err)
	}
	if _, err := load("/dev/zero"); err == nil || !strings.Contains(err.Error(), "neither a regular file") {
		t.Errorf("a device: %v", err)
	}
}

func TestTheListOfProblemsIsBounded(t *testing.T) {
	_, err := Parse("x", []byte("instances:\n"+strings.Repeat("  - {}\n", 1000)), lan())
	var problems Problems
	if !errors.As(err, &problems) || len(problems) > 2*MaxProblems+1 || !strings.Contains(err.Error(), "more problems are not shown") {
		t.Errorf("got %d problems", len(problems))
	}
}

func TestFormatsOfEditorsAreRead(t *testing.T) {
	for name, data := range map[string]string{
		"byte order mark": "\ufeffinstances: [{vhid: 9, interface: eth0, passphrase: x, addresses: 192.0.2.1/24}]",
		"carriage return": "instances:\r\n  - vhid: 9\r\n    interface: eth0\r\n    passphrase: x\r\n    addresses:\r\n      - 192.0.2.1/24\r\n",
		"document start":  "---\ninstances: [{vhid: 9, interface: eth0, passphrase: x, addresses: 192.0.2.1/24}]\n...\n",
	} {
		f, err := Parse("x", []byte(data), lan())
		if err != nil || f.Instances[0].Addresses[0].String() != "192.0.2.1/24" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeysListsEachKeyOnce(t *testing.T) {
	keys := Keys()
	if !slices.IsSorted(keys) || len(slices.Compact(slices.Clone(keys))) != len(keys) {
		t.Errorf("got %v", keys)
	}
	for _, k := range []string{"node", "instances", "vhid", "vrid", "roll", "if_it_fails"} {
		if !slices.Contains(keys, k) {
			t.Errorf("%s is missing", k)
		}
	}
	for _, k := range Planned() {
		if slices.Contains(keys, k) {
			t.Errorf("%s is planned and known", k)
		}
	}
}

func TestAPassphraseIsTakenAsItIsWritten(t *testing.T) {
	for written, want := range map[string]string{
		"007": "007", "1_000": "1_000", "0x1F": "0x1F", "yes": "yes", "1e3": "1e3", "true": "true", `"a: #b"`: "a: #b", `'it''s'`: "it's", `"\u00e9"`: "é",
	} {
		f := mustParse(t, "instances:\n  - vhid: 9\n    interface: eth0\n    addresses: 192.0.2.1\n    passphrase: "+written+"\n")
		if got := string(f.Instances[0].Passphrase); got != want {
			t.Errorf("%s: got %q", written, got)
		}
	}
}

func TestDurationsAreWhatTheyLookLike(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "3": 3 * time.Second, "1.5": 1500 * time.Millisecond, "500ms": 500 * time.Millisecond, "1h30m": 90 * time.Minute,
		"5u": -1, "5n": -1, "5m3": -1, "2m30": -1, "1m1": -1, "": -1, ".": -1, "s": -1, "1.2.3": -1, "3 s": -1, "+": -1, "1e3": -1,
	} {
		got, err := parseDuration(text)
		if (want < 0) != (err != nil) || err == nil && got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestNamesThatMeanSomethingElseAreRefused(t *testing.T) {
	for _, line := range []string{`name: "."`, "name: ..", `name: ":"`, `name: "@"`, "name: _", "name: -x", `groups: [".."]`, "interface: lo"} {
		text := "instances:\n  - vhid: 9\n    interface: eth0\n    passphrase: x\n    addresses: 192.0.2.1\n    " + line + "\n"
		if strings.HasPrefix(line, "interface") {
			text = strings.Replace(text, "    interface: eth0\n", "", 1)
		}
		if _, err := Parse("x", []byte(text), lan()); err == nil || !strings.Contains(err.Error(), "is not a name") && !strings.Contains(err.Error(), "no other node") {
			t.Errorf("%s: %v", line, err)
		}
	}
	for _, name := range []string{"9@eth0", "web", "a.b_c-d:e", "0"} {
		mustParse(t, "groups: [a]\ninstances:\n  - vhid: 9\n    interface: lo0\n    passphrase: x\n    addresses: 192.0.2.1\n    name: "+name+"\n")
	}
}

func TestTheExamplesOfTheManualLoad(t *testing.T) {
	page, err := os.ReadFile("../../carpd/carpd.yaml.5")
	if err != nil {
		t.Fatal(err)
	}
	pass, examples := secretFile(t, "mekmitasdigoat\n", 0o600), 0
	short := secretFile(t, "8 bytes!\n", 0o600) // all that VRRP has room for
	o := lan()
	o.CheckHook = nil // the program of the example is not on this machine
	for block := range strings.SplitSeq(string(page), ".Bd -literal -offset indent\n") {
		yaml, _, _ := strings.Cut(block, "\n.Ed")
		if !strings.Contains(yaml, "\ninstances:") && !strings.HasPrefix(yaml, "instances:") {
			continue
		}
		examples++
		for _, name := range []string{"/etc/carpd/vhid9.pass", "/etc/carpd/shared.pass", "web.pass"} {
			file := pass
			if strings.Contains(yaml, "vrrp2") {
				file = short
			}
			yaml = strings.ReplaceAll(yaml, name, file)
		}
		if f, err := Parse("carpd.yaml", []byte(yaml), o); err != nil || len(f.Warnings) > 0 {
			t.Errorf("%v, %+v in\n%s", err, f, yaml)
		}
	}
	if examples != 5 {
		t.Errorf("found %d examples", examples)
	}
}
