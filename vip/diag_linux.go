package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	destroyBatch  = 500 // requests in one send
	severPasses   = 4   // sockets that come while others go are met by the next pass
	diagHeader    = 56  // struct inet_diag_req_v2
	diagAnswer    = 72  // struct inet_diag_msg
	diagID        = 48  // struct inet_diag_sockid, in both of them
	tcpListen     = 10  // TCP_LISTEN
	tcpTimeWait   = 6   // TCP_TIME_WAIT: nobody holds such a socket
	udpConnected  = 1   // TCP_ESTABLISHED, which is what a connected UDP socket is
	everyTCPState = 1<<13 - 1
)

// diag destroys sockets by SOCK_DIAG (Linux 4.5). Both of its netlink sockets belong
// to the network namespace in which they were opened, as everything of kernel does.
type diag struct {
	waiting severQueue
	turn    chan struct{} // capacity 1: whoever has put its token in may use what follows
	list    int           // dumps; -1: not open
	kill    int           // destroys
	seq     uint32
	broken  error // why there is nothing to be done
	pending bool  // the answer to an earlier dump was not read to its end
	in      []byte
}

func (d *diag) open() (err error) {
	d.list, d.kill, d.turn = -1, -1, make(chan struct{}, 1)
	defer func() { d.broken = err }()
	for _, fd := range []*int{&d.list, &d.kill} {
		if *fd, err = openNetlink(unix.NETLINK_SOCK_DIAG); err != nil {
			return err
		}
		enlarge(*fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
		// A kernel that does not answer must not keep addresses on.
		_ = unix.SetsockoptTimeval(*fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	}
	d.in = make([]byte, 64<<10)
	return nil
}

func (d *diag) close() {
	if d.turn == nil {
		return // never opened
	}
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	d.broken = os.ErrClosed
	for _, fd := range []*int{&d.list, &d.kill} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// severOrder is one call of Sever.
type severOrder struct {
	index int
	addrs []netip.Addr
	done  chan struct{} // closed when n and err say what came of it
	n     int
	err   error
}

// severQueue holds the calls that wait for a pass. It is as long as there are callers.
type severQueue struct {
	mu     sync.Mutex
	orders []*severOrder
}

func (q *severQueue) put(o *severOrder) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.orders = append(q.orders, o)
}

// drop takes an order out again, and reports whether it was still there: it must not be
// carried out when nobody waits for it, since the addresses may be on again by then.
func (q *severQueue) drop(o *severOrder) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.orders, o)
	if i >= 0 {
		q.orders = slices.Delete(q.orders, i, i+1)
	}
	return i >= 0
}

func (q *severQueue) takeAll() []*severOrder {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.orders
	q.orders = nil
	return all
}

// Sever implements Kernel. To look through all sockets costs the same for one address
// as for thousands, so calls that come while another looks wait and then go together:
// hundreds of sets that leave at once cost a few looks.
func (k *kernel) Sever(ctx context.Context, index int, addrs []netip.Addr) (int, error) {
	d := &k.diag
	o := &severOrder{index: index, addrs: addrs, done: make(chan struct{})}
	d.waiting.put(o)
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-o.done: // another caller has done it
		return o.n, o.err
	case <-ctx.Done():
		if d.waiting.drop(o) {
			return 0, ctx.Err()
		}
		<-o.done // under way
		return o.n, o.err
	}
	k.sever(ctx, d.waiting.takeAll())
	<-o.done
	return o.n, o.err
}

// sever carries out orders. The caller has the turn.
func (k *kernel) sever(ctx context.Context, orders []*severOrder) {
	if len(orders) == 0 {
		return // the one before has done ours
	}
	d := &k.diag
	ours := make(map[netip.Addr]*severOrder)
	for _, o := range orders {
		for _, a := range o.addrs {
			ours[a.Unmap()] = o
		}
	}
	err := d.broken
	if err == nil {
		err = d.passes(ctx, &targets{ours: ours, spare: k.elsewhere})
	}
	for _, o := range orders {
		if o.err = err; err != nil {
			o.err = severError(err)
		}
		close(o.done)
	}
}

