package daemon

import (
	"fmt"
	"slices"
	"strings"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/vip"
)

// alarms raises and ends what follows from the status of one instance.
func (i *instance) alarms(st carp.Status, now carp.Instant) {
	p, b := i.plan.Load(), i.d.book
	for _, a := range packetAlarms(p, st, now, i.d.speaksBoth(p)) {
		b.set(a.text != "", i.name, a.name, i.name+": "+a.text)
	}
	if !p.VRRP() {
		for _, a := range sealAlarms(p, st, now) {
			b.set(a.text != "", i.name, a.name, i.name+": "+a.text)
		}
	}
	i.lookForLost(st.State, now)
	i.lookForFit(st, now)
	i.lookForConflict(st)
	b.set(st.RollingUntil != 0, i.name, "rolling", fmt.Sprintf(
		"%s: the old passphrase or address list is still in use beside the new one until %s. Reload all nodes before then.",
		i.name, wall(st.RollingUntil, now).Format("15:04:05")))
	b.set(st.Demotions[carp.OwnerSendErrors] != 0, i.name, "send-errors", fmt.Sprintf(
		"%s: adverts cannot be sent on %s (%d errors): the node is demoted until they can.", i.name, p.Interface, st.Counters.SendErrors))
	trouble := pathTrouble(p, st)
	b.set(trouble != "", i.name, "path-down", i.name+": "+trouble)
	side, probed := i.side.status()
	trouble = trackTrouble(p, side, probed)
	b.set(trouble != "", i.name, "track", i.name+": "+trouble)
	if i.foreign.Load() {
		i.lookForForeign(st.State)
	}
	b.set(st.State == carp.Init && !st.LinkUp, i.name, "link-down", fmt.Sprintf(
		"%s: the interface %s is down or missing.", i.name, p.Interface))
	b.set(st.State == carp.Master && now < st.ContestedUntil, i.name, "contested",
		fmt.Sprintf("%s: another master was heard; this node stayed. If it repeats, the nodes do not hear each other: look at the network between them.", i.name))
}

// lookForLost raises an alarm if addresses of a master were lost, or are and cannot
// be put back.
func (i *instance) lookForLost(state carp.State, now carp.Instant) {
	restored := carp.Instant(i.restoredAt.Load())
	stands, text := restored != 0 && now.Sub(restored) < alarmHold, fmt.Sprintf(
		"%s: addresses were lost from %s and put back, %d times so far. Find out who takes them off: a network manager, or a hand; or the node is so busy that leases end.",
		i.name, i.plan.Load().Interface, i.restored.Load())
	absent := func(a vip.Status) bool { return !a.Present }
	if trouble := i.trouble.Load(); trouble != nil && state == carp.Master && slices.ContainsFunc(i.set.Status(), absent) {
		stands, text = true, fmt.Sprintf("%s is master without all of its addresses. %s", i.name, *trouble)
	}
	i.d.book.set(stands, i.name, "address-lost", text)
}

// condition is an alarm that follows from refused packets; an empty text is none.
type condition struct{ name, text string }

type conditions []condition

// when adds a condition, with a text if it stands.
func (c *conditions) when(stands bool, name, format string, a ...any) {
	text := ""
	if stands {
		text = fmt.Sprintf(format, a...)
	}
	*c = append(*c, condition{name, text})
}

// speaksBoth reports whether CARP and VRRP are both wanted here with the id of p, so
// that each instance sees packets of the other.
func (d *Daemon) speaksBoth(p *plan) bool {
	return slices.ContainsFunc(d.all(), func(i *instance) bool {
		q := i.plan.Load()
		return q.VHID == p.VHID && q.Interface == p.Interface && q.VRRP() != p.VRRP()
	})
}

