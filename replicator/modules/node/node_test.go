package node_test

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/carpd/carpd/replicator/sqlite" // registers the driver
	"golang.org/x/crypto/ssh"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/replicator/modules"
	"github.com/carpd/carpd/replicator/modules/mesh"
	"github.com/carpd/carpd/replicator/modules/node"
	"github.com/carpd/carpd/replicator/sqlite"
)

func key(t testing.TB, id int) ssh.Signer {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = byte(id)
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// member is a node with a database that a program uses.
type member struct {
	t     testing.TB
	id    int
	count int
	dir   string // of all: sockets
	home  string // of its database and state
	db    *sql.DB
	node  *node.Node
	mesh  *mesh.Mesh
	stop  func()
}

const schema = `CREATE TABLE users (name TEXT PRIMARY KEY, password TEXT); CREATE TABLE groups (id INTEGER PRIMARY KEY, name TEXT)`

// members is a cluster whose nodes run, each with a database.
func members(t testing.TB, count int) []*member {
	t.Helper()
	dir := t.TempDir()
	var all []*member
	for i := range count {
		m := &member{t: t, id: i + 1, count: count, dir: dir, home: t.TempDir()}
		var err error
		if m.db, err = sql.Open("sqlite3", filepath.Join(m.home, "app.db")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.db.Close() })
		m.execute(schema)
		all = append(all, m)
		m.start()
	}
	return all
}

func (m *member) execute(statement string, args ...any) {
	m.t.Helper()
	if _, err := m.db.Exec(statement, args...); err != nil {
		m.t.Fatal(err)
	}
}

func (m *member) path(name string) string { return filepath.Join(m.home, name) }

func (m *member) socket(id int) string { return filepath.Join(m.dir, fmt.Sprint(id)) }

// start runs the node until stop, or the end of the test.
func (m *member) start() {
	m.t.Helper()
	if err := os.Remove(m.socket(m.id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Fatal(err)
	}
	listen, err := net.Listen("unix", m.socket(m.id))
	if err != nil {
		m.t.Fatal(err)
	}
	c := mesh.Config{Self: uint8(m.id), Cluster: "test", Key: key(m.t, m.id), Listen: listen,
		Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", address)
		}}
	cfg := node.Config{
		Config: modules.Config{Self: uint8(m.id), Interval: 200 * time.Millisecond,
			Modules: []modules.Module{{Name: "users", Guarded: []string{"users"}, Diffs: 3}, {Name: "groups", Diffs: 3}}},
		Backend: &sqlite.Tables{Path: m.path("app.db"), Groups: map[string][]string{"users": {"users"}, "groups": {"groups"}}},
		State:   &node.StateFile{Path: m.path("state")}, Aside: &node.Aside{Dir: m.path("aside")}, Look: 50 * time.Millisecond,
	}
	for i := 1; i <= m.count; i++ {
		if i != m.id {
			c.Peers = append(c.Peers, mesh.Peer{Node: uint8(i), Address: m.socket(i), Key: key(m.t, i).PublicKey()})
			cfg.Peers = append(cfg.Peers, uint8(i))
		}
	}
	if m.mesh, err = mesh.New(c); err != nil {
		m.t.Fatal(err)
	}
	cfg.Mesh = m.mesh
	if m.node, err = node.New(cfg); err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- m.mesh.Run(ctx) }()
	go func() { ended <- m.node.Run(ctx) }()
	stopped := false
	m.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				m.t.Error(err)
			}
		}
	}
	m.t.Cleanup(m.stop)
}