// targets are the addresses whose sockets are destroyed.
type targets struct {
	ours  map[netip.Addr]*severOrder
	spare func(map[netip.Addr]*severOrder) error // takes out what is not to be touched
	asked bool                                   // which is asked only if there is a socket
}

func (t *targets) has(family byte, id []byte) bool { return t.ours[sourceOf(family, id)] != nil }

// passes goes through the sockets until a pass finds none.
func (d *diag) passes(ctx context.Context, t *targets) error {
	for range severPasses {
		n, err := d.pass(ctx, t)
		if err != nil || n == 0 {
			return err
		}
	}
	return nil
}

func severError(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := &OpError{Op: "destroy sockets", Err: err}
	switch {
	case errors.Is(err, unix.EPERM):
		e.Hint = capabilityHint
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPROTONOSUPPORT):
		e.Err = ErrNoSever
		e.Hint = "it needs CONFIG_INET_DIAG_DESTROY, and the modules tcp_diag and udp_diag"
	}
	return e
}

// elsewhere takes out of addrs those that another interface has than the one that they
// leave.
func (k *kernel) elsewhere(addrs map[netip.Addr]*severOrder) error {
	msgs, err := k.dumpAddrs(0)
	if err != nil {
		return err
	}
	for _, m := range msgs {
		a, on, ok := parseAddr(m)
		if o := addrs[a.Prefix.Addr()]; ok && o != nil && on != o.index {
			delete(addrs, a.Prefix.Addr())
		}
	}
	return nil
}

// pass goes once through the sockets of both protocols and families and destroys
// those of t. It ends early with ctx, after a batch.
func (d *diag) pass(ctx context.Context, t *targets) (total int, err error) {
	families := []byte{unix.AF_INET6} // among which there are sockets of IPv4
	for a := range t.ours {
		if a.Is4() {
			families = []byte{unix.AF_INET, unix.AF_INET6}
			break
		}
	}
	for _, family := range families {
		for _, kind := range []socketKind{
			{family, unix.IPPROTO_TCP, everyTCPState &^ (1<<tcpListen | 1<<tcpTimeWait)},
			{family, unix.IPPROTO_UDP, 1 << udpConnected},
		} {
			n, err := d.sweep(ctx, kind, t)
			total += n
			if err != nil {
				return total, err
			}
		}
	}
	return total, nil
}

// socketKind is what one dump lists.
type socketKind struct {
	family, protocol byte
	states           uint32
}

// sweep lists the sockets of one kind and destroys those of t, a batch at a time.
func (d *diag) sweep(ctx context.Context, kind socketKind, t *targets) (total int, err error) {
	if err := d.begin(kind); err != nil {
		return 0, err
	}
	var batch [][]byte
	for {
		ids, done, err := d.next()
		if err != nil {
			return total, err
		}
		for _, id := range ids {
			if t.has(kind.family, id) {
				batch = append(batch, id)
			}
		}
		over := ctx.Err()
		if done || over != nil || len(batch) >= destroyBatch {
			n, err := d.destroyAll(kind, batch, t)
			total, batch = total+n, nil
			if err != nil {
				return total, err
			}
		}
		if done || over != nil {
			return total, over
		}
	}
}

// destroyAll destroys the sockets with these ids that are to be touched.
func (d *diag) destroyAll(kind socketKind, ids [][]byte, t *targets) (int, error) {
	if len(ids) > 0 && !t.asked {
		t.asked = true
		if err := t.spare(t.ours); err != nil {
			return 0, err
		}
	}
	var requests [][]byte
	var orders []*severOrder
	for _, id := range ids {
		if o := t.ours[sourceOf(kind.family, id)]; o != nil {
			kind.states = ^uint32(0)
			requests = append(requests, d.message(unix.SOCK_DESTROY, unix.NLM_F_ACK, kind, id))
			orders = append(orders, o)
		}
	}
	total := 0
	for len(requests) > 0 {
		some := min(destroyBatch, len(requests))
		n, err := d.destroy(requests[:some], orders[:some])
		total += n
		if err != nil {
			return total, err
		}
		requests, orders = requests[some:], orders[some:]
	}
	return total, nil
}

