package exec

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
)

// Environment returns the whole environment of a program for an event. These
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

// arguments returns what follows the path of the program.
func (c Config) arguments(ev hooks.Event) []string {
	args := append([]string(nil), c.Command[1:]...)
	switch c.Style {
	case UCARP:
		args = append(args, ev.Interface, firstAddress(ev.Addresses))
		if c.XParam != "" {
			args = append(args, c.XParam)
		}
	case Keepalived:
		priority := c.Priority
		if priority == 0 {
			priority = DefaultPriority
		}
		args = append(args, "INSTANCE", ev.Name, keepalivedState(ev), strconv.Itoa(priority))
	}
	return args
}

func firstAddress(addresses []netip.Prefix) string {
	if len(addresses) == 0 {
		return ""
	}
	return addresses[0].Addr().String()
}

// keepalivedState is the state in keepalived's words, which has FAULT for an
// interface that is down and STOP for a daemon that ends.
func keepalivedState(ev hooks.Event) string {
	switch {
	case ev.Reason == carp.ReasonStopping:
		return "STOP"
	case ev.To == carp.Master:
		return "MASTER"
	case ev.To == carp.Init:
		return "FAULT"
	}
	return "BACKUP"
}
