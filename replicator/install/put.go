package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/sqlite"
)

// The files of ours beside the copies.
const (
	intentFile = "intent"
	stateFile  = "state"
	oldPrefix  = "old-"
)

// intent says what is being put in place. While it is there the copy is whole and synced,
// or is in its place already.
type intent struct {
	Version replicator.Version `json:"version"`
	SHA256  string             `json:"sha256"` // of the copy
	Old     string             `json:"old"`    // name under which the present database is kept; "": there is none
	Present *identity          `json:"present,omitempty"`
}

// identity tells whether a file is still what it was.
type identity struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	Size   int64  `json:"size"`
	Time   int64  `json:"mtime_ns"`
}

func identityOf(info fs.FileInfo) *identity {
	st := info.Sys().(*syscall.Stat_t)
	return &identity{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano()}
}

// put moves the present database aside and the copy in its place.
func (p *Place) put(ctx context.Context, v replicator.Version) error {
	if holders := Holders(p.c.Database); len(holders) > 0 {
		return fmt.Errorf("%w: %s: stop it first", ErrInUse, strings.Join(holders, ", "))
	}
	sum, err := digest(ctx, p.file("new"))
	if err != nil {
		return err
	}
	in := intent{Version: v, SHA256: sum}
	info, err := os.Lstat(p.c.Database)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file: write the path of the file itself", p.c.Database)
	case err == nil:
		in.Present = identityOf(info)
		if in.Old, err = p.nextOld(); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := p.at("intent"); err != nil {
		return err
	}
	if err := p.writeJSON(intentFile, in); err != nil {
		return err
	}
	return p.carryOut(in)
}

