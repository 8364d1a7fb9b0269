package conform

import "fmt"

// Where the rules of VRRP are written. Of keepalived and FRR it is said what they
// do where they are known to differ: by their source, or by a run.
const (
	rfcTimers = "3 x interval + skew: RFC 9568 6.1, 6.4.2"
	rfcDrops  = "RFC 9568 7.1: MUST discard"
	ourPage   = "ours: docs/vrrp.md"
)

// vrrpRules lists all rules for a version over IPv4 or IPv6, in the order of the
// report.
func vrrpRules(version uint8, six bool) []rule {
	all := vrrpAdvertRules(version, six)
	all = append(all, vrrpRoleRules(six)...)
	all = append(all, vrrpTimerRules(version)...)
	all = append(all, vrrpBackupRules()...)
	all = append(all, vrrpRefusalRules(version, six)...)
	all = append(all, vrrpOddRules(version, six)...)
	all = append(all, vrrpMasterRules(version)...)
	all = append(all, vrrpMismatchRules(version, six)...)
	return append(all, vrrpProcessRules()...)
}

// same is a rule in which ours is the standard's, and which is a must.
func same(id, done, outcome, cite string) rule {
	return rule{id, done, outcome, outcome, only(outcome), cite}
}

func vrrpAdvertRules(version uint8, six bool) []rule {
	v := fmt.Sprintf("%d, type 1", version)
	all := []rule{
		same("A-VERSION", "version and type of its adverts", v, "RFC 9568 5.2.1, 5.2.2; RFC 3768 5.3.1, 5.3.2"),
		same("A-PRIORITY", "priority of its adverts, while it runs undisturbed", "as configured", "RFC 9568 5.2.4"),
		{"A-LIST", "count and addresses of its adverts", "as configured", "as configured", []string{"as configured", "in another order"}, "RFC 9568 5.2.5, 5.2.9; a receiver compares the list whatever its order"},
		same("A-INTERVAL", "the interval of its adverts", "as configured", "RFC 9568 5.2.7: centiseconds; RFC 3768 5.3.7: seconds"),
	}
	if six {
		all = append(all, same("A-LINKLOCAL", "the first address of its adverts", "link-local", "RFC 9568 5.2.9 (erratum 8300 keeps it)"))
	}
	if version == 3 {
		all = append(all, same("A-RESERVED", "the four bits before the interval", "0", "RFC 9568 5.2.6: zero on transmission"))
	} else {
		all = append(all, same("A-AUTH", "authentication type and data", "as configured", "RFC 3768 5.3.6, 5.3.10: type 0, 8 bytes of zeroes; RFC 2338 5.3.6: type 1, the password filled up with zeroes"))
	}
	switch {
	case version == 2 || six:
		all = append(all, same("A-CHECKSUM", "checksum of its adverts", "right", "RFC 3768 5.3.8; RFC 9568 5.2.8 over IPv6: with pseudo-header; FRR before June 2026 has its length in the wrong byte order and is heard by FRR only"))
	default:
		all = append(all, rule{
			"A-CHECKSUM", "checksum of its adverts", "without pseudo-header", "with pseudo-header", []string{"with pseudo-header", "without pseudo-header"},
			"RFC 9568 5.2.8; RFC 5798 can be read either way; keepalived and FRR: with; ours: key checksum",
		})
	}
	dst := "224.0.0.18 at 01:00:5e:00:00:12"
	if six {
		dst = "ff02::12 at 33:33:00:00:00:12"
	}
	src := rule{"A-SRC", "source address of its adverts", "an own address", "an own address", nil, "RFC 9568 5.1.1.1: the primary address"}
	if six {
		src = same("A-SRC", "source address of its adverts", "link-local", "RFC 9568 5.1.2.1")
	}
	all = append(
		all,
		same("A-LENGTH", "bytes of its adverts", "exact", "RFC 9568 5.2: nothing follows the addresses; RFC 3768 5.1: the authentication data, and nothing"),
		same("A-TTL", "TTL or hop limit of its adverts", "255", "RFC 9568 5.1.1.3, 5.1.2.3"),
		same("A-DST", "where its adverts go", dst, "RFC 9568 5.1.1.2, 5.1.2.2; RFC 1112 6.4; RFC 2464 7"),
		src,
		rule{"A-SRCMAC", "source MAC of its adverts", "virtual", "own", nil, "RFC 9568 7.2, 7.3; FRR: virtual; keepalived: own, virtual with use_vmac; ours: key mac"},
		rule{"A-TOS", "TOS or traffic class of its adverts", "", "0xc0", nil, "keepalived, FRR: 0xc0"},
	)
	if !six {
		all = append(all, rule{"A-DF", "don't fragment", "", "set", nil, "keepalived: clear; FRR: set"})
	}
	return append(all, same("A-SPACING", "median time between adverts of an undisturbed master", "the interval", "RFC 9568 6.4.3: Adver_Timer"))
}

