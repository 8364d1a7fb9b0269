package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/carp"
)

// netlinkBuffer holds any datagram of rtnetlink: a dump's part has at most 32
// KiB, a link with its statistics less.
const netlinkBuffer = 64 << 10

// maxReadings bounds how often a reading that was overtaken by a change is
// begun again at once.
const maxReadings = 4

// operational states of RFC 2863 as the kernel counts them (IF_OPER_*).
const (
	operUnknown = 0
	operUp      = 6
)

// openNetlink opens an rtnetlink socket that gets the notes of groups.
func openNetlink(groups uint32, flags int) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|flags, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	// The kernel then lists the addresses of one interface only; older ones list
	// all, and addressOf leaves out the others.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return fd, nil
}

// reader asks rtnetlink for the present state of an interface. It is used by one
// goroutine at a time.
type reader struct {
	fd  int
	seq uint32
	buf [netlinkBuffer]byte
}

func newReader() (*reader, error) {
	fd, err := openNetlink(0, 0)
	if err != nil {
		return nil, err
	}
	// The answer is there when the request returns; the bound is for kernels
	// that prove that wrong.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &reader{fd: fd}, nil
}

// read returns the state of the named interface; index 0 if there is none.
func (r *reader) read(name string) (*state, error) {
	var err error
	for range maxReadings {
		var s *state
		if s, err = r.readOnce(name); err == nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("read interface %s: %w", name, err)
}

func (r *reader) readOnce(name string) (*state, error) {
	s := &state{flags: map[netip.Addr]uint32{}}
	err := r.ask(unix.RTM_GETLINK, 0, linkRequest(name), func(m syscall.NetlinkMessage) {
		// An alternative name finds the interface too, but only the name counts.
		if found, ok := linkOf(m); ok && found.name == name {
			s.index, s.up, s.mac = found.index, found.up, found.mac
		}
	})
	if errors.Is(err, unix.ENODEV) || err == nil && s.index == 0 {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	err = r.ask(unix.RTM_GETADDR, unix.NLM_F_DUMP, addressRequest(s.index), func(m syscall.NetlinkMessage) {
		if index, a, ok := addressOf(m); ok && index == s.index {
			s.addresses = append(s.addresses, a)
			s.flags[a.addr] = a.flags
		}
	})
	return s, err
}

// ask sends one request and gives each answer to handle.
func (r *reader) ask(kind, flags uint16, body []byte, handle func(syscall.NetlinkMessage)) error {
	r.seq++
	request := make([]byte, 0, unix.SizeofNlMsghdr+len(body))
	request = binary.NativeEndian.AppendUint32(request, uint32(unix.SizeofNlMsghdr+len(body)))
	request = binary.NativeEndian.AppendUint16(request, kind)
	request = binary.NativeEndian.AppendUint16(request, unix.NLM_F_REQUEST|flags)
	request = binary.NativeEndian.AppendUint32(request, r.seq)
	request = binary.NativeEndian.AppendUint32(request, 0)
	request = append(request, body...)
	if err := unix.Sendto(r.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for {
		n, _, err := unix.Recvfrom(r.fd, r.buf[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		done, err := r.answer(r.buf[:n], flags&unix.NLM_F_DUMP != 0, handle)
		if done || err != nil {
			return err
		}
	}
}

var errOvertaken = errors.New("the list changed while it was read")

// answer reads one datagram and reports whether it was the last one. What
// belongs to an earlier request, given up half-way, is skipped.
func (r *reader) answer(b []byte, dump bool, handle func(syscall.NetlinkMessage)) (done bool, err error) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return true, err
	}
	for _, m := range messages {
		if m.Header.Seq != r.seq {
			continue
		}
		if m.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
			return true, errOvertaken
		}
		switch m.Header.Type {
		case unix.NLMSG_DONE: // with the errno of a dump that failed half-way
			if len(m.Data) < 4 {
				return true, nil
			}
			return true, errnoOf(m.Data)
		case unix.NLMSG_ERROR:
			if len(m.Data) < 4 {
				return true, unix.EPROTO
			}
			return true, errnoOf(m.Data)
		}
		handle(m)
		if !dump {
			return true, nil
		}
	}
	return false, nil
}

// errnoOf reads the negative errno that a message begins with.
func errnoOf(data []byte) error {
	if code := int32(binary.NativeEndian.Uint32(data)); code < 0 {
		return unix.Errno(-code)
	}
	return nil
}

// linkRequest is the body of RTM_GETLINK for one name: ifinfomsg and IFLA_IFNAME.
func linkRequest(name string) []byte {
	b := make([]byte, unix.SizeofIfInfomsg, unix.SizeofIfInfomsg+4+unix.IFNAMSIZ)
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(name)+1))
	b = binary.NativeEndian.AppendUint16(b, unix.IFLA_IFNAME)
	b = append(b, name...)
	b = append(b, 0)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// addressRequest is the body of RTM_GETADDR for one interface: ifaddrmsg.
func addressRequest(index int) []byte {
	return binary.NativeEndian.AppendUint32(make([]byte, 4, unix.SizeofIfAddrmsg), uint32(index))
}

// attributes walks the attributes (struct rtattr) in b as far as they are whole.
// The parser of package syscall panics if the last one lacks its padding.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			length := int(binary.NativeEndian.Uint16(b))
			if length < unix.SizeofRtAttr || length > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofRtAttr:length]) {
				return
			}
			b = b[min((length+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b)):]
		}
	}
}

