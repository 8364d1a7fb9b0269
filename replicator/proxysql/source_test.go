package proxysql_test

import (
	"compress/gzip"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/proxysql"
	"github.com/carpd/carpd/replicator/sqlite"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers/proxysqlstub"
)

func TestMain(m *testing.M) {
	proxysqlstub.Enter()
	lab.Main(m)
}

// soon is for what has to come, on a busy machine.
const soon = 20 * time.Second

// sample unpacks the database that ProxySQL 2.7.1 wrote.
func sample(t testing.TB) string {
	t.Helper()
	f, err := os.Open("../sqlite/testdata/proxysql/proxysql.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	path := filepath.Join(t.TempDir(), "proxysql.db")
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// site is a host with a ProxySQL, and a client at its admin port.
type site struct {
	*proxysqlstub.Node
	host *lab.Host
	db   *sql.DB
}

func newSite(t *testing.T) *site {
	t.Helper()
	host := lab.New(t).Host("a", "192.0.2.1/24")
	n := proxysqlstub.New(t, host, proxysqlstub.Options{Database: sample(t), AdminWait: -1})
	n.Start()
	db := n.Admin("ops", "made-up-ops")
	t.Cleanup(func() { db.Close() })
	return &site{n, host, db}
}

func (s *site) do(t testing.TB, statements ...string) {
	t.Helper()
	for _, text := range statements {
		if _, err := s.db.Exec(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

// dial connects from the host of the site.
func (s *site) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = s.host.DoErr(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// source is that of the site.
func (s *site) source(t *testing.T, set func(*proxysql.SourceConfig)) *proxysql.Source {
	t.Helper()
	c := proxysql.SourceConfig{Database: s.Database(), Rules: proxysql.Rules(),
		Admin: &proxysql.Admin{Address: s.AdminAddr(), User: "ops", Password: "made-up-ops", Dial: s.dial}}
	if set != nil {
		set(&c)
	}
	source, err := proxysql.NewSource(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	return source
}

// snap takes a snapshot that has to be sound.
func snap(t *testing.T, s replicator.Source, before map[string]int64) (path string, taken replicator.Taken) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "copy.db")
	taken, err := s.Take(t.Context(), path, before)
	if err != nil {
		t.Fatal(err)
	}
	r := sqlite.Verify(t.Context(), path, sqlite.Options{SHA256: taken.Manifest.SHA256, Rules: func(replicator.Content) replicator.Rules { return proxysql.Rules() }})
	if info, err := os.Stat(path); !r.Sound() || err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("what was taken: %v, %v, %v", r.Verdict, info, err)
	}
	return path, taken
}

// changed reports whether a source says within a time that something has changed.
func changed(t *testing.T, s replicator.Source, within time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	err := s.Changed(ctx)
	if err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	return err == nil
}

const (
	addUser  = "INSERT INTO mysql_users (username, password, default_hostgroup) VALUES ('new%d', 'made-up-%d', 10)"
	loadUser = "LOAD MYSQL USERS TO RUNTIME"
	saveUser = "SAVE MYSQL USERS TO DISK"
)

func TestTheSourceOfProxySQL(t *testing.T) {
	s := newSite(t)
	t.Run("ACopyThatProxySQLMadeIsTaken", func(t *testing.T) { madeByProxySQL(t, s) })
	t.Run("WhatWasNeverSavedIsSaid", func(t *testing.T) { neverSaved(t, s) })
	t.Run("HalfASaveIsNone", func(t *testing.T) { halfSaved(t, s) })
	t.Run("AnAdminPortThatDoesNotAnswerIsDoneWithout", func(t *testing.T) { noAdminPort(t, s) })
	t.Run("WhatAKilledProcessLeftIsRemoved", func(t *testing.T) { leftOver(t, s) })
	t.Run("UnderConstantSavingEachSnapshotIsWholeAndTheAdminPortAnswers", func(t *testing.T) { constantSaving(t, s) })
	t.Run("AKilledWorkerIsSurvived", func(t *testing.T) { killedWorker(t, s) })
	if left, err := filepath.Glob(filepath.Join(s.Data, "carpd-exchange", "*")); err != nil || len(left) > 0 {
		t.Errorf("left in the data directory: %v, %v", left, err)
	}
}

func madeByProxySQL(t *testing.T, s *site) {
	source := s.source(t, nil)
	if !changed(t, source, soon) {
		t.Fatal("nothing is there before the first snapshot")
	}
	_, first := snap(t, source, nil)
	if len(first.Verdict.Notes) > 0 || first.Manifest.Kind != "proxysql" {
		t.Errorf("%+v", first)
	}
	changed(t, source, 1500*time.Millisecond)
	_, again := snap(t, source, first.Manifest.Rows)
	if again.Manifest.SHA256 != first.Manifest.SHA256 {
		t.Error("the same content has another digest")
	}
	if changed(t, source, 1500*time.Millisecond) {
		t.Error("changed, and nobody wrote")
	}
	for i := range 3 {
		s.do(t, fmt.Sprintf(addUser, i, i), loadUser, saveUser)
		if !changed(t, source, soon) {
			t.Fatal("a SAVE is not seen")
		}
		_, taken := snap(t, source, first.Manifest.Rows)
		if got := taken.Manifest.Rows["mysql_users"]; got != first.Manifest.Rows["mysql_users"]+int64(i)+1 || len(taken.Verdict.Notes) > 0 {
			t.Errorf("%d users, notes %v", got, taken.Verdict.Notes)
		}
	}
}

func neverSaved(t *testing.T, s *site) {
	source := s.source(t, nil)
	snap(t, source, nil)
	changed(t, source, 100*time.Millisecond)
	s.do(t, "UPDATE mysql_servers SET comment = 'only in memory'", "LOAD MYSQL SERVERS TO RUNTIME")
	if !changed(t, source, soon) {
		t.Fatal("a LOAD TO RUNTIME is not seen")
	}
	note := func() string {
		t.Helper()
		_, taken := snap(t, source, nil)
		return strings.Join(taken.Verdict.Notes, "; ")
	}
	await(t, "the note", func() bool {
		n := note()
		return strings.Contains(n, "not saved") && strings.Contains(n, "mysql_servers")
	})
	s.do(t, "SAVE MYSQL SERVERS TO DISK")
	await(t, "no note", func() bool { return note() == "" })
}

// await fails the test if a condition does not come true soon.
func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	if err := lab.Await(context.Background(), soon, f); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func halfSaved(t *testing.T, s *site) {
	for name, set := range map[string]func(*proxysql.SourceConfig){"admin port": nil, "file": func(c *proxysql.SourceConfig) { c.Admin = nil }} {
		source := s.source(t, set)
		_, first := snap(t, source, nil)
		for _, table := range []string{"mysql_users", "mysql_query_rules"} {
			s.do(t, "DELETE FROM disk."+table)
			path := filepath.Join(t.TempDir(), "copy.db")
			taken, err := source.Take(t.Context(), path, first.Manifest.Rows)
			if !errors.Is(err, replicator.ErrUnsound) || !taken.Verdict.Has(replicator.Emptied) {
				t.Errorf("%s: emptied %s: %v, %v", name, table, taken.Verdict, err)
			}
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: left: %v", name, err)
			}
			if table == "mysql_query_rules" { // meant, as it turns out: nothing more is written
				await(t, "what stays empty is taken", func() bool {
					path := filepath.Join(t.TempDir(), "copy.db")
					_, err := source.Take(t.Context(), path, first.Manifest.Rows)
					return err == nil
				})
			}
			s.do(t, "INSERT INTO disk."+table+" SELECT * FROM main."+table)
			if _, taken := snap(t, source, first.Manifest.Rows); taken.Manifest.Rows[table] != first.Manifest.Rows[table] {
				t.Errorf("%s: %v", name, taken.Manifest.Rows)
			}
		}
	}
}

func noAdminPort(t *testing.T, s *site) {
	for name, tc := range map[string]struct {
		set  func(*proxysql.SourceConfig)
		note string
	}{
		"wrong password":   {func(c *proxysql.SourceConfig) { c.Admin.Password = "wrong" }, "Access denied"},
		"statistics only":  {func(c *proxysql.SourceConfig) { c.Admin.User, c.Admin.Password = "stats", "stats" }, "admin port"},
		"nobody listens":   {func(c *proxysql.SourceConfig) { c.Admin.Address = "127.0.0.1:1" }, "refused"},
		"exchange missing": {func(c *proxysql.SourceConfig) { c.Exchange = "/nonexistent/dir" }, "VACUUM INTO"},
		"mute":             {nil, "no answer"},
	} {
		if tc.set == nil {
			s.Fault("admin-mute", "1")
		}
		source := s.source(t, tc.set)
		began := time.Now()
		_, taken := snap(t, source, nil)
		if notes := strings.Join(taken.Verdict.Notes, "; "); !strings.Contains(notes, "copied from the file") || !strings.Contains(notes, tc.note) || strings.Contains(notes, "made-up-ops") {
			t.Errorf("%s: %q", name, notes)
		}
		s.Fault("admin-mute", "")
		s.do(t, "UPDATE mysql_users SET comment = 'while "+name+"'", saveUser)
		if !changed(t, source, soon) {
			t.Errorf("%s: not seen", name)
		}
		snap(t, source, taken.Manifest.Rows)
		t.Logf("%s: %v", name, time.Since(began))
	}
}

func leftOver(t *testing.T, s *site) {
	where := filepath.Join(s.Data, "carpd-exchange")
	owner, err := os.Stat(s.Database())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(where)
	if err != nil || info.Mode() != os.ModeDir|0o700 || info.Sys().(*syscall.Stat_t).Uid != owner.Sys().(*syscall.Stat_t).Uid {
		t.Errorf("passwords pass through %v, %v", info, err)
	}
	left := filepath.Join(where, "carpd-snapshot-1-1.db")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.source(t, nil)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	// Who may write to the data directory leads us nowhere else.
	elsewhere := t.TempDir()
	if err := errors.Join(os.Remove(where), os.Symlink(elsewhere, where)); err != nil {
		t.Fatal(err)
	}
	_, taken := snap(t, s.source(t, nil), nil)
	if info, err := os.Stat(elsewhere); err != nil || info.Mode().Perm() == 0o700 && info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) || !strings.Contains(strings.Join(taken.Verdict.Notes, ""), "prepare") {
		t.Errorf("%v, %v, %v", info, err, taken.Verdict.Notes)
	}
	if err := os.Remove(where); err != nil {
		t.Fatal(err)
	}
}

// shelf is a store that notes what was published.
type shelf struct {
	*dir.Store
	mu  sync.Mutex
	all []replicator.Manifest
	at  []time.Time
}

func (s *shelf) Publish(ctx context.Context, m replicator.Manifest, data io.Reader) error {
	err := s.Store.Publish(ctx, m, data)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.all, s.at = append(s.all, m), append(s.at, time.Now())
	}
	return err
}

func (s *shelf) published() ([]replicator.Manifest, []time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all, s.at
}

// mastership runs a Master until stop is called.
func mastership(t *testing.T, s replicator.Source) (on *shelf, m *replicator.Master, stop func()) {
	t.Helper()
	store, err := dir.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	on = &shelf{Store: store}
	m, err = replicator.NewMaster(replicator.MasterConfig{Source: s, Store: on, Scratch: filepath.Join(t.TempDir(), "scratch"), Epoch: 1, Node: 1, Name: "a",
		Keep: replicator.Keep{Count: 5}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return on, m, stop
}

// whole are the tables that the sample has rows in and that are saved again and again.
var whole = map[string]string{"mysql_users": "MYSQL USERS", "mysql_servers": "MYSQL SERVERS", "mysql_query_rules": "MYSQL QUERY RULES", "scheduler": "SCHEDULER"}

func constantSaving(t *testing.T, s *site) {
	s.Fault("save-gap", "5ms")
	defer s.Fault("save-gap", "")
	for name, set := range map[string]func(*proxysql.SourceConfig){"admin port": nil, "file": func(c *proxysql.SourceConfig) { c.Admin = nil }} {
		on, m, stop := mastership(t, s.source(t, set))
		slowest := time.Duration(0)
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
			for table, module := range whole {
				began := time.Now()
				s.do(t, "UPDATE "+table+" SET comment = comment || '.'", "SAVE "+module+" TO DISK")
				slowest = max(slowest, time.Since(began))
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		if err := m.Flush(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		stop()
		all, _ := on.published()
		for _, m := range all {
			for table := range whole {
				if m.Rows[table] == 0 {
					t.Errorf("%s: snapshot %v has no rows of %s", name, m.Version, table)
				}
			}
		}
		if slowest > 2*time.Second {
			t.Errorf("%s: a SAVE waited %v for us", name, slowest)
		}
		status := m.Status()
		t.Logf("%s: %d snapshots, %d refused, slowest UPDATE and SAVE %v", name, status.Taken, status.Refused, slowest)
		if len(all) < 1 || name == "admin port" && len(all) < 3 { // the file is half saved most of the time
			t.Errorf("%s: %d snapshots: nothing was tested; %+v", name, len(all), status)
		}
	}
}

func killedWorker(t *testing.T, s *site) {
	on, m, _ := mastership(t, s.source(t, nil))
	await(t, "the first snapshot", func() bool { return m.Status().Taken > 0 })
	s.Kill()
	s.Start()
	s.db.Close()
	s.db = s.Admin("ops", "made-up-ops")
	t.Cleanup(func() { s.db.Close() })
	s.do(t, fmt.Sprintf(addUser, 77, 77), loadUser, saveUser)
	began := time.Now()
	want := m.Status().Newest.Rows["mysql_users"] + 1
	await(t, "the change after the crash", func() bool {
		all, _ := on.published()
		return all[len(all)-1].Rows["mysql_users"] >= want
	})
	t.Logf("%v", time.Since(began))
}
