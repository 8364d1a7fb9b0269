package conform

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/test/decode"
	"github.com/carpd/carpd/test/lab"
)

// kinds are the sorts of virtual routers that have rows of their own.
func kinds() map[string][]rule {
	return map[string][]rule{"vrrp2": vrrpRules(2, false), "vrrp3": vrrpRules(3, false), "vrrp3 over IPv6": vrrpRules(3, true)}
}

func vrrpConfig(version uint8, addrs ...string) VRRPConfig {
	c := VRRPConfig{Interface: "eth0", Version: version, VRID: 9, Priority: 100, Interval: time.Second, Quick: true}
	for _, a := range addrs {
		c.Addresses = append(c.Addresses, netip.MustParseAddr(a))
	}
	return c
}

func TestVRRPRowsHaveDistinctIDsAndTheirRulesForetellWhatTheyDemand(t *testing.T) {
	for kind, rules := range kinds() {
		seen := map[string]bool{}
		for _, r := range rules {
			if seen[r.id] || r.id == "" || r.done == "" || r.cite == "" || r.ours == "" {
				t.Errorf("%s %q: twice, or without a part: %+v", kind, r.id, r)
			}
			seen[r.id] = true
			for _, outcome := range []string{r.standard, r.ours} {
				if r.must != nil && !slices.Contains(r.must, outcome) {
					t.Errorf("%s %s: %q is foretold and contrary to what it must be", kind, r.id, outcome)
				}
			}
		}
		if len(rules) < 85 {
			t.Errorf("%s has %d rows", kind, len(rules))
		}
	}
}

// Each id that the code writes down must be that of a rule, and each rule's be
// written down somewhere. Some ids are put together of two parts.
func TestEveryVRRPRuleIsTriedAndEveryRowHasARule(t *testing.T) {
	files, err := filepath.Glob("vrrp_*.go")
	if err != nil {
		t.Fatal(err)
	}
	tried := map[string]bool{}
	for _, file := range files {
		if file == "vrrp_rules.go" || strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`"([A-Z]-[A-Z0-9-]+)"`).FindAllSubmatch(text, -1) {
			id := string(m[1])
			if strings.HasPrefix(id, "X-") && strings.Count(id, "-") == 1 {
				for _, role := range []string{"-B", "-M", "-W"} {
					tried[id+role] = true
				}
				continue
			}
			tried[id] = true
		}
	}
	known := map[string]bool{}
	for kind, rules := range kinds() {
		for _, r := range rules {
			known[r.id] = true
			if !tried[r.id] {
				t.Errorf("%s: %s is never tried", kind, r.id)
			}
		}
	}
	for id := range tried {
		if !known[id] {
			t.Errorf("%s has no rule", id)
		}
	}
}

