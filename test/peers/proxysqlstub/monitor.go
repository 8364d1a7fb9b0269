package proxysqlstub

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Backend is what the monitor finds when it asks a server.
type Backend struct {
	ReadOnly bool   // what the server says of itself
	Error    string // instead: the check fails with this text
}

const monitorFile = "monitor.json"

// backends reads what a test has set.
func (set settings) backends() map[string]Backend {
	all := map[string]Backend{}
	if text, err := os.ReadFile(filepath.Join(set.dir, monitorFile)); err == nil {
		_ = json.Unmarshal(text, &all) // Node.Backends wrote it
	}
	return all
}

// firstCheck is how long after the port for clients is open the monitor first asks.
const firstCheck = 200 * time.Millisecond

// timeouts is how many failures in a row make a server read-only.
const timeouts = 3

// watch is the monitor, until the process ends.
func (s *server) watch() {
	failed := map[string]int{}
	wait := firstCheck
	if d := s.set.faultTime(faultMonitorLate); d > 0 {
		wait = d
	}
	for n := 0; ; n++ {
		pass(wait)
		s.mu.Lock()
		if s.variable("mysql-monitor_enabled") == "true" {
			s.check(failed, n)
		}
		ms, err := strconv.Atoi(s.variable("mysql-monitor_read_only_interval"))
		s.mu.Unlock()
		if wait = time.Duration(ms) * time.Millisecond; err != nil || wait < 50*time.Millisecond {
			wait = time.Second
		}
	}
}

// groupCheckEvery is how many checks of read_only there are for one of a Galera or
// replication group: 5 s by default.
const groupCheckEvery = 5

// check asks each server once, and writes down what it says.
func (s *server) check(failed map[string]int, n int) {
	known := s.set.backends()
	before := s.placement()
	r, err := s.main.do("SELECT DISTINCT s.hostname, s.port, h.writer_hostgroup, h.reader_hostgroup, " +
		"EXISTS (SELECT 1 FROM temp." + configured + " w WHERE w.hostname = s.hostname AND w.port = s.port AND w.hostgroup_id = h.writer_hostgroup) " +
		"FROM temp." + configured + " s JOIN temp." + loaded + "mysql_replication_hostgroups h ON s.hostgroup_id IN (h.writer_hostgroup, h.reader_hostgroup) ORDER BY 1, 2")
	if err != nil {
		s.ran(err)
		return
	}
	now := time.Now().UnixMicro()
	for _, row := range r.rows {
		host, port, writer, reader := *row[0], *row[1], *row[2], *row[3]
		b, set := known[host+":"+port]
		if !set {
			b.ReadOnly = *row[4] == "0" // as configured
		}
		if s.set.fault(faultBackends) != "" {
			b = Backend{Error: s.set.fault(faultBackends)}
		}
		s.note("mysql_server_read_only_log", host, port, now, b, "success_time_us, read_only, error", number(b.ReadOnly))
		if failed[host+":"+port]++; b.Error == "" {
			failed[host+":"+port] = 0
		}
		if b.Error == "" || failed[host+":"+port] >= timeouts {
			s.place(host, port, writer, reader, b.ReadOnly || b.Error != "")
		}
	}
	if n%groupCheckEvery == 0 {
		s.checkGroups(known, now)
	}
	if n%pingEvery == 0 {
		s.ping(known, now)
	}
	if s.placement() != before {
		s.count("mysql_servers")
	}
}

// note writes a row of a log of the monitor, and keeps the last ones only. Without a
// value it says that the server answers, and nothing more.
func (s *server) note(table, host, port string, now int64, b Backend, columns, value string) {
	values := []string{"500", value, "NULL"}
	if b.Error != "" {
		values = []string{"0", "NULL", quote(b.Error)}
	}
	if value == "" {
		values = slices.Delete(values, 1, 2)
	}
	s.ran(s.main.exec("INSERT OR REPLACE INTO monitor.%s (hostname, port, time_start_us, %s) VALUES (%s, %s, %d, %s)", table, columns, quote(host), port, now, strings.Join(values, ", ")))
	s.ran(s.main.exec("DELETE FROM monitor.%s WHERE time_start_us < %d", table, now-monitorHistory.Microseconds()))
}

