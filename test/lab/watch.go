package lab

import (
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// AddrChange is one note of a host's kernel: an address was added or refreshed, or is
// gone. A note is read a little after it was made: what it tells happened after After,
// when there was nothing to read yet, and not later than At. Both have a monotonic
// reading, and those of all hosts are of one clock.
type AddrChange struct {
	Host      string
	Addr      netip.Addr
	On        bool
	After, At time.Time
}

// watchBuffer holds the notes of some ten thousand changes.
const watchBuffer = 32 << 20

// WatchAddrs calls note for each change of an address of the host, whatever makes it,
// from a goroutine of its own, in the kernel's order, until the test ends. A refresh is
// a change too. If the kernel drops notes the test fails.
func (h *Host) WatchAddrs(note func(AddrChange)) {
	t := h.lan.t
	t.Helper()
	fd := -1
	err := h.DoErr(func() (err error) {
		if fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE); err != nil {
			return err
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer) // not in a user namespace
		return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR})
	})
	if err != nil {
		t.Fatalf("lab: watch the addresses of %s: %v", h.Name, err)
	}
	w := &addrWatch{t: t, host: h.Name, fd: fd, note: note, stop: make(chan struct{})}
	w.ended.Go(w.run)
	t.Cleanup(func() {
		close(w.stop)
		w.ended.Wait()
		_ = unix.Close(fd)
	})
}

// addrWatch reads the notes of one kernel.
type addrWatch struct {
	t     TB
	host  string
	fd    int
	note  func(AddrChange)
	stop  chan struct{}
	ended sync.WaitGroup
}

// run reads on a thread of its own, before all others where that is allowed, so that
// the stamps are good. It sleeps but for a few notes.
func (w *addrWatch) run() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
	}, 0)
	const beat = 5 // milliseconds: how far After may lie before a note that comes alone
	buf, empty := make([]byte, 64<<10), time.Now()
	for {
		select {
		case <-w.stop:
			return
		default:
		}
		n, _, err := unix.Recvfrom(w.fd, buf, unix.MSG_DONTWAIT)
		at := time.Now()
		switch {
		case err == unix.EAGAIN:
			empty = at
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, beat)
			continue
		case err == unix.EINTR:
			continue
		case err != nil:
			w.t.Errorf("lab: watch the addresses of %s: %v", w.host, err)
			return
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			w.t.Errorf("lab: watch the addresses of %s: %v", w.host, err)
			return
		}
		for i := range messages {
			if addr, on, ok := addrOf(&messages[i]); ok {
				w.note(AddrChange{Host: w.host, Addr: addr, On: on, After: empty, At: at})
			}
		}
	}
}

// addrOf reads a note about an address.
func addrOf(m *syscall.NetlinkMessage) (addr netip.Addr, on, ok bool) {
	if m.Header.Type != unix.RTM_NEWADDR && m.Header.Type != unix.RTM_DELADDR {
		return addr, false, false
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return addr, false, false
	}
	for _, a := range attrs {
		// IFA_LOCAL is the address of IPv4; IPv6 has IFA_ADDRESS alone.
		if a.Attr.Type == unix.IFA_LOCAL || a.Attr.Type == unix.IFA_ADDRESS && !ok {
			addr, ok = netip.AddrFromSlice(a.Value)
		}
	}
	return addr, m.Header.Type == unix.RTM_NEWADDR, ok
}

// Together is for how long two hosts had one address.
type Together struct {
	Addr  netip.Addr
	Hosts [2]string
	// Sure is the least that the notes allow, Most the most: they are read a little
	// after they were made.
	Sure, Most time.Duration
}

// Overlaps compares the changes of several hosts, each host's in its order, up to an
// instant, and returns each time that two may have had an address together: one at
// least of Sure and Most is above zero.
func Overlaps(changes []AddrChange, until time.Time) []Together {
	had := map[netip.Addr]map[string][]tenure{}
	for _, c := range changes {
		hosts := had[c.Addr]
		if hosts == nil {
			hosts = map[string][]tenure{}
			had[c.Addr] = hosts
		}
		all := hosts[c.Host]
		open := len(all) > 0 && !all[len(all)-1].over
		switch {
		case c.On && !open:
			hosts[c.Host] = append(all, tenure{begin: c, end: AddrChange{After: until, At: until}})
		case !c.On && open:
			all[len(all)-1].end, all[len(all)-1].over = c, true
		}
	}
	var found []Together
	for addr, hosts := range had {
		for one, mine := range hosts {
			for other, theirs := range hosts {
				if one >= other {
					continue
				}
				for _, a := range mine {
					for _, b := range theirs {
						sure, most := a.with(b)
						if most > 0 {
							found = append(found, Together{addr, [2]string{one, other}, max(sure, 0), most})
						}
					}
				}
			}
		}
	}
	slices.SortFunc(found, func(a, b Together) int { return int(b.Most - a.Most) })
	return found
}

// tenure is a time during which a host had an address.
type tenure struct {
	begin, end AddrChange
	over       bool
}

// with is how long two tenures overlap at least and at most.
func (a tenure) with(b tenure) (sure, most time.Duration) {
	sure = Earlier(a.end.After, b.end.After).Sub(Later(a.begin.At, b.begin.At))
	most = Earlier(a.end.At, b.end.At).Sub(Later(a.begin.After, b.begin.After))
	return sure, most
}

// Later is the later one of two times.
func Later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Earlier is the earlier one of two times.
func Earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
