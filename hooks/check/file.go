package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/hooks"
)

func init() { hooks.RegisterMonitor("file", NewFile) }

// FileConfig is the configuration of kind file.
type FileConfig struct {
	Path   string        `yaml:"path"`    // required
	Want   FileWish      `yaml:"want"`    // default present
	MaxAge time.Duration `yaml:"max_age"` // how long ago it may have been written; 0: any time
	// Weight is for want: number. What the file says is multiplied by it; default 1.
	Weight *int `yaml:"weight"`
}

// FileWish is what a file is to be. The empty string is Present.
type FileWish string

// The wishes.
const (
	Present FileWish = "present"
	Absent  FileWish = "absent"
	// Number is keepalived's track_file: the file holds a whole number, which is
	// multiplied by Weight and added to the node's fitness. From -1 to -253 the node is
	// degraded by that, from -254 on it is unfit; above 0 there is nothing to gain. With
	// a weight of 0 any number but 0 is unfit.
	Number FileWish = "number"
)

// maxFactor is the greatest weight, as with keepalived.
const maxFactor = 254

// File is unfit while a file is not what it is to be.
type File struct {
	c      FileConfig
	factor int
}

// NewFile checks the configuration.
func NewFile(c FileConfig) (hooks.Monitor, error) {
	var f faults
	m := &File{c: c, factor: 1}
	if c.Want == "" {
		m.c.Want = Present
	}
	if c.Weight != nil {
		m.factor = *c.Weight
	}
	f.add(!filepath.IsAbs(c.Path), "path: required: an absolute path, not %q", c.Path)
	f.add(!singleLine(c.Path), "path: it has more than one line")
	f.add(m.c.Want != Present && m.c.Want != Absent && m.c.Want != Number, "want %q: use %s, %s or %s", c.Want, Present, Absent, Number)
	f.add(c.MaxAge < 0, "max_age %v: use more than 0", c.MaxAge)
	f.add(c.MaxAge != 0 && c.Want == Absent, "max_age: a file that is to be absent has no age")
	f.add(c.Weight != nil && m.c.Want != Number, "weight: only with want: number; else the weight beside `with` counts")
	f.add(m.factor < -maxFactor || m.factor > maxFactor, "weight %d: use %d to %d", m.factor, -maxFactor, maxFactor)
	if err := f.err(); err != nil {
		return nil, err
	}
	return m, nil
}

// Monitor implements hooks.Monitor.
func (m *File) Monitor(context.Context) (hooks.Report, error) {
	info, err := os.Stat(m.c.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && m.c.Want == Absent:
		return fine("there is no %s", m.c.Path)
	case errors.Is(err, fs.ErrNotExist):
		return unfit("there is no %s", m.c.Path)
	case err != nil:
		return hooks.Report{}, err
	case m.c.Want == Absent:
		return unfit("%s is there", m.c.Path)
	}
	if why := stale(time.Since(info.ModTime()), m.c.MaxAge); why != "" {
		return unfit("%s %s", m.c.Path, why)
	}
	if m.c.Want == Present {
		return fine("%s is there", m.c.Path)
	}
	text, err := readPlain(m.c.Path)
	if err != nil {
		return hooks.Report{}, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return hooks.Report{}, fmt.Errorf("%s: it does not hold a whole number", m.c.Path)
	}
	return fileGrade(n, m.factor, m.c.Path), nil
}

// stale says why a file that was written so long ago is too old, or nothing. What is
// farther in the future than it may be old would never become old.
func stale(age, limit time.Duration) string {
	switch {
	case limit == 0:
	case age > limit:
		return fmt.Sprintf("is older than %v: it was written %v ago", limit, age.Round(time.Second))
	case age < -limit:
		return fmt.Sprintf("was written %v in the future: one of the clocks is wrong", (-age).Round(time.Second))
	}
	return ""
}

// fileGrade is what a number in a file says.
func fileGrade(n, factor int, path string) hooks.Report {
	r := hooks.Report{Text: fmt.Sprintf("%s says %d", path, n)}
	n = max(min(n, maxFactor), -maxFactor)
	switch sum := n * factor; {
	case factor == 0 && n != 0 || sum <= -maxFactor:
		r.Health = hooks.Unfit
	case sum < 0:
		r.Health, r.Weight = hooks.Degraded, -sum
	}
	return r
}

// readPlain reads a plain file. It does not wait for the other end of a pipe.
func readPlain(path string) ([]byte, error) { return readUpTo(path, maxRead) }

func readUpTo(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a plain file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s is longer than %d KiB", path, limit>>10)
	}
	return text, err
}
