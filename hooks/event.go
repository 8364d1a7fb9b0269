package hooks

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/carpd/carpd/carp"
)

// Schema is the version of an event's JSON form. It grows when a field changes
// its meaning or goes; a new field alone does not change it, so readers ignore
// what they do not know.
const Schema = 1

// Event says what happened, to a hook. It is a value: a hook may keep it, but
// must not write to Addresses.
//
// Its JSON form is part of the interface:
//
//	schema     number  1
//	name       string  name of the instance: VHID@IF, e.g. "9@eth0", or as configured
//	vhid       number  1 to 255
//	interface  string  name of the interface
//	node       string  name of this node
//	phase      string  before-up, after-up, before-down, after-down
//	from, to   string  INIT, BACKUP, MASTER, RELEASING
//	reason     string  a name of carp.Reason, e.g. "master-timed-out"
//	peer       string  address of the other master; "" if none was involved
//	epoch      number  of the mastership that begins or ends; 0 if there was none
//	time       string  RFC 3339, with nanoseconds
//	addresses  array   of strings, address/length; [] if there are none
type Event struct {
	Name      string // VHID@IF or as configured
	VHID      uint8
	Interface string
	Node      string
	NodeID    uint8 // 0: it has none; not in the JSON form
	Phase     Phase // set by the Runner
	From, To  carp.State
	Reason    carp.Reason
	Peer      netip.Addr // the zero value if no other master was involved
	Epoch     carp.Epoch
	Time      time.Time      // wall clock
	Addresses []netip.Prefix // that move with the role, as configured
}

// MarshalJSON returns the documented form.
func (ev Event) MarshalJSON() ([]byte, error) {
	wire := struct {
		Schema    int        `json:"schema"`
		Name      string     `json:"name"`
		VHID      uint8      `json:"vhid"`
		Interface string     `json:"interface"`
		Node      string     `json:"node"`
		Phase     string     `json:"phase"`
		From      string     `json:"from"`
		To        string     `json:"to"`
		Reason    string     `json:"reason"`
		Peer      string     `json:"peer"`
		Epoch     carp.Epoch `json:"epoch"`
		Time      time.Time  `json:"time"`
		Addresses []string   `json:"addresses"`
	}{
		Schema: Schema, Name: ev.Name, VHID: ev.VHID, Interface: ev.Interface, Node: ev.Node,
		Phase: ev.Phase.String(), From: ev.From.String(), To: ev.To.String(), Reason: ev.Reason.String(),
		Epoch: ev.Epoch, Time: ev.Time, Addresses: make([]string, 0, len(ev.Addresses)),
	}
	if ev.Peer.IsValid() {
		wire.Peer = ev.Peer.String()
	}
	for _, a := range ev.Addresses {
		wire.Addresses = append(wire.Addresses, a.String())
	}
	return json.Marshal(wire)
}
