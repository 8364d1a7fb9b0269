package link

import (
	"net/netip"
	"slices"

	"github.com/carpd/carpd/carp"
)

// Own is an interface as it is now: index 0 if there is none of the name. Addresses
// are those that can be used and that no port avoids: the node's own.
type Own struct {
	Index     int
	Up        bool
	MAC       carp.MAC
	Addresses []netip.Addr // without zone, in the kernel's order
}

// Own returns what is known of the interface. It does not ask the kernel.
func (i *Interface) Own() Own {
	s := i.state.Load()
	return Own{Index: s.index, Up: s.up, MAC: s.mac, Addresses: slices.Clone(s.own)}
}
