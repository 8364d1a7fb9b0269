package guardian

import (
	"testing"
	"time"

	"github.com/carpd/carpd/carp"
)

func at(d time.Duration) carp.Instant { return carp.Instant(time.Hour).Add(d) }

func TestItActsForWhoHoldsAPermitAndForNobodyElse(t *testing.T) {
	const permit, margin = 2900 * time.Millisecond, 100 * time.Millisecond
	live := at(permit) // given at at(0)
	for name, c := range map[string]struct {
		now    time.Duration
		gone   bool
		turned time.Duration // of the loop
		until  carp.Instant
		want   verdict
	}{
		"a backup whose daemon dies":             {time.Second, true, time.Second, 0, verdict{}},
		"a backup whose daemon hangs":            {time.Minute, false, 0, 0, verdict{}},
		"a master that lives":                    {time.Second, false, time.Second, live, verdict{}},
		"a master whose daemon dies":             {time.Second, true, time.Second, live, verdict{clear: true, bow: true, hooks: true}},
		"dies in the last moment of its permit":  {permit - 1, true, 0, live, verdict{clear: true, bow: true, hooks: true}},
		"dies after it, before a backup":         {permit + margin - 1, true, 0, live, verdict{clear: true, bow: true, hooks: true}},
		"dies when a backup may be master":       {permit + margin, true, 0, live, verdict{clear: true, hooks: true}},
		"hangs, and the permit is not over":      {permit - 1, false, 0, live, verdict{}},
		"hangs, and a quarter of the margin is":  {permit + margin/4 - 1, false, 0, live, verdict{}},
		"hangs, and that is over":                {permit + margin/4, false, 0, live, verdict{clear: true, bow: true, hooks: true}},
		"hangs since a late turn":                {permit + margin/4, false, permit - 1100*time.Millisecond, live, verdict{clear: true, bow: true, hooks: true}},
		"cannot send, but its loop lives":        {permit + margin/4, false, permit, live, verdict{clear: true}},
		"noticed too late (all of us slept)":     {time.Minute, false, 0, live, verdict{clear: true, hooks: true}},
		"acted for, and the daemon lives":        {permit + time.Second, false, permit, taken, verdict{}},
		"acted for, and it hangs on":             {permit + time.Second + 1, false, permit, taken, verdict{hooks: true}},
		"acted for, and then the daemon dies":    {permit + time.Second, true, 0, taken, verdict{clear: true, hooks: true}},
		"just made master, and the daemon dies":  {0, true, 0, live, verdict{clear: true, bow: true, hooks: true}},
		"withdrawn, and then the daemon is gone": {permit, true, permit, 0, verdict{}},
	} {
		got := judge(at(c.now), c.gone, at(c.turned), sight{until: c.until, permit: permit, margin: margin})
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// With an interval of 10 ms a permit is over before a second's silence of the loop.
func TestAHangIsSeenWithinTheShortestPermit(t *testing.T) {
	s := sight{until: at(27 * time.Millisecond), permit: 27 * time.Millisecond, margin: 3 * time.Millisecond}
	if got := judge(at(28*time.Millisecond), false, at(10*time.Millisecond), s); !got.bow || got.hooks {
		t.Errorf("a loop silent for 18 ms of 27: %+v, want a bow-out, and the hooks left to the daemon", got)
	}
	if got := judge(at(28*time.Millisecond), false, at(20*time.Millisecond), s); got.bow || !got.clear {
		t.Errorf("a loop that turned 8 ms ago: %+v, want the addresses off and no more", got)
	}
}

func TestNoPermitEndsBetweenTwoLooks(t *testing.T) {
	short, long := 27*time.Millisecond, 29*time.Second
	for name, c := range map[string]struct {
		all  []sight
		want time.Duration
	}{
		"nobody":                     {nil, time.Second},
		"a slow master":              {[]sight{{until: at(long), permit: long}}, time.Second},
		"a master":                   {[]sight{{until: at(short), permit: short, margin: 4 * time.Millisecond}}, 28 * time.Millisecond},
		"the first of two":           {[]sight{{until: at(short), permit: short}, {until: at(9 * time.Millisecond)}}, 9 * time.Millisecond},
		"a backup may be master now": {[]sight{{permit: short}}, short},
		"one that was acted for too": {[]sight{{until: taken, permit: short}}, short},
		"never in the past":          {[]sight{{until: at(-time.Hour)}}, 1},
		"what knows no permit":       {[]sight{{}}, 1},
	} {
		if got := next(at(0), c.all).Sub(at(0)); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
