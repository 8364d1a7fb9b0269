package main_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers/proxysqlstub"
)

// TestConfigurationOfProxySQLIsKeptAndRestoredWhileItRuns has an operator change, compare
// and take back a configuration on the master.
func TestConfigurationOfProxySQLIsKeptAndRestoredWhileItRuns(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	proxy := proxysqlstub.New(t, p.a.Host, proxysqlstub.Options{Database: p.a.file("first.db", sampleOfProxySQL(t), 0o600)})
	proxy.Start()
	password := p.a.file("admin.pass", "made-up-ops\n", 0o600)
	argv := func(verb string) string { return `["` + strings.Join(proxy.Control(verb), `", "`) + `"]` }
	p.a.start(settings{
		top: []string{
			"node_id: 1", "replication:",
			fmt.Sprintf("  - source: {kind: proxysql, database: %s, admin: {address: \"%s\", user: ops, password_file: %s}}", proxy.Database(), proxy.AdminAddr(), password),
			"    store: " + p.a.dir + "/snapshots",
		},
		more: []string{
			"hooks:", "  - kind: proxysql", "    timeout: 60s",
			fmt.Sprintf("    with: {database: %s, store: %s/snapshots, start: %s, stop: %s, status: %s, admin: \"%s\", client: \"%s\", user: ops, password_file: %s, backends: ignore}",
				proxy.Database(), p.a.dir, argv("start"), argv("stop"), argv("status"), proxy.AdminAddr(), proxy.ClientAddr(), password),
		},
	})
	p.a.promote()
	users := func() (n int) {
		db := proxy.Admin("ops", "made-up-ops")
		defer db.Close()
		if err := db.QueryRow("SELECT COUNT(*) FROM disk.mysql_users").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	newest := func(rows int64) func() bool {
		return func() bool {
			all := p.a.status().Replication
			return len(all) == 1 && all[0].Role == "master" && all[0].Newest != nil && all[0].Newest.Kind == "proxysql" && all[0].Newest.Rows["mysql_users"] == rows
		}
	}
	lab.Eventually(t, takeover, "the first snapshot", newest(7))
	db := proxy.Admin("ops", "made-up-ops")
	defer db.Close()
	for _, s := range []string{"INSERT INTO mysql_users(username,password,default_hostgroup) VALUES('late','hidden',10)", "LOAD MYSQL USERS TO RUNTIME", "SAVE MYSQL USERS TO DISK"} {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(s, err)
		}
	}
	lab.Eventually(t, takeover, "a snapshot of the change", newest(8))

	out, code := p.a.ctl("snapshots", "diff", "previous", "newest")
	if code != 0 || !strings.Contains(out, "\nmysql users\n  mysql_users: 1 added, 0 removed, 0 changed\n") || !strings.Contains(out, "password: (not shown)") || strings.Contains(out, "hidden") {
		t.Errorf("%d %s", code, out)
	}
	out, code = p.a.ctl("restore", "--dry-run", "proxysql", "previous")
	if code != 0 || !strings.Contains(out, "which goes on") || !strings.Contains(out, "1 removed") || users() != 8 {
		t.Errorf("%d %s", code, out)
	}
	before := proxy.Pids("worker")
	out, code = p.a.ctl("restore", "proxysql", "previous")
	if code != 0 || users() != 7 {
		t.Errorf("%d users, and %d %s", users(), code, out)
	}
	if after := proxy.Pids("worker"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("ProxySQL was %v and is %v", before, after)
	}
	lab.Eventually(t, takeover, "what was restored to be the newest", newest(7))
	if i := p.a.instance(); i.State != "MASTER" || !holdsAll(i) {
		t.Errorf("the role moved: %+v", i)
	}
}

// sampleOfProxySQL is a database that ProxySQL wrote.
func sampleOfProxySQL(t *testing.T) string {
	t.Helper()
	f, err := os.Open("../../replicator/sqlite/testdata/proxysql/proxysql.db.gz")
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
	return string(b)
}
