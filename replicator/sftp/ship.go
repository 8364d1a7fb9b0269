package sftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	pkgsftp "github.com/pkg/sftp"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
)

// ship publishes a snapshot in the order of dir.Names.
func (r *remote) ship(ctx context.Context, m replicator.Manifest, from replicator.Store) error {
	text, err := m.Encode()
	if err != nil {
		return err
	}
	switch last, err := r.newest(ctx); {
	case errors.Is(err, replicator.ErrNotFound):
	case err != nil:
		return err
	case last.Version == m.Version && last.SHA256 == m.SHA256:
		return nil
	case m.Version.Compare(last.Version) <= 0:
		return fmt.Errorf("%w: %v", replicator.ErrOlder, last.Version)
	}
	if err := r.clear(ctx, m.Version); err != nil {
		return err
	}
	names := dir.NamesOf(m.Version)
	data, err := from.Open(ctx, m.Version)
	if err != nil {
		return err
	}
	err = r.upload(ctx, names.UploadedData, data, m.Size)
	if err = errors.Join(err, data.Close()); err != nil {
		return errors.Join(err, r.giveUp(ctx, names.UploadedData))
	}
	if err := r.upload(ctx, names.UploadedManifest, bytes.NewReader(text), int64(len(text))); err != nil {
		return errors.Join(err, r.giveUp(ctx, names.UploadedManifest), r.giveUp(ctx, names.UploadedData))
	}
	if err := r.rename(ctx, names.UploadedData, names.Data); err != nil {
		return err
	}
	return r.rename(ctx, names.UploadedManifest, names.Manifest)
}

// clear removes what earlier attempts left, those of other snapshots included: there
// is one master, and what it ships now is newer. The reason for which this version was
// put away was that of other bytes, or of rules that have changed.
func (r *remote) clear(ctx context.Context, v replicator.Version) error {
	infos, err := r.list(ctx)
	if err != nil {
		return err
	}
	for _, info := range infos {
		if old, ok := dir.OfUpload(info.Name()); ok && old.Compare(v) <= 0 {
			err = errors.Join(err, r.remove(ctx, info.Name()))
		}
	}
	names := dir.NamesOf(v)
	return errors.Join(err, r.remove(ctx, names.Reason), r.remove(ctx, names.Away))
}

func (r *remote) remove(ctx context.Context, name string) error {
	err := r.client.Within(ctx, func() error { return r.fs.Remove(r.path(name)) })
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", r.path(name), err)
	}
	return nil
}

// giveUp removes what could not be written whole, so that a disk that is full has room
// again. Without a connection the next attempt does it.
func (r *remote) giveUp(ctx context.Context, name string) error {
	if !r.client.Alive() {
		return nil
	}
	return r.remove(ctx, name)
}

// upload writes a file whole and durable, under a name of which nothing is there.
func (r *remote) upload(ctx context.Context, name string, data io.Reader, size int64) error {
	var f *pkgsftp.File
	err := r.client.Within(ctx, func() (err error) {
		if f, err = r.fs.OpenFile(r.path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL); err == nil {
			err = f.Chmod(0o600)
		}
		return err
	})
	if err == nil {
		err = r.write(ctx, f, data, size)
	}
	if err == nil {
		err = r.client.WithinLong(ctx, f.Sync)
	}
	if f != nil && r.client.Alive() {
		err = errors.Join(err, r.client.Within(ctx, f.Close))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w%s", r.path(name), err, r.room(ctx, size))
	}
	return nil
}

// write sends exactly size bytes, in pieces: each has the time that a wait has.
func (r *remote) write(ctx context.Context, f io.Writer, data io.Reader, size int64) error {
	buf := make([]byte, min(r.chunk, size+1))
	for total := int64(0); ; {
		n, err := io.ReadFull(data, buf)
		total += int64(n)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		if last := err != nil; total > size || last && total < size {
			return fmt.Errorf("%w: %d bytes instead of %d", replicator.ErrDamaged, total, size)
		} else if n > 0 {
			if err := r.client.WithinLong(ctx, func() error { _, err := f.Write(buf[:n]); return err }); err != nil {
				return err
			}
			if !last {
				continue
			}
		}
		return nil
	}
}

// room says how much room there is on a disk that has less than was to be written:
// sftp itself says "failure" of everything.
func (r *remote) room(ctx context.Context, size int64) string {
	if _, ok := r.fs.HasExtension("statvfs@openssh.com"); !ok || !r.client.Alive() {
		return ""
	}
	var free uint64
	err := r.client.Within(ctx, func() error {
		info, err := r.fs.StatVFS(r.dir)
		if err == nil {
			free = info.Bavail * info.Frsize
		}
		return err
	})
	if err != nil || free > uint64(size) {
		return ""
	}
	return fmt.Sprintf(": the disk there has %d bytes left, and %d are to be written", free, size)
}

// rename gives a file its name and makes that durable.
func (r *remote) rename(ctx context.Context, from, to string) error {
	err := r.client.WithinLong(ctx, func() error {
		if err := r.fs.PosixRename(r.path(from), r.path(to)); err != nil {
			return err
		}
		f, err := r.fs.Open(r.dir)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
	if err != nil {
		return fmt.Errorf("rename %s to %s: %w", r.path(from), r.path(to), err)
	}
	return nil
}
