package proxysql

import (
	"strings"

	"github.com/carpd/carpd/replicator"
)

// Module names what ProxySQL loads and saves a table with: LOAD MYSQL SERVERS, and so on.
// The variables are several modules, which key, the name of one, tells apart; "" is all of
// them. A table that is none of ProxySQL's is a module of its own.
func Module(table, key string) string {
	switch table {
	case "mysql_users":
		return "mysql users"
	case "mysql_servers", "mysql_replication_hostgroups", "mysql_group_replication_hostgroups", "mysql_galera_hostgroups",
		"mysql_aws_aurora_hostgroups", "mysql_hostgroup_attributes", "mysql_servers_ssl_params":
		return "mysql servers"
	case "mysql_query_rules", "mysql_query_rules_fast_routing":
		return "mysql query rules"
	case "mysql_firewall_whitelist_users", "mysql_firewall_whitelist_rules", "mysql_firewall_whitelist_sqli_fingerprints":
		return "mysql firewall"
	case "proxysql_servers":
		return "proxysql servers"
	case "restapi_routes":
		return "restapi"
	case "global_settings":
		return "node" // not loaded: what this node is
	case "global_variables":
		prefix, _, found := strings.Cut(strings.Trim(key, "'"), "-")
		if !found {
			return "variables"
		}
		return prefix + " variables"
	}
	return table
}

// Modules sorts differences by module, in the order in which the tables came. The
// variables are divided where all of their changes are listed.
func Modules(all []replicator.Difference) []Changed {
	var modules []Changed
	add := func(name string, d replicator.Difference) {
		for i := range modules {
			if modules[i].Module == name {
				modules[i].Tables = append(modules[i].Tables, d)
				return
			}
		}
		modules = append(modules, Changed{name, []replicator.Difference{d}})
	}
	for _, d := range all {
		if d.Table != "global_variables" || d.Note != "" || int64(len(d.Changes)) < d.Added+d.Removed+d.Changed {
			add(Module(d.Table, ""), d)
			continue
		}
		for _, part := range divide(d) {
			add(part.Module, part.Tables[0])
		}
	}
	return modules
}

// Changed is a module in which something differs.
type Changed struct {
	Module string                  `json:"module"`
	Tables []replicator.Difference `json:"tables"`
}

// divide splits the variables by the module that they belong to.
func divide(d replicator.Difference) []Changed {
	var parts []Changed
	for _, c := range d.Changes {
		key := ""
		if len(c.Key) > 0 {
			if key = c.Key[0].After; key == "" {
				key = c.Key[0].Before
			}
		}
		name := Module(d.Table, key)
		i := 0
		for i < len(parts) && parts[i].Module != name {
			i++
		}
		if i == len(parts) {
			parts = append(parts, Changed{name, []replicator.Difference{{Table: d.Table}}})
		}
		p := &parts[i].Tables[0]
		p.Changes = append(p.Changes, c)
		switch c.What {
		case replicator.RowAdded:
			p.Added++
		case replicator.RowRemoved:
			p.Removed++
		default:
			p.Changed++
		}
	}
	return parts
}
