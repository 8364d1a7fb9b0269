package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

var (
	// ErrHostKey is the error of a peer that is not who known_hosts says.
	ErrHostKey = errors.New("host key not trusted")
	// ErrSilent is the error of a peer from which nothing came in time.
	ErrSilent = errors.New("no answer in time")
)

// maxSaid is how much is kept of what a command writes to its standard error, in bytes.
const maxSaid = 2 << 10

// saidWait is how long the last words of a program are waited for.
const saidWait = 500 * time.Millisecond

// Client is a connection to a peer. It asks the peer for a sign of life three times
// in Config.Timeout, and ends when there is none. Its methods may be called by many.
type Client struct {
	conn    gossh.Conn
	wire    *wire
	timeout time.Duration
	over    chan struct{} // closed when the connection has ended
	ended   sync.WaitGroup
}

// Dial connects, sees that the peer is the one that known_hosts names, and logs in.
func Dial(ctx context.Context, c Config) (*Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	address, err := c.hostPort()
	if err != nil {
		return nil, err
	}
	client, err := c.dial(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("ssh: connect to %s@%s: %w", c.User, address, err)
	}
	return client, nil
}

func (c Config) dial(ctx context.Context, address string) (*Client, error) {
	config, err := c.client(address)
	if err != nil {
		return nil, err
	}
	timeout := c.timeout()
	limited, cancel := context.WithTimeoutCause(ctx, timeout, ErrSilent)
	defer cancel()
	dial := c.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	line, err := dial(limited, "tcp", address)
	if err != nil {
		return nil, err
	}
	w := newWire(line, timeout, c.Bandwidth)
	stop := context.AfterFunc(limited, func() { _ = w.Close() })
	conn, channels, requests, err := gossh.NewClientConn(w, address, config)
	if !stop() && err == nil {
		err = errors.Join(context.Cause(limited), conn.Close())
	}
	if err != nil {
		return nil, errors.Join(refusal(limited, err), w.Close())
	}
	client := &Client{conn: conn, wire: w, timeout: timeout, over: make(chan struct{})}
	client.ended.Go(func() { gossh.DiscardRequests(requests) })
	client.ended.Go(func() { refuseChannels(channels) })
	client.ended.Go(func() {
		_ = conn.Wait() // whoever uses the connection has the error
		_ = w.Close()
		close(client.over)
	})
	client.ended.Go(client.keepAlive)
	return client, nil
}

// refusal says what an error of the handshake means.
func refusal(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, ErrHostKey):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	case strings.Contains(err.Error(), "unable to authenticate"):
		return fmt.Errorf("%w: the peer does not take the key: is its public half in authorized_keys of that user there?", err)
	}
	return err
}

// refuseChannels refuses what a peer has no business to ask for.
func refuseChannels(channels <-chan gossh.NewChannel) {
	for c := range channels {
		_ = c.Reject(gossh.Prohibited, "none") // the connection has ended, or it is told
	}
}

// keepAlive has the peer say something before it counts as dead.
func (c *Client) keepAlive() {
	tick := time.NewTicker(c.timeout / 3)
	defer tick.Stop()
	for {
		select {
		case <-c.over:
			return
		case <-tick.C:
			// Any answer will do, and that there is none is seen by the reader.
			_, _, _ = c.conn.SendRequest("keepalive@openssh.com", true, nil)
		}
	}
}

// Alive reports whether the connection has not ended, as far as is known.
func (c *Client) Alive() bool {
	select {
	case <-c.over:
		return false
	default:
		return true
	}
}

// Sent returns the bytes that went onto the wire so far.
func (c *Client) Sent() int64 { return c.wire.sent.Load() }

// Close ends the connection, and every call that waits for the peer.
func (c *Client) Close() error {
	err := c.wire.Close()
	c.ended.Wait()
	return err
}

// Within runs f, which waits for the peer, and ends the connection if that takes
// longer than Config.Timeout, or than ctx lives.
func (c *Client) Within(ctx context.Context, f func() error) error {
	return c.within(ctx, c.timeout, f)
}

// WithinLong is Within for what the peer has to bring to its disk: four times as long.
func (c *Client) WithinLong(ctx context.Context, f func() error) error {
	return c.within(ctx, 4*c.timeout, f)
}

func (c *Client) within(ctx context.Context, d time.Duration, f func() error) error {
	limited, cancel := context.WithTimeoutCause(ctx, d, ErrSilent)
	defer cancel()
	stop := context.AfterFunc(limited, func() { _ = c.wire.Close() })
	err := f()
	if !stop() && err != nil {
		return fmt.Errorf("ssh: %w: %w", context.Cause(limited), err)
	}
	return err
}

// Session is a program of the peer.
type Session struct {
	In  io.WriteCloser // its standard input
	Out io.Reader      // its standard output

	session gossh.Channel
	said    *tail
}

// Command starts a command; where authorized_keys has another, that one.
func (c *Client) Command(ctx context.Context, command string) (*Session, error) {
	return c.start(ctx, "exec", command)
}

// Subsystem starts what sshd_config names so.
func (c *Client) Subsystem(ctx context.Context, name string) (*Session, error) {
	return c.start(ctx, "subsystem", name)
}

func (c *Client) start(ctx context.Context, what, name string) (*Session, error) {
	s := &Session{said: &tail{ended: make(chan struct{})}}
	err := c.Within(ctx, func() error {
		channel, requests, err := c.conn.OpenChannel("session", nil)
		if err != nil {
			return err
		}
		c.ended.Go(func() { gossh.DiscardRequests(requests) })
		c.ended.Go(func() {
			defer close(s.said.ended)
			_, _ = io.Copy(s.said, channel.Stderr())
		})
		ok, err := channel.SendRequest(what, true, gossh.Marshal(struct{ Name string }{name}))
		if err == nil && !ok {
			err = errors.New("the peer refuses")
		}
		if err != nil {
			return errors.Join(err, channel.Close())
		}
		s.session, s.In, s.Out = channel, closer{channel}, channel
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ssh: start %s %s: %w", what, name, err)
	}
	return s, nil
}

// closer is the input of a program: closing it ends the input and not the program.
type closer struct{ gossh.Channel }

// Close implements io.Closer.
func (c closer) Close() error { return c.CloseWrite() }

// Said returns the last words of the program's standard error, on one line. It is for
// a program that has failed: the words may come after its end was seen, so Said waits
// for them, half a second at most.
func (s *Session) Said() string {
	timer := time.NewTimer(saidWait)
	defer timer.Stop()
	select {
	case <-s.said.ended:
	case <-timer.C:
	}
	return s.said.String()
}

// Close ends the program's session.
func (s *Session) Close() error {
	if err := s.session.Close(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct {
	ended chan struct{} // closed when nothing more comes

	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b[max(0, len(b)-maxSaid):]...)
	t.text = t.text[max(0, len(t.text)-maxSaid):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, string(t.text))), " ")
}
