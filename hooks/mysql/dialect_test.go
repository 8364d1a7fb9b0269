package mysql

import (
	"strings"
	"testing"
)

func TestDialectFollowsTheVersion(t *testing.T) {
	for _, tc := range []struct {
		version                                  string
		status, reset, change, gtid, io, updates string
		super                                    bool
		key                                      string
	}{
		{"5.7.44-log", "SHOW SLAVE STATUS", "RESET SLAVE ALL", "CHANGE MASTER TO MASTER_HOST", "MASTER_AUTO_POSITION = 1", "Slave_IO_Running", "log_slave_updates", true, ""},
		{"8.0.21", "SHOW SLAVE STATUS", "RESET SLAVE ALL", "CHANGE MASTER TO MASTER_HOST", "MASTER_AUTO_POSITION = 1", "Slave_IO_Running", "log_slave_updates", true, "GET_MASTER_PUBLIC_KEY = 1"},
		{"8.0.22", "SHOW REPLICA STATUS", "RESET REPLICA ALL", "CHANGE MASTER TO MASTER_HOST", "MASTER_AUTO_POSITION = 1", "Replica_IO_Running", "log_slave_updates", true, "GET_MASTER_PUBLIC_KEY = 1"},
		{"8.0.36-0ubuntu0.22.04.1", "SHOW REPLICA STATUS", "RESET REPLICA ALL", "CHANGE REPLICATION SOURCE TO SOURCE_HOST", "SOURCE_AUTO_POSITION = 1", "Replica_IO_Running", "log_replica_updates", true, "GET_SOURCE_PUBLIC_KEY = 1"},
		{"8.4.3", "SHOW REPLICA STATUS", "RESET REPLICA ALL", "CHANGE REPLICATION SOURCE TO SOURCE_HOST", "SOURCE_AUTO_POSITION = 1", "Replica_IO_Running", "log_replica_updates", true, "GET_SOURCE_PUBLIC_KEY = 1"},
		{"10.11.6-MariaDB-0+deb12u1-log", "SHOW ALL SLAVES STATUS", "RESET SLAVE ALL", "CHANGE MASTER TO MASTER_HOST", "MASTER_USE_GTID = slave_pos", "Slave_IO_Running", "log_slave_updates", false, ""},
		{"5.5.5-10.11.6-MariaDB", "SHOW ALL SLAVES STATUS", "RESET SLAVE ALL", "CHANGE MASTER TO MASTER_HOST", "MASTER_USE_GTID = slave_pos", "Slave_IO_Running", "log_slave_updates", false, ""},
	} {
		d, err := dialectOf(tc.version)
		if err != nil {
			t.Errorf("%s: %v", tc.version, err)
			continue
		}
		change := d.changeSource(source{host: "192.0.2.1", port: 3306, user: "r", password: "p"})
		for what, pair := range map[string][2]string{
			"status": {d.status, tc.status}, "reset": {d.reset, tc.reset}, "io": {d.fields.io, tc.io}, "updates": {d.passesOn, tc.updates}, "key": {d.change.publicKey, tc.key},
		} {
			if pair[0] != pair[1] {
				t.Errorf("%s: %s is %q, want %q", tc.version, what, pair[0], pair[1])
			}
		}
		if !strings.HasPrefix(change, tc.change+" = '192.0.2.1'") || !strings.Contains(change, tc.gtid) || tc.key != "" && !strings.HasSuffix(change, tc.key) {
			t.Errorf("%s: %s", tc.version, change)
		}
		if super := strings.Contains(d.readOnly(), "super_read_only"); super != tc.super {
			t.Errorf("%s: %s", tc.version, d.readOnly())
		}
	}
}

// MySQL 8.4 has no SLAVE in its grammar any more.
func TestDialectOfMySQL84HasNoOldWord(t *testing.T) {
	d, err := dialectOf("8.4.0")
	if err != nil {
		t.Fatal(err)
	}
	all := []string{d.status, d.startSQL, d.startIO, d.startBoth, d.stopIO, d.stopBoth, d.reset, d.changeSource(source{host: "192.0.2.1"}),
		d.fields.host, d.fields.port, d.fields.io, d.fields.sql, d.fields.behind, strings.Join(d.variables(), " ")}
	for _, text := range all {
		if u := strings.ToUpper(text); strings.Contains(u, "SLAVE") || strings.Contains(u, "MASTER") {
			t.Errorf("an old word in %q", text)
		}
	}
	if !strings.Contains(d.changeSource(source{}), "SOURCE_RETRY_COUNT") {
		t.Error("a replica of 8.4 gives up after ten tries")
	}
}

