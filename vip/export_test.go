package vip

import "golang.org/x/sys/unix"

// Crowd makes the receive buffer of k's changes too small for more than a few
// answers, without k knowing.
func Crowd(k Kernel) error {
	return unix.SetsockoptInt(k.(*kernel).fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
}

// BatchLimit is batchLimit.
func BatchLimit(receive, send int) int { return batchLimit(receive, send) }

// OpenWatchedFence is OpenFence on a kernel whose tables have no owner.
func OpenWatchedFence() (Fence, error) { return openFence(false) }

// Abandon ends a fence as the death of its process does: nothing is removed.
func Abandon(f Fence) {
	if w := f.(*filter).watch; w != nil {
		w.close()
	}
	f.(*filter).release()
}
