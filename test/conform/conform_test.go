package conform

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"encoding/xml"
	"errors"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carpd/carpd/test/decode"
	"github.com/carpd/carpd/test/lab"
)

func TestAnOutcomeIsJudgedByTheRulesOfItsRow(t *testing.T) {
	r := rule{id: "X", done: "x", standard: "yields", ours: "stays", must: []string{"yields", "stays"}, cite: "somewhere"}
	for _, tc := range []struct {
		outcome  string
		verdict  Verdict
		contrary bool
	}{
		{"yields", AsFreeBSD, false}, {"stays", AsOurs, false}, {"explodes", Differs, true}, {"", NotTested, false},
	} {
		if row := r.judge(AsFreeBSD, tc.outcome, "seen"); row.Verdict != tc.verdict || row.Contrary != tc.contrary || row.Seen != "seen" {
			t.Errorf("%q: %+v", tc.outcome, row)
		}
	}
	r.must = nil
	if row := r.judge(AsFreeBSD, "explodes", ""); row.Contrary || row.Must {
		t.Errorf("a row without a must is contrary to it: %+v", row)
	}
}

func TestRowsHaveDistinctIDsAndTheirRulesForetellWhatTheyDemand(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rules() {
		if seen[r.id] || r.id == "" || r.done == "" || r.cite == "" || r.standard == "" || r.ours == "" {
			t.Errorf("%q: twice, or without a part: %+v", r.id, r)
		}
		seen[r.id] = true
		for _, outcome := range []string{r.standard, r.ours} {
			if r.must != nil && !slices.Contains(r.must, outcome) {
				t.Errorf("%s: %q is foretold and contrary to what it must be", r.id, outcome)
			}
		}
	}
}

// Each id that the code writes down must be that of a rule, and each rule's be
// written down somewhere.
func TestEveryRuleIsTriedAndEveryRowHasARule(t *testing.T) {
	var text []byte
	for _, file := range []string{"adverts.go", "roles.go", "contests.go"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, b...)
	}
	tried := map[string]bool{}
	for _, m := range regexp.MustCompile(`"([A-Z]-[A-Z0-9-]+)"`).FindAllSubmatch(text, -1) {
		tried[string(m[1])] = true
	}
	for _, r := range rules() {
		if !tried[r.id] {
			t.Errorf("%s is never tried", r.id)
		}
		delete(tried, r.id)
	}
	for id := range tried {
		t.Errorf("%s has no rule", id)
	}
}

func TestBadConfigurationsAreRefusedWithAllFaults(t *testing.T) {
	_, err := Run(t.Context(), Config{Key: make([]byte, 21), Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("224.0.0.1")}})
	if !errors.Is(err, ErrConfig) {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"no interface", "vhid 0", "21 bytes", "advskew 0", "not an address"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %q in: %v", want, err)
		}
	}
}

func TestCountersAreToldApart(t *testing.T) {
	begin := time.Unix(1_700_000_000, 0)
	sightings := func(of ...uint64) (all []*sighting) {
		for i, c := range of {
			all = append(all, &sighting{at: begin.Add(time.Duration(i) * time.Second), carp: &decode.CARP{AdvBase: 1, AdvSkew: 100, Counter: c}})
		}
		return all
	}
	const clock = 0x329a4f8f20_000164
	for want, all := range map[string][]*sighting{
		"constant":    sightings(7, 7, 7),
		"plus 1 each": sightings(7, 8, 9),
		"random":      sightings(0x3f573f53025704d8, 0x423ce606c3a58417, 0xf636e9749e467c29),
		"group clock": sightings(clock, clock+1000<<24, clock+2001<<24),
	} {
		if got := counters(all); got != want {
			t.Errorf("%s was taken for %s", want, got)
		}
	}
	if got := counters(sightings(clock, clock+9000<<24)); got == "group clock" {
		t.Error("a clock that runs nine times too fast was taken for the group clock")
	}
}

