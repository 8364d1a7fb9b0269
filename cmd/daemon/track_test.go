package daemon

import (
	"strings"
	"testing"

	"github.com/carpd/carpd/cmd/daemon/config"
	"github.com/carpd/carpd/track"
)

// A history of verdicts (? G F) and whether the engine is told that the client side
// is cut off after each.
func TestOnlyAProbeThatWasGoodCutsOff(t *testing.T) {
	for history, want := range map[string]string{
		"?GGFFGF": "...xx.x",
		"?FFF":    "....", // never good: an alarm, no reason
		"FGF":     "..x",  // good once
		"GF?F":    ".xxx", // unknown again, after a reload: as it was
		"GFG?":    ".x..", //
	} {
		var s sideState
		var got strings.Builder
		for _, v := range history {
			if s = s.next(map[rune]track.Verdict{'?': track.Unknown, 'G': track.Good, 'F': track.Failed}[v]); s.cutOff {
				got.WriteByte('x')
			} else {
				got.WriteByte('.')
			}
		}
		if got.String() != want {
			t.Errorf("%s: %s, want %s", history, got.String(), want)
		}
	}
}

func TestTrackAlarmSaysWhatFollows(t *testing.T) {
	p := &plan{Instance: config.Instance{Interface: "eth0"}}
	good, failed := track.Status{Verdict: track.Good}, track.Status{Verdict: track.Failed, Trouble: "no way"}
	for _, c := range []struct {
		name  string
		state sideState
		all   []track.Status
		want  string
	}{
		{"nothing is tracked", sideState{}, nil, ""},
		{"good", sideState{ever: true}, []track.Status{good}, ""},
		{"not known yet", sideState{}, []track.Status{{}}, ""},
		{"cut off", sideState{true, true}, []track.Status{failed, failed}, "This node is demoted"},
		{"never answered", sideState{}, []track.Status{failed}, "has never answered"},
		{"one of two", sideState{ever: true}, []track.Status{good, failed}, "that is enough"},
		{"says why", sideState{true, true}, []track.Status{failed}, "(no way)"},
	} {
		got := trackTrouble(p, c.state, c.all)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q in it", c.name, got, c.want)
		}
	}
}
