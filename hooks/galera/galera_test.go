package galera

import (
	"maps"
	"strings"
	"testing"

	"github.com/carpd/carpd/hooks"
)

func TestANodeIsFitOnlyIfAllOfItIs(t *testing.T) {
	sound := status{
		"wsrep_on": "ON", "wsrep_cluster_status": "Primary", "wsrep_ready": "ON", "wsrep_local_state": "4", "wsrep_local_state_comment": "Synced",
		"wsrep_cluster_size": "3", "wsrep_reject_queries": "NONE", "wsrep_sst_donor_rejects_queries": "OFF", "read_only": "OFF",
	}
	for _, c := range []struct {
		name   string
		config Config
		but    status
		want   hooks.Health
		text   string
	}{
		{"sound", Config{}, nil, hooks.Healthy, "one of 3"},
		{"no cluster", Config{}, status{"wsrep_on": "OFF"}, hooks.Unfit, "no node of a cluster"},
		{"no provider", Config{}, status{"wsrep_cluster_status": ""}, hooks.Unfit, "no provider"},
		{"cut off, and not aware of it in its state", Config{}, status{"wsrep_cluster_status": "non-Primary"}, hooks.Unfit, "not the primary"},
		{"disconnected", Config{}, status{"wsrep_cluster_status": "Disconnected"}, hooks.Unfit, "Disconnected"},
		{"not ready", Config{}, status{"wsrep_ready": "OFF"}, hooks.Unfit, "wsrep_ready"},
		{"joining", Config{}, status{"wsrep_local_state": "1", "wsrep_local_state_comment": "Joining"}, hooks.Unfit, "Joining"},
		{"joined", Config{}, status{"wsrep_local_state": "3"}, hooks.Unfit, "not synced"},
		{"joined is no donor", Config{AvailableWhenDonor: true}, status{"wsrep_local_state": "3"}, hooks.Unfit, "not synced"},
		{"donor", Config{}, status{"wsrep_local_state": "2"}, hooks.Unfit, "not synced"},
		{"donor, allowed", Config{AvailableWhenDonor: true}, status{"wsrep_local_state": "2"}, hooks.Degraded, "donor"},
		{"donor, allowed, that rejects", Config{AvailableWhenDonor: true}, status{"wsrep_local_state": "2", "wsrep_sst_donor_rejects_queries": "ON"}, hooks.Unfit, "rejects"},
		{"rejects queries", Config{}, status{"wsrep_reject_queries": "ALL"}, hooks.Unfit, "wsrep_reject_queries is ALL"},
		{"read only", Config{}, status{"read_only": "ON"}, hooks.Unfit, "read only"},
		{"read only, allowed", Config{AvailableWhenReadOnly: true}, status{"read_only": "ON"}, hooks.Healthy, "3"},
		{"too few", Config{MinSize: 4}, nil, hooks.Degraded, "fewer than 4"},
		{"nothing said", Config{}, status{"wsrep_on": "", "wsrep_cluster_status": ""}, hooks.Unfit, "no node"},
	} {
		said := maps.Clone(sound)
		maps.Copy(said, c.but)
		if health, text := c.config.judge(said); health != c.want || !strings.Contains(text, c.text) {
			t.Errorf("%s: %v, %q; want %v, %q", c.name, health, text, c.want, c.text)
		}
	}
}

func TestConfigurationFaultsAreToldAllAtOnce(t *testing.T) {
	_, err := New(Config{Address: "server", PasswordFile: "pass", DisableFile: "off", MinSize: -1})
	for _, want := range []string{"address:", "user:", "password_file:", "disable_file:", "min_size:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if _, err := New(Config{Address: "/run/mysqld/mysqld.sock", User: "monitor"}); err != nil {
		t.Error(err)
	}
}
