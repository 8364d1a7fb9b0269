package daemon

import (
	"strings"
	"testing"
)

// A better node that takes the role by its advert leaves the other one no time to let go
// of a resource.
func TestAGroupThatHoldsResourcesIsNotPreemptedByAnAdvert(t *testing.T) {
	const resource = "\n    hooks: [{kind: exec, with: {promote: [/bin/true], demote: [/bin/true], monitor: [/bin/true]}}]\n"
	carp := "node_id: 1\ninstances:\n  - vhid: 9\n    interface: eth0\n    passphrase: x\n    addresses: [192.0.2.50/24]\n    "
	vrrp := "instances:\n  - vrid: 9\n    protocol: vrrp3\n    interface: eth0\n    addresses: [192.0.2.50/24]\n    "
	for _, test := range []struct {
		text, refused string
	}{
		{carp + "preempt: true" + resource, "replay: sealed"},
		{carp + "preempt: false" + resource, ""},
		{carp + "preempt: true\n    replay: sealed" + resource, ""},
		{carp + "preempt: true", ""},
		{carp + "compat: bsd" + resource, "compat: none"},
		{vrrp + "preempt: true" + resource, "preempt: false"},
		{vrrp + "preempt: false" + resource, ""},
		{vrrp + "priority: 255\n    preempt: false" + resource, "priority 255"},
	} {
		_, _, err := load(write(t, test.text))
		if (err == nil) != (test.refused == "") || err != nil && !strings.Contains(err.Error(), test.refused) {
			t.Errorf("%s: %v", test.text, err)
		}
	}
}
