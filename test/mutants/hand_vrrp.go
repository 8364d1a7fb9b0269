package main

// Mutants of VRRP, in the engine and around it.

const (
	vrrpRules  = "carp/election_vrrp.go"
	vrrpPeer   = "carp/vrrp.go"
	sources    = "carp/source.go"
	vrrpWire   = "carp/wire_vrrp.go"
	limits     = "carp/config.go"
	linkPort   = "carp/link/port.go"
	linkPorts  = "carp/link/ports.go"
	macvlan    = "vip/kernel_macvlan_linux.go"
	vrrpConfig = "cmd/daemon/config/protocol.go"
	plan       = "cmd/daemon/plan.go"
)

// vrrpElectionMutants count times and priorities wrongly.
func vrrpElectionMutants(add adder) {
	add("vrrp-skew-by-own-interval", "the skew is part of the own interval, not of the master's",
		replace(vrrpRules, "max(3*every+vrrpSkew(p, priority, every), ", "max(3*every+vrrpSkew(p, priority, own), "))
	add("vrrp-skew-truncated", "the skew is cut to whole centiseconds",
		replace(vrrpRules, "return time.Duration(256-int(priority)) * every / 256", "return (time.Duration(256-int(priority)) * every / 256).Truncate(centisecond)"))
	add("vrrp-skew-reversed", "the better priority waits longer",
		replace(vrrpRules, "time.Duration(256-int(priority))", "time.Duration(int(priority))"))
	add("vrrp2-skew-by-interval", "version 2 takes its skew of the interval, not of a second",
		replace(vrrpRules, "\tif p == VRRP2 {\n\t\tevery = time.Second\n\t}\n", ""))
	add("vrrp-interval-not-learnt", "a backup does not wait for a master whose interval is longer",
		replace(vrrpRules, "\treturn every\n", "\treturn min(own, every)\n"))
	add("vrrp-floor-missing", "a heard interval counts however short it is",
		replace(vrrpRules, "floor, ceiling := intervalBounds(own)\n\tevery := min(max(heard, floor), ceiling)",
			"_, ceiling := intervalBounds(own)\n\tevery := min(heard, ceiling)"))
	add("vrrp-ceiling-missing", "a heard interval counts however long it is",
		replace(vrrpRules, "floor, ceiling := intervalBounds(own)\n\tevery := min(max(heard, floor), ceiling)",
			"floor, _ := intervalBounds(own)\n\tevery := max(heard, floor)"))
	add("vrrp-forged-interval", "one forged advert makes a backup fire between two true ones",
		replace(vrrpRules, "return max(3*every+vrrpSkew(p, priority, every), own+vrrpSkew(p, priority, own))", "return 3*every + vrrpSkew(p, priority, every)"))
	add("vrrp-tie-to-the-lower", "of two equal masters the lower address stays",
		replace(vrrpRules, "return own.Compare(p.Src) > 0, true", "return own.Compare(p.Src) < 0, true"))
	add("vrrp-demoted-to-zero", "a demotion says priority 0, which means leaving",
		replace(vrrpRules, "min(max(int(priority)-demotion, 1), MaxPriority)", "min(max(int(priority)-demotion, 0), MaxPriority)"))
	add("vrrp-owner-not-demotable", "an owner cannot be taken out of service",
		replace(vrrpRules, "if priority == OwnerPriority && demotion <= 0 {", "if priority == OwnerPriority {"))
	add("vrrp-preempt-ignored", "a backup takes over from a worse master though preempt is off",
		replace(vrrpRules, "if preempting && theirs < own {", "if theirs < own {"))
	add("vrrp-permit-too-long", "a permit lasts longer than three intervals",
		replace(rules, "return 3 * e.interval()", "return 4 * e.interval()"))
	add("vrrp-impatient", "a master yields when an advert is a little late",
		replace(election, "\tif protocol.VRRP() {\n\t\treturn PermitTime(down)\n\t}\n", ""))
	add("vrrp-too-patient", "a master goes on though its permit has ended",
		replace(election, "\tif protocol.VRRP() {\n\t\treturn PermitTime(down)\n\t}\n", "\tif protocol.VRRP() {\n\t\treturn 2 * PermitTime(down)\n\t}\n"))
}

