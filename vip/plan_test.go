package vip

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// prefixes parses words of prefixes.
func prefixes(s string) []netip.Prefix {
	var out []netip.Prefix
	for _, w := range strings.Fields(s) {
		out = append(out, netip.MustParsePrefix(w))
	}
	return out
}

// addrs parses words of prefixes, with a trailing * for our mark.
func addrs(s string) []Addr {
	var out []Addr
	for _, w := range strings.Fields(s) {
		a := Addr{}
		if p, marked := strings.CutSuffix(w, "*"); marked {
			a.Mark, w = Mark, p
		}
		a.Prefix = netip.MustParsePrefix(w)
		out = append(out, a)
	}
	return out
}

func words(list []netip.Prefix) string {
	var out []string
	for _, p := range list {
		out = append(out, p.String())
	}
	return strings.Join(out, " ")
}

func TestFormIsHostWhereTheInterfaceHasAnAddressInTheSubnet(t *testing.T) {
	for _, tc := range []struct{ name, want, have, placed, form string }{
		{"own address in the subnet", "192.0.2.9/24", "192.0.2.1/24", "", "192.0.2.9/32"},
		{"own address in the subnet, IPv6", "2001:db8::9/64", "2001:db8::1/64", "", "2001:db8::9/128"},
		{"nothing there", "192.0.2.9/24 2001:db8::9/64", "", "", "192.0.2.9/24 2001:db8::9/64"},
		{"another subnet", "192.0.2.9/24", "198.51.100.1/24", "", "192.0.2.9/24"},
		{"the other family", "192.0.2.9/24", "2001:db8::1/64 fe80::1/64", "", "192.0.2.9/24"},
		{"own subnet is wider", "192.0.2.9/28", "192.0.2.100/24", "", "192.0.2.9/32"},
		{"own subnet is narrower", "192.0.2.100/24", "192.0.2.1/28", "", "192.0.2.100/32"},
		{"ours do not count, by mark", "192.0.2.9/24", "192.0.2.8/24*", "", "192.0.2.9/24"},
		{"ours do not count, where the kernel keeps no mark", "192.0.2.9/24 192.0.2.8/24", "192.0.2.8/24", "", "192.0.2.9/24 192.0.2.8/24"},
		{"written as host", "192.0.2.9/32", "192.0.2.1/24", "", "192.0.2.9/32"},
		{"placed as host stays so", "192.0.2.9/24", "", "192.0.2.9/32", "192.0.2.9/32"},
		{"placed as written stays so", "192.0.2.9/24", "192.0.2.1/24", "192.0.2.9/24", "192.0.2.9/24"},
		{"placed under another length", "192.0.2.9/25", "", "192.0.2.9/24", "192.0.2.9/25"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := words(forms(prefixes(tc.want), addrs(tc.have), prefixes(tc.placed))); got != tc.form {
				t.Errorf("got %s, want %s", got, tc.form)
			}
		})
	}
}

func TestPlanTurnsWhatIsThereIntoWhatIsWanted(t *testing.T) {
	for _, tc := range []struct{ name, have, want, old, plan string }{
		{"nothing there", "192.0.2.1/24", "192.0.2.9/32 2001:db8::9/128", "", "+192.0.2.9/32 +2001:db8::9/128"},
		{"all there is renewed", "192.0.2.9/32*", "192.0.2.9/32", "192.0.2.9/32", "+192.0.2.9/32"},
		{"old goes, rest is only renewed", "192.0.2.8/32* 192.0.2.9/32*", "192.0.2.9/32 192.0.2.10/32", "192.0.2.8/32 192.0.2.9/32",
			"-192.0.2.8/32 +192.0.2.9/32 +192.0.2.10/32"},
		{"wrong length goes, whoever put it there", "192.0.2.9/24 2001:db8::9/64", "192.0.2.9/32 2001:db8::9/128", "",
			"-192.0.2.9/24 -2001:db8::9/64 +192.0.2.9/32 +2001:db8::9/128"},
		{"strangers stay", "192.0.2.1/24 192.0.2.7/32* fe80::1/64", "192.0.2.9/32", "", "+192.0.2.9/32"},
		{"nothing wanted", "192.0.2.9/32*", "", "192.0.2.9/32", "-192.0.2.9/32"},
		{"nothing at all", "", "", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, c := range plan(Link{Index: 7, Name: "eth0"}, addrs(tc.have), prefixes(tc.want), prefixes(tc.old), Lease{Valid: time.Second}) {
				sign := "+"
				if c.Op == Remove {
					sign = "-"
				}
				got = append(got, sign+c.Prefix.String())
				if c.Index != 7 || c.Link != "eth0" || c.Op == Put && (c.Valid != time.Second || c.Host != c.Prefix.IsSingleIP()) {
					t.Errorf("change %+v: wrong interface, lifetime or form", c)
				}
			}
			if s := strings.Join(got, " "); s != tc.plan {
				t.Errorf("got  %s\nwant %s", s, tc.plan)
			}
		})
	}
}

