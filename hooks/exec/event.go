package exec

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
	"github.com/carpd/carpd/hooks/keepalived"
)

// Environment returns the whole environment of a program for an event; that of a resource
// also has CARP_ACTION: promote or demote. These
// names are part of the interface:
//
//	PATH            the usual system directories
//	CARP_SCHEMA     version of the event's form, hooks.Schema
//	CARP_NAME       name of the instance
//	CARP_VHID       1 to 255
//	CARP_INTERFACE  name of the interface
//	CARP_NODE       name of this node
//	CARP_PHASE      before-up, after-up, before-down, after-down
//	CARP_FROM       INIT, BACKUP, MASTER, RELEASING
//	CARP_TO         likewise
//	CARP_REASON     a name of carp.Reason
//	CARP_PEER       address of the other master, or empty
//	CARP_EPOCH      number of the mastership, decimal
//	CARP_TIME       RFC 3339, with nanoseconds
//	CARP_ADDRESSES  address/length, separated by spaces
func Environment(ev hooks.Event) []string {
	peer := ""
	if ev.Peer.IsValid() {
		peer = ev.Peer.String()
	}
	addresses := make([]string, 0, len(ev.Addresses))
	for _, a := range ev.Addresses {
		addresses = append(addresses, a.String())
	}
	return []string{
		"PATH=" + command.SearchPath,
		"CARP_SCHEMA=" + strconv.Itoa(hooks.Schema),
		"CARP_NAME=" + ev.Name,
		"CARP_VHID=" + strconv.Itoa(int(ev.VHID)),
		"CARP_INTERFACE=" + ev.Interface,
		"CARP_NODE=" + ev.Node,
		"CARP_PHASE=" + ev.Phase.String(),
		"CARP_FROM=" + ev.From.String(),
		"CARP_TO=" + ev.To.String(),
		"CARP_REASON=" + ev.Reason.String(),
		"CARP_PEER=" + peer,
		"CARP_EPOCH=" + strconv.FormatUint(uint64(ev.Epoch), 10),
		"CARP_TIME=" + ev.Time.Format(time.RFC3339Nano),
		"CARP_ADDRESSES=" + strings.Join(addresses, " "),
	}
}

// arguments returns what follows those of the configuration.
func (c Config) arguments(ev hooks.Event) []string {
	switch c.Style {
	case UCARP:
		args := []string{ev.Interface, firstAddress(ev.Addresses)}
		if c.XParam != "" {
			args = append(args, c.XParam)
		}
		return args
	case Keepalived:
		return keepalived.Arguments(ev.Name, ev, c.Priority)
	}
	return nil
}

func firstAddress(addresses []netip.Prefix) string {
	if len(addresses) == 0 {
		return ""
	}
	return addresses[0].Addr().String()
}
