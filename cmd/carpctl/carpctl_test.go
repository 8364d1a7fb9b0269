package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
)

var update = flag.Bool("update", false, "write the expected outputs of testdata anew")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clock is the time that the tests run at.
func clock() time.Time { return noon }

// daemon is a carpd of the tests: it answers what its fields say, and keeps the
// requests.
type daemon struct {
	status   api.Status
	code     int // of answers to commands
	answer   any // to commands
	requests []string
	events   func(http.ResponseWriter, *http.Request)
}

func (d *daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	d.requests = append(d.requests, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Method, r.URL.RequestURI(), body)))
	switch {
	case r.URL.Path == "/v1/status":
		json.NewEncoder(w).Encode(d.status)
	case r.URL.Path == "/v1/events" && d.events != nil:
		d.events(w, r)
	default:
		w.WriteHeader(d.code)
		json.NewEncoder(w).Encode(d.answer)
	}
}

// serve lets the daemon listen. The path is short: a socket's has 107 bytes.
func (d *daemon) serve(t *testing.T) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(d)
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return socket
}

// carpctl runs a command line and returns what a golden file holds of it.
func carpctl(ctx context.Context, socket string, args ...string) (code int, transcript string) {
	var out, err bytes.Buffer
	code = run(ctx, append([]string{"--socket", socket}, args...), &out, &err, clock)
	transcript = fmt.Sprintf("$ carpctl %s\n%s", strings.Join(args, " "), out.String())
	if err.Len() > 0 {
		transcript += "-- stderr\n" + err.String()
	}
	return code, strings.ReplaceAll(transcript, socket, "SOCKET") + fmt.Sprintf("-- exit %d\n\n", code)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join("testdata", name+".txt")
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

func threeInstances() api.Status {
	return api.Status{
		Node: "left", Version: "0.1.0", Replication: []api.Replication{},
		Config:    &api.ConfigStatus{File: "/etc/carpd/carpd.yaml", Loaded: noon.Add(-26 * time.Hour)},
		Demotions: []api.Demotion{{Owner: "operator", Target: "global", Amount: 10}},
		Log:       &api.LogStatus{Dropped: 3},
		Instances: []api.Instance{
			{
				Name: "9@eth0", Protocol: "carp", VHID: 9, Interface: "eth0", State: "MASTER", Since: noon.Add(-75 * time.Second),
				Reason: "master-timed-out", Epoch: 7, AdvBase: 1, Demotion: 10,
				Addresses: []api.Address{{Prefix: "192.0.2.10/24", Present: true}, {Prefix: "192.0.2.11/24"}},
				Hooks: []api.Hook{{Name: "mail", Kind: "exec", Phase: "after-up", State: "failed", Error: "exit status 1"}, {Name: "log", Kind: "exec", Phase: "after-up", State: "ok"},
					{Name: "db", Kind: "mysql", Phase: "resource", State: "ok", Health: "ok", Role: "promoted", Wished: "promoted", Epoch: 7, Text: "writable"},
					{Name: "web", Kind: "http", Phase: "monitor", State: "idle", Health: "unfit", Blind: "connection refused"}},
				Drops:  map[string]uint64{"hash": 12, "ttl": 1},
				Lease:  &api.Lease{ValidMS: 1000, RenewMS: 250, Note: "not gone in time"},
				Alarms: []api.Alarm{{Name: "bad-hash", Text: "192.0.2.3 has another passphrase", Since: noon.Add(-3 * time.Second), Count: 12}},
			},
			{
				Name: "10@eth0", Protocol: "carp", VHID: 10, Interface: "eth0", State: "BACKUP", Since: noon.Add(-50 * time.Hour),
				Reason: "link-up", AdvBase: 1, AdvSkew: 100, Master: &api.Master{Address: "192.0.2.3", AdvBase: 1, LastHeardMS: 400},
				Addresses: []api.Address{{Prefix: "192.0.2.20/24"}}, Hooks: []api.Hook{}, Lease: &api.Lease{Promised: true},
			},
			{
				Name: "51@eth0.vrrp6", Protocol: "vrrp3", VHID: 51, Interface: "eth0", State: "BACKUP", Since: noon.Add(-time.Hour),
				Reason: "incompatible-master", Priority: 150, EffectivePriority: 140, IntervalMS: 1000, Demotion: 10,
				Master:    &api.Master{Address: "fe80::3", Priority: 200, IntervalMS: 1000, Refused: "addresses", LastHeardMS: 400},
				Addresses: []api.Address{{Prefix: "fe80::51/64"}}, Hooks: []api.Hook{}, Lease: &api.Lease{Promised: true},
			},
		},
	}
}

func oneInstance() api.Status {
	st := threeInstances()
	st.Instances = st.Instances[1:2]
	return st
}

func TestEveryCommandPrintsAndExitsAsTheManualSays(t *testing.T) {
	when := noon.Add(-time.Minute)
	events := func(w http.ResponseWriter, _ *http.Request) {
		enc := json.NewEncoder(w)
		enc.Encode(api.Event{Seq: 4, Time: when, Instance: "9@eth0", Kind: "transition", From: "BACKUP", To: "MASTER", Reason: "master-timed-out", Text: "9@eth0: BACKUP -> MASTER (no advert)"})
		enc.Encode(api.Event{Seq: 5, Time: when.Add(time.Millisecond), Kind: "reload", Text: "nothing changes"})
	}
	done := func(text string) *daemon {
		return &daemon{status: oneInstance(), code: 200, answer: api.Result{Text: text}}
	}
	refusing := func(code int, what, hint string) *daemon {
		return &daemon{status: threeInstances(), code: code, answer: api.Error{Error: what, Hint: hint}}
	}
	for _, c := range []struct {
		name   string
		daemon *daemon
		lines  []string // command lines
		codes  []int    // the codes that they end with, in order
	}{
		{"status", &daemon{status: threeInstances()}, []string{"status", "status --json"}, []int{0, 0}},
		{"status-empty", &daemon{status: api.Status{Node: "left", Version: "0.1.0"}}, []string{"status", "is-master", "is-master --json"}, []int{0, 1, 1}},
		{"events", &daemon{events: events}, []string{"events", "events --since 3", "events --json", "events --since x", "events --json --since -1"}, []int{0, 0, 0, 2, 2}},
		{"events-follow", &daemon{events: events}, []string{"events --follow", "events --follow --json"}, []int{3, 3}},
		{"explain", &daemon{code: 200, answer: api.Explanation{Name: "9@eth0", State: "BACKUP", Lines: []string{"9@eth0 is BACKUP.", "192.0.2.3 is master."}}},
			[]string{"explain", "explain 9@eth0", "explain --json", "explain a b"}, []int{0, 0, 0, 2}},
		{"is-master", &daemon{status: threeInstances()},
			[]string{"is-master 9@eth0", "is-master 10@eth0", "is-master 11@eth0", "is-master", "is-master 9@eth0 --json", "is-master 10@eth0 --json", "is-master nobody --json"},
			[]int{0, 1, 1, 2, 0, 1, 1}},
		{"is-master-only", &daemon{status: oneInstance()}, []string{"is-master"}, []int{1}},
		{"handover", done("10@eth0 handed over to 192.0.2.3"), []string{"handover 10@eth0", "handover", "handover --json"}, []int{0, 0, 0}},
		{"handover-refused", refusing(409, "nobody took over", "is the other node up?"), []string{"handover 9@eth0", "handover 9@eth0 --json"}, []int{1, 1}},
		{"resume", done("10@eth0 takes part again"), []string{"resume", "resume 10@eth0", "resume --json 10@eth0", "resume a b"}, []int{0, 0, 0, 2}},
		{"demote", done("demotion is set"),
			[]string{"demote 240", "demote 10@eth0 0", "demote --group lan 10 --owner backup", "demote --all 10 --json", "demote 10@eth0 -- -10"}, []int{0, 0, 0, 0, 0}},
		{"demote-usage", &daemon{status: threeInstances(), code: 200, answer: api.Result{Text: "done"}},
			[]string{"demote", "demote 240", "demote 9@eth0 much", "demote --all 9@eth0 10", "demote --all --group lan 10", "demote --group= 10", "demote -10"}, []int{2, 2, 2, 2, 2, 2, 2}},
		{"state", done("10@eth0: MASTER asked for"), []string{"state master", "state 10@eth0 BACKUP", "state master --json", "state 10@eth0", "state init", "state"}, []int{0, 0, 0, 2, 2, 2}},
		{"state-unknown", refusing(404, `no instance is named "x"`, "names are listed by carpctl status"), []string{"state x master"}, []int{1}},
		{"reload", &daemon{code: 200, answer: api.ReloadResult{Applied: true, Changes: []string{"vhid 9 on eth0: advskew 0 -> 100"}}},
			[]string{"reload", "reload --json"}, []int{0, 0}},
		{"reload-dry", &daemon{code: 200, answer: api.ReloadResult{Changes: []string{"vhid 9 on eth0: removed"}}}, []string{"reload --dry-run"}, []int{0}},
		{"reload-nothing", &daemon{code: 200, answer: api.ReloadResult{Applied: true}}, []string{"reload", "reload now"}, []int{0, 2}},
		{"reload-refused", refusing(409, "carpd.yaml:3:5: error: vhid is missing", "nothing was changed"), []string{"reload"}, []int{1}},
		{"snapshots", &daemon{code: 200, answer: snapshots()}, []string{"snapshots", "snapshots proxy", "snapshots proxy --json", "snapshots a b"}, []int{0, 0, 0, 2}},
		{"snapshots-none", &daemon{code: 200, answer: api.Snapshots{Name: "proxy", Store: "/srv/proxy"}}, []string{"snapshots"}, []int{0}},
		{"snapshots-diff", &daemon{code: 200, answer: difference()},
			[]string{"snapshots diff previous newest", "snapshots diff proxy 42-1-6 42-1-7 --limit 2", "snapshots diff newest", "snapshots diff a b c d"}, []int{0, 0, 2, 2}},
		{"snapshots-same", &daemon{code: 200, answer: api.Diff{Name: "proxy", Before: "current", After: newestVersion}}, []string{"snapshots diff current newest"}, []int{0}},
		{"restore", &daemon{code: 200, answer: api.RestoreResult{Text: "put 42-1-7 in the place of /var/lib/proxysql/proxysql.db", Version: newestVersion, Done: true}},
			[]string{"restore proxy", "restore proxy 42-1-7 --json", "restore"}, []int{0, 0, 2}},
		{"restore-dry", &daemon{code: 200, answer: restoring()}, []string{"restore --dry-run proxy 42-1-6"}, []int{0}},
		{"restore-refused", refusing(409, "/var/lib/proxysql/proxysql.db is open in proxysql[17]", "stop that program first; nothing was done"), []string{"restore proxy"}, []int{1}},
		{"cluster", &daemon{code: 200, answer: clustered()}, []string{"cluster", "cluster proxy --json", "cluster a b"}, []int{1, 1, 2}},
		{"cluster-in-step", &daemon{code: 200, answer: inStep()}, []string{"cluster"}, []int{0}},
		{"cluster-stopped", &daemon{code: 200, answer: api.Cluster{Name: "proxy", NodeID: 2, Error: "address already in use"}}, []string{"cluster"}, []int{1}},
		{"cluster-steer", done("proxy: done"), []string{"cluster allow mysql_users", "cluster seed proxy mysql_users --json", "cluster seed"}, []int{0, 0, 2}},
		{"status-replication", &daemon{status: replicating()}, []string{"status"}, []int{0}},
		{"not-carpd", &daemon{code: 500, answer: "?"}, []string{"reload", "handover --json", "explain"}, []int{1, 1, 1}},
		{"usage", &daemon{}, []string{"", "statsu", "doctor", "status --jsno", "--json", "status x --json"}, []int{2, 2, 2, 2, 2, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			socket, got, codes := c.daemon.serve(t), "", []int{}
			for _, line := range c.lines {
				c.daemon.requests = nil
				code, transcript := carpctl(t.Context(), socket, strings.Fields(line)...)
				codes = append(codes, code)
				for _, r := range c.daemon.requests {
					got += "# " + r + "\n"
				}
				got += transcript
			}
			if !slices.Equal(codes, c.codes) {
				t.Errorf("exit codes %v, want %v", codes, c.codes)
			}
			golden(t, c.name, got)
		})
	}
}

func TestJSONOfStatusIsByteForByteTheDaemons(t *testing.T) {
	d := &daemon{status: threeInstances()}
	var out, want bytes.Buffer
	if code := run(t.Context(), []string{"status", "--json", "--socket", d.serve(t)}, &out, io.Discard, clock); code != 0 {
		t.Fatalf("exit %d", code)
	}
	json.NewEncoder(&want).Encode(d.status)
	if out.String() != want.String() {
		t.Errorf("got\n%swant\n%s", &out, &want)
	}
}

func TestADaemonThatCannotBeReachedIsExitThreeWithAHint(t *testing.T) {
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	dead := filepath.Join(dir, "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	broken := &daemon{events: func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }}
	for _, c := range []struct{ socket, want, args string }{
		{filepath.Join(dir, "none"), "no such socket", "status"},
		{filepath.Join(dir, "none"), "no such socket", "is-master x --json"},
		{dead, "nobody listens", "reload"},
		{filepath.Join(dir, strings.Repeat("x", 200)), "not a path", "status"},
		{broken.serve(t), "broke off", "events"},
	} {
		code, got := carpctl(t.Context(), c.socket, strings.Fields(c.args)...)
		if code != 3 || !strings.Contains(got, c.want) || !strings.Contains(got, "hint") {
			t.Errorf("%s: exit %d\n%s", c.args, code, got)
		}
	}
}

func TestPermissionIsExplainedWithTheGroupThatHasIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file to another group")
	}
	socket := (&daemon{}).serve(t)
	if err := os.Chown(socket, -1, 65533); err != nil {
		t.Fatal(err)
	}
	got := newClient(socket).unreachable(&os.PathError{Op: "connect", Err: os.ErrPermission}).(failure)
	if got.code != exitUnreachable || !strings.Contains(got.hint, "65533") {
		t.Errorf("got %+v", got)
	}
}