func vrrpRoleRules(six bool) []rule {
	asked := "ARP: who has the first address"
	if six {
		asked = "neighbour solicitation for the first address"
	}
	all := []rule{
		same("N-MASTER", asked+", while it is master", "it answers", "RFC 9568 6.4.3, 8.1.2, 8.2.2"),
		{"N-MAC", "the MAC it answers with", "virtual", "own", nil, "RFC 9568 6.4.3; FRR: virtual; keepalived: own, virtual with use_vmac; ours: key mac"},
		same("N-BACKUP", asked+", while it is backup", "no answer", "RFC 9568 6.4.2: MUST NOT respond"),
		{"G-ORDER", "what comes first when it takes over", "advert", "advert", nil, "RFC 9568 6.4.2; FRR over IPv6: announcement, the advert an interval later"},
		same("G-ALL", "whose addresses are announced", "all", "RFC 9568 6.4.2: for each address"),
		{"G-MAC", "the MAC that is announced", "virtual", "own", nil, "RFC 9568 6.4.2; keepalived: own, virtual with use_vmac; ours: key mac"},
		{"G-ROUNDS", "rounds of announcements after a takeover", "1", "4", nil, "RFC 9568 6.4.2; keepalived: 2, of 5 each; FRR: 1; ours: docs/addresses.md: after 0, 0.2, 1 and 5 s"},
	}
	if six {
		return append(
			all,
			rule{"G-NA", "neighbour advertisement: destination and flags", "to ff02::1, router, override", "to ff02::1, override", nil, "RFC 9568 6.4.2: R set, S clear, O set; keepalived: R as the interface forwards; ours: R clear, it is no router's address"},
			same("G-HOP", "neighbour advertisement: hop limit", "255", "RFC 4861 7.1.2"),
		)
	}
	return append(all, rule{"G-FORM", "gratuitous ARP: kind", "request", "request", nil, "RFC 9568 6.4.1, 6.4.2 with errata 7947 and 7949; RFC 5227 3; keepalived and FRR: request, target MAC broadcast; ours: target MAC zero"})
}

func vrrpTimerRules(version uint8) []rule {
	punctual := func(id, done, cite string) rule {
		return rule{id, done, onTime, onTime, []string{onTime, "late", wholeCentiseconds}, cite}
	}
	skew := "skew: RFC 9568 6.1, 6.4.2"
	down := rfcTimers
	if version == 2 {
		skew, down = "(256 - priority)/256 s: RFC 3768 6.1, 6.4.2", "3 x interval + (256 - priority)/256 s: RFC 3768 6.1, 6.4.2"
	}
	const exact = "; on time is at most 1.5 ms early and 5 ms + 2 % late, the closest of up to four; FRR cuts to whole centiseconds"
	all := []rule{
		punctual("T-ZERO", "its master leaves with priority 0: when it takes over", skew+exact),
		punctual("T-DOWN", "its master falls silent: when it takes over", down+exact),
	}
	if version == 3 {
		all = append(
			all,
			rule{"T-LEARN-SHORT", "the same, the master's interval being a tenth of its own", onTime, onTime, nil, "RFC 9568 6.4.2: Active_Adver_Interval is learned; FRR cuts the skew to whole centiseconds"},
			punctual("T-LEARN-LONG", "the same, the master's interval being three times its own", "RFC 9568 6.4.2"),
			punctual("T-LEARN-ZERO", "a master of three times its interval leaves with priority 0", "RFC 9568 6.1: skew of the learned interval"),
			same("T-RETURN", "its own adverts when it is master after one with another interval", "the interval", "RFC 9568 6.4.2: Adver_Timer is set to Advertisement_Interval"),
			rule{"T-CEILING", "its master says an interval of 40.95 s, once, and falls silent", "waits", takesOver, nil, "RFC 9568 6.4.2; keepalived, FRR: wait two minutes; " + ourPage + ", Timers: an interval far from its own is not learned"},
		)
	}
	for _, priority := range []int{200, 1, 254} {
		all = append(all, punctual(fmt.Sprintf("T-PRIO-%d", priority), fmt.Sprintf("with priority %d, its master falls silent", priority), down))
	}
	return append(all, rule{"T-START", "it is started and hears nobody", "waits", "waits", nil, "RFC 9568 6.4.1: backup for its master-down time; keepalived with `state MASTER`: one interval"})
}

