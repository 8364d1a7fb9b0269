package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/inotify"
)

const (
	// SourcePoll is the default of SourceConfig.Poll.
	SourcePoll = 500 * time.Millisecond
	// askSpacing is how long to wait between two questions to a database that is
	// being written to: each takes its lock for some microseconds.
	askSpacing = 5 * time.Millisecond
)

// SourceConfig says which database is watched, and what a sound one holds.
type SourceConfig struct {
	Path string
	// Rules is as in Options. Before of the rules is set by each Take.
	Rules   func(replicator.Content) replicator.Rules
	MaxSize int64 // bytes; 0: MaxSize
	// Poll is how often the database is asked whether it has changed while its files show
	// no sign of it. 0: SourcePoll.
	Poll time.Duration
}

// Source is a replicator.Source of any SQLite database that is in use. Make one with
// NewSource. Its methods are called by one goroutine at a time.
//
// It learns of a change by the files (inotify), and asks PRAGMA data_version, on a
// connection for reading that it keeps, whether one was committed: a lock of some
// microseconds and never a transaction that stays open. While it is not closed, nothing
// else in this process may open and close the database file but SQLite: that would take
// SQLite's locks away (POSIX).
type Source struct {
	SourceConfig
	conn  *dialled
	file  identity // that conn has open
	opens int      // connections so far
	watch *inotify.Watch
	seen  *mark // what the latest Take copied, or nil
}

var _ replicator.Source = (*Source)(nil)

// mark is a state of the database: the same mark is the same content.
type mark struct {
	opens   int // data_version is that of a connection
	version int64
}

// identity tells a file from another that took its name.
type identity struct{ dev, ino uint64 }

// NewSource checks the configuration. It opens nothing.
func NewSource(c SourceConfig) (*Source, error) {
	if c.Path == "" {
		return nil, errors.New("sqlite: source: which database? Its path is missing")
	}
	c.Poll = cmp.Or(c.Poll, SourcePoll)
	return &Source{SourceConfig: c}, nil
}

// Close gives back what is open. The next call of another method opens it again.
func (s *Source) Close() error {
	s.hangUp()
	return s.unwatch()
}

// Changed implements replicator.Source. Its error says why the database cannot be asked:
// it is not there, it cannot be read, or a killed writer left something to be taken back.
func (s *Source) Changed(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		// Before the question, so that what comes after it is seen.
		watching := s.look()
		now, err := s.ask(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case isBusy(err): // being written to
		case err != nil:
			return fmt.Errorf("sqlite: ask %s for changes: %w", s.Path, err)
		case s.seen == nil || now != *s.seen:
			return nil
		}
		pause := s.Poll
		if isBusy(err) {
			pause = askSpacing
		}
		if !watching {
			pause = min(pause, s.Poll/4)
		}
		if err := s.wait(ctx, pause, watching && !isBusy(err)); err != nil {
			return err
		}
	}
}

// look begins to watch the files, and reports whether they are watched.
func (s *Source) look() bool {
	if s.watch != nil {
		return true
	}
	path, err := filepath.EvalSymlinks(s.Path)
	if err != nil {
		return false
	}
	base := filepath.Base(path)
	s.watch, err = inotify.Open(filepath.Dir(path), func(name string) bool {
		return name == base || name == base+"-journal" || name == base+"-wal"
	})
	return err == nil
}

func (s *Source) unwatch() error {
	if s.watch == nil {
		return nil
	}
	err := s.watch.Close()
	s.watch = nil
	return err
}

// wait waits for a sign of a change, or for a time.
func (s *Source) wait(ctx context.Context, pause time.Duration, watching bool) error {
	if watching {
		changed, err := s.watch.Wait(ctx, pause)
		if err == nil && !changed {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			_ = s.unwatch() // the next look begins anew, or polls
		}
		pause = askSpacing // a writer writes many times for one change
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// ask returns the state of the database.
func (s *Source) ask(ctx context.Context) (m mark, err error) {
	if err := s.connect(ctx); err != nil {
		return m, err
	}
	m.opens = s.opens
	err = s.conn.conn.QueryRowContext(ctx, "PRAGMA data_version").Scan(&m.version)
	if err != nil && !isBusy(err) {
		s.hangUp()
	}
	return m, err
}

// connect opens the file that has the name now.
func (s *Source) connect(ctx context.Context) error {
	now, err := identify(s.Path)
	if err != nil {
		s.hangUp()
		return err
	}
	if s.conn != nil && s.file == now {
		return nil
	}
	s.hangUp()
	d, err := dial(ctx, s.Path, "ro")
	if err != nil {
		return err
	}
	s.conn, s.file = &d, now
	s.opens++
	if again, err := identify(s.Path); err != nil || again != now {
		s.hangUp()
		return errors.Join(fmt.Errorf("another file took the name of %s", s.Path), err)
	}
	return nil
}

func (s *Source) hangUp() {
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
}

func identify(path string) (identity, error) {
	info, err := os.Stat(path)
	if err != nil {
		return identity{}, err
	}
	if !info.Mode().IsRegular() {
		return identity{}, &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file but " + kindOf(info.Mode()))}
	}
	st := info.Sys().(*syscall.Stat_t)
	return identity{uint64(st.Dev), st.Ino}, nil
}

// Take implements replicator.Source.
func (s *Source) Take(ctx context.Context, path string, before map[string]int64) (replicator.Taken, error) {
	return s.TakeBy(ctx, func() (replicator.Taken, error) {
		r, err := Take(ctx, s.Path, path, options(s.Rules, s.MaxSize, before))
		if err != nil {
			return replicator.Taken{}, err
		}
		return r.taken(path)
	})
}

// TakeBy is Take where another way to copy the database is known: what take returns
// without an error is what Changed compares with.
func (s *Source) TakeBy(ctx context.Context, take func() (replicator.Taken, error)) (replicator.Taken, error) {
	// What is committed from here on is a change, whether the copy holds it or not.
	now, asked := s.ask(ctx)
	taken, err := take()
	if err == nil && asked == nil {
		s.seen = &now
	}
	return taken, err
}

// Adopt verifies a file at path as Take does with its copy: what is not sound is removed.
// It is for sources that have their copies made by others.
func Adopt(ctx context.Context, path string, rules func(replicator.Content) replicator.Rules, limit int64, before map[string]int64) (replicator.Taken, error) {
	return Verify(ctx, path, options(rules, limit, before)).taken(path)
}

// options adds to rules what the snapshot before held.
func options(rules func(replicator.Content) replicator.Rules, limit int64, before map[string]int64) Options {
	return Options{MaxSize: limit, Rules: func(c replicator.Content) (r replicator.Rules) {
		if rules != nil {
			r = rules(c)
		}
		r.Before = before
		return r
	}}
}

// taken turns a report into what a Source returns, and removes what is not sound.
func (r Report) taken(path string) (replicator.Taken, error) {
	t := replicator.Taken{Manifest: r.Manifest(), Verdict: r.Verdict}
	if r.Sound() {
		return t, nil
	}
	return t, errors.Join(fmt.Errorf("sqlite: take a snapshot: %w: %v", replicator.ErrUnsound, r.Verdict), discard(path))
}
