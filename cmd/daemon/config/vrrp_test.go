package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
)

func TestEveryKeyOfVRRPIsRead(t *testing.T) {
	f := goodFile(t, "vrrp.yaml")
	a, six, two, owner, other, c := f.Instances[0], f.Instances[1], f.Instances[2], f.Instances[3], f.Instances[4], f.Instances[5]
	peer := netip.MustParseAddr
	for what, ok := range map[string]bool{
		"protocol":   a.Protocol == "vrrp3" && two.Protocol == "vrrp2" && c.Protocol == "carp",
		"priority":   a.Priority == 150 && six.Priority == 100 && two.Priority == 255,
		"interval":   a.Interval == 100*time.Millisecond && six.Interval == time.Second && two.Interval == 255*time.Second && owner.Interval == 40950*time.Millisecond,
		"checksum":   a.Checksum == "rfc9568" && six.Checksum == "" && two.Checksum == "" && owner.Checksum == "pseudo-header" && other.Checksum == "pseudo-header",
		"passphrase": string(two.Passphrase) == "eight by",
		"source_mac": a.SourceMAC == "virtual" && six.SourceMAC == "interface" && owner.SourceMAC == "virtual" && other.SourceMAC == "interface" && c.SourceMAC == "virtual",
		"mac":        a.MAC == "virtual" && a.Device == "vrrp4-51" && six.Device == "" && other.Device == "vrrp4-51.eth1" && c.Device == "carp54",
		"excluded":   fmt.Sprint(a.Excluded) == "[192.168.1.53/24 2001:db8::53/64]" && len(a.Held()) == 4 && a.Held()[0] == a.Addresses[0] && len(c.Held()) == 2,
		"peers":      len(a.Peers) == 4,
		"TTL": len(a.PeerTTL) == 2 && a.PeerTTL[peer("192.168.1.3")] == carp.TTLBounds{Min: 254, Max: 255} &&
			a.PeerTTL[peer("192.168.1.4")] == carp.TTLBounds{Max: 64},
		"names":       a.Name == "51@eth0" && six.Name == "51@eth0.vrrp6" && other.Name == "51@eth1" && c.Name == "54@eth0",
		"kinds":       a.Kind() == VRRP4 && six.Kind() == VRRP6 && c.Kind() == CARP,
		"labels":      a.Label() == "vrid 51 on eth0 over IPv4" && six.Label() == "vrid 51 on eth0 over IPv6" && c.Label() == "vhid 54 on eth0",
		"CARP's keys": a.AdvBase == 0 && a.Replay == "" && a.Compat == "" && a.Families == "" && a.Roll == 0 && c.AdvBase == 1 && c.Priority == 0 && c.Interval == 0,
	} {
		if !ok {
			t.Errorf("%s: got %+v", what, f.Instances)
		}
	}
	if len(f.Warnings) != 0 {
		t.Errorf("warnings: %v", f.Warnings)
	}
}

// one is a file with one instance that has these keys besides.
func one(keys string) string {
	return "instances:\n  - {vhid: 9, interface: eth0, " + keys + "}\n"
}

func TestIntervalsAreWhatTheWireHasRoomFor(t *testing.T) {
	for _, c := range []struct {
		protocol, interval string
		fault              string // "" for none
	}{
		{"vrrp2", "1s", ""}, {"vrrp2", "255s", ""}, {"vrrp2", "256s", "want 1s to 4m15s"}, {"vrrp2", "0", "want 1s to 4m15s"},
		{"vrrp2", "999ms", "whole seconds"}, {"vrrp2", "1.5s", "whole seconds"}, {"vrrp2", "-1s", "want 1s to 4m15s"},
		{"vrrp3", "25h", "want 10ms to 40.95s"}, {"vrrp3", "100", "hint: a number without a unit is in seconds"}, {"vrrp3", "soon", "is not a duration"},
		{"vrrp3", "10ms", ""}, {"vrrp3", "40.95s", ""}, {"vrrp3", "20ms", ""}, {"vrrp3", "9ms", "out of range"}, {"vrrp3", "0", "out of range"},
		{"vrrp3", "40.96s", "out of range"}, {"vrrp3", "15ms", "steps of 10ms"}, {"vrrp3", "10.001ms", "steps of 10ms"},
	} {
		_, err := Parse("x", []byte(one("protocol: "+c.protocol+", addresses: 192.0.2.1/24, interval: "+c.interval)), lan())
		if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("%s %s: %v", c.protocol, c.interval, err)
		}
	}
}

