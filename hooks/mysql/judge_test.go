package mysql

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/carpd/carpd/hooks"
)

func peer(t *testing.T, change func(*state)) view {
	s := &state{name: "192.0.2.2:3306", maria: true, server: 2, logs: true, passesOn: true, byGTID: true, strict: true, executed: maria(t, "0-2-100")}
	change(s)
	return view{server: &server{name: s.name, at: netip.MustParseAddrPort(s.name)}, state: s}
}

func TestJudgeGradesWhatItSees(t *testing.T) {
	replica := func(change func(*state, *replication)) *state {
		s := &state{name: "self", maria: true, server: 1, readOnly: true, logs: true, passesOn: true, byGTID: true, strict: true, executed: maria(t, "0-2-100")}
		s.sources = []replication{{host: "192.0.2.2", port: 3306, io: "Yes", sql: "Yes", byGTID: true, behind: 0}}
		if change != nil {
			change(s, &s.sources[0])
		}
		return s
	}
	primary := func(s *state, _ *replication) { s.readOnly, s.sources = false, nil }
	lone := func(s *state, _ *replication) { s.sources = nil }
	demoted := peer(t, func(s *state) { s.readOnly = true })
	promoted := peer(t, func(*state) {})
	for _, tc := range []struct {
		name   string
		self   *state
		peer   view
		behind time.Duration
		role   hooks.Role
		health hooks.Health
		text   string
	}{
		{"a replica", replica(nil), promoted, 0, hooks.RoleDemoted, hooks.Healthy, "replica of 192.0.2.2:3306, 0s behind"},
		{"a primary", replica(primary), demoted, 0, hooks.RolePromoted, hooks.Healthy, "primary"},
		{"two primaries", replica(primary), promoted, 0, hooks.RolePromoted, hooks.Degraded, "can be written to, too"},
		{"writable with a source", replica(func(s *state, _ *replication) { s.readOnly = false }), promoted, 0, hooks.RoleUnknown, hooks.Degraded, "has a source"},
		{"half read-only", replica(func(s *state, _ *replication) { s.half = true }), promoted, 0, hooks.RoleUnknown, hooks.Degraded, "differ"},
		{"the source is gone", replica(func(_ *state, r *replication) { r.io = "Connecting" }), view{server: promoted.server, err: errors.New("gone")}, 0,
			hooks.RoleDemoted, hooks.Degraded, "does not receive"},
		{"an error of replication", replica(func(_ *state, r *replication) { r.sql, r.sqlErr = "No", "error 1062" }), promoted, 0, hooks.RoleDemoted, hooks.Unfit, "1062"},
		{"late by its own word", replica(func(_ *state, r *replication) { r.behind = time.Minute }), promoted, 0, hooks.RoleDemoted, hooks.Degraded, "1m0s behind"},
		{"late by positions", replica(nil), promoted, 40 * time.Second, hooks.RoleDemoted, hooks.Degraded, "40s behind, more than 30s"},
		{"errant", replica(func(s *state, _ *replication) { s.executed = maria(t, "0-2-100,0-1-101") }), promoted, 0, hooks.RoleDemoted, hooks.Unfit, "errant: 1 transactions that its source has not: 0-1-101"},
		{"no replica", replica(lone), promoted, 0, hooks.RoleDemoted, hooks.Unfit, "no replica of"},
		{"diverged", replica(func(s *state, r *replication) { lone(s, r); s.executed = maria(t, "0-2-90,0-1-95") }), promoted, 0, hooks.RoleDemoted, hooks.Unfit, "0-1-91 to 95"},
		{"before the first election", replica(lone), demoted, 0, hooks.RoleDemoted, hooks.Healthy, "read-only"},
		{"the other one has more", replica(func(s *state, r *replication) { lone(s, r); s.executed = maria(t, "0-2-90") }), demoted, 0, hooks.RoleDemoted, hooks.Unfit, "10 transactions"},
		{"same server_id", replica(func(s *state, _ *replication) { s.server = 2 }), promoted, 0, hooks.RoleDemoted, hooks.Unfit, "server_id 2"},
		{"not in the file", replica(func(s *state, _ *replication) { s.origin = "COMPILE-TIME" }), promoted, 0, hooks.RoleDemoted, hooks.Degraded, "configuration file"},
		{"not strict", replica(func(s *state, _ *replication) { s.strict = false }), promoted, 0, hooks.RoleDemoted, hooks.Degraded, "gtid_strict_mode"},
		{"a privilege is missing", replica(func(s *state, _ *replication) { s.lacks = []string{"RELOAD"} }), promoted, 0, hooks.RoleDemoted, hooks.Degraded, "lacks RELOAD"},
		{"no log", replica(func(s *state, _ *replication) { s.logs = false }), promoted, 0, hooks.RoleDemoted, hooks.Unfit, "log_bin"},
		{"events on a replica", replica(func(s *state, _ *replication) { s.events = true }), promoted, 0, hooks.RoleDemoted, hooks.Degraded, "event scheduler"},
		{"from elsewhere", replica(func(_ *state, r *replication) { r.host = "192.0.2.9" }), promoted, 0, hooks.RoleDemoted, hooks.Degraded, "none of the peers"},
	} {
		got := judge(tc.self, []view{tc.peer}, Config{LagLimit: DefaultLagLimit, Events: true}, tc.behind)
		if got.Role != tc.role || got.Health != tc.health || !strings.Contains(got.Text, tc.text) {
			t.Errorf("%s: %v, %v, %q; want %v, %v, ...%q", tc.name, got.Role, got.Health, got.Text, tc.role, tc.health, tc.text)
		}
	}
}

