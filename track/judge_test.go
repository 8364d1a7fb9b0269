package track

import (
	"strings"
	"testing"
)

// A history of rounds ('+' answered, '-' not) and the verdicts after each: ? G F.
func TestVerdictFollowsTheRowsOfRounds(t *testing.T) {
	for _, c := range []struct {
		name             string
		fall, rise       int
		history, verdict string
	}{
		{"the defaults, good from the start", 3, 2, "++++", "?GGG"},
		{"never answered", 3, 2, "-----", "??FFF"},
		{"two misses are none", 3, 2, "++--+--+", "?GGGGGGG"},
		{"three in a row are", 3, 2, "++---+", "?GGGFF"},
		{"one answer is none", 3, 2, "++---+-+-+-", "?GGGFFFFFFF"},
		{"two in a row are", 3, 2, "++---++", "?GGGFFG"},
		{"undecided while they alternate", 3, 2, "+-+-+-", "??????"},
		{"the zero value", 0, 0, "+-+", "GFG"},
		{"slow to fall", 5, 1, "+----+-----", "GGGGGGGGGGF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := Judge{Fall: c.fall, Rise: c.rise}
			var got strings.Builder
			for _, round := range c.history {
				got.WriteByte("?GF"[j.Round(round == '+')])
			}
			if got.String() != c.verdict {
				t.Errorf("%s gives %s, want %s", c.history, got.String(), c.verdict)
			}
		})
	}
}

func TestOneGatewayThatAnswersIsEnough(t *testing.T) {
	for _, c := range []struct {
		all  []Verdict
		want Verdict
	}{
		{nil, Good},
		{[]Verdict{Good}, Good},
		{[]Verdict{Failed}, Failed},
		{[]Verdict{Unknown}, Unknown},
		{[]Verdict{Failed, Good}, Good},
		{[]Verdict{Unknown, Good}, Good},
		{[]Verdict{Failed, Unknown}, Unknown},
		{[]Verdict{Failed, Failed}, Failed},
	} {
		if got := All(c.all...); got != c.want {
			t.Errorf("%v together are %v, want %v", c.all, got, c.want)
		}
	}
}