func TestAnAdvertHasRoomForSoManyAddresses(t *testing.T) {
	list := func(n int, format string) string {
		var all []string
		for i := 1; i <= n; i++ {
			all = append(all, fmt.Sprintf(format, i/200, i%200+1))
		}
		return "[" + strings.Join(all, ", ") + "]"
	}
	const four, six = "10.0.%d.%d/16", `"fe80::%x:%x/64"`
	for _, c := range []struct {
		keys  string
		fault string // "" for none
	}{
		{"protocol: vrrp3, addresses: " + list(255, four), ""},
		{"protocol: vrrp3, addresses: " + list(256, four), "more than 255 of IPv4"},
		{"protocol: vrrp2, addresses: " + list(256, four), "more than 255 of IPv4"},
		{"protocol: vrrp3, addresses: " + list(90, six), ""},
		{"protocol: vrrp3, addresses: " + list(91, six), "more than 90 of IPv6"},
		{"protocol: vrrp3, addresses: 192.0.2.1/24, addresses_excluded: " + list(1023, four), ""},
		{"protocol: vrrp3, addresses: 192.0.2.1/24, addresses_excluded: " + list(MaxAddresses, four), "more than 10000 addresses"},
		{"passphrase: x, addresses: " + list(carp.MaxAddresses, four), ""},
		{"passphrase: x, addresses: " + list(carp.MaxAddresses+1, four), "more than 4096"},
	} {
		_, err := Parse("x", []byte(one(c.keys)), lan())
		if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("%.60s...: %v", c.keys, err)
		}
		if strings.Contains(c.fault, "of IPv") && !strings.Contains(fmt.Sprint(err), "hint: move the rest to addresses_excluded") {
			t.Errorf("%.60s...: no way out: %v", c.keys, err)
		}
	}
}

func TestThePreemptGraceGrowsWithTheAddressesUnlessGiven(t *testing.T) {
	many := "["
	for n := range 5000 {
		many += fmt.Sprintf("10.%d.%d.%d, ", 1+n/10000, n/200%200, 1+n%200)
	}
	for keys, want := range map[string]time.Duration{
		"addresses: 192.0.2.1/24":                                                                        100 * time.Millisecond,
		"addresses: 192.0.2.1/24, addresses_excluded: " + many + "]":                                     5001 * 200 * time.Microsecond,
		"preempt: true, preempt_grace: 50ms, addresses: 192.0.2.1/24, addresses_excluded: " + many + "]": 50 * time.Millisecond,
	} {
		f, err := Parse("x", []byte(one("passphrase: x, "+keys)), lan())
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Instances[0].PreemptGrace; got != want {
			t.Errorf("%.80s: %v, want %v", keys, got, want)
		}
	}
}

// Warnings of files that are sound.
func TestWhatIsAllowedAndYetNotMeantIsWarnedOf(t *testing.T) {
	const pair = "instances:\n  - {vhid: 9, interface: eth0, passphrase: x, addresses: 192.0.2.1/24%s}\n" +
		"  - {vrid: 9, interface: eth0, protocol: vrrp3, name: other, addresses: %s}\n"
	for _, c := range []struct{ file, want string }{
		{one(`protocol: vrrp3, addresses: "2001:db8::1/64"`), "no link-local one"},
		{one(`protocol: vrrp3, addresses: ["2001:db8::1/64", "fe80::1/64"]`), ""},
		{fmt.Sprintf(pair, "", "192.0.2.2/24"), "share the MAC 00:00:5e:00:01:09"},
		{fmt.Sprintf(pair, ", source_mac: interface", "192.0.2.2/24"), ""},
		{fmt.Sprintf(pair, ", source_mac: interface", "192.0.2.2/24, source_mac: virtual"), "share the MAC"},
		{fmt.Sprintf(pair, ", source_mac: interface", "192.0.2.2/24, mac: virtual"), "share the MAC"},
		{fmt.Sprintf(pair, ", mac: virtual", `["fe80::9/64"], mac: virtual`), ""},
		{one("protocol: vrrp2, addresses: 192.0.2.1/24"), ""},
		{one("protocol: vrrp3, addresses: 192.0.2.1/24, peers: 192.0.2.7, source_mac: virtual"), "no effect with peers"},
		{one("protocol: vrrp3, addresses: 192.0.2.1/24, peers: 192.0.2.7, mac: virtual"), ""},
		{one("protocol: vrrp3, preempt_delay: 5s, addresses: 192.0.2.1/24"), "no effect without preempt"},
		{one("protocol: vrrp3, priority: 255, preempt_delay: 5s, preempt_grace: 1s, addresses: 192.0.2.1/24"), ""},
	} {
		f, err := Parse("x", []byte(c.file), lan())
		if err != nil || (c.want == "") != (len(f.Warnings) == 0) || !strings.Contains(f.Warnings.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %q", c.file, f.Warnings, err, c.want)
		}
	}
}

