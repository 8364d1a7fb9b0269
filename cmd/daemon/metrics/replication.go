package metrics

import (
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
)

func (s *sample) replication(r api.Replication) {
	n := r.Name
	s.put("carpd_replication_info", 1, n, r.Instance, r.Kind)
	s.oneOf("carpd_replication_role", []string{"master", "standby", "stopped"}, r.Role, n)
	master := r.Role == "master"
	if master {
		s.put("carpd_replication_age_seconds", float64(r.AgeMS)/1000, n)
	}
	s.moment("carpd_replication_last_success_timestamp_seconds", r.LastSuccess, n)
	if r.Newest != nil {
		s.moment("carpd_replication_newest_timestamp_seconds", &r.Newest.Time, n)
		s.put("carpd_replication_newest_bytes", float64(r.Newest.Size), n)
	}
	for name, v := range map[string]float64{
		"carpd_replication_snapshots": float64(r.Snapshots), "carpd_replication_store_bytes": float64(r.Bytes),
		"carpd_replication_quarantined": float64(r.Quarantined), "carpd_replication_waiting": float64(r.Waiting),
		"carpd_replication_taken_total": float64(r.Taken), "carpd_replication_failed_total": float64(r.Failed),
		"carpd_replication_refused_total": float64(r.Refused), "carpd_replication_verified_total": float64(r.Verified),
		"carpd_replication_pruned_total": float64(r.Pruned),
	} {
		s.put(name, v, n)
	}
	for _, p := range r.Peers {
		s.peer(n, p, master)
	}
}

func (s *sample) peer(n string, p api.ReplicationPeer, master bool) {
	if master {
		s.put("carpd_replication_lag_seconds", float64(p.LagMS)/1000, n, p.Name)
	}
	s.oneOf("carpd_replication_peer_state", []string{"idle", "unknown", "current", "behind", "failing", "older"}, p.State, n, p.Name)
	s.put("carpd_replication_peer_failures", float64(p.Failures), n, p.Name)
	s.moment("carpd_replication_peer_last_success_timestamp_seconds", p.LastSuccess, n, p.Name)
	s.put("carpd_replication_shipped_total", float64(p.Shipped), n, p.Name)
	s.put("carpd_replication_sent_bytes_total", float64(p.Bytes), n, p.Name)
}

// moment gives an instant that may not be yet.
func (s *sample) moment(name string, t *time.Time, labels ...string) {
	if t != nil {
		s.put(name, seconds(*t), labels...)
	}
}
