// Package dir is a replicator.Store in a directory of this machine.
//
//	VERSION.db      the snapshots
//	VERSION.json    their manifests: what has none is not there
//	quarantine/     what was taken out of service, with a VERSION.reason each
//	lock            held by who changes something
//	.new-*          what is being written
//	.up-VERSION.*   what is being written from afar, without the lock: see Names
//	.incoming       what is being received: see Incoming
//
// A snapshot is published in this order: write, fsync, read back through a fresh
// descriptor and compare, rename, fsync the directory, and then the manifest in the
// same way. What a crash leaves is cleared away by the next who changes something.
//
// The directory belongs to an OS user, who may be another than root: all that root
// makes in it is given to that user, and no link that somebody put there is followed.
package dir

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/carpd/carpd/replicator"
)

const (
	dataSuffix     = ".db"
	manifestSuffix = ".json"
	reasonSuffix   = ".reason"
	newPrefix      = ".new-"
	maxQuarantine  = 8 // snapshots: the newest stay
	maxEntries     = 1 << 16
)

// Store is a directory. Make one with Open. It holds no open file between calls.
type Store struct {
	path     string
	uid, gid int                // of the directory's owner
	step     func(string) error // tests stop and kill here; nil: nothing
}

var _ replicator.Store = (*Store)(nil)

// Open makes the directory if it is not there, of mode 0700: snapshots hold
// passwords. What an earlier crash left is cleared away.
func Open(ctx context.Context, path string) (*Store, error) {
	s := &Store{path: path}
	if err := s.makeDirectories(); err != nil {
		return nil, fmt.Errorf("dir: make %s: %w", path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("dir: make %s: %w", path, err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	s.uid, s.gid = int(owner.Uid), int(owner.Gid)
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := errors.Join(syncDir(s.path), syncDir(filepath.Dir(filepath.Clean(s.path)))); err != nil {
		return nil, fmt.Errorf("dir: make %s durable: %w", path, err)
	}
	if err := s.clear(); err != nil {
		return nil, err
	}
	return s, nil
}

// Path returns where the data of a snapshot lies, for replicator/sqlite.Verify.
func (s *Store) Path(v replicator.Version) string {
	return filepath.Join(s.path, NamesOf(v).Data)
}

func (s *Store) manifest(v replicator.Version) string {
	return filepath.Join(s.path, NamesOf(v).Manifest)
}

func (s *Store) quarantine(name string) string { return filepath.Join(s.path, "quarantine", name) }

// at is called before each step that changes something.
func (s *Store) at(step string) error {
	if s.step == nil {
		return nil
	}
	return s.step(step)
}

// List implements replicator.Store. A manifest that cannot be read, or whose data is
// not there, is passed over.
func (s *Store) List(ctx context.Context) ([]replicator.Manifest, error) {
	versions, err := s.versions(s.path, manifestSuffix)
	if err != nil {
		return nil, fmt.Errorf("dir: list %s: %w", s.path, err)
	}
	var all []replicator.Manifest
	for _, v := range versions {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("dir: list %s: %w", s.path, err)
		}
		m, err := s.read(v)
		if err == nil {
			all = append(all, m)
		} else if !useless(err) {
			return nil, fmt.Errorf("dir: list %s: %w", s.path, err) // it may be there, and the newest
		}
	}
	return all, nil
}

// versions returns those that a directory has files of, newest first.
func (s *Store) versions(path, suffix string) ([]replicator.Version, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // deleted meanwhile: lock makes it again
	}
	if err != nil {
		return nil, err
	}
	if len(entries) > maxEntries {
		return nil, fmt.Errorf("%d entries, at most %d: prune it", len(entries), maxEntries)
	}
	var all []replicator.Version
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok {
			if v, err := replicator.ParseVersion(name); err == nil {
				all = append(all, v)
			}
		}
	}
	slices.SortFunc(all, func(a, b replicator.Version) int { return b.Compare(a) })
	return all, nil
}

// read returns a manifest that fits its name and has its data.
func (s *Store) read(v replicator.Version) (replicator.Manifest, error) {
	b, err := readBounded(s.manifest(v))
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENXIO) {
		err = fmt.Errorf("%w: not a regular file: %w", replicator.ErrDamaged, err) // nobody will make one of it
	}
	if err != nil {
		return replicator.Manifest{}, err
	}
	m, err := replicator.DecodeManifest(b)
	if err != nil {
		return m, fmt.Errorf("%w: %w", replicator.ErrDamaged, err)
	}
	info, err := os.Lstat(s.Path(v))
	switch {
	case err != nil:
		return m, err
	case m.Version != v:
		return m, fmt.Errorf("%w: the manifest is that of %v", replicator.ErrDamaged, m.Version)
	case !info.Mode().IsRegular() || info.Size() != m.Size:
		return m, fmt.Errorf("%w: %d bytes instead of %d", replicator.ErrDamaged, info.Size(), m.Size)
	}
	return m, nil
}

// useless reports whether an error of read says that the snapshot can never be used,
// and not only that it could not be read now.
func useless(err error) bool {
	return errors.Is(err, replicator.ErrDamaged) || errors.Is(err, fs.ErrNotExist)
}

func readBounded(path string) ([]byte, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, replicator.MaxManifest+1))
}

// Open implements replicator.Store.
func (s *Store) Open(_ context.Context, v replicator.Version) (io.ReadCloser, error) {
	m, err := s.read(v)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("dir: open %v: %w", v, replicator.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("dir: open %v: %w", v, err)
	}
	f, err := openFile(s.Path(v))
	if err != nil {
		return nil, fmt.Errorf("dir: open %v: %w", v, err)
	}
	return &reader{file: f, hash: sha256.New(), manifest: m}, nil
}

// reader ends with an error if what it gave was not what the manifest says.
type reader struct {
	file     *os.File
	hash     hash.Hash
	manifest replicator.Manifest
}

// Read implements io.Reader.
func (r *reader) Read(b []byte) (int, error) {
	n, err := r.file.Read(b)
	r.hash.Write(b[:n])
	if err == io.EOF && hex.EncodeToString(r.hash.Sum(nil)) != r.manifest.SHA256 {
		err = fmt.Errorf("dir: read %v: %w", r.manifest.Version, replicator.ErrDamaged)
	}
	return n, err
}

// Close implements io.Closer.
func (r *reader) Close() error { return r.file.Close() }
