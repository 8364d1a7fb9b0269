package sftp_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/sftp"
	"github.com/carpd/carpd/replicator/ssh"
	"github.com/carpd/carpd/replicator/storetest"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

// cuts is how many places a line is cut at; the default keeps the test short.
var cuts = flag.Int("cuts", 14, "places at which the line is cut while a snapshot is shipped")

func TestMain(m *testing.M) { lab.Main(m) }

// size is that of the snapshots that are shipped, in bytes.
const size = 160 << 10

var first, second, third = storetest.V(7, 1, 1), storetest.V(7, 1, 2), storetest.V(7, 1, 3)

// bench is a node that ships, and a peer with sshd.
type bench struct {
	node *lab.Host
	sshd *peers.SSHD
	own  *dir.Store // has first, second and third
}

func newBench(t *testing.T, o peers.SSHDOptions) *bench {
	t.Helper()
	lan := lab.New(t)
	b := &bench{node: lan.Host("a", "192.0.2.1/24")}
	b.sshd = peers.StartSSHD(t, lan.Host("b", "192.0.2.2/24"), netip.MustParseAddr("192.0.2.2"), o)
	b.own = open(t, filepath.Join(t.TempDir(), "own"))
	for _, v := range []replicator.Version{first, second, third} {
		m, data := storetest.Snapshot(v, size)
		if err := b.own.Publish(t.Context(), m, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func open(t *testing.T, path string) *dir.Store {
	t.Helper()
	s, err := dir.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// config reaches a directory of the peer, which is made here.
func (b *bench) config(t *testing.T, name string) sftp.Config {
	t.Helper()
	path := filepath.Join(b.sshd.Home, name)
	if err := errors.Join(os.Mkdir(b.sshd.Path(path), 0o700), os.Chown(b.sshd.Path(path), b.sshd.UID, b.sshd.UID)); err != nil {
		t.Fatal(err)
	}
	return sftp.Config{Dir: path, Config: ssh.Config{Address: b.sshd.Address.String(), User: b.sshd.User, KeyFile: b.sshd.KeyFile, KnownHosts: b.sshd.KnownHosts,
		Timeout: 5 * time.Second, Dial: b.dial}}
}

func (b *bench) dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = b.node.DoErr(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

func target(t *testing.T, c sftp.Config) *sftp.Target {
	t.Helper()
	to, err := sftp.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = to.Close() })
	return to
}

// ship ships one of the bench's snapshots.
func (b *bench) ship(t *testing.T, to *sftp.Target, v replicator.Version) (int64, error) {
	m, _ := storetest.Snapshot(v, size)
	return to.Ship(t.Context(), m, b.own)
}

// must is a ship that may not fail.
func (b *bench) must(t *testing.T, to *sftp.Target, v replicator.Version) {
	t.Helper()
	if sent, err := b.ship(t, to, v); err != nil || sent < size {
		t.Fatalf("%v: %d bytes sent, %v", v, sent, err)
	}
}

// documented is what docs/replicator.md says to put into sshd_config.
var documented = []string{"Match User snapshots", "ForceCommand internal-sftp -u 0077 -P symlink,hardlink", "Match all"}

func TestLabPlainSSHD(t *testing.T) {
	b := newBench(t, peers.SSHDOptions{Lines: documented})
	for name, test := range map[string]func(*testing.T, *bench){
		"WhatIsShippedIsAStoreOfTheUsers":         usersStore,
		"RootAndTheUserWriteToOneStore":           sharedStore,
		"ASmallerVersionReplacesNothing":          smaller,
		"DamagedBytesAreNotPublished":             damaged,
		"OnlyAKnownHostKeyIsTalkedTo":             hostKeys,
		"OnlyAKeyThatIsPrivateIsUsed":             privateKey,
		"ALineThatIsCutAnywhereLeavesTheLast":     cutAnywhere,
		"AKilledPeerLeavesTheLast":                killed,
		"APeerThatStandsStillIsGivenUpInTime":     silent,
		"ADirectoryThatIsNotThereIsSaid":          noDirectory,
		"TheBandwidthIsKept":                      bandwidth,
		"WhatIsAboutToBePublishedIsNotClearedNow": aboutToBe,
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

func usersStore(t *testing.T, b *bench) {
	c := b.config(t, t.Name()[len("TestLabPlainSSHD/"):])
	to := target(t, c)
	if _, err := to.Newest(t.Context()); !errors.Is(err, replicator.ErrNotFound) {
		t.Errorf("an empty store: %v, want ErrNotFound", err)
	}
	b.must(t, to, first)
	b.must(t, to, second)
	if m, err := to.Newest(t.Context()); err != nil || m.Version != second {
		t.Errorf("the newest is %v, %v", m.Version, err)
	}
	owned(t, b.sshd.Path(c.Dir), b.sshd.UID)
	storetest.Holds(t, open(t, b.sshd.Path(c.Dir)), second, first)
	if err := errors.Join(to.Close(), to.Close()); err != nil {
		t.Error(err)
	}
	b.must(t, to, third) // it connects again
	storetest.Holds(t, open(t, b.sshd.Path(c.Dir)), third, second, first)
}

// owned fails unless everything belongs to the user, who alone can read it.
func owned(t *testing.T, path string, uid int) {
	t.Helper()
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && (info.Mode().Perm()&0o077 != 0 || info.Sys().(*syscall.Stat_t).Uid != uint32(uid)) {
			t.Errorf("%s: %v of %d", name, info.Mode(), info.Sys().(*syscall.Stat_t).Uid)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// sharedStore has the daemon, which is root, and the user take turns.
func sharedStore(t *testing.T, b *bench) {
	c := b.config(t, "shared")
	path := b.sshd.Path(c.Dir)
	root, to := open(t, path), target(t, c)
	b.must(t, to, first)
	m, data := storetest.Snapshot(second, size)
	err := errors.Join(root.Publish(t.Context(), m, bytes.NewReader(data)), root.Quarantine(t.Context(), first, replicator.Fault{Reason: replicator.Digest}))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := to.Newest(t.Context()); err != nil || m.Version != second {
		t.Errorf("the user cannot read what root published: %v, %v", m.Version, err)
	}
	b.must(t, to, third)
	if _, err := root.Prune(t.Context(), replicator.Keep{Count: 1}, time.Now()); err != nil {
		t.Error(err)
	}
	storetest.Holds(t, root, third)
	owned(t, path, b.sshd.UID)
}

func smaller(t *testing.T, b *bench) {
	c := b.config(t, "smaller")
	to := target(t, c)
	b.must(t, to, second)
	if _, err := b.ship(t, to, first); !errors.Is(err, replicator.ErrOlder) {
		t.Errorf("an older one: %v, want ErrOlder", err)
	}
	if sent, err := b.ship(t, to, second); err != nil || sent > size/2 {
		t.Errorf("the newest again: %v, %d bytes", err, sent)
	}
	other, _ := storetest.Snapshot(second, 2*size)
	if _, err := to.Ship(t.Context(), other, b.own); !errors.Is(err, replicator.ErrOlder) {
		t.Errorf("other bytes under a version that is there: %v, want ErrOlder", err)
	}
	storetest.Holds(t, open(t, b.sshd.Path(c.Dir)), second)
}

func damaged(t *testing.T, b *bench) {
	c := b.config(t, "damaged")
	to := target(t, c)
	b.must(t, to, first)
	own := open(t, filepath.Join(t.TempDir(), "own"))
	m, data := storetest.Snapshot(second, size)
	if err := own.Publish(t.Context(), m, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	data[size-1] ^= 1
	if err := os.WriteFile(own.Path(second), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Ship(t.Context(), m, own); !errors.Is(err, replicator.ErrDamaged) {
		t.Errorf("%v, want ErrDamaged", err)
	}
	path := b.sshd.Path(c.Dir)
	storetest.Holds(t, open(t, path), first)
	if rest, err := filepath.Glob(filepath.Join(path, ".up-*")); err != nil || len(rest) > 0 {
		t.Errorf("left over: %q, %v", rest, err)
	}
}

func hostKeys(t *testing.T, b *bench) {
	c := b.config(t, "hostkeys")
	line, err := os.ReadFile(c.KnownHosts)
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(line))
	const another = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIbGPQ8nqfDLvU8EWc4IUIr9AsqGMKv0oI8XJSmSP4Lh\n"
	for name, text := range map[string]string{
		"of another":  fields[0] + " " + another,
		"of nobody":   "",
		"other host":  "192.0.2.9 " + fields[1] + " " + fields[2] + "\n",
		"revoked":     "@revoked * " + fields[1] + " " + fields[2] + "\n" + string(line),
		"other kinds": fields[0] + " ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=\n",
	} {
		wrong := c
		wrong.KnownHosts = filepath.Join(t.TempDir(), "known_hosts")
		if err := os.WriteFile(wrong.KnownHosts, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		// A peer that has no key of the listed kinds is refused before it shows one.
		if _, err := b.ship(t, target(t, wrong), first); err == nil || !errors.Is(err, ssh.ErrHostKey) && name != "other kinds" {
			t.Errorf("%s: %v, want ErrHostKey", name, err)
		}
	}
	missing := c
	missing.KnownHosts = "/nowhere/known_hosts"
	if _, err := b.ship(t, target(t, missing), first); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no known_hosts: %v", err)
	}
	storetest.Holds(t, open(t, b.sshd.Path(c.Dir)))
	b.must(t, target(t, c), first)
}

func privateKey(t *testing.T, b *bench) {
	c := b.config(t, "key")
	key, err := os.ReadFile(c.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	c.KeyFile = filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(c.KeyFile, key, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ship(t, target(t, c), first); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
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

func cutAnywhere(t *testing.T, b *bench) {
	c := b.config(t, "cut")
	b.must(t, target(t, c), first)
	path := b.sshd.Path(c.Dir)
	newest := first
	const around = 12 << 10 // bytes of the handshake and of what comes before and after the data
	arrived := 0
	for i := range *cuts {
		at := int64(i+1) * (size + around) / int64(*cuts)
		v := storetest.V(8, 1, uint64(i+1))
		m, data := storetest.Snapshot(v, size)
		if err := b.own.Publish(t.Context(), m, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		cut := c
		cut.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			line, err := b.dial(ctx, network, address)
			left := new(atomic.Int64)
			left.Store(at)
			return cutConn{line, left}, err
		}
		if _, err := to(t, cut, b, v); err == nil {
			arrived++
		}
		s := open(t, path)
		all, err := s.List(t.Context())
		if err != nil || len(all) == 0 || all[0].Version != newest && all[0].Version != v {
			t.Fatalf("cut at byte %d: %v, %v, want %v or %v as the newest", at, all, err, newest, v)
		}
		storetest.Holds(t, s, versions(all)...)
		if _, err := to(t, c, b, v); err != nil { // what was cut off can be done again
			t.Fatalf("after a cut at byte %d: %v", at, err)
		}
		if _, err := s.Prune(t.Context(), replicator.Keep{Count: 1}, time.Now()); err != nil {
			t.Fatal(err)
		}
		storetest.Holds(t, s, v)
		if rest, err := filepath.Glob(filepath.Join(path, ".up-*")); err != nil || len(rest) > 0 {
			t.Errorf("left over after a cut at byte %d: %q, %v", at, rest, err)
		}
		newest = v
	}
	if arrived == *cuts {
		t.Error("no cut was in time")
	}
}

// to ships by a connection of its own.
func to(t *testing.T, c sftp.Config, b *bench, v replicator.Version) (int64, error) {
	one := target(t, c)
	defer one.Close()
	return b.ship(t, one, v)
}

func versions(all []replicator.Manifest) (vs []replicator.Version) {
	for _, m := range all {
		vs = append(vs, m.Version)
	}
	return vs
}

// halfway is a store whose data pauses in the middle, to do something.
type halfway struct {
	replicator.Store
	do func()
}

// Open implements replicator.Store.
func (h halfway) Open(ctx context.Context, v replicator.Version) (io.ReadCloser, error) {
	r, err := h.Store.Open(ctx, v)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(r, size/2), doing(h.do), r), r}, nil
}

// doing is a reader of nothing.
type doing func()

// Read implements io.Reader.
func (d doing) Read([]byte) (int, error) { d(); return 0, io.EOF }

func killed(t *testing.T, b *bench) {
	c := b.config(t, "killed")
	c.Bandwidth = 4 << 20 // in pieces, so that half of it has arrived
	one := target(t, c)
	b.must(t, one, first)
	m, _ := storetest.Snapshot(second, size)
	n := 0
	if _, err := one.Ship(t.Context(), m, halfway{b.own, func() { n = b.sshd.KillSessions() }}); err == nil || n == 0 {
		t.Errorf("%d processes were killed: %v", n, err)
	}
	storetest.Holds(t, open(t, b.sshd.Path(c.Dir)), first)
	b.must(t, one, second)
	storetest.Holds(t, open(t, b.sshd.Path(c.Dir)), second, first)
}

func silent(t *testing.T, b *bench) {
	c := b.config(t, "silent")
	c.Timeout = 2 * time.Second
	one := target(t, c)
	b.must(t, one, first)
	m, _ := storetest.Snapshot(second, size)
	began := time.Now()
	_, err := one.Ship(t.Context(), m, halfway{b.own, func() { b.sshd.StopSessions() }})
	if took := time.Since(began); err == nil || took > 20*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	b.sshd.KillSessions()
	began = time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = one.Ship(ctx, m, halfway{b.own, func() { b.sshd.StopSessions() }})
	if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 5*time.Second {
		t.Errorf("a context of 0.3 s ended the call after %v: %v", took, err)
	}
	b.sshd.KillSessions()
	storetest.Holds(t, open(t, b.sshd.Path(c.Dir)), first)
}

func noDirectory(t *testing.T, b *bench) {
	c := b.config(t, "there")
	c.Dir += "-not"
	if _, err := b.ship(t, target(t, c), first); err == nil || !strings.Contains(err.Error(), "make it") {
		t.Error(err)
	}
}

func bandwidth(t *testing.T, b *bench) {
	c := b.config(t, "bandwidth")
	c.Bandwidth = 2 * size // half a second
	began := time.Now()
	b.must(t, target(t, c), first)
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("%d bytes at %d a second took %v", size, c.Bandwidth, took)
	}
}

// aboutToBe stops between the two renames, while others clear the directory.
func aboutToBe(t *testing.T, b *bench) {
	path := b.sshd.Path(b.config(t, "about").Dir)
	open(t, path)
	m, data := storetest.Snapshot(second, size)
	text, err := m.Encode()
	names := dir.NamesOf(second)
	put := func(name string, b []byte) { err = errors.Join(err, os.WriteFile(filepath.Join(path, name), b, 0o600)) }
	put(names.Data, data)
	put(names.UploadedManifest, text)
	s := open(t, path) // this clears
	err = errors.Join(err, os.Rename(filepath.Join(path, names.UploadedManifest), filepath.Join(path, names.Manifest)))
	if err != nil {
		t.Fatal(err)
	}
	storetest.Holds(t, s, second)
	put(dir.NamesOf(first).UploadedData, data) // of a sender that is dead
	put(dir.NamesOf(third).UploadedData, data) // of one that is at it
	if err != nil {
		t.Fatal(err)
	}
	open(t, path)
	if _, err := os.Stat(filepath.Join(path, dir.NamesOf(first).UploadedData)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what can never be published stays: %v", err)
	}
	if _, err := os.Stat(filepath.Join(path, dir.NamesOf(third).UploadedData)); err != nil {
		t.Error(err)
	}
}

func TestLabAFullDiskLeavesTheLast(t *testing.T) {
	b := newBench(t, peers.SSHDOptions{Disk: 5 * size / 2})
	c := b.config(t, "store")
	one := target(t, c)
	b.must(t, one, first)
	b.must(t, one, second)
	_, err := b.ship(t, one, third)
	if err == nil || !strings.Contains(err.Error(), "bytes left") {
		t.Errorf("%v, want that the disk is full", err)
	}
	s := open(t, b.sshd.Path(c.Dir))
	storetest.Holds(t, s, second, first)
	if _, err := s.Prune(t.Context(), replicator.Keep{Count: 1}, time.Now()); err != nil {
		t.Fatal(err)
	}
	b.must(t, one, third)
	storetest.Holds(t, open(t, b.sshd.Path(c.Dir)), third, second)
}

func TestAConfigurationThatReachesNobodyIsRefused(t *testing.T) {
	sound := sftp.Config{Dir: "/var/lib/carpd/snapshots", Config: ssh.Config{Address: "192.0.2.1", User: "snapshots", KeyFile: "/key", KnownHosts: "/known"}}
	if _, err := sftp.New(sound); err != nil {
		t.Error(err)
	}
	for word, change := range map[string]func(*sftp.Config){
		"directory":   func(c *sftp.Config) { c.Dir = "snapshots" },
		"its root":    func(c *sftp.Config) { c.Dir = "/" },
		"address":     func(c *sftp.Config) { c.Address = "" },
		"65535":       func(c *sftp.Config) { c.Address = "192.0.2.1:0" },
		"user":        func(c *sftp.Config) { c.User = "" },
		"key file":    func(c *sftp.Config) { c.KeyFile = "key" },
		"known_hosts": func(c *sftp.Config) { c.KnownHosts = "" },
		"bandwidth":   func(c *sftp.Config) { c.Bandwidth = 100 },
		"timeout":     func(c *sftp.Config) { c.Timeout = time.Millisecond },
	} {
		c := sound
		change(&c)
		if _, err := sftp.New(c); err == nil || !strings.Contains(fmt.Sprint(err), word) {
			t.Errorf("%s: %v", word, err)
		}
	}
}
