package proxysqlstub

import (
	_ "embed"
	"strings"
)

// Version is what the stand-in says that it is.
const Version = "2.7.1-local"

var (
	//go:embed schema-disk.sql
	diskSchema string
	//go:embed schema-memory.sql
	memorySchema string
	//go:embed schema-stats.sql
	statsSchema string
	//go:embed schema-monitor.sql
	monitorSchema string
	//go:embed schema-older.sql
	olderSchema string
	//go:embed variables.tsv
	variables string
)

// table is one of a schema. Old is what it is renamed to, in the list of older texts.
type table struct{ name, create, old string }

// tables reads a list of CREATE statements, one a line.
func tables(schema string) (all []table) {
	old := ""
	for line := range strings.Lines(schema) {
		line = strings.TrimSuffix(line, "\n")
		if note, ok := strings.CutPrefix(line, "-- "); ok {
			old = note
		}
		if rest, ok := strings.CutPrefix(line, "CREATE TABLE "); ok {
			name, _, _ := strings.Cut(rest, " ")
			all = append(all, table{name, strings.TrimSuffix(line, ";"), old})
		}
	}
	return all
}

// variable is one of global_variables.
type variable struct{ name, value string }

// defaults are the variables of a server that was told nothing.
func defaults() (all []variable) {
	for line := range strings.Lines(variables) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		all = append(all, variable{name, value})
	}
	return all
}

// module is a group of tables that LOAD and SAVE treat as one.
type module struct {
	name   string   // as in a command
	tables []string // none: global_variables with the prefix
	prefix string
	sums   []string // names in runtime_checksums_values
}

// modules lists them in the order in which a start loads them.
func modules() []module {
	return []module{
		{name: "ADMIN VARIABLES", prefix: "admin-", sums: []string{"admin_variables"}},
		{name: "MYSQL VARIABLES", prefix: "mysql-", sums: []string{"mysql_variables"}},
		{name: "MYSQL SERVERS", tables: []string{"mysql_servers", "mysql_replication_hostgroups", "mysql_group_replication_hostgroups", "mysql_galera_hostgroups",
			"mysql_aws_aurora_hostgroups", "mysql_hostgroup_attributes", "mysql_servers_ssl_params"}, sums: []string{"mysql_servers", "mysql_servers_v2"}},
		{name: "MYSQL USERS", tables: []string{"mysql_users"}, sums: []string{"mysql_users"}},
		{name: "MYSQL QUERY RULES", tables: []string{"mysql_query_rules", "mysql_query_rules_fast_routing"}, sums: []string{"mysql_query_rules"}},
		{name: "SCHEDULER", tables: []string{"scheduler"}},
		{name: "PROXYSQL SERVERS", tables: []string{"proxysql_servers"}, sums: []string{"proxysql_servers"}},
		{name: "RESTAPI", tables: []string{"restapi_routes"}},
		{name: "MYSQL FIREWALL", tables: []string{"mysql_firewall_whitelist_users", "mysql_firewall_whitelist_rules", "mysql_firewall_whitelist_sqli_fingerprints"}},
	}
}