func TestPrivilegesThatAreMissingAreNamed(t *testing.T) {
	d, err := dialectOf("10.11.6-MariaDB")
	if err != nil {
		t.Fatal(err)
	}
	wanted := d.privileges(Config{})
	const most = "GRANT PROCESS, READ_ONLY ADMIN, SLAVE MONITOR, REPLICATION SLAVE ADMIN, CONNECTION ADMIN"
	for _, tc := range []struct {
		lines []string
		want  string
	}{
		{[]string{most + ", RELOAD ON *.* TO `carpd`@`%` IDENTIFIED BY PASSWORD '*00'"}, ""},
		{[]string{most + " ON *.* TO `carpd`@`%`"}, "RELOAD"},
		{[]string{most + " ON *.* TO `carpd`@`%`", "GRANT RELOAD ON `test`.* TO `carpd`@`%`"}, "RELOAD"},
		{[]string{"GRANT ALL PRIVILEGES ON *.* TO `carpd`@`%` WITH GRANT OPTION"}, ""},
		{[]string{"GRANT USAGE ON *.* TO `carpd`@`%`", "GRANT `dba` TO `carpd`@`%`"}, ""},
		{[]string{"GRANT USAGE ON *.* TO `carpd`@`%`"}, strings.Join(wanted, " ")},
	} {
		if got := strings.Join(lacking(wanted, tc.lines), " "); got != tc.want {
			t.Errorf("%q lacks %q, want %q", tc.lines, got, tc.want)
		}
	}
}

func TestLagIsMeasuredByPositions(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(1000+s), 0) }
	var w watched
	if w.behind() != 0 {
		t.Error("behind before the first look")
	}
	w.note(at(0), maria(t, "0-1-10"), maria(t, "0-1-10"))
	w.note(at(5), maria(t, "0-1-20"), maria(t, "0-1-10"))
	w.note(at(10), maria(t, "0-1-30"), maria(t, "0-1-15"))
	if got := w.behind(); got != 10*time.Second {
		t.Errorf("%v behind, want 10s", got)
	}
	w.note(at(15), maria(t, "0-1-40"), maria(t, "0-1-30")) // all of the look before
	if got := w.behind(); got != 5*time.Second {
		t.Errorf("%v behind, want 5s", got)
	}
}

