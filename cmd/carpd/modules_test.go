package main_test

import (
	"crypto/ed25519"
	"database/sql"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/test/lab"
)

// identity writes the key of a node and returns its public half.
func (n *node) identity(id byte) (file, public string) {
	n.t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = id
	private := ed25519.NewKeyFromSeed(seed)
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		n.t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		n.t.Fatal(err)
	}
	return n.file("modules.key", string(pem.EncodeToMemory(block)), 0o600), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey())))
}

// users runs statements in the database of a node and returns what it holds then.
func (n *node) users(statements ...string) string {
	n.t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(n.dir, "app.db"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			n.t.Fatalf("%s: %s: %v", n.Name, s, err)
		}
	}
	var all string
	if err := db.QueryRow("SELECT coalesce(group_concat(name, ' '), '') FROM (SELECT name FROM users ORDER BY name)").Scan(&all); err != nil {
		n.t.Fatal(err)
	}
	return all
}

func (n *node) cluster() (c api.Cluster) {
	n.t.Helper()
	if code, err := n.try("GET", "/v1/cluster", nil, &c); err != nil || code != 200 {
		n.t.Fatalf("%s: /v1/cluster: %d, %v", n.Name, code, err)
	}
	return c
}

func TestTheMasterIsTheSourceOfChangesOfModules(t *testing.T) {
	p := newPair(t)
	keyA, publicA := p.a.identity(1)
	keyB, publicB := p.b.identity(2)
	configured := func(n *node, id, advskew int, key, other, public string) settings {
		return settings{advskew: advskew, more: []string{"preempt: false"}, top: []string{
			fmt.Sprintf("node_id: %d", id), "replication:", "  - name: app",
			fmt.Sprintf("    source: {kind: sqlite, database: %s/app.db}", n.dir),
			fmt.Sprintf("    store: %s/store", n.dir), "    sync:",
			fmt.Sprintf("      listen: 192.0.2.%d:6020", id), "      key_file: " + key,
			fmt.Sprintf("      nodes: [{node_id: %d, address: \"%s:6020\", identity: %s}]", 3-id, other, public),
			"      modules: {accounts: [users]}", "      interval: 300ms",
		}}
	}
	p.a.users("CREATE TABLE users (name TEXT PRIMARY KEY)", "INSERT INTO users VALUES ('anna')")
	p.b.users("CREATE TABLE users (name TEXT PRIMARY KEY)")
	ofA, ofB := configured(p.a, 1, 0, keyA, "192.0.2.2", publicB), configured(p.b, 2, 100, keyB, "192.0.2.1", publicA)
	p.elect(ofA, ofB)
	both := func(want string) func() bool {
		return func() bool {
			for _, n := range []*node{p.a, p.b} {
				c := n.cluster()
				if n.users() != want || len(c.Modules) != 1 || c.Modules[0].Standing != "in-sync" {
					return false
				}
			}
			return true
		}
	}
	lab.Eventually(t, takeover, "the backup to hold what the master began with", both("anna"))
	if !p.a.cluster().Holding || p.b.cluster().Holding || p.b.cluster().Holder != 1 {
		t.Error("it is not the master that holds the address")
	}
	p.a.users("INSERT INTO users VALUES ('bert')")
	lab.Eventually(t, takeover, "a change", both("anna bert"))
	p.b.users("INSERT INTO users VALUES ('mallory')")
	lab.Eventually(t, takeover, "a change at the backup to be put back", func() bool { return p.b.users() == "anna bert" })
	if out, code := p.b.ctl("cluster"); code != 0 || !strings.Contains(out, "reverted") || !strings.Contains(out, "192.0.2.1:6020") {
		t.Errorf("carpctl cluster: %d\n%s", code, out)
	}
	p.b.refused("/v1/cluster/seed", api.ClusterRequest{Module: "accounts"}, 409)

	p.a.users("DELETE FROM users")
	lab.Eventually(t, takeover, "an alarm about emptied tables", func() bool { return p.a.alarm("modules-emptied-app") != "" })
	if p.b.users() != "anna bert" {
		t.Errorf("the backup holds %q", p.b.users())
	}
	p.a.proc.Signal(syscall.SIGKILL)
	p.b.await("MASTER")
	p.b.users("INSERT INTO users VALUES ('carl')")
	lab.Eventually(t, takeover, "the change of the new master", func() bool {
		c := p.b.cluster()
		return c.Holding && c.Modules[0].Stamp.Version == 3 && c.Modules[0].Standing == "in-sync"
	})
	p.a.start(ofA)
	p.a.await("BACKUP")
	lab.Eventually(t, takeover, "who comes back to hold what is newest", both("anna bert carl"))
}
