package proxysqlstub_test

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	driver "github.com/go-sql-driver/mysql"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers/proxysqlstub"
)

// TestTheAdminPortAnswersAsProxySQLDoes goes through the answers and errors of ProxySQL
// 2.7.1, as a client in Go sees them.
func TestTheAdminPortAnswersAsProxySQLDoes(t *testing.T) {
	t.Parallel()
	lan := lab.New(t)
	h := lan.Host("a", "192.0.2.1/24")
	n, admin := started(t, h, proxysqlstub.Options{})
	stats := n.Open(n.AdminAddr(), "viewer", "made-up-viewer")
	t.Cleanup(func() { _ = stats.Close() })
	stats.SetMaxOpenConns(1)

	syntax := func(word string) string {
		return "1045 28000 ProxySQL Admin Error: near \"" + word + "\": syntax error"
	}
	const readonly = "1045 28000 ProxySQL Admin Error: attempt to write a readonly database"
	for _, c := range []struct{ who, ask, want string }{
		{"admin", "NONSENSE", syntax("NONSENSE")},
		{"admin", "INSERT INTO mysql_servers (hostgroup_id, hostname) VALUES (10, 'db1.orders.example')", "1045 28000 ProxySQL Admin Error: UNIQUE constraint failed: mysql_servers.hostgroup_id, "},
		{"admin", "SELECT * FROM no_such", "1045 28000 ProxySQL Admin Error: no such table: no_such"},
		{"stats", "SELECT * FROM runtime_checksums_values", "1045 28000 ProxySQL Admin Error: no such table: runtime_checksums_values"},
		{"stats", "SELECT * FROM mysql_users", "1045 28000 ProxySQL Admin Error: no such table: mysql_users"},
		{"stats", "SELECT GLOBAL_CHECKSUM()", "1045 28000 ProxySQL Admin Error: no such function: GLOBAL_CHECKSUM"},
		{"stats", "LOAD MYSQL USERS TO RUNTIME", syntax("LOAD")},
		{"stats", "PROXYSQL SHUTDOWN", syntax("PROXYSQL")},
		{"stats", "DELETE FROM stats_mysql_global", readonly},
		{"admin", "LOAD MYSQL USERS TO RUNTIME -- now", syntax("LOAD")},
		{"admin", "/* now */ LOAD MYSQL USERS TO RUNTIME", syntax("LOAD")},
		{"admin", "LOAD MYSQL USERS TO RUNTIME; SAVE MYSQL USERS TO DISK", syntax("LOAD")},
		{"admin", "LOAD EVERYTHING TO RUNTIME", syntax("LOAD")},
		{"admin", "load   mysql\tusers to runtime ; ", ""},
		{"admin", "SET nothing-like-it='1'", ""},
		{"admin", "BEGIN", ""},
		{"admin", "LOCK TABLES mysql_users WRITE", ""},
		{"admin", "SET NAMES utf8mb4", ""},
		{"admin", "USE main", ""},
		{"admin", "PROXYSQL READONLY", ""},
		{"admin", "DELETE FROM mysql_users", readonly},
		{"admin", "VACUUM disk INTO '" + filepath.Join(n.Data, "no.db") + "'", readonly},
		{"admin", "SAVE MYSQL USERS TO DISK", ""},
		{"admin", "PROXYSQL READWRITE", ""},
		{"admin", "VACUUM disk INTO '" + filepath.Join(n.Data, "proxysql.db") + "'", "1045 28000 ProxySQL Admin Error: output file already exists"},
		{"stats", "SELECT * FROM stats.stats_mysql_global", ""},
		{"stats", "SELECT * FROM stats_proxysql_servers_checksums", ""},
		{"stats", "SELECT * FROM monitor.mysql_server_read_only_log", ""},
	} {
		db := admin
		if c.who == "stats" {
			db = stats
		}
		_, err := db.Exec(c.ask)
		if got := told(err); got != c.want && !(c.want != "" && strings.HasSuffix(c.want, ", ") && strings.HasPrefix(got, c.want)) {
			t.Errorf("%s: %s\n got %q\nwant %q", c.who, c.ask, got, c.want)
		}
	}

	t.Run("one statement a query", func(t *testing.T) {
		run(t, admin, "DELETE FROM scheduler WHERE 0; DELETE FROM scheduler")
		same(t, admin, "SELECT count(*) FROM scheduler", "2")
	})
	t.Run("no transactions", func(t *testing.T) {
		run(t, admin, "BEGIN", "UPDATE mysql_users SET comment='stays' WHERE username='reporting'", "ROLLBACK")
		same(t, admin, "SELECT comment FROM mysql_users WHERE username='reporting'", "stays")
	})
	t.Run("nothing prepared", func(t *testing.T) {
		_, err := n.Open(n.AdminAddr(), "ops", "made-up-ops").Prepare("SELECT ?")
		if got := told(err); got != "1045 28000 Command not supported" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("rows that were changed", func(t *testing.T) {
		r, err := admin.Exec("UPDATE mysql_servers SET weight=weight WHERE hostgroup_id=20")
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := r.RowsAffected(); got != 3 {
			t.Errorf("%d rows, want 3", got)
		}
	})
	t.Run("all columns are text", func(t *testing.T) {
		for query, want := range map[string]string{"SELECT port FROM mysql_servers": "VARCHAR", "SELECT GLOBAL_CHECKSUM()": "UNSIGNED BIGINT"} {
			rows, err := admin.Query(query)
			if err != nil {
				t.Fatal(err)
			}
			types, err := rows.ColumnTypes()
			if err != nil || types[0].DatabaseTypeName() != want {
				t.Errorf("%s: %v, %v, want %s", query, types[0].DatabaseTypeName(), err, want)
			}
			_ = rows.Close()
		}
	})
	t.Run("a file that is attached", func(t *testing.T) {
		same(t, admin, "SELECT file FROM pragma_database_list WHERE name='disk'", n.Database())
		rows, err := admin.Query("SHOW DATABASES")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rows.Close() }()
		var names []string
		for rows.Next() {
			var seq, name, file string
			if err := rows.Scan(&seq, &name, &file); err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		if got := strings.Join(names, " "); got != "main disk stats monitor stats_history" {
			t.Errorf("SHOW DATABASES lists %s", got)
		}
	})
	t.Run("a login", func(t *testing.T) { logins(t, n, lan.Host("b", "192.0.2.2/24")) })
}

// logins tries users from the node itself and from another host.
func logins(t *testing.T, n *proxysqlstub.Node, other *lab.Host) {
	far := *n
	far.Host = other
	for _, c := range []struct {
		from                       *proxysqlstub.Node
		addr, user, password, want string
	}{
		{n, n.AdminAddr(), "ops", "wrong", "1045 28000 ProxySQL Error: Access denied for user 'ops'@'127.0.0.1' (using password: YES)"},
		{n, n.AdminAddr(), "nobody", "", "1045 28000 ProxySQL Error: Access denied for user 'nobody'@'127.0.0.1' (using password: NO)"},
		{n, n.AdminAddr(), "admin", "made-up-admin", ""},
		{n, "192.0.2.1:6032", "admin", "made-up-admin", "1040 42000 User 'admin' can only connect locally"},
		{&far, "192.0.2.1:6032", "stats", "made-up-stats", "1040 42000 User 'stats' can only connect locally"},
		{&far, "192.0.2.1:6032", "viewer", "made-up-viewer", ""},
		{&far, "192.0.2.1:6032", "ops", "made-up-ops", ""},
	} {
		db := c.from.Open(c.addr, c.user, c.password)
		if got := told(db.Ping()); got != c.want {
			t.Errorf("%s at %s: got %q, want %q", c.user, c.addr, got, c.want)
		}
		_ = db.Close()
	}
}

// told is an error as a client is told it.
func told(err error) string {
	var e *driver.MySQLError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return strings.TrimSuffix(strings.Join([]string{strconv.Itoa(int(e.Number)), string(e.SQLState[:]), e.Message}, " "), "\x00")
	}
	return err.Error()
}
