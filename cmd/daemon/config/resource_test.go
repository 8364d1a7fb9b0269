package config

import (
	"strings"
	"testing"
)

const thing = "{kind: exec, name: thing, release_timeout: 60s}"

// What an operator hardly means: the message names the key, and what to do.
func TestWhatDoesNotFitResourcesIsTold(t *testing.T) {
	for name, tc := range map[string]struct {
		text, want string
		warning    bool
	}{
		"a budget that is over before": {
			"instances:\n  - {vhid: 9, interface: eth0, passphrase: x, addresses: [192.0.2.50/24], release_budget: 59s, hooks: [" + thing + "]}\n",
			"release_budget: its resources may take 1m0s", true,
		},
		"a budget that is enough": {
			"instances:\n  - {vhid: 9, interface: eth0, passphrase: x, addresses: [192.0.2.50/24], release_budget: 60s, hooks: [" + thing + "]}\n",
			"", true,
		},
		"one name in a group and its instance": {
			"groups:\n  site: {together: true, hooks: [" + thing + "]}\n" +
				"instances:\n  - {vhid: 9, interface: eth0, passphrase: x, addresses: [192.0.2.50/24], groups: [site], hooks: [" + thing + "]}\n",
			"the name thing is taken", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Parse("carpd.yaml", []byte(tc.text), Options{})
			got := ""
			if err != nil {
				got = err.Error()
			} else if len(f.Warnings) > 0 {
				got = f.Warnings.Error()
			}
			if (err == nil) != tc.warning || !strings.Contains(got, tc.want) || tc.want == "" && strings.Contains(got, "release_budget") {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}
