package daemon

import (
	"fmt"
	"strings"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/cmd/daemon/api"
)

// members shows what the other nodes of a sealed group say of themselves.
func members(st carp.Status, now carp.Instant) []api.Member {
	var all []api.Member
	for _, m := range st.Members {
		all = append(all, api.Member{
			NodeID: m.Node, Address: m.Address.String(), State: m.State.String(), Fitness: m.Fitness.String(),
			AdvBase: m.AdvBase, AdvSkew: m.AdvSkew, Held: m.Held, Epoch: uint64(m.Epoch), LastHeardMS: now.Sub(m.At).Milliseconds(),
			Gone: m.Gone, Differs: m.Differs,
		})
	}
	return all
}

// memberAlarm names the living members whose settings are not this node's.
func memberAlarm(st carp.Status) condition {
	c := condition{name: "members-differ"}
	var who []string
	for _, m := range st.Members {
		if m.Differs && !m.Gone {
			who = append(who, fmt.Sprintf("%d at %v", m.Node, m.Address))
		}
	}
	if len(who) > 0 {
		c.text = fmt.Sprintf("node %s of this group has another `advbase`, `families` or `window`: give all members the same.", strings.Join(who, ", node "))
	}
	return c
}

// explainMembers says who could take the role.
func explainMembers(say sayer, st carp.Status) {
	for _, m := range st.Members {
		if m.Gone {
			say("Node %d, last at %v, has not said anything for a while.", m.Node, m.Address)
			continue
		}
		say("Node %d at %v says that it is %v, %v, with advbase %d and advskew %d.", m.Node, m.Address, m.State, m.Fitness, m.AdvBase, m.AdvSkew)
	}
}
