package sqlite_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/database"
	"github.com/carpd/carpd/hooks/hookstest"
	"github.com/carpd/carpd/hooks/sqlite"
	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
)

// TestMain runs the application instead of the tests when the start script says so.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "application" {
		if err := application(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// application serves what its database says, until it is told to end: "bad" cannot be
// served, "stubborn" does not end.
func application(path, pidFile string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close() // it has its database open all the time
	value, err := read(path)
	if err != nil || value == "bad" {
		return fmt.Errorf("cannot serve %q: %w", value, err)
	}
	if err := os.WriteFile(pidFile+".new", fmt.Appendln(nil, os.Getpid()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(pidFile+".new", pidFile); err != nil {
		return err
	}
	for range stop {
		if value != "stubborn" {
			return os.Remove(pidFile)
		}
	}
	return nil
}

func read(path string) (value string, err error) {
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		return "", err
	}
	defer db.Close()
	return value, db.QueryRowContext(context.Background(), "SELECT value FROM t WHERE name='value'").Scan(&value)
}

// write sets the value, in a database that may not be there yet.
func write(t testing.TB, path, value string) {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, q := range []string{"CREATE TABLE IF NOT EXISTS t(name TEXT PRIMARY KEY, value TEXT)", "INSERT OR REPLACE INTO t VALUES('node', 'of-' || '" + value + "')",
		"INSERT OR REPLACE INTO t VALUES('value', '" + value + "')"} {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
}

// empty takes all rows out of the table.
func empty(t testing.TB, path string) {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "DELETE FROM t"); err != nil {
		t.Fatal(err)
	}
}

// node is a machine with the application.
type node struct {
	t      testing.TB
	dir    string
	config sqlite.Config
}

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{t: t, dir: hookstest.SafeDir(t)}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	alive := `[ -e $D/pid ] && kill -0 "$(cat $D/pid)" 2>/dev/null`
	n.config = sqlite.Config{
		Config: database.Config{
			Database: n.path("app/app.db"), Store: n.path("store"), StartTimeout: 10 * time.Second, StopTimeout: 10 * time.Second,
			Start: n.script("start", alive+` && exit 0
rm -f $D/pid
setsid `+self+` application $D/app/app.db $D/pid </dev/null >/dev/null 2>&1 &`),
			Stop:   n.script("stop", alive+` && kill "$(cat $D/pid)"; exit 0`),
			Status: n.script("status", alive+` || exit 3`),
		},
		Check: n.script("check", alive),
	}
	if err := os.Mkdir(n.path("app"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.end)
	return n
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

func (n *node) script(name, text string) []string {
	n.t.Helper()
	path := n.path(name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\nD="+n.dir+"\n"+text+"\n"), 0o700); err != nil {
		n.t.Fatal(err)
	}
	return []string{path}
}

// pid is that of the application, 0 if it does not run.
func (n *node) pid() (pid int) {
	b, err := os.ReadFile(n.path("pid"))
	if err != nil {
		return 0
	}
	if _, err := fmt.Sscan(string(b), &pid); err != nil || pid <= 1 || syscall.Kill(pid, 0) != nil {
		return 0
	}
	return pid
}

// end ends the application, whatever state it is in.
func (n *node) end() {
	until := time.Now().Add(10 * time.Second)
	for pid := n.pid(); pid > 0 && time.Now().Before(until); pid = n.pid() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			n.t.Log(err)
		}
	}
}

func (n *node) open() hooks.Resource {
	n.t.Helper()
	r, err := sqlite.New(n.config)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// publish makes a snapshot with this value, taken on another node.
func (n *node) publish(source string, v replicator.Version, value string) {
	n.t.Helper()
	path := filepath.Join(n.t.TempDir(), "x.db")
	write(n.t, path, value)
	b, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	s, err := dir.Open(n.t.Context(), n.config.Store)
	if err == nil {
		err = s.Publish(n.t.Context(), replicator.Manifest{Version: v, Source: source, Time: time.Unix(1e9, 0), Kind: "sqlite", Size: int64(len(b)),
			SHA256: hex.EncodeToString(sum[:]), PageSize: 4096, Pages: int64(len(b)) / 4096, Rows: map[string]int64{"t": 2}}, bytes.NewReader(b))
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// v is a version of another node.
func v(epoch carp.Epoch, sequence uint64) replicator.Version {
	return replicator.Version{Epoch: epoch, Node: 2, Sequence: sequence}
}

func (n *node) event(epoch carp.Epoch) hooks.Event {
	ev := hookstest.SampleEvent(hooks.BeforeUp)
	ev.Node, ev.NodeID, ev.Epoch = "here", 1, epoch
	return ev
}

// promote promotes and demands that the application serves this value.
func (n *node) promote(r hooks.Resource, epoch carp.Epoch, want string) {
	n.t.Helper()
	n.serves(r, epoch, want, hooks.Healthy)
}

// serves is promote with what is said of its health: an older configuration is Degraded.
func (n *node) serves(r hooks.Resource, epoch carp.Epoch, want string, health hooks.Health) {
	n.t.Helper()
	if err := r.Promote(n.t.Context(), n.event(epoch)); err != nil {
		n.t.Fatal(err)
	}
	if got, err := read(n.config.Database); err != nil || got != want || n.pid() == 0 {
		n.t.Fatalf("it serves %q (process %d, %v), want %q", got, n.pid(), err, want)
	}
	if report, err := r.Monitor(n.t.Context()); err != nil || report.Role != hooks.RolePromoted || report.Health != health {
		n.t.Errorf("it is %+v, %v", report, err)
	}
}

func (n *node) demote(r hooks.Resource) {
	n.t.Helper()
	if err := r.Demote(n.t.Context(), n.event(99)); err != nil {
		n.t.Fatal(err)
	}
	if n.pid() != 0 && n.config.OnDemotion != database.Leave {
		n.t.Error("it still runs")
	}
}

// refuses demands that a promotion fails, says this, and leaves nothing running.
func (n *node) refuses(r hooks.Resource, epoch carp.Epoch, want string) {
	n.t.Helper()
	err := r.Promote(n.t.Context(), n.event(epoch))
	if err == nil || !strings.Contains(err.Error(), want) || n.pid() != 0 {
		n.t.Errorf("%v (process %d), want %q", err, n.pid(), want)
	}
}