const vrrpBefore = `
instances:
  - {protocol: vrrp3, vrid: 51, interface: eth0, peers: [192.0.2.3, 192.0.2.4], addresses: [192.0.2.10/24]}
  - {protocol: vrrp3, vrid: 51, interface: eth0, addresses: ["fe80::10/64"]}
  - {protocol: vrrp2, vrid: 52, interface: eth0, addresses: [192.0.2.20/24]}
  - {vhid: 53, interface: eth0, passphrase: x, addresses: [192.0.2.30/24]}
`

const vrrpAfter = `
instances:
  - {protocol: vrrp3, vrid: 51, interface: eth0, priority: 200, addresses: ["fe80::10/64"]}
  - {protocol: vrrp3, vrid: 51, interface: eth0, interval: 2, checksum: rfc9568, mac: virtual,
     peers: [{address: 192.0.2.3, min_ttl: 254}, 192.0.2.5], addresses: [192.0.2.10/24], addresses_excluded: [192.0.2.11/24]}
  - {protocol: vrrp3, vrid: 52, interface: eth0, addresses: [192.0.2.20/24]}
  - {protocol: vrrp3, vrid: 53, interface: eth0, addresses: [192.0.2.30/24]}
`

func TestDiffTellsTheFamiliesOfOneIDApart(t *testing.T) {
	want := `vrid 51 on eth0 over IPv4: source_mac interface -> virtual (needs a restart)
vrid 51 on eth0 over IPv4: mac interface -> virtual (needs a restart)
vrid 51 on eth0 over IPv4: interval 1s -> 2s
vrid 51 on eth0 over IPv4: checksum pseudo-header -> rfc9568
vrid 51 on eth0 over IPv4: addresses_excluded added 192.0.2.11/24
vrid 51 on eth0 over IPv4: peers added 192.0.2.5, removed 192.0.2.4, TTL of 192.0.2.3 any -> 254 to 255 (needs a restart)
vrid 51 on eth0 over IPv6: priority 100 -> 200
vrid 52 on eth0 over IPv4: protocol vrrp2 -> vrrp3 (needs a restart)
vrid 53 on eth0 over IPv4: protocol carp -> vrrp3 (needs a restart)
vrid 53 on eth0 over IPv4: source_mac virtual -> interface (needs a restart)
vrid 53 on eth0 over IPv4: passphrase removed`
	if got := lines(mustParse(t, vrrpBefore).Diff(mustParse(t, vrrpAfter))); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPairFindsTheSameInstance(t *testing.T) {
	at := func(id uint8, protocol, name, address string) Instance {
		return Instance{VHID: id, Interface: "eth0", Protocol: protocol, Name: name, Addresses: []netip.Prefix{netip.MustParsePrefix(address)}}
	}
	const four, six = "192.0.2.1/24", "fe80::1/64"
	carp9, v4, v6 := at(9, "carp", "a", four), at(9, "vrrp2", "b", four), at(9, "vrrp3", "c", six)
	elsewhere := carp9
	elsewhere.Interface = "eth1"
	for _, c := range []struct {
		what     string
		old, new []Instance
		want     []int
	}{
		{"another order", []Instance{carp9, v4, v6}, []Instance{v6, carp9, v4}, []int{1, 2, 0}},
		{"another version", []Instance{v4}, []Instance{at(9, "vrrp3", "b", four)}, []int{0}},
		{"another name", []Instance{v4}, []Instance{at(9, "vrrp2", "x", four)}, []int{0}},
		{"another protocol and the same name", []Instance{carp9}, []Instance{at(9, "vrrp3", "a", four)}, []int{0}},
		{"another protocol and name", []Instance{carp9}, []Instance{v4}, []int{-1}},
		{"a name that goes from one to the other", []Instance{v4, v6}, []Instance{at(9, "vrrp3", "b", six)}, []int{-1, 0}},
		{"another interface", []Instance{carp9}, []Instance{elsewhere}, []int{-1}},
		{"another id", []Instance{carp9}, []Instance{at(10, "carp", "a", four)}, []int{-1}},
	} {
		if got := Pair(c.old, c.new); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

func TestADeviceHasNoNameThatAnInstanceRunsOn(t *testing.T) {
	f, err := Parse("x", []byte("instances:\n  - {protocol: vrrp3, vrid: 5, interface: eth0, mac: virtual, addresses: 192.0.2.5/24}\n"+
		"  - {protocol: vrrp3, vrid: 6, interface: vrrp4-5, addresses: 192.0.2.6/24}\n"), lan())
	if err != nil || f.Instances[0].Device != "vrrp4-5.eth0" {
		t.Errorf("%v, %+v", err, f)
	}
}