func vrrpBackupRules() []rule {
	return []rule{
		same("B-HIGHER", "backup hears one priority more than its own, each interval", staysBackup, "RFC 9568 6.4.2"),
		same("B-255", "backup hears priority 255, each interval", staysBackup, "RFC 9568 6.4.2"),
		same("B-EQUAL-ABOVE", "backup hears its own priority from the address above its own", staysBackup, "RFC 9568 6.4.2"),
		same("B-EQUAL-BELOW", "backup hears its own priority from the address below its own", staysBackup, "RFC 9568 6.4.2: a backup compares no addresses"),
		{"B-LOWER", "backup hears priority 2 each interval, after its master fell silent", takesOver, staysBackup, []string{takesOver, staysBackup}, "RFC 9568 6.4.2 with Preempt_Mode, its default; ours: key preempt, off by default"},
		same("B-TWO", "backup hears two at once: one priority more than its own, and 2", staysBackup, "RFC 9568 6.4.2"),
		{"B-ZERO-OTHER", "backup hears priority 0 from one that is not its master", takesOver, staysBackup, nil, "RFC 9568 6.4.2; keepalived, FRR: after the skew; " + ourPage + ", Election: drop bow-out"},
	}
}

func vrrpRefusalRules(version uint8, six bool) []rule {
	refused := func(id, done, cite string) rule { return same(id, done, nothingChanges, cite) }
	all := []rule{
		refused("R-TTL", "TTL 254", rfcDrops),
		refused("R-CHECKSUM", "wrong checksum", rfcDrops),
		refused("R-HEADER", "7 bytes", rfcDrops),
		refused("R-SHORT", "one byte too short", rfcDrops),
		refused("R-COUNT", "one address more counted than there are", rfcDrops+": not the complete packet"),
		{"R-LONG", "4 bytes after the advert, inside the IP length", accepts, nothingChanges, nil, "RFC 9568 7.1 wants it complete; keepalived, FRR and ours (docs/protocol.md, VRRP on the wire): the exact length"},
		{"R-COUNT0", "no address", nothingChanges, nothingChanges, nil, "RFC 9568 5.2.5 with erratum 8299: at least one"},
		refused("R-VRID", "another vrid", rfcDrops),
		refused("R-VRID0", "vrid 0", rfcDrops),
		refused("R-TYPE", "type 2", "RFC 9568 5.2.2: MUST be discarded"),
		refused("R-VERSION", "version 4", rfcDrops),
		{"R-OTHERGROUP", "to all hosts (224.0.0.1, ff02::1) and not to VRRP's group", "", accepts, nil, "RFC 9568 5.1.1.2 names the group, no rule on receipt; keepalived, FRR: not heard; ours: docs/protocol.md, drop destination: any group will do"},
		{"R-UNICAST", "to its own address and MAC", "", nothingChanges, nil, "keepalived: drops unicast where multicast is configured; ours: docs/protocol.md, drop destination"},
	}
	foreign := rule{"R-FOREIGN", "none of its addresses is among those configured", accepts, nothingChanges, nil, "RFC 9568 7.1: MAY be checked, and logged; keepalived 2.2.7: drops; FRR: accepts; " + ourPage + ": another virtual router with the same id"}
	if version == 2 {
		foreign.standard, foreign.cite = nothingChanges, "RFC 3768 7.1: if it is checked, drop unless the priority is 255; keepalived 2.2.7: drops; FRR: accepts; "+ourPage
	}
	all = append(all, foreign)
	if !six {
		all = append(all, refused("R-IPSUM", "wrong IP header checksum", "RFC 1122 3.2.1.2"))
	}
	if version == 3 {
		all = append(all, rule{"R-INTERVAL0", "interval 0", nothingChanges, nothingChanges, nil, "RFC 9568 5.2.7 with erratum 8301: 1 to 4095; keepalived, FRR: accept it, and take over at once"})
	}
	return all
}