// monitorHistory is how long the rows of the monitor's logs are kept.
const monitorHistory = 10 * time.Minute

// checkGroups writes down that members of Galera and replication groups answer; it moves
// none of them.
func (s *server) checkGroups(known map[string]Backend, now int64) {
	for table, columns := range map[string]string{"galera": "primary_partition, read_only", "group_replication": "viable_candidate, read_only"} {
		r, err := s.main.do("SELECT DISTINCT s.hostname, s.port FROM temp." + configured + " s JOIN temp." + loaded + "mysql_" + table + "_hostgroups h " +
			"ON s.hostgroup_id IN (h.writer_hostgroup, h.backup_writer_hostgroup, h.reader_hostgroup, h.offline_hostgroup) WHERE h.active = 1")
		if err != nil {
			s.ran(err)
			continue
		}
		for _, row := range r.rows {
			b := known[*row[0]+":"+*row[1]]
			if why := s.set.fault(faultBackends); why != "" {
				b = Backend{Error: why}
			}
			values := "500, 'YES', " + map[bool]string{true: "'YES'", false: "'NO'"}[b.ReadOnly] + ", NULL"
			if b.Error != "" {
				values = "0, 'NO', 'YES', " + quote(b.Error)
			}
			s.ran(s.main.exec("INSERT OR REPLACE INTO monitor.mysql_server_%s_log (hostname, port, time_start_us, success_time_us, %s, error) VALUES (%s, %s, %d, %s)",
				table, columns, quote(*row[0]), *row[1], now, values))
		}
	}
}

// pingEvery is how many checks of read_only there are for one ping: 8 s by default.
const pingEvery = 8

// ping writes down of each server that it can be connected to.
func (s *server) ping(known map[string]Backend, now int64) {
	r, err := s.main.do("SELECT DISTINCT hostname, port FROM temp." + configured)
	if err != nil {
		s.ran(err)
		return
	}
	for _, row := range r.rows {
		b := known[*row[0]+":"+*row[1]]
		if why := s.set.fault(faultBackends); why != "" {
			b = Backend{Error: why}
		}
		for _, kind := range []string{"connect", "ping"} {
			s.note("mysql_server_"+kind+"_log", *row[0], *row[1], now, b, kind+"_success_time_us, "+kind+"_error", "")
		}
	}
}

// placement is where the servers are.
func (s *server) placement() string {
	return s.main.value("SELECT group_concat(p, ',') FROM (SELECT hostgroup_id || ' ' || hostname || ':' || port AS p FROM temp.%smysql_servers ORDER BY 1)", loaded)
}

// place moves a server of a replication hostgroup in the runtime; memory and disk keep
// what is configured.
func (s *server) place(host, port, writer, reader string, readOnly bool) {
	where := "hostname = " + quote(host) + " AND port = " + port
	table := "temp." + loaded + "mysql_servers"
	in := func(group string) bool {
		return s.main.value("SELECT count(*) FROM %s WHERE %s AND hostgroup_id = %s", table, where, group) != "0"
	}
	move := func(from, to string) {
		s.ran(s.main.exec("UPDATE %s SET hostgroup_id = %s WHERE %s AND hostgroup_id = %s", table, to, where, from))
	}
	switch writes, reads := in(writer), in(reader); {
	case readOnly && writes && reads:
		s.ran(s.main.exec("DELETE FROM %s WHERE %s AND hostgroup_id = %s", table, where, writer))
	case readOnly && writes:
		move(writer, reader)
	case !readOnly && !writes && reads:
		move(reader, writer)
		if s.variable("mysql-monitor_writer_is_also_reader") == "true" {
			s.copyServer(table, where, writer, reader)
		}
	}
}

// copyServer lists a server in one more hostgroup.
func (s *server) copyServer(table, where, from, to string) {
	s.ran(s.main.exec("INSERT INTO %s SELECT %s, hostname, port, gtid_port, status, weight, compression, max_connections, max_replication_lag, use_ssl, max_latency_ms, comment FROM %s WHERE %s AND hostgroup_id = %s",
		table, to, table, where, from))
}
