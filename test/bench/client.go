package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/test/lab"
)

// client asks an address each millisecond by ICMP echo, through its host's ordinary
// ARP cache, and keeps the kernel's stamp of each answer. Its sender is the pulse.
type client struct {
	*pulse
	addr    netip.Addr
	fd      int
	stopped atomic.Bool
	ended   sync.WaitGroup

	mu      sync.Mutex
	answers []int64 // stamps, ascending
}

// newClient begins to ask. It is ended by stop.
func newClient(h *lab.Host, addr netip.Addr, expected time.Duration) (*client, error) {
	c := &client{addr: addr, answers: make([]int64, 0, expected/beat)}
	if err := h.DoErr(c.open); err != nil {
		return nil, fmt.Errorf("bench: open a socket for ICMP on %s: %w", h.Name, err)
	}
	c.ended.Go(c.receive)
	to := &unix.SockaddrInet4{Addr: addr.As4()}
	packet := []byte{8, 0, 0, 0, 0xca, 0x4b, 0, 0} // echo request, an identifier
	c.pulse = newPulse(expected, func(n int) {
		binary.BigEndian.PutUint16(packet[6:], uint16(n))
		binary.BigEndian.PutUint16(packet[2:], 0)
		binary.BigEndian.PutUint16(packet[2:], internetSum(packet))
		_ = unix.Sendto(c.fd, packet, unix.MSG_DONTWAIT, to) // the missing answer tells of it
	})
	return c, nil
}

func (c *client) open() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	const echoReply = 0
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1<<echoReply)),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}), // how late the end may be noticed
	)
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	c.fd = fd
	return nil
}

// icmpFilter is ICMP_FILTER of linux/icmp.h: the types that are not to be received.
const icmpFilter = 1

func (c *client) receive() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	buf, oob := make([]byte, 256), make([]byte, 128)
	for !c.stopped.Load() {
		n, noob, _, _, err := unix.Recvmsg(c.fd, buf, oob, 0)
		if err != nil || n < 20 || netip.AddrFrom4([4]byte(buf[12:])) != c.addr {
			continue
		}
		at := stampOf(oob[:noob])
		c.mu.Lock()
		if len(c.answers) < maxBeats {
			c.answers = append(c.answers, at)
		}
		c.mu.Unlock()
	}
}

// stampOf reads the kernel's stamp of a message; now, if there is none.
func stampOf(oob []byte) int64 {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range messages {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
				return int64(binary.NativeEndian.Uint64(m.Data))*1e9 + int64(binary.NativeEndian.Uint64(m.Data[8:]))
			}
		}
	}
	return stamp()
}

// answered reports whether an answer came after a stamp.
func (c *client) answered(after int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.answers) > 0 && c.answers[len(c.answers)-1] > after
}

// stop ends the asking, and returns when answers came and how late questions were.
func (c *client) stop() (answers []int64, late []time.Duration) {
	late = c.pulse.stop()
	c.stopped.Store(true)
	c.ended.Wait()
	_ = unix.Close(c.fd)
	return c.answers, late
}

// longest returns the longest time without an answer between two stamps, both of
// which end it as an answer does, and when it began.
func longest(answers []int64, from, to int64) (gap time.Duration, began int64) {
	last := from
	widen := func(at int64) {
		if d := time.Duration(at - last); d > gap {
			gap, began = d, last
		}
		last = at
	}
	for _, at := range answers {
		if at > from && at <= to {
			widen(at)
		}
	}
	widen(to)
	return gap, began
}

// internetSum is the checksum of RFC 1071 of an even number of bytes.
func internetSum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
