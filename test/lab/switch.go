package lab

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// softSwitch carries frames between the sockets of its ports on one thread.
type softSwitch struct {
	began time.Time
	wake  int           // eventfd
	done  chan struct{} // closed when the thread has ended

	mu      sync.Mutex
	fabric  *fabric
	wires   map[*port]*cable
	retired []retired
	changed bool // wires, since the thread looked
	stop    bool
	lost    uint64 // by the kernel, on cables that are gone
}

// retired is a cable to be closed by the thread, which may be waiting for it.
type retired struct {
	cable *cable
	gone  chan struct{}
}

// maxBatch bounds what is read from one port before the others get their turn.
const maxBatch = 64

func newSwitch(seed uint64) (*softSwitch, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("lab: open eventfd of the switch: %w", err)
	}
	s := &softSwitch{began: time.Now(), wake: wake, done: make(chan struct{}), fabric: newFabric(seed), wires: map[*port]*cable{}, changed: true}
	go s.thread()
	return s, nil
}

func (s *softSwitch) now() time.Duration { return time.Since(s.began) }

// do changes the fabric.
func (s *softSwitch) do(change func(f *fabric, now time.Duration)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.fabric, s.now())
	s.nudge()
}

// nudge makes the thread look again.
func (s *softSwitch) nudge() {
	if !s.stop {
		_, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // full means awake
	}
}

// attach plugs a cable into the port of this name.
func (s *softSwitch) attach(name string, c *cable) {
	s.detach(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.fabric.port(name)
	p.wire, s.wires[p], s.changed = c, c, true
	s.nudge()
}

// detach unplugs and closes the cable of a port, if there is one.
func (s *softSwitch) detach(name string) {
	s.mu.Lock()
	p := s.fabric.port(name)
	c := s.wires[p]
	if c == nil || s.stop {
		s.mu.Unlock()
		return
	}
	delete(s.wires, p)
	p.wire = nil
	s.fabric.forget(p)
	one := retired{c, make(chan struct{})}
	s.retired, s.changed = append(s.retired, one), true
	s.nudge()
	s.mu.Unlock()
	<-one.gone
}

// cable returns what is plugged in at a port, or nil.
func (s *softSwitch) cable(name string) *cable {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wires[s.fabric.port(name)]
}

// overruns adds up what the kernel has dropped on its way to the switch.
func (s *softSwitch) overruns() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := s.lost
	for _, c := range s.wires {
		sum += c.overruns()
	}
	return sum
}

// close ends the thread and closes all cables.
func (s *softSwitch) close() {
	s.mu.Lock()
	s.nudge()
	s.stop = true
	s.mu.Unlock()
	<-s.done
}

// thread is the switch at work. It never unlocks its thread, whose timers are
// finer than others'.
func (s *softSwitch) thread() {
	defer close(s.done)
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // 50 us is the default
	var fds []unix.PollFd
	var ports []*port
	buf := make([]byte, 1<<16)
	for {
		s.mu.Lock()
		if s.changed {
			fds, ports = s.renew()
		}
		stop := s.stop
		next, pending := s.fabric.release(s.now())
		wait := next - s.now()
		s.mu.Unlock()
		if stop {
			s.end()
			return
		}
		var timeout *unix.Timespec
		if pending {
			t := unix.NsecToTimespec(int64(max(wait, 0)))
			timeout = &t
		}
		if _, err := unix.Ppoll(fds, timeout, nil); err != nil {
			continue // interrupted
		}
		s.mu.Lock()
		if fds[0].Revents != 0 {
			_, _ = unix.Read(s.wake, buf[:8])
		}
		for i, p := range ports {
			if got := fds[i+1].Revents; got != 0 {
				s.drain(p, buf, got&unix.POLLERR != 0)
			}
		}
		s.mu.Unlock()
	}
}

// renew lists what to wait for and closes what was retired.
func (s *softSwitch) renew() (fds []unix.PollFd, ports []*port) {
	s.changed = false
	for _, r := range s.retired {
		s.lost += r.cable.overruns()
		r.cable.close()
		close(r.gone)
	}
	s.retired = nil
	fds = append(fds, unix.PollFd{Fd: int32(s.wake), Events: unix.POLLIN})
	for _, p := range s.fabric.ports {
		if c := s.wires[p]; c != nil && !c.dead {
			fds = append(fds, unix.PollFd{Fd: int32(c.fd), Events: unix.POLLIN})
			ports = append(ports, p)
		}
	}
	return fds, ports
}

// drain forwards what waits at a port.
func (s *softSwitch) drain(p *port, buf []byte, failed bool) {
	c := s.wires[p]
	if c == nil {
		return // unplugged meanwhile
	}
	if failed && !c.tap {
		c.clear()
	}
	for range maxBatch {
		f, err := c.read(buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			c.dead, s.changed = true, true
			return
		}
		s.fabric.receive(p, f, s.now())
	}
}

// end closes everything.
func (s *softSwitch) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renew()
	for p, c := range s.wires {
		s.lost += c.overruns()
		p.wire = nil
		c.close()
	}
	s.wires = map[*port]*cable{}
	_ = unix.Close(s.wake)
}
