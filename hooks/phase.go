package hooks

import (
	"fmt"
	"slices"
	"strings"
)

// Phase says when a step runs. The zero value is BeforeUp.
type Phase uint8

// The phases, in the order of a mastership.
const (
	BeforeUp   Phase = iota // elected, adverts claim the role, addresses not yet up
	AfterUp                 // addresses up and announced
	BeforeDown              // planned handover only, addresses still up
	AfterDown               // addresses gone
)

func phaseNames() [4]string {
	return [...]string{"before-up", "after-up", "before-down", "after-down"}
}

// String returns the name that configuration, events and logs use.
func (p Phase) String() string {
	if names := phaseNames(); int(p) < len(names) {
		return names[p]
	}
	return fmt.Sprintf("Phase(%d)", p)
}

// Down reports whether the phase belongs to letting go. Steps of such a phase
// run in the reverse order of the configuration: what was started last is
// stopped first.
func (p Phase) Down() bool { return p == BeforeDown || p == AfterDown }

// ParsePhase returns the phase with the given name.
func ParsePhase(s string) (Phase, error) {
	names := phaseNames()
	for i, n := range names {
		if n == s {
			return Phase(i), nil
		}
	}
	return 0, fmt.Errorf("hooks: parse phase %q: unknown: use %s", s, strings.Join(names[:], ", "))
}

// Policy says what a failed step means. The zero value is the default of the
// step's phase: the first of Phase.Policies.
type Policy uint8

// The policies, the graver the greater.
const (
	PhaseDefault Policy = iota // the first of Phase.Policies
	Continue                   // go on; the failure is logged and stands in the status
	Alarm                      // go on; Run returns the failure, and the caller raises an alarm
	Demote                     // go on; Run returns the failure, and the caller demotes this node
	Retreat                    // stop; Run returns the failure, and the caller gives up the role
	Reboot                     // the node cannot let go: the caller restarts the machine
	StopWatchdog               // likewise: the caller no longer feeds the watchdog, which does it
)

func policyNames() [7]string {
	return [...]string{"default", "continue", "alarm", "demote", "retreat", "reboot", "stop-watchdog"}
}

// String returns the name that configuration and logs use.
func (p Policy) String() string {
	if names := policyNames(); int(p) < len(names) {
		return names[p]
	}
	return fmt.Sprintf("Policy(%d)", p)
}

// ParsePolicy returns the policy with the given name. The empty string is
// PhaseDefault.
func ParsePolicy(s string) (Policy, error) {
	if s == "" {
		return PhaseDefault, nil
	}
	names := policyNames()
	for i, n := range names {
		if n == s {
			return Policy(i), nil
		}
	}
	return 0, fmt.Errorf("hooks: parse failure policy %q: unknown: use %s", s, strings.Join(names[1:], ", "))
}

// Policies returns what a step of this phase may have, its default first:
// retreat before the addresses are up, continue around them, alarm when they are
// gone. On the way down there is no role left to retreat from and nothing to
// demote. It is empty for no phase.
func (p Phase) Policies() []Policy {
	switch p {
	case BeforeUp:
		return []Policy{Retreat, Continue}
	case AfterUp:
		return []Policy{Continue, Demote, Retreat}
	case BeforeDown:
		return []Policy{Continue}
	case AfterDown:
		return StuckPolicies()
	}
	return nil
}

// Allows reports whether a step of this phase may have the policy.
func (p Phase) Allows(policy Policy) bool {
	return policy == PhaseDefault || slices.Contains(p.Policies(), policy)
}
