package vip

import "golang.org/x/sys/unix"

// Crowd makes the receive buffer of k's changes too small for more than a few
// answers, without k knowing.
func Crowd(k Kernel) error {
	return unix.SetsockoptInt(k.(*kernel).fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
}

// BatchLimit is batchLimit.
func BatchLimit(receive, send int) int { return batchLimit(receive, send) }
