package dir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/carpd/carpd/replicator"
)

// Prune implements replicator.Store.
func (s *Store) Prune(ctx context.Context, keep replicator.Keep, now time.Time) ([]replicator.Version, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := s.clear(); err != nil {
		return nil, err
	}
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var looking error // a look that failed says nothing of the snapshot
	faults := make(map[replicator.Version]string)
	drop, damaged := keep.Choose(all, now, func(m replicator.Manifest) bool {
		err := intact(ctx, s.Path(m.Version), m)
		if err != nil && !errors.Is(err, replicator.ErrDamaged) {
			looking = errors.Join(looking, err)
		}
		if err != nil {
			faults[m.Version] = err.Error()
		}
		return err == nil
	})
	if looking != nil {
		return nil, fmt.Errorf("dir: prune %s: %w", s.path, looking)
	}
	for _, v := range damaged {
		if err := s.putAway(v, replicator.Fault{Reason: replicator.Digest, Text: faults[v]}); err != nil {
			return nil, err
		}
	}
	for i, v := range drop {
		if err := s.remove(v); err != nil {
			return drop[:i], fmt.Errorf("dir: prune %v: %w", v, err)
		}
	}
	return drop, nil
}

// remove deletes a snapshot: the manifest first, so that it is never there without
// its data.
func (s *Store) remove(v replicator.Version) error {
	if err := s.at("remove-manifest"); err != nil {
		return err
	}
	if err := removeIfThere(s.manifest(v)); err != nil {
		return err
	}
	if err := syncDir(s.path); err != nil {
		return err
	}
	if err := s.at("remove-data"); err != nil {
		return err
	}
	return removeIfThere(s.Path(v))
}

// Quarantine implements replicator.Store. The newest 8 are kept.
func (s *Store) Quarantine(ctx context.Context, v replicator.Version, f replicator.Fault) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.clear(); err != nil {
		return err
	}
	if _, err := os.Lstat(s.manifest(v)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("dir: quarantine %v: %w", v, replicator.ErrNotFound)
	}
	return s.putAway(v, f)
}

// putAway writes the reason first: with it, clear finishes what a crash left undone.
func (s *Store) putAway(v replicator.Version, f replicator.Fault) error {
	text, err := json.Marshal(replicator.Quarantined{Version: v, Fault: f})
	if err == nil {
		err = s.place(s.quarantine(v.String()+reasonSuffix), "reason", func(path string) error { return s.write(path, append(text, '\n')) })
	}
	if err == nil {
		err = s.finish(v)
	}
	if err == nil {
		err = s.forget()
	}
	if err != nil {
		return fmt.Errorf("dir: quarantine %v: %w", v, err)
	}
	return nil
}

// finish takes a snapshot whose reason is written out of service, then moves it.
func (s *Store) finish(v replicator.Version) error {
	if err := s.at("hide"); err != nil {
		return err
	}
	if err := removeIfThere(s.manifest(v)); err != nil {
		return err
	}
	if err := syncDir(s.path); err != nil {
		return err
	}
	if err := s.at("move"); err != nil {
		return err
	}
	if err := s.rename(s.Path(v), s.quarantine(v.String()+dataSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(syncDir(s.quarantine("")), syncDir(s.path))
}

// forget deletes what is too much in quarantine, the oldest first.
func (s *Store) forget() error {
	all, err := s.versions(s.quarantine(""), reasonSuffix)
	if err != nil || len(all) <= maxQuarantine {
		return err
	}
	for _, v := range all[maxQuarantine:] {
		err = errors.Join(err, removeIfThere(s.quarantine(v.String()+dataSuffix)), removeIfThere(s.quarantine(v.String()+reasonSuffix)))
	}
	return err
}

// Quarantined implements replicator.Store.
func (s *Store) Quarantined(ctx context.Context) ([]replicator.Quarantined, error) {
	versions, err := s.versions(s.quarantine(""), reasonSuffix)
	if err != nil {
		return nil, fmt.Errorf("dir: list quarantine: %w", err)
	}
	var all []replicator.Quarantined
	for _, v := range versions {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("dir: list quarantine: %w", err)
		}
		q := replicator.Quarantined{Version: v}
		b, err := readBounded(s.quarantine(v.String() + reasonSuffix))
		if err == nil {
			err = json.Unmarshal(b, &q)
		}
		if err != nil || q.Version != v {
			q = replicator.Quarantined{Version: v, Fault: replicator.Fault{Reason: replicator.Unreadable, Text: "the reason cannot be read"}}
		}
		all = append(all, q)
	}
	return all, nil
}

// clear removes what a crash left. The lock is held: nobody is in the middle of
// anything.
func (s *Store) clear() error {
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return fmt.Errorf("dir: clear %s: %w", s.path, err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) {
			err = errors.Join(err, removeIfThere(filepath.Join(s.path, e.Name())))
		}
	}
	away, listErr := s.versions(s.quarantine(""), reasonSuffix)
	err = errors.Join(err, listErr)
	for _, v := range away { // a version that was put away and is not yet moved
		if _, there := os.Lstat(s.quarantine(v.String() + dataSuffix)); errors.Is(there, fs.ErrNotExist) {
			err = errors.Join(err, s.finish(v))
		}
	}
	data, listErr := s.versions(s.path, dataSuffix)
	err = errors.Join(err, listErr)
	for _, v := range data {
		if s.isUploaded(v) { // looked for first: once it is not there the manifest is, or nobody will bring it
			continue
		}
		if _, there := os.Lstat(s.manifest(v)); errors.Is(there, fs.ErrNotExist) {
			err = errors.Join(err, removeIfThere(s.Path(v)))
		}
	}
	if err == nil {
		err = s.clearUnreadable()
	}
	if err == nil {
		err = s.clearUploads(entries)
	}
	if err != nil {
		return fmt.Errorf("dir: clear %s: %w", s.path, err)
	}
	return nil
}

// clearUnreadable puts away what has a manifest that says nothing or has no data.
func (s *Store) clearUnreadable() error {
	versions, err := s.versions(s.path, manifestSuffix)
	if err != nil {
		return err
	}
	for _, v := range versions {
		if _, bad := s.read(v); bad != nil && useless(bad) {
			err = errors.Join(err, s.putAway(v, replicator.Fault{Reason: replicator.Unreadable, Text: "manifest: " + bad.Error()}))
		}
	}
	return err
}
