package drbd

import (
	"strings"
	"testing"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/volume"
)

// status is what drbdsetup of DRBD 9 writes, with the words that a test replaces.
const status = `[
{
  "name": "r0", "node-id": 0, "role": "Secondary", "suspended": false, "suspended-quorum": false,
  "force-io-failures": false, "write-ordering": "flush",
  "devices": [{
    "volume": 0, "minor": 0, "disk-state": "UpToDate", "client": false, "open": false, "quorum": true,
    "size": 1048508, "read": 0, "written": 0, "al-writes": 0, "bm-writes": 0, "upper-pending": 0, "lower-pending": 0 }],
  "connections": [{
    "peer-node-id": 1, "name": "nodeb", "connection-state": "Connected", "congested": false, "peer-role": "Secondary",
    "tls": false, "ap-in-flight": 0, "rs-in-flight": 0,
    "paths": [{"this_host": {"address": "10.0.0.1", "port": 7789}, "established": true }],
    "peer_devices": [{
      "volume": 0, "replication-state": "Established", "peer-disk-state": "UpToDate", "peer-client": false,
      "resync-suspended": "no", "received": 0, "sent": 0, "out-of-sync": 0, "pending": 0, "unacked": 0,
      "has-sync-details": false, "has-online-verify-details": false, "percent-in-sync": 100.00 }] }]
}
]`

func with(t *testing.T, changes ...string) Status {
	t.Helper()
	text := strings.NewReplacer(changes...).Replace(status)
	s, err := ParseStatus([]byte(text), "r0")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGateFollowsWhatDRBDSays(t *testing.T) {
	for _, tc := range []struct {
		name    string
		changes []string
		want    string
		refused bool
	}{
		{"both are up to date", nil, "", false},
		{"the other one is gone", []string{`"Connected"`, `"Connecting"`, `"peer-role": "Secondary"`, `"peer-role": "Unknown"`}, "", false},
		{"an older DRBD says nothing of a quorum", []string{`"quorum": true,`, ``}, "", false},
		{"Primary elsewhere", []string{`"peer-role": "Secondary"`, `"peer-role": "Primary"`}, "it is Primary on nodeb", false},
		{"two Primaries", []string{`"peer-role": "Secondary"`, `"peer-role": "Primary"`, `"role": "Secondary"`, `"role": "Primary"`}, "it is Primary on nodeb", false},
		{"Inconsistent", []string{`"disk-state": "UpToDate"`, `"disk-state": "Inconsistent"`}, "Inconsistent", true},
		{"Outdated", []string{`"disk-state": "UpToDate"`, `"disk-state": "Outdated"`}, "Outdated", true},
		{"Diskless", []string{`"disk-state": "UpToDate"`, `"disk-state": "Diskless"`}, "Diskless", true},
		{"split brain", []string{`"Connected"`, `"StandAlone"`}, "split brain", true},
		{"no quorum", []string{`"quorum": true`, `"quorum": false`}, "no quorum", false},
	} {
		err := gate(with(t, tc.changes...))
		switch {
		case tc.want == "" && err != nil, tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		case err != nil && hooks.Refused(err) != tc.refused:
			t.Errorf("%s: refused %v: %v", tc.name, !tc.refused, err)
		}
	}
}

func TestHandoverNeedsAnotherNodeThatHasEverything(t *testing.T) {
	for _, tc := range []struct {
		name    string
		changes []string
		want    string
	}{
		{"it has", nil, ""},
		{"not connected", []string{`"Connected"`, `"Connecting"`}, "nodeb is Connecting"},
		{"being synchronised", []string{`"peer-disk-state": "UpToDate"`, `"peer-disk-state": "Inconsistent"`, `"out-of-sync": 0`, `"out-of-sync": 4096`}, "4096 KiB out of sync"},
		{"nobody there", []string{`"connections"`, `"others"`}, "no other node"},
	} {
		s := with(t, tc.changes...)
		err := s.drained()
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestReportIsOfRoleMountAndServices(t *testing.T) {
	prim := []string{`"role": "Secondary"`, `"role": "Primary"`, `"peer-role": "Primary"`, `"peer-role": "Secondary"`}
	for _, tc := range []struct {
		name    string
		changes []string
		seen    volume.Seen
		role    hooks.Role
		health  hooks.Health
	}{
		{"a backup", nil, volume.Seen{}, hooks.RoleDemoted, hooks.Healthy},
		{"a backup with an old disk", []string{`"disk-state": "UpToDate"`, `"disk-state": "Outdated"`}, volume.Seen{}, hooks.RoleDemoted, hooks.Unfit},
		{"Secondary, and a service on the bare directory", nil, volume.Seen{Running: []string{"x"}}, hooks.RoleUnknown, hooks.Healthy},
		{"Primary and not mounted", prim, volume.Seen{}, hooks.RoleUnknown, hooks.Healthy},
		{"serving", prim, volume.Seen{Mounted: true, Running: []string{"x"}}, hooks.RolePromoted, hooks.Healthy},
		{"the service is dead", prim, volume.Seen{Mounted: true, Stopped: 1, Silent: []string{"x is silent"}}, hooks.RoleUnknown, hooks.Unfit},
		{"the service hangs", prim, volume.Seen{Mounted: true, Running: []string{"x"}, Silent: []string{"x is silent"}}, hooks.RolePromoted, hooks.Unfit},
		{"read-only", prim, volume.Seen{Mounted: true, Fault: "read-only"}, hooks.RoleUnknown, hooks.Unfit},
		{"mounted, and Secondary", nil, volume.Seen{Mounted: true}, hooks.RoleUnknown, hooks.Unfit},
		{"the own disk failed", append([]string{`"disk-state": "UpToDate"`, `"disk-state": "Diskless"`}, prim...), volume.Seen{Mounted: true}, hooks.RolePromoted, hooks.Degraded},
		{"quorum lost", append([]string{`"quorum": true`, `"quorum": false`}, prim...), volume.Seen{Mounted: true}, hooks.RolePromoted, hooks.Unfit},
		{"writes stand still", append([]string{`"suspended": false`, `"suspended": true`}, prim...), volume.Seen{Mounted: true}, hooks.RolePromoted, hooks.Unfit},
	} {
		got := report(with(t, tc.changes...), tc.seen)
		if got.Role != tc.role || got.Health != tc.health {
			t.Errorf("%s: %v, %v (%s), want %v, %v", tc.name, got.Role, got.Health, got.Text, tc.role, tc.health)
		}
	}
}

func TestWhatIsNoStatusIsAnError(t *testing.T) {
	for _, text := range []string{"", "[]", "{}", `[{"name":"r0"}]`, `[{"name":"r0","role":"Primary"}]`, `[{"name":"other","role":"Primary","devices":[{}]}]`} {
		if s, err := ParseStatus([]byte(text), "r0"); err == nil {
			t.Errorf("%q gives %+v", text, s)
		}
	}
}

func FuzzStatus(f *testing.F) {
	f.Add(status)
	f.Fuzz(func(_ *testing.T, text string) {
		if s, err := ParseStatus([]byte(text), "r0"); err == nil {
			_, _ = gate(s), s.drained()
			_ = report(s, volume.Seen{Mounted: true})
		}
	})
}
