package proxysqlstub_test

import (
	"testing"
	"time"

	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers/proxysqlstub"
)

// TestClientsLogInAsUsersThatRun goes through the forms of a password and the reasons to
// refuse.
func TestClientsLogInAsUsersThatRun(t *testing.T) {
	t.Parallel()
	n, admin := started(t, host(t), proxysqlstub.Options{})
	run(t, admin, "INSERT INTO mysql_users (username, password, frontend) VALUES ('behind', 'secret', 0)", "LOAD MYSQL USERS TO RUNTIME")
	run(t, admin, "INSERT INTO mysql_users (username, password) VALUES ('late', 'secret')")
	login := func(user, password string) string {
		t.Helper()
		db := n.Open(n.ClientAddr(), user, password)
		defer func() { _ = db.Close() }()
		return told(db.Ping())
	}
	refused := func(user string) string {
		return "1045 28000 ProxySQL Error: Access denied for user '" + user + "'@'127.0.0.1' (using password: YES)"
	}
	for _, c := range []struct{ user, password, want string }{
		{"orders_app", "made-up-orders", ""},
		{"orders_app", "wrong", refused("orders_app")},
		{"名前_user", "made-up-ünïcode", ""},
		{"orders_ro", "made-up-sha1", refused("orders_ro")},
		{"old_app", "made-up-old", refused("old_app")},       // not active
		{"audit_app", "made-up-audit", refused("audit_app")}, // caching_sha2_password, which the stand-in has not
		{"behind", "secret", refused("behind")},              // at the backends only
		{"late", "secret", refused("late")},                  // in memory only
	} {
		if got := login(c.user, c.password); got != c.want {
			t.Errorf("%s: got %q, want %q", c.user, got, c.want)
		}
	}
	// The SHA1 form of a password is as good as the password.
	run(t, admin, "UPDATE mysql_users SET password='*14E65567ABDB5135D0CFD9A70B3032C179A49EE7' WHERE username='late'", "LOAD MYSQL USERS TO RUNTIME")
	if got := login("late", "secret"); got != "" {
		t.Errorf("the SHA1 form: %q", got)
	}
	run(t, admin, "DELETE FROM mysql_users", "LOAD MYSQL USERS TO RUNTIME")
	if got := login("orders_app", "made-up-orders"); got != refused("orders_app") {
		t.Errorf("without users: %q", got)
	}
}

// TestTheWriterOnDiskIsServedUntilTheFirstCheck starts with a writer on disk that is
// not one any more: clients get it until the monitor has asked. Memory and disk keep it.
func TestTheWriterOnDiskIsServedUntilTheFirstCheck(t *testing.T) {
	t.Parallel()
	n := proxysqlstub.New(t, host(t), proxysqlstub.Options{Database: sample(t, "proxysql.db"), AdminWait: -1})
	n.Backends(map[string]proxysqlstub.Backend{"db1.orders.example:3306": {ReadOnly: true}, "db2.orders.example:3306": {}})
	n.Fault("monitor-late", "4s")
	n.Start()
	app := n.Open(n.ClientAddr(), "orders_app", "made-up-orders")
	t.Cleanup(func() { _ = app.Close() })
	admin := n.Admin("ops", "made-up-ops")
	t.Cleanup(func() { _ = admin.Close() })
	same(t, app, "SELECT 1", "1")
	lab.Eventually(t, 10*time.Second, "a second to pass", func() bool {
		return value(t, admin, "SELECT Variable_Value FROM stats_mysql_global WHERE Variable_Name='ProxySQL_Uptime'") != "0"
	})
	same(t, app, "SELECT @@hostname", "db1.orders.example:3306")
	same(t, admin, "SELECT count(*) FROM monitor.mysql_server_read_only_log", "0")

	lab.Eventually(t, 10*time.Second, "the writer of now", func() bool { return value(t, app, "SELECT @@hostname") == "db2.orders.example:3306" })
	same(t, admin, "SELECT count(*) > 0 FROM monitor.mysql_server_read_only_log WHERE hostname='db2.orders.example' AND read_only=0 AND error IS NULL", "1")
	const writers = " WHERE hostgroup_id=10"
	same(t, admin, "SELECT hostname FROM runtime_mysql_servers"+writers, "db2.orders.example")
	same(t, admin, "SELECT hostname FROM main.mysql_servers"+writers, "db1.orders.example")
	same(t, admin, "SELECT hostname FROM disk.mysql_servers"+writers, "db1.orders.example")
	same(t, admin, "SELECT hostgroup FROM stats_mysql_connection_pool WHERE srv_host='db2.orders.example' ORDER BY 1 LIMIT 1", "10")
	same(t, admin, "SELECT count(*) > 0 FROM monitor.mysql_server_galera_log WHERE error IS NULL", "1")
	same(t, admin, "SELECT count(*) > 0 FROM monitor.mysql_server_ping_log WHERE ping_error IS NULL", "1")

	// Both say that they may be written to: both get writes.
	n.Backends(nil)
	n.Backends(map[string]proxysqlstub.Backend{"db1.orders.example:3306": {}, "db2.orders.example:3306": {}})
	lab.Eventually(t, 10*time.Second, "two writers", func() bool {
		return value(t, admin, "SELECT count(*) FROM runtime_mysql_servers"+writers) == "2"
	})
	// Nobody answers: after three checks nobody is a writer.
	n.Fault("backends", "timeout during read_only check")
	lab.Eventually(t, 10*time.Second, "no writer", func() bool {
		return value(t, admin, "SELECT count(*) FROM runtime_mysql_servers"+writers) == "0"
	})
	same(t, admin, "SELECT count(*) > 0 FROM monitor.mysql_server_read_only_log WHERE error LIKE 'timeout%' AND read_only IS NULL", "1")
	run(t, admin, "SET mysql-connect_timeout_server_max='50'", "LOAD MYSQL VARIABLES TO RUNTIME")
	if _, err := app.Exec("SELECT 1"); err == nil || told(err)[:10] != "9001 HY000" {
		t.Errorf("without a server: %v", err)
	}
	run(t, admin, "LOAD MYSQL SERVERS TO RUNTIME") // places them as configured, until the next check
}

