package conform

import "slices"

// rule is what a row is compared with. Outcomes are short and fixed; what was
// seen says more.
type rule struct {
	id, done       string
	standard, ours string // the outcome there: of FreeBSD, or of the RFCs; "" where neither has one
	must           []string
	cite           string // where the standard is written, and ours if it differs
}

// Outcomes that several rows have.
const (
	accepts   = "accepts"
	refuses   = "refuses"
	yields    = "yields"
	stays     = "stays"
	takesOver = "takes over"
	follows   = "follows"
	nothing   = "nothing"
)

const oracle = "FreeBSD 13.0 and NetBSD kernels, carp/testdata/vectors/bsd-oracle-input-v4"

func only(outcome string) []string { return []string{outcome} }

// Rows lists what Run tries, in the order of the report, with the rules and
// without a result.
func Rows() (all []Row) {
	for _, r := range rules() {
		all = append(all, r.empty())
	}
	return all
}

func (r rule) empty() Row {
	return Row{ID: r.id, Done: r.done, Seen: "the run did not come so far", Rule: r.expectation() + r.cite, Must: len(r.must) > 0, Verdict: NotTested}
}

// expectation says what the rule expects, in front of where it is written.
func (r rule) expectation() string {
	s := r.standard
	if s == "" {
		s = "no rule"
	}
	if r.ours != r.standard {
		s += ", ours " + r.ours
	}
	return s + ": "
}

// judge compares an outcome with the rule; "" is that it was not tested, and as
// the verdict on one that is the standard's.
func (r rule) judge(as Verdict, outcome, seen string) Row {
	row := r.empty()
	row.Seen = seen
	switch outcome {
	case "":
		return row
	case r.standard:
		row.Verdict = as
	case r.ours:
		row.Verdict = AsOurs
	default:
		row.Verdict = Differs
	}
	row.Contrary = row.Must && !slices.Contains(r.must, outcome)
	return row
}

// rules lists all rules, in the order of the report.
func rules() []rule {
	all := advertRules()
	all = append(all, roleRules()...)
	all = append(all, refusalRules()...)
	return append(all, contestRules()...)
}

func advertRules() []rule {
	return []rule{
		{"A-VERSION", "version and type of its adverts", "2, type 1", "2, type 1", only("2, type 1"), "FreeBSD carp_send_ad_locked; ucarp carp_send_ad"},
		{"A-LENGTH", "bytes after the IP header", "36", "36", only("36"), "struct carp_header, ip_carp.h"},
		{"A-AUTHLEN", "authlen of its adverts", "7", "7", nil, "CARP_AUTHLEN, ip_carp.h; no receiver looks at it"},
		{"A-PAD", "byte 4 of its adverts", "0", "0", nil, "FreeBSD carp_send_ad_locked; OpenBSD has its demotion count there"},
		{"A-TIMING", "advbase/advskew of its adverts, as configured", "as configured", "as configured", only("as configured"), "FreeBSD carp_prepare_ad; more than 240 is sent as 240"},
		{"A-CHECKSUM", "checksum of its adverts", "right", "right", only("right"), "RFC 1071 over 36 bytes: FreeBSD carp_send_ad_locked; a pseudo-header is NetBSD's over IPv6"},
		{"A-HMAC", "all adverts of the vhid carry the group's HMAC", "right", "right", only("right"), "FreeBSD carp_hmac_prepare, carp_hmac_generate"},
		{"A-TTL", "TTL (and hop limit) of its adverts", "255", "255", only("255"), "CARP_DFLTTL; receivers drop others: carp_input"},
		{"A-DST", "where its adverts go", "224.0.0.18 at 01:00:5e:00:00:12", "224.0.0.18 at 01:00:5e:00:00:12", only("224.0.0.18 at 01:00:5e:00:00:12"), "INADDR_CARP_GROUP, FreeBSD carp_send_ad_locked"},
		{"A-SRC", "source address of its adverts", "an own address", "an own address", nil, "FreeBSD carp_best_ifa: a shared address only where there is no other"},
		{"A-SRCMAC", "source MAC of its adverts", "virtual", "virtual", nil, "FreeBSD carp_output: 00:00:5e:00:01:VHID; ucarp carp_send_ad has 00 in the fifth octet; ours: key source_mac"},
		{"A-TOS", "TOS of its adverts", "0xe0", "0x10", nil, "FreeBSD net.inet.carp.dscp 56; OpenBSD, NetBSD, ucarp and ours IPTOS_LOWDELAY"},
		{"A-DF", "don't fragment", "set", "set", nil, "FreeBSD carp_send_ad_locked: IP_DF"},
		{"A-IPID", "IP identification", "0", "0", nil, "FreeBSD ip_fillid of atomic packets; OpenBSD and ucarp: random"},
		{"A-COUNTER-FRESH", "counters before it heard anybody", "random", "group clock", nil, "FreeBSD carp_prepare_ad: sc_init_counter; ours: docs/protocol.md, Counter; OpenBSD: constant"},
		{"A-COUNTER-HEARD", "counter of its first advert after one that it heard", "the heard one plus 1", "group clock", nil, "FreeBSD carp_input_c, carp_prepare_ad; ours: docs/protocol.md, Counter"},
		{"A-SPACING", "median time between adverts of an undisturbed master", "advbase + advskew/256", "advbase", []string{"advbase + advskew/256", "advbase"}, "FreeBSD carp_send_ad_locked: callout_reset; ours: docs/protocol.md, Timers: never longer than advbase with a lease"},
	}
}

