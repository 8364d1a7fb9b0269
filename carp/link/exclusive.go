package link

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// busyBacklog bounds how many refused contenders can ask a holder for its pid:
// they stay in its queue, since nobody accepts them. Later ones are refused
// without a pid.
const busyBacklog = 128

// claim makes vhid on the named interface this process's own within the network
// namespace, or returns a *BusyError. The claim is a listening socket with an
// abstract name: such names belong to the network namespace, and the kernel
// drops them with the process. Closing the descriptor gives the claim up.
func claim(name string, vhid uint8) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	address := &unix.SockaddrUnix{Name: fmt.Sprintf("@carpd/%s/%d", name, vhid)}
	if err = unix.Bind(fd, address); err == nil {
		err = unix.Listen(fd, busyBacklog)
	}
	if err == nil {
		return fd, nil
	}
	unix.Close(fd)
	if errors.Is(err, unix.EADDRINUSE) {
		return -1, &BusyError{Interface: name, VHID: vhid, PID: holder(address)}
	}
	return -1, err
}

// holder returns the pid of the process that listens at address, 0 if unknown.
func holder(address unix.Sockaddr) int {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, address); err != nil {
		return 0
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0
	}
	return int(cred.Pid)
}
