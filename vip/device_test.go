package vip

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/carpd/carpd/carp"
)

func TestLabelIsReadBackAndNothingElseIs(t *testing.T) {
	l := label{vhid: 9, on: "bond0.7@x", parent: 4, before: arpSettings{3, 1}}
	if got, ok := parseLabel(l.String()); !ok || got != l {
		t.Errorf("%q: %+v, %v, want %+v", l, got, ok, l)
	}
	for _, alias := range []string{
		"", "uplink", "carpd", "carpd 9@eth0", "carpd 9@eth0 parent=0 arp_ignore=0 arp_announce=0",
		"carpd 9@eth0 parent=2 arp_ignore=0", "carpd 999@eth0 parent=2 arp_ignore=0 arp_announce=0",
		"carpd 9@eth0 parent=2 arp_ignore=0 arp_announce=0 ", "carpd 9@eth0 parent=2 arp_ignore=-1 arp_announce=0",
		" carpd 9@eth0 parent=2 arp_ignore=0 arp_announce=0",
	} {
		if got, ok := parseLabel(alias); ok {
			t.Errorf("%q is taken for %+v", alias, got)
		}
	}
	longest := label{255, strings.Repeat("x", 15), 1<<31 - 1, arpSettings{1<<32 - 1, 1<<32 - 1}}
	if n := len(longest.String()); n > 255 {
		t.Errorf("a label may have %d bytes, the kernel takes 255", n)
	}
}

func TestRecordIsReadBackAndNothingElseIs(t *testing.T) {
	longest := arpSettings{1<<32 - 1, 1<<32 - 1}
	for _, before := range []arpSettings{{}, {3, 1}, longest} {
		if got, ok := parseRecord(recordOf(7, before)); !ok || got != before {
			t.Errorf("%q: %+v, %v, want %+v", recordOf(7, before), got, ok, before)
		}
	}
	for _, name := range []string{"", "uplink", "carpd", "carpd-arp", "carpd-arp-0-0-0", "carpd-arp-2-0", "carpd-arp-2-0-0-0", "carpd-arp-2-0--1", "carpd-arp-2-00-1"} {
		if got, ok := parseRecord(name); ok {
			t.Errorf("%q is taken for %+v", name, got)
		}
	}
	if n := len(recordOf(1<<31-1, longest)); n > 127 {
		t.Errorf("a record may have %d bytes, the kernel takes 127", n)
	}
}

func TestQuietSettingsAreRestoredUnlessSomebodyChangedThem(t *testing.T) {
	for _, tc := range []struct{ before, quiet, now, after arpSettings }{
		{arpSettings{0, 0}, arpSettings{1, 2}, arpSettings{1, 2}, arpSettings{0, 0}},
		{arpSettings{3, 1}, arpSettings{1, 2}, arpSettings{1, 2}, arpSettings{3, 1}},
		{arpSettings{2, 2}, arpSettings{2, 2}, arpSettings{2, 2}, arpSettings{2, 2}},
		{arpSettings{8, 0}, arpSettings{8, 2}, arpSettings{8, 2}, arpSettings{8, 0}},
		{arpSettings{0, 0}, arpSettings{1, 2}, arpSettings{2, 2}, arpSettings{2, 0}},
		{arpSettings{0, 0}, arpSettings{1, 2}, arpSettings{1, 1}, arpSettings{0, 1}},
	} {
		if got := tc.before.quiet(); got != tc.quiet {
			t.Errorf("%v made quiet: %v, want %v", tc.before, got, tc.quiet)
		}
		if got := tc.now.restored(tc.before); got != tc.after {
			t.Errorf("%v restored to %v: %v, want %v", tc.now, tc.before, got, tc.after)
		}
	}
}