func TestReportsSayTheSameInEachForm(t *testing.T) {
	r := Report{Protocol: "carp", Interface: "eth0", VHID: 9, AdvBase: 1, AdvSkew: 100, Speaker: "192.0.2.1", Notes: []string{"a note"}}
	for i, outcome := range []string{"2, type 1", "3, type 1", ""} {
		row := rules()[0].judge(AsFreeBSD, outcome, "seen <"+outcome+">")
		row.ID = []string{"A-GOOD", "A-BAD", "A-NOT"}[i]
		r.Rows = append(r.Rows, row)
	}
	if got := r.Contrary(); !slices.Equal(got, []string{"A-BAD"}) {
		t.Errorf("contrary: %v", got)
	}
	if table := r.Table(); !strings.Contains(table, "contrary to a must: A-BAD") || !strings.Contains(table, "CONTRARY TO A MUST") || !strings.Contains(table, "a note") {
		t.Errorf("table:\n%s", table)
	}
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var again Report
	if err := json.Unmarshal(b.Bytes(), &again); err != nil || !slices.Equal(again.Rows, r.Rows) {
		t.Errorf("JSON read back: %+v, %v", again, err)
	}
	b.Reset()
	if err := r.WriteJUnit(&b); err != nil {
		t.Fatal(err)
	}
	var suite junitSuite
	if err := xml.Unmarshal(b.Bytes(), &suite); err != nil {
		t.Fatal(err)
	}
	if suite.Tests != 3 || suite.Failures != 1 || suite.Skipped != 1 || suite.Cases[1].Failure == nil || suite.Cases[2].Skipped == nil {
		t.Errorf("JUnit: %+v\n%s", suite, b.String())
	}
}

// TestHearingNeverPanics feeds the record what anybody might send.
func FuzzHearingNeverPanics(f *testing.F) {
	text, err := os.ReadFile("../../carp/testdata/vectors/bsd-netbsd-takeover-arp.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^ *\d+ (?:[\d.]+ )?([0-9a-f]{60,})$`).FindAllSubmatch(text, -1) {
		frame := make([]byte, len(m[1])/2)
		for i := range frame {
			frame[i] = unhex(m[1][2*i])<<4 | unhex(m[1][2*i+1])
		}
		f.Add(frame)
	}
	f.Fuzz(func(_ *testing.T, frame []byte) {
		r := &record{vhid: 1, addrs: []netip.Addr{netip.MustParseAddr("10.0.0.100")}, tester: net.HardwareAddr{2, 0, 0, 0, 0, 1}, more: make(chan struct{})}
		r.add(time.Now(), frame)
		for _, s := range r.all {
			if s.kind == announced {
				form(s)
			}
		}
	})
}

func unhex(c byte) byte { return byte(strings.IndexByte("0123456789abcdef", c)) }

