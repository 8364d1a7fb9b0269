package modules

import (
	"slices"
	"time"
)

// Standing says how a module stands. The words are part of the interface.
type Standing string

// The standings of a module.
const (
	InSync     Standing = "in-sync"    // the database holds what the stamp says, and nothing newer is known
	Fresh      Standing = "fresh"      // this node has no state of the cluster
	Unknown    Standing = "unknown"    // the database cannot be read
	Changed    Standing = "changed"    // the database holds a change without a stamp
	Behind     Standing = "behind"     // a newer stamp is known
	Fetching   Standing = "fetching"   // it is on its way
	Installing Standing = "installing" // it is being written
	Offering   Standing = "offering"   // a change waits for the holder's word
	Refusing   Standing = "refusing"   // a table would become empty
)

// Status is what a node knows.
type Status struct {
	Self    uint8          `json:"node_id"`
	Holder  Claim          `json:"holder"`
	Holding bool           `json:"holding"` // this node holds the address
	Ready   bool           `json:"ready"`   // and makes stamps
	Modules []ModuleStatus `json:"modules"`
	Peers   []PeerStatus   `json:"peers"`
}

// ModuleStatus is that of a module.
type ModuleStatus struct {
	Name     string   `json:"name"`
	Standing Standing `json:"standing"`
	Stamp    Stamp    `json:"stamp"`
	Holds    Sum      `json:"holds"`  // checksum of what the database holds
	Wanted   Stamp    `json:"wanted"` // the newest that others have, if it is newer
	Seen     int      `json:"seen"`   // so many observations of it
	Reason   string   `json:"reason,omitempty"`
}

// PeerStatus is that of another node. Of one that is no neighbour little is known.
type PeerStatus struct {
	Node      uint8     `json:"node_id"`
	Neighbour bool      `json:"neighbour"` // this node polls it
	Heard     time.Time `json:"heard"`     // last; zero: never
	Failures  int       `json:"failures"`  // in a row
	Modules   []Entry   `json:"modules"`
}

// Status returns what the node knows. It shares nothing with the Core.
func (c *Core) Status(now time.Time) Status {
	s := Status{Self: c.cfg.Self, Holder: c.claim, Holding: c.holding != 0, Ready: c.mayStamp()}
	for _, m := range c.modules {
		ms := ModuleStatus{Name: m.spec.Name, Standing: m.standing(), Stamp: m.Stamp, Holds: m.entry().Holds, Reason: m.reason}
		if m.want.stamp.Compare(m.Stamp) > 0 {
			ms.Wanted, ms.Seen = m.want.stamp, m.want.seen
		}
		s.Modules = append(s.Modules, ms)
	}
	near := c.neighbours(now)
	for _, id := range slices.Sorted(slices.Values(c.cfg.Peers)) {
		p := c.peers[id]
		ps := PeerStatus{Node: id, Neighbour: slices.Contains(near, id), Heard: p.last, Failures: p.failures}
		for _, m := range c.modules {
			if e, ok := p.entries[m.spec.Name]; ok {
				ps.Modules = append(ps.Modules, e)
			}
		}
		s.Peers = append(s.Peers, ps)
	}
	return s
}

// standing says how the module stands.
func (m *module) standing() Standing {
	switch {
	case m.look == nil:
		return Unknown
	case m.task.kind == fetching:
		return Fetching
	case m.task.kind == installing:
		return Installing
	case m.task.kind == offering:
		return Offering
	case len(m.refused.tables) > 0:
		return Refusing
	case m.want.stamp.Compare(m.Stamp) > 0:
		return Behind
	case m.fresh():
		return Fresh
	case m.look.Sum != m.Stamp.Sum:
		return Changed
	}
	return InSync
}
