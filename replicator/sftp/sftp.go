// Package sftp ships snapshots to a plain sshd: nothing of ours is installed there. The
// directory of the peer is then one of replicator/dir, which anybody may use as such.
//
// It needs posix-rename@openssh.com and fsync@openssh.com, which OpenSSH has. What has
// been written is not read back over the network: a peer that uses its snapshots
// verifies them as they come.
package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	pkgsftp "github.com/pkg/sftp"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/ssh"
)

const (
	maxEntries = 1 << 16
	chunk      = 256 << 10 // bytes that are sent before the next look at the time
	slowChunk  = 64 << 10  // the same with a bandwidth, of which there is ssh.MinBandwidth at least
)

// Config says where the store of a peer is.
type Config struct {
	ssh.Config
	Dir string // as the peer's sftp sees it: in a chroot, from there on; it must exist
}

// Validate finds all that no store can be reached with. It reads no file.
func (c Config) Validate() error {
	err := c.Config.Validate()
	if !path.IsAbs(c.Dir) || path.Clean(c.Dir) == "/" {
		err = errors.Join(err, fmt.Errorf("sftp: directory %q: want an absolute path of the peer, and not its root", c.Dir))
	}
	return err
}

// Target is the store of a peer. Make one with New. It connects when it is used, and
// stays connected until Close or until a call fails.
type Target struct {
	config Config
	remote *remote // nil: not connected
}

var _ replicator.Target = (*Target)(nil)

// New returns a target that is not connected yet.
func New(c Config) (*Target, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.Dir = path.Clean(c.Dir)
	return &Target{config: c}, nil
}

// Newest implements replicator.Target.
func (t *Target) Newest(ctx context.Context) (m replicator.Manifest, err error) {
	_, err = t.use(ctx, func(r *remote) (err error) {
		m, err = r.newest(ctx)
		return err
	})
	if err != nil {
		return m, fmt.Errorf("sftp: newest of %s: %w", t.config.Address, err)
	}
	return m, nil
}

// Ship implements replicator.Target. It sends the whole snapshot.
func (t *Target) Ship(ctx context.Context, m replicator.Manifest, from replicator.Store) (sent int64, err error) {
	sent, err = t.use(ctx, func(r *remote) error { return r.ship(ctx, m, from) })
	if err != nil {
		return sent, fmt.Errorf("sftp: ship %v to %s: %w", m.Version, t.config.Address, err)
	}
	return sent, nil
}

// Close implements io.Closer.
func (t *Target) Close() error {
	if t.remote == nil {
		return nil
	}
	r := t.remote
	t.remote = nil
	return r.close()
}

// use connects if need be. What fails for another reason than that of the snapshots
// ends the connection: the next call begins anew.
func (t *Target) use(ctx context.Context, f func(*remote) error) (sent int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	if t.remote != nil && !t.remote.client.Alive() {
		_ = t.Close() // it is dead already
	}
	before := int64(0)
	if t.remote == nil {
		if t.remote, err = connect(ctx, t.config); err != nil {
			return 0, err
		}
	} else {
		before = t.remote.client.Sent()
	}
	client := t.remote.client
	err = f(t.remote)
	if err != nil && !errors.Is(err, replicator.ErrOlder) && !errors.Is(err, replicator.ErrNotFound) && !errors.Is(err, replicator.ErrDamaged) {
		if said := t.remote.session.Said(); said != "" {
			err = fmt.Errorf("%w (the peer says: %q)", err, said)
		}
		_ = t.Close()
	}
	return client.Sent() - before, err
}

// remote is the directory while there is a connection.
type remote struct {
	client  *ssh.Client
	session *ssh.Session
	fs      *pkgsftp.Client
	dir     string
	chunk   int64
}

func connect(ctx context.Context, c Config) (_ *remote, err error) {
	r := &remote{dir: c.Dir, chunk: chunk}
	if c.Bandwidth > 0 {
		r.chunk = slowChunk
	}
	if r.client, err = ssh.Dial(ctx, c.Config); err != nil {
		return nil, err
	}
	if r.session, err = r.client.Subsystem(ctx, "sftp"); err != nil {
		return nil, errors.Join(err, r.client.Close())
	}
	err = r.client.Within(ctx, func() (err error) {
		r.fs, err = pkgsftp.NewClientPipe(r.session.Out, r.session.In, pkgsftp.UseConcurrentWrites(true))
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin sftp: %w: does the account run a command that is not sftp (%q)?", err, r.session.Said()), r.client.Close())
	}
	for _, name := range []string{"posix-rename@openssh.com", "fsync@openssh.com"} {
		if _, ok := r.fs.HasExtension(name); !ok {
			return nil, errors.Join(fmt.Errorf("the peer has no %s, without which nothing there is durable: it needs OpenSSH's sftp", name), r.close())
		}
	}
	return r, nil
}

// close ends the connection first: sftp's own end would wait for the peer.
func (r *remote) close() error {
	err := r.client.Close()
	_ = r.fs.Close() // it says that the connection has ended
	return err
}

func (r *remote) path(name string) string { return path.Join(r.dir, name) }

// newest returns the newest manifest that fits its name and has its data.
func (r *remote) newest(ctx context.Context) (replicator.Manifest, error) {
	infos, err := r.list(ctx)
	if err != nil {
		return replicator.Manifest{}, err
	}
	sizes := make(map[string]int64)
	var versions []replicator.Version
	for _, info := range infos {
		if v, ok := dir.OfManifest(info.Name()); ok {
			versions = append(versions, v)
		}
		if info.Mode().IsRegular() {
			sizes[info.Name()] = info.Size()
		}
	}
	slices.SortFunc(versions, func(a, b replicator.Version) int { return b.Compare(a) })
	for _, v := range versions {
		m, err := r.manifest(ctx, v)
		switch {
		case errors.Is(err, errNoManifest):
			continue
		case err != nil:
			return m, err
		}
		if size, there := sizes[dir.NamesOf(v).Data]; there && size == m.Size {
			return m, nil
		}
	}
	return replicator.Manifest{}, replicator.ErrNotFound
}

func (r *remote) list(ctx context.Context) (infos []os.FileInfo, err error) {
	err = r.client.WithinLong(ctx, func() (err error) {
		infos, err = r.fs.ReadDir(r.dir)
		return err
	})
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%s is not there: make it, owned by the account and of mode 0700: %w", r.dir, err)
	case err != nil:
		return nil, fmt.Errorf("list %s: %w", r.dir, err)
	case len(infos) > maxEntries:
		return nil, fmt.Errorf("list %s: %d entries, at most %d: prune it", r.dir, len(infos), maxEntries)
	}
	return infos, nil
}

// errNoManifest is the error of a manifest that says nothing, or is gone.
var errNoManifest = errors.New("no manifest")

func (r *remote) manifest(ctx context.Context, v replicator.Version) (m replicator.Manifest, err error) {
	name := r.path(dir.NamesOf(v).Manifest)
	var text []byte
	err = r.client.Within(ctx, func() error {
		f, err := r.fs.Open(name)
		if err != nil {
			return err
		}
		text, err = io.ReadAll(io.LimitReader(f, replicator.MaxManifest+1))
		return errors.Join(err, f.Close())
	})
	if errors.Is(err, os.ErrNotExist) {
		return m, errNoManifest
	}
	if err != nil {
		return m, fmt.Errorf("read %s: %w", name, err)
	}
	if m, err = replicator.DecodeManifest(text); err != nil || m.Version != v {
		return m, errNoManifest
	}
	return m, nil
}