func roleRules() []rule {
	return []rule{
		{"N-MASTER", "ARP: who has the shared address, while it is master", "it answers", "it answers", only("it answers"), "FreeBSD carp_iamatch"},
		{"N-MAC", "the MAC it answers with", "virtual", "own", nil, "FreeBSD carp_iamatch: LLTABLE of the vhid; ours: mac: interface; ucarp: own"},
		{"N-BACKUP", "ARP: who has the shared address, after it yielded", "no answer", "no answer", only("no answer"), "FreeBSD carp_iamatch: in MASTER only"},
		{"M-YIELD", "master hears 1/0", yields, yields, only(yields), "FreeBSD carp_input_c: own interval >= theirs; " + oracle},
		{"M-FAREWELL", "what it sends when it yields", nothing, "advert", nil, "FreeBSD carp_input_c; ucarp packethandler sends one advert; ours: docs/protocol.md, yielding"},
		{"B-DEAD", "backup hears 4/0, longer than its master-down time", takesOver, takesOver, only(takesOver), "FreeBSD carp_input_c: master will time out; " + oracle},
		{"B-FOLLOW", "backup hears 1/0 each second", follows, follows, only(follows), "FreeBSD carp_input_c; " + oracle},
		{"B-SLOWER", "backup hears 2/0, slower but no dead master", follows, follows, []string{follows, takesOver}, "FreeBSD carp_input_c with preempt off (on: takes over); " + oracle},
		{"B-RESTART", "an advert restarts its master-down time", "restarts", "restarts", only("restarts"), "FreeBSD carp_input_c, carp_setrun"},
		{"B-SILENCE", "no more adverts: when it takes over", "on time", "on time", []string{"on time", "late"}, "3 x advbase + advskew/256: FreeBSD carp_setrun; on time is within 0.1 s, never earlier, at most 2.5 s late; OpenBSD waits 3 x (advbase + advskew/256)"},
		{"B-BOWOUT", "backup hears 255/255 from the master it follows", takesOver, takesOver, nil, "OpenBSD and NetBSD carp_ifdown send it; " + oracle + "; ours after advskew/10 ms: docs/protocol.md, bow-out heard"},
		{"B-BOWOUT-OTHER", "backup hears 255/255 from another source", takesOver, "refuses", nil, oracle + "; ours: docs/protocol.md, drop bow-out"},
		{"G-ORDER", "what comes first when it takes over", "advert", "advert", nil, "FreeBSD carp_master_down_locked; ucarp: ARP after the up-script"},
		{"G-FORM", "gratuitous ARP: kind and target MAC", "request, target MAC zero", "request, target MAC zero", nil, "FreeBSD arprequest_internal; ours: RFC 5227; ucarp: target MAC = sender MAC"},
		{"G-MAC", "gratuitous ARP: the MAC that is announced", "virtual", "own", nil, "FreeBSD carp_send_arp; ours: mac: interface; ucarp: own"},
		{"G-ROUNDS", "gratuitous ARP: rounds after a takeover", "1", "4", nil, "FreeBSD carp_master_down_locked; OpenBSD and ucarp: again with the third advert; ours: docs/addresses.md: after 0, 0.2, 1 and 5 s"},
		{"G-NA", "neighbour advertisement after a takeover", "to ff02::1, override", "to ff02::1, override", nil, "FreeBSD carp_send_na; RFC 4861 7.2.6"},
	}
}

