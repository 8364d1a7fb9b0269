package daemon

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/cmd/daemon/config"
)

const oneRouter = `
node: a
instances:
  - vrid: 51
    interface: eth0
    protocol: vrrp3
    priority: 150
    interval: 100ms
    addresses: [192.0.2.50/24]
`

// planned loads a file that must be sound and returns its only plan.
func planned(t *testing.T, text string) *plan {
	t.Helper()
	_, plans, err := load(write(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return &plans[0]
}

func TestAPlanOfVRRPHasWhatThePartsNeed(t *testing.T) {
	p := planned(t, oneRouter+`
    checksum: rfc9568
    mac: virtual
    peers: [192.0.2.2, {address: 192.0.2.3, min_ttl: 254}]
    addresses_excluded: [192.0.2.51/24, "2001:db8::51/64"]
`)
	want := carp.Config{
		Protocol: carp.VRRP3, VHID: 51, Priority: 150, Interval: 100 * time.Millisecond, Checksum: carp.ChecksumRFC9568,
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.50")},
		Peers:     []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")},
		PeerTTL:   map[netip.Addr]carp.TTLBounds{netip.MustParseAddr("192.0.2.3"): {Min: 254, Max: 255}},
		Leased:    true, PreemptGrace: carp.DefaultGrace, ReleaseBudget: carp.DefaultReleaseBudget,
	}
	if !reflect.DeepEqual(p.carp, want) {
		t.Errorf("engine: got\n%+v, want\n%+v", p.carp, want)
	}
	if p.port.Protocol != carp.VRRP3 || p.port.Family != carp.IPv4 || p.port.SourceMAC != link.Virtual || len(p.port.Avoid) != 3 {
		t.Errorf("link: %+v", p.port)
	}
	if a := p.addresses; a.Device != "vrrp4-51" || a.VirtualMAC != (carp.MAC{0, 0, 0x5e, 0, 1, 51}) || len(a.Addresses) != 3 {
		t.Errorf("addresses: %+v", a)
	}
	if six := planned(t, strings.Replace(oneRouter, "192.0.2.50/24", `"fe80::50/64"`, 1)); six.port.Family != carp.IPv6 || six.port.SourceMAC != link.InterfaceMAC {
		t.Errorf("link over IPv6: %+v", six.port)
	}
	if p.leased.Promised || !strings.Contains(p.leased.Note, "not promised") || !p.fenced || !p.promised() {
		t.Errorf("300 ms of master-down time promise %+v, fenced %v", p.leased, p.fenced)
	}
}

func TestTheLeaseOfVRRPIsThatOfItsMasterDownTime(t *testing.T) {
	for interval, promised := range map[time.Duration]bool{
		10 * time.Millisecond: false, 840 * time.Millisecond: false, 850 * time.Millisecond: true, time.Second: true, 3 * time.Second: true,
	} {
		c := carp.Config{Protocol: carp.VRRP3, Interval: interval}
		if l := planLease(config.LeaseSetting{}, &c); l.Promised != promised || l.Valid < time.Second {
			t.Errorf("%v: %+v", interval, l)
		}
	}
}

func TestVRRPChangesInPlaceWhatItsLinkDoesNotNeed(t *testing.T) {
	a := planned(t, oneRouter)
	for old, c := range map[string]struct{ new, frozen string }{
		"priority: 150":                {"priority: 200", ""},
		"interval: 100ms":              {"interval: 1s", ""},
		"addresses: [192.0.2.50/24]":   {"addresses: [192.0.2.50/24, 192.0.2.51/24]", ""},
		"protocol: vrrp3":              {"protocol: vrrp3\n    checksum: rfc9568", ""},
		"    vrid: 51":                 {"    vrid: 51", ""},
		"vrid: 51\n":                   {"vrid: 51\n    mac: virtual\n", "source_mac, mac"},
		"interval: 100ms\n":            {"interval: 1s\n    name: other\n", "name"},
		"protocol: vrrp3\n":            {"protocol: vrrp2\n", "protocol"},
		"addresses: [192.0.2.50/24]\n": {"addresses: [\"fe80::50/64\"]\n", "name, addresses"},
	} {
		text := strings.Replace(oneRouter, old, c.new, 1)
		if strings.Contains(c.new, "vrrp2") {
			text = strings.Replace(text, "100ms", "1s", 1)
		}
		b := planned(t, text)
		if got := a.frozen(b); got != c.frozen {
			t.Errorf("%q: frozen %q", c.new, got)
		}
		if same(a, b) != (text == oneRouter) {
			t.Errorf("%q is taken for the opposite of a change", c.new)
		}
	}
}

func TestTTLBoundsOfAPeerChangeInPlace(t *testing.T) {
	a := planned(t, oneRouter+"    peers: [192.0.2.2]\n")
	b := planned(t, oneRouter+"    peers: [{address: 192.0.2.2, min_ttl: 255}]\n")
	if same(a, b) || a.frozen(b) != "" {
		t.Errorf("same %v, frozen %q", same(a, b), a.frozen(b))
	}
}

// heardAs is what a peer of VRRP says.
func heardAs(priority uint8, interval time.Duration, at carp.Instant) carp.Sighting {
	return carp.Sighting{Address: netip.MustParseAddr("192.0.2.7"), Priority: priority, Interval: interval, At: at}
}

func TestARefusedPacketIsTheAlarmThatFitsIt(t *testing.T) {
	const now = carp.Instant(100e9)
	v3, v2 := oneRouter, strings.NewReplacer("vrrp3", "vrrp2", "100ms", "1s").Replace(oneRouter)
	for _, c := range []struct {
		name  string
		file  string
		drop  carp.Drop
		who   carp.Sighting
		alarm string // "" for none
		says  []string
	}{
		{"another version", v3, carp.DropVersion, heardAs(200, time.Second, now), "incompatible-peer", []string{"192.0.2.7", "version", "priority 200", "another version of VRRP than vrrp3", "`protocol`", "stays BACKUP"}},
		{"no version at all", v3, carp.DropVersion, heardAs(0, 0, now), "bad-version", []string{"no VRRP adverts", "id 51"}},
		{"another list", v3, carp.DropAddresses, heardAs(100, time.Second, now), "incompatible-peer", []string{"list of addresses", "addresses_excluded"}},
		{"far interval", v3, carp.DropInterval, heardAs(100, 30*time.Second, now), "incompatible-peer", []string{"30s", "100ms", "too far"}},
		{"other interval of version 2", v2, carp.DropInterval, heardAs(100, 2*time.Second, now), "incompatible-peer", []string{"2s", "ours 1s", "equal"}},
		{"interval 0", v3, carp.DropInterval, heardAs(100, 0, now), "bad-interval", []string{"silence"}},
		{"interval 0 of version 2", v2, carp.DropInterval, heardAs(100, 0, now), "incompatible-peer", []string{"equal"}},
		{"password", v2, carp.DropAuth, heardAs(100, time.Second, now), "incompatible-peer", []string{"password", "AH", "first 8 bytes"}},
		{"another router", v3, carp.DropForeign, heardAs(100, time.Second, now), "id-in-use", []string{"another virtual router", "id 51"}},
		{"CARP", v3, carp.DropProtocol, heardAs(0, 0, now), "other-protocol", []string{"speaks CARP", "id 51", "vrrp3"}},
		{"VRRP", oneInstance, carp.DropProtocol, heardAs(0, 0, now), "other-protocol", []string{"speaks VRRP", "id 9", "carp"}},
		{"version of CARP", oneInstance, carp.DropVersion, heardAs(0, 0, now), "bad-version", []string{"no CARP adverts", "is VRRP running"}},
		{"length of VRRP", v3, carp.DropLength, heardAs(0, 0, now), "bad-length", []string{"no VRRP adverts", "corrupting"}},
		{"checksum of CARP", oneInstance, carp.DropChecksum, heardAs(0, 0, now), "bad-checksum", []string{"no CARP adverts"}},
		{"our address elsewhere", oneInstance, carp.DropDuplicate, heardAs(0, time.Second, now), "duplicate-source", []string{"192.0.2.7", "another address"}},
		{"hash", oneInstance, carp.DropHash, heardAs(0, 0, now), "bad-hash", []string{"passphrase or address list"}},
		{"long ago", v3, carp.DropAddresses, heardAs(100, time.Second, now-carp.Instant(alarmHold)), "", nil},
		{"a farewell", v3, carp.DropBowOut, heardAs(0, time.Second, now), "", nil},
	} {
		st := carp.Status{State: carp.Backup, Drops: map[carp.Drop]uint64{c.drop: 3}, Refused: map[carp.Drop]carp.Sighting{c.drop: c.who}}
		standing := map[string]string{}
		for _, a := range packetAlarms(planned(t, c.file), st, now, false) {
			if a.text != "" {
				standing[a.name] = a.text
			}
		}
		text := standing[c.alarm]
		if c.alarm == "" && len(standing) > 0 || c.alarm != "" && len(standing) != 1 {
			t.Errorf("%s: %v, want %s", c.name, standing, c.alarm)
		}
		for _, want := range c.says {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q does not say %q", c.name, text, want)
			}
		}
	}
}

func TestTheOtherProtocolIsNoAlarmWhereBothAreWanted(t *testing.T) {
	const now = carp.Instant(100e9)
	st := carp.Status{Drops: map[carp.Drop]uint64{carp.DropProtocol: 1}, Refused: map[carp.Drop]carp.Sighting{carp.DropProtocol: heardAs(0, 0, now)}}
	for _, a := range packetAlarms(planned(t, oneRouter), st, now, true) {
		if a.text != "" {
			t.Errorf("%s: %s", a.name, a.text)
		}
	}
	carpToo := strings.Replace(oneRouter, "instances:\n", "instances:\n  - {vhid: 51, name: c, interface: eth0, passphrase: x, addresses: 192.0.2.53/24}\n", 1)
	_, plans, err := load(write(t, carpToo+"  - {vrid: 52, interface: eth0, protocol: vrrp3, addresses: 192.0.2.54/24}\n"))
	if err != nil {
		t.Fatal(err)
	}
	var d Daemon
	for n := range plans {
		i := &instance{}
		i.plan.Store(&plans[n])
		d.instances = append(d.instances, i)
	}
	for n, want := range []bool{true, true, false} {
		if d.speaksBoth(&plans[n]) != want {
			t.Errorf("%s: not %v", plans[n].Name, want)
		}
	}
}

func TestAnInstanceIsNotAdmittedToTheDeviceOfAnother(t *testing.T) {
	running, fresh := planned(t, oneRouter+"    mac: virtual\n"), planned(t, strings.Replace(oneRouter, "eth0", "eth1", 1)+"    mac: virtual\n")
	i := &instance{name: running.Name}
	i.plan.Store(running)
	if _, err := new(Daemon).admit(*fresh, []*instance{i}); err == nil || !strings.Contains(err.Error(), "vrrp4-51, which 51@eth0 has") {
		t.Errorf("got %v", err)
	}
	fresh.keepDevice(&plan{Instance: config.Instance{Device: "vrrp4-51.eth1"}})
	if fresh.Device != "vrrp4-51.eth1" || fresh.addresses.Device != "vrrp4-51.eth1" {
		t.Errorf("an instance that goes on has %q and %q", fresh.Device, fresh.addresses.Device)
	}
}

func TestTheAlarmSaysWhatAMasterDoesAboutAnIncompatiblePeer(t *testing.T) {
	for state, want := range map[carp.State]string{
		carp.Master: "stays master", carp.Backup: "stays BACKUP", carp.Init: "not taken for silent",
	} {
		if got := meanwhile(state); !strings.Contains(got, want) {
			t.Errorf("%v: %s", state, got)
		}
	}
}

// told returns what a part of explain says.
func told(part func(sayer)) string {
	var lines []string
	part(func(format string, a ...any) { lines = append(lines, fmt.Sprintf(format, a...)) })
	return strings.Join(lines, "\n")
}

func TestExplainComparesPriorities(t *testing.T) {
	const now = carp.Instant(100e9)
	p := planned(t, oneRouter)
	st := carp.Status{
		State: carp.Backup, Protocol: carp.VRRP3, Priority: 150, EffectivePriority: 150, Interval: time.Second,
		MasterDown: 3414 * time.Millisecond, Deadline: now + 2e9,
	}
	for _, c := range []struct {
		theirs  uint8
		refused carp.Drop
		preempt bool
		want    string
	}{
		{200, carp.Accepted, true, "priority 200, which is better than this node"},
		{150, carp.Accepted, true, "priority 150, which is equal to this node"},
		{100, carp.Accepted, false, "preempt is off: it waits until the master is silent for 3.414s"},
		{100, carp.Accepted, true, "takes the role in 2s"},
		{100, carp.DropAddresses, true, "alive but incompatible (addresses): its list of addresses is not ours"},
	} {
		q := *p
		q.Preempt = c.preempt
		st.Master = heardAs(c.theirs, time.Second, now-1e9)
		st.Master.Refused = c.refused
		if got := told(func(say sayer) { explainOthers(say, &q, st, now) }); !strings.Contains(got, c.want) || c.theirs >= 150 && strings.Contains(got, "takes the role") {
			t.Errorf("priority %d, preempt %v: %s", c.theirs, c.preempt, got)
		}
	}
	st.Demotion, st.EffectivePriority = 240, 1
	if got := told(func(say sayer) { explainWeight(say, p, st) }); !strings.Contains(got, "with its demotion of 240 a priority of 1") {
		t.Error(got)
	}
	st.Demotion, st.EffectivePriority = 0, carp.OwnerPriority
	if got := told(func(say sayer) { explainWeight(say, p, st) }); !strings.Contains(got, "whoever is master") {
		t.Error(got)
	}
}

func TestStatusOfAnotherMasterHasTheWordsOfTheProtocol(t *testing.T) {
	m := heardAs(120, 100*time.Millisecond, 1e9)
	m.AdvBase, m.Sum, m.Refused = 1, carp.ChecksumRFC9568, carp.DropAddresses
	vrrp := masterStatus(planned(t, oneRouter), m, 2e9)
	if vrrp.Priority != 120 || vrrp.IntervalMS != 100 || vrrp.Checksum != "rfc9568" || vrrp.Refused != "addresses" || vrrp.AdvBase != 0 || vrrp.LastHeardMS != 1000 {
		t.Errorf("VRRP: %+v", vrrp)
	}
	if six := masterStatus(planned(t, strings.Replace(oneRouter, "192.0.2.50/24", `"fe80::50/64"`, 1)), m, 2e9); six.Checksum != "" {
		t.Errorf("over IPv6 there is one checksum: %+v", six)
	}
	if c := masterStatus(planned(t, oneInstance), m, 2e9); c.AdvBase != 1 || c.Priority != 0 || c.Checksum != "" || c.Refused != "" {
		t.Errorf("CARP: %+v", c)
	}
}

func TestCheckSaysWhatVRRPStandsWithAndThatItNeedsAFence(t *testing.T) {
	var out strings.Builder
	if code := run([]string{"check", "--config", write(t, oneRouter)}, &out, &out); code != 0 {
		t.Fatalf("exit %d: %s", code, &out)
	}
	for _, want := range []string{"51@eth0: vrid 51 on eth0 over IPv4, vrrp3, priority 150, interval 100ms, 1 addresses.", "fence: on", "silent 270ms after its last advert"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in %s", want, &out)
		}
	}
}
