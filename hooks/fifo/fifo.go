// Package fifo is the hook kind "fifo": it writes a line to a named pipe when the role
// moves, in the form of keepalived's notify_fifo.
//
//	kind: fifo
//	on: after-up
//	with: {path: /run/carpd/notify}
//
// # What is written
//
//	INSTANCE "9@eth0" MASTER 100
//
// State is MASTER, BACKUP, FAULT (the interface is down) or STOP (carpd ends).
//
// # What it promises
//
// Lines are whole and in the order of the transitions, also those of several instances:
// each is one write, shorter than what a pipe takes at once. The pipe is the queue, of
// 64 KiB, and stays open for as long as the daemon runs: a reader may come late or be
// started again, and misses nothing that fits. Nothing waits for a reader, but a full
// pipe is waited for as long as Config.Wait says; then the line is lost and the run
// fails. What nobody has read is lost when the daemon ends.
//
// It makes the pipe if it is not there, for its user alone. One that belongs to somebody
// else, and a file that is none, is refused.
package fifo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/keepalived"
)

func init() { hooks.Register("fifo", New) }

// DefaultWait is how long a full pipe is waited for unless the configuration says.
const DefaultWait = time.Second

const (
	// whole is how many bytes a pipe takes at once or not at all: PIPE_BUF of Linux.
	whole = 4096
	// maxName is how long the name of an instance may be, for a line to be whole.
	maxName = 255
)

// Config is the configuration of one pipe.
type Config struct {
	Path     string        `yaml:"path"`     // absolute; required
	Name     string        `yaml:"name"`     // default the name of the instance
	Priority int           `yaml:"priority"` // the last word, default keepalived.DefaultPriority
	User     string        `yaml:"user"`     // who reads it, by name or number: the owner of a pipe that is made; default the daemon's user
	Wait     time.Duration `yaml:"wait"`     // how long to wait for room, at most a minute; 0 means DefaultWait
}

// New returns a hook that writes to the pipe. It does not touch it yet.
func New(c Config) (hooks.Hook, error) {
	h := &hook{Config: c, uid: os.Geteuid(), gid: os.Getegid()}
	var faults []error
	if !filepath.IsAbs(c.Path) {
		faults = append(faults, fmt.Errorf("path %q: use an absolute path", c.Path))
	}
	if len(c.Name) > maxName || strings.ContainsFunc(c.Name, func(r rune) bool { return r == '"' || !strconv.IsPrint(r) }) {
		faults = append(faults, fmt.Errorf("name %q: use at most %d characters, and no quotes", c.Name, maxName))
	}
	if c.Priority < 0 || c.Priority > 255 {
		faults = append(faults, fmt.Errorf("priority %d: use 0 to 255", c.Priority))
	}
	if c.Wait < 0 || c.Wait > time.Minute {
		faults = append(faults, fmt.Errorf("wait %v: use 1ms to 1m", c.Wait))
	}
	if c.Wait == 0 {
		h.Wait = DefaultWait
	}
	if c.User != "" {
		var err error
		if h.uid, h.gid, err = lookup(c.User); err != nil {
			faults = append(faults, err)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return h, nil
}

func lookup(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return 0, 0, fmt.Errorf("user %q: no such user on this node", name)
		}
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return uid, gid, errors.Join(err1, err2)
}

// hook is one pipe.
type hook struct {
	Config
	uid, gid int // whose a pipe is that is made

	mu   sync.Mutex
	pipe *os.File // nil until the first run
}

// Run writes one line. It implements hooks.Hook.
func (h *hook) Run(ctx context.Context, ev hooks.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name := h.Name
	if name == "" {
		name = ev.Name
	}
	line := keepalived.Line(name, ev, h.Priority)
	if len(line) > whole {
		return fmt.Errorf("fifo: write %s: the line of %d bytes is longer than %d", h.Path, len(line), whole)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.open(); err != nil {
		return err
	}
	late := time.Now().Add(h.Wait)
	if by, ok := ctx.Deadline(); ok && by.Before(late) {
		late = by
	}
	if err := h.pipe.SetWriteDeadline(late); err != nil {
		return fmt.Errorf("fifo: write %s: %w", h.Path, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = h.pipe.SetWriteDeadline(time.Now()) })
	_, err := h.pipe.WriteString(line)
	stop()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("fifo: write %s: it is full: %w", h.Path, ctx.Err())
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("fifo: write %s: it was full for %v: its reader does not read, and has missed this line", h.Path, h.Wait)
	}
	return fmt.Errorf("fifo: write %s: %w", h.Path, err)
}

// open opens the pipe, unless the one that is open is the one at the path.
func (h *hook) open() error {
	at, err := os.Lstat(h.Path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = unix.Mkfifo(h.Path, 0o600); err == nil {
			err = os.Lchown(h.Path, h.uid, h.gid)
		}
		if err == nil {
			at, err = os.Lstat(h.Path)
		}
	}
	if err != nil {
		return fmt.Errorf("fifo: make %s: %w", h.Path, err)
	}
	if h.pipe != nil {
		if mine, err := h.pipe.Stat(); err == nil && os.SameFile(mine, at) {
			return nil
		}
		_ = h.pipe.Close() // it was replaced: nobody will come to read it
		h.pipe = nil
	}
	if at.Mode()&fs.ModeNamedPipe == 0 {
		return fmt.Errorf("fifo: open %s: it is no named pipe: move it away, a pipe is then made", h.Path)
	}
	// Open for reading too: so it opens without a reader, and holds what is written.
	fd, err := unix.Open(h.Path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fifo: open %s: %w", h.Path, err)
	}
	pipe := os.NewFile(uintptr(fd), h.Path)
	if err := h.check(pipe); err != nil {
		return errors.Join(err, pipe.Close())
	}
	h.pipe = pipe
	return nil
}

// check refuses what somebody has put there who has no part in it.
func (h *hook) check(pipe *os.File) error {
	info, err := pipe.Stat()
	if err != nil {
		return fmt.Errorf("fifo: open %s: %w", h.Path, err)
	}
	if info.Mode()&fs.ModeNamedPipe == 0 {
		return fmt.Errorf("fifo: open %s: it is no named pipe", h.Path)
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if !slices.Contains([]int{0, os.Geteuid(), h.uid}, owner) {
		return fmt.Errorf("fifo: open %s: it belongs to user id %d: chown it, or name that user in user", h.Path, owner)
	}
	return nil
}