func TestFollowPrintsEachEventAsItComesAndEndsWellWhenInterrupted(t *testing.T) {
	printed := make(chan struct{})
	d := &daemon{events: func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(api.Event{Seq: 1, Time: noon, Kind: "reload", Text: "one"})
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}}
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		defer stop()
		select {
		case <-printed:
		case <-time.After(30 * time.Second):
		}
	}()
	out := &signalling{written: printed}
	var errs bytes.Buffer
	code := run(ctx, []string{"events", "--follow", "--socket", d.serve(t)}, out, &errs, clock)
	if code != 0 || !strings.Contains(out.String(), "one") || errs.Len() > 0 {
		t.Errorf("exit %d, %q, %q", code, out, &errs)
	}
}

// signalling is a buffer that says when it was written to first.
type signalling struct {
	bytes.Buffer
	written chan struct{}
}

func (s *signalling) Write(b []byte) (int, error) {
	if s.Len() == 0 {
		defer close(s.written)
	}
	return s.Buffer.Write(b)
}

func TestAgeHasTwoUnitsAtMost(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m1s", 3 * time.Hour: "3h0m", 49 * time.Hour: "2d1h",
	} {
		if got := age(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

func TestTheManualHasEveryCommandAndFlag(t *testing.T) {
	page, err := os.ReadFile("carpctl.8")
	if err != nil {
		t.Fatal(err)
	}
	root := (&program{}).commands()
	flags := root.PersistentFlags().FlagUsages()
	for _, c := range root.Commands() {
		if !strings.Contains(string(page), "\n.It Cm "+c.Name()) {
			t.Errorf("command %s is missing", c.Name())
		}
		flags += c.Flags().FlagUsages()
	}
	for _, f := range regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(flags, -1) {
		if !strings.Contains(string(page), "Fl Fl "+f[1]) {
			t.Errorf("flag --%s is missing", f[1])
		}
	}
}

func TestSealShowsClocksAndMembers(t *testing.T) {
	st := threeInstances()
	reserved := noon.Add(time.Minute)
	st.Instances[0].Seal = &api.Seal{
		Replay: "sealed", NodeID: 1, WindowMS: 30000, Clock: noon.Add(90 * time.Second), AheadMS: 90000, Reserved: &reserved, Probes: 1,
		Nodes: []api.SealNode{{NodeID: 2, Address: "192.0.2.3", Clock: noon, LastHeardMS: 4000}},
	}
	st.Instances[1].Seal = &api.Seal{Replay: "window", Clock: noon, Nodes: []api.SealNode{}, Constant: []string{"192.0.2.7"}}
	d := &daemon{status: st, code: http.StatusOK, answer: api.Result{Text: "9@eth0: clocks are forgotten"}}
	socket := d.serve(t)
	_, shown := carpctl(t.Context(), socket, "seal")
	_, reset := carpctl(t.Context(), socket, "seal", "reset", "9@eth0")
	_, wrong := carpctl(t.Context(), socket, "seal", "break")
	golden(t, "seal", shown+reset+wrong)
	if want := `POST /v1/seal/reset {"name":"9@eth0"}`; !slices.Contains(d.requests, want) {
		t.Errorf("asked %q, want %s", d.requests, want)
	}
}
