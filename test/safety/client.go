package safety

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/test/lab"
)

// DialEvery is how often the client opens a connection.
const DialEvery = 5 * time.Millisecond

// dialLimit is how long it waits for one: a SYN that is lost is sent anew after a
// second only, and the next connection tells more.
const dialLimit = 250 * time.Millisecond

// servicePort is where the servers of the nodes listen.
const servicePort = 4000

// maxAnswers bounds what a client keeps: five minutes.
const maxAnswers = 60_000

// serve answers each connection to a node with one byte, its number, until the test
// ends. It is a part of this process and does not die with the daemon.
func serve(t lab.TB, h *lab.Host, node int) {
	t.Helper()
	var l net.Listener
	err := h.DoErr(func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", servicePort))
		return err
	})
	if err != nil {
		t.Fatalf("safety: serve on %s: %v", h.Name, err)
	}
	var ended sync.WaitGroup
	ended.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // it was closed
			}
			_, _ = c.Write([]byte{byte(node)}) // the client will say
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		ended.Wait()
	})
}

// client opens connections to an address again and again, and notes when it was
// answered.
type client struct {
	addr  unix.SockaddrInet4
	stop  atomic.Bool
	ended sync.WaitGroup

	mu      sync.Mutex
	answers []int64 // stamps, ascending
}

// newClient begins to ask on a host; it ends with the test.
func newClient(t lab.TB, h *lab.Host, addr netip.Addr) *client {
	c := &client{addr: unix.SockaddrInet4{Port: servicePort, Addr: addr.As4()}}
	var failed error
	started := make(chan struct{})
	c.ended.Go(func() {
		punctual()
		failed = h.DoErr(func() error { close(started); c.run(); return nil })
		if failed != nil {
			close(started)
		}
	})
	<-started
	if failed != nil {
		t.Fatalf("safety: ask on %s: %v", h.Name, failed)
	}
	t.Cleanup(func() {
		c.stop.Store(true)
		c.ended.Wait()
	})
	return c
}

// dialling is a connection that is not answered yet.
type dialling struct {
	fd    int
	until int64
}

func (c *client) run() {
	var open []dialling
	next := stamp()
	for !c.stop.Load() {
		if d, ok := c.dial(); ok {
			open = append(open, d)
		}
		next = max(next+int64(DialEvery), stamp()-int64(DialEvery))
		for stamp() < next {
			open = c.wait(open, next)
		}
	}
	for _, d := range open {
		_ = unix.Close(d.fd)
	}
}

// dial begins a connection. It is ended by a reset, so that none lingers.
func (c *client) dial() (d dialling, ok bool) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return d, false
	}
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err = unix.Connect(fd, &c.addr); err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(fd)
		return d, false
	}
	return dialling{fd, stamp() + int64(dialLimit)}, true
}

// wait takes what is answered until an instant, and gives up what is too old. It
// returns what is still open.
func (c *client) wait(open []dialling, until int64) []dialling {
	polled := make([]unix.PollFd, len(open))
	for i, d := range open {
		polled[i] = unix.PollFd{Fd: int32(d.fd), Events: unix.POLLIN}
	}
	timeout := unix.NsecToTimespec(max(until-stamp(), 0))
	if _, err := unix.Ppoll(polled, &timeout, nil); err != nil {
		return open // interrupted
	}
	now := stamp()
	left := open[:0]
	for i, d := range open {
		switch {
		case polled[i].Revents != 0:
			c.finish(d.fd, now)
		case d.until < now:
			_ = unix.Close(d.fd)
		default:
			left = append(left, d)
		}
	}
	return left
}

// finish reads the answer, if it is one, and closes.
func (c *client) finish(fd int, now int64) {
	defer unix.Close(fd)
	var node [1]byte
	if n, err := unix.Read(fd, node[:]); err != nil || n != 1 || int(node[0]) >= nodes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.answers) < maxAnswers {
		c.answers = append(c.answers, now)
	}
}

// answered reports whether an answer came after a stamp.
func (c *client) answered(after int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.answers) > 0 && c.answers[len(c.answers)-1] > after
}

// taken returns a copy of all answers.
func (c *client) taken() []int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]int64(nil), c.answers...)
}
