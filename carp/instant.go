package carp

import "time"

// Instant is a point in time in nanoseconds of CLOCK_BOOTTIME, which goes on
// counting while the machine is suspended; Go's time.Time does not. The zero
// value means "no instant": as a deadline it asks for nothing.
type Instant int64

// Add returns the instant d after i.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Epoch orders masterships across nodes: of two, the greater is the younger.
// Within a group it grows with each promotion, on whichever node; equal epochs
// of two nodes are ordered by node id. The zero value is "never master".
type Epoch uint64
