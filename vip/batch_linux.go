package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many messages one send has at most. The kernel deals with all
	// of them in one go, and most kernels (PREEMPT_NONE, PREEMPT_VOLUNTARY) let nothing
	// else run on that processor meanwhile, be it in real time: with 10 000 addresses
	// there, or 1000 of IPv6, a message takes 0.2 ms or more, and an advert would wait
	// for a thousand of them.
	batchSize   = 32
	batchBuffer = 4 << 20 // bytes; an error for each message fits
	// answerSize is what one error costs of the receive buffer, with the kernel's
	// own bookkeeping (768 to 960 bytes), and messageSize what a change costs of the
	// other one.
	answerSize  = 1024
	messageSize = 128
	// answersMax bounds the reads for one batch; there are as many answers as
	// messages at most.
	answersMax = 2 * batchSize
)

// openBatch opens the socket for changes and returns how many may go in one send.
// Larger buffers are forced where that is allowed, which it is not in a user
// namespace; there net.core.rmem_max is the limit.
func openBatch() (fd, most int, err error) {
	if fd, err = openNetlink(unix.NETLINK_ROUTE); err != nil {
		return -1, 0, err
	}
	// Errors without a copy of the message.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	receive := enlarge(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	send := enlarge(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
	return fd, batchLimit(receive, send), nil
}

// openNetlink opens a netlink socket of a protocol; with an error fd is -1.
func openNetlink(protocol int) (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol); err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// enlarge makes a buffer as large as allowed and returns its size.
func enlarge(fd, force, option int) int {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, batchBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, batchBuffer)
	}
	size, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
	return size
}

// batchLimit returns how many messages fit in the buffers, should each be answered
// with an error.
func batchLimit(receive, send int) int {
	return max(1, min(batchSize, receive/answerSize, send/messageSize))
}

func (k *kernel) Apply(changes []Change) error {
	if len(changes) == 1 && changes[0].Op == SetDown {
		if !k.slow.TryLock() {
			return &OpError{Op: "set down", Link: changes[0].Link, Err: ErrBusy}
		}
		defer k.slow.Unlock()
	}
	var first *OpError
	for part := range slices.Chunk(changes, k.most) {
		msgs := make([][]byte, len(part))
		for i, c := range part {
			msgs[i] = changeMessage(c)
		}
		errs, lost := k.submit(msgs)
		if lost != nil {
			k.compare(part, errs, lost)
		}
		for i, err := range errs {
			if err == nil || (part[i].Op == Remove || part[i].Op == SetDown) && isGone(err) {
				continue
			}
			if first == nil {
				first = changeError(part[i], err)
			} else {
				first.More++
			}
		}
	}
	if first == nil {
		return nil
	}
	return first
}

// order is one caller's part of a conversation.
type order struct {
	msgs [][]byte
	errs []error
	lost error
	done bool // guarded by kernel.batch
}

// queue holds the orders of those who wait for kernel.batch. It is as long as there
// are callers.
type queue struct {
	mu     sync.Mutex
	orders []*order
}

func (q *queue) put(o *order) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.orders = append(q.orders, o)
}

// take returns the first orders with most messages in all, and one at least.
func (q *queue) take(most int) []*order {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 1, len(q.orders[0].msgs)
	for ; n < len(q.orders) && size+len(q.orders[n].msgs) <= most; n++ {
		size += len(q.orders[n].msgs)
	}
	taken := slices.Clone(q.orders[:n])
	q.orders = slices.Delete(q.orders, 0, n)
	return taken
}

// submit has messages dealt with, together with those of others who came while a
// conversation was going on: hundreds of sets that renew at once cost a few calls.
func (k *kernel) submit(msgs [][]byte) ([]error, error) {
	o := &order{msgs: msgs}
	k.queue.put(o)
	k.batch.Lock()
	defer k.batch.Unlock()
	for !o.done {
		taken := k.queue.take(k.most)
		var all [][]byte
		for _, t := range taken {
			all = append(all, t.msgs...)
		}
		errs, lost := k.converse(all)
		for _, t := range taken {
			t.errs, t.lost, t.done = errs[:len(t.msgs):len(t.msgs)], lost, true
			errs = errs[len(t.msgs):]
		}
	}
	return o.errs, o.lost
}

func isGone(err error) bool { return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) }

