package sqlite

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
	"syscall"

	"github.com/carpd/carpd/replicator"
)

// MaxSize is the default of Options.MaxSize, in bytes.
const MaxSize = 1 << 30

// Options say how a file is verified. The zero value is good for any database.
type Options struct {
	// Rules chooses the rules by tables and indexes; Rows and Present are not filled in
	// yet. nil: those that ask for nothing.
	Rules   func(replicator.Content) replicator.Rules
	SHA256  string // what its maker says the digest is, in hex; "": unknown
	MaxSize int64  // bytes; larger files are refused unread. 0: MaxSize
}

// Report is what Verify found. What was not reached is zero.
type Report struct {
	replicator.Verdict
	Kind   string           // of the rules, "sqlite" if they have none
	Size   int64            // bytes
	SHA256 string           // hex
	Header Header           //
	Rows   map[string]int64 // by table
}

// Verify says whether the file is a sound snapshot. It only reads, and leaves nothing
// beside the file. A file that is written to meanwhile is refused. A context that
// ends makes it the reason Timeout. It may be called by many at the same time, but not
// for a database that this process has open: closing the file would take SQLite's
// locks away (POSIX).
func Verify(ctx context.Context, path string, o Options) Report {
	v := verification{Options: o}
	v.Kind = "sqlite"
	if v.MaxSize == 0 {
		v.MaxSize = MaxSize
	}
	v.run(ctx, path)
	return v.Report
}

type verification struct {
	Options
	Report
	path string // without symbolic links: SQLite looks for journals beside the file itself
	file *os.File
	info fs.FileInfo
}

func (v *verification) run(ctx context.Context, path string) {
	if !v.open(path) {
		return
	}
	defer v.file.Close()
	if !v.readHeader() {
		return
	}
	var err error
	if v.Report.SHA256, err = digest(ctx, v.file); err != nil {
		v.refuseError(ctx, err)
		return
	}
	if v.Options.SHA256 != "" && v.Options.SHA256 != v.Report.SHA256 {
		v.Refuse(replicator.Digest, "sha256 is "+v.Report.SHA256+" and not "+v.Options.SHA256+", which its maker wrote")
		v.checkUnchanged(ctx)
		return
	}
	if err := v.lookInside(ctx); err != nil {
		v.refuseError(ctx, err)
	}
	v.checkUnchanged(ctx)
}

// open opens a regular file and nothing else: opening a pipe waits, opening a device
// may do something.
func (v *verification) open(path string) bool {
	real, err := filepath.EvalSymlinks(path) // which SQLite does, too, before it looks for a journal
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err == nil {
		v.info, err = os.Lstat(real)
	}
	if err == nil && v.info.Mode().IsRegular() {
		v.file, err = os.OpenFile(real, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	}
	if err == nil && v.file != nil {
		if v.info, err = v.file.Stat(); err != nil {
			v.file.Close()
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) || path == "": // which is no name for the working directory
		v.Refuse(replicator.Missing, "there is no such file")
	case err != nil:
		v.Refuse(replicator.Unreadable, err.Error())
	case !v.info.Mode().IsRegular():
		v.Refuse(replicator.NotAFile, "not a regular file but "+kindOf(v.info.Mode()))
		if v.file != nil {
			v.file.Close()
		}
	default:
		v.path, v.Size = real, v.info.Size()
		return true
	}
	return false
}

// kindOf names what a file is.
func kindOf(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// readHeader judges what costs nothing. It reports whether the rest is worth a look.
func (v *verification) readHeader() bool {
	if v.Size > v.MaxSize {
		v.Refuse(replicator.TooLarge, fmt.Sprintf("%d bytes, and the limit is %d", v.Size, v.MaxSize))
		return false
	}
	b := make([]byte, HeaderSize)
	n, err := v.file.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		v.Refuse(replicator.Unreadable, err.Error())
		return false
	}
	v.lookBeside()
	header, judged := ParseHeader(b[:n], v.Size)
	v.Header, v.Faults = header, append(v.Faults, judged.Faults...)
	return v.Sound()
}

// lookBeside refuses a file with journals that SQLite would apply to it at the next
// opening: what is in the file is then not what its program will see.
func (v *verification) lookBeside() {
	if held, text := wouldApply(v.path+"-wal", 1); held {
		v.Refuse(replicator.WAL, "a write-ahead log is beside it"+text+": its changes are not in this file, and would be applied to whatever lies here")
	}
	if held, text := wouldApply(v.path+"-journal", 28); held {
		v.Refuse(replicator.Journal, "a rollback journal is beside it"+text+": a writer was interrupted, and the next opening takes its changes back")
	}
}

// wouldApply reports whether SQLite would apply a journal. It does not if there are
// less than enough bytes, or if the first byte of a rollback journal is zero, which
// is how it is put out of use.
func wouldApply(path string, enough int64) (held bool, text string) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, ""
	case err != nil:
		return true, " (" + err.Error() + ")"
	case info.Mode().IsRegular() && info.Size() < enough:
		return false, ""
	case !info.Mode().IsRegular() || enough == 1:
		return true, ""
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return true, " (" + err.Error() + ")"
	}
	defer f.Close()
	var first [1]byte
	if _, err := f.ReadAt(first[:], 0); err != nil {
		return true, " (" + err.Error() + ")"
	}
	return first[0] != 0, ""
}

// checkUnchanged refuses a file that is not what it was: then nothing else that was
// found means anything.
func (v *verification) checkUnchanged(ctx context.Context) {
	if v.Has(replicator.Timeout) {
		return
	}
	again, err := digest(ctx, v.file)
	if err != nil {
		v.refuseError(ctx, err)
		return
	}
	info, err := os.Lstat(v.path)
	var late verification
	late.path = v.path
	late.lookBeside()
	switch {
	case again != v.Report.SHA256:
		v.Verdict = replicator.Refused(replicator.Changed, "it was written to while it was verified; take a backup and verify that")
	case err != nil || !os.SameFile(info, v.info):
		v.Verdict = replicator.Refused(replicator.Changed, "another file took its name while it was verified")
	case !late.Sound():
		v.Verdict = replicator.Refused(replicator.Changed, "a program began to write to it while it was verified; take a backup and verify that")
	}
}

// refuseError turns what ended the work into a reason.
func (v *verification) refuseError(ctx context.Context, err error) {
	if ctx.Err() != nil {
		v.Verdict = replicator.Refused(replicator.Timeout, "it could not be verified in time: "+context.Cause(ctx).Error())
		return
	}
	reason := reasonOf(err)
	v.Refuse(reason, cut(err.Error()))
}

// digest returns the sha256 of all bytes, in hex, and gives up when ctx ends.
func digest(ctx context.Context, f io.ReaderAt) (string, error) {
	h := sha256.New()
	b := make([]byte, 256<<10)
	for at := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.ReadAt(b, at)
		h.Write(b[:n])
		at += int64(n)
		switch {
		case err == io.EOF:
			return hex.EncodeToString(h.Sum(nil)), nil
		case err != nil:
			return "", unreadable{err}
		}
	}
}

// unreadable marks an error of reading the file.
type unreadable struct{ error }
