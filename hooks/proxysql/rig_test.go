package proxysql_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/database"
	"github.com/carpd/carpd/hooks/hookstest"
	"github.com/carpd/carpd/hooks/proxysql"
	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/test/peers/proxysqlstub"
)

func TestMain(m *testing.M) {
	proxysqlstub.Enter()
	os.Exit(m.Run())
}

const samples = "../../replicator/sqlite/testdata/proxysql"

// sample returns a file of those that ProxySQL 2.7.1 was started on.
func sample(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join(samples, name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// changed returns the sample after some statements.
func changed(t testing.TB, statements ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.db")
	if err := os.WriteFile(path, sample(t, "proxysql.db"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(s, err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// marked is the sample with a mark by which it is known again.
func marked(t testing.TB, mark string) []byte {
	return changed(t, "UPDATE mysql_users SET comment='"+mark+"'")
}

// node is a machine with ProxySQL, which runs on an address of this process alone.
type node struct {
	*proxysqlstub.Node
	t      testing.TB
	dir    string
	config proxysql.Config
	n      uint64 // snapshots
}

// newNode makes a node whose ProxySQL does not run yet, on the sample.
func newNode(t testing.TB, mode string) *node {
	t.Helper()
	pid := os.Getpid()
	host := fmt.Sprintf("127.%d.%d.%d", 1+pid>>16&0x7f, pid>>8&0xff, pid&0xff)
	dir := hookstest.SafeDir(t)
	file := filepath.Join(dir, "first.db")
	if err := os.WriteFile(file, marked(t, "old"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir}
	n.Node = proxysqlstub.New(t, nil, proxysqlstub.Options{Database: file, Admin: host + ":6032", Client: host + ":6033", AdminWait: -1})
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("made-up-ops\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// As a service manager: all processes of the unit, not the one of the pid file alone.
	each := `for f in "` + n.Dir + `"/pids/*-*; do p=${f##*-}; [ "$(tr '\0' '\n' </proc/$p/cmdline 2>/dev/null | head -n 1)" = "` + n.Program() + `" ] || continue; `
	args := "'" + strings.Join(n.Args(), "' '") + "'"
	n.config = proxysql.Config{
		Config: database.Config{
			Database: n.Database(), Store: filepath.Join(dir, "store"), StartTimeout: 15 * time.Second, StopTimeout: 10 * time.Second,
			Start:  n.script("start", each+"exit 0; done; exec "+n.Program()+" "+args),
			Stop:   n.script("stop", each+"kill $p; done; exit 0"),
			Status: n.script("status", each+"exit 0; done; exit 3"),
		},
		Mode: mode, Admin: n.AdminAddr(), Client: n.ClientAddr(), User: "ops", PasswordFile: password, Backends: proxysql.Ignore,
	}
	return n
}

func (n *node) script(name, text string) []string {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		n.t.Fatal(err)
	}
	return []string{path}
}

func (n *node) runs() bool { return len(n.Pids("worker"))+len(n.Pids("angel")) > 0 }

func (n *node) open() hooks.Resource {
	n.t.Helper()
	r, err := proxysql.New(n.config)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// publish offers bytes as the newest snapshot, taken on another node at this epoch.
func (n *node) publish(epoch int, b []byte) replicator.Version {
	n.t.Helper()
	n.n++
	m := replicator.Manifest{Version: replicator.Version{Node: 2, Sequence: n.n}, Source: "other", Time: time.Unix(1e9, 0), Kind: "proxysql", Size: int64(len(b)), PageSize: 1, Pages: int64(len(b))}
	for range epoch {
		m.Version.Epoch++
	}
	sum := sha256.Sum256(b)
	m.SHA256 = hex.EncodeToString(sum[:])
	if err := n.store().Publish(n.t.Context(), m, bytes.NewReader(b)); err != nil {
		n.t.Fatal(err)
	}
	return m.Version
}

func (n *node) store() *dir.Store {
	n.t.Helper()
	s, err := dir.Open(n.t.Context(), n.config.Store)
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// ask asks the admin port for one value.
func (n *node) ask(query string) string {
	n.t.Helper()
	db := n.Admin("ops", "made-up-ops")
	defer func() { _ = db.Close() }()
	var value string
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := db.QueryRowContext(ctx, query).Scan(&value); err != nil {
		n.t.Fatalf("%s: %v", query, err)
	}
	return value
}

// tell runs a statement on the admin port.
func (n *node) tell(statements ...string) {
	n.t.Helper()
	db := n.Admin("ops", "made-up-ops")
	defer func() { _ = db.Close() }()
	for _, s := range statements {
		if _, err := db.ExecContext(n.t.Context(), s); err != nil {
			n.t.Fatalf("%s: %v", s, err)
		}
	}
}

// has demands that memory, disk and runtime have the configuration with this mark.
func (n *node) has(mark string) {
	n.t.Helper()
	for _, layer := range []string{"main.mysql_users", "disk.mysql_users", "runtime_mysql_users"} {
		if got := n.ask("SELECT MAX(comment) FROM " + layer); got != mark {
			n.t.Errorf("%s is %q, want %q", layer, got, mark)
		}
	}
	for query, want := range map[string]string{
		"SELECT COUNT(*) FROM main.mysql_users":                    "7",
		"SELECT COUNT(*) FROM disk.mysql_servers":                  "10",
		"SELECT COUNT(*) FROM disk.mysql_query_rules":              "5",
		"SELECT COUNT(DISTINCT username) FROM runtime_mysql_users": "6",
	} {
		if got := n.ask(query); got != want {
			n.t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

func event(epoch int) hooks.Event {
	ev := hookstest.SampleEvent(hooks.BeforeUp)
	ev.Node, ev.NodeID, ev.Epoch = "here", 1, 0
	for range epoch {
		ev.Epoch++
	}
	return ev
}

// promote promotes, and demands that this configuration runs.
func (n *node) promote(r hooks.Resource, epoch int, mark string) {
	n.t.Helper()
	if err := r.Promote(n.t.Context(), event(epoch)); err != nil {
		n.t.Fatal(err)
	}
	n.has(mark)
	if report, err := r.Monitor(n.t.Context()); err != nil || report.Role != hooks.RolePromoted || report.Health != hooks.Healthy {
		n.t.Errorf("it is %+v, %v", report, err)
	}
}

func (n *node) demote(r hooks.Resource) {
	n.t.Helper()
	if err := r.Demote(n.t.Context(), event(99)); err != nil {
		n.t.Fatal(err)
	}
	if report, err := r.Monitor(n.t.Context()); err != nil || report.Role != hooks.RoleDemoted {
		n.t.Errorf("it is %+v, %v", report, err)
	}
}
