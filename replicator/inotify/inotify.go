// Package inotify waits for changes of files of one directory. The kernel tells of
// what is written by processes of this machine only: what comes over a network file
// system is not seen, so a caller looks by itself now and then.
package inotify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrGone is the error of a directory that is not there any more under its name.
var ErrGone = errors.New("inotify: the directory is gone")

const events = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// gone are the events of a directory that is not there any more.
const gone = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_IGNORED | unix.IN_UNMOUNT

// buffer is how many bytes of events are read at once: some hundred events.
const buffer = 16 << 10

// Watch watches a directory. Make one with Open. Its methods are called by one goroutine
// at a time.
type Watch struct {
	file     *os.File
	path     string
	relevant func(name string) bool
	buf      []byte
}

// Open begins to watch a directory for changes of files whose names are relevant.
func Open(path string, relevant func(name string) bool) (*Watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: watch %s: %w", path, err)
	}
	w := &Watch{file: os.NewFile(uintptr(fd), "inotify"), path: path, relevant: relevant, buf: make([]byte, buffer)}
	if _, err := unix.InotifyAddWatch(fd, path, events); err != nil {
		w.Close()
		return nil, fmt.Errorf("inotify: watch %s: %w", path, err)
	}
	return w, nil
}

// Close ends the watch.
func (w *Watch) Close() error { return w.file.Close() }

// Wait waits until something relevant has changed since the last Wait, or limit has
// passed. It may return true for no reason. The error is that of ctx, or ErrGone; then
// the watch is of no use any more.
func (w *Watch) Wait(ctx context.Context, limit time.Duration) (changed bool, err error) {
	if err := w.file.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return false, fmt.Errorf("inotify: watch %s: %w", w.path, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) }) // it wakes Read; a closed file needs no waking
	defer stop()
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := w.file.Read(w.buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, ctx.Err()
		}
		if err != nil {
			return false, fmt.Errorf("inotify: watch %s: %w", w.path, err)
		}
		changed, lost := w.parse(w.buf[:n])
		if lost {
			return false, fmt.Errorf("%w: %s", ErrGone, w.path)
		}
		if changed {
			return true, nil
		}
	}
}

// parse looks through events of the kernel.
func (w *Watch) parse(b []byte) (changed, lost bool) {
	for len(b) >= unix.SizeofInotifyEvent {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&b[0]))
		end := unix.SizeofInotifyEvent + int(e.Len)
		if end > len(b) {
			break
		}
		name, _, _ := bytes.Cut(b[unix.SizeofInotifyEvent:end], []byte{0})
		switch {
		case e.Mask&gone != 0:
			lost = true
		case e.Mask&unix.IN_Q_OVERFLOW != 0 || w.relevant(string(name)):
			changed = true
		}
		b = b[end:]
	}
	return changed, lost
}
