package vip

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// filterSocket is a conversation with nf_tables. It is written by hand, and not the
// library's, because a table that is ours alone belongs to one socket, because the
// kernel has dealt with a batch when the send returns, so that nothing needs to be
// waited for, and because one message may carry the elements of hundreds of sets.
type filterSocket struct {
	mu  sync.Mutex
	fd  int // -1: closed
	seq uint32
	in  []byte
}

const (
	filterBuffer = 1 << 20 // bytes; the answers to a batch fit
	filterReads  = 4096    // reads for one conversation at most
)

func openFilterSocket() (*filterSocket, error) {
	fd, err := openNetlink(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1) // errors without a copy of the message
	enlarge(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	enlarge(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
	return &filterSocket{fd: fd, in: make([]byte, 64<<10)}, nil
}

func (s *filterSocket) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// port is the address of the socket, which notices of its changes carry.
func (s *filterSocket) port() (uint32, error) {
	addr, err := unix.Getsockname(s.fd)
	if nl, ok := addr.(*unix.SockaddrNetlink); ok {
		return nl.Pid, err
	}
	return 0, errors.Join(err, errors.New("the socket has no address"))
}

func (s *filterSocket) closed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fd < 0
}

// filterMessage is one message of a batch, without its netlink header.
type filterMessage struct {
	kind   uint16 // unix.NFT_MSG_...
	flags  uint16
	family byte
	attrs  attrs
}

// commit has the kernel do all of the messages, or none of them. Each answers for
// itself; the error is the first that is not nil.
func (s *filterSocket) commit(msgs ...filterMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return os.ErrClosed
	}
	base := s.seq + 1
	s.seq += uint32(len(msgs)) + 2
	buf := appendMessage(nil, unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, base, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	for i, m := range msgs {
		kind := unix.NFNL_SUBSYS_NFTABLES<<8 | m.kind
		buf = appendMessage(buf, kind, m.flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK, base+1+uint32(i), m.family, 0, m.attrs)
	}
	buf = appendMessage(buf, unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, base+1+uint32(len(msgs)), unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	if err := s.send(buf); err != nil {
		return err
	}
	return s.acknowledged(base, len(msgs))
}

func (s *filterSocket) send(buf []byte) error {
	return retryEINTR(func() error { return unix.Sendto(s.fd, buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) })
}

// acknowledged reads the answers to a batch numbered from base, and leaves nothing to
// be read by the next. s.mu is held.
func (s *filterSocket) acknowledged(base uint32, n int) error {
	var first error
	answered := 0
	for range filterReads {
		msgs, err := s.receive()
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			first = errors.Join(first, err)
			continue
		}
		for _, m := range msgs {
			if m.Header.Type != unix.NLMSG_ERROR || m.Header.Seq-base > uint32(n)+1 || len(m.Data) < 4 {
				continue // of an earlier conversation that failed
			}
			answered++
			if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 && first == nil {
				first = unix.Errno(errno)
			}
		}
	}
	if first == nil && answered < n {
		first = errors.New("the kernel did not acknowledge")
	}
	return first
}

// receive reads what has arrived; EAGAIN says that this is all. s.mu is held.
func (s *filterSocket) receive() ([]syscall.NetlinkMessage, error) {
	var n int
	err := retryEINTR(func() (err error) { n, _, err = unix.Recvfrom(s.fd, s.in, unix.MSG_DONTWAIT); return err })
	if err != nil {
		return nil, err
	}
	return syscall.ParseNetlinkMessage(s.in[:n])
}

// dump lists objects: f gets the attributes of each.
func (s *filterSocket) dump(kind uint16, family byte, of attrs, f func(map[uint16][]byte)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return os.ErrClosed
	}
	s.seq++
	request := appendMessage(nil, unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, s.seq, family, 0, of)
	if err := s.send(request); err != nil {
		return err
	}
	for range filterReads {
		msgs, err := s.receive()
		if err != nil {
			return err
		}
		for _, m := range msgs {
			switch {
			case m.Header.Seq != s.seq:
			case m.Header.Type == unix.NLMSG_DONE:
				return nil
			case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
				if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
					return unix.Errno(errno)
				}
				return nil
			case len(m.Data) >= nfgenSize:
				f(parseAttrs(m.Data[nfgenSize:]))
			}
		}
	}
	return errors.New("the list does not end")
}

// get asks for what a message names; the error is ENOENT if some of it is not there. The
// answers are not kept.
func (s *filterSocket) get(m filterMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return os.ErrClosed
	}
	s.seq++
	err := s.send(appendMessage(nil, unix.NFNL_SUBSYS_NFTABLES<<8|m.kind, m.flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK, s.seq, m.family, 0, m.attrs))
	if err != nil {
		return err
	}
	return s.acknowledged(s.seq, 1)
}

const nfgenSize = 4 // struct nfgenmsg

func appendMessage(buf []byte, kind, flags uint16, seq uint32, family byte, resource uint16, body attrs) []byte {
	buf = binary.NativeEndian.AppendUint32(buf, uint32(unix.NLMSG_HDRLEN+nfgenSize+len(body)))
	buf = binary.NativeEndian.AppendUint16(buf, kind)
	buf = binary.NativeEndian.AppendUint16(buf, flags)
	buf = binary.NativeEndian.AppendUint32(buf, seq)
	buf = binary.NativeEndian.AppendUint32(buf, 0)
	buf = append(buf, family, unix.NFNETLINK_V0)
	buf = binary.BigEndian.AppendUint16(buf, resource)
	return append(buf, body...)
}

// attrs are netlink attributes, each padded to four bytes. Numbers are big-endian, as
// nf_tables wants them.
type attrs []byte

func (a attrs) bytes(kind uint16, value []byte) attrs {
	a = binary.NativeEndian.AppendUint16(a, uint16(unix.NLA_HDRLEN+len(value)))
	a = binary.NativeEndian.AppendUint16(a, kind)
	a = append(a, value...)
	for len(a)%unix.NLA_ALIGNTO != 0 {
		a = append(a, 0)
	}
	return a
}

func (a attrs) text(kind uint16, value string) attrs { return a.bytes(kind, append([]byte(value), 0)) }

func (a attrs) number(kind uint16, value uint32) attrs {
	return a.bytes(kind, binary.BigEndian.AppendUint32(nil, value))
}

func (a attrs) long(kind uint16, value uint64) attrs {
	return a.bytes(kind, binary.BigEndian.AppendUint64(nil, value))
}

func (a attrs) nest(kind uint16, inside attrs) attrs { return a.bytes(kind|unix.NLA_F_NESTED, inside) }

// parseAttrs returns the attributes by kind, the last of each; it stops at the first
// that is malformed.
func parseAttrs(b []byte) map[uint16][]byte {
	out := make(map[uint16][]byte)
	_ = eachAttr(b, func(kind uint16, value []byte) { out[kind] = value })
	return out
}

// eachAttr calls f for each attribute in order.
func eachAttr(b []byte, f func(kind uint16, value []byte)) error {
	for len(b) >= unix.NLA_HDRLEN {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.NLA_HDRLEN || size > len(b) {
			return errors.New("malformed attribute")
		}
		f(binary.NativeEndian.Uint16(b[2:])&^uint16(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.NLA_HDRLEN:size])
		b = b[min(len(b), (size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
	}
	return nil
}
