package daemon

import (
	"fmt"
	"net"
	"strings"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/vip"
)

// lookForConflict raises an alarm while somebody else answers for addresses that are
// up here, and defends them if the instance shall. What was seen before this node was
// master, or before another one was last heard, belongs to the takeover or the contest.
func (i *instance) lookForConflict(st carp.Status) {
	p := i.plan.Load()
	since := max(st.Since, st.Master.At)
	if st.State == carp.Master {
		since = max(since, st.ContestedUntil)
	}
	found, missed := i.set.Conflicts(since, st.MasterDown)
	i.d.book.set(len(found) > 0, i.name, "address-conflict", i.name+": "+conflictText(p, found, missed))
	if p.OnConflict == "defend" {
		i.set.Defend(found)
	}
}

// conflictsNamed is how many conflicts an alarm names.
const conflictsNamed = 3

func conflictText(p *plan, found []vip.Conflict, missed uint64) string {
	var named []string
	for n, c := range found {
		if n == conflictsNamed {
			named = append(named, fmt.Sprintf("%d more", len(found)-n))
			break
		}
		named = append(named, fmt.Sprintf("%v at %v", c.Addr, net.HardwareAddr(c.MAC[:])))
	}
	follows := "This node announces them again, each 10 s at most"
	if p.OnConflict != "defend" {
		follows = "Nothing is done about it (on_conflict: alarm)"
	}
	unseen := ""
	if missed > 0 {
		unseen = fmt.Sprintf(" There were %d more frames than are looked at.", missed)
	}
	return fmt.Sprintf("somebody else answers for shared addresses on %s, and is no master of this group that is heard: %s. %s. "+
		"Look for that MAC in the switch and take the address off there; if it is a node of the group, the nodes do not hear each other's adverts.%s",
		p.Interface, strings.Join(named, ", "), follows, unseen)
}
