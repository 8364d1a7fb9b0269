package main

import (
	"strings"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
)

// clustered is a node that has a conflict behind it and one module that is not in sync.
func clustered() api.Cluster {
	users := api.ClusterStamp{Version: 12, Epoch: 1795132802300, Term: 7, NodeID: 1, Checksum: strings.Repeat("0123456789abcdef", 2)}
	newer := users
	newer.Version, newer.Epoch = 13, 1795132802999
	heard := noon.Add(-400 * time.Millisecond)
	return api.Cluster{Name: "proxy", NodeID: 2, Holder: 1,
		Modules: []api.ClusterModule{
			{Name: "mysql_users", Standing: "refusing", Stamp: users, Holds: users.Checksum, Wanted: newer, Seen: 3, Reason: "would empty [mysql_users]"},
			{Name: "scheduler", Standing: "fresh"},
		},
		Nodes: []api.ClusterNode{
			{NodeID: 1, Address: "192.0.2.1:6020", Neighbour: true, Heard: &heard, Modules: []api.ClusterNodeModule{
				{Name: "mysql_users", Stamp: newer, Holds: newer.Checksum}, {Name: "scheduler", Holds: strings.Repeat("0", 32)}}},
			{NodeID: 3, Address: "192.0.2.3:6020", Failures: 4},
		},
		Events: []api.ClusterEvent{{Time: noon.Add(-time.Minute), Kind: "conflict", Module: "mysql_users", NodeID: 1, Stamp: newer, Lost: users, Text: "the state of node 3 did not go into that of node 1, which is newer"}},
	}
}

func inStep() api.Cluster {
	s := clustered()
	s.Holder, s.Holding, s.Ready, s.Events, s.Nodes = 2, true, true, nil, nil
	s.Modules = []api.ClusterModule{{Name: "mysql_users", Standing: "in-sync", Stamp: s.Modules[0].Stamp}}
	return s
}
