package metrics

import (
	"strconv"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/api"
	"github.com/carpd/carpd/hooks"
)

// theNode is the label `name` of what concerns no single instance.
const theNode = "global"

func states() []string {
	return []string{carp.Init.String(), carp.Backup.String(), carp.Master.String(), carp.Releasing.String()}
}

func grades() []string {
	return []string{hooks.Healthy.String(), hooks.Degraded.String(), hooks.Unfit.String()}
}

func roles() []string {
	return []string{hooks.RolePromoted.String(), hooks.RoleDemoted.String(), hooks.RoleUnknown.String()}
}

func (s *sample) node(st api.Status) {
	s.put("carpd_build_info", 1, st.Version, st.Node)
	s.put("carpd_real_time", truth(st.RealTime))
	if st.Config != nil {
		s.put("carpd_config_loaded_timestamp_seconds", seconds(st.Config.Loaded))
	}
	if st.Log != nil {
		s.put("carpd_log_dropped_lines_total", float64(st.Log.Dropped))
	}
	if st.Guardian != nil {
		s.put("carpd_guardian_up", truth(st.Guardian.PID != 0))
		s.put("carpd_guardian_restarts_total", float64(st.Guardian.Restarts))
	}
	s.alarms(theNode, st.Alarms)
	for _, i := range st.Instances {
		s.instance(i)
	}
	for _, r := range st.Replication {
		s.replication(r)
	}
	for _, g := range st.Groups {
		for _, h := range g.Hooks {
			s.hook("group:"+g.Name, h, wishOfGroup(g.State))
		}
	}
}

func (s *sample) alarms(name string, all []api.Alarm) {
	s.put("carpd_alarms", float64(len(all)), name)
	for _, a := range all {
		s.put("carpd_alarm", 1, name, a.Name)
	}
}

func (s *sample) instance(i api.Instance) {
	n := i.Name
	s.put("carpd_instance_info", 1, n, i.Protocol, strconv.Itoa(int(i.VHID)), i.Interface)
	s.oneOf("carpd_state", states(), i.State, n)
	s.put("carpd_state_since_timestamp_seconds", seconds(i.Since), n)
	s.put("carpd_epoch", float64(i.Epoch), n)
	if i.EffectivePriority != 0 {
		s.put("carpd_priority", float64(i.EffectivePriority), n)
	} else {
		s.put("carpd_advskew", float64(i.EffectiveAdvSkew), n)
	}
	s.put("carpd_demotion", float64(i.Demotion), n)
	s.addresses(i)
	s.counters(n, i.Counters)
	for _, d := range carp.Drops() { // zeroes too: a counter that begins at 1 has no increase
		s.put("carpd_drops_total", float64(i.Drops[d.String()]), n, d.String())
	}
	s.put("carpd_permit_seconds", float64(i.PermitMS)/1000, n)
	if i.Master != nil {
		s.put("carpd_master_last_heard_seconds", float64(i.Master.LastHeardMS)/1000, n)
	}
	if i.Seal != nil && i.Seal.Replay == carp.ReplaySealed.String() {
		s.members(n, i.Members)
	}
	if i.Health != "" {
		s.oneOf("carpd_health", grades(), i.Health, n)
	}
	s.alarms(n, i.Alarms)
	for _, h := range i.Hooks {
		s.hook(n, h, wish(i.State))
	}
}

func (s *sample) addresses(i api.Instance) {
	present := 0
	for _, a := range i.Addresses {
		if a.Present {
			present++
		}
	}
	s.put("carpd_addresses", float64(len(i.Addresses)), i.Name)
	s.put("carpd_addresses_present", float64(present), i.Name)
}

func (s *sample) counters(n string, c api.Counters) {
	s.put("carpd_transitions_total", float64(c.Transitions), n)
	s.put("carpd_adverts_received_total", float64(c.Received), n)
	s.put("carpd_adverts_sent_total", float64(c.Sent), n)
	s.put("carpd_send_errors_total", float64(c.SendErrors), n)
	s.put("carpd_addresses_restored_total", float64(c.Restored), n)
	s.put("carpd_permit_lapses_total", float64(c.Lapses), n)
}

func (s *sample) members(n string, all []api.Member) {
	heard := 0
	for _, m := range all {
		if !m.Gone {
			heard++
		}
	}
	s.put("carpd_members", float64(heard), n)
}

func (s *sample) hook(n string, h api.Hook, wished string) {
	s.put("carpd_hook_runs_total", float64(h.Runs), n, h.Name, h.Kind, h.Phase)
	s.put("carpd_hook_failures_total", float64(h.Failures), n, h.Name, h.Kind, h.Phase)
	s.put("carpd_hook_running", truth(h.State == string(hooks.Running)), n, h.Name, h.Kind, h.Phase)
	if h.Runs > 0 {
		s.put("carpd_hook_last_duration_seconds", (time.Duration(h.LastMS) * time.Millisecond).Seconds(), n, h.Name, h.Kind, h.Phase)
	}
	if h.Seen == nil {
		return
	}
	s.oneOf("carpd_watched_health", grades(), h.Health, n, h.Name, h.Kind)
	s.put("carpd_watched_blind", truth(h.Blind != ""), n, h.Name, h.Kind)
	if h.Phase == hooks.PlaceResource {
		s.oneOf("carpd_resource_role", roles(), h.Role, n, h.Name, h.Kind)
		s.put("carpd_role_mismatch", truth(mismatch(wished, h.Role)), n, h.Name, h.Kind)
	}
}

// wish is the role that a resource is to be in while its instance is in a state; "" while
// that is about to change.
func wish(state string) string {
	switch state {
	case carp.Master.String():
		return hooks.RolePromoted.String()
	case carp.Backup.String(), carp.Init.String():
		return hooks.RoleDemoted.String()
	}
	return ""
}

// wishOfGroup is wish for a group that moves together.
func wishOfGroup(state string) string {
	switch state {
	case "up":
		return hooks.RolePromoted.String()
	case "down", "waiting":
		return hooks.RoleDemoted.String()
	}
	return ""
}

// mismatch reports whether a resource is in another role than it is to be. Of one that
// cannot be asked nobody knows; where it is to serve, that is a mismatch too.
func mismatch(wished, role string) bool {
	switch wished {
	case hooks.RolePromoted.String():
		return role != wished
	case hooks.RoleDemoted.String():
		return role == hooks.RolePromoted.String()
	}
	return false
}
