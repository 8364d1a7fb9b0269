package link

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

// Now reads CLOCK_BOOTTIME, the clock of every carp.Instant. It may be called by
// any goroutine and does not allocate.
func Now() carp.Instant { return carp.Instant(readClock(unix.CLOCK_BOOTTIME)) }

// readClock returns the nanoseconds of a clock that every kernel we run on has:
// a failure would be a wrong constant here.
func readClock(clock int32) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		panic("link: read clock: " + err.Error())
	}
	return ts.Nano()
}

// arrival converts the kernel's CLOCK_REALTIME stamp of a packet. Only the age
// of the stamp is used, since the wall clock may be anything; a wall clock set
// back in between must not put the arrival into the future.
func arrival(now carp.Instant, wall, stamp int64) carp.Instant {
	if stamp == 0 {
		return 0
	}
	return now.Add(-time.Duration(max(0, wall-stamp)))
}

// stampOf returns the time in the control messages of a received packet, in
// nanoseconds of CLOCK_REALTIME, or 0 if there is none.
func stampOf(oob []byte) int64 {
	for len(oob) > 0 {
		header, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		if header.Level == unix.SOL_SOCKET && header.Type == unix.SO_TIMESTAMPNS && len(data) >= 2*wordSize {
			return word(data)*int64(time.Second) + word(data[wordSize:])
		}
		oob = rest
	}
	return 0
}

// wordSize is the size of a C long, of which struct timespec has two.
const wordSize = unix.SizeofPtr

func word(b []byte) int64 {
	if wordSize == 8 {
		return int64(binary.NativeEndian.Uint64(b))
	}
	return int64(binary.NativeEndian.Uint32(b))
}