// carryOut does what an intent says, whatever of it was done before.
func (p *Place) carryOut(in intent) error {
	if in.Old != "" {
		if err := p.at("aside"); err != nil {
			return err
		}
		for _, suffix := range append([]string{""}, journals()...) {
			err := os.Link(p.c.Database+suffix, p.file(in.Old+suffix))
			if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := syncDir(p.work); err != nil {
			return err
		}
	}
	if err := p.at("journals"); err != nil {
		return err
	}
	for _, suffix := range journals() {
		if err := remove(p.c.Database + suffix); err != nil {
			return err
		}
	}
	if err := syncDir(filepath.Dir(p.c.Database)); err != nil {
		return err
	}
	if err := p.at("rename"); err != nil {
		return err
	}
	if err := os.Rename(p.file("new"), p.c.Database); err != nil {
		return err
	}
	if err := p.at("sync"); err != nil {
		return err
	}
	if err := errors.Join(syncDir(filepath.Dir(p.c.Database)), syncDir(p.work)); err != nil {
		return err
	}
	return p.finish(in)
}

// finish notes what was put in place, and forgets the intent.
func (p *Place) finish(in intent) error {
	if err := p.at("note"); err != nil {
		return err
	}
	s, err := p.State()
	if err == nil {
		s.Installed, s.Served, s.Promoted = in.Version, 0, false
		err = p.SetState(s)
	}
	if err == nil {
		err = remove(p.file(intentFile))
	}
	if err == nil {
		err = p.discard()
	}
	if err == nil {
		err = p.at("prune")
	}
	if err == nil {
		err = p.prune()
	}
	return errors.Join(err, syncDir(p.work))
}

// Repair finishes or takes back what a crash left undone, so that the database is whole:
// the one before, or the one that was being put in its place. It makes the directory for
// the copies if it is not there.
func (p *Place) Repair(ctx context.Context) error {
	if err := p.repair(ctx); err != nil {
		return fmt.Errorf("install: repair %s: %w", p.c.Database, err)
	}
	return nil
}

func (p *Place) repair(ctx context.Context) error {
	if err := p.makeWork(); err != nil {
		return err
	}
	var in intent
	there, err := p.readJSON(intentFile, &in)
	if errors.Is(err, errNoJSON) {
		// A disk has damaged it, and what was moved is not known: the next installation puts a
		// whole database in place, whatever is there now.
		there, err = false, remove(p.file(intentFile))
	}
	if err != nil || !there {
		// Nothing was moved: an intent is renamed to its name when it is whole.
		return errors.Join(err, p.discard())
	}
	sum, err := digest(ctx, p.file("new"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// It is in its place, and what lies beside it may be its own journal by now.
		return p.finish(in)
	case err != nil:
		return err
	}
	if holders := Holders(p.c.Database); len(holders) > 0 {
		return fmt.Errorf("%w: %s: stop it first", ErrInUse, strings.Join(holders, ", "))
	}
	if sum == in.SHA256 {
		return p.carryOut(in)
	}
	return p.takeBack(in)
}

// takeBack puts the journals of the present database back where they belong, if it is
// still what they were written for.
func (p *Place) takeBack(in intent) error {
	info, err := os.Lstat(p.c.Database)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && in.Present != nil && *identityOf(info) == *in.Present {
		for _, suffix := range journals() {
			err := os.Link(p.file(in.Old+suffix), p.c.Database+suffix)
			if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := syncDir(filepath.Dir(p.c.Database)); err != nil {
			return err
		}
		for _, suffix := range append(journals(), "") {
			if err := remove(p.file(in.Old + suffix)); err != nil {
				return err
			}
		}
	}
	if err := remove(p.file(intentFile)); err != nil {
		return err
	}
	return errors.Join(p.discard(), syncDir(p.work))
}

// makeWork makes the directory of the copies: of ours alone, they hold passwords.
func (p *Place) makeWork() error {
	err := os.Mkdir(p.work, 0o700)
	if err == nil {
		return syncDir(filepath.Dir(p.work))
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(p.work)
	if err != nil {
		return err
	}
	if st := info.Sys().(*syscall.Stat_t); !info.IsDir() || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is not a directory of mode 0700 of this user: remove it", p.work)
	}
	return nil
}

// Aside keeps a copy of the present database among those that were here before, while its
// program runs. Without a present database it does nothing.
func (p *Place) Aside(ctx context.Context) error {
	if err := p.aside(ctx); err != nil {
		return fmt.Errorf("install: keep a copy of %s: %w", p.c.Database, err)
	}
	return nil
}

func (p *Place) aside(ctx context.Context) error {
	if _, err := os.Lstat(p.c.Database); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := p.makeWork()
	if err == nil {
		err = remove(p.file("aside"))
	}
	if err != nil {
		return err
	}
	if _, err := sqlite.Take(ctx, p.c.Database, p.file("aside"), sqlite.Options{MaxSize: p.c.Verify.MaxSize}); err != nil {
		// What SQLite cannot read is kept as it is.
		if err := errors.Join(context.Cause(ctx), remove(p.file("aside"))); err != nil {
			return err
		}
		if err := copyFile(ctx, p.c.Database, p.file("aside")); err != nil {
			return err
		}
	}
	old, err := p.nextOld()
	if err == nil {
		err = os.Rename(p.file("aside"), p.file(old))
	}
	if err == nil {
		err = p.prune()
	}
	return errors.Join(err, syncDir(p.work))
}

// olds returns the numbers of the databases that were here before, sorted.
func (p *Place) olds() ([]int, error) {
	entries, err := os.ReadDir(p.work)
	if err != nil {
		return nil, err
	}
	var all []int
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), oldPrefix)
		if n, err := strconv.Atoi(name); ok && err == nil {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, nil
}

// nextOld returns the name under which the present database is kept.
func (p *Place) nextOld() (string, error) {
	all, err := p.olds()
	next := 1
	if len(all) > 0 {
		next = all[len(all)-1] + 1
	}
	return oldPrefix + strconv.Itoa(next), err
}

// prune deletes the oldest of the databases that were here before.
func (p *Place) prune() error {
	all, err := p.olds()
	if err != nil || len(all) <= p.c.Keep {
		return err
	}
	for _, n := range all[:len(all)-p.c.Keep] {
		for _, suffix := range append(journals(), "") {
			err = errors.Join(err, remove(p.file(oldPrefix+strconv.Itoa(n)+suffix)))
		}
	}
	return err
}

// State is what is known of the database in place. The zero value: it was never
// installed.
type State struct {
	Installed replicator.Version `json:"installed"` // the snapshot that was put in place last
	// Served is the epoch of the mastership in which this very database was last in service
	// here, 0 if it was not since it was put in place.
	Served   uint64 `json:"served"`
	Promoted bool   `json:"promoted"` // it is in service
	// File is the database that was in service then; zero: unknown.
	File Identity `json:"file"`
	// Older says why a newer database was left when this one came into service; "": none was.
	Older string `json:"older,omitempty"`
}

// Identity tells a file from one that was made in its place later. Numbers of devices
// change with a restart of the machine, and those of files are used again.
type Identity struct {
	Inode uint64 `json:"inode"`
	Born  int64  `json:"born_ns"` // 0 where the file system does not know
}

// Identity returns that of the present database; zero if there is none.
func (p *Place) Identity() Identity {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, p.c.Database, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &st) != nil {
		return Identity{}
	}
	id := Identity{Inode: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.Born = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return id
}

// State returns what SetState wrote. Of a state that a disk has damaged only that there
// was one is known: something was installed, and nothing is in service.
func (p *Place) State() (s State, err error) {
	_, err = p.readJSON(stateFile, &s)
	if errors.Is(err, errNoJSON) {
		return State{Installed: replicator.Version{Node: 1, Sequence: 1}}, nil
	}
	if err != nil {
		err = fmt.Errorf("install: %w", err)
	}
	return s, err
}

// SetState writes the state, durably.
func (p *Place) SetState(s State) error {
	err := p.makeWork()
	if err == nil {
		err = p.writeJSON(stateFile, s)
	}
	if err != nil {
		return fmt.Errorf("install: write the state of %s: %w", p.c.Database, err)
	}
	return nil
}

// writeJSON makes a small file appear under its name, whole and durable, or not at all.
func (p *Place) writeJSON(name string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	temp := p.file(name + ".new")
	if err := remove(temp); err != nil {
		return err
	}
	if err := writeBytes(temp, b); err != nil {
		return errors.Join(err, remove(temp))
	}
	if err := os.Rename(temp, p.file(name)); err != nil {
		return err
	}
	return syncDir(p.work)
}

// errNoJSON is the error of a file of ours that says nothing.
var errNoJSON = errors.New("it is damaged")

// readJSON reads what writeJSON wrote, and reports whether there is anything.
func (p *Place) readJSON(name string, into any) (bool, error) {
	b, err := readBounded(p.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", p.file(name), err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return false, fmt.Errorf("read %s: %w: %w", p.file(name), errNoJSON, err)
	}
	return true, nil
}
