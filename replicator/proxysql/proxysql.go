// Package proxysql knows what a disk database of ProxySQL holds: its tables with the
// CREATE texts of release 2.7.1, those of older releases that it brings up to date by
// itself, and the rows without which it runs with built-in defaults.
//
// ProxySQL compares the CREATE text of each of its tables byte for byte at its start.
// A text that it does not know costs the table: it is dropped and made anew, empty,
// without a line in the log. Other tables and indexes are left alone.
package proxysql

import (
	_ "embed"
	"slices"
	"strings"

	"github.com/carpd/carpd/replicator"
)

// Kind is the name of these rules.
const Kind = "proxysql"

// Release is the release whose CREATE texts are expected.
const Release = "2.7.1"

//go:embed schema.sql
var schema string

//go:embed older.sql
var older string

// Rules returns what a sound database holds. Each call makes new ones, which the
// caller may add to.
func Rules() replicator.Rules {
	const defaults = "ProxySQL would run with the built-in one, which everybody knows"
	return replicator.Rules{
		Kind:     Kind,
		Signs:    []string{"global_variables", "mysql_users", "mysql_servers", "mysql_query_rules", "proxysql_servers"},
		Tables:   tables(),
		NotEmpty: []string{"mysql_users", "mysql_servers"},
		Needs: []replicator.Row{
			{Table: "global_variables", Column: "variable_name", Value: "admin-admin_credentials", Why: defaults},
			{Table: "global_variables", Column: "variable_name", Value: "mysql-interfaces", Why: "ProxySQL would listen on all addresses"},
		},
		Wanted: []replicator.Row{
			{Table: "global_settings", Column: "variable_name", Value: "uuid", Why: "ProxySQL makes a new one at its start"},
		},
	}
}

// tables reads both lists of texts.
func tables() []replicator.Table {
	var all []replicator.Table
	since := -1
	for line := range strings.Lines(schema) {
		if strings.HasPrefix(line, "-- since ") {
			since++
		}
		if name, text, ok := create(line); ok {
			all = append(all, replicator.Table{Name: name, Create: text, Since: since})
		}
	}
	var o replicator.Older
	for line := range strings.Lines(older) {
		if words := strings.Fields(line); len(words) == 3 && words[0] == "--" {
			o.Release, o.Renamed = words[1], words[2]
		}
		if name, text, ok := create(line); ok {
			o.Create = text
			i := slices.IndexFunc(all, func(t replicator.Table) bool { return t.Name == name })
			all[i].Older = append(all[i].Older, o)
		}
	}
	return all
}

// create returns name and text of a line with a CREATE statement.
func create(line string) (name, text string, ok bool) {
	rest, ok := strings.CutPrefix(line, "CREATE TABLE ")
	name, _, _ = strings.Cut(rest, " ")
	return name, strings.TrimSuffix(line, ";\n"), ok
}