// packetAlarms returns every alarm about packets, those that do not stand included.
// both says that the other protocol is wanted with this id too.
func packetAlarms(p *plan, st carp.Status, now carp.Instant, both bool) []condition {
	recent := func(drop carp.Drop) bool {
		last := st.Refused[drop]
		return last.At != 0 && now.Sub(last.At) < max(alarmHold, alarmIntervals*last.Interval)
	}
	var all conditions
	all.when(recent(carp.DropHash), "bad-hash",
		"adverts from %v have another passphrase or address list (%d so far): two masters are likely. Compare both on all nodes.",
		st.Refused[carp.DropHash].Address, st.Drops[carp.DropHash])
	all.when(recent(carp.DropRolling), "peer-rolling",
		"the node at %v is changing passphrase or addresses: give this node the same ones and reload it, before the change ends there.",
		st.Refused[carp.DropRolling].Address)
	for _, drop := range []carp.Drop{carp.DropLength, carp.DropChecksum, carp.DropVersion} {
		sound, other := "CARP adverts", fmt.Sprintf("is VRRP running with vrid %d", p.VHID)
		if p.VRRP() {
			sound, other = "VRRP adverts", fmt.Sprintf("is something else using the id %d", p.VHID)
		}
		all.when(recent(drop) && !alive(p, drop, st.Refused[drop]), "bad-"+drop.String(), "packets from %v use this id and are no %s (%s): %s on %s, or is a link corrupting frames?",
			st.Refused[drop].Address, sound, drop, other, p.Interface)
	}
	all.when(recent(carp.DropInterval) && !alive(p, carp.DropInterval, st.Refused[carp.DropInterval]), "bad-interval",
		"adverts from %v have an interval of 0, which no sound router sends: they are refused and count as silence. Look at that node.",
		st.Refused[carp.DropInterval].Address)
	all.when(recent(carp.DropProtocol) && !both, "other-protocol", "%v speaks %s with the id %d, and this instance %s. The two do not hear each other, "+
		"and may share a virtual MAC: give one of them another id, or both the same protocol.",
		st.Refused[carp.DropProtocol].Address, otherProtocol(p), p.VHID, p.Protocol)
	all.when(recent(carp.DropForeign), "id-in-use", "%v is another virtual router with the id %d: none of its addresses is here. Give one of the two another "+
		"vrid; if they shall be one, the same addresses on both.", st.Refused[carp.DropForeign].Address, p.VHID)
	all.when(recent(carp.DropDuplicate), "duplicate-source", "adverts come from %v, our own address, and from another machine: two have it, and hosts on the "+
		"segment mistake one for the other. Give one of them another address.", st.Refused[carp.DropDuplicate].Address)
	var peers []string
	for _, drop := range carp.Drops() {
		if last := st.Refused[drop]; recent(drop) && alive(p, drop, last) {
			d := differences(p, drop, last)
			peers = append(peers, fmt.Sprintf("%v is alive, with priority %d, but incompatible (%v, %d so far): %s. %s",
				last.Address, last.Priority, drop, st.Drops[drop], d.what, d.mend))
		}
	}
	all.when(len(peers) > 0, "incompatible-peer", "%s %s", strings.Join(peers, " "), meanwhile(st.State))
	return all
}

func otherProtocol(p *plan) string {
	if p.VRRP() {
		return "CARP"
	}
	return "VRRP"
}

// alive reports whether a refused packet shows a living peer whose settings differ.
// Those that could not be read have no interval, and those of version 3 with an
// interval of 0 count as silence.
func alive(p *plan, drop carp.Drop, last carp.Sighting) bool {
	switch drop {
	case carp.DropVersion:
		return p.VRRP() && last.Interval != 0
	case carp.DropInterval:
		return p.VRRP() && (last.Interval != 0 || p.carp.Protocol == carp.VRRP2)
	case carp.DropAuth, carp.DropAddresses:
		return p.VRRP()
	}
	return false
}

// meanwhile says what this node does about an incompatible peer.
func meanwhile(state carp.State) string {
	switch state {
	case carp.Master:
		return "Until then this node stays master, as it is the better one: the peer may hold the addresses too. It would yield to a better one."
	case carp.Backup:
		return "Until then this node stays BACKUP while the peer is heard, so that there are no two masters, and takes over when it is silent."
	}
	return "Until then such a peer is not taken for silent."
}

// difference is what differs at an incompatible peer, and how to mend it.
type difference struct{ what, mend string }

func differences(p *plan, drop carp.Drop, peer carp.Sighting) difference {
	switch drop {
	case carp.DropVersion:
		return difference{fmt.Sprintf("it speaks another version of VRRP than %s", p.Protocol),
			"Use one version on all nodes: `protocol` here, vrrp_version in keepalived."}
	case carp.DropAuth:
		return difference{"its password, or kind of authentication, is another one",
			"Compare the passphrases (the first 8 bytes count in keepalived); authentication headers (auth_type AH) are not spoken here."}
	case carp.DropInterval:
		return difference{intervalDifference(p, peer), "Use one `interval` on all nodes."}
	}
	return difference{"its list of addresses is not ours", "Compare `addresses` on all nodes; those that only one of them has belong in addresses_excluded."}
}

func intervalDifference(p *plan, peer carp.Sighting) string {
	if p.carp.Protocol == carp.VRRP2 {
		return fmt.Sprintf("its interval is %v and ours %v, and version 2 wants them equal", peer.Interval, p.Interval)
	}
	return fmt.Sprintf("its interval is %v, which is too far from our %v to be believed", peer.Interval, p.Interval)
}
