package carp

import "time"

// stoodStill reports whether a timer that waits for others' silence fired so late
// that this node slept through a whole master-down time: a suspend, or a freeze so
// long that the socket overflowed. The silence was its own then.
func stoodStill(late, down time.Duration) bool { return late > down }

// slept has a backup that stood still listen for a master-down time, from now on,
// before it takes its master for dead. Masters have a rule of their own: Stalled. The
// BSDs' kernels promote at once.
func (e *Engine) slept(now Instant, t timer, due Instant) bool {
	if e.cfg.Compat == CompatBSD || !t.silence() {
		return false
	}
	down := e.masterDown(bid{})
	if !stoodStill(now.Sub(due), down) {
		return false
	}
	if t == timerBowOut { // others heard the goodbye, and were awake
		t = timerDown
	}
	e.arm(t, now.Add(down))
	return true
}

// silence reports whether a timer waits for others' silence.
func (t timer) silence() bool { return t == timerDown || t == timerDown6 || t == timerBowOut }
