package metrics

import "github.com/prometheus/client_golang/prometheus"

// family is one metric with its labels, as it is registered.
type family struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
}

const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
)

// families lists all metrics of carpd's own. Counters begin at 0 with the daemon.
func families() []family {
	of := func(labels ...string) []string { return labels }
	return []family{
		{"carpd_build_info", "Which carpd this is; always 1.", gauge, of("version", "node")},
		{"carpd_real_time", "Whether adverts go before all other work of the machine.", gauge, nil},
		{"carpd_config_loaded_timestamp_seconds", "When the configuration that runs was read.", gauge, nil},
		{"carpd_log_dropped_lines_total", "Lines of the log that were thrown away because its reader was slow.", counter, nil},
		{"carpd_guardian_up", "Whether a process guards the daemon.", gauge, nil},
		{"carpd_guardian_restarts_total", "How often that process was started again.", counter, nil},
		{"carpd_alarms", "Alarms that stand.", gauge, of("name")},
		{"carpd_alarm", "An alarm that stands; always 1, absent when it is over.", gauge, of("name", "alarm")},

		{"carpd_instance_info", "What an instance is; always 1.", gauge, of("name", "protocol", "vhid", "interface")},
		{"carpd_state", "Whether an instance is in a state: one of them is 1.", gauge, of("name", "state")},
		{"carpd_state_since_timestamp_seconds", "Since when it is in that state.", gauge, of("name")},
		{"carpd_epoch", "Epoch of the present or last mastership here.", gauge, of("name")},
		{"carpd_advskew", "What adverts of CARP say, with demotion.", gauge, of("name")},
		{"carpd_priority", "What adverts of VRRP say, with demotion.", gauge, of("name")},
		{"carpd_demotion", "Sum of all demotions.", gauge, of("name")},
		{"carpd_addresses", "Addresses that move with the instance.", gauge, of("name")},
		{"carpd_addresses_present", "Those that are on the interface of this node.", gauge, of("name")},
		{"carpd_addresses_restored_total", "Addresses that were lost and put back.", counter, of("name")},
		{"carpd_transitions_total", "Changes of state.", counter, of("name")},
		{"carpd_adverts_received_total", "Adverts accepted.", counter, of("name")},
		{"carpd_adverts_sent_total", "Rounds of adverts sent.", counter, of("name")},
		{"carpd_send_errors_total", "Adverts that could not be sent.", counter, of("name")},
		{"carpd_drops_total", "Packets refused, by reason.", counter, of("name", "reason")},
		{"carpd_permit_seconds", "How long the permit to have addresses still lasts; 0: there is none.", gauge, of("name")},
		{"carpd_permit_lapses_total", "Addresses taken off because the permit ran out.", counter, of("name")},
		{"carpd_master_last_heard_seconds", "How long ago another master was heard; absent if there is none.", gauge, of("name")},
		{"carpd_members", "Members of a sealed group that are heard, without this node.", gauge, of("name")},
		{"carpd_health", "How fit the node is: one of ok, degraded and unfit is 1.", gauge, of("name", "grade")},

		{"carpd_hook_runs_total", "Calls of a hook, and promotions and demotions of a resource.", counter, of("name", "hook", "kind", "place")},
		{"carpd_hook_failures_total", "Those that failed.", counter, of("name", "hook", "kind", "place")},
		{"carpd_hook_running", "Whether it is under way.", gauge, of("name", "hook", "kind", "place")},
		{"carpd_hook_last_duration_seconds", "How long the last call took.", gauge, of("name", "hook", "kind", "place")},
		{"carpd_watched_health", "What a look at a resource or monitor found: one of ok, degraded and unfit is 1.", gauge, of("name", "hook", "kind", "grade")},
		{"carpd_watched_blind", "Whether it cannot be looked at.", gauge, of("name", "hook", "kind")},
		{"carpd_resource_role", "In which role a resource is: one of promoted, demoted and unknown is 1.", gauge, of("name", "hook", "kind", "role")},
		{"carpd_role_mismatch", "Whether a resource is in another role than the state of the node asks for.", gauge, of("name", "hook", "kind")},

		{"carpd_replication_info", "A database of which snapshots are kept here; always 1.", gauge, of("replication", "name", "kind")},
		{"carpd_replication_role", "What this node does for it: one of master, standby and stopped is 1.", gauge, of("replication", "role")},
		{"carpd_replication_age_seconds", "For how long a change has been in no snapshot; on the master only.", gauge, of("replication")},
		{"carpd_replication_last_success_timestamp_seconds", "When the database was last seen to be in the newest snapshot (master), or that one came (standby).", gauge, of("replication")},
		{"carpd_replication_newest_timestamp_seconds", "When the newest sound snapshot here was taken, by the clock of its node.", gauge, of("replication")},
		{"carpd_replication_newest_bytes", "Its size.", gauge, of("replication")},
		{"carpd_replication_snapshots", "Snapshots in the own store.", gauge, of("replication")},
		{"carpd_replication_store_bytes", "Size of all of them.", gauge, of("replication")},
		{"carpd_replication_quarantined", "Snapshots in quarantine.", gauge, of("replication")},
		{"carpd_replication_waiting", "Snapshots that came and are not verified yet.", gauge, of("replication")},
		{"carpd_replication_taken_total", "Snapshots taken and published in the own store.", counter, of("replication")},
		{"carpd_replication_failed_total", "Tries to take one that failed, those that were refused among them.", counter, of("replication")},
		{"carpd_replication_refused_total", "Snapshots that were not sound, taken or received.", counter, of("replication")},
		{"carpd_replication_verified_total", "Snapshots received and found sound.", counter, of("replication")},
		{"carpd_replication_pruned_total", "Snapshots deleted by count and age.", counter, of("replication")},
		{"carpd_replication_lag_seconds", "For how long a peer has been without a snapshot that it should have; on the master only.", gauge, of("replication", "peer")},
		{"carpd_replication_peer_state", "How a peer is: one of idle, unknown, current, behind, failing and older is 1.", gauge, of("replication", "peer", "state")},
		{"carpd_replication_peer_failures", "Tries to reach it or ship to it that failed, one after the other.", gauge, of("replication", "peer")},
		{"carpd_replication_peer_last_success_timestamp_seconds", "When it was last known to have the newest snapshot; on the master only.", gauge, of("replication", "peer")},
		{"carpd_replication_shipped_total", "Snapshots shipped to it.", counter, of("replication", "peer")},
		{"carpd_replication_sent_bytes_total", "Bytes that went to it.", counter, of("replication", "peer")},
	}
}

// Names lists the metrics of carpd's own.
func Names() []string {
	var all []string
	for _, f := range families() {
		all = append(all, f.name)
	}
	return all
}