func refusalRules() []rule {
	refused := func(id, done, cite string) rule { return rule{id, done, refuses, refuses, only(refuses), cite} }
	taken := func(id, done, ours, cite string) rule { return rule{id, done, accepts, ours, nil, cite} }
	return []rule{
		refused("R-TTL", "TTL 254", oracle+" row 5: badttl"),
		refused("R-CHECKSUM", "wrong CARP checksum", oracle+" row 14: badsum"),
		refused("R-IPSUM", "wrong IP header checksum", oracle+" row 27"),
		refused("R-HMAC", "last bit of the HMAC wrong", oracle+" row 15: badauth"),
		refused("R-VERSION", "version 3", oracle+" row 7: badver"),
		refused("R-VERSION1", "version 1", oracle+" row 8: badver"),
		refused("R-VHID", "another vhid, HMAC made for it", oracle+" row 17: badvhid"),
		refused("R-VHID0", "vhid 0, HMAC made for it", oracle+" row 18: badvhid"),
		refused("R-SHORT", "one byte too short (IP length 55)", oracle+" row 21: badlen"),
		refused("R-ADDRESS", "HMAC over another address list", oracle+" row 19: badauth"),
		refused("R-KEY", "HMAC with another key", oracle+" row 16: badauth"),
		taken("R-TYPE", "type 2", accepts, oracle+" row 9: no receiver looks at the type"),
		taken("R-AUTHLEN", "authlen 0", accepts, oracle+" row 11"),
		taken("R-PAD", "byte 4 is 0xff", accepts, oracle+" row 13; OpenBSD: demotion count"),
		taken("R-TRAILING", "8 bytes after the advert, inside the IP length", accepts, oracle+" row 22"),
		taken("R-OPTIONS", "IP header with router alert", accepts, oracle+" row 23"),
		taken("R-TOS", "TOS 0", accepts, oracle+" row 24"),
		taken("R-DF", "don't fragment clear", accepts, oracle+" row 26"),
		taken("R-UNICAST", "to its own address and MAC", refuses, oracle+" row 28; OpenBSD carp_proto_input_c, ucarp and ours want the group: docs/protocol.md, drop destination"),
		taken("R-OTHERGROUP", "to 224.0.0.1", accepts, oracle+" row 29"),
		taken("R-BROADCAST", "to the Ethernet broadcast address", accepts, oracle+" row 35; ucarp --nomcast sends so"),
		taken("R-MAC", "from an ordinary MAC", accepts, oracle+" row 34"),
		taken("B-REPLAY", "an advert of its peer that it took before, the same again", refuses, oracle+" row 2: no replay check; ours: docs/protocol.md, Recordings; with replay off or compat: bsd it accepts"),
		taken("B-COUNTER-BACK", "a good advert whose counter is lower than the last", accepts, oracle+" row 3"),
		taken("B-REWRITE", "the attack: its peer's last advert with timing 4/0 instead of 1/0, the rest as it was", refuses, "timing is outside of the HMAC: FreeBSD carp_hmac_prepare; ours: docs/protocol.md, Recordings; with replay off or compat: bsd it accepts"),
	}
}

func contestRules() []rule {
	return []rule{
		{"M-SLOWER", "master hears 2/0", stays, stays, only(stays), "FreeBSD carp_input_c; " + oracle},
		{"M-SLOWER-SENDS", "what it sends then, out of turn", nothing, "gratuitous ARP", nil, "FreeBSD carp_input_c; ucarp packethandler: gratuitous ARP; ours: docs/protocol.md, staying master"},
		{"M-TIE-LOWER", "master hears its own timing from the address below its own", yields, yields, nil, "FreeBSD carp_input_c: equal yields; ucarp packethandler and ours (docs/protocol.md, tie): the lower address stays master"},
		{"M-TIE-HIGHER", "master hears its own timing from the address above its own", yields, stays, nil, "FreeBSD carp_input_c: equal yields; ucarp packethandler and ours (docs/protocol.md, tie): the lower address stays master"},
		{"M-BOWOUT", "master hears 255/255", stays, stays, only(stays), oracle},
		{"M-ZERO", "master hears 0/0", yields, yields, nil, oracle + " row 36"},
		{"M-OWNSOURCE", "master hears 1/0 from its own source address", yields, yields, nil, oracle + " row 30; ours knows its own packets by their counter: docs/protocol.md, Counter; ucarp: ignores"},
		{"M-FOREIGN", "master hears 1/0 from an address of another network", yields, yields, nil, oracle + " row 33"},
		{"M-NOSOURCE", "master hears 1/0 from 0.0.0.0", yields, yields, nil, oracle + " row 32"},
		{"M-VIPSOURCE", "master hears 1/0 from the shared address", yields, yields, nil, oracle + " row 31"},
		{"M-ECHO", "its own last advert comes back, the same bytes", yields, stays, nil, "FreeBSD carp_input_c: equal yields; OpenBSD drops its own cookie, ours its own counter: docs/protocol.md, drop own"},
		{"M-REWRITE", "the attack: its own last advert with timing 0/0 and a foreign source", yields, stays, nil, "timing is outside of the HMAC: FreeBSD carp_hmac_prepare; ours: own counter: docs/protocol.md, drop own"},
		{"M-REPLAY", "a 1/0 of its peer that it took before, the same again", yields, stays, nil, oracle + " row 2: no replay check; ours: docs/protocol.md, Recordings; with replay off or compat: bsd it yields"},
		{"F-FLOOD", "malformed packets, 2000 a second, while it is master", "undisturbed", "undisturbed", only("undisturbed"), "its adverts go on in time, and it stays master"},
	}
}