func TestPutsWithoutLeaseLastForever(t *testing.T) {
	if c := puts(Link{}, prefixes("192.0.2.9/32"), Lease{}); c[0].Valid != Forever {
		t.Errorf("lifetime %v, want Forever", c[0].Valid)
	}
}

func TestLeftTellsOursFromForeign(t *testing.T) {
	for _, tc := range []struct{ name, have, want, placed, ours, foreign string }{
		{"gone", "192.0.2.1/24", "192.0.2.9/24", "192.0.2.9/32", "", ""},
		{"marked", "192.0.2.9/32*", "192.0.2.9/24", "", "192.0.2.9/32", ""},
		{"placed by us, kernel keeps no mark", "192.0.2.9/32", "192.0.2.9/24", "192.0.2.9/32", "192.0.2.9/32", ""},
		{"foreign", "192.0.2.9/24", "192.0.2.9/24", "192.0.2.9/32", "", "192.0.2.9/24"},
		{"marked, of another set", "192.0.2.8/32*", "192.0.2.9/24", "", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ours, foreign := left(addrs(tc.have), prefixes(tc.want), prefixes(tc.placed))
			if words(ours) != tc.ours || words(foreign) != tc.foreign {
				t.Errorf("got %q, %q; want %q, %q", words(ours), words(foreign), tc.ours, tc.foreign)
			}
		})
	}
}

func TestLostComparesWholePrefixes(t *testing.T) {
	got := lost(addrs("192.0.2.9/24 192.0.2.8/32*"), prefixes("192.0.2.9/32 192.0.2.8/32 192.0.2.7/32"))
	if words(got) != "192.0.2.9/32 192.0.2.7/32" {
		t.Errorf("got %s", words(got))
	}
}

func TestNormalKeepsEachAddressOnceAndUnmapsIPv4(t *testing.T) {
	got := normal(append(prefixes("192.0.2.9/24 2001:db8::9/64 192.0.2.9/32"), netip.PrefixFrom(netip.MustParseAddr("::ffff:192.0.2.8"), 120)))
	if words(got) != "192.0.2.9/24 2001:db8::9/64 192.0.2.8/24" {
		t.Errorf("got %s", words(got))
	}
}

func TestUnionAndWithout(t *testing.T) {
	a, b := prefixes("192.0.2.1/32 192.0.2.2/32"), prefixes("192.0.2.2/32 192.0.2.3/32")
	if got := words(union(a, b)); got != "192.0.2.1/32 192.0.2.2/32 192.0.2.3/32" {
		t.Errorf("union: %s", got)
	}
	if got := words(without(a, b)); got != "192.0.2.1/32" {
		t.Errorf("without: %s", got)
	}
	if !slices.Equal(a, prefixes("192.0.2.1/32 192.0.2.2/32")) {
		t.Errorf("the first list was changed: %v", a)
	}
}

func TestOpErrorTellsWhatWhereWhyAndWhatToDo(t *testing.T) {
	e := &OpError{Op: "add", Addr: netip.MustParsePrefix("192.0.2.9/32"), Link: "eth0", Err: fmt.Errorf("no"), Hint: "do this", More: 2}
	if got, want := e.Error(), "vip: add 192.0.2.9/32 on eth0: no (and 2 more addresses): do this"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// While the first address of a subnet stays the kernel has nothing to promote: in the
// other order each removal costs as much as all that are left.
func TestTheFirstAddressOfASubnetGoesLast(t *testing.T) {
	all := prefixes("10.1.0.1/16 10.1.0.2/16 2001:db8::1/64")
	changes := removes(Link{Index: 2}, all)
	msgs := NewRemoval(2, all).msgs
	if len(changes) != len(all) || len(msgs) != len(all) {
		t.Fatalf("%d changes and %d messages for %d addresses", len(changes), len(msgs), len(all))
	}
	for i, p := range slices.Backward(all) {
		at := len(all) - 1 - i
		if changes[at].Prefix != p {
			t.Errorf("change %d is about %v, want %v", at, changes[at].Prefix, p)
		}
		if want := changeMessage(changes[at]); !slices.Equal(msgs[at], want) {
			t.Errorf("message %d: % x, want % x", at, msgs[at], want)
		}
	}
}
