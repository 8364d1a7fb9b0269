package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// maxLinks is how many symbolic links a path may lead through, as in the kernel.
const maxLinks = 40

// CheckPath refuses a program that somebody could change who is not root, the user of
// this process or one of owners, user ids. It walks from / to it as the kernel does,
// through symbolic links; keepalived asks for the same (script_security). The error says
// what to change. [Run] calls it before each run; a kind calls it when it is configured,
// so that a fault is seen then.
func CheckPath(path string, owners ...uint32) error {
	return checkPath(path, slices.Concat([]uint32{0, uint32(os.Geteuid())}, unmappedOwners(), owners))
}

func checkPath(path string, owners []uint32) error {
	at, rest, links := "/", components(path), 0
	if err := checkFile(path, at, owners); err != nil {
		return err
	}
	for len(rest) > 0 {
		next := filepath.Join(at, rest[0])
		rest = rest[1:]
		if err := checkFile(path, next, owners); err != nil {
			return err
		}
		info, err := os.Lstat(next)
		if err != nil {
			return notThere(path, next, err)
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return fmt.Errorf("command: check %s: too many symbolic links", path)
			}
			target, err := os.Readlink(next)
			if err != nil {
				return fmt.Errorf("command: check %s: %w", path, err)
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(components(target), rest...)
		case len(rest) == 0 && !info.Mode().IsRegular():
			return fmt.Errorf("command: check %s: %s is no regular file", path, next)
		case len(rest) == 0 && info.Mode()&0o111 == 0:
			return fmt.Errorf("command: check %s: not executable: chmod +x %s", path, next)
		default:
			at = next
		}
	}
	return nil
}

// components splits a path. ".." stays in: it is looked up like a name, so that
// it means what it means to the kernel also behind a symbolic link.
func components(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// checkFile judges one directory, link or file on the way.
func checkFile(path, at string, owners []uint32) error {
	info, err := os.Lstat(at)
	if err != nil {
		return notThere(path, at, err)
	}
	what := "file"
	switch {
	case info.IsDir():
		what = "directory"
	case info.Mode()&fs.ModeSymlink != 0:
		what = "link"
	}
	uid := info.Sys().(*syscall.Stat_t).Uid
	if !slices.Contains(owners, uid) {
		return fmt.Errorf("command: check %s: %s %s belongs to user id %d, who could replace the program: chown root %s",
			path, what, at, uid, at)
	}
	// A link has mode 0777 always; who may replace it is decided by its directory.
	if what == "link" || info.Mode().Perm()&0o022 == 0 {
		return nil
	}
	if info.IsDir() && info.Mode()&fs.ModeSticky != 0 && (uid == 0 || slices.Contains(unmappedOwners(), uid)) {
		return nil
	}
	return fmt.Errorf("command: check %s: %s %s is writable by group or others (mode %04o), who could replace the program: chmod go-w %s",
		path, what, at, info.Mode().Perm(), at)
}

func notThere(path, at string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("command: check %s: %s does not exist", path, at)
	}
	return fmt.Errorf("command: check %s: %w", path, err)
}

// unmappedOwners returns, inside a user namespace, the id that stands for all
// users from outside of it: there, the host's root appears as this one, and a
// daemon has no more rights than the user who made the namespace. Elsewhere it
// returns nothing.
func unmappedOwners() []uint32 {
	m, err := os.ReadFile("/proc/self/uid_map")
	if err != nil || slices.Equal(strings.Fields(string(m)), []string{"0", "0", "4294967295"}) {
		return nil
	}
	b, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return nil
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return nil
	}
	return []uint32{uint32(id)}
}
