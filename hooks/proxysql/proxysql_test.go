package proxysql_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/database"
	"github.com/carpd/carpd/hooks/hookstest"
	"github.com/carpd/carpd/hooks/proxysql"
)

var cold = flag.Bool("proxysql.cold", false, "hold mode cold to the contract of a resource, too")

// contract holds the resource to its contract, with a crash before each step.
func contract(t *testing.T, mode string) {
	n := newNode(t, mode)
	first := filepath.Join(n.dir, "first.db")
	want := marked(t, "new")
	hookstest.Resources(t, hookstest.World{
		Open: n.open,
		Reset: func(t testing.TB) {
			n.Kill()
			for _, path := range []string{n.config.Store, n.config.Database + ".carpd", n.config.Database + "-journal"} {
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
			}
			if err := n.Install(first); err != nil {
				t.Fatal(err)
			}
			n.publish(7, want)
			if mode == proxysql.Warm {
				n.Start()
			}
		},
		Check: func(role hooks.Role) error {
			promoted := role == hooks.RolePromoted
			if running := n.runs(); running != (promoted || mode == proxysql.Warm) {
				return fmt.Errorf("it runs: %v", running)
			}
			if promoted {
				n.has("new")
			}
			return nil
		},
	})
}

// TestContractOfAResourceWithACrashBeforeEachStepCold starts ProxySQL some 150 times. What
// is its own in mode cold is readiness; the plan is that of hooks/database, and kept to
// the contract by hooks/sqlite each time.
func TestContractOfAResourceWithACrashBeforeEachStepCold(t *testing.T) {
	if !*cold {
		t.Skip("1 to 2 minutes: run with -proxysql.cold")
	}
	contract(t, proxysql.Cold)
}

func TestContractOfAResourceWithACrashBeforeEachStepWarm(t *testing.T) { contract(t, proxysql.Warm) }

// modes runs a test in both modes, with ProxySQL as it is on a standby.
func modes(t *testing.T, test func(t *testing.T, n *node)) {
	for _, mode := range []string{proxysql.Warm, proxysql.Cold} {
		t.Run(mode, func(t *testing.T) {
			n := newNode(t, mode)
			if mode == proxysql.Warm {
				n.Start()
			}
			test(t, n)
		})
	}
}

func TestTheNewestServesWhereverItIs(t *testing.T) {
	modes(t, func(t *testing.T, n *node) {
		r := n.open()
		n.publish(5, marked(t, "five"))
		n.promote(r, 6, "five")
		n.tell("UPDATE mysql_users SET comment='changed'", "LOAD MYSQL USERS TO RUNTIME", "SAVE MYSQL USERS TO DISK")
		n.promote(r, 7, "changed") // in service: nothing is restored over it
		n.demote(r)
		n.promote(r, 8, "changed") // nobody else was master since
		n.demote(r)
		n.publish(9, marked(t, "nine"))
		n.promote(r, 10, "nine")
		n.demote(r)
	})
}

