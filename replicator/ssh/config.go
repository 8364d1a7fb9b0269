// Package ssh reaches the nodes that snapshots are shipped to. It knows two things
// that a program can do there, and no more: a command, which a forced command in
// authorized_keys replaces, and a subsystem such as sftp.
//
// Who does not prove by a host key of known_hosts that he is the peer gets nothing:
// there is no setting that leaves this out. A private key lies in a file without a
// passphrase that nobody else can read; no agent is asked. No wait is without an end.
package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// DefaultPort is that of an Address that names none.
const DefaultPort = "22"

// DefaultTimeout is Config.Timeout where that is 0.
const DefaultTimeout = 15 * time.Second

// MinBandwidth is the least Config.Bandwidth but 0, in bytes a second: with less, one
// packet takes longer than anybody waits.
const MinBandwidth = 16 << 10

const (
	minTimeout = 2 * time.Second
	maxKeyFile = 64 << 10 // bytes
)

// Config says how another node is reached. It is not changed once it is in use.
type Config struct {
	Address    string // HOST or HOST:PORT; an IPv6 address with a port is in brackets
	User       string
	KeyFile    string        // private key as ssh-keygen writes it, without a passphrase, for its owner only
	KnownHosts string        // file of sshd(8): the host keys that are trusted
	Bandwidth  int64         // bytes a second that are sent at most; 0: no bound
	Timeout    time.Duration // longest silence of the other side, at whatever it does; 0: DefaultTimeout

	// Dial connects; nil: net.Dialer. Tests cut lines here.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Validate finds all that no peer can be reached with. It reads no file.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("ssh: "+format, args...)) }
	if _, err := c.hostPort(); err != nil {
		fault("address %q: %w: want HOST or HOST:PORT", c.Address, err)
	}
	if c.User == "" || strings.ContainsFunc(c.User, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		fault("user %q: name the OS user of the peer that owns its snapshots", c.User)
	}
	if !filepath.IsAbs(c.KeyFile) {
		fault("key file %q: want an absolute path", c.KeyFile)
	}
	if !filepath.IsAbs(c.KnownHosts) {
		fault("known_hosts %q: want an absolute path: `ssh-keyscan HOST` shows the keys of a peer; compare them there before they are trusted", c.KnownHosts)
	}
	if c.Bandwidth != 0 && c.Bandwidth < MinBandwidth {
		fault("bandwidth of %d bytes a second: want %d or more, or 0 for no bound", c.Bandwidth, MinBandwidth)
	}
	if c.Timeout != 0 && c.Timeout < minTimeout {
		fault("timeout %v: want %v or more", c.Timeout, minTimeout)
	}
	return errors.Join(faults...)
}

// hostPort returns the address with a port.
func (c Config) hostPort() (string, error) {
	if c.Address == "" {
		return "", errors.New("it is empty")
	}
	host, port, err := net.SplitHostPort(c.Address)
	if err != nil {
		host, port = strings.Trim(c.Address, "[]"), DefaultPort
		if strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return "", err
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return "", fmt.Errorf("no host, or no port from 1 to 65535")
	}
	return net.JoinHostPort(host, port), nil
}

func (c Config) timeout() time.Duration {
	if c.Timeout == 0 {
		return DefaultTimeout
	}
	return c.Timeout
}

// client reads the files anew, so that a key may be changed while the daemon runs.
func (c Config) client(address string) (*gossh.ClientConfig, error) {
	key, err := readKey(c.KeyFile)
	if err != nil {
		return nil, err
	}
	known, err := knownhosts.New(c.KnownHosts)
	if err != nil {
		return nil, fmt.Errorf("read known hosts: %w: put the host keys of the peer there", err)
	}
	return &gossh.ClientConfig{
		User:              c.User,
		Auth:              []gossh.AuthMethod{gossh.PublicKeys(key)},
		HostKeyAlgorithms: algorithms(known, address),
		HostKeyCallback: func(host string, remote net.Addr, offered gossh.PublicKey) error {
			return explain(known(host, remote, offered), c.KnownHosts, address, offered)
		},
		ClientVersion: "SSH-2.0-carpd",
	}, nil
}

// readKey reads a private key that nobody else can read.
func readKey(path string) (gossh.Signer, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read key: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("read key %s: not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("read key %s: mode %04o lets others use it: chmod 600", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, err := gossh.ParsePrivateKey(text)
	var protected *gossh.PassphraseMissingError
	switch {
	case errors.As(err, &protected):
		return nil, fmt.Errorf("read key %s: it has a passphrase, and nobody is there to type it: make one by ssh-keygen -t ed25519 -N ''", path)
	case err != nil:
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	return key, nil
}

// unlike is a key that nobody has: asked about it, known_hosts tells those that it has.
type unlike struct{}

func (unlike) Type() string                          { return "none" }
func (unlike) Marshal() []byte                       { return nil }
func (unlike) Verify([]byte, *gossh.Signature) error { return errors.New("ssh: no key") }

// algorithms returns those of the keys that known_hosts has for a host: asked for
// others, the peer would show a key that is not listed, though it has one that is.
// nil: any, for a host that is not listed.
func algorithms(known gossh.HostKeyCallback, address string) []string {
	var e *knownhosts.KeyError
	if !errors.As(known(address, &net.TCPAddr{IP: net.IPv4zero}, unlike{}), &e) {
		return nil
	}
	var all []string
	for _, k := range e.Want {
		names := []string{k.Key.Type()}
		if names[0] == gossh.KeyAlgoRSA {
			names = []string{gossh.KeyAlgoRSASHA512, gossh.KeyAlgoRSASHA256}
		}
		for _, n := range names {
			if !slices.Contains(all, n) {
				all = append(all, n)
			}
		}
	}
	return all
}

// explain says what to do about a host key that is not trusted.
func explain(err error, file, address string, offered gossh.PublicKey) error {
	if err == nil {
		return nil
	}
	shown := offered.Type() + " " + gossh.FingerprintSHA256(offered)
	var e *knownhosts.KeyError
	switch {
	case errors.As(err, &e) && len(e.Want) == 0:
		return fmt.Errorf("%w: %s is not in %s and shows %s: if `ssh-keygen -lf` on that host shows the same, add the line of `ssh-keyscan`", ErrHostKey, address, file, shown)
	case errors.As(err, &e):
		return fmt.Errorf("%w: %s shows %s, which is not what %s line %d has: it was installed anew, or somebody is in between", ErrHostKey, address, shown, file, e.Want[0].Line)
	}
	return fmt.Errorf("%w: %s shows %s: %w", ErrHostKey, address, shown, err)
}
