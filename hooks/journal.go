package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/carpd/carpd/carp"
)

const (
	// MaxJournal is the size from which on a journal is written anew with what still
	// counts. One of more than four times that is not opened.
	MaxJournal = 1 << 20
	// MaxRemembered is how many values are kept for a resource.
	MaxRemembered = 32
	// journalTime is what a record may take: a disk that hangs must not keep the role.
	journalTime = 2 * time.Second
	maxEntry    = 8 << 10
	maxError    = 1 << 10 // of Entry.Error; six times that in JSON, at worst
)

// EntryState says what a record of the journal is about.
type EntryState string

// The states. An action that has begun and has none of the last three is unfinished.
const (
	Begun      EntryState = "begin"
	Marked     EntryState = "mark"     // a step of the plan is about to be taken
	Remembered EntryState = "remember" // Key and Value
	Done       EntryState = "done"
	Broken     EntryState = "failed"
	Cancelled  EntryState = "cancelled"
)

// Action is what is done to a resource.
type Action string

// The actions.
const (
	Promotion Action = "promote"
	Demotion  Action = "demote"
)

// Entry is one record. Its JSON form, after a checksum, is a line of the file.
type Entry struct {
	Time     time.Time  `json:"time"`
	Boot     string     `json:"boot"` // which boot of the machine
	Resource string     `json:"resource"`
	Action   Action     `json:"action"`
	State    EntryState `json:"state"`
	Epoch    carp.Epoch `json:"epoch"`
	Step     string     `json:"step,omitempty"`
	Error    string     `json:"error,omitempty"`
	Key      string     `json:"key,omitempty"`
	Value    string     `json:"value,omitempty"`
}

func entryStates() []EntryState {
	return []EntryState{Begun, Marked, Remembered, Done, Broken, Cancelled}
}

// Past is what a journal knows of a resource. The zero value: nothing.
type Past struct {
	Last       Entry      // the last record but those of Remember
	Epoch      carp.Epoch // the highest that an action began with
	Promoted   bool       // it was promoted, or may have been, and not demoted since
	Unfinished bool       // the last action has begun and not ended
	memory     map[string]string
}

// Journal is an append-only file that says what was done to resources. Each record is on
// the disk before what it announces happens. One process has it at a time. Methods may be
// called from any goroutine.
type Journal struct {
	path   string
	boot   string
	turn   chan struct{} // held by the write that is under way
	late   atomic.Bool   // nobody waits for that write any more
	opened atomic.Bool

	// Of the holder of the turn.
	lock   *os.File // locked for as long as the journal is open
	file   disk
	size   int64
	moved  bool // a new file is in place, and its directory is not on the disk yet
	closed bool

	mu    sync.Mutex
	past  history
	owed  map[string]Entry // by resource: what is true, and could not be written
	holds map[string]*hold
}

// history is what is known, by resource.
type history map[string]*Past

// disk is what a journal asks of its file.
type disk interface {
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(size int64) error
}

// OpenJournal is NewJournal and Open.
func OpenJournal(path, boot string) (*Journal, error) {
	j := NewJournal(path, boot)
	if err := j.Open(); err != nil {
		return nil, err
	}
	return j, nil
}

// NewJournal returns the journal that is to be at path, which is not touched: until it is
// open it knows nothing, and nothing is promoted with it. Runner.Settle opens it. boot
// names this boot of the machine (/proc/sys/kernel/random/boot_id).
func NewJournal(path, boot string) *Journal {
	return &Journal{path: path, boot: boot, turn: make(chan struct{}, 1), past: history{}, owed: map[string]Entry{}, holds: map[string]*hold{}}
}

// Open opens or makes the file, unless it is open. A record at its end that a crash cut
// off is dropped; anything else that is damaged is an error that says where, since what
// it said is not known: an operator looks at the resources and moves the file away. It is
// an error as well that another process has the journal open: path with ".lock" after it
// is locked (flock). After an error it may be tried again.
func (j *Journal) Open() error {
	if j.opened.Load() {
		return nil
	}
	if !j.take(context.Background()) {
		return fmt.Errorf("hooks: open journal %s: %w", j.path, errLate)
	}
	defer func() { <-j.turn }()
	if j.opened.Load() {
		return nil
	}
	err := os.ErrClosed
	if !j.closed {
		err = j.open()
	}
	if err != nil {
		return fmt.Errorf("hooks: open journal %s: %w", j.path, err)
	}
	j.opened.Store(true)
	return nil
}