// TestTheAdminSeesAndEndsClients lists the connections of clients and kills one.
func TestTheAdminSeesAndEndsClients(t *testing.T) {
	t.Parallel()
	n, admin := started(t, host(t), proxysqlstub.Options{})
	app := n.Open(n.ClientAddr(), "orders_app", "made-up-orders")
	t.Cleanup(func() { _ = app.Close() })
	same(t, app, "SELECT 1", "1")
	same(t, admin, "SELECT frontend_connections FROM stats_mysql_users WHERE username='orders_app'", "1")
	same(t, admin, "SELECT Variable_Value FROM stats_mysql_global WHERE Variable_Name='Client_Connections_connected'", "1")
	id := value(t, admin, "SELECT SessionID FROM stats_mysql_processlist WHERE user='orders_app'")
	run(t, admin, "KILL CONNECTION "+id)
	lab.Eventually(t, 5*time.Second, "the connection to be gone", func() bool {
		return value(t, admin, "SELECT count(*) FROM stats_mysql_processlist") == "0"
	})
}

// TestTheRuntimeLeavesOut what is not active, and servers that are taken out for good.
func TestTheRuntimeLeavesOut(t *testing.T) {
	t.Parallel()
	n, admin := started(t, host(t), proxysqlstub.Options{})
	run(t, admin, "UPDATE mysql_servers SET status='OFFLINE_HARD' WHERE hostname='192.0.2.33'", "LOAD MYSQL SERVERS TO RUNTIME")
	same(t, admin, "SELECT count(*) FROM runtime_mysql_servers WHERE hostname='192.0.2.33'", "0")
	same(t, admin, "SELECT count(*) FROM mysql_query_rules", "5")
	same(t, admin, "SELECT count(*) FROM runtime_mysql_query_rules", "4")
	same(t, admin, "SELECT group_concat(DISTINCT username) FROM runtime_mysql_users WHERE username LIKE 'old%'", "")
	run(t, admin, "INSERT INTO global_variables VALUES ('mysql-of_tomorrow', '1')", "LOAD MYSQL VARIABLES TO RUNTIME")
	same(t, admin, "SELECT count(*) FROM global_variables WHERE variable_name='mysql-of_tomorrow'", "0")
	// Variables are never deleted from disk.
	run(t, admin, "DELETE FROM global_variables WHERE variable_name='mysql-wait_timeout'", "SAVE MYSQL VARIABLES TO DISK")
	same(t, admin, "SELECT variable_value FROM disk.global_variables WHERE variable_name='mysql-wait_timeout'", "28800000")
	// Saving the REST routes to memory saves the scheduler instead.
	run(t, admin, "DELETE FROM scheduler", "DELETE FROM restapi_routes", "SAVE RESTAPI TO MEMORY")
	same(t, admin, "SELECT count(*) FROM scheduler", "2")
	same(t, admin, "SELECT count(*) FROM restapi_routes", "0")
	// Credentials that are loaded cut off who used the old ones.
	run(t, admin, "SET admin-admin_credentials='root2:other'", "LOAD ADMIN VARIABLES TO RUNTIME")
	db := n.Admin("ops", "made-up-ops")
	defer func() { _ = db.Close() }()
	if db.Ping() == nil {
		t.Error("old credentials are good after they were replaced")
	}
}
