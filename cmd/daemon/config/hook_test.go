package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/carpd/carpd/hooks"
)

// Who wrote a kind at a place where it is none is told what to write instead: there, or of
// which other kind.
func TestAKindInTheWrongPlaceIsToldWhereItBelongs(t *testing.T) {
	o := lan()
	o.Kinds = func(c hooks.Class) []string {
		return map[hooks.Class][]string{
			hooks.Notification:  {"exec", "systemd", "syslog"},
			hooks.ResourceClass: {"exec", "hast", "systemd"},
			hooks.MonitorClass:  {"process", "script"},
		}[c]
	}
	o.CheckHook = nil
	for entry, hint := range map[string]string{
		"kind: exec, on: monitor":    "use kind: script, which looks by a program",
		"kind: systemd, on: monitor": "use kind: process, which looks at a unit",
		"kind: syslog, on: monitor":  "say when it runs: on: before-up, after-up, before-down or after-down",
		"kind: hast, on: monitor":    "remove on: it is promoted and demoted with the role",
		"kind: script, on: after-up": "write on: monitor",
		"kind: script":               "write on: monitor",
	} {
		text := fmt.Sprintf("instances:\n  - vhid: 9\n    interface: eth0\n    passphrase: a secret\n    addresses: [192.0.2.50/24]\n    hooks:\n      - {%s}\n", entry)
		_, err := Parse("test.yaml", []byte(text), o)
		problems, ok := err.(Problems)
		if !ok || !slices.ContainsFunc(problems, func(p Problem) bool { return strings.HasPrefix(p.Message, "kind: ") && p.Hint == hint }) {
			t.Errorf("%s: %v, want the hint %q", entry, err, hint)
		}
	}
}
