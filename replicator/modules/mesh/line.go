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
		end := time.Now().Add(idleTime)
		_ = l.conn.SetReadDeadline(end)
		msg, err := unframe(l.channel)
		switch {
		case err != nil && !time.Now().Before(end): // SSH does not tell what ended it
			return errIdle
		case err != nil:
			return err
		case !m.deliver(ctx, Incoming{From: l.node.Node, Message: msg}):
			return ctx.Err()
		}
	}
}

// unframe reads one message.
func unframe(r io.Reader) (modules.Message, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < 2 || n > modules.MaxMessage {
		return nil, fmt.Errorf("mesh: read: a frame of %d bytes", n)
	}
	// As it comes, not as it says: who is authentic may be broken all the same.
	b, err := io.ReadAll(io.LimitReader(r, int64(n)-1))
	if err != nil {
		return nil, err
	}
	if len(b) != int(n)-1 {
		return nil, io.ErrUnexpectedEOF
	}
	switch head[4] {
	case plain:
		return modules.Decode(b)
	case packed:
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(modules.MaxMessage))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		if b, err = z.DecodeAll(b, nil); err != nil {
			return nil, fmt.Errorf("mesh: read: %w", err)
		}
		return modules.Decode(b)
	}
	return nil, fmt.Errorf("mesh: read: packed in a way %d that is not known", head[4])
}
