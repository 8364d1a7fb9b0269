package install

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxHolders is how many programs Holders names.
const maxHolders = 8

// Holders names the programs that have the file open, as "proxysql[17]", those of other
// containers included where they can be seen. A program that ends meanwhile, or that may
// not be looked at, is left out.
func Holders(path string) []string {
	var names []string
	for _, pid := range HolderPIDs(path) {
		comm, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
		if err == nil {
			names = append(names, fmt.Sprintf("%s[%d]", strings.TrimSpace(string(comm)), pid))
		}
	}
	return names
}

// HolderPIDs returns at most 8 processes that have the file open, but not this one.
func HolderPIDs(path string) (all []int) {
	var want, got unix.Stat_t
	if unix.Stat(path, &want) != nil {
		return nil
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := filepath.Join("/proc", p.Name(), "fd")
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if unix.Stat(filepath.Join(dir, fd.Name()), &got) == nil && got.Dev == want.Dev && got.Ino == want.Ino {
				all = append(all, pid)
				break
			}
		}
		if len(all) == maxHolders {
			break
		}
	}
	return all
}

// write makes a new file of mode 0600, whole and synced, or none.
func write(path string, fill func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	// What is read next comes from the disk, where the kernel does as it is asked.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, remove(path))
	}
	return nil
}

func writeBytes(path string, b []byte) error {
	return write(path, func(f io.Writer) error {
		_, err := f.Write(b)
		return err
	})
}

// copyFile copies a regular file. One that is not there is fs.ErrNotExist.
func copyFile(ctx context.Context, from, to string) error {
	f, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, fmt.Errorf("%s is not a regular file", from))
	}
	return write(to, func(w io.Writer) error {
		_, err := io.Copy(w, patient{ctx, f})
		return err
	})
}

// digest returns the sha256 of a file, in hex.
func digest(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, patient{ctx, f})
	return hex.EncodeToString(h.Sum(nil)), err
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

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxStateSize))
}
