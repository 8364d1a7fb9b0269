package admin

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/carpd/carpd/replicator/modules"
)

// spec is what is known of a module of ProxySQL.
type spec struct {
	command string   // LOAD ... TO RUNTIME
	tables  []string // of its own; variables have a prefix instead
	prefix  string
	sum     string   // its row of runtime_checksums_values; "": none, and a LOAD of it is not seen there
	guarded []string // tables that are not emptied unless that is allowed
}

// specs lists all modules.
func specs() map[string]spec {
	return map[string]spec{
		"mysql_users": {command: "MYSQL USERS", tables: []string{"mysql_users"}, sum: "mysql_users", guarded: []string{"mysql_users"}},
		// Of the two checksums of servers the other one is of what the monitor places.
		"mysql_servers": {command: "MYSQL SERVERS", tables: []string{"mysql_servers", "mysql_replication_hostgroups", "mysql_group_replication_hostgroups", "mysql_galera_hostgroups",
			"mysql_aws_aurora_hostgroups", "mysql_hostgroup_attributes", "mysql_servers_ssl_params"}, sum: "mysql_servers_v2", guarded: []string{"mysql_servers"}},
		"mysql_query_rules": {command: "MYSQL QUERY RULES", tables: []string{"mysql_query_rules", "mysql_query_rules_fast_routing"}, sum: "mysql_query_rules"},
		"mysql_firewall":    {command: "MYSQL FIREWALL", tables: []string{"mysql_firewall_whitelist_users", "mysql_firewall_whitelist_rules", "mysql_firewall_whitelist_sqli_fingerprints"}},
		"scheduler":         {command: "SCHEDULER", tables: []string{"scheduler"}},
		"restapi":           {command: "RESTAPI", tables: []string{"restapi_routes"}},
		"mysql_variables":   {command: "MYSQL VARIABLES", prefix: "mysql-", sum: "mysql_variables", guarded: []string{variables}},
		"admin_variables":   {command: "ADMIN VARIABLES", prefix: "admin-", sum: "admin_variables", guarded: []string{variables}},
		"proxysql_servers":  {command: "PROXYSQL SERVERS", tables: []string{"proxysql_servers"}, sum: "proxysql_servers"},
	}
}

// variables is the table of all of them.
const variables = "global_variables"

// Names lists the modules that there are.
func Names() []string { return slices.Sorted(maps.Keys(specs())) }

// DefaultNames lists those that are the same on all nodes of most sites: all but the
// admin variables, which hold credentials of the port that is used here, and
// proxysql_servers, which is for ProxySQL's own cluster.
func DefaultNames() []string {
	return slices.DeleteFunc(Names(), func(n string) bool { return n == "admin_variables" || n == "proxysql_servers" })
}

// Modules returns modules by their names, all with the same Diffs.
func Modules(names []string, diffs int) ([]modules.Module, error) {
	var all []modules.Module
	for _, n := range names {
		s, ok := specs()[n]
		if !ok {
			return nil, fmt.Errorf("admin: module %q: want one of %s", n, strings.Join(Names(), ", "))
		}
		all = append(all, modules.Module{Name: n, Guarded: s.guarded, Diffs: diffs})
	}
	return all, nil
}

// LocalVariables lists the variables that are of a node: addresses, ports, threads. Their
// patterns are those of path.Match.
func LocalVariables() []string {
	return []string{"mysql-interfaces", "mysql-threads", "admin-mysql_ifaces", "admin-web_port", "admin-restapi_port", "admin-telnet_admin_ifaces", "admin-telnet_stats_ifaces",
		"admin-version"} // the release that first wrote it
}

// isLocal reports whether a variable is of this node.
func (a *Admin) isLocal(name string) bool {
	for _, pattern := range slices.Concat(LocalVariables(), a.Local) {
		if ok, err := path.Match(pattern, name); ok && err == nil {
			return true
		}
	}
	return false
}
