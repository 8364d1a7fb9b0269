package proxysqlstub

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"strings"
	"time"
)

// The runtime is kept in temporary tables: those that a LOAD TO RUNTIME wrote, and the
// servers as they were configured, before the monitor placed them.
const (
	loaded     = "stub_runtime_"
	configured = "stub_configured_servers"
)

// sum is one row of runtime_checksums_values.
type sum struct {
	version  int
	epoch    int64
	checksum string
}

const emptySum = "0x0000000000000000"

// diskToMemory is LOAD ... FROM DISK. Errors are logged, and nothing else.
func (s *server) diskToMemory(m module) {
	if m.prefix != "" {
		s.ran(s.main.exec("INSERT OR REPLACE INTO main.global_variables SELECT * FROM disk.global_variables WHERE variable_name LIKE '%s%%'", m.prefix))
		return
	}
	for _, t := range m.tables {
		s.ran(s.main.exec("DELETE FROM main.%s", t))
		s.ran(s.main.exec("INSERT INTO main.%s SELECT * FROM disk.%s", t, t))
	}
}

// memoryToDisk is SAVE ... TO DISK: for each table a DELETE, then an INSERT, each a
// transaction of its own. Variables are replaced one by one and never deleted.
func (s *server) memoryToDisk(m module) {
	if m.prefix != "" {
		s.ran(s.write("INSERT OR REPLACE INTO disk.global_variables SELECT * FROM main.global_variables WHERE variable_name LIKE '%s%%'", m.prefix))
		return
	}
	for _, t := range m.tables {
		s.ran(s.write("DELETE FROM disk.%s", t))
		s.between()
		s.ran(s.write("INSERT INTO disk.%s SELECT * FROM main.%s", t, t))
	}
}

// between is the time between DELETE and INSERT. What ProxySQL's own cluster has pulled
// is saved without the mutex of the admin module.
func (s *server) between() {
	s.pause(faultSaveGap)
	if s.set.fault(faultUnlocked) != "" {
		s.mu.Unlock()
		s.pause(faultUnlocked)
		s.mu.Lock()
	}
}

// write writes to disk, if that is not broken.
func (s *server) write(format string, a ...any) error {
	if why := s.set.fault(faultDisk); why != "" {
		return fmt.Errorf("%s: %s", why, fmt.Sprintf(format, a...))
	}
	return s.main.exec(format, a...)
}

// runs is the condition for a row of a table to be loaded.
func runs(table string) string {
	switch table {
	case "mysql_users", "mysql_query_rules":
		return "active = 1"
	case "mysql_servers":
		return "UPPER(status) <> 'OFFLINE_HARD'"
	}
	return "1"
}

// memoryToRuntime is LOAD ... TO RUNTIME.
func (s *server) memoryToRuntime(m module) {
	if m.prefix != "" {
		s.loadVariables(m.prefix)
	}
	for _, t := range m.tables {
		s.ran(s.main.exec("DELETE FROM temp.%s%s", loaded, t))
		s.ran(s.main.exec("INSERT INTO temp.%s%s SELECT * FROM main.%s WHERE %s", loaded, t, t, runs(t)))
		if t == "mysql_servers" {
			s.ran(s.main.exec("DELETE FROM temp.%s", configured))
			s.ran(s.main.exec("INSERT INTO temp.%s SELECT * FROM temp.%s%s", configured, loaded, t))
		}
	}
	for _, name := range m.sums {
		s.count(name)
	}
}

// loadVariables takes unknown variables off memory, and gives those that only a start
// can change the value that runs.
func (s *server) loadVariables(prefix string) {
	known := map[string]bool{}
	for _, v := range defaults() {
		known[v.name] = true
	}
	r, err := s.main.do("SELECT variable_name FROM main.global_variables WHERE variable_name LIKE '" + prefix + "%'")
	if err != nil {
		s.ran(err)
		return
	}
	for _, row := range r.rows {
		if !known[*row[0]] {
			s.log("[WARNING] Impossible to set variable %s: not known, deleted", *row[0])
			s.ran(s.main.exec("DELETE FROM main.global_variables WHERE variable_name=%s", quote(*row[0])))
		}
	}
	if s.running {
		s.ran(s.main.exec("UPDATE main.global_variables SET variable_value=(SELECT variable_value FROM temp.%sglobal_variables r WHERE r.variable_name=main.global_variables.variable_name)"+
			" WHERE variable_name IN ('mysql-interfaces', 'mysql-threads') AND variable_name LIKE '%s%%'", loaded, prefix))
	}
	s.ran(s.main.exec("DELETE FROM temp.%sglobal_variables WHERE variable_name LIKE '%s%%'", loaded, prefix))
	s.ran(s.main.exec("INSERT INTO temp.%sglobal_variables SELECT * FROM main.global_variables WHERE variable_name LIKE '%s%%'", loaded, prefix))
}

// runtimeToMemory is SAVE ... TO MEMORY: what is not active does not come back.
func (s *server) runtimeToMemory(m module) {
	if m.prefix != "" {
		s.ran(s.main.exec("INSERT OR REPLACE INTO main.global_variables SELECT * FROM temp.%sglobal_variables WHERE variable_name LIKE '%s%%'", loaded, m.prefix))
		return
	}
	for _, t := range m.tables {
		s.ran(s.main.exec("DELETE FROM main.%s", t))
		s.ran(s.main.exec("INSERT INTO main.%s SELECT * FROM temp.%s%s", t, loaded, t))
	}
}

