package hast

import (
	"strings"
	"testing"
	"time"
)

func TestRecordKnowsWhetherACopyIsWhole(t *testing.T) {
	mine := func(role string, worker int) Status { return Status{Role: role, Worker: worker} }
	says := func(role, status string, dirty int64) *other {
		return &other{Status: Status{Role: role, Status: status, Dirty: dirty, Counted: true}}
	}
	type look struct {
		after time.Duration // after the look before
		mine  Status
		peer  *other
		split bool
		want  bool // wished for at this time: nobody else answers
	}
	connected := look{0, mine(Secondary, 7), says(Primary, "complete", 0), false, false}
	gone := look{5 * time.Second, mine(Secondary, 0), nil, false, false}
	for _, tc := range []struct {
		name  string
		looks []look
		want  string // a part of why not; "": it is whole
	}{
		{"nothing was ever seen", nil, "nobody has said"},
		{"connected and nothing dirty", []look{connected}, ""},
		{"it writes on: dirty for a moment within one connection", []look{connected, {time.Second, mine(Secondary, 7), says(Primary, "complete", 4096), false, false}}, ""},
		{"dirty from the start: it is being completed", []look{{0, mine(Secondary, 7), says(Primary, "complete", 4096), false, false}}, "4096 bytes"},
		{"a new connection begins with what was missed", []look{connected, {time.Second, mine(Secondary, 8), says(Primary, "complete", 4096), false, false}}, "4096 bytes"},
		{"and when nobody can be asked that is not known", []look{connected, {time.Second, mine(Secondary, 8), nil, false, false}}, "connected anew"},
		{"the other node crashed", []look{connected, gone, {0, mine(Secondary, 0), nil, false, true}}, ""},
		{"tried again much later, after the same crash", []look{connected, gone, {0, mine(Secondary, 0), nil, false, true}, {time.Hour, mine(Secondary, 0), nil, false, true}}, ""},
		{"the connection was lost long before the other node fell silent", []look{connected, gone, {time.Hour, mine(Secondary, 0), nil, false, true}}, "1h0m"},
		{"the other node writes alone", []look{connected, {0, mine(Secondary, 0), says(Primary, "degraded", 4096), false, false}}, "writes alone"},
		{"the other node says complete, and this one knows of no connection", []look{connected, {0, mine(Secondary, 0), says(Primary, "complete", 0), false, false}}, "writes alone"},
		{"the other node let go", []look{connected, {0, mine(Secondary, 0), says(Secondary, "", 0), false, true}}, ""},
		{"an older hastctl does not count", []look{{0, mine(Secondary, 7), &other{Status: Status{Role: Primary, Status: "complete"}}, false, false}}, "still has to send"},
		{"split brain", []look{connected, {0, mine(Secondary, 7), says(Primary, "complete", 0), true, false}}, "split brain"},
		{"this node was primary", []look{{0, mine(Primary, 9), nil, false, false}, {0, mine(Secondary, 0), nil, false, true}}, ""},
		{"this node was primary, and another one since", []look{{0, mine(Primary, 9), nil, false, false}, {0, mine(Secondary, 10), nil, false, false}}, "connected anew"},
	} {
		now := time.Unix(1e9, 0)
		r := record{}.restarted("boot")
		for _, l := range tc.looks {
			now = now.Add(l.after)
			r = r.next(now, l.mine, l.peer, l.split)
			if l.want {
				r = r.wanted(now)
			}
		}
		err := r.fit(30 * time.Second)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error()+r.Why, tc.want)) {
			t.Errorf("%s: got %v (%s), want %q", tc.name, err, r.Why, tc.want)
		}
		if r.restarted("boot") != r || r.restarted("another boot").fit(time.Hour) == nil {
			t.Errorf("%s: it does not count for this boot alone", tc.name)
		}
	}
}

func TestHandoverWaitsForACompleteAndCleanCopy(t *testing.T) {
	for _, tc := range []struct {
		s    Status
		want string
	}{
		{Status{Role: Primary, Status: "complete", Counted: true}, ""},
		{Status{Role: Primary, Status: "degraded", Counted: true}, "not connected"},
		{Status{Role: Primary, Status: "complete", Dirty: 1, Counted: true}, "1 bytes are dirty"},
		{Status{Role: Primary, Status: "complete"}, "does not say"},
	} {
		err := drained(tc.s)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%+v: got %v, want %q", tc.s, err, tc.want)
		}
	}
}
