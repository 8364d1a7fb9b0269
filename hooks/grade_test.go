package hooks

import (
	"errors"
	"slices"
	"testing"
)

func TestGradeIsWhatAsManyLooksInARowBearOut(t *testing.T) {
	const ok, deg, mild, bad = severity(0), severity(50), severity(20), worst
	for _, c := range []struct {
		name       string
		rise, fall int
		seen, want []severity
	}{
		{"the first look is the grade", 3, 3, []severity{bad}, []severity{bad}},
		{"one of each is enough", 1, 1, []severity{ok, bad, ok, deg, bad, deg, ok}, []severity{ok, bad, ok, deg, bad, deg, ok}},
		{"three bad ones", 1, 3, []severity{ok, bad, bad, bad, ok}, []severity{ok, ok, ok, bad, ok}},
		{"a good one in between begins anew", 1, 3, []severity{ok, bad, bad, ok, bad, bad, bad}, []severity{ok, ok, ok, ok, ok, ok, bad}},
		{"three good ones", 3, 1, []severity{bad, ok, ok, ok}, []severity{bad, bad, bad, ok}},
		{"a bad one in between begins anew", 3, 1, []severity{bad, ok, ok, bad, ok, ok, ok}, []severity{bad, bad, bad, bad, bad, bad, ok}},
		{"flapping never rises", 2, 1, []severity{bad, ok, bad, ok, bad, ok, bad, ok}, []severity{bad, bad, bad, bad, bad, bad, bad, bad}},
		{"flapping never falls", 1, 2, []severity{ok, bad, ok, bad, ok, bad, ok}, []severity{ok, ok, ok, ok, ok, ok, ok}},
		{"no worse than the least bad of them", 1, 3, []severity{ok, bad, deg, bad, bad, bad}, []severity{ok, ok, ok, deg, deg, bad}},
		{"no better than the least good of them", 3, 1, []severity{bad, deg, ok, ok, ok}, []severity{bad, bad, bad, deg, ok}},
		{"weights are grades", 1, 2, []severity{ok, mild, deg, deg, mild}, []severity{ok, ok, mild, deg, mild}},
		{"a hundred looks", 1, 100, append(make([]severity, 1), slices.Repeat([]severity{bad}, 100)...), append(make([]severity, 100), bad)},
		{"a short rise after a long fall", 2, 3, []severity{ok, bad, bad, bad, ok, ok}, []severity{ok, ok, ok, bad, bad, ok}},
		{"worse and worse while it is bad", 2, 2, []severity{ok, deg, deg, ok, ok, deg, deg, bad, bad, ok, ok}, []severity{ok, ok, deg, deg, ok, ok, deg, deg, bad, bad, ok}},
		{"neither of two comes in a row", 2, 2, []severity{ok, deg, deg, bad, ok, deg, bad, bad, ok, deg}, []severity{ok, ok, deg, deg, deg, deg, deg, bad, bad, deg}},
		{"none given is one", 0, 0, []severity{ok, bad, ok}, []severity{ok, bad, ok}},
	} {
		g, got := newGrading(c.rise, c.fall), []severity(nil)
		for _, s := range c.seen {
			got = append(got, g.next(s, false))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v makes %v, want %v", c.name, c.seen, got, c.want)
		}
	}
}

func TestEarlyLookCountsOnlyForTheWorse(t *testing.T) {
	g := newGrading(2, 2)
	g.next(0, false)
	for range 5 { // down and up, many times within an interval
		g.next(worst, true)
		if got := g.next(0, true); got != 0 {
			t.Fatalf("flapping within an interval makes %v", got)
		}
	}
	if got := g.next(worst, false); got != worst {
		t.Errorf("the look in turn, after an early one: %v", got)
	}
	for range 5 {
		if got := g.next(0, true); got != worst {
			t.Fatalf("early good looks make %v", got)
		}
	}
	g.next(0, false)
	if got := g.next(0, false); got != 0 {
		t.Errorf("two good looks in turn make %v", got)
	}
}

func TestSeverityIsOfHealthAndWeight(t *testing.T) {
	for _, c := range []struct {
		seen   Report
		blind  error
		weight int
		want   severity
		health Health
	}{
		{Report{}, nil, 50, 0, Healthy},
		{Report{Weight: 9}, nil, 50, 0, Healthy},
		{Report{Health: Degraded}, nil, 50, 50, Degraded},
		{Report{Health: Degraded, Weight: 9}, nil, 50, 9, Degraded},
		{Report{Health: Degraded, Weight: -9}, nil, 50, 1, Degraded},
		{Report{Health: Degraded, Weight: 1000}, nil, 50, 254, Degraded},
		{Report{Health: Degraded}, nil, 254, 254, Degraded},
		{Report{Health: Unfit, Weight: 9}, nil, 50, worst, Unfit},
		{Report{Health: 77}, nil, 50, worst, Unfit},
		{Report{}, errors.New("cannot be looked at"), 50, worst, Unfit},
	} {
		got := severityOf(c.seen, c.blind, c.weight)
		if got != c.want || got.health() != c.health {
			t.Errorf("%+v, %v: %d (%v), want %d (%v)", c.seen, c.blind, got, got.health(), c.want, c.health)
		}
	}
}
