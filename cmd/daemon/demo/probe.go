package demo

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The client sends an ICMP echo each probeInterval, and no more than maxProbes:
// more than a demo can last.
const (
	probeInterval = time.Millisecond
	maxProbes     = 90_000
	probeID       = 0xca49
)

// prober is the client: it asks an IPv4 address again and again, through the
// kernel's ordinary ARP cache, and remembers when answers came.
type prober struct {
	dst   netip.Addr
	file  *os.File
	stop  chan struct{}
	ended sync.WaitGroup

	mu      sync.Mutex
	sent    int
	answers []time.Time // ascending
}

func newProber(h *host, dst netip.Addr) (*prober, error) {
	p := &prober{dst: dst, stop: make(chan struct{})}
	err := h.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
		if err == nil {
			p.file = os.NewFile(uintptr(fd), "icmp")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("demo: open ICMP socket: %w", err)
	}
	p.ended.Add(2)
	go p.send()
	go p.receive()
	return p, nil
}

// send sleeps on a thread of its own: Go's timers are up to 1 ms late.
func (p *prober) send() {
	defer p.ended.Done()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	conn, err := p.file.SyscallConn()
	if err != nil {
		return
	}
	to := &unix.SockaddrInet4{Addr: p.dst.As4()}
	var next unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &next) // cannot fail
	for seq := range maxProbes {
		select {
		case <-p.stop:
			return
		default:
		}
		msg := echoRequest(uint16(seq))
		// A failure shows as a missing answer.
		if conn.Control(func(fd uintptr) { _ = unix.Sendto(int(fd), msg, unix.MSG_DONTWAIT, to) }) != nil {
			return
		}
		p.mu.Lock()
		p.sent++
		p.mu.Unlock()
		next = unix.NsecToTimespec(next.Nano() + int64(probeInterval))
		for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &next, nil) == unix.EINTR {
		}
	}
}

func (p *prober) receive() {
	defer p.ended.Done()
	buf := make([]byte, 2048)
	for {
		n, err := p.file.Read(buf)
		at := time.Now()
		if err != nil {
			select {
			case <-p.stop:
				return
			default:
				continue // an ICMP error was queued on the socket
			}
		}
		if isEchoReply(buf[:n], p.dst) {
			p.mu.Lock()
			p.answers = append(p.answers, at)
			p.mu.Unlock()
		}
	}
}

// echoRequest builds an ICMP echo request (RFC 792).
func echoRequest(seq uint16) []byte {
	msg := []byte{8, 0, 0, 0, probeID >> 8, probeID & 0xff, byte(seq >> 8), byte(seq)}
	sum := uint32(8<<8) + probeID + uint32(seq)
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(msg[2:], ^uint16(sum+sum>>16))
	return msg
}

// isEchoReply reports whether an IPv4 packet answers one of our requests.
func isEchoReply(b []byte, from netip.Addr) bool {
	if len(b) < 20 || netip.AddrFrom4([4]byte(b[12:])) != from {
		return false
	}
	header := int(b[0]&15) * 4
	return header >= 20 && len(b) >= header+8 && b[header] == 0 && binary.BigEndian.Uint16(b[header+4:]) == probeID
}

func (p *prober) close() {
	close(p.stop)
	_ = p.file.Close()
	p.ended.Wait()
}

// answeredSince reports whether an answer came after t.
func (p *prober) answeredSince(t time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.answers) > 0 && p.answers[len(p.answers)-1].After(t)
}

// longest returns the longest time without an answer from mark until now.
func (p *prober) longest(mark time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return longestGap(p.answers, mark, time.Now())
}

// longestGap returns the longest gap between answers within [from, to]; both
// ends count as answers.
func longestGap(answers []time.Time, from, to time.Time) time.Duration {
	last, gap := from, time.Duration(0)
	for _, at := range answers {
		if at.After(from) && at.Before(to) {
			gap, last = max(gap, at.Sub(last)), at
		}
	}
	return max(gap, to.Sub(last))
}

// counts returns how many requests were sent and how many were answered.
func (p *prober) counts() (sent, answered int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent, len(p.answers)
}
