package receive_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/proxysql"
	"github.com/carpd/carpd/replicator/receive"
	"github.com/carpd/carpd/replicator/sqlite"
	"github.com/carpd/carpd/replicator/ssh"
	"github.com/carpd/carpd/replicator/storetest"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

// cuts is how many places a line is cut at; the default keeps the test short.
var cuts = flag.Int("cuts", 14, "places at which the line is cut while a snapshot is shipped")

// TestMain is the receiver, or a sender, where a test runs this program as one.
func TestMain(m *testing.M) {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "receiver":
		err = receiver(os.Args[2])
	case len(os.Args) == 7 && os.Args[1] == "sender":
		err = sender(os.Args[2:])
	default:
		lab.Main(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func receiver(path string) error {
	s, err := dir.Open(context.Background(), path)
	if err != nil {
		return err
	}
	return receive.Receiver{Store: s, Verify: judge}.Serve(context.Background(), os.Stdin, os.Stdout)
}

// judge looks into what is a database, and at the digest of anything.
func judge(ctx context.Context, path string, m replicator.Manifest) replicator.Verdict {
	b, err := os.ReadFile(path)
	if sum := sha256.Sum256(b); err != nil || hex.EncodeToString(sum[:]) != m.SHA256 {
		return replicator.Refused(replicator.Digest, fmt.Sprint("other bytes ", err))
	}
	if !bytes.HasPrefix(b, []byte("SQLite format 3\x00")) {
		return replicator.Verdict{}
	}
	return sqlite.Verify(ctx, path, sqlite.Options{Rules: func(replicator.Content) replicator.Rules { return proxysql.Rules() }}).Verdict
}

// sender ships slowly: ADDRESS KEY KNOWN_HOSTS STORE SEQUENCE.
func sender(args []string) error {
	s, err := dir.Open(context.Background(), args[3])
	if err != nil {
		return err
	}
	all, err := s.List(context.Background())
	if err != nil {
		return err
	}
	to, err := receive.New(ssh.Config{Address: args[0], User: args[4], KeyFile: args[1], KnownHosts: args[2], Bandwidth: 128 << 10})
	if err != nil {
		return err
	}
	_, err = to.Ship(context.Background(), all[0], s)
	return err
}

const (
	pages    = 80
	pageSize = 4096
	size     = pages * pageSize
)

// bench is a node that ships, and a peer with sshd whose key runs a receiver.
type bench struct {
	node *lab.Host
	sshd *peers.SSHD
	own  *dir.Store
	at   string // the peer's store, as the test sees it
	last uint64
	data []byte // of the newest
}

func newBench(t *testing.T, o peers.SSHDOptions) *bench {
	t.Helper()
	lan := lab.New(t)
	b := &bench{node: lan.Host("a", "192.0.2.1/24")}
	o.Command = func(s *peers.SSHD) string {
		self, err := os.ReadFile("/proc/self/exe")
		if err = errors.Join(err, os.WriteFile(filepath.Join(s.Local, "receiver"), self, 0o755)); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(s.Public, "receiver") + " receiver " + filepath.Join(s.Home, "store")
	}
	b.sshd = peers.StartSSHD(t, lan.Host("b", "192.0.2.2/24"), netip.MustParseAddr("192.0.2.2"), o)
	b.at = b.sshd.Path(filepath.Join(b.sshd.Home, "store"))
	return b
}

// begin empties both stores.
func (b *bench) begin(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(b.at); err != nil {
		t.Fatal(err)
	}
	b.own, b.data = open(t, filepath.Join(t.TempDir(), "own")), nil
}

func open(t testing.TB, path string) *dir.Store {
	t.Helper()
	s, err := dir.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (b *bench) config() ssh.Config {
	return ssh.Config{Address: b.sshd.Address.String(), User: b.sshd.User, KeyFile: b.sshd.KeyFile, KnownHosts: b.sshd.KnownHosts, Timeout: 5 * time.Second, Dial: b.dial}
}

func (b *bench) dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = b.node.DoErr(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

func target(t *testing.T, c ssh.Config) *receive.Target {
	t.Helper()
	to, err := receive.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = to.Close() })
	return to
}

// next takes another snapshot, of which so many pages are new and cannot be compressed.
func (b *bench) next(t *testing.T, changed int) replicator.Manifest {
	t.Helper()
	b.last++
	random := rand.NewChaCha8([32]byte{byte(b.last), byte(b.last >> 8)})
	if b.data == nil {
		b.data, changed = make([]byte, size), pages
	}
	b.data = bytes.Clone(b.data)
	for i := range changed {
		page := (i * 7 % pages) * pageSize
		_, _ = random.Read(b.data[page : page+pageSize])
	}
	return b.publish(t, b.data, replicator.Manifest{PageSize: pageSize, Pages: pages})
}

// publish puts bytes into the own store.
func (b *bench) publish(t *testing.T, data []byte, m replicator.Manifest) replicator.Manifest {
	t.Helper()
	sum := sha256.Sum256(data)
	m.Version, m.Size, m.SHA256, m.Time = storetest.V(3, 1, b.last), int64(len(data)), hex.EncodeToString(sum[:]), time.Now()
	if err := b.own.Publish(t.Context(), m, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return m
}

// must ships, and looks whether it is there.
func (b *bench) must(t *testing.T, to *receive.Target, m replicator.Manifest) (sent int64) {
	t.Helper()
	sent, err := to.Ship(t.Context(), m, b.own)
	if err != nil {
		t.Fatalf("%v: %d bytes sent, %v", m.Version, sent, err)
	}
	b.newest(t, m)
	return sent
}

// newest fails unless one of these is the newest that is there, with its bytes.
func (b *bench) newest(t *testing.T, want ...replicator.Manifest) {
	t.Helper()
	s := open(t, b.at)
	all, err := s.List(t.Context())
	if err != nil || len(all) == 0 {
		t.Fatalf("there are %v, %v", all, err)
	}
	for _, m := range want {
		if all[0].Version != m.Version {
			continue
		}
		r, err := s.Open(t.Context(), m.Version)
		if err == nil {
			_, err = io.Copy(io.Discard, r) // it has the digest of the manifest, or says so
			err = errors.Join(err, r.Close())
		}
		if err != nil || all[0].SHA256 != m.SHA256 {
			t.Errorf("%v: %v", m.Version, err)
		}
		return
	}
	t.Fatalf("the newest is %v, want one of %v", all[0].Version, want)
}

// cutConn ends after so many bytes, those that come and those that go counted together.
type cutConn struct {
	net.Conn
	left *atomic.Int64
}

func (c cutConn) take(n int) error {
	if c.left.Add(-int64(n)) < 0 {
		_ = c.Conn.Close()
		return errors.New("cut")
	}
	return nil
}

// Read implements net.Conn.
func (c cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil {
		err = c.take(n)
	}
	return n, err
}

// Write implements net.Conn: what was written before the cut arrives.
func (c cutConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b[:min(len(b), max(0, int(c.left.Load())))])
	if err == nil {
		err = c.take(len(b))
	}
	return n, err
}

// cut returns a configuration whose lines are cut after n bytes.
func (b *bench) cut(n int64) ssh.Config {
	c := b.config()
	c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		line, err := b.dial(ctx, network, address)
		left := new(atomic.Int64)
		left.Store(n)
		return cutConn{line, left}, err
	}
	return c
}

// once ships by a connection of its own.
func (b *bench) once(t *testing.T, c ssh.Config, m replicator.Manifest) (int64, error) {
	one := target(t, c)
	defer one.Close()
	return one.Ship(t.Context(), m, b.own)
}

// sample is a database of ProxySQL's.
func sample(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open("../sqlite/testdata/proxysql/" + name + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// database publishes a database as it is.
func (b *bench) database(t *testing.T, data []byte) replicator.Manifest {
	t.Helper()
	b.last++
	return b.publish(t, data, replicator.Manifest{PageSize: 4096, Pages: int64(len(data) / 4096)})
}
