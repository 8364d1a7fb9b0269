// Package syslog is the hook kind "syslog": it writes a line to the system's log, or sends
// it to a syslog server, when the role moves.
//
//	kind: syslog
//	on: after-up
//	with:
//	  priority: local0.notice
//	  tag: CARP-PROXYSQL
//	  message: $name role is $to
//	  to: udp://192.0.2.9
//
// # What is sent
//
// To a server, a message of RFC 5424: its MSGID is the phase. Over TCP the frames of RFC
// 6587, counted or ended by a newline. To a local socket, what logger(1) writes to
// /dev/log, since not all of those who read there know RFC 5424; Config.Format changes
// either.
//
// # What it promises
//
// Each message has a connection of its own, so a server that was started again is no
// matter. A message to a socket is delivered when the reader's buffer has it, one over TCP
// when the server has acknowledged all of it. Over UDP nobody knows.
package syslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/hooks"
)

func init() { hooks.Register("syslog", New) }

// Format is the form of a message.
type Format string

// The forms.
const (
	RFC5424 Format = "rfc5424" // the default to a server
	Local   Format = "local"   // that of /dev/log, the default to a local socket
)

// Framing is how messages are told apart in a stream.
type Framing string

// The framings of RFC 6587, 3.4. The empty string is Counted.
const (
	Counted Framing = "counted" // the length, a space, the message
	Newline Framing = "newline"
)

// Config is the configuration of one message.
type Config struct {
	To         string  `yaml:"to"`         // a path, udp://HOST[:514] or tcp://HOST[:601]; default /dev/log
	Priority   string  `yaml:"priority"`   // facility.level, as logger -p; default user.notice
	Tag        string  `yaml:"tag"`        // as logger -t; default carpd
	PID        bool    `yaml:"pid"`        // the daemon's process id, as logger -i
	Message    string  `yaml:"message"`    // with $name and its like; default DefaultMessage
	Format     Format  `yaml:"format"`     // default by To
	Framing    Framing `yaml:"framing"`    // of TCP and streams
	Structured string  `yaml:"structured"` // NAME@NUMBER: structured data under this SD-ID; default none
}

// defaults fills what is empty.
func (c *Config) defaults() {
	for _, d := range []struct {
		key       *string
		otherwise string
	}{{&c.To, "/dev/log"}, {&c.Priority, "user.notice"}, {&c.Tag, "carpd"}, {&c.Message, DefaultMessage}} {
		if *d.key == "" {
			*d.key = d.otherwise
		}
	}
	if c.Framing == "" {
		c.Framing = Counted
	}
}

// New returns a hook that sends the message. It reports all faults at once.
func New(c Config) (hooks.Hook, error) {
	c.defaults()
	h := &hook{Config: c}
	var faults [3]error
	h.networks, h.address, faults[0] = target(c.To)
	h.priority, faults[1] = parsePriority(c.Priority)
	faults[2] = checkMessage(c.Message)
	if err := errors.Join(append(faults[:], c.check(h.address)...)...); err != nil {
		return nil, err
	}
	if h.Format == "" {
		h.Format = RFC5424
		if filepath.IsAbs(h.address) {
			h.Format = Local
		}
	}
	return h, nil
}

func (c Config) check(address string) (faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Tag != ascii(c.Tag) || len(c.Tag) > maxTag {
		fault("tag %q: use at most %d ASCII characters without spaces", c.Tag, maxTag)
	}
	if c.Format != "" && c.Format != RFC5424 && c.Format != Local {
		fault("format %q: unknown: use %s or %s", c.Format, RFC5424, Local)
	}
	if c.Framing != Counted && c.Framing != Newline {
		fault("framing %q: unknown: use %s or %s", c.Framing, Counted, Newline)
	}
	if len(c.Message) > maxMessage {
		fault("message: longer than %d bytes", maxMessage)
	}
	name, number, both := strings.Cut(c.Structured, "@")
	if c.Structured != "" && (!both || name == "" || number == "" || strings.Trim(number, "0123456789.") != "" ||
		len(c.Structured) > maxID || c.Structured != ascii(c.Structured) || strings.ContainsAny(c.Structured, `="]`)) {
		fault("structured %q: use NAME@NUMBER with your private enterprise number, such as carp@32473", c.Structured)
	}
	if c.Structured != "" && (c.Format == Local || c.Format == "" && filepath.IsAbs(address)) {
		fault("structured: format %s has none: add format: %s", Local, RFC5424)
	}
	return faults
}

