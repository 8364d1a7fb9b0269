package mysql

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/secret"
)

func init() {
	hooks.RegisterResource("mysql", func(c Config) (hooks.Resource, error) { return New(c) })
	hooks.RegisterMonitor("mysql", func(c Config) (hooks.Monitor, error) { return New(c) })
	hooks.Register("mysql", func(c Config) (hooks.Hook, error) { return New(c) })
}

// The defaults of Config, and its limits.
const (
	DefaultLagLimit     = 30 * time.Second
	DefaultApplyTimeout = 10 * time.Second
	DefaultPeerTimeout  = 2 * time.Second
	MaxPeers            = 16

	maxWait = time.Hour
)

// Choice says what follows where a server is not sure to have all.
type Choice string

// The choices. The empty string is NotSo.
const (
	NotSo   Choice = "refuse"
	Promote Choice = "promote"
)

// Config is the configuration of one server and of those it shares its data with.
type Config struct {
	Socket       string `yaml:"socket"`        // absolute path of this node's server's socket
	Address      string `yaml:"address"`       // IP:PORT at which the peers reach this node's server; without a socket carpd uses it too
	User         string `yaml:"user"`          // account of carpd on all servers; required
	PasswordFile string `yaml:"password_file"` // its password: first line of a file that others may not read

	Peers                   []string `yaml:"peers"`                     // IP:PORT of the other servers
	ReplicationUser         string   `yaml:"replication_user"`          // account that replicas log in with
	ReplicationPasswordFile string   `yaml:"replication_password_file"` // likewise
	TLSCA                   string   `yaml:"tls_ca"`                    // PEM file: servers at addresses must show a certificate of it; "" is no TLS

	LagLimit      time.Duration `yaml:"lag_limit"`      // from which on a replica is behind; default DefaultLagLimit
	ApplyTimeout  time.Duration `yaml:"apply_timeout"`  // for receiving and applying what is missing; default DefaultApplyTimeout
	PeerTimeout   time.Duration `yaml:"peer_timeout"`   // for a peer to answer; default DefaultPeerTimeout
	OnTimeout     Choice        `yaml:"on_timeout"`     // when ApplyTimeout is over; default refuse
	RequireFence  bool          `yaml:"require_fence"`  // promote only when each peer is known to be read-only
	WithoutSource Choice        `yaml:"without_source"` // when this is no replica and a peer cannot be asked; default refuse
	Events        bool          `yaml:"events"`         // switch the event scheduler with the role
	SemiSync      bool          `yaml:"semi_sync"`      // switch the sides of semi-synchronous replication with the role
}

// dialer opens connections; nil is that of package net.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// DB is a server and those it shares its data with, as one of them is promoted and
// demoted. It implements hooks.Resource, hooks.Monitor and, for the time after a role has
// moved, hooks.Hook. Its methods are not called at the same time; it holds nothing that
// needs closing.
type DB struct {
	Config
	self  *server
	peers []*server
	seen  watched
	last  []view    // of the peers, and
	asked time.Time // when
	// gave is a digest of what the server had when this process demoted it, as long as
	// nothing was seen of a peer that would have more. "": nothing is known.
	gave string
}

// New returns the kind for one configuration. It checks all that can be checked without a
// server, and reports all faults at once.
func New(c Config) (*DB, error) { return open(c, nil) }

func open(c Config, dial dialer) (*DB, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, d := range []struct {
		key       string
		value     *time.Duration
		otherwise time.Duration
	}{
		{"lag_limit", &c.LagLimit, DefaultLagLimit},
		{"apply_timeout", &c.ApplyTimeout, DefaultApplyTimeout},
		{"peer_timeout", &c.PeerTimeout, DefaultPeerTimeout},
	} {
		if *d.value == 0 {
			*d.value = d.otherwise
		}
		if *d.value < 100*time.Millisecond || *d.value > maxWait {
			fault("%s: use 100ms to %v", d.key, maxWait)
		}
	}
	for key, choice := range map[string]*Choice{"on_timeout": &c.OnTimeout, "without_source": &c.WithoutSource} {
		if *choice == "" {
			*choice = NotSo
		}
		if *choice != NotSo && *choice != Promote {
			fault("%s %q: unknown: use %s or %s", key, *choice, NotSo, Promote)
		}
	}
	if c.User == "" {
		fault("user: required: the account that carpd has on the servers")
	}
	roots, err := readRoots(c.TLSCA)
	if err != nil {
		faults = append(faults, err)
	}
	db := &DB{Config: c}
	account := account{user: c.User, file: c.PasswordFile, roots: roots, dial: dial, patience: c.PeerTimeout}
	faults = append(faults, checkSecret("password_file", c.PasswordFile), checkSecret("replication_password_file", c.ReplicationPasswordFile))
	var bad []error
	db.self, bad = selfOf(c, account)
	faults = append(faults, bad...)
	db.peers, bad = peersOf(c, account)
	faults = append(faults, bad...)
	if len(c.Peers) > 0 && c.ReplicationUser == "" {
		fault("replication_user: required where there are peers: the account that a replica logs in with")
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return db, nil
}

// selfOf is the server of this node.
func selfOf(c Config, a account) (s *server, faults []error) {
	s = &server{account: a, local: true}
	if c.Address != "" {
		at, err := parseAddress(c.Address)
		if err != nil {
			faults = append(faults, fmt.Errorf("address: %w", err))
		}
		s.at, s.name = at, c.Address
	}
	switch {
	case c.Socket != "" && !filepath.IsAbs(c.Socket):
		faults = append(faults, fmt.Errorf("socket: %q is no absolute path", c.Socket))
	case c.Socket != "":
		s.socket, s.name = c.Socket, c.Socket
	case c.Address == "":
		faults = append(faults, errors.New("socket: required, or address: where this node's server listens"))
	}
	return s, faults
}

func peersOf(c Config, a account) (peers []*server, faults []error) {
	if len(c.Peers) > MaxPeers {
		return nil, []error{fmt.Errorf("peers: %d are too many: at most %d", len(c.Peers), MaxPeers)}
	}
	known := map[netip.AddrPort]bool{}
	if own, err := parseAddress(c.Address); err == nil {
		known[own] = true
	}
	for _, text := range c.Peers {
		at, err := parseAddress(text)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("peers: %w", err))
		case known[at]:
			faults = append(faults, fmt.Errorf("peers: %s is given twice, or is this node's own address", text))
		}
		known[at] = true
		peers = append(peers, &server{account: a, name: text, at: at})
	}
	return peers, faults
}

// parseAddress takes no names: what resolves them may be down when a role moves.
func parseAddress(text string) (netip.AddrPort, error) {
	at, err := netip.ParseAddrPort(text)
	if err != nil || at.Port() == 0 {
		return at, fmt.Errorf("%q is no address with a port: write 192.0.2.1:3306 or [2001:db8::1]:3306", text)
	}
	return at, nil
}

func readRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("tls_ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls_ca: there is no certificate in %s", path)
	}
	return roots, nil
}

// checkSecret reads a password file for what is wrong with it.
func checkSecret(key, path string) error {
	if _, err := readSecret(path); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// readSecret reads a password each time it is used, so that a new one needs no restart.
func readSecret(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return secret.Read(path)
}