func vrrpOddRules(version uint8, six bool) []rule {
	taken := func(id, done, cite string) rule { return rule{id, done, accepts, accepts, nil, cite} }
	all := []rule{
		taken("K-MAC", "from an ordinary MAC", "no receiver looks at it; keepalived and ours send so"),
		taken("K-TOS", "TOS 0", "no rule on receipt"),
		same("K-PADDING", "40 bytes behind the IP packet, in the frame", accepts, "IEEE 802.3: short frames are padded"),
	}
	if !six {
		all = append(all, taken("K-DF", "don't fragment set", "no rule on receipt; FRR and ours set it"), taken("K-ORDER", "its addresses in another order", "RFC 9568 5.2.9; "+ourPage))
	}
	if version == 3 {
		all = append(all, taken("K-RESERVED", "the four bits before the interval set", "RFC 9568 5.2.6: ignored on reception"))
		if !six {
			all = append(
				all,
				taken("K-PSEUDO", "checksum with pseudo-header", "RFC 5798 5.2.8 as keepalived and FRR read it"),
				taken("K-PLAIN", "checksum without pseudo-header", "RFC 9568 5.2.8; keepalived 2.2.7 and FRR 8.4: refuse it"),
			)
		}
	}
	return all
}

func vrrpMasterRules(version uint8) []rule {
	sends := rule{"M-LOWER-SENDS", "what it sends at once then", "advert", "advert", nil, "RFC 9568 6.4.3: send an advert; RFC 5798: nothing; keepalived: advert; FRR: nothing"}
	if version == 2 {
		sends.standard, sends.cite = nothing, "RFC 3768 6.4.3: discard; keepalived and ours (docs/vrrp.md, Election): advert, so that the worse one yields"
	}
	return []rule{
		same("M-HIGHER", "master hears a higher priority", yields, "RFC 9568 6.4.3"),
		{"M-FAREWELL", "what it sends when it yields", nothing, "advert", nil, "RFC 9568 6.4.3; " + ourPage + ", Election: Yielding"},
		same("M-LOWER", "master hears one priority less than its own", stays, "RFC 9568 6.4.3"),
		sends,
		same("M-ZERO", "master hears priority 0", stays, "RFC 9568 6.4.3"),
		same("M-ZERO-SENDS", "what it sends at once then", "advert", "RFC 9568 6.4.3; RFC 3768 6.4.3"),
		same("M-TIE-ABOVE", "master hears its own priority from the address above its own", yields, "RFC 9568 6.4.3: the greater address wins"),
		same("M-TIE-BELOW", "master hears its own priority from the address below its own", stays, "RFC 9568 6.4.3: the greater address wins"),
		same("M-255", "master hears priority 255", yields, "RFC 9568 6.4.3"),
		same("M-ECHO", "its own last advert comes back, the same bytes", stays, "RFC 9568 6.4.3: the address is not greater"),
		{"M-OWNSOURCE", "master hears a higher priority from its own source address, and another MAC", yields, yields, nil, "RFC 9568 6.4.3 looks at the priority first; keepalived (over IPv4) and FRR: not from an address of their own"},
		same("M-TWO", "master hears two at once: one priority more than its own, and 2 before and after", yields, "RFC 9568 6.4.3"),
		same("J-SLOW", "bad packets of its vrid, four in each interval, while it is master", "undisturbed", rfcDrops+", and nothing else: its adverts go on in time; keepalived 2.2.7 starts its advert timer again at each, and falls silent"),
		same("J-FLOOD", "bad packets of its vrid, 2000 a second, while it is master", "undisturbed", rfcDrops+", and nothing else: its adverts go on in time; keepalived 2.2.7 as before"),
	}
}

