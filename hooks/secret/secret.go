// Package secret reads the passwords and keys of hook kinds. They come from files, never
// from the configuration: that is shown, compared and copied.
package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Max is how many bytes a secret has at most.
const Max = 4 << 10

// Read returns the first line of a file, without its end. The file must be a plain one, of
// root or of the user of this process, and nobody else may use it; the path absolute. An
// empty line is an error. Errors have a hint and nothing of what is in the file.
//
// A kind reads it whenever it needs it, so that a new one counts at once, and once when it
// is configured, so that a fault is seen then.
func Read(path string) (string, error) {
	data, err := ReadAll(path)
	if err != nil {
		return "", err
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	switch {
	case len(line) == 0:
		return "", fmt.Errorf("secret: read %s: its first line is empty", path)
	case len(line) > Max:
		return "", fmt.Errorf("secret: read %s: its first line is longer than %d bytes", path, Max)
	}
	return string(line), nil
}

// ReadAll is Read for all that is in a file, which may be empty.
func ReadAll(path string) ([]byte, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("secret: read %q: use an absolute path", path)
	}
	// The opened file is checked, not the name, so that nobody can swap it in between;
	// the other end of a pipe is not waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("secret: read %s: it does not exist: create it with umask 077", path)
	}
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("secret: read %s: %w", path, err)
	}
	if err := private(path, info); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, Max+3))
	if err != nil {
		return nil, fmt.Errorf("secret: read %s: %w", path, err)
	}
	if len(data) > Max+2 { // and the end of a line
		return nil, fmt.Errorf("secret: read %s: it is longer than %d bytes", path, Max)
	}
	return data, nil
}

// private refuses a file that somebody else can read or could have written.
func private(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("secret: read %s: it is no plain file", path)
	}
	if owner := int(info.Sys().(*syscall.Stat_t).Uid); owner != 0 && owner != os.Geteuid() {
		return fmt.Errorf("secret: read %s: it belongs to user id %d: chown root %s", path, owner, path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("secret: read %s: others on this machine may use it (mode %04o): chmod 600 %s", path, mode, path)
	}
	return nil
}
