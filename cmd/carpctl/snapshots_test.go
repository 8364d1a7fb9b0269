package main

import (
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
)

const (
	newestVersion   = "00000000000000000042-001-00000000000000000007"
	previousVersion = "00000000000000000042-001-00000000000000000006"
)

func snapshots() api.Snapshots {
	return api.Snapshots{Name: "proxy", Store: "/srv/proxy",
		Snapshots: []api.Snapshot{
			{Version: newestVersion, Source: "left", Time: noon.Add(-5 * time.Second), Kind: "proxysql", Size: 225280, SHA256: "0123456789abcdef", Rows: map[string]int64{"mysql_users": 7, "mysql_servers": 10}},
			{Version: previousVersion, Source: "left", Time: noon.Add(-2 * time.Hour), Kind: "proxysql", Size: 31 << 20, SHA256: "fedcba9876543210"},
		},
		Quarantined: []api.Quarantine{{Version: "00000000000000000041-002-00000000000000000003", Reason: "emptied", Text: "table mysql_users is empty, and had 7 rows before"}},
	}
}

func difference() api.Diff {
	return api.Diff{Name: "proxy", Before: previousVersion, After: newestVersion, Modules: []api.Module{
		{Module: "mysql users", Tables: []api.Table{{Table: "mysql_users", Added: 1, Changed: 30, Changes: []api.Change{
			{What: "added", Key: []api.Cell{{Column: "username", After: "'ann'"}}, Cells: []api.Cell{{Column: "password", Secret: true}, {Column: "active", After: "1"}}},
			{What: "changed", Key: []api.Cell{{Column: "username", Before: "'bob'", After: "'bob'"}}, Cells: []api.Cell{{Column: "default_hostgroup", Before: "10", After: "20"}}},
		}}}},
		{Module: "mysql variables", Tables: []api.Table{{Table: "global_variables", Removed: 1, Changes: []api.Change{
			{What: "removed", Key: []api.Cell{{Column: "variable_name", Before: "'mysql-threads'"}}, Cells: []api.Cell{{Column: "variable_value", Before: "'4'"}}},
		}}}},
		{Module: "notes", Tables: []api.Table{{Table: "notes", Note: "the table is new", Added: 1, Changes: []api.Change{{What: "added", Cells: []api.Cell{{Column: "text", After: "'x\x1b[2J\n'"}}}}}}},
	}}
}

func restoring() api.RestoreResult {
	d := difference()
	return api.RestoreResult{Text: "would put 42-1-6, once nobody has it open: proxysql[17] does", Version: previousVersion, Diff: &d}
}

// replicating is a node that is master for one database and standby for another.
func replicating() api.Status {
	st := oneInstance()
	st.Replication = []api.Replication{
		{Name: "proxy", Role: "master", Database: "/var/lib/proxysql/proxysql.db", Snapshots: 7, AgeMS: 4000, Error: "the database is locked",
			Newest: &api.Snapshot{Version: newestVersion, Source: "left", Time: noon.Add(-5 * time.Second)},
			Peers:  []api.ReplicationPeer{{Name: "right", State: "failing", LagMS: 61000, Error: "no route"}, {Name: "third", State: "current"}}},
		{Name: "app", Role: "standby", Database: "/var/lib/app/app.db", Quarantined: 2, Peers: []api.ReplicationPeer{{Name: "right", State: "idle"}}},
	}
	return st
}