// vrrpMismatchRules are of peers with other settings: what the RFCs discard is
// silence to them, and two masters come of it.
func vrrpMismatchRules(version uint8, six bool) (all []rule) {
	discarded := func(id, what, others string) {
		cite := others + "; " + ourPage + ", Alive but incompatible"
		all = append(
			all,
			rule{id + "-B", "backup hears a better master with " + what, takesOver, staysBackup, nil, cite},
			rule{id + "-M", "master hears a better one with " + what, stays, yields, nil, cite},
			same(id+"-W", "master hears a worse one with "+what, stays, cite),
		)
	}
	accepted := func(id, what, others string) {
		all = append(
			all,
			rule{id + "-B", "backup hears a better master with " + what, staysBackup, staysBackup, nil, others},
			rule{id + "-M", "master hears a better one with " + what, yields, yields, nil, others},
			same(id+"-W", "master hears a worse one with "+what, stays, others),
		)
	}
	list := accepted
	cite := "RFC 9568 7.1: log, and go on; keepalived 2.2.7: drops (since 2.3.3: accepts); FRR: accepts"
	if version == 2 {
		list, cite = discarded, "RFC 3768 7.1: if it is checked, drop unless the priority is 255; keepalived 2.2.7: drops (since 2.3.3: accepts); FRR: accepts"
	}
	list("X-MORE", "an address more", cite)
	list("X-FEWER", "one address only", cite)
	if !six {
		discarded("X-VERSION", fmt.Sprintf("version %d", 5-version), "RFC 9568 7.1, RFC 3768 7.1: MUST discard; keepalived, FRR: drop")
	}
	if version == 3 {
		accepted("X-INTERVAL", "an interval of 40.95 s", "RFC 9568 6.4.2: learned; ours: not learned, and no silence either: docs/vrrp.md")
		return all
	}
	discarded("X-INTERVAL", "an interval of 2 s more", "RFC 3768 7.1: MUST discard; keepalived, FRR: drop")
	discarded("X-PASSWORD", "another password", "RFC 2338 7.1: discard; RFC 3768 has no authentication; keepalived, FRR: drop")
	discarded("X-AUTHTYPE", "authentication type 2, and no authentication header", "RFC 2338 7.1: discard; keepalived, FRR: drop")
	discarded("X-AH", "an authentication header", "RFC 2338 7.1: discard; keepalived, FRR: drop")
	return all
}

func vrrpProcessRules() []rule {
	return []rule{
		same("O-START", "it is started with priority 255: when its first advert comes", "at once", "RFC 9568 6.4.1"),
		same("O-LOWER", "an owner hears priority 254", stays, "RFC 9568 6.4.3"),
		{"O-BELOW", "an owner hears priority 255 from the address below its own", stays, stays, nil, "RFC 9568 7.1 with erratum 8298; keepalived: lowers its own priority to 254, and yields"},
		{"O-ABOVE", "an owner hears priority 255 from the address above its own", yields, yields, nil, "RFC 9568 6.4.3 with erratum 8298 of 7.1 (which before discards it: two owners stay for ever); keepalived: settles; FRR: stays"},
		same("S-ZERO", "what a master sends when it is stopped in order", "priority 0", "RFC 9568 6.4.3: Shutdown"),
		{"S-ORDER", "what comes first then: that advert, or the end of the address", "advert", "address", nil, "RFC 9568 6.4.3; keepalived: advert; " + ourPage + ", Election: Leaving"},
		same("S-AFTER", "who has the address, after the process ended", "no answer", "RFC 9568 6.4.1: Initialize; FRR's macvlan with the address stays, without carrier: it answers at times"),
	}
}
