package check

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/secret"
)

func init() { hooks.RegisterMonitor("tcp", NewTCP) }

// TCPConfig is the configuration of kind tcp.
type TCPConfig struct {
	Address    string `yaml:"address"`     // host:port, or the absolute path of a unix socket; required
	Send       string `yaml:"send"`        // what is sent once connected; nothing unless given
	SendFile   string `yaml:"send_file"`   // the same from a file, at most 4 KiB, which nobody else may read
	Expect     string `yaml:"expect"`      // a text that is to be in the answer, within its first 64 KiB
	TLS        bool   `yaml:"tls"`         // speak TLS
	ServerName string `yaml:"server_name"` // the name in the certificate, and in SNI; default: the host
	CAFile     string `yaml:"ca_file"`     // whose certificates are trusted; default: the system's
}

// TCP is unfit while a connection cannot be made, or what comes over it is not what is
// expected.
type TCP struct {
	c       TCPConfig
	network string
}

// NewTCP checks the configuration.
func NewTCP(c TCPConfig) (hooks.Monitor, error) {
	var f faults
	network, err := parseTarget(c.Address)
	f.add(err != nil, "address: %w", err)
	f.add(c.Send != "" && c.SendFile != "", "send_file: send is given, too: keep one of them")
	if c.SendFile != "" {
		_, err := secret.ReadAll(c.SendFile)
		f.add(err != nil, "send_file: %w", err)
	}
	checkAuthorities(&f, c.CAFile)
	f.add(!c.TLS && c.ServerName != "", "server_name: only with tls: true")
	f.add(!c.TLS && c.CAFile != "", "ca_file: only with tls: true")
	f.add(c.TLS && network == "unix" && c.ServerName == "", "server_name: required with TLS over a unix socket")
	if err := f.err(); err != nil {
		return nil, err
	}
	if c.ServerName == "" {
		c.ServerName = hostName(c.Address)
	}
	return &TCP{c, network}, nil
}

// Monitor implements hooks.Monitor.
func (m *TCP) Monitor(ctx context.Context) (hooks.Report, error) {
	question, settings, err := m.prepare()
	if err != nil {
		return hooks.Report{}, err
	}
	conn, err := connect(ctx, m.network, m.c.Address, settings)
	if err != nil {
		return unfit("%s: %v", m.c.Address, err)
	}
	defer conn.Close()
	if len(question) > 0 {
		if _, err := conn.Write(question); err != nil {
			return unfit("%s: %v", m.c.Address, plain(ctx, err))
		}
	}
	if m.c.Expect == "" {
		return fine("%s takes connections", m.c.Address)
	}
	if err := expect(ctx, conn, []byte(m.c.Expect)); err != nil {
		return unfit("%s: %v", m.c.Address, err)
	}
	return fine("%s answers as expected", m.c.Address)
}

// prepare reads the files.
func (m *TCP) prepare() (question []byte, settings *tls.Config, err error) {
	question = []byte(m.c.Send)
	if m.c.SendFile != "" {
		if question, err = secret.ReadAll(m.c.SendFile); err != nil {
			return nil, nil, fmt.Errorf("send_file: %w", err)
		}
	}
	if m.c.TLS {
		settings, err = tlsConfig(m.c.ServerName, m.c.CAFile)
	}
	return question, settings, err
}

// expect reads until the answer holds want. The error does not say what came instead:
// it may hold what was sent.
func expect(ctx context.Context, conn net.Conn, want []byte) error {
	var have []byte
	for len(have) < maxRead {
		part := make([]byte, min(4096, maxRead-len(have)))
		n, err := conn.Read(part)
		from := max(len(have)-len(want)+1, 0)
		have = append(have, part[:n]...)
		switch {
		case bytes.Contains(have[from:], want):
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("it ended the connection after %d bytes, without what is expected", len(have))
		case err != nil:
			return fmt.Errorf("%w, after %d bytes without what is expected", plain(ctx, err), len(have))
		}
	}
	return fmt.Errorf("what is expected is not in the first %d bytes of the answer", len(have))
}
