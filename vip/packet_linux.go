package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const maxPacers = 1024

// packetSocket sends Ethernet frames. It receives nothing: its protocol is 0.
type packetSocket struct {
	mu     sync.Mutex // guards what follows; held across sends, which do not block
	fd     int
	pacers map[int]*pacer // by interface index
	below  map[int]int    // the interface that carries the frames of a device of ours
}

func openPacketSocket() (*packetSocket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return &packetSocket{fd: fd, pacers: make(map[int]*pacer), below: make(map[int]int)}, nil
}

func (p *packetSocket) close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	unix.Close(p.fd)
	p.fd = -1
}

// send sends frames as fast as the interface's bucket allows, a chunk at a time.
// A frame for which there is no room in the queue is waited for once. Both waits
// may be longer than what allows the frames, so each frame asks live.
func (p *packetSocket) send(ctx context.Context, index int, frames [][]byte, live func() bool) error {
	var first error
	for len(frames) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(len(frames), chunk)
		if wait := p.reserve(index, n); wait > 0 && !pause(ctx, wait) {
			return ctx.Err()
		}
		err := p.sendAll(ctx, index, frames[:n], live)
		if errors.Is(err, ErrLapsed) {
			return err
		}
		if err != nil && first == nil {
			first = err
		}
		frames = frames[n:]
	}
	switch {
	case first == nil:
		return nil
	case errors.Is(first, unix.ENXIO) || errors.Is(first, unix.ENODEV):
		first = ErrNoLink
	}
	return &OpError{Op: "announce", Err: first}
}

// share has the frames of a device of ours paced with those of the interface below.
func (p *packetSocket) share(device, below int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.below) >= maxPacers {
		clear(p.below) // devices come and go; a full bucket more does no harm
	}
	p.below[device] = below
}

func (p *packetSocket) reserve(index, n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if below, ok := p.below[index]; ok {
		index = below
	}
	b := p.pacers[index]
	if b == nil {
		if len(p.pacers) >= maxPacers {
			clear(p.pacers) // interfaces come and go; a full bucket more does no harm
		}
		b = new(pacer)
		p.pacers[index] = b
	}
	return b.reserve(time.Now(), n)
}

func (p *packetSocket) sendAll(ctx context.Context, index int, frames [][]byte, live func() bool) error {
	var first error
	for _, f := range frames {
		err := p.sendOne(index, f, live)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) {
			if !pause(ctx, time.Millisecond) {
				return ctx.Err()
			}
			err = p.sendOne(index, f, live)
		}
		if errors.Is(err, ErrLapsed) {
			return err
		}
		if err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (p *packetSocket) sendOne(index int, frame []byte, live func() bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if live != nil && !live() {
		return ErrLapsed
	}
	if p.fd < 0 {
		return os.ErrClosed
	}
	to := unix.SockaddrLinklayer{Ifindex: index, Halen: 6, Protocol: binary.NativeEndian.Uint16(frame[12:])}
	copy(to.Addr[:], frame[:6])
	return retryEINTR(func() error { return unix.Sendto(p.fd, frame, 0, &to) })
}