// vrrpRoleMutants take or leave the role at the wrong time.
func vrrpRoleMutants(add adder) {
	add("vrrp-owner-without-grace", "an owner that starts takes the addresses before another master let go",
		replace(engine, "blind := why == ReasonOwner || ", "blind := "))
	add("vrrp-preempts-without-grace", "a node that outlasts a worse master takes the addresses at once",
		replace(engine, "if p = e.livingMaster(now); p != nil {", "if e.livingMaster(now) != nil {"))
	add("vrrp-farewell-in-turn", "an advert of the old master in its turn is taken for its farewell",
		replace(receive, "return since > last.bid.every/50 && since < last.bid.every*3/4", "return since > last.bid.every/50"))
	add("vrrp-farewell-twice", "a duplicate of an advert of the old master is taken for its farewell",
		replace(receive, "return since > last.bid.every/50 && since < last.bid.every*3/4", "return since < last.bid.every*3/4"))
	add("vrrp-priority-zero-of-anybody", "priority 0 counts also of a router that is not followed",
		replace(receive, "if leaving == nil || !e.fresh(now, leaving) {", "if leaving == nil && e.cfg.Protocol.VRRP() {\n\t\tleaving = &sighting{}\n\t} else if leaving == nil || !e.fresh(now, leaving) {"))
	add("vrrp-priority-zero-unheard", "priority 0 shortens no wait",
		replace(receive, "\tcase e.state == Backup && h.leaves && e.cfg.Compat != CompatBSD:\n\t\treturn e.offered(now, p)\n",
			"\tcase e.state == Backup && h.leaves && e.cfg.Protocol.VRRP():\n\tcase e.state == Backup && h.leaves && e.cfg.Compat != CompatBSD:\n\t\treturn e.offered(now, p)\n"))
	add("vrrp-overdue-ignored", "a master that fell silent under a permit is preempted",
		replace(vrrpPeer, "return e.cfg.Protocol.VRRP() && now.Sub(s.at) > s.bid.every*3/2", "return false"))
	add("vrrp-last-advert-counts", "a living master with a long interval is outlasted",
		replace(engine, "until > now {", "until > now && e.stopped {"))
	add("vrrp-handover-undone", "a handover to a worse node is taken back though that is master",
		replace(receive, "\t\te.handing = false // somebody has the role\n\t\tif at", "\t\tif at"))
	add("vrrp-bow-out-outlives-its-master", "a master that is heard after a bow-out is taken for one that has left",
		replace(receive, "if at := e.timers[timerBowOut]; at != 0 {", "if at := e.timers[timerBowOut]; false {"))
	add("vrrp-followed-forgotten", "strangers push the followed master out of memory",
		replace(receive, "order < 0 || order == 0 && e.heard[i].at < slot.at", "order < 3 && e.heard[i].at < slot.at"),
		replace(receive, "\t\tif e.compare(slot.bid, h.bid) < 0 {\n\t\t\treturn\n\t\t}\n", ""))
	add("contest-without-pace", "every packet of another master is answered",
		replace(receive, "if first || now >= soonest {", "if now >= e.lastSent {"))
	add("farewell-once", "a farewell that is lost leaves clients on the loser",
		replace(farewell, "e.reminder.left, e.reminder.said = farewells-1, now", "e.reminder.said = now"))
	add("farewell-to-the-weaker", "a farewell deposes a winner that has become the weaker one",
		replace(farewell, "if !e.outbids(h, p) {", "if h.leaves {"))
	add("farewell-into-the-blue", "a farewell is said again though the winner has answered",
		replace(farewell, "came.Sub(last.came) < every*3/4 {\n\t\tr.left = 0\n\t\treturn", "came.Sub(last.came) < every*3/4 {\n\t\treturn"))
	add("contest-unanswered", "a master that has just spoken lets another hold the addresses for an interval",
		replace(receive, "e.arm(timerAdvert, min(e.timers[timerAdvert], soonest))", "_ = soonest"),
		replace(receive, "if first || now >= soonest {", "if now >= soonest {"))
	add("announced-without-pace", "every answer to another master comes with an announcement",
		replace(receive, "if first || now.Sub(e.announced) >= max(e.interval()/4, announcePace) {", "if first || e.announced >= 0 {"))
	add("contest-always-new", "each advert of another master begins another epoch",
		replace(receive, "first := now >= e.contested && !h.leaves && !e.asking", "first := !h.leaves && !e.asking"))
	add("vrrp-slowed-at-once", "a longer interval gives longer permits before the backups know it",
		replace(reconfig, "e.faster, e.slowing = pace, slowRounds", "e.faster, e.slowing = pace, 0"))
}

