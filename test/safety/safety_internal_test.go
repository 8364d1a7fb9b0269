package safety

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSamplesStandForTheTimeUntilTheNext(t *testing.T) {
	const both, a, b = 0b11, 0b01, 0b10
	for name, c := range map[string]struct {
		samples  []sample
		from, to int64
		want     held
	}{
		"one holder":                        {[]sample{{0, a}, {5, a}, {10, a}}, 0, 15, held{gap: 5}},
		"nothing was asked":                 {nil, 0, 15, held{gap: 15}},
		"nobody from the second on":         {[]sample{{0, a}, {5, 0}, {10, 0}}, 0, 15, held{none: 10, stillNo: true, gap: 5}},
		"nobody for a while":                {[]sample{{0, a}, {5, 0}, {10, b}}, 0, 15, held{none: 5, gap: 5}},
		"two for a while":                   {[]sample{{0, a}, {5, both}, {9, both}, {12, b}}, 0, 15, held{two: 7, gap: 5}},
		"two to the end":                    {[]sample{{0, a}, {5, both}}, 0, 15, held{two: 10, stillTwo: true, gap: 10}},
		"three are two":                     {[]sample{{0, 0b111}, {5, a}}, 0, 10, held{two: 5, gap: 5}},
		"the first and the third":           {[]sample{{0, 0b101}, {5, a}}, 0, 10, held{two: 5, gap: 5}},
		"before the beginning":              {[]sample{{0, both}, {5, both}, {10, a}}, 7, 15, held{two: 3, gap: 5}},
		"after the end":                     {[]sample{{0, a}, {5, a}, {10, both}, {15, 0}}, 0, 10, held{gap: 5}},
		"cut at the end":                    {[]sample{{0, a}, {5, both}, {10, a}}, 0, 7, held{two: 2, stillTwo: true, gap: 5}},
		"a hole counts as what was before":  {[]sample{{0, a}, {5, 0}, {40, a}}, 0, 45, held{none: 35, gap: 35}},
		"the first one came late":           {[]sample{{9, a}, {12, a}}, 0, 15, held{gap: 9}},
		"a span before all samples":         {[]sample{{9, both}}, 0, 5, held{gap: 5}},
		"one sample that began long before": {[]sample{{0, both}}, 100, 110, held{two: 10, stillTwo: true, gap: 10}},
	} {
		if got := hold(c.samples, c.from, c.to); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestOfSeveralAddressesTheWorstCounts(t *testing.T) {
	got := worst([]held{{two: 3, none: 9, stillNo: true, gap: 1}, {two: 5, none: 2, stillTwo: true, gap: 4}})
	if want := (held{two: 5, none: 9, stillTwo: true, stillNo: true, gap: 4}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestOutageIsTheLongestTimeWithoutAnAnswer(t *testing.T) {
	const second = int64(time.Second)
	for name, c := range map[string]struct {
		answers  []int64
		from, to int64
		want     time.Duration
		open     bool
	}{
		"in the middle":          {[]int64{1, 2, 9, 10, 14}, 0, 15, 7, false},
		"only within the span":   {[]int64{1, 2, 9, 10, 14}, 9, 15, 4, false},
		"the last one is short":  {[]int64{5, 9}, 0, 15, 6, false},
		"never an answer":        {nil, 0, 10 * second, 10 * time.Second, true},
		"no answer at the end":   {[]int64{second}, 0, 10 * second, 9 * time.Second, true},
		"one came back":          {[]int64{second, 9 * second}, 0, 9*second + 1, 8 * time.Second, false},
		"the answers come later": {[]int64{20 * second}, 0, 10 * second, 10 * time.Second, true},
	} {
		if got, open := outage(c.answers, c.from, c.to); got != c.want || open != c.open {
			t.Errorf("%s: %v, open %v; want %v, %v", name, got, open, c.want, c.open)
		}
	}
}

func TestATakeoverIsWrongOnlyFromAMasterThatWasWell(t *testing.T) {
	const quiet = 4 * time.Second
	s := func(n float64) int64 { return int64((100 + n) * 1e9) }
	every := func(node int, from, to float64) (all []advert) {
		for at := from; at < to; at++ {
			all = append(all, advert{at: s(at), node: node})
		}
		return all
	}
	join := func(parts ...[]advert) []advert {
		all := slices.Concat(parts...)
		slices.SortStableFunc(all, func(a, b advert) int { return int(a.at - b.at) })
		return all
	}
	type found struct {
		node  int
		wrong bool
	}
	for name, c := range map[string]struct {
		adverts []advert
		harms   []harm
		want    []found
	}{
		"one master": {every(0, 0, 20), nil, []found{{0, false}}},
		"it is killed": {
			join(every(0, 0, 5), every(1, 8, 20)), []harm{{0, s(5), 0}}, []found{{0, false}, {1, false}}},
		"it is well, and silent or not heard": {
			join(every(0, 0, 5), every(1, 8, 20)), nil, []found{{0, false}, {1, true}}},
		"it is well and advertises": {
			join(every(0, 0, 20), every(1, 8, 9)), nil, []found{{0, false}, {1, true}}},
		"it leaves": {
			join(every(0, 0, 5), []advert{{s(5), 0, true}}, every(1, 5, 20)), nil, []found{{0, false}, {1, false}}},
		"it is frozen and comes back": {
			join(every(0, 0, 5), every(1, 8, 15), every(0, 15, 20)), []harm{{0, s(5), s(15)}}, []found{{0, false}, {1, false}, {0, false}}},
		"it comes back, and the backup takes over again": {
			join(every(0, 0, 5), every(1, 8, 15), every(0, 15, 30), every(1, 28, 30)), []harm{{0, s(5), s(15)}},
			[]found{{0, false}, {1, false}, {0, false}, {1, true}}},
		"it was mended a moment ago": {
			join(every(0, 0, 5), every(0, 7, 20), every(1, 8, 9)), []harm{{0, s(5), s(7)}}, []found{{0, false}, {1, false}}},
		"the third takes over beside the second": {
			join(every(0, 0, 5), every(1, 8, 20), every(2, 9, 20)), []harm{{0, s(5), 0}}, []found{{0, false}, {1, false}, {2, true}}},
		"the third takes over because the second is cut off": {
			join(every(0, 0, 5), every(2, 9, 20)), []harm{{0, s(5), 0}, {1, s(5), 0}}, []found{{0, false}, {2, false}}},
		"the second was master before the first came": {
			join(every(1, 0, 3), every(0, 3, 8), every(2, 12, 20)), []harm{{0, s(8), 0}}, []found{{1, false}, {0, false}, {2, false}}},
		"the backup cannot hear": {
			join(every(0, 0, 20), every(1, 8, 20)), []harm{{1, s(5), 0}}, []found{{0, false}, {1, false}}},
	} {
		var got []found
		for _, o := range takeovers(c.adverts, c.harms, quiet) {
			got = append(got, found{o.node, o.wrong})
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestSpreadTakesTheLeastValueThatCoversItsShare(t *testing.T) {
	var values []float64
	for i := 40; i > 0; i-- {
		values = append(values, float64(i))
	}
	if got, want := spread(values), (Spread{20, 38, 40}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := spread([]float64{7}), (Spread{7, 7, 7}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if got := spread(nil); got != (Spread{}) || got.String() != "0" {
		t.Errorf("of nothing: %v", got)
	}
	if got := (Spread{0.04, 9.94, 1234.5}).String(); got != "0.0 / 9.9 / 1234" {
		t.Error(got)
	}
}

func TestAnswersAndAdvertsAreReadFromFrames(t *testing.T) {
	asker := askerMAC(63)
	reply := question(hostMAC(2), shared(1)[0], observerAddr())
	reply[21] = 2
	copy(reply[32:], asker[:])
	addr, number, node, ok := answerOf(reply)
	if !ok || addr != shared(1)[0] || number != 63 || node != 1 {
		t.Errorf("%v, number %d, node %d, %v", addr, number, node, ok)
	}
	if _, _, _, ok := answerOf(question(hostMAC(2), shared(1)[0], observerAddr())); ok {
		t.Error("a question is taken for an answer")
	}
	if n, ok := numberOf(hostMAC(2)); ok {
		t.Errorf("an answer to somebody else is one to question %d", n)
	}
	frame := func(node int, pdu ...byte) []byte {
		f := append(make([]byte, 12), 8, 0, 0x45)
		f = append(f, make([]byte, 19)...)
		f[14+9] = 112
		from := nodeAddr(node).As4()
		copy(f[14+12:], from[:])
		return append(f, append(pdu, make([]byte, 28)...)...)
	}
	for name, c := range map[string]struct {
		frame []byte
		want  advert
		ok    bool
	}{
		"CARP":                 {frame(0, 0x21, 1, 0, 7), advert{node: 0}, true},
		"CARP says goodbye":    {frame(1, 0x21, 1, 255, 7), advert{node: 1, last: true}, true},
		"CARP, another type":   {frame(1, 0x22, 1, 255, 7), advert{}, false},
		"VRRP":                 {frame(2, 0x31, 1, 255, 1), advert{node: 2}, true},
		"VRRP says goodbye":    {frame(2, 0x31, 1, 0, 1), advert{node: 2, last: true}, true},
		"of nobody we know":    {frame(77, 0x31, 1, 0, 1), advert{}, false},
		"cut short":            {frame(0)[:40], advert{}, false},
		"another IP protocol":  {append(make([]byte, 12), 8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 255, 17, 0, 0, 10, 9, 0, 1), advert{}, false},
		"another Ethernet one": {append(make([]byte, 12), 0x86, 0xdd), advert{}, false},
	} {
		if got, ok := advertOf(c.frame); ok != c.ok || ok && got != c.want {
			t.Errorf("%s: %+v, %v; want %+v, %v", name, got, ok, c.want, c.ok)
		}
	}
}

func TestTheTableIsPutBetweenItsMarkers(t *testing.T) {
	page := "before\n" + Marked("old") + "after\n"
	got, err := Replace(page, "new")
	if err != nil || got != "before\n"+Marked("new")+"after\n" {
		t.Errorf("%v, %q", err, got)
	}
	for _, bad := range []string{"", beginMark, endMark + beginMark, page + page} {
		if got, err := Replace(bad, "new"); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

func TestReportSumsUpTheRunsOfARow(t *testing.T) {
	r := Report{
		Rows:    []string{"kill"},
		Daemons: []Named{{Name: "a", Title: "A", Interval: time.Second}, {Name: "b", Title: "B", Interval: time.Second, Cannot: map[string]string{"kill": "it cannot"}}, {Name: "c", Title: "C", Only: []string{"freeze"}}},
		Runs: []Run{
			{Daemon: "a", Row: "kill", Two: 4, None: 100, Outage: 120, Healed: -1, False: 2, Gap: 4.5},
			{Daemon: "a", Row: "kill", Two: 0, None: 200, Outage: 220, Healed: -1, OutageOpen: true, Gap: 6, Late: true},
			{Daemon: "a", Row: "kill", Two: 9999, Error: "it did not start"},
			{Daemon: "a", Row: "freeze", Two: 9999},
		},
	}
	c := r.Cell("kill", "a")
	if c.Runs != 2 || c.Failed != 1 || c.TwoRuns != 1 || c.False != 2 || c.OutageOpen != 1 || c.Mends || c.None != (Spread{100, 200, 200}) {
		t.Errorf("%+v", c)
	}
	if r.Failed() != 1 {
		t.Errorf("%d runs failed", r.Failed())
	}
	text := r.Markdown()
	for _, want := range []string{
		"| kill -9 | A, 1s | 2 (1 failed) (1 late) | 0 / 4.0 / 4.0 | 100 / 200 / 200 | 120 / 220 / 220 (1 without end) |  | 2 | 6.0 |",
		"|  | B, 1s | n/a: it cannot |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "C, 0s |") {
		t.Errorf("a daemon that does not take part is in\n%s", text)
	}
	var b strings.Builder
	var again Report
	if err := r.WriteJSON(&b); err != nil || json.Unmarshal([]byte(b.String()), &again) != nil || len(again.Runs) != 4 {
		t.Errorf("%v\n%s", err, b.String())
	}
}
