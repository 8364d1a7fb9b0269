package main_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/receive"
	"github.com/carpd/carpd/replicator/sqlite"
	"github.com/carpd/carpd/replicator/ssh"
	"github.com/carpd/carpd/test/lab"
	"github.com/carpd/carpd/test/peers"
)

// proxysqlSample is a database of ProxySQL's, with its manifest.
func proxysqlSample(t *testing.T, name string, sequence uint64) (replicator.Manifest, []byte) {
	t.Helper()
	f, err := os.Open("../../replicator/sqlite/testdata/proxysql/" + name + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	path := filepath.Join(t.TempDir(), "sample.db")
	if err = errors.Join(err, os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	m := sqlite.Verify(t.Context(), path, sqlite.Options{}).Manifest()
	m.Version, m.Time = replicator.Version{Epoch: 5, Node: 1, Sequence: sequence}, time.Now()
	return m, data
}

// TestLabReceiveIsTheForcedCommandOfAUserAndRootSharesHisStore ships to the real
// carpd receive, while what the daemon does there is done as root.
func TestLabReceiveIsTheForcedCommandOfAUserAndRootSharesHisStore(t *testing.T) {
	lan := lab.New(t)
	node := lan.Host("a", "192.0.2.1/24")
	sshd := peers.StartSSHD(t, lan.Host("b", "192.0.2.2/24"), netip.MustParseAddr("192.0.2.2"), peers.SSHDOptions{Command: func(s *peers.SSHD) string {
		built, err := os.ReadFile(program(t, carpd))
		if err = errors.Join(err, os.WriteFile(filepath.Join(s.Local, "carpd"), built, 0o755)); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(s.Public, "carpd") + " receive --dir " + filepath.Join(s.Home, "store") + " --allow-empty mysql_servers --keep-count 2"
	}})
	at := sshd.Path(filepath.Join(sshd.Home, "store"))
	daemon, err := dir.Open(t.Context(), at) // it came first, and made the directory
	if err != nil {
		t.Fatal(err)
	}
	own, err := dir.Open(t.Context(), filepath.Join(t.TempDir(), "own"))
	if err != nil {
		t.Fatal(err)
	}
	to, err := receive.New(ssh.Config{Address: sshd.Address.String(), User: sshd.User, KeyFile: sshd.KeyFile, KnownHosts: sshd.KnownHosts,
		Dial: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = node.DoErr(func() (err error) {
				c, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return c, err
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	ship := func(name string, sequence uint64) error {
		m, data := proxysqlSample(t, name, sequence)
		if err := own.Publish(t.Context(), m, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		_, err := to.Ship(t.Context(), m, own)
		return err
	}
	if err := ship("proxysql.db", 1); err != nil {
		t.Fatal(err)
	}
	if err := ship("damaged/users-empty.db", 2); !errors.Is(err, receive.ErrRefused) || !strings.Contains(err.Error(), string(replicator.Emptied)) {
		t.Errorf("a database without users: %v", err)
	}
	if err := ship("damaged/servers-empty.db", 3); err != nil {
		t.Errorf("a database without servers, which is allowed: %v", err)
	}
	if err := daemon.Quarantine(t.Context(), replicator.Version{Epoch: 5, Node: 1, Sequence: 3}, replicator.Fault{Reason: replicator.Emptied}); err != nil {
		t.Fatal(err)
	}
	for sequence := range uint64(3) {
		if err := ship("proxysql.db", 4+sequence); err != nil {
			t.Fatal(err)
		}
	}
	all, err := daemon.List(t.Context())
	if err != nil || len(all) != 2 || all[0].Version.Sequence != 6 || all[1].Version.Sequence != 5 {
		t.Errorf("--keep-count 2 leaves %v, %v", all, err)
	}
	err = filepath.WalkDir(at, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && (info.Sys().(*syscall.Stat_t).Uid != uint32(sshd.UID) || info.Mode().Perm()&0o077 != 0) {
			t.Errorf("%s: %v of %d", name, info.Mode(), info.Sys().(*syscall.Stat_t).Uid)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	// A directory of somebody else's is said to be one.
	if err := errors.Join(to.Close(), os.Chown(at, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Newest(t.Context()); err == nil || !strings.Contains(err.Error(), "must belong to the user") {
		t.Errorf("a directory of root's: %v", err)
	}
}