func (m *member) status() node.Status {
	m.t.Helper()
	s, err := m.node.Status(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

func (m *member) users() string {
	m.t.Helper()
	var s string
	if err := m.db.QueryRow(`SELECT coalesce(group_concat(name,' '),'') FROM (SELECT name FROM users ORDER BY name)`).Scan(&s); err != nil {
		m.t.Fatal(err)
	}
	return s
}

func (m *member) inSync() bool {
	for _, s := range m.status().Modules {
		if s.Standing != modules.InSync {
			return false
		}
	}
	return true
}

// until polls a condition.
func until(t testing.TB, what string, all []*member, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(begin) > 30*time.Second {
			for _, m := range all {
				b, _ := json.Marshal(m.status())
				t.Logf("node %d: %s\n%s", m.id, m.users(), b)
			}
			t.Fatalf("not within 30 s: %s", what)
		}
		<-tick.C
	}
	return time.Since(begin)
}

func hold(t testing.TB, m *member, term uint64) {
	t.Helper()
	if err := m.node.Hold(t.Context(), carp.Epoch(term)); err != nil {
		t.Fatal(err)
	}
}

func seed(t testing.TB, m *member) {
	t.Helper()
	for _, name := range []string{"users", "groups"} {
		if err := m.node.Seed(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

func everywhere(all []*member, want string) func() bool {
	return func() bool {
		for _, m := range all {
			if m.users() != want || !m.inSync() {
				return false
			}
		}
		return true
	}
}

func TestDatabasesOfACluster(t *testing.T) {
	all := members(t, 4)
	a, b := all[0], all[1]
	a.execute(`INSERT INTO users VALUES ('anna', 'secret')`)
	a.execute(`INSERT INTO groups VALUES (1, 'all')`)
	until(t, "looked at", all, func() bool { return a.status().Modules[1].Holds != modules.Sum{} })
	hold(t, a, 1)
	seed(t, a)
	until(t, "all hold the seed", all, everywhere(all, "anna"))

	t.Run("a change is everywhere", func(t *testing.T) {
		a.execute(`INSERT INTO users VALUES ('bert', 'secret')`)
		t.Logf("after %v", until(t, "the change", all, everywhere(all, "anna bert")))
	})
	t.Run("a change elsewhere is put back, and kept aside", func(t *testing.T) {
		b.execute(`INSERT INTO users VALUES ('mallory', 'made-up-password')`)
		until(t, "it is put back", all, func() bool { return b.users() == "anna bert" && b.inSync() })
		files, err := filepath.Glob(b.path("aside/*-users.json"))
		if err != nil || len(files) != 1 {
			t.Fatalf("kept aside: %v, %v", files, err)
		}
		text, err := os.ReadFile(files[0])
		if err != nil || !strings.Contains(string(text), "mallory") {
			t.Errorf("%s, %v", text, err)
		}
		if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("passwords in a file of mode %v, %v", info.Mode(), err)
		}
	})
	t.Run("the holder empties users", func(t *testing.T) {
		a.execute(`DELETE FROM users`)
		until(t, "it is refused", all, func() bool { return a.status().Modules[1].Standing == modules.Refusing })
		if b.users() != "anna bert" {
			t.Errorf("another node holds %q", b.users())
		}
		a.execute(`INSERT INTO users VALUES ('carl', '')`)
		until(t, "the next change", all, everywhere(all, "carl"))
	})
	t.Run("a node comes back without its state and another is the holder", func(t *testing.T) {
		a.stop()
		if err := os.Remove(a.path("state")); err != nil {
			t.Fatal(err)
		}
		a.execute(`UPDATE users SET name = 'old'`)
		hold(t, b, 2)
		b.execute(`INSERT INTO users VALUES ('dora', '')`)
		until(t, "the others", all[1:], everywhere(all[1:], "carl dora"))
		a.start()
		until(t, "all", all, everywhere(all, "carl dora"))
	})
	t.Run("all restart, and keep their stamps", func(t *testing.T) {
		before := b.status().Modules[1].Stamp
		for _, m := range all {
			m.stop()
		}
		for _, m := range all {
			m.start()
		}
		until(t, "all", all, everywhere(all, "carl dora"))
		if s := b.status().Modules[1].Stamp; s != before {
			t.Errorf("%v, was %v", s, before)
		}
	})
}

func TestANodeWhoseStateCannotBeSavedIsSilent(t *testing.T) {
	all := members(t, 2)
	a, b := all[0], all[1]
	a.execute(`INSERT INTO users VALUES ('anna', '')`)
	a.execute(`INSERT INTO groups VALUES (1, 'all')`)
	until(t, "looked at", all, func() bool { return a.status().Modules[1].Holds != modules.Sum{} })
	hold(t, a, 1)
	seed(t, a)
	until(t, "all hold the seed", all, everywhere(all, "anna"))
	// A directory is where the new file would be written.
	if err := os.Mkdir(a.path("state.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	a.execute(`INSERT INTO users VALUES ('bert', '')`)
	until(t, "it is told", all, func() bool { return a.status().Unsaved })
	until(t, "the other node notices the silence", all, func() bool { return b.status().Peers[0].Failures > 1 })
	if b.users() != "anna" {
		t.Errorf("a stamp that was not saved was told: the other node holds %q", b.users())
	}
	if err := os.Remove(a.path("state.new")); err != nil {
		t.Fatal(err)
	}
	until(t, "the change", all, everywhere(all, "anna bert"))
}

func TestTheStateFile(t *testing.T) {
	f := &node.StateFile{Path: filepath.Join(t.TempDir(), "state")}
	s, err := f.Load()
	if err != nil || s.Seen != 0 {
		t.Fatalf("no file is a fresh node: %v, %v", s, err)
	}
	s = modules.State{Format: modules.StateFormat, Seen: 7, Modules: map[string]modules.Saved{"users": {Filled: []string{"users"}}}}
	if err := f.Save(s); err != nil {
		t.Fatal(err)
	}
	if back, err := f.Load(); err != nil || back.Seen != 7 || len(back.Modules["users"].Filled) != 1 {
		t.Errorf("%v, %v", back, err)
	}
	if err := os.WriteFile(f.Path, []byte(`{"seen": 7`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(); err == nil {
		t.Error("half a file is a fresh node: it would take all from others without a word")
	}
}

func TestFewContentsAreKeptAside(t *testing.T) {
	a := &node.Aside{Dir: filepath.Join(t.TempDir(), "aside")}
	c, err := modules.Content{{Name: "t", Columns: []string{"v"}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := a.Keep("../mysql users", c); err != nil {
			t.Fatal(err)
		}
	}
	all, err := filepath.Glob(filepath.Join(a.Dir, "*"))
	if err != nil || len(all) != 16 {
		t.Errorf("%d files, %v: want 16", len(all), err)
	}
}