// foundLink is what a link message says.
type foundLink struct {
	index int
	name  string
	up    bool
	mac   carp.MAC
}

// linkOf reads RTM_NEWLINK and RTM_DELLINK.
func linkOf(m syscall.NetlinkMessage) (foundLink, bool) {
	if m.Header.Type != unix.RTM_NEWLINK && m.Header.Type != unix.RTM_DELLINK || len(m.Data) < unix.SizeofIfInfomsg {
		return foundLink{}, false
	}
	found := foundLink{index: int(int32(binary.NativeEndian.Uint32(m.Data[4:])))}
	admin := binary.NativeEndian.Uint32(m.Data[8:])&unix.IFF_UP != 0
	oper := byte(operUnknown)
	for kind, value := range attributes(m.Data[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			found.name = unix.ByteSliceToString(value)
		case unix.IFLA_OPERSTATE:
			if len(value) == 1 {
				oper = value[0]
			}
		case unix.IFLA_ADDRESS:
			if len(value) == len(found.mac) {
				found.mac = carp.MAC(value)
			}
		}
	}
	found.up = admin && (oper == operUp || oper == operUnknown)
	return found, true
}

// addressOf reads RTM_NEWADDR and RTM_DELADDR. On a point-to-point link the own
// address is IFA_LOCAL, and IFA_ADDRESS is the other end's.
func addressOf(m syscall.NetlinkMessage) (index int, found address, ok bool) {
	if m.Header.Type != unix.RTM_NEWADDR && m.Header.Type != unix.RTM_DELADDR || len(m.Data) < unix.SizeofIfAddrmsg {
		return 0, address{}, false
	}
	found.flags = uint32(m.Data[2])
	index = int(binary.NativeEndian.Uint32(m.Data[4:]))
	for kind, value := range attributes(m.Data[unix.SizeofIfAddrmsg:]) {
		switch kind {
		case unix.IFA_LOCAL:
			found.addr, ok = netip.AddrFromSlice(value)
		case unix.IFA_ADDRESS:
			if !found.addr.IsValid() {
				found.addr, ok = netip.AddrFromSlice(value)
			}
		case unix.IFA_FLAGS:
			if len(value) == 4 {
				found.flags = binary.NativeEndian.Uint32(value)
			}
		}
	}
	return index, found, ok
}

// concerns reports whether a note may change what is known of the named
// interface. An address renewed as it was, which happens several times a second
// for each address under a lease, does not.
func concerns(m syscall.NetlinkMessage, name string, known *state) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		found, ok := linkOf(m)
		return !ok || found.name == name || found.index == known.index
	case unix.RTM_NEWADDR:
		index, a, ok := addressOf(m)
		if !ok || index != known.index {
			return !ok
		}
		flags, had := known.flags[a.addr]
		return !had || flags != a.flags
	case unix.RTM_DELADDR:
		index, _, ok := addressOf(m)
		return !ok || index == known.index
	}
	return false
}

// deletes reports whether a note says that the known interface is no more. A
// port that leaves a bridge is told with the same type, but its own family.
func deletes(m syscall.NetlinkMessage, known *state) bool {
	found, ok := linkOf(m)
	return ok && m.Header.Type == unix.RTM_DELLINK && m.Data[0] == unix.AF_UNSPEC && found.index == known.index
}
