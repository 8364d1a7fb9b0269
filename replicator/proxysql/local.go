package proxysql

import "github.com/carpd/carpd/replicator/sqlite"

// Local names the rows that say what a node is, and do not travel: its identity, the
// addresses and ports that it listens on, what depends on the machine, paths, and the list
// of ProxySQL Cluster, in which a node may name itself.
func Local() []sqlite.Rows {
	return append(Identity(), []sqlite.Rows{
		{Table: "global_variables", Column: "variable_name", Values: LocalVariables()},
		{Table: "proxysql_servers"},
	}...)
}

// LocalVariables are those of them that say where a node listens and where its files are,
// as patterns of GLOB: ProxySQL Cluster does not sync the first ones either.
func LocalVariables() []string {
	return []string{
		"mysql-interfaces", "mysql-threads", "pgsql-interfaces", "pgsql-threads",
		"admin-mysql_ifaces", "admin-pgsql_ifaces", "admin-telnet_admin_ifaces", "admin-telnet_stats_ifaces",
		"admin-web_port", "admin-restapi_port",
		"mysql-ssl_p2s_*", "mysql-eventslog_filename", "mysql-auditlog_filename", "admin-ssl_keylog_file",
	}
}

// Identity names the rows of Local that no two nodes may share. A node that has none of
// its own goes without: ProxySQL makes them at its start.
func Identity() []sqlite.Rows {
	return []sqlite.Rows{{Table: "global_settings", Column: "variable_name", Values: []string{"uuid"}}}
}