// stubborn is a speaker that does nothing but send adverts, and those badly.
func stubborn(ctx context.Context, w *wire, c Config) {
	t := newTester(ctx, c, w)
	tick := time.NewTicker(1700 * time.Millisecond)
	defer tick.Stop()
	for {
		p := t.advert(netip.MustParseAddr("10.77.0.10"), 1, 7)
		p.ip.TTL = 64
		p.carp.Pad, p.carp.AuthLen, p.ip.TOS = 3, 9, 0xc0
		t.transmit(t.frame(p))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// A tool that finds no fault in anything is worth nothing.
func TestABadSpeakerIsFoundOut(t *testing.T) {
	t.Parallel()
	lan := lab.New(t)
	speaker, tester := lan.Host("speaker", "10.77.0.10/24"), lan.Host("tester", "10.77.0.20/24")
	c := Config{Interface: "eth0", VHID: 9, Key: []byte("k"), Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.50")}, AdvSkew: 100, Quick: true}
	var w *wire
	if err := speaker.DoErr(func() (err error) { w, err = open("eth0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer w.close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); stubborn(ctx, w, c) }()
	defer func() { cancel(); <-ended }()

	var r Report
	if err := tester.DoErr(func() (err error) { r, err = Run(t.Context(), c); return err }); err != nil {
		t.Fatal(err)
	}
	want := []string{"A-TIMING", "A-TTL", "A-SPACING", "N-MASTER", "M-YIELD"}
	if got := r.Contrary(); !slices.Equal(got, want) {
		t.Errorf("contrary: %v, want %v\n%s", got, want, r.Table())
	}
	for id, seen := range map[string]string{"A-PAD": "3", "A-AUTHLEN": "9", "A-TOS": "0xc0", "A-TTL": "64"} {
		if row := r.Row(id); row.Verdict != Differs || !strings.HasPrefix(row.Seen, seen) {
			t.Errorf("%s: %+v, want %s seen", id, row, seen)
		}
	}
	if row := r.Row("R-TTL"); row.Verdict != NotTested {
		t.Errorf("R-TTL of a speaker that never is backup: %+v", row)
	}
}

func TestSilenceAndAnotherKeyAreErrorsThatSaySo(t *testing.T) {
	t.Parallel()
	lan := lab.New(t)
	speaker, tester := lan.Host("speaker", "10.77.0.10/24"), lan.Host("tester", "10.77.0.20/24")
	c := Config{Interface: "eth0", VHID: 9, Key: []byte("k"), Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.50")}, AdvSkew: 100}
	run := func(ctx context.Context) error {
		return tester.DoErr(func() error { _, err := Run(ctx, c); return err })
	}
	if err := run(t.Context()); !errors.Is(err, ErrSilent) {
		t.Errorf("nobody there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	var w *wire
	if err := speaker.DoErr(func() (err error) { w, err = open("eth0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer w.close()
	other := c
	other.Key = []byte("another")
	ctx, cancel = context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); stubborn(ctx, w, other) }()
	defer func() { cancel(); <-ended }()
	if err := run(t.Context()); !errors.Is(err, ErrHash) {
		t.Errorf("another key: %v", err)
	}
}

// The packets that are sent must be what the rows say: each variant differs from
// a good advert in its one thing, and the good one is good.
func TestEachVariantIsWrongInItsOneThing(t *testing.T) {
	lan := lab.New(t)
	host := lan.Host("tester", "10.77.0.20/24")
	c := Config{Interface: "eth0", VHID: 9, Key: []byte("k"), Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.50")}, AdvSkew: 100}
	var w *wire
	if err := host.DoErr(func() (err error) { w, err = open("eth0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer w.close()
	x := newTester(t.Context(), c, w)
	x.speaker, x.peer, x.mac = netip.MustParseAddr("10.77.0.10"), w.own, net.HardwareAddr{2, 0, 0, 0, 0, 9}
	for _, v := range append(x.variants(), variant{"", func(*packet) {}}) {
		good, p := x.advert(x.peer, 4, 0), x.advert(x.peer, 4, 0)
		p.carp.Counter = good.carp.Counter
		v.change(p)
		a, b := x.frame(good), x.frame(p)
		if s := x.captured(a); s == nil || s.kind != advert || s.carp.Sum() != decode.SumPlain || s.ttl != 255 || !s.df {
			t.Fatalf("the good advert is not good: %+v", s)
		}
		if same := bytes.Equal(a, b); same != (v.id == "") {
			t.Errorf("%q: the same bytes as a good advert: %v", v.id, same)
		}
		s := x.captured(b)
		refusedBySelf := map[string]bool{"R-IPSUM": true, "R-VHID": true, "R-VHID0": true, "R-SHORT": true}[v.id]
		if (s == nil) != refusedBySelf {
			t.Errorf("%s: read as %+v", v.id, s)
		}
		if s != nil && (s.kind == forged) != (v.id == "R-HMAC" || v.id == "R-ADDRESS" || v.id == "R-KEY") {
			t.Errorf("%s: kind %d", v.id, s.kind)
		}
		if v.id == "R-SHORT" && binary.BigEndian.Uint16(b[16:]) != 55 {
			t.Errorf("R-SHORT has the IP length %d", binary.BigEndian.Uint16(b[16:]))
		}
	}
	for _, frame := range x.junk() {
		if s := x.captured(frame); s != nil && s.kind == advert {
			t.Errorf("the flood has an authentic advert: %x", frame)
		}
	}
}

func TestTheManualListsTheRowsThatAreAMust(t *testing.T) {
	text, err := os.ReadFile("../../docs/conformance/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "## The rows of CARP that are a must")
	list, _, _ = strings.Cut(list, "\n## ")
	listed := regexp.MustCompile(`[A-Z]-[A-Z0-9-]+[A-Z0-9]`).FindAllString(list, -1)
	for _, r := range rules() {
		if slices.Contains(listed, r.id) != (r.must != nil) {
			t.Errorf("%s: a must: %v, listed as one: %v", r.id, r.must != nil, !(r.must != nil))
		}
	}
	for _, id := range listed {
		if !slices.ContainsFunc(rules(), func(r rule) bool { return r.id == id }) {
			t.Errorf("%s is listed, and is no row", id)
		}
	}
}