// variable returns one that runs.
func (s *server) variable(name string) string {
	return s.main.value("SELECT variable_value FROM temp.%sglobal_variables WHERE variable_name=%s", loaded, quote(name))
}

// count makes a new version of a module's checksum.
func (s *server) count(name string) {
	if s.sums == nil {
		s.sums = map[string]*sum{}
	}
	c := s.sums[name]
	if c == nil {
		c = &sum{}
		s.sums[name] = c
	}
	c.version++
	c.epoch = time.Now().Unix()
	h := sha256.New()
	rows := 0
	for _, query := range checksummed(name) {
		rows += s.hash(h, query)
	}
	c.checksum = emptySum
	if rows > 0 {
		d := h.Sum(nil)
		c.checksum = fmt.Sprintf("0x%X%X", binary.BigEndian.Uint32(d), binary.BigEndian.Uint32(d[4:]))
	}
}

// checksummed returns the queries whose rows a checksum is made of.
func checksummed(name string) []string {
	from := func(table string) string { return "SELECT * FROM temp." + loaded + table + " ORDER BY 1, 2, 3" }
	switch name {
	case "admin_variables":
		return []string{"SELECT * FROM temp." + loaded + "global_variables WHERE variable_name LIKE 'admin-%' AND variable_name NOT IN " +
			"('admin-mysql_ifaces', 'admin-web_port', 'admin-restapi_port', 'admin-telnet_admin_ifaces', 'admin-telnet_stats_ifaces') ORDER BY 1"}
	case "mysql_variables":
		return []string{"SELECT * FROM temp." + loaded + "global_variables WHERE variable_name LIKE 'mysql-%' AND variable_name NOT IN ('mysql-interfaces', 'mysql-threads') ORDER BY 1"}
	case "mysql_servers_v2":
		all := []string{"SELECT * FROM temp." + configured + " ORDER BY 1, 2, 3"}
		for _, t := range []string{"mysql_replication_hostgroups", "mysql_group_replication_hostgroups", "mysql_galera_hostgroups", "mysql_aws_aurora_hostgroups",
			"mysql_hostgroup_attributes", "mysql_servers_ssl_params"} {
			all = append(all, from(t))
		}
		return all
	case "mysql_query_rules":
		return []string{from("mysql_query_rules"), from("mysql_query_rules_fast_routing")}
	}
	return []string{from(name)}
}

// hash adds the fields of a query's rows, without separators; NULL is empty.
func (s *server) hash(h hash.Hash, query string) (rows int) {
	r, err := s.main.do(query)
	if err != nil {
		s.ran(err)
		return 0
	}
	for _, row := range r.rows {
		for _, cell := range row {
			if cell != nil {
				h.Write([]byte(*cell))
			}
		}
	}
	return len(r.rows)
}

// sumNames is the order in which runtime_checksums_values has its rows.
func sumNames() []string {
	return []string{"admin_variables", "mysql_query_rules", "mysql_servers", "mysql_users", "mysql_variables", "proxysql_servers", "mysql_servers_v2"}
}

// globalChecksum is the answer of SELECT GLOBAL_CHECKSUM().
func (s *server) globalChecksum() uint64 {
	h := sha256.New()
	for _, name := range sumNames() {
		fmt.Fprintf(h, "%s%d", s.sums[name].checksum, s.sums[name].version)
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// refresh fills the tables that a statement names and that are made when they are asked.
func (s *server) refresh(text string) {
	text = strings.ToLower(text)
	if strings.Contains(text, "runtime_") {
		s.refreshRuntime(text)
	}
	if strings.Contains(text, "stats_") {
		s.refreshStats(text)
	}
}

func (s *server) refreshRuntime(text string) {
	if strings.Contains(text, "runtime_checksums_values") {
		s.ran(s.main.exec("DELETE FROM main.runtime_checksums_values"))
		for _, name := range sumNames() {
			c := s.sums[name]
			s.ran(s.main.exec("INSERT INTO main.runtime_checksums_values VALUES (%s, %d, %d, %s)", quote(name), c.version, c.epoch, quote(c.checksum)))
		}
	}
	all := []string{"global_variables"}
	for _, m := range modules() {
		all = append(all, m.tables...)
	}
	for _, t := range all {
		if !strings.Contains(text, "runtime_"+t) {
			continue
		}
		s.ran(s.main.exec("DELETE FROM main.runtime_%s", t))
		if t != "mysql_users" {
			s.ran(s.main.exec("INSERT INTO main.runtime_%s SELECT * FROM temp.%s%s", t, loaded, t))
			continue
		}
		s.refreshUsers("frontend", "backend")
		s.refreshUsers("backend", "frontend")
	}
}

// refreshUsers writes each user of one side: it is listed once for each.
func (s *server) refreshUsers(side, other string) {
	names, err := s.main.columns("mysql_users")
	if err != nil {
		s.ran(err)
		return
	}
	to := strings.Join(names, ", ")
	from := strings.ReplaceAll(to, "`"+other+"`", "0")
	s.ran(s.main.exec("INSERT INTO main.runtime_mysql_users (%s) SELECT %s FROM temp.%smysql_users WHERE %s = 1", to, from, loaded, side))
}
