package link

import "golang.org/x/sys/unix"

// OpenNotes opens a socket for notes about addresses as an Interface does.
func OpenNotes() (int, error) {
	fd, err := openNetlink(unix.RTMGRP_IPV4_IFADDR, unix.SOCK_NONBLOCK)
	if err != nil {
		return -1, err
	}
	return fd, muteShared(fd)
}

// Rest has the waiter leave all sockets alone, as after an error of each.
func (w *Waiter) Rest() {
	w.refresh()
	for n := range w.rests {
		w.rests[n] = Now().Add(failedRest)
	}
}
