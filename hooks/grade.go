package hooks

// severity orders what looks say: 0 is healthy, 1 to maxWeight degraded by so much, unfit
// the worst.
type severity uint8

const (
	maxWeight = 254
	worst     = severity(maxWeight + 1)
)

// severityOf is that of one look. What could not be looked at counts as unfit, and so
// does a grade that nobody knows.
func severityOf(seen Report, blind error, weight int) severity {
	switch {
	case blind != nil:
		return worst
	case seen.Health == Healthy:
		return 0
	case seen.Health != Degraded:
		return worst
	case seen.Weight != 0:
		weight = seen.Weight
	}
	return severity(min(max(weight, 1), maxWeight))
}

func (s severity) health() Health {
	switch s {
	case 0:
		return Healthy
	case worst:
		return Unfit
	}
	return Degraded
}

// grading makes a grade of looks. The first look is the grade: nothing else is known of
// what has just been begun to be watched. From then on it becomes worse when the last
// fall looks were all worse than it, and better when the last rise looks were all
// better: as bad as the least bad of them, as good as the least good. So it says nothing
// that as many looks in a row do not bear out.
type grading struct {
	rise, fall int
	grade      severity
	looks      []severity // the last ones, the newest first; as many as are needed
}

func newGrading(rise, fall int) *grading { return &grading{rise: max(rise, 1), fall: max(fall, 1)} }

// next takes a look in. One that came early, by a Waker, counts only if it is worse than
// the look before it: what comes and goes faster than the interval is not well for many
// looks in a row.
func (g *grading) next(seen severity, early bool) severity {
	switch {
	case len(g.looks) == 0:
		g.grade = seen
	case early && seen <= g.looks[0]:
		return g.grade
	}
	g.looks = append([]severity{seen}, g.looks[:min(len(g.looks), max(g.rise, g.fall)-1)]...)
	if best, known := lowest(g.looks, g.fall); known && best > g.grade {
		g.grade = best
	}
	if least, known := highest(g.looks, g.rise); known && least < g.grade {
		g.grade = least
	}
	return g.grade
}

// lowest returns the least of the first n, if there are so many.
func lowest(of []severity, n int) (low severity, known bool) {
	if len(of) < n {
		return 0, false
	}
	low = worst
	for _, s := range of[:n] {
		low = min(low, s)
	}
	return low, true
}

// highest returns the greatest of the first n, if there are so many.
func highest(of []severity, n int) (high severity, known bool) {
	if len(of) < n {
		return 0, false
	}
	for _, s := range of[:n] {
		high = max(high, s)
	}
	return high, true
}