func TestBadVRRPConfigurationsAreRefusedWithAllFaults(t *testing.T) {
	bad := vrrpConfig(2, "192.0.2.1", "2001:db8::1", "224.0.0.1")
	bad.Interface, bad.VRID, bad.Priority, bad.Interval, bad.Password = "", 0, 2, 1500*time.Millisecond, "ninebytes"
	_, err := RunVRRP(t.Context(), bad)
	if !errors.Is(err, ErrConfig) {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"no interface", "vrid 0", "priority 2", "1.5s", "9 bytes", "one family", "not an address"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %q in: %v", want, err)
		}
	}
	for name, c := range map[string]VRRPConfig{"version 4": vrrpConfig(4, "192.0.2.1"), "no address": vrrpConfig(3), "version 2 of IPv6": vrrpConfig(2, "2001:db8::1")} {
		if _, err := RunVRRP(t.Context(), c); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTimesAreJudgedByWhatTheyShouldBe(t *testing.T) {
	const theory = 399600 * time.Microsecond
	for took, want := range map[time.Duration]string{
		theory: onTime, theory - time.Millisecond: onTime, theory + 8*time.Millisecond: onTime, theory + 20*time.Millisecond: "late",
		390500 * time.Microsecond: wholeCentiseconds, 389 * time.Millisecond: wholeCentiseconds, 380 * time.Millisecond: "early",
	} {
		if got := punctual(took, theory); got != want {
			t.Errorf("%v against %v: %q, want %q", took, theory, got, want)
		}
	}
}

func TestSkewAndMasterDownTimesAreThoseOfTheVersion(t *testing.T) {
	for _, tc := range []struct {
		version    uint8
		priority   uint8
		interval   time.Duration
		skew, down time.Duration
	}{
		{3, 100, 10 * time.Millisecond, 6093750, 36093750},
		{3, 254, 10 * time.Millisecond, 78125, 30078125},
		{3, 100, time.Second, 609375 * time.Microsecond, 3609375 * time.Microsecond},
		{2, 100, 5 * time.Second, 609375 * time.Microsecond, 15609375 * time.Microsecond},
	} {
		c := VRRPConfig{Version: tc.version, Priority: tc.priority}
		if skew, down := c.skew(tc.interval), c.down(tc.interval); skew != tc.skew || down != tc.down {
			t.Errorf("%+v: %v and %v", tc, skew, down)
		}
	}
}

// noConn refuses to send.
type noConn struct{}

func (noConn) Control(func(uintptr)) error    { return net.ErrClosed }
func (noConn) Read(func(uintptr) bool) error  { return net.ErrClosed }
func (noConn) Write(func(uintptr) bool) error { return net.ErrClosed }

// vrrpBench makes a tester that sends nothing: what it would send is looked at.
func vrrpBench(t *testing.T, c VRRPConfig) *vrrpTester {
	t.Helper()
	w := &wire{raw: noConn{}, mac: net.HardwareAddr{2, 0, 0, 0, 0, 2}, own: netip.MustParseAddr("10.77.0.20"), own6: netip.MustParseAddr("fe80::20")}
	x := newVRRPTester(t.Context(), c, w)
	x.speaker, x.mac, x.peer = netip.MustParseAddr("10.77.0.10"), net.HardwareAddr{2, 0, 0, 0, 0, 1}, w.own
	if x.six() {
		x.speaker, x.peer = netip.MustParseAddr("fe80::10"), w.own6
	}
	x.above, x.below = x.speaker.Next(), x.speaker.Prev()
	return x
}

// The packets that are sent must be what the rows say: each differs from a good
// advert in its one thing, and the good one is good.
func TestEachVRRPVariantIsWrongInItsOneThing(t *testing.T) {
	for _, c := range []VRRPConfig{
		vrrpConfig(2, "10.77.0.50", "10.77.0.51"), vrrpConfig(3, "10.77.0.50", "10.77.0.51"), vrrpConfig(3, "fe80::9", "2001:db8::50"),
	} {
		if c.Version == 2 {
			c.Password = "s3cret"
		}
		x := vrrpBench(t, c)
		good := x.advert(x.peer, 254).frame()
		s := x.log.read(good)
		if s == nil || s.kind != advert || s.vrrp.sum == decode.SumWrong || s.ttl != 255 || x.list(s.vrrp) != "as configured" ||
			s.vrrp.priority != 254 || s.vrrp.interval != c.Interval || s.vrrp.version != c.Version || s.vrrp.trailing != 0 {
			t.Fatalf("the good advert is not good: %+v", s)
		}
		if c.Version == 2 && x.authentication(s) != "as configured" {
			t.Errorf("authentication: %s", x.authentication(s))
		}
		all := x.refused()
		for _, m := range x.differing() {
			all = append(all, vrrpVariant(m))
		}
		for _, v := range all {
			p := x.advert(x.peer, 254)
			v.change(p)
			frame := p.frame()
			if bytes.Equal(frame, good) {
				t.Errorf("%s is a good advert", v.id)
			}
			checkVariant(t, x, v.id, x.log.read(frame))
		}
		for _, v := range x.odd() {
			p := x.advert(x.peer, 0)
			v.change(p)
			if s := x.log.read(p.frame()); s == nil || s.vrrp == nil || s.vrrp.sum == decode.SumWrong || s.vrrp.priority != 0 {
				t.Errorf("%s: read as %+v", v.id, s)
			}
		}
		for _, frame := range x.badFrames() {
			if s := x.log.read(frame); s != nil && s.vrrp != nil && s.vrrp.sum != decode.SumWrong && s.ttl == 255 {
				t.Errorf("the junk has a good advert: %x", frame)
			}
		}
	}
}

// checkVariant looks at a packet with what reads the speaker's.
func checkVariant(t *testing.T, x *vrrpTester, id string, s *sighting) {
	t.Helper()
	unread := slices.Contains([]string{"R-HEADER", "R-SHORT", "R-COUNT", "R-VRID", "R-VRID0", "R-VERSION", "R-IPSUM"}, id)
	if (s == nil) != unread {
		t.Errorf("%s: read as %+v", id, s)
	}
	if s == nil {
		return
	}
	if wrong := s.vrrp.sum == decode.SumWrong; wrong != (id == "R-CHECKSUM") {
		t.Errorf("%s: the checksum is wrong: %v", id, wrong)
	}
	is := map[string]bool{
		"R-TTL": s.ttl == 254, "R-TYPE": s.vrrp.kind == 2, "R-LONG": s.vrrp.trailing == 4, "R-COUNT0": s.vrrp.count == 0, "R-INTERVAL0": s.vrrp.interval == 0,
		"R-FOREIGN": x.list(s.vrrp) != "as configured" && len(s.vrrp.addrs) == 2, "R-UNICAST": s.dst == x.speaker, "R-OTHERGROUP": s.dst.IsMulticast() && s.dst != group4 && s.dst != group6,
		"X-MORE": s.vrrp.count == 3, "X-FEWER": s.vrrp.count == 1, "X-VERSION": s.vrrp.version == 5-x.cfg.Version, "X-INTERVAL": s.vrrp.interval > 2*time.Second,
		"X-PASSWORD": s.vrrp.authType == 1 && s.vrrp.auth != [8]byte{'s', '3', 'c', 'r', 'e', 't'}, "X-AUTHTYPE": s.vrrp.authType == 2, "X-AH": s.vrrp.authType == 2, "R-CHECKSUM": true,
	}
	if ok, known := is[id]; !ok || !known {
		t.Errorf("%s is not what it says, or unknown here: %+v of %+v", id, s.vrrp, s)
	}
}

// What is passed over names the rows of all versions and families.
func TestASpeakerThatAnnouncesNothingOrNeverIsBackupHasAReport(t *testing.T) {
	for _, c := range []VRRPConfig{vrrpConfig(2, "10.77.0.50"), vrrpConfig(3, "10.77.0.50"), vrrpConfig(3, "fe80::9", "2001:db8::50")} {
		x := vrrpBench(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nothing is waited for
		x.ctx = ctx
		x.announcements(0, &sighting{at: now()})
		x.takeover()
		x.zero()
		x.acceptances()
		x.mismatches()
		if err := x.restarts(); err != nil {
			t.Error(err)
		}
		if row := x.rows["G-ALL"]; row.Verdict != Differs && row.Verdict != NotTested || len(x.results()) != len(x.rules) {
			t.Errorf("%+v of %d rows", row, len(x.results()))
		}
	}
}

// obstinate is a speaker that does nothing but send adverts, and those badly.
func obstinate(ctx context.Context, x *vrrpTester) {
	tick := time.NewTicker(170 * time.Millisecond)
	defer tick.Stop()
	for {
		p := x.advert(netip.MustParseAddr("10.77.0.10"), 7)
		p.ttl, p.reserved, p.tos, p.kind = 64, 5, 0x10, 3
		slices.Reverse(p.addrs)
		x.transmit(p.frame())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// A tool that finds no fault in anything is worth nothing.
func TestABadSpeakerOfVRRPIsFoundOut(t *testing.T) {
	t.Parallel()
	lan := lab.New(t)
	speaker, tester := lan.Host("speaker", "10.77.0.10/24"), lan.Host("tester", "10.77.0.20/24")
	c := vrrpConfig(3, "10.77.0.50", "10.77.0.51")
	c.Interval = 100 * time.Millisecond
	var w *wire
	if err := speaker.DoErr(func() (err error) { w, err = open("eth0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer w.close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); obstinate(ctx, newVRRPTester(ctx, c, w)) }()
	defer func() { cancel(); <-ended }()

	var r Report
	if err := tester.DoErr(func() (err error) { r, err = RunVRRP(t.Context(), c); return err }); err != nil {
		t.Fatal(err)
	}
	contrary := r.Contrary()
	for _, id := range []string{"A-VERSION", "A-PRIORITY", "A-RESERVED", "A-TTL", "N-MASTER", "M-HIGHER"} {
		if !slices.Contains(contrary, id) {
			t.Errorf("%s is not contrary to a must: %+v", id, r.Row(id))
		}
	}
	for id, verdict := range map[string]Verdict{"A-LIST": Differs, "A-TOS": Differs, "A-SRCMAC": AsRFC, "R-TTL": NotTested, "S-ZERO": NotTested, "O-START": NotTested} {
		if row := r.Row(id); row.Verdict != verdict {
			t.Errorf("%s: %+v, want %s", id, row, verdict)
		}
	}
	if text := r.Table(); !strings.Contains(text, "vrrp3 vrid 9, priority 100, interval 100ms") || !strings.Contains(text, "as RFC") {
		t.Errorf("the report says not what it is of:\n%s", text)
	}
}

func TestSilenceOfAVRRPSpeakerIsAnError(t *testing.T) {
	t.Parallel()
	tester := lab.New(t).Host("tester", "10.77.0.20/24")
	c := vrrpConfig(3, "10.77.0.50")
	c.Interval = 50 * time.Millisecond
	if err := tester.DoErr(func() error { _, err := RunVRRP(t.Context(), c); return err }); !errors.Is(err, ErrSilent) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestTheManualListsTheVRRPRowsThatAreAMust(t *testing.T) {
	text, err := os.ReadFile("../../docs/conformance/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "## The rows of VRRP that are a must")
	list, _, _ = strings.Cut(list, "\n## ")
	listed := regexp.MustCompile(`[A-Z]-[A-Z0-9-]+[A-Z0-9]`).FindAllString(list, -1)
	must := map[string]bool{}
	for _, rules := range kinds() {
		for _, r := range rules {
			must[r.id] = must[r.id] || r.must != nil
		}
	}
	for id, is := range must {
		if slices.Contains(listed, id) != is {
			t.Errorf("%s: a must: %v, listed as one: %v", id, is, !is)
		}
	}
	for _, id := range listed {
		if _, ok := must[id]; !ok {
			t.Errorf("%s is listed, and is no row", id)
		}
	}
}

// Nothing that is heard may make the reader panic.
func FuzzVRRPRecord(f *testing.F) {
	x := &vrrpTester{cfg: vrrpConfig(3, "10.77.0.50")}
	f.Add((&vrrpPacket{
		from: groupMAC4, to: groupMAC4, src: x.cfg.Addresses[0], dst: group4, ttl: 255, version: 3, kind: 1, vrid: 9, interval: time.Second, addrs: x.cfg.Addresses,
	}).frame())
	f.Add((&vrrpPacket{
		from: groupMAC6, to: groupMAC6, src: group6, dst: group6, ttl: 255, version: 3, kind: 1, vrid: 9, interval: time.Second, addrs: []netip.Addr{group6},
	}).frame())
	f.Add((&vrrpPacket{
		from: groupMAC4, to: groupMAC4, src: x.cfg.Addresses[0], dst: group4, ttl: 255, version: 2, kind: 1, vrid: 9, interval: time.Second, addrs: x.cfg.Addresses, ah: true,
	}).frame())
	f.Fuzz(func(_ *testing.T, frame []byte) {
		r := &record{vhid: 9, vrrp: true, addrs: x.cfg.Addresses, tester: net.HardwareAddr{2, 0, 0, 0, 0, 2}, more: make(chan struct{})}
		r.add(time.Now(), frame)
		for _, s := range r.all {
			if s.kind == neighbour {
				flags(s)
			}
			if s.kind != advert {
				_ = s.answer().String()
			}
		}
	})
}
