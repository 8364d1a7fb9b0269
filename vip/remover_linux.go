package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Removal is the messages to the kernel that take some addresses off one interface,
// made beforehand. The zero value takes nothing off. It is not changed once made, so
// that any goroutine may use it.
type Removal struct {
	index int
	addrs []netip.Addr
	msgs  [][]byte
}

// NewRemoval makes one for the interface with this index. Prefixes are as they are
// on the interface, in the order in which they were put there: the last goes first,
// since the kernel makes each first one of a subnet that goes up for by the next, at
// the cost of all that are left.
func NewRemoval(index int, prefixes []netip.Prefix) Removal {
	r := Removal{index: index, addrs: addrsOf(prefixes)}
	for _, p := range slices.Backward(prefixes) {
		r.msgs = append(r.msgs, changeMessage(Change{Op: Remove, Index: index, Prefix: p}))
	}
	return r
}

// Len is how many addresses it takes off.
func (r Removal) Len() int { return len(r.msgs) }

// Remover takes addresses off, and ends their sessions, by sockets that are open
// beforehand, and does nothing else: for a process that does it once, at once. One
// goroutine uses it. OpenRemover makes one; Close releases it.
type Remover struct {
	fd, most int
	out, in  []byte
	diag     diag
}

// OpenRemover opens the sockets, in the network namespace of the calling thread.
// Whether the process may change addresses, and the kernel end sessions, shows when
// it does.
func OpenRemover() (*Remover, error) {
	fd, most, err := openBatch()
	if err != nil {
		return nil, &OpError{Op: "open", Err: fmt.Errorf("netlink socket: %w", err)}
	}
	r := &Remover{fd: fd, most: most, in: make([]byte, 64<<10)}
	_ = r.diag.open() // Sever tells
	return r, nil
}

// Remove takes all of it off, in as few calls as possible. All are tried; the error
// is the first that is not about an address, or an interface, that is gone already.
func (r *Remover) Remove(all ...Removal) error {
	var msgs [][]byte
	for _, one := range all {
		msgs = append(msgs, one.msgs...)
	}
	var first error
	for part := range slices.Chunk(msgs, r.most) {
		r.out = r.out[:0]
		for _, m := range part {
			r.out = append(r.out, m...)
		}
		err := retryEINTR(func() error { return unix.Sendto(r.fd, r.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) })
		if err == nil {
			err = r.refused()
		}
		if err != nil && first == nil {
			first = &OpError{Op: "remove", Err: err}
		}
	}
	return first
}

// refused reads what the kernel has answered: errors only, and all of them, since
// it deals with the messages before the send returns.
func (r *Remover) refused() (first error) {
	for range answersMax {
		var n int
		err := retryEINTR(func() (err error) { n, _, err = unix.Recvfrom(r.fd, r.in, unix.MSG_DONTWAIT); return err })
		if errors.Is(err, unix.ENOBUFS) {
			continue // more errors than the socket holds: what else there is follows
		}
		if err != nil {
			return first
		}
		answers, _ := syscall.ParseNetlinkMessage(r.in[:n])
		for _, a := range answers {
			if a.Header.Type != unix.NLMSG_ERROR || len(a.Data) < 4 {
				continue
			}
			if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(a.Data))); errno != 0 && !isGone(errno) && first == nil {
				first = errno
			}
		}
	}
	return first
}

// Sever destroys the sockets bound to the addresses of all, and stops early when ctx
// ends. Addresses that some interface has, other than the one that they leave, keep
// theirs. It returns how many there were.
func (r *Remover) Sever(ctx context.Context, all ...Removal) (n int, err error) {
	ours := make(map[netip.Addr]*severOrder)
	var orders []*severOrder
	for _, one := range all {
		o := &severOrder{index: one.index}
		orders = append(orders, o)
		for _, a := range one.addrs {
			ours[a.Unmap()] = o
		}
	}
	if len(ours) == 0 {
		return 0, nil
	}
	if err = r.diag.broken; err == nil {
		err = r.diag.passes(ctx, &targets{ours: ours, spare: spareOthers})
	}
	for _, o := range orders {
		n += o.n
	}
	if err != nil {
		err = severError(err)
	}
	return n, err
}

// spareOthers takes out of addrs those that another interface has than the one that
// they leave.
func spareOthers(addrs map[netip.Addr]*severOrder) error {
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, l := range links {
		have, err := l.Addrs()
		if err != nil {
			continue // it went away meanwhile, and its addresses with it
		}
		for _, h := range have {
			p, err := netip.ParsePrefix(h.String())
			if o := addrs[p.Addr()]; err == nil && o != nil && o.index != l.Index {
				delete(addrs, p.Addr())
			}
		}
	}
	return nil
}

// Close closes the sockets.
func (r *Remover) Close() {
	unix.Close(r.fd)
	r.diag.close()
}
