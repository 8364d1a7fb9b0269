package dir_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
	"github.com/carpd/carpd/replicator/storetest"
)

// anybody is a user that need not exist.
const anybody = 64177

func TestWhatRootMakesBelongsToTheOwnerOfTheDirectory(t *testing.T) {
	if os.Geteuid() != 0 || os.Chown(t.TempDir(), anybody, anybody) != nil {
		t.Skip("only root gives files away")
	}
	home := filepath.Join(t.TempDir(), "home")
	if err := errors.Join(os.Mkdir(home, 0o700), os.Chown(home, anybody, anybody)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(home, "store")
	s := open(t, path)
	for i := range uint64(3) {
		m, data := storetest.Snapshot(storetest.V(1, 1, i+1), 16<<10)
		if err := s.Publish(t.Context(), m, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := s.Incoming(t.Context())
	if err == nil {
		err = errors.Join(f.Close(), s.Quarantine(t.Context(), storetest.V(1, 1, 2), replicator.Fault{Reason: replicator.Digest}))
	}
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n++
		info, err := d.Info()
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != anybody {
			t.Errorf("%s belongs to %d", name, info.Sys().(*syscall.Stat_t).Uid)
		}
		return err
	})
	if err != nil || n < 10 {
		t.Errorf("%d files, %v", n, err)
	}
}

// TestNoLinkOfTheOwnersIsFollowed puts links where files of the store are. Whoever they
// belong to, root does not read or write what they point at.
func TestNoLinkOfTheOwnersIsFollowed(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	m, data := storetest.Snapshot(fresh, 16<<10)
	text, err := m.Encode()
	if err = errors.Join(err, os.WriteFile(secret, text, 0o600)); err != nil {
		t.Fatal(err)
	}
	link := func(name string) (path string) {
		path = filled(t)
		name = filepath.Join(path, name)
		if err := errors.Join(os.RemoveAll(name), os.Symlink(secret, name)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := dir.Open(t.Context(), link("lock")); err == nil {
		t.Error("a lock that is a link is taken")
	}
	if _, err := dir.Open(t.Context(), link("quarantine")); err == nil {
		t.Error("a quarantine that is a link is used")
	}
	if f, err := open(t, link(".incoming")).Incoming(t.Context()); err == nil {
		t.Error("a file for what is received that is a link is opened", f.Close())
	}
	path := link(fresh.String() + ".json")
	if err := os.WriteFile(filepath.Join(path, fresh.String()+".db"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := dir.Open(t.Context(), path); err == nil {
		all, err := s.List(t.Context())
		if len(all) > 0 && all[0].Version == fresh {
			t.Errorf("a manifest that is a link is read: %v, %v", all, err)
		}
	}
	if now, err := os.ReadFile(secret); err != nil || !bytes.Equal(now, text) {
		t.Errorf("what a link points at was changed: %q, %v", now, err)
	}
}

func TestWhatIsReceivedIsOneCallersAlone(t *testing.T) {
	s := open(t, filled(t))
	f, err := s.Incoming(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		second, err := s.Incoming(t.Context())
		if err == nil {
			err = second.Close()
		}
		got <- err
	}()
	wait := time.NewTimer(50 * time.Millisecond)
	defer wait.Stop()
	select {
	case err := <-got:
		t.Errorf("two have it: %v", err)
	case <-wait.C:
	}
	if err := errors.Join(f.Close(), <-got); err != nil {
		t.Error(err)
	}
}

// TestAnOddEntryWedgesNoStore puts what is not a regular file where one of the store's
// would be, as its owner can.
func TestAnOddEntryWedgesNoStore(t *testing.T) {
	odd := storetest.V(1, 1, 9)
	names := dir.NamesOf(odd)
	for _, name := range []string{names.Manifest, names.Data, names.UploadedData, names.UploadedManifest, ".new-" + names.Data, names.Away, names.Reason} {
		for what, put := range map[string]func(string) error{
			"a directory": func(path string) error {
				return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "file"), nil, 0o600))
			},
			"a link":       func(path string) error { return os.Symlink("/nowhere", path) },
			"a link round": func(path string) error { return os.Symlink(filepath.Base(path), path) },
			"a pipe":       func(path string) error { return syscall.Mkfifo(path, 0o600) },
		} {
			path := filled(t)
			if err := put(filepath.Join(path, name)); err != nil {
				t.Fatal(err)
			}
			s, err := dir.Open(t.Context(), path)
			if err != nil {
				t.Errorf("%s is %s: %v", name, what, err)
				continue
			}
			m, data := storetest.Snapshot(fresh, 16<<10)
			if err := s.Publish(t.Context(), m, bytes.NewReader(data)); err != nil {
				t.Errorf("%s is %s: %v", name, what, err)
				continue
			}
			storetest.Holds(t, s, fresh, bad, old)
			if _, err := s.Prune(t.Context(), replicator.Keep{Count: 1}, time.Now()); err != nil {
				t.Errorf("%s is %s: %v", name, what, err)
			}
		}
	}
}

// TestNothingGoesThroughALinkInThePlaceOfQuarantine puts one there between two steps.
func TestNothingGoesThroughALinkInThePlaceOfQuarantine(t *testing.T) {
	for _, at := range []string{"rename-reason", "move"} {
		path, elsewhere := filled(t), t.TempDir()
		s := open(t, path)
		away := filepath.Join(path, "quarantine")
		s.SetStep(func(step string) error {
			if step != at {
				return nil
			}
			return errors.Join(os.Rename(away, away+"-away"), os.Symlink(elsewhere, away))
		})
		if err := s.Quarantine(t.Context(), bad, replicator.Fault{Reason: replicator.Digest}); err == nil {
			t.Errorf("%s: it is said to be in quarantine", at)
		}
		if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) > 0 {
			t.Errorf("%s: elsewhere are %v, %v", at, entries, err)
		}
	}
}
