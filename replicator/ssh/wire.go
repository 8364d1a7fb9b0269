package ssh

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// wire is a connection that counts what is sent, keeps to a bandwidth and waits for
// nothing for ever.
type wire struct {
	net.Conn
	timeout time.Duration // of each read and write
	pace    pace
	sent    atomic.Int64
	over    chan struct{} // closed by Close
	close   func() error
}

func newWire(c net.Conn, timeout time.Duration, bandwidth int64) *wire {
	w := &wire{Conn: c, timeout: timeout, pace: pace{rate: bandwidth}, over: make(chan struct{})}
	w.close = sync.OnceValue(func() error {
		close(w.over)
		return c.Close()
	})
	return w
}

// Read implements net.Conn. The keepalives of both sides see to it that something
// arrives in time as long as the other side lives.
func (w *wire) Read(b []byte) (int, error) {
	if err := w.SetReadDeadline(time.Now().Add(w.timeout)); err != nil {
		return 0, err
	}
	return w.Conn.Read(b)
}

// Write implements net.Conn. It is called by one goroutine at a time.
func (w *wire) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		part := b[done:min(len(b), done+w.pace.chunk(len(b)-done))]
		if err := w.rest(w.pace.next(time.Now(), len(part))); err != nil {
			return done, err
		}
		if err := w.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
			return done, err
		}
		n, err := w.Conn.Write(part)
		done += n
		w.sent.Add(int64(n))
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// rest waits, unless the connection is closed meanwhile.
func (w *wire) rest(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-w.over:
		return net.ErrClosed
	}
}

// Close implements net.Conn, at once and from any goroutine.
func (w *wire) Close() error { return w.close() }

// pace spreads what is sent over time. The zero value does not.
type pace struct {
	rate int64     // bytes a second; 0: any
	free time.Time // when all that was sent so far is paid for
}

// slack is how far ahead of its bandwidth a connection may be: it has that much in
// one go, after it was silent.
const slack = 50 * time.Millisecond

// chunk returns how many of n bytes are sent in one go.
func (p *pace) chunk(n int) int {
	if p.rate == 0 {
		return n
	}
	return min(n, max(int(p.rate/20), 1))
}

// next returns how long to wait before n bytes are sent, and counts them as sent.
func (p *pace) next(now time.Time, n int) time.Duration {
	if p.rate == 0 {
		return 0
	}
	if earliest := now.Add(-slack); p.free.Before(earliest) {
		p.free = earliest
	}
	wait := p.free.Sub(now)
	p.free = p.free.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	return max(wait, 0)
}