// vrrpPeerMutants misjudge a router whose settings differ, or whose packets are not
// meant for this one.
func vrrpPeerMutants(add adder) {
	add("incompatible-is-silence", "a master whose settings differ is taken for silent",
		replace(vrrpPeer, "h.alive = d != Accepted", "h.alive = d == Accepted"))
	add("incompatible-if-better", "a backup lets be a master whose settings differ only if it is better",
		replace(vrrpPeer, "\tcase e.state == Backup:\n\t\te.see(now, h, p)", "\tcase e.state == Backup && e.compare(h.bid, e.bid()) > 0:\n\tcase e.state == Backup:\n\t\te.see(now, h, p)"))
	add("incompatible-withstood", "a master stays against a better one whose settings differ",
		replace(vrrpPeer, "\tcase e.state == Master:\n\t\te.heardAsMaster(", "\tcase e.state == Master && e.asMaster(e.bid(), h.bid) != stay:\n\tcase e.state == Master:\n\t\te.heardAsMaster("))
	add("incompatible-leaver-followed", "priority 0 of a master whose settings differ is an advert like others",
		replace(vrrpPeer, "\tcase e.state == Backup && h.leaves:\n\t\te.offered(now, p)\n", ""))
	add("vrrp-refusal-restarts-timer", "a refused packet keeps a backup waiting",
		replace(receive, "\tcase drop != Accepted:\n\tcase stalled:", "\tcase drop != Accepted && e.state == Backup && e.cfg.Protocol.VRRP():\n\t\te.follow(now, &h, &p)\n\tcase drop != Accepted:\n\tcase stalled:"))
	add("vrrp-interval-zero", "an interval of 0 is a living master's",
		replace(vrrpPeer, "\tcase a.Version == 3 && a.Interval == 0: // RFC 9568, erratum 8301\n\t\treturn DropInterval\n", ""))
	add("source-unchecked", "an advert from an address that no host has is believed",
		replace(sources, "return !src.IsMulticast()", "return !src.IsUnspecified() || !src.IsMulticast()"))
	add("duplicate-unheard", "a backup takes a master that has its address and the virtual MAC for itself",
		replace(sources, "return e.lastSent != 0 && now.Sub(e.lastSent) < e.masterDown(bid{})", "return true"))
	add("vrrp-strangers", "a router with none of our addresses is one of ours",
		replace(vrrpPeer, "\tif shared == 0 {\n\t\treturn DropForeign\n\t}\n", ""))
	add("vrrp-order-of-addresses", "the same addresses in another order are a difference",
		replace(vrrpPeer, "ours && !seen[at] {", "ours && int(at) == i {"))
	add("vrrp-repeated-address", "an address given twice makes up for one that is missing",
		replace(vrrpPeer, "ours && !seen[at] {", "ours {"))
	add("vrrp-short-interval-believed", "an interval far below ours is no difference",
		replace(vrrpPeer, "a.Interval < floor, a.Interval > ceiling:", "floor < 0, a.Interval > ceiling:"))
	add("vrrp-long-interval-believed", "an interval far above ours is no difference",
		replace(vrrpPeer, "a.Interval < floor, a.Interval > ceiling:", "a.Interval < floor, ceiling < 0:"))
	add("vrrp-password-unchecked", "any password is ours",
		replace(vrrpPeer, "(a.AuthType != ours.AuthType || a.AuthType == authText && a.Password != ours.Password)", "a.AuthType != ours.AuthType"))
	add("vrrp-ah-taken", "what was behind an authentication header is taken unchecked",
		replace(vrrpPeer, "case p.AH || a.Version == 2", "case a.Version == 2"))
	add("vrrp-own-taken", "an own advert that comes back is another master's",
		replace(vrrpPeer, "\tcase e.isReflected(now, p):\n\t\treturn DropOwn\n", ""))
	add("vrrp-own-by-address-alone", "a node with the same address is never heard",
		replace(sources, "return p.SrcMAC == MAC{} || p.SrcMAC == local.MAC\n", "return true\n"))
	add("vrrp-ttl-unchecked", "an advert from behind a router is taken",
		replace(vrrpPeer, "case !unicast && p.TTL != 255 || unicast &&", "case unicast &&"))
	add("vrrp-peer-ttl-unchecked", "the bounds of a peer's TTL are not looked at",
		replace(vrrpPeer, "!unicast && p.TTL != 255 || unicast && !e.cfg.PeerTTL[p.Src].holds(p.TTL):", "!unicast && p.TTL != 255:"))
	add("vrrp-unknown-peer", "unicast adverts of anybody are taken",
		replace(vrrpPeer, "\tcase unicast && !isPeer(peers, p.Src):\n\t\treturn DropPeer\n", ""))
}

