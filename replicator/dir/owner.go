package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// makeDirectories makes what is not there. What root makes within a directory of
// somebody else belongs to him: he could not use it otherwise.
func (s *Store) makeDirectories() error {
	parent := filepath.Dir(filepath.Clean(s.path))
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	if err := makeDirectory(s.path, parent); err != nil {
		return err
	}
	if info, err := os.Stat(s.path); err != nil || !info.IsDir() {
		return errors.Join(err, fmt.Errorf("%s is not a directory", s.path))
	}
	away := s.quarantine("")
	if err := makeDirectory(away, s.path); err != nil {
		return err
	}
	info, err := os.Lstat(away)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a directory but %v: remove it", away, info.Mode().Type())
	}
	return err
}

// makeDirectory makes one that is not there, for whom the one that it is in belongs to.
func makeDirectory(path, in string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(give(f, in), f.Close())
}

// makeAgain makes what was deleted since Open, for whom it belonged to then.
func (s *Store) makeAgain() error {
	_, err := os.Lstat(s.path)
	gone := errors.Is(err, fs.ErrNotExist)
	if err := s.makeDirectories(); err != nil || !gone || os.Geteuid() != 0 {
		return err
	}
	return errors.Join(os.Lchown(s.path, s.uid, s.gid), os.Lchown(s.quarantine(""), s.uid, s.gid))
}

// create makes a file that nobody else can read and that was not there.
func (s *Store) create(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := give(f, s.path); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return f, nil
}

// openOrMake opens one of the files that are never taken away.
func (s *Store) openOrMake(name string) (*os.File, error) {
	path := filepath.Join(s.path, name)
	for range 8 { // between the two somebody else may make it
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		made, err := s.create(path)
		if err == nil {
			err = made.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s comes and goes", path)
}

// give gives a file that was made just now to the owner of the directory that it is in.
// Only root can, and only root has to.
func give(f *os.File, in string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(in)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	if owner.Uid == 0 {
		return nil
	}
	return f.Chown(int(owner.Uid), int(owner.Gid))
}

// rename gives a file its name. The owner of the directory may put a link in the place
// of quarantine at any moment: nothing goes through it.
func (s *Store) rename(from, to string) error {
	in := filepath.Dir(to)
	if in != filepath.Clean(s.quarantine("")) {
		return os.Rename(from, to)
	}
	f, err := os.OpenFile(in, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Renameat(unix.AT_FDCWD, from, int(f.Fd()), filepath.Base(to)); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// openFile opens a file for reading, and not one of somewhere else by a link that the
// owner of the directory made.
func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}
