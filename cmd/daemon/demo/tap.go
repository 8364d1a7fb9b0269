package demo

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxCapture bounds the capture file.
const maxCapture = 64 << 20

// tap writes what the hosts send to a pcapng file: each frame once, at the port
// of the switch where it comes in.
type tap struct {
	socket *os.File
	out    *os.File
	done   chan struct{}
	err    error // valid after done
	frames int   // valid after done
}

// newTap begins to capture at the ports, which have the names of their hosts.
func newTap(path string, ports []string) (*tap, error) {
	ids := map[int]int{}
	for i, port := range ports {
		link, err := net.InterfaceByName(port)
		if err != nil {
			return nil, fmt.Errorf("demo: find port %s: %w", port, err)
		}
		ids[link.Index] = i
	}
	out, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("demo: write capture: %w", err)
	}
	buffered := bufio.NewWriterSize(out, 1<<16)
	file, err := newPcapng(buffered, maxCapture, ports)
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	socket, err := openTap()
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	t := &tap{socket: socket, out: out, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		t.err = t.record(file, ids)
		if err := buffered.Flush(); t.err == nil && err != nil {
			t.err = fmt.Errorf("demo: write capture: %w", err)
		}
	}()
	return t, nil
}

// openTap opens a packet socket for whatever comes into this namespace.
func openTap() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("demo: open packet socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // the default will do
	all := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all}),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("demo: set up packet socket: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "tap"), nil
}

func (t *tap) record(file *pcapng, ids map[int]int) error {
	conn, err := t.socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("demo: read frames: %w", err)
	}
	buf, oob := make([]byte, 1<<16), make([]byte, 256)
	for {
		var n, noob int
		var from unix.Sockaddr
		var got error
		if conn.Read(func(fd uintptr) bool {
			n, noob, _, from, got = unix.Recvmsg(int(fd), buf, oob, 0)
			return got != unix.EAGAIN
		}) != nil {
			return nil // closed
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if got != nil || !ok {
			continue
		}
		if id, known := ids[link.Ifindex]; known {
			if err := file.write(id, stamp(oob[:noob]), buf[:n]); err != nil {
				return err
			}
			t.frames++
		}
	}
}

// stamp reads the kernel's time stamp of a message.
func stamp(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range messages {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
				sec := binary.NativeEndian.Uint64(m.Data)
				return time.Unix(int64(sec), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			}
		}
	}
	return time.Now()
}

// close ends the capture and returns the number of frames written.
func (t *tap) close() (int, error) {
	_ = t.socket.Close()
	<-t.done
	if err := t.out.Close(); t.err == nil && err != nil {
		t.err = fmt.Errorf("demo: write capture: %w", err)
	}
	return t.frames, t.err
}