// vrrpPacketMutants read or write adverts wrongly.
func vrrpPacketMutants(add adder) {
	add("vrrp-one-checksum", "over IPv4 only a checksum with a pseudo-header is taken",
		replace(vrrpWire, "\tif fold(plain) == 0xffff {\n\t\ta.Sum = ChecksumRFC9568\n\t\treturn true\n\t}\n", ""))
	add("vrrp-no-old-checksum", "unicast adverts of old keepalived are refused",
		replace(vrrpWire, "return !to.IsMulticast() && fold(", "return to.IsMulticast() && fold("))
	add("vrrp-reserved-bits", "the reserved bits count as part of the interval",
		replace(vrrpWire, "binary.BigEndian.Uint16(b[4:])&0xfff)", "binary.BigEndian.Uint16(b[4:]))"))
	add("vrrp-length-inexact", "whatever follows the addresses is taken",
		replace(vrrpWire, "if len(b) != end+trailer {", "if len(b) < end+trailer {"))
	add("vrrp-link-local-last", "the first address of an advert over IPv6 is no link-local one",
		replace("carp/protocol.go", "range []bool{true, false}", "range []bool{false, true}"))
	add("vrrp6-mac-of-ipv4", "VRRP over IPv6 has the virtual MAC of IPv4",
		replace("carp/protocol.go", "\tif p.VRRP() && f == IPv6 {\n\t\tm[4] = 2\n\t}\n", ""))
	add("vrrp2-fractions", "version 2 is configured with fractions of a second",
		replace(limits, "every > MaxInterval2 || every%time.Second != 0 {", "every > MaxInterval2 {"))
	add("vrrp3-interval-unbounded", "version 3 is configured with an interval that its adverts have no room for",
		replace(limits, "every < MinInterval || every > MaxInterval3 ||", "every < MinInterval ||"))
	add("vrrp6-too-many-addresses", "an advert over IPv6 has more addresses than a frame holds",
		replace(limits, "\tif family == IPv6 {\n\t\tmost = MaxAdvertIPv6\n\t}\n", ""))
}