// begin asks for all sockets of a kind.
func (d *diag) begin(kind socketKind) error {
	for d.pending { // the kernel refuses a second dump before the first is read
		if _, _, err := d.next(); err != nil {
			return err
		}
	}
	m := d.message(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, kind, nil)
	if err := retryEINTR(func() error { return unix.Sendto(d.list, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) }); err != nil {
		return err
	}
	d.pending = true
	return nil
}

// next reads a part of the list: the sockets' ids, and whether it was the last part.
func (d *diag) next() (ids [][]byte, done bool, err error) {
	var n int
	err = retryEINTR(func() (err error) { n, _, err = unix.Recvfrom(d.list, d.in, 0); return err })
	if err != nil {
		d.pending = false
		return nil, true, fmt.Errorf("list sockets: %w", err)
	}
	msgs, err := syscall.ParseNetlinkMessage(d.in[:n])
	if err != nil {
		return nil, false, fmt.Errorf("list sockets: %w", err)
	}
	for _, m := range msgs {
		switch m.Header.Type {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			d.pending = false
			if len(m.Data) >= 4 {
				if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno > 0 {
					return ids, true, fmt.Errorf("list sockets: %w", unix.Errno(errno))
				}
			}
			return ids, true, nil
		case unix.SOCK_DIAG_BY_FAMILY:
			if len(m.Data) >= diagAnswer {
				ids = append(ids, append([]byte(nil), m.Data[4:4+diagID]...))
			}
		}
	}
	return ids, false, nil
}

// sourceOf returns the local address in an inet_diag_sockid.
func sourceOf(family byte, id []byte) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(id[4:8]))
	}
	return netip.AddrFrom16([16]byte(id[4:20])).Unmap()
}

func (d *diag) message(kind, flags uint16, of socketKind, id []byte) []byte {
	d.seq++
	m := make([]byte, unix.SizeofNlMsghdr+diagHeader)
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|flags)
	binary.NativeEndian.PutUint32(m[8:], d.seq)
	m[16], m[17] = of.family, of.protocol
	binary.NativeEndian.PutUint32(m[20:], of.states)
	copy(m[24:], id)
	return m
}

// destroy sends requests, of these orders, in one call and returns how many did what
// they should. A socket that is gone already is no error.
func (d *diag) destroy(requests [][]byte, orders []*severOrder) (done int, err error) {
	if err := retryEINTR(func() error {
		return unix.Sendto(d.kill, slices.Concat(requests...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}); err != nil {
		return 0, err
	}
	first := binary.NativeEndian.Uint32(requests[0][8:])
	for answered := 0; answered < len(requests); {
		var n int
		// The kernel has answered all of it when the send returns.
		got := retryEINTR(func() (err error) { n, _, err = unix.Recvfrom(d.kill, d.in, unix.MSG_DONTWAIT); return err })
		if errors.Is(got, unix.EAGAIN) || errors.Is(got, unix.ENOBUFS) {
			return done, err // answers were lost: the next pass tells what is left
		}
		if got != nil {
			return done, got
		}
		msgs, bad := syscall.ParseNetlinkMessage(d.in[:n])
		if bad != nil {
			return done, bad
		}
		for _, m := range msgs {
			i := m.Header.Seq - first
			if m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 || i >= uint32(len(requests)) {
				continue // of an earlier call that failed
			}
			answered++
			switch errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data))); {
			case errno == 0:
				done++
				orders[i].n++
			case errno != unix.ENOENT && err == nil:
				err = errno
			}
		}
	}
	return done, err
}
