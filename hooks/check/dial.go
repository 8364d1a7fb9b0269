package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// parseTarget checks where to connect to: host and port, or the absolute path of a unix
// socket.
func parseTarget(s string) (network string, err error) {
	if filepath.IsAbs(s) {
		if !singleLine(s) {
			return "", errors.New("it has more than one line")
		}
		return "unix", nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q: write host:port, [IPv6 address]:port, or the absolute path of a unix socket", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%q: the port is a number from 1 to 65535", s)
	}
	if host == "" || !singleLine(host) {
		return "", fmt.Errorf("%q: the host is missing", s)
	}
	return "tcp", nil
}

// hostName is the name of a target that a certificate is for.
func hostName(target string) string {
	host, _, _ := net.SplitHostPort(target)
	if a, err := netip.ParseAddr(host); err == nil {
		return a.WithZone("").String()
	}
	return host
}

// maxAuthorities bounds a file of certificates: a whole system's are a quarter of it.
const maxAuthorities = 1 << 20

// tlsConfig makes the settings of TLS. Certificates are verified, always: against the
// system's authorities, or those in caFile, which is read at each look.
func tlsConfig(name, caFile string) (*tls.Config, error) {
	c := &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return c, nil
	}
	text, err := readUpTo(caFile, maxAuthorities)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("ca_file: %s: no certificate in it", caFile)
	}
	return c, nil
}

// checkAuthorities reports what is wrong with a ca_file, or nothing.
func checkAuthorities(f *faults, path string) {
	switch {
	case path == "":
	case !filepath.IsAbs(path):
		f.add(true, "ca_file: %q is no absolute path", path)
	default:
		_, err := tlsConfig("", path)
		f.add(err != nil, "%w", err)
	}
}

// connect connects, and with settings speaks TLS. Reads and writes end with ctx. It says
// why it could not in one clause without an address, which who calls knows.
func connect(ctx context.Context, network, target string, settings *tls.Config) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, target)
	if err != nil {
		return nil, plain(ctx, err)
	}
	context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	if settings == nil {
		return conn, nil
	}
	secure := tls.Client(conn, settings)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("TLS: %w", plain(ctx, err))
	}
	return secure, nil
}

// plain is the cause of an error of package net, without what is said anyway.
func plain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("no answer in time")
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	if strings.Contains(err.Error(), "malformed HTTP") {
		return errors.New("the answer is not HTTP") // it is quoted in err, and may hold what was sent
	}
	return err
}
