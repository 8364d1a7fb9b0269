package vip

import (
	"github.com/carpd/carpd/carp"
	"golang.org/x/sys/unix"
)

// bootTime reads CLOCK_BOOTTIME.
func bootTime() carp.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// Linux has had this clock since 2.6.39; a clock that stands still would
		// make permits live for ever.
		panic("vip: read CLOCK_BOOTTIME: " + err.Error())
	}
	return carp.Instant(ts.Nano())
}
