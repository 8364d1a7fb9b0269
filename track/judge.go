package track

import (
	"fmt"
	"slices"
)

// Verdict is what a probe has come to.
type Verdict uint8

// The verdicts.
const (
	Unknown Verdict = iota // too few rounds since the start
	Good
	Failed
)

func (v Verdict) String() string {
	if names := []string{"unknown", "good", "failed"}; int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("Verdict(%d)", v)
}

// Judge makes a verdict of rounds: Good after Rise answers in a row, Failed after
// Fall misses in a row, else what it was. The zero value takes one round for a
// verdict. It is used by one goroutine.
type Judge struct {
	Fall, Rise int // less than 1 counts as 1

	verdict Verdict
	row     int  // rounds in a row
	last    bool // of this kind
}

// Verdict returns the present one.
func (j *Judge) Verdict() Verdict { return j.verdict }

// Round takes one more round, answered or not, and returns the verdict.
func (j *Judge) Round(answered bool) Verdict {
	if answered != j.last {
		j.last, j.row = answered, 0
	}
	j.row = min(j.row+1, max(j.Fall, j.Rise, 1)) // so that it never overflows
	switch {
	case answered && j.row >= j.Rise:
		j.verdict = Good
	case !answered && j.row >= j.Fall:
		j.verdict = Failed
	}
	return j.verdict
}

// All is the verdict on several gateways: one that answers is enough, and Failed
// are they together when each of them is. None at all are Good.
func All(verdicts ...Verdict) Verdict {
	switch {
	case len(verdicts) == 0 || slices.Contains(verdicts, Good):
		return Good
	case slices.Contains(verdicts, Unknown):
		return Unknown
	}
	return Failed
}
