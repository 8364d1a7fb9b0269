package mysql

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// span is the numbers first to last, both included.
type span struct{ first, last uint64 }

// maxSequence is the greatest number that a server gives (GNO_END of MySQL).
const maxSequence = 1<<63 - 1

// gtids is a set of transactions. The key is where they were written first: with MySQL
// UUID or UUID:TAG, with MariaDB DOMAIN-SERVER, or DOMAIN alone where only the place in
// the sequence counts. The spans of a key are sorted and do not touch. nil is empty.
type gtids map[string][]span

// parseMySQL reads the form of @@gtid_executed: UUID:1-5:7,UUID:TAG:1-3. Line ends and
// spaces do not count.
func parseMySQL(text string) (gtids, error) {
	all := gtids{}
	for part := range strings.SplitSeq(strings.Join(strings.Fields(text), ""), ",") {
		if part == "" {
			continue
		}
		uuid, rest, ok := strings.Cut(part, ":")
		if !ok || uuid == "" {
			return nil, fmt.Errorf("%q is no set of GTIDs", part)
		}
		key := strings.ToLower(uuid)
		for piece := range strings.SplitSeq(rest, ":") {
			if piece != "" && (piece[0] < '0' || piece[0] > '9') {
				key = strings.ToLower(uuid + ":" + piece) // a tag, which 8.3 brought
				continue
			}
			low, high, ranged := strings.Cut(piece, "-")
			if !ranged {
				high = low
			}
			first, bad := strconv.ParseUint(low, 10, 64)
			last, worse := strconv.ParseUint(high, 10, 64)
			if bad != nil || worse != nil || first == 0 || last < first || last > maxSequence {
				return nil, fmt.Errorf("%q is no set of GTIDs", part)
			}
			all[key] = append(all[key], span{first, last})
		}
	}
	return all.tidy(), nil
}

// parseMariaDB reads a list of DOMAIN-SERVER-SEQUENCE, as in @@gtid_binlog_state and
// @@gtid_slave_pos. Each stands for all of its origin up to itself. With byDomain the
// server does not count: a position in a domain stands for all before it.
func parseMariaDB(text string, byDomain bool) (gtids, error) {
	all := gtids{}
	for part := range strings.SplitSeq(strings.Join(strings.Fields(text), ""), ",") {
		if part == "" {
			continue
		}
		f := strings.Split(part, "-")
		if len(f) != 3 {
			return nil, fmt.Errorf("%q is no GTID of MariaDB", part)
		}
		for _, s := range f[:2] {
			if _, err := strconv.ParseUint(s, 10, 32); err != nil {
				return nil, fmt.Errorf("%q is no GTID of MariaDB", part)
			}
		}
		seq, err := strconv.ParseUint(f[2], 10, 64)
		if err != nil || seq > maxSequence {
			return nil, fmt.Errorf("%q is no GTID of MariaDB", part)
		}
		key := f[0] + "-" + f[1]
		if byDomain {
			key = f[0]
		}
		if seq > 0 {
			all[key] = append(all[key], span{1, seq})
		}
	}
	return all.tidy(), nil
}

// tidy sorts the spans of each key and merges those that touch.
func (g gtids) tidy() gtids {
	for key, spans := range g {
		slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
		merged := spans[:0]
		for _, next := range spans {
			if n := len(merged); n > 0 && next.first <= merged[n-1].last+1 {
				merged[n-1].last = max(merged[n-1].last, next.last)
				continue
			}
			merged = append(merged, next)
		}
		g[key] = merged
	}
	return g
}

// plus returns what is in one of both.
func (g gtids) plus(other gtids) gtids {
	sum := gtids{}
	for _, one := range []gtids{g, other} {
		for key, spans := range one {
			sum[key] = append(sum[key], spans...)
		}
	}
	return sum.tidy()
}

// minus returns what is in g and not in other.
func (g gtids) minus(other gtids) gtids {
	left := gtids{}
	for key, spans := range g {
		if rest := without(spans, other[key]); len(rest) > 0 {
			left[key] = rest
		}
	}
	return left
}

// without returns what is in a and not in b; both are tidy.
func without(a, b []span) (left []span) {
	for _, s := range a {
		for len(b) > 0 && b[0].last < s.first {
			b = b[1:]
		}
		for _, o := range b {
			if o.first > s.last || s.first > s.last {
				break
			}
			if o.first > s.first {
				left = append(left, span{s.first, o.first - 1})
			}
			s.first = o.last + 1
		}
		if s.first <= s.last {
			left = append(left, s)
		}
	}
	return left
}

// keys are sorted.
func (g gtids) keys() []string { return slices.Sorted(maps.Keys(g)) }

// count is how many transactions it is.
func (g gtids) count() (n uint64) {
	for _, spans := range g {
		for _, s := range spans {
			n += s.last - s.first + 1
		}
	}
	return n
}

// maxNamed is how many spans an error names.
const maxNamed = 8

// String names the transactions.
func (g gtids) String() string {
	var names []string
	for _, key := range g.keys() {
		separator := "-"
		if strings.Count(key, "-") > 1 {
			separator = ":" // a UUID
		}
		for _, s := range g[key] {
			name := fmt.Sprintf("%s%s%d", key, separator, s.first)
			if s.last > s.first {
				name += fmt.Sprintf(" to %d", s.last)
			}
			names = append(names, name)
		}
	}
	if more := len(names) - maxNamed; more > 0 {
		names = append(names[:maxNamed], fmt.Sprintf("and %d more spans", more))
	}
	return strings.Join(names, ", ")
}

// extra returns the transactions of one server's history that another one's lacks. Those of
// MariaDB share one sequence in a domain: what an origin wrote after all that both know
// begins no earlier than after that.
func extra(of, not gtids) gtids {
	left := of.minus(not)
	for key, spans := range left {
		domain, _, maria := strings.Cut(key, "-")
		if !maria || strings.Count(key, "-") > 1 {
			continue
		}
		var common uint64
		for other, theirs := range not {
			d, _, _ := strings.Cut(other, "-")
			if ours := of[other]; d == domain && len(ours) > 0 && len(theirs) > 0 {
				common = max(common, min(ours[len(ours)-1].last, theirs[len(theirs)-1].last))
			}
		}
		if s := &spans[len(spans)-1]; common >= s.first && common < s.last {
			s.first = common + 1
		}
	}
	return left
}
