package vip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// filterWatch tells when somebody destroys the table of a fence that has no owner.
type filterWatch struct {
	name string
	own  uint32        // port of the socket whose changes are ours
	lost chan struct{} // capacity 1: told
	seen chan struct{} // capacity 1: our own table has been made anew, and what was told before is over

	once sync.Once
	stop int // an eventfd: readable when the watch is to end
	fd   int
	done chan struct{}
}

// watchFilter listens on a socket of its own.
func watchFilter(name string, own uint32, lost chan struct{}) (*filterWatch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	enlarge(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	w := &filterWatch{name: name, own: own, lost: lost, seen: make(chan struct{}, 1), fd: fd, stop: stop, done: make(chan struct{})}
	go w.run()
	return w, nil
}

func (w *filterWatch) close() {
	w.once.Do(func() {
		_, _ = unix.Write(w.stop, binary.NativeEndian.AppendUint64(nil, 1))
		<-w.done
		unix.Close(w.stop)
		unix.Close(w.fd)
	})
}

func (w *filterWatch) run() {
	defer close(w.done)
	buf := make([]byte, 64<<10)
	for {
		fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}, {Fd: int32(w.stop), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || fds[1].Revents != 0 {
			return
		}
		n, _, err := unix.Recvfrom(w.fd, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOBUFS):
			tellOnce(w.lost) // a notice that did not fit may have been the one: to look is harmless
		case err != nil:
			return
		default:
			w.read(buf[:n])
		}
	}
}

func (w *filterWatch) read(b []byte) {
	msgs, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		tellOnce(w.lost)
	}
	for _, m := range msgs {
		switch made, destroyed := w.judge(m); {
		case destroyed:
			tellOnce(w.lost)
		case made:
			select {
			case <-w.lost:
			default:
			}
			tellOnce(w.seen)
		}
	}
}

// judge reports whether we have made our table, or somebody else has deleted a table,
// chain, rule, set or element of it.
func (w *filterWatch) judge(m syscall.NetlinkMessage) (made, destroyed bool) {
	const table = 1 // NFTA_TABLE_NAME, and the TABLE of all others
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < nfgenSize ||
		string(bytes.TrimRight(parseAttrs(m.Data[nfgenSize:])[table], "\x00")) != w.name {
		return false, false
	}
	ours := m.Header.Pid == w.own
	switch m.Header.Type & 0xff {
	case unix.NFT_MSG_NEWTABLE:
		return ours && m.Data[0] == unix.NFPROTO_ARP, false // the second one
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET, unix.NFT_MSG_DELSETELEM:
		return false, !ours
	}
	return false, false
}

// caughtUp waits a moment until the watch has read that our table was made.
func (w *filterWatch) caughtUp() {
	late := time.NewTimer(watchWithin)
	defer late.Stop()
	select {
	case <-w.seen:
	case <-late.C:
	}
}

const watchWithin = 100 * time.Millisecond

func tellOnce(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // told already
	}
}

// lockName binds an abstract name, which ends with the process, to say that a table
// without an owner is somebody's.
func lockName(table string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := errors.Join(unix.Bind(fd, fenceLock(table)), unix.Listen(fd, 1)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// nameLocked reports whether somebody has it.
func nameLocked(table string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	return !errors.Is(unix.Connect(fd, fenceLock(table)), unix.ECONNREFUSED)
}

func fenceLock(table string) *unix.SockaddrUnix {
	return &unix.SockaddrUnix{Name: "@carpd-fence/" + table}
}