func TestWhatBelongsToTheNodeStaysAndAllElseTravels(t *testing.T) {
	modes(t, func(t *testing.T, n *node) {
		if n.config.Mode == proxysql.Cold {
			n.Start()
		}
		own := n.ask("SELECT variable_value FROM disk.global_settings WHERE variable_name='uuid'")
		iface := n.ask("SELECT variable_value FROM disk.global_variables WHERE variable_name='mysql-interfaces'")
		n.tell("DELETE FROM proxysql_servers WHERE hostname>=''", "SAVE PROXYSQL SERVERS TO DISK")
		if n.config.Mode == proxysql.Cold {
			n.Stop()
		}
		n.config.NodeLocal = []string{"mysql-server_version"}
		version := "SELECT variable_value FROM %s WHERE variable_name='mysql-server_version'"
		var mine string
		if n.runs() {
			mine = n.ask(fmt.Sprintf(version, "disk.global_variables"))
		}
		n.publish(5, changed(t, "UPDATE mysql_users SET comment='new'", "UPDATE global_settings SET variable_value='of-the-other' WHERE variable_name='uuid'",
			"UPDATE global_variables SET variable_value='192.0.2.9:6033' WHERE variable_name='mysql-interfaces'",
			"UPDATE global_variables SET variable_value='9.9.9' WHERE variable_name='mysql-server_version'",
			"UPDATE global_variables SET variable_value='4711' WHERE variable_name='mysql-max_connections'",
			"UPDATE scheduler SET interval_ms=77777"))
		n.promote(n.open(), 6, "new")
		for query, want := range map[string]string{
			"SELECT variable_value FROM disk.global_settings WHERE variable_name='uuid'":                      own,
			"SELECT variable_value FROM disk.global_variables WHERE variable_name='mysql-interfaces'":         iface,
			"SELECT variable_value FROM disk.global_variables WHERE variable_name='mysql-max_connections'":    "4711",
			"SELECT variable_value FROM runtime_global_variables WHERE variable_name='mysql-max_connections'": "4711",
			"SELECT COUNT(*) FROM disk.proxysql_servers":                                                      "0",
			"SELECT MAX(interval_ms) FROM disk.scheduler":                                                     "77777",
		} {
			if got := n.ask(query); got != want {
				t.Errorf("%s: %q, want %q", query, got, want)
			}
		}
		if got := n.ask(fmt.Sprintf(version, "disk.global_variables")); mine != "" && got != mine || got == "9.9.9" {
			t.Errorf("server_version is %q", got)
		}
	})
}

// offered is what is said of each file when it is the newest snapshot. "" is for a sound
// one, which runs then.
var offered = map[string]string{
	"damaged/file-format-too-new.db":        "file-format",
	"damaged/header-only.db":                "size",
	"damaged/hot-journal.db":                "size",
	"damaged/index-disagrees.db":            "integrity",
	"damaged/no-uuid.db":                    "",
	"damaged/not-a-database.db":             "not-a-database",
	"damaged/one-byte-in-a-hostname.db":     "integrity",
	"damaged/one-byte-in-a-password.db":     "", // only the digest of its maker tells
	"damaged/schema-text-damaged.db":        "integrity",
	"damaged/servers-empty.db":              "emptied",
	"damaged/servers-page-garbage.db":       "integrity",
	"damaged/truncated-half.db":             "size",
	"damaged/truncated-inside-page-1.db":    "size",
	"damaged/truncated-last-page.db":        "size",
	"damaged/truncated-one-page-missing.db": "size",
	"damaged/users-empty.db":                "emptied",
	"damaged/users-page-garbage.db":         "integrity",
	"damaged/users-page-zeroed.db":          "integrity",
	"damaged/users-table-missing.db":        "table-missing",
	"damaged/variables-page-garbage.db":     "integrity",
	"damaged/wal-mode.db":                   "wal-mode",
	"damaged/wal-with-content.db":           "wal-mode",
	"damaged/wrong-magic.db":                "not-a-database",
	"schema-other/as-of-1.4.16.db":          "",
	"schema-other/as-of-2.0.18.db":          "",
	"schema-other/as-of-2.5.5.db":           "",
	"schema-other/as-of-3.0.0-alpha.db":     "",
	"schema-other/column-added.db":          "create-text",
	"schema-other/extra-index.db":           "",
	"schema-other/extra-table.db":           "",
	"schema-other/spelling-differs.db":      "create-text",
}

