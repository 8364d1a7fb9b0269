package demo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// world is what has been seen: which node held the address when, by the kernel,
// and which state each node says that it is in.
type world struct {
	mu     sync.Mutex
	spells []spell           // of holding the address, by their beginning
	states map[string]string // by node
}

// spell is a time during which a node held the address.
type spell struct {
	node       string
	begin, end time.Time // end is zero while it lasts
}

func newWorld() *world { return &world{states: map[string]string{}} }

// hold notes that the kernel of a node has, or has no longer, the address.
func (w *world) hold(node string, has bool, at time.Time) (changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.spells {
		if w.spells[i].node == node && w.spells[i].end.IsZero() {
			if !has {
				w.spells[i].end = at
			}
			return !has
		}
	}
	if has {
		w.spells = append(w.spells, spell{node: node, begin: at})
	}
	return has
}

// holds reports whether the node holds the address.
func (w *world) holds(node string) bool {
	last, ok := w.last(node)
	return ok && last.end.IsZero()
}

// last returns the node's latest spell.
func (w *world) last(node string) (spell, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.spells) - 1; i >= 0; i-- {
		if w.spells[i].node == node {
			return w.spells[i], true
		}
	}
	return spell{}, false
}

// overlap returns two nodes that held the address at once, and for how long.
func (w *world) overlap(now time.Time) (string, string, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	until := func(s spell) time.Time {
		if s.end.IsZero() {
			return now
		}
		return s.end
	}
	for i, s := range w.spells {
		for _, later := range w.spells[i+1:] {
			if later.node != s.node && later.begin.Before(until(s)) && s.begin.Before(until(later)) {
				end := until(s)
				if until(later).Before(end) {
					end = until(later)
				}
				return s.node, later.node, end.Sub(later.begin)
			}
		}
	}
	return "", "", 0
}

func (w *world) setState(node, state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states[node] = state
}

func (w *world) state(node string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.states[node]
}

// watch tells note of each change of addr on the hosts, until the returned file
// is closed: then done closes. One socket hears all namespaces, so the order of
// the changes is the kernel's own, however late they are read.
func watch(hosts []*host, addr netip.Addr, note func(name string, has bool, at time.Time)) (file *os.File, done <-chan struct{}, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, fmt.Errorf("demo: watch addresses: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR}),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("demo: watch addresses: %w", errors.Join(err, unix.Close(fd)))
	}
	file = os.NewFile(uintptr(fd), "netlink")
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, nil, fmt.Errorf("demo: watch addresses: %w", errors.Join(err, file.Close()))
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf, oob := make([]byte, 64<<10), make([]byte, 64)
		for {
			var n, noob int
			var got error
			if conn.Read(func(fd uintptr) bool {
				n, noob, _, _, got = unix.Recvmsg(int(fd), buf, oob, 0)
				return got != unix.EAGAIN
			}) != nil {
				return // closed
			}
			id, ok := sender(oob[:noob])
			at := time.Now()
			if got != nil || !ok {
				continue // an overrun shows as a wait in vain
			}
			for _, h := range hosts {
				if h.id != id {
					continue
				}
				for _, has := range addressChanges(buf[:n], addr) {
					note(h.name, has, at)
				}
			}
		}
	}()
	return file, ended, nil
}

// sender reads the number of the namespace that a message is from.
func sender(oob []byte) (int, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_NETLINK && m.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(m.Data) >= 4 {
			id := int32(binary.NativeEndian.Uint32(m.Data))
			return int(id), id >= 0
		}
	}
	return 0, false // this namespace's own
}

// addressChanges reads netlink messages and returns, for each that adds or
// deletes addr, whether it is there afterwards.
func addressChanges(b []byte, addr netip.Addr) []bool {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return nil
	}
	var changes []bool
	for _, m := range messages {
		added := m.Header.Type == unix.RTM_NEWADDR
		if !added && m.Header.Type != unix.RTM_DELADDR || len(m.Data) < unix.SizeofIfAddrmsg {
			continue
		}
		attrs := m.Data[unix.SizeofIfAddrmsg:]
		for len(attrs) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(attrs))
			kind := binary.NativeEndian.Uint16(attrs[2:])
			if size < unix.SizeofRtAttr || size > len(attrs) {
				break
			}
			if got, ok := netip.AddrFromSlice(attrs[unix.SizeofRtAttr:size]); kind == unix.IFA_LOCAL && ok && got == addr {
				changes = append(changes, added)
			}
			attrs = attrs[min(len(attrs), (size+3)&^3):]
		}
	}
	return changes
}