func TestCandidatesThatAreNone(t *testing.T) {
	good := func() *state {
		return &state{maria: true, server: 1, readOnly: true, logs: true, passesOn: true, byGTID: true,
			sources: []replication{{host: "192.0.2.2", port: 3306, io: "Yes", sql: "Yes", byGTID: true, ownPosition: true}}}
	}
	if err := candidate(good(), true); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*state){
		"named source":    func(s *state) { s.sources[0].channel = "x" },
		"two sources":     func(s *state) { s.sources = append(s.sources, s.sources[0]) },
		"no log":          func(s *state) { s.logs = false },
		"no log of it":    func(s *state) { s.passesOn = false },
		"no GTID":         func(s *state) { s.byGTID = false },
		"source by file":  func(s *state) { s.sources[0].byGTID = false },
		"error":           func(s *state) { s.sources[0].sqlErr = "error 1032" },
		"wrote by itself": func(s *state) { s.ends, s.applied = gtids{"0": {{1, 11}}}, gtids{"0": {{1, 10}}} },
	} {
		s := good()
		change(s)
		if candidate(s, true) == nil {
			t.Errorf("%s: fit", name)
		}
	}
	s := good()
	s.sources, s.logs, s.passesOn = nil, false, false
	if err := candidate(s, false); err != nil {
		t.Errorf("a server without peers needs no log: %v", err)
	}
}

func TestClientsAreNeitherReplicationNorOurselves(t *testing.T) {
	rows := []row{
		{"id": "1", "user": "app", "command": "Sleep", "time": "100"},
		{"id": "2", "user": "app", "command": "Query", "time": "3"},
		{"id": "3", "user": "root", "command": "Execute", "time": "30"},
		{"id": "4", "user": "carpd", "command": "Query", "time": "0"},
		{"id": "5", "user": "replica", "command": "Binlog Dump", "time": "5000"},
		{"id": "6", "user": "replica", "command": "Binlog Dump GTID", "time": "5000"},
		{"id": "7", "user": "system user", "command": "Slave_SQL", "time": "1"},
		{"id": "8", "user": "system user", "command": "Connect", "time": "1"},
		{"id": "9", "user": "event_scheduler", "command": "Daemon", "time": "1"},
		{"id": "10", "user": "unauthenticated user", "command": "Connect"},
	}
	ids := func(all []client) (list []uint64) {
		for _, c := range all {
			list = append(list, c.id)
		}
		return list
	}
	all := clients(rows, "carpd")
	if got := ids(all); len(got) != 4 || got[0] != 1 || got[1] != 2 || got[2] != 3 || got[3] != 10 {
		t.Errorf("clients are %v", got)
	}
	if got := ids(longest(all)); len(got) != 3 || got[0] != 3 || got[1] != 2 {
		t.Errorf("killed first are %v", got)
	}
}

func TestNobodyAnswersIsNotThatNobodyLetsUsIn(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, tc := range []struct {
		err             error
		absent, stopped bool
	}{
		{nil, false, false},
		{refused, true, true},
		{&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, true, false},
		{&driver.MySQLError{Number: 1045}, false, false},
		{errors.New("tls: certificate is not trusted"), false, false},
		{os.ErrPermission, false, false},
	} {
		if absent(tc.err) != tc.absent || stopped(tc.err) != tc.stopped {
			t.Errorf("%v: absent %v, stopped %v", tc.err, absent(tc.err), stopped(tc.err))
		}
	}
}

func TestNewNamesAllFaults(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", "secret\n", 0o600)
	if _, err := New(Config{Socket: "/s", User: "u", PasswordFile: good}); err != nil {
		t.Errorf("a server alone: %v", err)
	}
	_, err := New(Config{
		Socket: "s", Address: "db1:3306", PasswordFile: file("open", "hidden\n", 0o644), ReplicationPasswordFile: file("empty", "\n", 0o600),
		Peers: []string{"192.0.2.1:0", "192.0.2.2:3306", "192.0.2.2:3306"}, TLSCA: good, LagLimit: -1, OnTimeout: "maybe", WithoutSource: "no",
	})
	if err == nil {
		t.Fatal("all is well")
	}
	for _, want := range []string{"socket:", "address:", "others on this machine may use it", "first line is empty", "192.0.2.1:0", "given twice", "no certificate", "lag_limit", "on_timeout", "without_source", "user: required", "replication_user"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hidden") {
		t.Error("the password is in the error")
	}
}
