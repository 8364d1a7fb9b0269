package check

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// netlinkBuffer is enough for any answer of the kernel's: it splits them at 32 KiB.
	netlinkBuffer = 64 << 10
	// netlinkMax bounds one whole answer, which is many routes.
	netlinkMax = 16 << 20
)

// ask sends one request to the kernel's routing tables and returns the answers, or the
// kernel's error as a unix.Errno. The kernel answers at once, so that ctx is looked at
// between the parts of an answer only.
func ask(ctx context.Context, kind, flags uint16, body []byte) ([]syscall.NetlinkMessage, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	defer unix.Close(fd)
	wait := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return nil, fmt.Errorf("set up a netlink socket: %w", err)
	}
	// Without it a dump of the kernel leaves out nothing but ignores what is asked for.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	request := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	request = binary.NativeEndian.AppendUint16(request, kind)
	request = binary.NativeEndian.AppendUint16(request, unix.NLM_F_REQUEST|flags)
	request = binary.NativeEndian.AppendUint32(request, 1)
	request = binary.NativeEndian.AppendUint32(request, 0)
	if err := unix.Sendto(fd, append(request, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("ask the kernel: %w", err)
	}
	return answers(ctx, fd, flags&unix.NLM_F_DUMP != 0)
}

func answers(ctx context.Context, fd int, dump bool) (all []syscall.NetlinkMessage, err error) {
	for size := 0; size < netlinkMax; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		buf := make([]byte, netlinkBuffer)
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, fmt.Errorf("hear from the kernel: %w", err)
		}
		parts, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, fmt.Errorf("hear from the kernel: %w", err)
		}
		for _, m := range parts {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return all, nil
			case unix.NLMSG_ERROR:
				if len(m.Data) < 4 {
					return nil, errors.New("hear from the kernel: an error without a number")
				}
				if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
					return nil, unix.Errno(-code)
				}
				return all, nil
			}
			all = append(all, m)
		}
		if !dump {
			return all, nil
		}
		size += n
	}
	return nil, fmt.Errorf("the kernel's answer is longer than %d MiB", netlinkMax>>20)
}

// attributes splits what follows the fixed part of a message, by type. A later one of the
// same type wins.
func attributes(b []byte) map[uint16][]byte {
	all := map[uint16][]byte{}
	for len(b) >= unix.SizeofRtAttr {
		length, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&^uint16(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)
		if length < unix.SizeofRtAttr || length > len(b) {
			break
		}
		all[kind] = b[unix.SizeofRtAttr:length]
		b = b[min((length+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b)):]
	}
	return all
}

func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	for len(b)%unix.RTA_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

func number(b []byte) (n uint32, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	return binary.NativeEndian.Uint32(b), true
}

// listen calls look whenever the kernel tells something in these groups, until ctx ends.
// It tells without saying what: the next look sees it. What is lost when the queue is
// full is such a reason, too.
func listen(ctx context.Context, groups uint32, look func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	socket := os.NewFile(uintptr(fd), "netlink")
	end := sync.OnceFunc(func() { _ = socket.Close() })
	defer end()
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, end)()
	buf := make([]byte, netlinkBuffer)
	for {
		switch _, err := socket.Read(buf); {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return err
		}
		look()
	}
}