func TestDialectWantsTLSOrAKeyAndQuotes(t *testing.T) {
	d, err := dialectOf("8.4.0")
	if err != nil {
		t.Fatal(err)
	}
	got := d.changeSource(source{host: "192.0.2.1", user: "it's", password: `a\'b`, ca: "/etc/ca.pem"})
	for _, want := range []string{"SOURCE_USER = 'it''s'", `SOURCE_PASSWORD = 'a\''b'`, "SOURCE_SSL = 1", "SOURCE_SSL_CA = '/etc/ca.pem'", "SOURCE_SSL_VERIFY_SERVER_CERT = 1"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
	if strings.Contains(got, "PUBLIC_KEY") {
		t.Error("with TLS nobody needs the public key")
	}
}

func TestDialectRefusesWhatIsTooOld(t *testing.T) {
	for _, text := range []string{"5.6.51", "5.7.5", "10.4.30-MariaDB", "10.5.1-MariaDB", "", "8", "x.y.z"} {
		if _, err := dialectOf(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// The columns are those that each version documents.
func TestStateIsReadFromEachVersion(t *testing.T) {
	for _, tc := range []struct {
		version string
		status  row
		vars    map[string]string
		want    string
		pending uint64
	}{
		{"8.4.3", row{"source_host": "192.0.2.1", "source_port": "3306", "replica_io_running": "Yes", "replica_sql_running": "Yes",
			"seconds_behind_source": "3", "auto_position": "1", "retrieved_gtid_set": uuidA + ":1-12", "last_sql_errno": "0", "last_sql_error": "", "channel_name": ""},
			map[string]string{"server_id": "2", "read_only": "1", "super_read_only": "1", "log_bin": "1", "log_replica_updates": "1", "gtid_mode": "ON", "gtid_executed": uuidA + ":1-10"},
			"demoted", 2},
		{"8.0.20", row{"master_host": "192.0.2.1", "master_port": "3306", "slave_io_running": "Yes", "slave_sql_running": "Yes",
			"seconds_behind_master": "3", "auto_position": "1", "retrieved_gtid_set": uuidA + ":1-12"},
			map[string]string{"server_id": "2", "read_only": "1", "super_read_only": "0", "log_bin": "1", "log_slave_updates": "1", "gtid_mode": "ON", "gtid_executed": uuidA + ":1-10"},
			"unknown", 2},
		{"10.11.6-MariaDB", row{"master_host": "192.0.2.1", "master_port": "3306", "slave_io_running": "Connecting", "slave_sql_running": "Yes",
			"using_gtid": "Slave_Pos", "gtid_io_pos": "0-1-12", "connection_name": ""},
			map[string]string{"server_id": "2", "read_only": "1", "log_bin": "1", "log_slave_updates": "1", "gtid_strict_mode": "1", "gtid_slave_pos": "0-1-10", "gtid_binlog_pos": "0-1-10", "gtid_binlog_state": "0-1-10"},
			"demoted", 2},
	} {
		d, err := dialectOf(tc.version)
		if err != nil {
			t.Fatal(err)
		}
		one, received, err := d.replication(tc.status)
		if err != nil {
			t.Errorf("%s: %v", tc.version, err)
			continue
		}
		s := &state{sources: []replication{one}}
		if s.received, err = d.parsePosition(received); err != nil {
			t.Errorf("%s: %v", tc.version, err)
		}
		if err := s.take(&d, tc.vars); err != nil {
			t.Errorf("%s: %v", tc.version, err)
		}
		if got := s.role().String(); got != tc.want || s.pending().count() != tc.pending {
			t.Errorf("%s: it is %s with %d pending, want %s with %d", tc.version, got, s.pending().count(), tc.want, tc.pending)
		}
		if err := candidate(s, true); err != nil {
			t.Errorf("%s: %v", tc.version, err)
		}
	}
}
