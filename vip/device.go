package vip

import (
	"fmt"
	"net"

	"github.com/carpd/carpd/carp"
)

// linkInfo is an interface with what else decides whether a device can be made.
type linkInfo struct {
	Link
	hardware carp.MAC // also of an interface that speaks no ARP
	lower    int      // index of the interface below, 0 if there is none
	macvlan  bool
	private  bool // the macvlan's mode
	arp      arpSettings
	label    label // of one of ours
	group    uint32
	record   string      // of what arp was before, if we changed it; "": there is none
	recorded arpSettings // as it says
}

// label is the alias of a device of ours. It survives a crash, and with it what is
// to be restored of the parent.
type label struct {
	vhid   uint8
	on     string // name of the parent when the device was made
	parent int    // its index
	before arpSettings
}

const labelFormat = "carpd %d@%s parent=%d arp_ignore=%d arp_announce=%d"

func (l label) String() string {
	return fmt.Sprintf(labelFormat, l.vhid, l.on, l.parent, l.before.ignore, l.before.announce)
}

// parseLabel reads what String wrote, and nothing else.
func parseLabel(alias string) (l label, ok bool) {
	_, err := fmt.Sscanf(alias, labelFormat, &l.vhid, &l.on, &l.parent, &l.before.ignore, &l.before.announce)
	return l, err == nil && l.parent > 0 && l.String() == alias
}

// recordFormat is an alternative name of a parent: its index, since names are unique,
// and what its settings were before we changed them. It stays when a device is deleted
// by hand and its label with it, survives a crash, and goes with the interface.
const recordFormat = "carpd-arp-%d-%d-%d"

func recordOf(index int, before arpSettings) string {
	return fmt.Sprintf(recordFormat, index, before.ignore, before.announce)
}

// parseRecord reads what recordOf wrote, and nothing else.
func parseRecord(name string) (before arpSettings, ok bool) {
	var index int
	_, err := fmt.Sscanf(name, recordFormat, &index, &before.ignore, &before.announce)
	return before, err == nil && index > 0 && recordOf(index, before) == name
}

// arpSettings are the sysctls of an interface which, as they are by default, let it
// answer ARP for an address on its macvlan with its own MAC (arp_ignore), and tell
// all neighbours that MAC whenever it asks for the way of a reply (arp_announce).
type arpSettings struct{ ignore, announce uint32 }

// quiet returns the settings with which the interface does neither. Of arp_ignore
// 1, 2 and 8 will do.
func (a arpSettings) quiet() arpSettings {
	if a.ignore != 1 && a.ignore != 2 && a.ignore != 8 {
		a.ignore = 1
	}
	a.announce = max(a.announce, 2)
	return a
}

// restored returns what the settings now shall be, of which before became
// before.quiet(): what somebody else has changed since stays.
func (now arpSettings) restored(before arpSettings) arpSettings {
	if now.ignore == before.quiet().ignore {
		now.ignore = before.ignore
	}
	if now.announce == before.quiet().announce {
		now.announce = before.announce
	}
	return now
}

// suits reports whether the interface is d as it must be, apart from settings.
func (l *linkInfo) suits(d Device) bool {
	return l.macvlan && l.private && l.hardware == d.MAC && l.label.parent == d.Parent.Index
}

// examine looks among all interfaces for d and for what stands in its way. It
// returns the device if it is there already, possibly not as it must be, and what
// the parent was like before it had any device: as a device there remembers, or as its
// record says or is known, which the parent must still bear out, or as it is.
func examine(links []linkInfo, d Device, known map[int]arpSettings) (there linkInfo, before arpSettings, err error) {
	refuse := func(hint string, args ...any) (linkInfo, arpSettings, error) {
		return linkInfo{}, arpSettings{}, &OpError{Op: "make", Link: d.Name, Err: ErrForeignDevice, Hint: fmt.Sprintf(hint, args...)}
	}
	var parent *linkInfo
	labelled := false
	for i := range links {
		l := &links[i]
		same := l.macvlan && l.hardware == d.MAC && (l.lower == d.Parent.Index || l.Parent == d.Parent.Index)
		switch {
		case l.Index == d.Parent.Index:
			parent = l
		case l.Name == d.Name && l.Parent == 0:
			return refuse("delete it, ip link del %s, or rename it", l.Name)
		case l.Name == d.Name && (l.label.vhid != d.VHID || l.label.on != d.Parent.Name):
			return refuse("it is there for %d on %s; if no daemon uses it, carpd cleanup removes it", l.label.vhid, l.label.on)
		case l.Name == d.Name:
			there = *l
		case same:
			return refuse("%s on %s has the MAC %v: ip -d link show %s; two virtual routers with one id and MAC cannot share an interface, give one another id or mac: interface",
				l.Name, d.Parent.Name, net.HardwareAddr(d.MAC[:]), l.Name)
		}
		if l.Parent == d.Parent.Index && l.Parent != 0 {
			before, labelled = l.label.before, true
		}
	}
	switch {
	case parent == nil:
		return linkInfo{}, arpSettings{}, &OpError{Op: "make", Link: d.Name, Err: ErrNoLink, Hint: "the interface below went while it was made"}
	case parent.Name == d.Name:
		return refuse("the virtual interface needs a name of its own")
	case parent.MAC == carp.MAC{}:
		return linkInfo{}, arpSettings{}, &OpError{Op: "make", Link: d.Name, Err: fmt.Errorf("%s is not Ethernet", d.Parent.Name), Hint: "use mac: interface"}
	case parent.hardware == d.MAC:
		return refuse("%s itself has the MAC %v: give it its own one back, or use mac: interface", d.Parent.Name, net.HardwareAddr(d.MAC[:]))
	case labelled:
	case parent.record != "":
		before = parent.arp.restored(parent.recorded)
	default:
		before = parent.arp
		if k, ok := known[parent.Index]; ok && parent.arp == k.quiet() {
			before = k
		}
	}
	return there, before, nil
}
