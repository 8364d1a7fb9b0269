package lab

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrTime is in the error of Await when something did not happen in time.
var ErrTime = errors.New("timed out")

// Await looks each 2 ms until cond is true. Otherwise it returns ErrTime after limit,
// or the cause of the end of ctx. Eventually is for tests.
func Await(ctx context.Context, limit time.Duration, cond func() bool) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("lab: %w after %v", ErrTime, limit)
		case <-ctx.Done():
			return fmt.Errorf("lab: %w", context.Cause(ctx))
		}
	}
	return nil
}

// Pass lets time pass. It returns the cause of the end of ctx if that comes first.
func Pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("lab: %w", context.Cause(ctx))
	}
}
