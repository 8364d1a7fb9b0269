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