// open does it. The caller has the turn.
func (j *Journal) open() (err error) {
	lock, err := os.OpenFile(j.path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another process has it, which is to end first: lock %s: %w", lock.Name(), err)
	}
	if err := os.Remove(j.newer()); err != nil && !errors.Is(err, os.ErrNotExist) { // a crash left it
		return err
	}
	f, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	past, sound, err := readJournal(f)
	if err == nil {
		err = f.Truncate(sound)
	}
	if err == nil {
		err = syncDir(j.path)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	j.mu.Lock()
	j.past = past
	j.mu.Unlock()
	j.lock, j.file, j.size = lock, f, sound
	return nil
}

// Close closes the file, and lets another process open it. A write that hangs is not
// waited for: then the journal stays locked until that has ended, or the process has.
// Another Close is an error.
func (j *Journal) Close() error {
	if !j.take(context.Background()) {
		return fmt.Errorf("hooks: close journal %s: %w", j.path, errLate)
	}
	defer func() { <-j.turn }()
	if j.closed {
		return fmt.Errorf("hooks: close journal %s: %w", j.path, os.ErrClosed)
	}
	j.closed = true
	if j.file == nil {
		return nil // it was never open
	}
	return errors.Join(j.file.Close(), j.lock.Close())
}

var errLate = fmt.Errorf("the disk did not answer within %v", journalTime)

// take takes the turn. It waits no longer than journalTime for it, and not at all for a
// write that somebody has waited for already: who lets go is not to wait at each record.
func (j *Journal) take(ctx context.Context) bool {
	if j.late.Load() {
		select {
		case j.turn <- struct{}{}:
			return true
		default:
			return false
		}
	}
	ctx, cancel := context.WithTimeout(ctx, journalTime)
	defer cancel()
	select {
	case j.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// hold returns the right to call a resource, which all Runners with this journal share.
func (j *Journal) hold(resource string) *hold {
	j.mu.Lock()
	defer j.mu.Unlock()
	h := j.holds[resource]
	if h == nil {
		h = newHold()
		if p := j.past[resource]; p != nil && p.Promoted {
			h.wished.Store(uint32(RolePromoted))
		} else {
			h.wished.Store(uint32(RoleDemoted))
		}
		j.holds[resource] = h
	}
	return h
}

// newer is the file that is to take the place of the journal.
func (j *Journal) newer() string { return j.path + ".new" }

// Past returns what is known of a resource.
func (j *Journal) Past(resource string) Past {
	j.mu.Lock()
	defer j.mu.Unlock()
	if p := j.past[resource]; p != nil {
		return *p
	}
	return Past{}
}

func (j *Journal) recall(resource, key string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if p := j.past[resource]; p != nil {
		return p.memory[key]
	}
	return ""
}

// readJournal returns what all records say and how many bytes of them are sound.
func readJournal(f io.Reader) (past history, sound int64, err error) {
	all, err := io.ReadAll(io.LimitReader(f, 4*MaxJournal+1))
	if err != nil {
		return nil, 0, err
	}
	if len(all) > 4*MaxJournal {
		return nil, 0, fmt.Errorf("it has more than %d bytes, which no carpd writes: see what state the resources are in, then move the file away", 4*MaxJournal)
	}
	past = history{}
	for line := 1; len(all) > 0; line++ {
		record, rest, whole := bytes.Cut(all, []byte{'\n'})
		e, err := parseEntry(record)
		if !whole || errors.Is(err, errDamaged) && len(rest) == 0 {
			return past, sound, nil // cut off by a crash: it was not acted on
		}
		if err != nil {
			return nil, 0, fmt.Errorf("line %d: %w: see what state the resources are in, then move the file away", line, err)
		}
		past.learn(e)
		sound += int64(len(record)) + 1
		all = rest
	}
	return past, sound, nil
}

var errDamaged = errors.New("the record is damaged")

func parseEntry(record []byte) (e Entry, err error) {
	sum, body, ok := bytes.Cut(record, []byte{' '})
	want, bad := strconv.ParseUint(string(sum), 16, 32)
	if !ok || bad != nil || crc32.ChecksumIEEE(body) != uint32(want) {
		return e, errDamaged
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return e, err
	}
	if !slices.Contains(entryStates(), e.State) || e.State != Remembered && e.Action != Promotion && e.Action != Demotion {
		return e, fmt.Errorf("action %q and state %q are not known here: a newer carpd wrote it", e.Action, e.State)
	}
	return e, nil
}

func (e Entry) encode() ([]byte, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	if len(body) > maxEntry {
		return nil, fmt.Errorf("a record of %d bytes: at most %d", len(body), maxEntry)
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.ChecksumIEEE(body), body), nil
}

func (j *Journal) learn(e Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.past.learn(e)
	if e.State != Remembered {
		delete(j.owed, e.Resource) // nothing before it counts
	}
}

// owe has a record count that could not be written, until pay can. It must do no harm that
// a crash forgets it: the end of a demotion, which is demoted once more then.
func (j *Journal) owe(e Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.past.learn(e)
	j.owed[e.Resource] = e
}

// pay writes what is owed of a resource. The caller has the right to call that: nothing
// else is recorded of it meanwhile.
func (j *Journal) pay(ctx context.Context, resource string) error {
	j.mu.Lock()
	e, owes := j.owed[resource]
	j.mu.Unlock()
	if !owes {
		return nil
	}
	return j.add(ctx, e)
}

// learn updates what is known.
func (h history) learn(e Entry) {
	p := h[e.Resource]
	if p == nil {
		p = &Past{memory: make(map[string]string)}
		h[e.Resource] = p
	}
	if e.State == Remembered {
		p.memory = maps.Clone(p.memory) // others read the one that they were given
		if p.memory[e.Key] = e.Value; e.Value == "" {
			delete(p.memory, e.Key)
		}
		return
	}
	p.Last = e
	p.Epoch = max(p.Epoch, e.Epoch)
	p.Unfinished = e.State == Begun || e.State == Marked
	switch {
	case e.Action == Promotion:
		p.Promoted = true
	case e.State == Done:
		p.Promoted = false
	}
}

// crowded reports whether a value would be one too many.
func (j *Journal) crowded(e Entry) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := j.past[e.Resource]
	if p == nil || e.State != Remembered || e.Value == "" || p.memory[e.Key] != "" {
		return false
	}
	return len(p.memory) >= MaxRemembered
}

// add makes a record durable. It gives up after journalTime: then nobody knows whether
// it is on the disk, and records that follow fail until that write has ended.
func (j *Journal) add(ctx context.Context, e Entry) error {
	err := j.put(ctx, e)
	if err != nil {
		return fmt.Errorf("hooks: write journal %s: %w", j.path, err)
	}
	return nil
}

func (j *Journal) put(ctx context.Context, e Entry) error {
	e.Time, e.Boot = time.Now().UTC(), j.boot
	if len(e.Error) > maxError {
		e.Error = strings.ToValidUTF8(e.Error[:maxError], "")
	}
	line, err := e.encode()
	if err != nil {
		return err
	}
	if j.crowded(e) {
		return fmt.Errorf("more than %d values are to be remembered of %s", MaxRemembered, e.Resource)
	}
	// Not the caller's context: how an action ended is written when that is over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), journalTime)
	defer cancel()
	if !j.take(ctx) {
		return errLate
	}
	j.late.Store(false)
	written := make(chan error, 1)
	go func() {
		err := j.write(line)
		if err == nil {
			j.learn(e)
		}
		written <- err
		<-j.turn
	}()
	select {
	case err := <-written:
		return err
	case <-ctx.Done():
		j.late.Store(true)
		return errLate
	}
}

// write appends a line as a whole or not at all. The caller has the turn.
func (j *Journal) write(line []byte) error {
	switch {
	case j.closed:
		return os.ErrClosed
	case j.file == nil:
		return errors.New("it is not open yet")
	}
	if j.size+int64(len(line)) > MaxJournal {
		if err := j.compact(); err != nil {
			return fmt.Errorf("write it anew: %w", err)
		}
	}
	if j.moved {
		if err := syncDir(j.path); err != nil { // a crash would bring the old file back
			return err
		}
		j.moved = false
	}
	n, err := j.file.WriteAt(line, j.size)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		// No half record before the next one. How much is there cannot be told: WriteAt
		// says 0 when the disk was full within it.
		return errors.Join(err, j.file.Truncate(j.size))
	}
	j.size += int64(n)
	return nil
}

// compact writes what still counts into a new file that takes the place of the old one.
func (j *Journal) compact() error {
	f, err := os.OpenFile(j.newer(), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	var all []byte
	j.mu.Lock()
	for _, name := range slices.Sorted(maps.Keys(j.past)) {
		all = append(all, j.past[name].lines(name)...)
	}
	j.mu.Unlock()
	_, err = f.Write(all)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), j.path)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	old := j.file
	j.file, j.size, j.moved = f, int64(len(all)), true
	_ = old.Close() // nothing of it counts any more
	return nil
}

// lines are records that leave the same Past.
func (p *Past) lines(resource string) (all []byte) {
	var entries []Entry
	if p.Last.State != "" {
		entries = []Entry{{Resource: resource, Action: Promotion, State: Broken, Epoch: p.Epoch, Time: p.Last.Time, Boot: p.Last.Boot}}
		if !p.Promoted {
			entries = append(entries, Entry{Resource: resource, Action: Demotion, State: Done, Epoch: p.Epoch, Time: p.Last.Time, Boot: p.Last.Boot})
		}
	}
	for _, k := range slices.Sorted(maps.Keys(p.memory)) {
		entries = append(entries, Entry{Resource: resource, State: Remembered, Key: k, Value: p.memory[k]})
	}
	if p.Last.State != "" {
		entries = append(entries, p.Last)
	}
	for _, e := range entries {
		line, err := e.encode()
		if err != nil { // it was encoded before
			continue
		}
		all = append(all, line...)
	}
	return all
}

func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