func TestExamine(t *testing.T) {
	own, virtual, other := carp.MAC{2, 0, 0, 0, 0, 1}, carp.VirtualMAC(9), carp.VirtualMAC(10)
	eth0 := linkInfo{Link: Link{Index: 2, Name: "eth0", MAC: own}, hardware: own}
	loud, quiet := arpSettings{3, 1}, arpSettings{1, 2}
	with := func(l linkInfo, change func(*linkInfo)) linkInfo { change(&l); return l }
	device := func(name string, mac carp.MAC, l label) linkInfo {
		return linkInfo{Link: Link{Index: 5, Name: name, MAC: mac, Parent: l.parent}, hardware: mac, lower: 2, macvlan: true, private: true, label: l}
	}
	ours := label{vhid: 9, on: "eth0", parent: 2, before: loud}
	d := Device{Name: "carp9", Parent: eth0.Link, MAC: virtual, VHID: 9}
	for _, tc := range []struct {
		name   string
		links  []linkInfo
		known  map[int]arpSettings
		there  int
		before arpSettings
		err    error
		hint   string
	}{
		{"nothing there", []linkInfo{eth0}, nil, 0, arpSettings{}, nil, ""},
		{"the parent as it is", []linkInfo{with(eth0, func(l *linkInfo) { l.arp = loud })}, nil, 0, loud, nil, ""},
		{"the parent as remembered", []linkInfo{with(eth0, func(l *linkInfo) { l.arp = quiet })}, map[int]arpSettings{2: loud}, 0, loud, nil, ""},
		{"the parent changed since", []linkInfo{with(eth0, func(l *linkInfo) { l.arp = arpSettings{2, 2} })}, map[int]arpSettings{2: loud}, 0, arpSettings{2, 2}, nil, ""},
		{"the parent as another device says", []linkInfo{with(eth0, func(l *linkInfo) { l.arp = quiet }), device("carp10", other, label{10, "eth0", 2, loud})}, nil, 0, loud, nil, ""},
		{"the parent as its record says", []linkInfo{with(eth0, func(l *linkInfo) { l.arp, l.record, l.recorded = quiet, "x", loud })}, nil, 0, loud, nil, ""},
		{"the parent changed in part since its record", []linkInfo{with(eth0, func(l *linkInfo) { l.arp, l.record, l.recorded = arpSettings{2, 2}, "x", loud })}, nil, 0, arpSettings{2, 1}, nil, ""},
		{"a device of another parent says nothing", []linkInfo{eth0, with(device("carp10", other, label{10, "eth1", 3, loud}), func(l *linkInfo) { l.lower = 3 })}, nil, 0, arpSettings{}, nil, ""},
		{"there already", []linkInfo{eth0, device("carp9", virtual, ours)}, nil, 5, loud, nil, ""},
		{"there for a parent of that name that is gone", []linkInfo{eth0, device("carp9", virtual, label{9, "eth0", 1, loud})}, nil, 5, arpSettings{}, nil, ""},
		{"the parent is gone", nil, nil, 0, arpSettings{}, ErrNoLink, ""},
		{"the name is somebody else's", []linkInfo{eth0, {Link: Link{Index: 5, Name: "carp9"}}}, nil, 0, arpSettings{}, ErrForeignDevice, "ip link del carp9"},
		{"the name is the parent's", []linkInfo{with(eth0, func(l *linkInfo) { l.Name = "carp9" })}, nil, 0, arpSettings{}, ErrForeignDevice, "name of its own"},
		{"the name is another instance's", []linkInfo{eth0, device("carp9", virtual, label{9, "eth1", 3, loud})}, nil, 0, arpSettings{}, ErrForeignDevice, "9 on eth1"},
		{"the MAC is somebody else's", []linkInfo{eth0, device("vrrp", virtual, label{})}, nil, 0, arpSettings{}, ErrForeignDevice, "vrrp on eth0 has the MAC 00:00:5e:00:01:09"},
		{"the MAC is another instance's", []linkInfo{eth0, device("vrrp4-9", virtual, ours)}, nil, 0, arpSettings{}, ErrForeignDevice, "vrrp4-9"},
		{"the MAC is elsewhere", []linkInfo{eth0, with(device("carp9.eth1", virtual, label{}), func(l *linkInfo) { l.lower = 3 })}, nil, 0, arpSettings{}, nil, ""},
		{"the MAC is the parent's", []linkInfo{with(eth0, func(l *linkInfo) { l.hardware = virtual })}, nil, 0, arpSettings{}, ErrForeignDevice, "eth0 itself"},
		{"the parent is not Ethernet", []linkInfo{with(eth0, func(l *linkInfo) { l.MAC = carp.MAC{} })}, nil, 0, arpSettings{}, nil, "mac: interface"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			there, before, err := examine(tc.links, d, tc.known)
			if tc.hint != "" || tc.err != nil {
				if err == nil || tc.err != nil && !errors.Is(err, tc.err) || !strings.Contains(err.Error(), tc.hint) {
					t.Errorf("error %v, want %v with %q", err, tc.err, tc.hint)
				}
				return
			}
			if err != nil || there.Index != tc.there || before != tc.before {
				t.Errorf("device %d, before %v, %v; want %d, %v", there.Index, before, err, tc.there, tc.before)
			}
		})
	}
}

func TestDeviceFits(t *testing.T) {
	base := Link{Index: 2, Quiet: true}
	good := Link{Index: 5, MAC: carp.VirtualMAC(9), Parent: 2, Quiet: true}
	d := Device{MAC: carp.VirtualMAC(9)}
	for name, tc := range map[string]struct {
		change func(base, l *Link)
		want   bool
	}{
		"down":                        {func(_, l *Link) {}, true},
		"up":                          {func(_, l *Link) { l.Up = true }, true},
		"nobody's":                    {func(_, l *Link) { l.Parent = 0 }, false},
		"on another interface":        {func(b, _ *Link) { b.Index = 3 }, false},
		"another MAC":                 {func(_, l *Link) { l.MAC[5]++ }, false},
		"answers for others":          {func(_, l *Link) { l.Quiet = false }, false},
		"the interface below answers": {func(b, _ *Link) { b.Quiet = false }, false},
	} {
		b, l := base, good
		tc.change(&b, &l)
		if got := fits(l, b, d); got != tc.want {
			t.Errorf("%s: fits %v, want %v", name, got, tc.want)
		}
	}
}

func TestDeviceForms(t *testing.T) {
	own := []Addr{{Prefix: netip.MustParsePrefix("192.0.2.1/24")}, {Prefix: netip.MustParsePrefix("2001:db8::1/64")}, {Prefix: netip.MustParsePrefix("fe80::1/64")}}
	for _, tc := range []struct{ written, form, placed string }{
		{"192.0.2.9/24", "192.0.2.9/32", ""},
		{"198.51.100.9/24", "198.51.100.9/24", ""},
		{"2001:db8::9/64", "2001:db8::9/128", ""},
		{"2001:db8:1::9/64", "2001:db8:1::9/64", ""},
		{"fe80::9/64", "fe80::9/64", ""},
		{"fe80::9/128", "fe80::9/64", ""},
		{"fe80::9/10", "fe80::9/10", ""},
		{"fe80::9/64", "fe80::9/64", "fe80::9/64"},
		{"198.51.100.9/24", "198.51.100.9/32", "198.51.100.9/32"},
	} {
		var placed []netip.Prefix
		if tc.placed != "" {
			placed = prefixes(tc.placed)
		}
		if got := deviceForms(prefixes(tc.written), own, placed); !slices.Equal(got, prefixes(tc.form)) {
			t.Errorf("%s beside %s: %v, want %s", tc.written, tc.placed, got, tc.form)
		}
	}
}
