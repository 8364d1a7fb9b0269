// Package galera is the monitor "galera": whether a node of a Galera cluster is fit to be
// written to.
//
//	on: monitor
//	kind: galera
//	with:
//	  address: 127.0.0.1:3306
//	  user: monitor
//	  password_file: /etc/carpd/monitor.pass
//
// A node is fit if it belongs to the primary component (wsrep_cluster_status Primary),
// takes queries (wsrep_ready ON), is synced (wsrep_local_state 4), rejects no queries
// (wsrep_reject_queries NONE) and is not read only. clustercheck, from which the settings
// come, looks at the state alone unless told otherwise: a node that was cut off from its
// cluster may have state 4 in its own eyes until it notices.
package galera