func changeError(c Change, err error) *OpError {
	e := &OpError{Op: "add", Addr: c.Prefix, Link: c.Link, Err: err}
	switch c.Op {
	case Remove:
		e.Op = "remove"
	case SetUp:
		e.Op = "set up"
	case SetDown:
		e.Op = "set down"
	}
	switch {
	case errors.Is(err, unix.EPERM):
		e.Hint = capabilityHint
	case errors.Is(err, unix.ENODEV):
		e.Err = ErrNoLink
	case errors.Is(err, unix.EADDRINUSE) && c.Op == SetUp:
		e.Hint = "another interface that is up has the same MAC: see ip -d link"
	case errors.Is(err, unix.EACCES) && c.Prefix.Addr().Is6():
		e.Hint = fmt.Sprintf("IPv6 is off there: sysctl net.ipv6.conf.%s.disable_ipv6=0", c.Link)
	}
	return e
}

// converse sends messages in one call, acknowledged by the last only, and
// returns an error for each. The kernel has dealt with all of them when the send
// returns, so nothing is waited for. That answers were lost is a second error;
// what is known of each message is in errs all the same, and nothing is left to be
// read by the next conversation. k.batch is held (or nobody knows k yet).
func (k *kernel) converse(msgs [][]byte) (errs []error, lost error) {
	errs = make([]error, len(msgs))
	all := func(err error) ([]error, error) {
		for i := range errs {
			errs[i] = err
		}
		return errs, nil
	}
	if k.fd < 0 {
		return all(os.ErrClosed)
	}
	base := k.seq + 1
	k.seq += uint32(len(msgs))
	size := 0
	for _, m := range msgs {
		size += len(m)
	}
	buf := make([]byte, 0, size)
	for i, m := range msgs {
		binary.NativeEndian.PutUint32(m[8:], base+uint32(i))
		if i == len(msgs)-1 {
			flags := binary.NativeEndian.Uint16(m[6:]) | unix.NLM_F_ACK
			binary.NativeEndian.PutUint16(m[6:], flags)
		}
		buf = append(buf, m...)
	}
	if err := retryEINTR(func() error { return unix.Sendto(k.fd, buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) }); err != nil {
		return all(err)
	}
	return errs, k.answers(base, errs)
}

// answers reads the answers to the messages numbered from base into errs. An error
// says that some were lost: ENOBUFS is told once, what fitted follows it, and
// until all of that is read the kernel drops whatever else it has to say.
func (k *kernel) answers(base uint32, errs []error) (lost error) {
	if k.in == nil {
		k.in = make([]byte, 64<<10)
	}
	for range answersMax {
		var n int
		err := retryEINTR(func() (err error) { n, _, err = unix.Recvfrom(k.fd, k.in, unix.MSG_DONTWAIT); return err })
		if errors.Is(err, unix.ENOBUFS) {
			lost = err
			continue
		}
		if err != nil && lost == nil {
			lost = err
		}
		if err != nil {
			return lost
		}
		read, err := syscall.ParseNetlinkMessage(k.in[:n])
		if err != nil {
			lost = err
		}
		for _, a := range read {
			i := int(a.Header.Seq - base)
			if a.Header.Type != unix.NLMSG_ERROR || i < 0 || i >= len(errs) || len(a.Data) < 4 {
				continue // of an earlier conversation that failed
			}
			if errno := -int32(binary.NativeEndian.Uint32(a.Data)); errno != 0 {
				errs[i] = unix.Errno(errno)
			}
			if i == len(errs)-1 {
				return lost
			}
		}
	}
	return errors.New("no acknowledgement")
}

// compare judges the changes of which nothing is known, because answers were lost,
// by what is there: they have been tried, and the list is the truth.
func (k *kernel) compare(part []Change, errs []error, lost error) {
	lists := make(map[int][]Addr)
	for i, c := range part {
		if errs[i] != nil {
			continue
		}
		if c.Op == SetUp || c.Op == SetDown {
			if l, err := k.linkOf(c.Index, ""); err != nil {
				errs[i] = err
			} else if l.Up != (c.Op == SetUp) {
				errs[i] = fmt.Errorf("answer of the kernel: %w", lost)
			}
			continue
		}
		have, known := lists[c.Index]
		if !known {
			var err error
			if have, err = k.Addrs(c.Index); err != nil {
				errs[i] = fmt.Errorf("answer of the kernel: %w; list of addresses: %w", lost, err)
				continue
			}
			lists[c.Index] = have
		}
		if there := slices.ContainsFunc(have, func(a Addr) bool {
			// A Put of an IPv6 address finds it under whichever prefix length.
			return a.Prefix == c.Prefix || c.Op == Put && a.Prefix.Addr() == c.Prefix.Addr() && a.Prefix.Addr().Is6()
		}); there != (c.Op == Put) {
			errs[i] = fmt.Errorf("answer of the kernel: %w", lost)
		}
	}
}

func retryEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
