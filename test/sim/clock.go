package sim

import (
	"time"

	"github.com/carpd/carpd/carp"
)

// clock is a host's CLOCK_BOOTTIME: it counts true time, faster or slower by
// rate parts in 10^9. It never goes back and never jumps.
type clock struct {
	base carp.Instant  // what it showed
	at   time.Duration // then
	rate int64
}

// read returns what the clock shows at t.
func (c *clock) read(t time.Duration) carp.Instant { return c.base.Add(stretch(t-c.at, c.rate)) }

// when returns the first instant at which the clock shows x or more.
func (c *clock) when(x carp.Instant) time.Duration {
	t := c.at + stretch(x.Sub(c.base), -c.rate)
	for c.read(t) < x {
		t += max(x.Sub(c.read(t))/2, 1)
	}
	return t
}

// steer changes the rate from t on.
func (c *clock) steer(t time.Duration, rate int64) { *c = clock{c.read(t), t, rate} }

func stretch(d time.Duration, rate int64) time.Duration {
	const whole = time.Duration(1e9)
	return d + d/whole*time.Duration(rate) + d%whole*time.Duration(rate)/whole
}

// longest returns how long d, measured by a clock that is off by at most rate,
// may be in truth.
func longest(d time.Duration, rate int64) time.Duration {
	return d + time.Duration(float64(d)*float64(rate)/(1e9-float64(rate))) + time.Microsecond
}