// TestEachDatabaseOfProxySQLOfferedAsTheNewestGetsItsVerdict promotes a warm node with
// each; the snapshot before it is sound.
func TestEachDatabaseOfProxySQLOfferedAsTheNewestGetsItsVerdict(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(samples, "*", "*.db.gz"))
	if err != nil || len(files) != len(offered)+1 { // empty.db can be no snapshot: no manifest says 0 bytes
		t.Errorf("%d files and %d verdicts, %v", len(files), len(offered), err)
	}
	n := newNode(t, proxysql.Warm)
	n.Start()
	epoch := 10
	for name, want := range offered {
		t.Run(name, func(t *testing.T) {
			n.t = t
			epoch += 10
			n.publish(epoch, marked(t, "sound"))
			newest := n.publish(epoch+1, sample(t, name))
			r := n.open()
			if err := r.Promote(t.Context(), event(epoch+2)); err != nil {
				t.Fatal(err)
			}
			q, err := n.store().Quarantined(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if want == "" {
				if got := n.ask("SELECT COUNT(*) FROM runtime_mysql_users WHERE comment='sound'"); got != "0" {
					t.Error("the one before it runs")
				}
				if len(q) > 0 && q[0].Version == newest {
					t.Errorf("it is in quarantine: %v", q[0].Fault)
				}
			} else {
				n.has("sound")
				if len(q) == 0 || q[0].Version != newest || string(q[0].Fault.Reason) != want {
					t.Errorf("in quarantine is %v, want the newest for %s", q, want)
				}
			}
			if got := n.ask("SELECT COUNT(*) FROM disk.mysql_users"); got != "7" {
				t.Errorf("%s users", got)
			}
			n.demote(r)
		})
	}
}

func TestASaveThatLiesIsNoPromotion(t *testing.T) {
	n := newNode(t, proxysql.Warm)
	n.Start()
	n.publish(5, marked(t, "new"))
	n.Fault("disk", "disk I/O error")
	r := n.open()
	if err := r.Promote(t.Context(), event(6)); err == nil || !strings.Contains(err.Error(), "was answered with OK") {
		t.Errorf("%v", err)
	}
	n.Fault("disk", "")
	n.promote(r, 7, "new")
}

func TestAMachineThatDoesNotLetItServeIsNoReasonForAnOlderConfiguration(t *testing.T) {
	n := newNode(t, proxysql.Warm)
	n.Start()
	n.config.StartTimeout = 2 * time.Second
	n.publish(5, marked(t, "five"))
	r := n.open()
	n.promote(r, 6, "five")
	n.tell("UPDATE mysql_users SET comment='changed'", "LOAD MYSQL USERS TO RUNTIME", "SAVE MYSQL USERS TO DISK")
	n.demote(r)
	client := n.config.Client
	n.config.Client = strings.TrimSuffix(client, "6033") + "1" // where nobody listens
	if err := n.open().Promote(t.Context(), event(8)); err == nil || !strings.Contains(err.Error(), "and stays") {
		t.Errorf("nobody is served: %v", err)
	}
	n.has("changed")
	n.config.Client = client
	n.promote(n.open(), 9, "changed")
	n.demote(n.open())

	n.config.Backends = proxysql.Wait
	n.Fault("monitor-late", "1h")
	n.Stop()
	n.Start()
	n.publish(10, marked(t, "ten"))
	n.publish(11, marked(t, "eleven"))
	if err := n.open().Promote(t.Context(), event(12)); err == nil || !strings.Contains(err.Error(), "has not yet looked") {
		t.Errorf("before the monitor's first look: %v", err)
	}
	n.has("eleven")
	// What was in service here before is kept.
	var kept string
	db, err := sql.Open("sqlite3", filepath.Join(n.config.Database+".carpd", "old-2"))
	if err == nil {
		err = db.QueryRowContext(t.Context(), "SELECT MAX(comment) FROM mysql_users").Scan(&kept)
		_ = db.Close()
	}
	if err != nil || kept != "changed" {
		t.Errorf("kept is %q, %v", kept, err)
	}
	n.config.Backends = proxysql.Ignore
	n.promote(n.open(), 13, "eleven")
}

