package dir

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/replicator"
)

// Publish implements replicator.Store.
func (s *Store) Publish(ctx context.Context, m replicator.Manifest, data io.Reader) error {
	text, err := m.Encode()
	if err != nil {
		return err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.clear(); err != nil {
		return err
	}
	all, err := s.List(ctx)
	if err != nil {
		return err
	}
	if len(all) > 0 && m.Version.Compare(all[0].Version) <= 0 {
		if m.Version == all[0].Version && m.SHA256 == all[0].SHA256 {
			return nil
		}
		return fmt.Errorf("dir: publish %v: %w: %v", m.Version, replicator.ErrOlder, all[0].Version)
	}
	if err := s.takeBack(m.Version); err != nil {
		return fmt.Errorf("dir: publish %v: %w", m.Version, err)
	}
	if err := s.place(s.Path(m.Version), "data", func(path string) error { return s.writeData(ctx, path, m, data) }); err != nil {
		return fmt.Errorf("dir: publish %v: %w", m.Version, err)
	}
	if err := s.place(s.manifest(m.Version), "manifest", func(path string) error { return s.write(path, text) }); err != nil {
		return fmt.Errorf("dir: publish %v: %w", m.Version, err)
	}
	return nil
}

// takeBack forgets that a version which is published again was in quarantine: the
// reason was that of other bytes, or of rules that have changed.
func (s *Store) takeBack(v replicator.Version) error {
	if err := removeIfThere(s.quarantine(v.String() + reasonSuffix)); err != nil {
		return err
	}
	if err := removeIfThere(s.quarantine(v.String() + dataSuffix)); err != nil {
		return err
	}
	return syncDir(s.quarantine(""))
}

// place makes a file appear under its name, whole and durable, or not at all.
func (s *Store) place(name, what string, fill func(path string) error) (err error) {
	temp := filepath.Join(s.path, newPrefix+filepath.Base(name))
	defer func() {
		if err != nil {
			err = errors.Join(err, removeIfThere(temp))
		}
	}()
	if err := s.at("write-" + what); err != nil {
		return err
	}
	if err := fill(temp); err != nil {
		return err
	}
	if err := s.at("rename-" + what); err != nil {
		return err
	}
	if err := s.rename(temp, name); err != nil {
		return err
	}
	if err := s.at("sync-" + what); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// writeData writes the bytes of a snapshot and reads them back: by another
// descriptor and, where the kernel does as it is asked, from the disk.
func (s *Store) writeData(ctx context.Context, path string, m replicator.Manifest, data io.Reader) error {
	f, err := s.create(path)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(patient{ctx, data}, m.Size+1))
	if err == nil && n != m.Size {
		err = fmt.Errorf("%w: %d bytes or more instead of %d", replicator.ErrDamaged, n, m.Size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := s.at("read-back"); err != nil {
		return err
	}
	return intact(ctx, path, m)
}

// intact returns nil if the file holds the bytes of the manifest.
func intact(ctx context.Context, path string, m replicator.Manifest) error {
	f, err := openFile(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// What is refused here is read from memory: no worse than not to ask.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(patient{ctx, f}, m.Size+1))
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); n != m.Size || got != m.SHA256 {
		return fmt.Errorf("%w: %d bytes with sha256 %s instead of %d with %s", replicator.ErrDamaged, n, got, m.Size, m.SHA256)
	}
	return nil
}

// patient reads until its context ends.
type patient struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (p patient) Read(b []byte) (int, error) {
	if err := context.Cause(p.ctx); err != nil {
		return 0, err
	}
	return p.r.Read(b)
}

// write writes a small file whole.
func (s *Store) write(path string, b []byte) error {
	f, err := s.create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeIfThere removes what has one of our names, whatever it is; it follows no link.
func removeIfThere(path string) error { return os.RemoveAll(path) }

// lock waits until nobody else changes the directory, in this process or another. A
// process that dies lets go. A directory that was deleted is made again.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	f, err := s.locked(ctx, "lock")
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// Incoming returns a file within the directory in which a snapshot is put together
// before it is published, and in which who was before left something, maybe. Nobody
// else has it until it is closed: Incoming waits for that.
func (s *Store) Incoming(ctx context.Context) (*os.File, error) { return s.locked(ctx, ".incoming") }

// locked opens a file when nobody else has it locked.
func (s *Store) locked(ctx context.Context, name string) (*os.File, error) {
	if err := s.makeAgain(); err != nil {
		return nil, fmt.Errorf("dir: make %s: %w", s.path, err)
	}
	f, err := s.openOrMake(name)
	if err != nil {
		return nil, fmt.Errorf("dir: lock %s: %w", s.path, err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("dir: lock %s: %w", s.path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("dir: lock %s, which another holds: %w", s.path, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
