package mesh

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/replicator/modules"
)

// line is one connection.
type line struct {
	node    *node
	conn    net.Conn
	channel ssh.Channel
	end     func() error
	called  bool          // the other node made it
	number  int64         // of that call: a greater one is later
	ready   func()        // called when the line is one of the node's
	cancel  func()        // ends serving it
	done    chan struct{} // closed when it is not served any more
}

// abandon has the kernel end a connection whose bytes nobody acknowledges: a machine that
// is gone says nothing, and what is written to it would seem to be sent.
func abandon(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		// Where the kernel knows it not, the connection ends later.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unheardTime.Milliseconds()))
	})
}

// A frame is four bytes of length, one that says how it is packed, and a message.
const (
	frameHead = 5
	plain     = 0
	packed    = 1
	packFrom  = 512 // bytes of a message: shorter ones do not shrink
)

// write sends what is queued for the node.
func (m *Mesh) write(ctx context.Context, l *line) {
	for {
		select {
		case <-ctx.Done():
			return
		case msg := <-l.node.queue:
			b, err := frame(msg)
			if err == nil {
				_ = l.conn.SetWriteDeadline(time.Now().Add(writeTime))
				_, err = l.channel.Write(b)
			}
			if err != nil {
				m.lost.Add(1)
				return
			}
		}
	}
}

// frame returns the bytes of a message, in one piece: one packet for a short one.
func frame(msg modules.Message) ([]byte, error) {
	b := modules.Append(make([]byte, frameHead), msg)
	b[4] = plain
	if len(b) >= packFrom {
		z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		c := z.EncodeAll(b[frameHead:], make([]byte, frameHead))
		if len(c) < len(b) {
			b = c
			b[4] = packed
		}
	}
	if len(b) > modules.MaxMessage {
		return nil, errors.New("mesh: send: too long")
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b, nil
}

// read takes what the node says until it ends.
func (m *Mesh) read(ctx context.Context, l *line) error {
	for {
		msg, free, err := m.receive(ctx, l)
		if err != nil {
			return err
		}
		taken := m.deliver(ctx, Incoming{From: l.node.Node, Message: msg})
		free()
		if !taken {
			return ctx.Err()
		}
	}
}

// receive reads one message. free gives back its place among the large ones.
func (m *Mesh) receive(ctx context.Context, l *line) (msg modules.Message, free func(), err error) {
	end := time.Now().Add(idleTime)
	_ = l.conn.SetReadDeadline(end)
	var head [frameHead]byte
	if _, err := io.ReadFull(l.channel, head[:]); err != nil {
		if !time.Now().Before(end) { // SSH does not tell what ended it
			err = errIdle
		}
		return nil, nil, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < 2 || n > modules.MaxMessage {
		return nil, nil, fmt.Errorf("mesh: read: a frame of %d bytes", n)
	}
	return m.body(ctx, l, n, head[4])
}

// body reads what comes after the head of a frame of n bytes.
func (m *Mesh) body(ctx context.Context, l *line, n uint32, how byte) (msg modules.Message, free func(), err error) {
	held := func() {}
	defer func() {
		if err != nil {
			held()
		}
	}()
	if n > largeFrom {
		if held, err = m.place(ctx, l); err != nil {
			return nil, nil, err
		}
	}
	// As it comes, not as it says: who is authentic may be broken all the same.
	b, err := io.ReadAll(io.LimitReader(l.channel, int64(n)-1))
	switch {
	case err != nil:
		return nil, nil, err
	case len(b) != int(n)-1:
		return nil, nil, io.ErrUnexpectedEOF
	case how == plain:
		msg, err = modules.Decode(b)
		return msg, held, err
	case how != packed:
		return nil, nil, fmt.Errorf("mesh: read: packed in a way %d that is not known", how)
	}
	size, err := unpackedSize(b)
	if err != nil {
		return nil, nil, err
	}
	if n <= largeFrom && size > largeFrom {
		if held, err = m.place(ctx, l); err != nil {
			return nil, nil, err
		}
	}
	if b, err = unpack(b, size); err != nil {
		return nil, nil, err
	}
	msg, err = modules.Decode(b)
	return msg, held, err
}

// place waits for one among the large messages. The node is not asked to be quick in the
// meantime.
func (m *Mesh) place(ctx context.Context, l *line) (free func(), err error) {
	_ = l.conn.SetReadDeadline(time.Time{})
	select {
	case m.large <- struct{}{}:
		_ = l.conn.SetReadDeadline(time.Now().Add(idleTime))
		return func() { <-m.large }, nil
	case <-ctx.Done():
		return func() {}, ctx.Err()
	}
}

// unpackedSize returns how many bytes a packed message says that it is.
func unpackedSize(b []byte) (uint64, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return 0, fmt.Errorf("mesh: read: %w", err)
	}
	if !h.HasFCS || h.FrameContentSize == 0 || h.FrameContentSize > modules.MaxMessage {
		return 0, errors.New("mesh: read: a packed message that is too long, or does not say how long it is")
	}
	return h.FrameContentSize, nil
}

// unpack unpacks a message, which is not longer than it says.
func unpack(b []byte, size uint64) ([]byte, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(size))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	if b, err = z.DecodeAll(b, nil); err != nil {
		return nil, fmt.Errorf("mesh: read: %w", err)
	}
	return b, nil
}