func TestClientsWaitForTheMonitorsFirstLook(t *testing.T) {
	modes(t, func(t *testing.T, n *node) {
		n.config.Backends = proxysql.Wait
		n.config.StartTimeout = 3 * time.Second
		n.config.Tries = 1
		n.Fault("monitor-late", "1h")
		if n.config.Mode == proxysql.Warm {
			n.Stop()
			n.Start()
		}
		n.publish(5, marked(t, "new"))
		r := n.open()
		if err := r.Promote(t.Context(), event(6)); err == nil || !strings.Contains(err.Error(), "has not yet looked") {
			t.Errorf("before the first look: %v", err)
		}
		n.Fault("monitor-late", "")
		n.config.StartTimeout = 30 * time.Second
		if n.config.Mode == proxysql.Warm {
			n.Stop()
			n.Start()
		}
		n.promote(n.open(), 7, "new")
	})
}

// A release that makes a table by another CREATE text drops it with its rows, and says
// nothing.
func TestATableThatProxySQLDroppedAtItsStartIsNoticedAtOnce(t *testing.T) {
	n := newNode(t, proxysql.Cold)
	n.Start()
	if err := proxysql.Ready(t.Context(), n.open(), map[string]int64{"mysql_users": 7, "mysql_servers": 10, "some_other": 3}); err != nil {
		t.Error(err)
	}
	n.tell("DELETE FROM mysql_users WHERE username>=''")
	began := time.Now()
	err := proxysql.Ready(t.Context(), n.open(), map[string]int64{"mysql_users": 7})
	if err == nil || !strings.Contains(err.Error(), "mysql_users has 0 rows in memory, and 7 in the database") || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestAPortThatTakesConnectionsAndServesNobodyIsNotReady(t *testing.T) {
	n := newNode(t, proxysql.Cold)
	n.config.StartTimeout, n.config.Tries = 2*time.Second, 1
	n.Fault("client-port", "off")
	n.publish(5, marked(t, "new"))
	r := n.open()
	if err := r.Promote(t.Context(), event(6)); err == nil || !strings.Contains(err.Error(), "clients are not served") || n.runs() {
		t.Errorf("%v, it runs: %v", err, n.runs())
	}
	n.Fault("client-port", "")
	n.promote(r, 7, "new")
}

func TestALoginOfAClientIsAskedForWhereOneIsKnown(t *testing.T) {
	n := newNode(t, proxysql.Cold)
	wrong := filepath.Join(n.dir, "wrong")
	if err := os.WriteFile(wrong, []byte("wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.config.ClientUser, n.config.ClientPassword = "orders_app", wrong
	n.config.StartTimeout, n.config.Tries = 2*time.Second, 1
	n.publish(5, marked(t, "new"))
	if err := n.open().Promote(t.Context(), event(6)); err == nil || !strings.Contains(err.Error(), "log in at") {
		t.Error(err)
	}
	if err := os.WriteFile(wrong, []byte("made-up-orders\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.promote(n.open(), 7, "new")
}

func TestCredentialsOfTheSnapshotNeverLockThisNodeOut(t *testing.T) {
	n := newNode(t, proxysql.Warm)
	n.Start()
	n.publish(5, changed(t, "UPDATE mysql_users SET comment='new'", "UPDATE global_variables SET variable_value='admin:admin;other:secret' WHERE variable_name='admin-admin_credentials'"))
	r := n.open()
	n.promote(r, 6, "new")
	n.demote(r)
	n.promote(r, 7, "new")
}

func TestWithoutASnapshotThePolicyDecides(t *testing.T) {
	modes(t, func(t *testing.T, n *node) {
		n.config.IfNone = database.Retreat
		r := n.open()
		if report, err := r.Monitor(t.Context()); err != nil || report.Health != hooks.Unfit {
			t.Errorf("before: %+v, %v", report, err)
		}
		if err := r.Promote(t.Context(), event(3)); err == nil || !strings.Contains(err.Error(), "no sound snapshot") {
			t.Error(err)
		}
		n.config.IfNone = ""
		r = n.open()
		n.promote(r, 4, "old")
		n.demote(r)
		n.publish(5, sample(t, "damaged/users-empty.db"))
		n.publish(6, sample(t, "damaged/servers-empty.db"))
		r = n.open()
		if err := r.Promote(t.Context(), event(7)); err == nil || !strings.Contains(err.Error(), "mysql_users is empty") || !strings.Contains(err.Error(), "mysql_servers is empty") {
			t.Error(err)
		}
	})
}

func TestARunningProxySQLWithHalfAConfigurationIsNotTrusted(t *testing.T) {
	n := newNode(t, proxysql.Warm)
	n.Start()
	r := n.open()
	n.promote(r, 4, "old") // there is no snapshot yet
	n.demote(r)
	n.publish(3, marked(t, "before"))
	n.tell("DELETE FROM mysql_users WHERE username>=''", "LOAD MYSQL USERS TO RUNTIME", "SAVE MYSQL USERS TO DISK")
	if err := r.Promote(t.Context(), event(5)); err != nil { // its own mastership was the later one, and its users are gone
		t.Fatal(err)
	}
	n.has("before")
	if report, err := r.Monitor(t.Context()); err != nil || report.Health != hooks.Degraded || !strings.Contains(report.Text, "older") {
		t.Errorf("%+v, %v", report, err)
	}
	n.demote(r)
	empty := newNode(t, proxysql.Warm)
	n.Kill() // they have one address
	if err := os.Remove(empty.config.Database); err != nil {
		t.Fatal(err)
	}
	empty.config.User = "admin"
	if err := os.WriteFile(empty.config.PasswordFile, []byte("admin\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty.Start()
	if err := empty.open().Promote(t.Context(), event(4)); err == nil || !strings.Contains(err.Error(), "mysql_users is empty") {
		t.Errorf("a ProxySQL that nobody has configured: %v", err)
	}
}

func TestDemotionEndsTheConnectionsOfClients(t *testing.T) {
	n := newNode(t, proxysql.Warm)
	n.Start()
	n.publish(5, marked(t, "new"))
	r := n.open()
	n.promote(r, 6, "new")
	db := n.Open(n.ClientAddr(), "orders_app", "made-up-orders")
	defer func() { _ = db.Close() }()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if got := n.ask("SELECT COUNT(*) FROM stats_mysql_processlist"); got != "1" {
		t.Fatalf("%s clients", got)
	}
	n.demote(r)
	if got := n.ask("SELECT COUNT(*) FROM stats_mysql_processlist"); got != "0" {
		t.Errorf("%s clients are left", got)
	}
	if !n.runs() {
		t.Error("it was stopped")
	}
}

func TestWhatWarmCannotCarryIsRefusedAndNotLeftOut(t *testing.T) {
	n := newNode(t, proxysql.Warm)
	n.Start()
	n.publish(5, marked(t, "five"))
	n.promote(n.open(), 6, "five")
	n.demote(n.open())
	made := "CREATE TABLE pgsql_users (username VARCHAR PRIMARY KEY NOT NULL)"
	n.tell(made)
	n.publish(7, changed(t, made, "INSERT INTO pgsql_users VALUES('app')"))
	if err := n.open().Promote(t.Context(), event(8)); err == nil || !strings.Contains(err.Error(), "1 rows in pgsql_users") {
		t.Errorf("%v", err)
	}
	n.has("five")
	// A table that neither has is no fault.
	n.tell("DROP TABLE main.mysql_aws_aurora_hostgroups")
	n.publish(9, changed(t, "UPDATE mysql_users SET comment='nine'", "DELETE FROM restapi_routes"))
	n.promote(n.open(), 10, "nine")
	n.demote(n.open())
	n.tell("DROP TABLE main.restapi_routes")
	n.publish(11, marked(t, "eleven"))
	if err := n.open().Promote(t.Context(), event(12)); err == nil || !strings.Contains(err.Error(), "rows in restapi_routes") {
		t.Errorf("%v", err)
	}
}

func TestASnapshotThatArrivesDuringAPromotionIsNotLost(t *testing.T) {
	modes(t, func(t *testing.T, n *node) {
		n.publish(5, marked(t, "five"))
		before, arrived := map[string]string{proxysql.Warm: "restore", proxysql.Cold: "chosen"}[n.config.Mode], false
		ctx := hooks.WithMarks(t.Context(), hooks.Marks{Mark: func(_ context.Context, step string, _ bool) error {
			if step == before && !arrived {
				arrived = true
				n.publish(6, marked(t, "six"))
			}
			return nil
		}})
		if err := n.open().Promote(ctx, event(7)); err != nil {
			t.Fatal(err)
		}
		n.has("six")
	})
}

func TestAnAdminPortThatAnswersNobodyHoldsNoDemotionUp(t *testing.T) {
	n := newNode(t, proxysql.Warm)
	n.Start()
	n.publish(5, marked(t, "new"))
	r := n.open()
	n.promote(r, 6, "new")
	n.Fault("admin-mute", "yes")
	began := time.Now()
	if err := r.Demote(t.Context(), event(6)); err != nil || time.Since(began) > 9*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	n.Fault("admin-mute", "")
}

func TestAStandbyThatDoesNotRunIsStartedAndIsLessFit(t *testing.T) {
	n := newNode(t, proxysql.Warm)
	n.publish(5, marked(t, "new"))
	r := n.open()
	if report, err := r.Monitor(t.Context()); err != nil || report.Role != hooks.RoleDemoted || report.Health != hooks.Degraded {
		t.Errorf("%+v, %v", report, err)
	}
	n.promote(r, 6, "new")
}

func TestTheWorkerThatOutlivesItsSupervisorIsStoppedToo(t *testing.T) {
	n := newNode(t, proxysql.Cold)
	n.publish(5, marked(t, "new"))
	r := n.open()
	n.promote(r, 6, "new")
	// As with kill $(cat proxysql.pid): the angel goes, the worker holds the ports.
	angel := n.script("angel-only", `kill "$(cat `+filepath.Join(n.Data, "proxysql.pid")+`)" 2>/dev/null; exit 0`)
	n.config.Stop, n.config.StopTimeout = angel, time.Second
	r = n.open()
	n.demote(r)
	if n.runs() {
		t.Error("something of it runs")
	}
}

func TestSettingsThatCannotBeAreRefusedAllAtOnce(t *testing.T) {
	_, err := proxysql.New(proxysql.Config{Config: database.Config{OnDemotion: "stop"}, Admin: "nowhere", ClientUser: "app", Backends: "hope", NodeLocal: []string{"uuid"}})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{"store is required", "on_demotion stop", "admin \"nowhere\"", "password_file is required", "client_password_file is required", "backends \"hope\"", "node_local \"uuid\""} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v\ndoes not say %q", err, part)
		}
	}
	_, err = proxysql.New(proxysql.Config{Mode: "hot", PasswordFile: "/nonexistent/password"})
	if err == nil || !strings.Contains(err.Error(), "mode \"hot\"") || !strings.Contains(err.Error(), "does not exist") {
		t.Error(err)
	}
	if _, err := os.Stat("/nonexistent"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// BenchmarkPromote is a promotion until ProxySQL is ready, without the monitor's look.
func BenchmarkPromote(b *testing.B) {
	for _, mode := range []string{proxysql.Warm, proxysql.Cold} {
		b.Run(mode, func(b *testing.B) {
			n := newNode(b, mode)
			if mode == proxysql.Warm {
				n.Start()
			}
			r := n.open()
			epoch := 5
			for b.Loop() {
				b.StopTimer()
				if err := r.Demote(b.Context(), event(epoch)); err != nil {
					b.Fatal(err)
				}
				n.publish(epoch+1, marked(b, fmt.Sprint("epoch", epoch)))
				epoch += 2
				b.StartTimer()
				if err := r.Promote(b.Context(), event(epoch)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