// target returns what to dial, the networks in the order to try them.
func target(to string) (networks []string, address string, err error) {
	if filepath.IsAbs(to) {
		return []string{"unixgram", "unix"}, to, nil
	}
	u, err := url.Parse(to)
	if err != nil || u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
		return nil, "", fmt.Errorf("to %q: use a path, udp://HOST, udp://HOST:PORT, or the same with tcp", to)
	}
	ports := map[string]string{"udp": "514", "tcp": "601"}
	port, known := ports[u.Scheme]
	if !known {
		return nil, "", fmt.Errorf("to %q: %s is unknown: use udp or tcp", to, u.Scheme)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	return []string{u.Scheme}, net.JoinHostPort(u.Hostname(), port), nil
}

// hook is one message. It holds no state.
type hook struct {
	Config
	priority int
	networks []string
	address  string
}

// Run sends the message. It implements hooks.Hook.
func (h *hook) Run(ctx context.Context, ev hooks.Event) error {
	host, err := os.Hostname()
	if err != nil {
		host = ev.Node
	}
	m := h.compose(h.priority, ev, host, time.Now(), os.Getpid())
	text := m.rfc5424()
	if h.Format == Local {
		text = m.local()
	}
	conn, err := h.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	if err := h.send(conn, text); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("syslog: send to %s: %w", h.To, err)
	}
	return nil
}

func (h *hook) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	var err error
	for _, network := range h.networks {
		var conn net.Conn
		if conn, err = d.DialContext(ctx, network, h.address); err == nil {
			return conn, nil
		}
		if !errors.Is(err, syscall.EPROTOTYPE) { // else it is a stream
			break
		}
	}
	hint := ""
	if errors.Is(err, syscall.ENOENT) {
		hint = ": nothing reads there: is rsyslog, syslog-ng or systemd-journald running?"
	}
	return nil, fmt.Errorf("syslog: connect to %s: %w%s", h.To, err, hint)
}

// halfCloser is a stream.
type halfCloser interface {
	CloseWrite() error
}

func (h *hook) send(conn net.Conn, text string) error {
	_, datagram := conn.(*net.UDPConn)
	if u, ok := conn.(*net.UnixConn); ok {
		datagram = u.RemoteAddr().Network() == "unixgram"
	}
	if datagram {
		_, err := conn.Write([]byte(text))
		return err
	}
	frame := text + "\n"
	if h.Framing == Counted {
		frame = fmt.Sprintf("%d %s", len(text), text)
	}
	if _, err := io.WriteString(conn, frame); err != nil {
		return err
	}
	if err := conn.(halfCloser).CloseWrite(); err != nil {
		return err
	}
	return h.awaitEnd(conn)
}

// patience is how long a server may take to close its end, too.
const patience = time.Second

// awaitEnd returns when the server has read it all and closes, or has at least
// acknowledged all of it. What it has to say is not kept: there is no answer in syslog.
func (h *hook) awaitEnd(conn net.Conn) error {
	late := time.AfterFunc(patience, func() { _ = conn.SetDeadline(time.Now()) })
	defer late.Stop()
	_, err := io.Copy(io.Discard, conn)
	if tcp, ok := conn.(*net.TCPConn); ok && errors.Is(err, os.ErrDeadlineExceeded) {
		return acknowledged(tcp)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil // it lies in the buffer of who reads the local socket
	}
	return err
}

// acknowledged returns an error if the other side has not all that was sent.
func acknowledged(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var left int
	var fault error
	if err := raw.Control(func(fd uintptr) { left, fault = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
		return err
	}
	if fault == nil && left > 0 {
		fault = errors.New("the server has not acknowledged it")
	}
	return fault
}