// aroundVRRPMutants break what carries, configures and serves a virtual router.
func aroundVRRPMutants(add adder) {
	add("link-vrrp-to-carp", "CARP's port gets what VRRP's alone should",
		replace(linkPorts, "if !p.AH && (version != 3 || toVRRP == nil) {", "if version < 16 {"))
	add("link-families-mixed", "an advert over IPv6 goes to the router of IPv4",
		replace(linkPorts, "s[KindOf(carp.VRRP3, carp.FamilyOf(p.Dst))]", "s[KindOf(carp.VRRP3, carp.IPv4)]"))
	add("link-version-hidden", "VRRP hears nothing of version 2",
		replace(linkPorts, "if version == 2 || version == 3 {", "if version == 3 {"))
	add("link-checksum-of-another-source", "a unicast checksum is that of the group's source",
		replace("carp/link/parcel.go", "f.Finish(source)", "f.Finish(s.local.IPv4)"))
	add("link-mac-of-carp", "adverts of VRRP over IPv6 come from CARP's virtual MAC",
		replace(linkPort, "carp.VirtualMACOf(p.config.Protocol, p.config.Family, p.config.VHID)", "carp.VirtualMAC(p.config.VHID)"))
	add("vip-macvlan-left-up", "the virtual interface stays up when its addresses are gone",
		replace("vip/set_device.go", "return []Change{{Op: SetDown, Index: l.Index, Link: l.Name}}", "return nil"))
	add("vip-arp-ignore-unset", "the interface below answers ARP with its own MAC",
		replace("vip/device.go", "\tif a.ignore != 1 && a.ignore != 2 && a.ignore != 8 {\n\t\ta.ignore = 1\n\t}\n", ""))
	add("vip-macvlan-arp-unset", "the virtual interface answers ARP for any address",
		replace(macvlan, "{confARPIgnore, 1}, {confARPAnnounce, 2},", ""))
	add("vip-macvlan-no-record", "a device deleted by hand before a crash leaves the interface below changed",
		replace("vip/kernel_remove_linux.go", "_ = k.ask(nameMessage(unix.RTM_NEWLINKPROP, parent.Index, record))", "_ = record"))
	add("vip-macvlan-record-overrules", "a setting that somebody has changed since is set back by the next start",
		replace("vip/device.go", "before = parent.arp.restored(parent.recorded)", "before = parent.recorded"))
	add("vip-never-gives-up", "a master that cannot put its addresses back stays master",
		replace("vip/giveup.go", "return now.Sub(st.lostAt) >= patience", "return false"))
	add("vip-gives-up-in-part", "a master gives up though addresses of it are on",
		replace("vip/giveup.go", "!st.serving || !st.none():", "!st.serving:"))
	add("vip-gives-up-at-once", "a master gives up at the first failed attempt",
		replace("vip/giveup.go", "return now.Sub(st.lostAt) >= patience", "return true"))
	add("vip-macvlan-link-local", "the virtual interface makes itself a link-local address",
		replace(macvlan, "addrGenNone    = 1 //", "addrGenNone    = 0 //"))
	add("config-other-protocols-keys", "a key of CARP is read in silence in an instance of VRRP",
		replace(vrrpConfig, "\t\tr.misplaced(d, carpKeys)\n", ""))
	add("config-one-kind-an-id", "CARP and VRRP cannot have the same id on one interface",
		replace("cmd/daemon/config/unique.go", "id := router{d.VHID, d.Interface, d.Kind()}", "id := router{d.VHID, d.Interface, CARP}"))
	add("config-interval-unbounded", "the file may have an interval that adverts have no room for",
		replace(vrrpConfig, "case v < low || v > high:", "case v < low:"))
	add("config-advert-unbounded", "the file may have more IPv6 addresses than an advert",
		replace(vrrpConfig, "\tif family == carp.IPv6 {\n\t\tmost = carp.MaxAdvertIPv6\n\t}\n", ""))
	add("plan-family-of-ipv4", "VRRP over IPv6 asks the link for packets of IPv4",
		replace(plan, "Family: p.carp.Family(), VHID: i.VHID, Peers", "Family: carp.IPv4, VHID: i.VHID, Peers"))
	add("own-link-demotes", "the owner of an address starts as a backup when its interface comes up",
		replace("cmd/daemon/demotions.go", " && owner != downOwner(i.Interface)", ""))
	add("plan-lease-of-carp", "the lease of VRRP is that of CARP",
		replace(plan, "down, interval := c.FastestDown(), ", "down, interval := carp.FastestDown(1, c.AdvSkew), "))
	add("plan-macvlan-of-carp", "the virtual interface of VRRP over IPv6 has CARP's MAC",
		replace(plan, "carp.VirtualMACOf(p.carp.Protocol, p.carp.Family(), i.VHID)", "carp.VirtualMAC(i.VHID)"))
}
