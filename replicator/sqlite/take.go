package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/replicator"
)

// TakeTimeout is the default of how long Take tries to read a database that is locked.
const TakeTimeout = 10 * time.Second

// lockRetry is how often a locked database is tried again: a busy writer leaves gaps
// of a millisecond.
const lockRetry = 2 * time.Millisecond

// ErrBusy is the error of a database that was locked all the time.
var ErrBusy = errors.New("sqlite: the database is locked by its writer")

// Take copies a database that may be in use, and verifies the copy. The copy is made
// in one step: a writer in the middle would make a copy in many steps start again and
// again, and the source is locked for the time of that step only. A step is not
// interrupted by ctx; Options.MaxSize bounds it.
//
// The file dest must not exist. When Take returns nil it is durable, in
// rollback-journal mode, of mode 0600, and was read back through a fresh descriptor; the
// report says whether it is sound. On an error there is no dest.
func Take(ctx context.Context, source, dest string, o Options) (r Report, err error) {
	limited, cancel := context.WithTimeoutCause(ctx, TakeTimeout, ErrBusy)
	defer cancel()
	if err := admit(source, o.MaxSize); err != nil {
		return r, fmt.Errorf("sqlite: take a snapshot of %s: %w", source, err)
	}
	f, err := os.OpenFile(dest, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return r, fmt.Errorf("sqlite: take a snapshot: %w", err)
	}
	defer f.Close()
	err = backup(limited, source, dest)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		// From the disk, where the kernel does as it is asked: it may refuse.
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		err = syncDir(filepath.Dir(dest))
	}
	if err != nil {
		return r, errors.Join(fmt.Errorf("sqlite: take a snapshot of %s: %w", source, err), discard(dest))
	}
	return Verify(ctx, dest, o), nil
}

// admit refuses what is no file, or too large to be copied in one step.
func admit(source string, limit int64) error {
	info, err := os.Stat(source)
	if limit == 0 {
		limit = MaxSize
	}
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("not a regular file but " + kindOf(info.Mode()))
	case info.Size() > limit:
		return fmt.Errorf("%d bytes, and the limit is %d", info.Size(), limit)
	}
	return nil
}

// backup copies a database as soon as its writer lets it.
func backup(ctx context.Context, source, dest string) error {
	tick := time.NewTicker(lockRetry)
	defer tick.Stop()
	for {
		err := tryBackup(ctx, source, dest)
		if !isBusy(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// tryBackup has SQLite copy a database.
func tryBackup(ctx context.Context, source, dest string) error {
	from, err := dial(ctx, source, "ro")
	if err != nil {
		return err
	}
	defer from.close()
	to, err := dial(ctx, dest, "rw")
	if err != nil {
		return err
	}
	defer to.close()
	// It is synced once, when it is whole; and nobody else has it open.
	if _, err := to.conn.ExecContext(ctx, "PRAGMA synchronous=OFF"); err != nil {
		return err
	}
	err = to.conn.Raw(func(d any) error {
		return from.conn.Raw(func(s any) error { return copyAll(d.(*sqlite3.SQLiteConn), s.(*sqlite3.SQLiteConn)) })
	})
	if err != nil {
		return err
	}
	var mode string
	err = to.conn.QueryRowContext(ctx, "PRAGMA journal_mode=DELETE").Scan(&mode)
	if err == nil && mode != "delete" {
		err = fmt.Errorf("the copy stays in journal mode %s", mode)
	}
	return err
}

// copyAll copies all pages in one step, or none if the writer does not let it.
func copyAll(to, from *sqlite3.SQLiteConn) error {
	b, err := to.Backup("main", from, "main")
	if err != nil {
		return err
	}
	done, err := b.Step(-1)
	if !done && err == nil {
		err = sqlite3.Error{Code: sqlite3.ErrBusy}
	}
	return errors.Join(err, b.Finish())
}

// isBusy reports whether an error says that somebody else holds a lock.
func isBusy(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrBusy || e.Code == sqlite3.ErrLocked)
}

// dialled is a database with the one connection that is used.
type dialled struct {
	db   *sql.DB
	conn *sql.Conn
}

// dial opens a database. It never waits for a lock by itself: that would not end with ctx.
func dial(ctx context.Context, path, mode string) (dialled, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return dialled{}, err
	}
	name := url.URL{Scheme: "file", Path: path, RawQuery: "mode=" + mode + "&_busy_timeout=0"}
	db, err := sql.Open(driver, name.String())
	if err != nil {
		return dialled{}, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return dialled{}, errors.Join(err, db.Close())
	}
	return dialled{db, conn}, nil
}

func (d dialled) close() {
	d.conn.Close()
	d.db.Close()
}

// discard removes a copy that is of no use, and what SQLite may have left beside it.
func discard(dest string) error {
	var err error
	for _, suffix := range []string{"", "-journal", "-wal", "-shm"} {
		if e := os.Remove(dest + suffix); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Manifest returns what the report knows of a manifest. The caller adds version,
// source and time.
func (r Report) Manifest() replicator.Manifest {
	return replicator.Manifest{Kind: r.Kind, Size: r.Size, SHA256: r.SHA256, PageSize: r.Header.PageSize, Pages: r.Header.Pages, Rows: r.Rows}
}
