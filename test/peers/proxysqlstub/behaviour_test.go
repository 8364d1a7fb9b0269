package proxysqlstub_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers/proxysqlstub"
)

// TestEachFileIsStartedOnAsProxySQLDoes starts the stand-in on each file that ProxySQL
// 2.7.1 was started on, and compares.
func TestEachFileIsStartedOnAsProxySQLDoes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("testdata", "behaviour.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	h := host(t)
	rows := strings.Split(strings.TrimSpace(string(text)), "\n")[1:]
	if len(rows) != 34 {
		t.Errorf("%d files, want 34", len(rows))
	}
	for _, row := range rows {
		f := strings.Split(row, "\t")
		t.Run(f[0], func(t *testing.T) {
			file, alone := strings.CutSuffix(f[0], " WITHOUT its journal")
			beside := []string{"-journal", "-wal"}
			if alone {
				beside = nil
			}
			n := proxysqlstub.New(t, h, proxysqlstub.Options{Database: sample(t, file, beside...), AdminWait: -1, AngelWait: time.Millisecond})
			if strings.HasPrefix(f[3], "abort") {
				aborts(t, n)
				return
			}
			serves(t, n, f[0], f[4], f[5], f[6], f[7])
		})
	}
}

// aborts checks that a start is answered with success, that no port ever opens, and that
// the angel gives up.
func aborts(t *testing.T, n *proxysqlstub.Node) {
	t.Helper()
	if err := n.Begin(); err != nil {
		t.Errorf("the start is answered with %v, want success", err)
	}
	lab.Eventually(t, 20*time.Second, "the angel to give up", func() bool {
		if n.Greets(n.ClientAddr()) || n.Greets(n.AdminAddr()) {
			t.Fatal("a port greets")
		}
		return len(n.Pids("angel")) == 0
	})
	if log := n.Log(); strings.Count(log, "signal 6") != 6 || !strings.Contains(log, "giving up") {
		t.Errorf("the log is:\n%s", log)
	}
}

// serves checks what is loaded.
func serves(t *testing.T, n *proxysqlstub.Node, file, users, servers, rules, note string) {
	t.Helper()
	n.Start()
	defer n.Kill()
	user, password := "ops", "made-up-ops"
	if strings.Contains(note, "admin/admin") {
		user, password = "admin", "admin"
	}
	db := n.Admin(user, password)
	defer func() { _ = db.Close() }()
	for table, want := range map[string]string{"mysql_users": users, "mysql_servers": servers, "mysql_query_rules": rules} {
		if want != "?" {
			same(t, db, "SELECT count(*) FROM main."+table, want)
		}
	}
	if value(t, db, "SELECT variable_value FROM disk.global_settings WHERE variable_name='uuid'") == "" && !strings.Contains(file, "hot-journal") {
		t.Error("no uuid")
	}
	logged := strings.Contains(n.Log(), "malformed")
	if said := strings.Contains(note, "one error line"); said && !logged {
		t.Error("no error line in the log")
	}
	if strings.Contains(note, "without a word") && logged {
		t.Errorf("the log is:\n%s", n.Log())
	}
	if _, list, ok := strings.Cut(note, "left behind: "); ok {
		for table := range strings.SplitSeq(list, ",") {
			if got := value(t, db, "SELECT count(*) FROM disk."+table); got == "0" && table != "mysql_hostgroup_attributes_v252" {
				t.Errorf("%s holds nothing", table)
			}
		}
	}
	if strings.Contains(note, "newest change") {
		same(t, db, "SELECT comment FROM main.mysql_users WHERE username='reporting'", "only in the wal")
	}
	if strings.Contains(note, "EMPTY") {
		same(t, db, "SELECT count(*) FROM disk.mysql_users", "0")
	}
}
