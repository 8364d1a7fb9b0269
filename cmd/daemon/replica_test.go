package daemon

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/cmd/daemon/config"
	"github.com/carpd/carpd/replicator/install"
)

// application is a database that a replica follows.
type application struct {
	*replica
	t  *testing.T
	db *sql.DB
}

func newApplication(t *testing.T) *application {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	d := &Daemon{node: "left", stateDir: dir, log: log, book: newBook(log)}
	p := config.Replication{
		Name: "app", Instance: "9@eth0", Store: filepath.Join(dir, "store"), Keep: config.Keeping{Count: 50, Least: 3},
		Source: config.Database{Kind: config.SourceSQLite, Database: filepath.Join(dir, "app.db")}, AlarmAfter: time.Minute,
	}
	db, err := sql.Open("sqlite3", p.Source.Database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	a := &application{d.newReplica(p, 7), t, db}
	a.exec("CREATE TABLE t(k INTEGER PRIMARY KEY, v, password)")
	return a
}

func (a *application) exec(statement string) {
	a.t.Helper()
	if _, err := a.db.Exec(statement); err != nil {
		a.t.Fatal(statement, err)
	}
}

// now is its status.
func (a *application) now() api.Replication { return a.status(time.Now()) }

// newest is the version of the newest snapshot, "" if there is none.
func (a *application) newest() string {
	all, err := a.listSnapshots(a.t.Context())
	if err != nil || len(all.Snapshots) == 0 {
		return ""
	}
	return all.Snapshots[0].Version
}

func numbered(epoch, sequence int) string { return fmt.Sprintf("%020d-007-%020d", epoch, sequence) }

func TestSnapshotsAreTakenOnlyWhileTheNodeServes(t *testing.T) {
	a := newApplication(t)
	a.start()
	defer a.end()
	poll(t, "the standby", func() bool { return a.now().Role == "standby" })
	a.serve(5)
	poll(t, "the first snapshot", func() bool { return a.newest() == numbered(5, 1) })
	a.exec("INSERT INTO t VALUES(1,'a','x')")
	poll(t, "a snapshot of the change", func() bool { return a.newest() == numbered(5, 2) })
	poll(t, "the status of it", func() bool {
		s := a.now()
		return s.Role == "master" && s.Epoch == 5 && s.Taken == 2 && s.AgeMS == 0 && s.Newest != nil && s.Newest.Version == numbered(5, 2)
	})

	a.serve(0)
	a.atRest(t.Context())
	if s := a.now(); s.Role == "master" {
		t.Errorf("at rest, and %+v", s)
	}
	a.exec("INSERT INTO t VALUES(2,'b','y')")
	poll(t, "the standby", func() bool { s := a.now(); return s.Role == "standby" && s.Newest != nil && s.Verified == 2 })
	if v := a.newest(); v != numbered(5, 2) {
		t.Errorf("%s was taken by a standby", v)
	}
	a.serve(6)
	poll(t, "a snapshot of the next mastership", func() bool { return a.newest() == numbered(6, 1) })
	poll(t, "the sum of both", func() bool { s := a.now(); return s.Taken == 3 && s.Verified == 2 })
}

func TestAReplicationThatCannotRunSaysSoAndBeginsWhenItCan(t *testing.T) {
	a := newApplication(t)
	if err := os.WriteFile(a.plan.Store, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.start()
	defer a.end()
	alarm := func() bool {
		a.alarms(time.Now())
		return slices.ContainsFunc(a.book.standing("9@eth0"), func(x api.Alarm) bool { return x.Name == "replication-app" })
	}
	poll(t, "the alarm", alarm)
	if s := a.now(); s.Role != "stopped" || s.Error == "" {
		t.Errorf("%+v", s)
	}
	if err := os.Remove(a.plan.Store); err != nil {
		t.Fatal(err)
	}
	a.serve(5) // which does not wait until it is tried again
	poll(t, "a snapshot", func() bool { return a.newest() == numbered(5, 1) })
	poll(t, "the end of the alarm", func() bool { return !alarm() })
	a.forget()
	if all := a.book.standing("9@eth0"); len(all) > 0 {
		t.Errorf("alarms stay: %v", all)
	}
}

func TestSnapshotsAreComparedWithEachOtherAndWithTheDatabase(t *testing.T) {
	a := newApplication(t)
	a.start()
	defer a.end()
	a.serve(5)
	poll(t, "the first snapshot", func() bool { return a.newest() == numbered(5, 1) })
	a.exec("INSERT INTO t VALUES(1,'a','hidden')")
	poll(t, "the second", func() bool { return a.newest() == numbered(5, 2) })
	a.serve(0)
	a.atRest(t.Context())
	a.exec("UPDATE t SET v='b'")

	for _, tc := range []struct{ before, after, want string }{
		{"previous", "newest", "t added k=1"},
		{"5-7-2", "5-7-1", "t removed k=1"},
		{numbered(5, 2), "current", "t changed k=1 v='a'>'b'"},
		{"newest", "newest", ""},
	} {
		d, err := a.diff(t.Context(), api.DiffRequest{Before: tc.before, After: tc.after})
		if err != nil {
			t.Fatal(tc, err)
		}
		got := ""
		for _, m := range d.Modules {
			for _, c := range m.Tables[0].Changes {
				got += fmt.Sprintf("%s %s %s=%s", m.Module, c.What, c.Key[0].Column, strings.TrimPrefix(c.Key[0].After, c.Key[0].Before)+c.Key[0].Before)
				for _, v := range c.Cells {
					if strings.Contains(v.Before+v.After, "hidden") || v.Column == "password" && !v.Secret {
						t.Errorf("a password is shown: %+v", v)
					}
					if c.What == "changed" {
						got += fmt.Sprintf(" %s=%s>%s", v.Column, v.Before, v.After)
					}
				}
			}
		}
		if got != tc.want {
			t.Errorf("%s to %s: %q, want %q", tc.before, tc.after, got, tc.want)
		}
	}
	for _, bad := range []api.DiffRequest{{Before: "5-7-9", After: "newest"}, {Before: "newest", After: "x"}, {Before: "", After: "1-2"}} {
		if _, err := a.diff(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "no snapshot") && !strings.Contains(err.Error(), "not a version") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(a.scratch, "current", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestAlarmsOfAReplicationSayWhatATakeoverWouldLose(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	long := now.Add(-time.Hour)
	quarantine := &api.Quarantine{Version: numbered(5, 3), Reason: "emptied", Text: "table mysql_users is empty"}
	newest := &api.Snapshot{Version: numbered(5, 2)}
	for name, tc := range map[string]struct {
		status api.Replication
		want   string // name of the only alarm, and a word of its text
		words  string
	}{
		"all is well":          {api.Replication{Role: "master", Newest: newest}, "", ""},
		"old":                  {api.Replication{Role: "master", AgeMS: 31_000, Error: "locked"}, "snapshot-age-app", "locked"},
		"not old yet":          {api.Replication{Role: "master", AgeMS: 29_000, Error: "locked"}, "", ""},
		"refusing":             {api.Replication{Role: "master", RefusingSince: &long, Fault: "emptied: users"}, "snapshot-refused-app", "emptied"},
		"received a bad one":   {api.Replication{Role: "standby", Newest: newest, LastQuarantine: quarantine}, "snapshot-refused-app", "mysql_users"},
		"a bad one before":     {api.Replication{Role: "standby", Newest: &api.Snapshot{Version: numbered(6, 1)}, LastQuarantine: quarantine}, "", ""},
		"nothing to restore":   {api.Replication{Role: "standby", Since: long}, "no-snapshot-app", "nothing to restore"},
		"a peer lags":          {api.Replication{Role: "master", Peers: []api.ReplicationPeer{{Name: "b", State: "failing", LagMS: 40_000, Error: "refused"}}}, "snapshot-lag-app", "b for 40s (refused)"},
		"a peer has more":      {api.Replication{Role: "master", Peers: []api.ReplicationPeer{{Name: "b", State: "older", Newest: "9-1-1"}}}, "snapshot-older-app", "b has 9-1-1"},
		"the store has more":   {api.Replication{Role: "master", Superseded: "9-1-1"}, "snapshot-older-app", "own store"},
		"a peer had more":      {api.Replication{Role: "master", Lost: "9-1-1"}, "snapshot-lost-app", "9-1-1"},
		"it does not run":      {api.Replication{Role: "stopped", Error: "no space"}, "replication-app", "no space"},
		"it is about to begin": {api.Replication{Role: "stopped"}, "", ""},
	} {
		tc.status.Name = "app"
		var got []condition
		for _, a := range replicationAlarms(tc.status, 30*time.Second, now) {
			if a.text != "" {
				got = append(got, a)
			}
		}
		if tc.want == "" && len(got) > 0 || tc.want != "" && (len(got) != 1 || got[0].name != tc.want || !strings.Contains(got[0].text, tc.words)) {
			t.Errorf("%s: %v, want %q", name, got, tc.want)
		}
	}
}

// TestAReloadTouchesOnlyWhatChanged has one entry stay, one change, one go and one come, in
// a mastership.
func TestAReloadTouchesOnlyWhatChanged(t *testing.T) {
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	d := &Daemon{node: "left", stateDir: dir, log: log, book: newBook(log)}
	i := &instance{d: d, name: "9@eth0"}
	d.instances = []*instance{i}
	defer func() { d.endReplicas() }()
	entry := func(name string, count int) config.Replication {
		path := filepath.Join(dir, name+".db")
		db, err := sql.Open("sqlite3", path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec("CREATE TABLE IF NOT EXISTS t(k)"); err != nil {
			t.Fatal(err)
		}
		return config.Replication{
			Name: name, Instance: "9@eth0", Store: filepath.Join(dir, "store-"+name), Keep: config.Keeping{Count: count, Least: 1},
			Source: config.Database{Kind: config.SourceSQLite, Database: path}, AlarmAfter: time.Minute, Line: count,
		}
	}
	roles := func() (all string) {
		for _, r := range d.replicas {
			all += r.plan.Name + " " + r.status(time.Now()).Role + ", "
		}
		return all
	}
	d.replicate(&config.File{NodeID: 7, Replication: []config.Replication{entry("stays", 9), entry("changes", 9), entry("goes", 9)}})
	poll(t, "three standbys", func() bool { return roles() == "stays standby, changes standby, goes standby, " })
	i.serve(5)
	poll(t, "three masters", func() bool { return roles() == "stays master, changes master, goes master, " })
	stays, changes, goes := d.replicas[0], d.replicas[1], d.replicas[2]

	stayed := entry("stays", 9)
	stayed.Line = 100 // it stands elsewhere in the file
	d.replicate(&config.File{NodeID: 7, Replication: []config.Replication{entry("comes", 9), stayed, entry("changes", 8)}})
	poll(t, "three masters again", func() bool { return roles() == "comes master, stays master, changes master, " })
	if d.replicas[1] != stays || d.replicas[2] == changes || goes.now() != "stopped" || changes.now() != "stopped" {
		t.Errorf("the one that goes is %s, the one before the change %s", goes.now(), changes.now())
	}
	i.serve(0)
	for _, r := range d.replicas {
		r.atRest(t.Context())
	}
	poll(t, "three standbys again", func() bool { return roles() == "comes standby, stays standby, changes standby, " })
}

// now is the role of a replica.
func (r *replica) now() string { return r.status(time.Now()).Role }

// TestWhoTellsLateEndsNoLaterMastership has the end of one come after the beginning of the
// next, as it does when an observer was slow.
func TestWhoTellsLateEndsNoLaterMastership(t *testing.T) {
	a := newApplication(t)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	i := &instance{d: &Daemon{log: log, book: newBook(log), replicas: []*replica{a.replica}}, name: "9@eth0"}
	i.serve(10)
	i.cease(9)
	if wanted, _ := a.want(); wanted != 10 {
		t.Errorf("the end of mastership 9 left %d", wanted)
	}
	i.cease(10)
	if wanted, _ := a.want(); wanted != 0 || i.serving.now() != 0 {
		t.Errorf("the end of mastership 10 left %d", wanted)
	}
}

// TestWhatTheMasterRestoredIsNewerThanAllSnapshots looks at what the next promotion goes by.
func TestWhatTheMasterRestoredIsNewerThanAllSnapshots(t *testing.T) {
	a := newApplication(t)
	a.start()
	defer a.end()
	a.serve(5)
	poll(t, "a snapshot", func() bool { return a.newest() == numbered(5, 1) })
	a.serve(0)
	a.atRest(t.Context())
	if err := a.db.Close(); err != nil {
		t.Fatal(err)
	}
	m, err := a.snapshotNamed(t.Context(), theNewest)
	if err != nil {
		t.Fatal(err)
	}
	place, err := install.New(install.Config{Database: a.plan.Source.Database})
	if err != nil {
		t.Fatal(err)
	}
	for _, serving := range []carp.Epoch{0, 7} {
		if err := a.install(t.Context(), place, m, serving); err != nil {
			t.Fatal(err)
		}
		if s, err := place.State(); err != nil || s.Served != uint64(serving) || s.Installed != m.Version {
			t.Errorf("restored in mastership %d: %+v, %v", serving, s, err)
		}
	}
}

func TestAReplicationApartFromItsRoleIsAnAlarm(t *testing.T) {
	a := newApplication(t)
	a.start()
	defer a.end()
	poll(t, "the standby", func() bool { return a.now().Role == "standby" })
	stands := func() bool {
		return slices.ContainsFunc(a.book.standing("9@eth0"), func(x api.Alarm) bool { return x.Name == "replication-apart-app" })
	}
	now := time.Now()
	a.together(true, now)
	a.together(true, now.Add(4*time.Second))
	if stands() {
		t.Error("it is told at once")
	}
	a.together(true, now.Add(6*time.Second))
	if !stands() {
		t.Error("it is not told")
	}
	a.together(false, now.Add(7*time.Second))
	if stands() {
		t.Error("it does not end")
	}
}

func TestWhatAMastershipKeptToItselfIsSaid(t *testing.T) {
	for want, s := range map[string]api.Replication{
		"": {Peers: []api.ReplicationPeer{{Name: "b"}}},
		"changes of the last 50ms are in no snapshot": {AgeMS: 50},
		"the newest snapshot is not with b, d":        {Peers: []api.ReplicationPeer{{Name: "b", LagMS: 1}, {Name: "c"}, {Name: "d", LagMS: 9}}},
	} {
		if got := left(s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestRoleIsHandedOverOnlyWhereAPeerHasTheNewestSnapshot(t *testing.T) {
	for _, tc := range []struct {
		role   string
		peers  []string
		refuse bool
	}{
		{"master", nil, false},
		{"master", []string{"current"}, false},
		{"master", []string{"failing", "current"}, false}, // another one is down for a week
		{"master", []string{"failing"}, true},
		{"master", []string{"behind", "older"}, true},
		{"master", []string{"unknown"}, true},
		{"standby", []string{"idle"}, false},
	} {
		s := api.Replication{Name: "app", Role: tc.role}
		for _, state := range tc.peers {
			s.Peers = append(s.Peers, api.ReplicationPeer{Name: "b", State: state})
		}
		if got := allLack(s); (got != "") != tc.refuse {
			t.Errorf("%s, peers %v: %q", tc.role, tc.peers, got)
		}
	}
}

func TestCheckFindsAllThatNothingCanBeShippedWith(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	peer := config.Shipping{Name: "b", Address: "192.0.2.2", User: "carpd", KeyFile: key, KnownHosts: key, Method: config.MethodReceive}
	p := config.Replication{Name: "app", Source: config.Database{Kind: config.SourceSQLite, Database: filepath.Join(dir, "not there yet")}, Peers: []config.Shipping{peer}}
	if err := checkReplication(p); err != nil {
		t.Error(err)
	}
	gone, odd := peer, peer
	gone.Name, gone.KeyFile = "c", filepath.Join(dir, "no key")
	odd.Name, odd.Address = "d", "192.0.2.2:none"
	p.Peers = append(p.Peers, gone, odd)
	p.Source.Admin = &config.Admin{PasswordFile: filepath.Join(dir, "no password")}
	err := checkReplication(p)
	for _, want := range []string{"peer c: stat", "no key", "peer d: ", "no password"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestAtRestDoesNotOutlastItsTime(t *testing.T) {
	a := newApplication(t)
	a.running = 5
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	a.atRest(ctx)
	if ctx.Err() == nil {
		t.Error("it returned while a mastership is at work")
	}
}
