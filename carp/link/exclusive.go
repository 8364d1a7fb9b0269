package link

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// busyBacklog bounds how many refused contenders can ask a holder for its pid:
// they stay in its queue, since nobody accepts them. Later ones are refused
// without a pid.
const busyBacklog = 128

// take makes the claim this process's own within the network namespace, or
// returns a *BusyError. It is a listening socket with an abstract name: such names
// belong to the network namespace, and the kernel drops them with the process.
// Closing the descriptor gives the claim up.
func (c Claim) take() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	address := c.address()
	if err = unix.Bind(fd, address); err == nil {
		err = unix.Listen(fd, busyBacklog)
	}
	if err == nil {
		return fd, nil
	}
	unix.Close(fd)
	if errors.Is(err, unix.EADDRINUSE) {
		busy := &BusyError{Interface: c.Interface, VHID: c.VHID, Kind: c.Kind}
		if cred, err := holder(address); err == nil {
			busy.PID, busy.UID, busy.Foreign = int(cred.Pid), cred.Uid, !trusted(cred)
		}
		return -1, busy
	}
	return -1, err
}

// trusted reports whether a holder may be a daemon: every user can bind an
// abstract name. It is root's, or our own user's, or it has the privilege that a
// daemon needs to move addresses here. In doubt it is one.
func trusted(cred *unix.Ucred) bool {
	return cred.Uid == 0 || int(cred.Uid) == os.Geteuid() || mayMoveAddresses(int(cred.Pid))
}

// mayMoveAddresses reports whether a process has CAP_NET_ADMIN in a user
// namespace that gives it power over this network namespace: ours, or the one
// that the network namespace belongs to. Anybody can have it in another.
func mayMoveAddresses(pid int) bool {
	dir := "/proc/" + strconv.Itoa(pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return !errors.Is(err, os.ErrNotExist) || pid == 0
	}
	_, rest, _ := strings.Cut(string(status), "\nCapEff:\t")
	hex, _, _ := strings.Cut(rest, "\n")
	if caps, err := strconv.ParseUint(hex, 16, 64); err == nil && caps&(1<<unix.CAP_NET_ADMIN) == 0 {
		return false
	}
	var theirs, ours unix.Stat_t
	if unix.Stat(dir+"/ns/user", &theirs) != nil || unix.Stat("/proc/self/ns/user", &ours) != nil {
		return true
	}
	return theirs.Ino == ours.Ino || theirs.Ino == ownerOfNetwork()
}

// ownerOfNetwork returns the inode of the user namespace that the network
// namespace belongs to, 0 if it cannot be seen from here.
func ownerOfNetwork() uint64 {
	network, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return 0
	}
	defer network.Close()
	fd, err := unix.IoctlRetInt(int(network.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	var owner unix.Stat_t
	if unix.Fstat(fd, &owner) != nil {
		return 0
	}
	return owner.Ino
}

// holder returns who listens at address. ECONNREFUSED means that nobody does,
// EAGAIN that too many have asked already.
func holder(address unix.Sockaddr) (*unix.Ucred, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, address); err != nil {
		return nil, err
	}
	return unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
}
