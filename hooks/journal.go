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
	"sync"
	"time"

	"github.com/carpd/carpd/carp"
)

const (
	// MaxJournal is the size from which on a journal is written anew with what still
	// counts. A torn or huge one is not read beyond four times that.
	MaxJournal = 1 << 20
	// journalTime is what a record may take: a disk that hangs must not keep the role.
	journalTime = 2 * time.Second
	maxEntry    = 8 << 10
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

// Past is what a journal knows of a resource. The zero value: nothing.
type Past struct {
	Last       Entry      // the last record but those of Remember
	Epoch      carp.Epoch // the highest that an action began with
	Promoted   bool       // it was promoted, or may have been, and not demoted since
	Unfinished bool       // the last action has begun and not ended
	memory     map[string]string
}

// Journal is an append-only file that says what was done to resources. Each record is on
// the disk before what it announces happens. Methods may be called from any goroutine.
type Journal struct {
	path string
	boot string
	turn chan struct{} // held by the write that is under way

	file *os.File // of the holder of the turn
	size int64    // likewise

	mu   sync.Mutex
	past map[string]*Past
}

// OpenJournal opens or makes the journal at path. A record at its end that a crash cut
// off is dropped; anything else that is damaged is an error that says where, since what
// it said is not known: an operator looks at the resources and moves the file away.
// boot names this boot of the machine (/proc/sys/kernel/random/boot_id).
func OpenJournal(path, boot string) (*Journal, error) {
	j := &Journal{path: path, boot: boot, turn: make(chan struct{}, 1), past: make(map[string]*Past)}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("hooks: open journal: %w", err)
	}
	sound, err := j.read(f)
	if err == nil {
		err = f.Truncate(sound)
	}
	if err == nil {
		err = syncDir(path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hooks: open journal %s: %w", path, err), f.Close())
	}
	j.file, j.size = f, sound
	return j, nil
}

// Close closes the file.
func (j *Journal) Close() error {
	j.turn <- struct{}{}
	defer func() { <-j.turn }()
	return j.file.Close()
}

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

// read takes in all records and returns how many bytes of them are sound.
func (j *Journal) read(f *os.File) (sound int64, err error) {
	all, err := io.ReadAll(io.LimitReader(f, 4*MaxJournal))
	if err != nil {
		return 0, err
	}
	for line := 1; len(all) > 0; line++ {
		record, rest, whole := bytes.Cut(all, []byte{'\n'})
		e, err := parseEntry(record)
		if err != nil && (!whole || len(rest) == 0) {
			return sound, nil // cut off by a crash: it was not acted on
		}
		if err != nil {
			return 0, fmt.Errorf("line %d: %w: see what state the resources are in, then move the file away", line, err)
		}
		if !whole {
			return sound, nil
		}
		j.take(e)
		sound += int64(len(record)) + 1
		all = rest
	}
	return sound, nil
}

func parseEntry(record []byte) (e Entry, err error) {
	sum, body, ok := bytes.Cut(record, []byte{' '})
	want, bad := strconv.ParseUint(string(sum), 16, 32)
	if !ok || bad != nil || crc32.ChecksumIEEE(body) != uint32(want) {
		return e, errors.New("the record is damaged")
	}
	return e, json.Unmarshal(body, &e)
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

// take updates what is known.
func (j *Journal) take(e Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := j.past[e.Resource]
	if p == nil {
		p = &Past{memory: make(map[string]string)}
		j.past[e.Resource] = p
	}
	if e.State == Remembered {
		p.memory = maps.Clone(p.memory)
		p.memory[e.Key] = e.Value
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

// add makes a record durable. It gives up after journalTime: then nobody knows whether
// it is on the disk, and records that follow fail until that write has ended.
func (j *Journal) add(ctx context.Context, e Entry) error {
	e.Time, e.Boot = time.Now().UTC(), j.boot
	if len(e.Error) > maxEntry/4 {
		e.Error = e.Error[:maxEntry/4]
	}
	line, err := e.encode()
	if err != nil {
		return fmt.Errorf("hooks: write journal %s: %w", j.path, err)
	}
	// Not the caller's context: how an action ended is written when that is over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), journalTime)
	defer cancel()
	late := fmt.Errorf("hooks: write journal %s: the disk did not answer within %v", j.path, journalTime)
	select {
	case j.turn <- struct{}{}:
	case <-ctx.Done():
		return late
	}
	written := make(chan error, 1)
	go func() {
		err := j.write(line)
		if err == nil {
			j.take(e)
		}
		<-j.turn
		written <- err
	}()
	select {
	case err := <-written:
		if err != nil {
			return fmt.Errorf("hooks: write journal %s: %w", j.path, err)
		}
		return nil
	case <-ctx.Done():
		return late
	}
}

// write appends a line as a whole or not at all. The caller has the turn.
func (j *Journal) write(line []byte) error {
	if j.size+int64(len(line)) > MaxJournal {
		if err := j.compact(); err != nil {
			return err
		}
	}
	n, err := j.file.WriteAt(line, j.size)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		if n > 0 {
			err = errors.Join(err, j.file.Truncate(j.size)) // no half record before the next one
		}
		return err
	}
	j.size += int64(n)
	return nil
}

// compact writes what still counts into a new file that takes the place of the old one.
func (j *Journal) compact() error {
	f, err := os.CreateTemp(filepath.Dir(j.path), filepath.Base(j.path)+".new-*")
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
	j.file, j.size = f, int64(len(all))
	return errors.Join(old.Close(), syncDir(j.path))
}

// lines are records that leave the same Past.
func (p *Past) lines(resource string) (all []byte) {
	entries := []Entry{{Resource: resource, Action: Promotion, State: Broken, Epoch: p.Epoch, Time: p.Last.Time, Boot: p.Last.Boot}}
	if !p.Promoted {
		entries = append(entries, Entry{Resource: resource, Action: Demotion, State: Done, Epoch: p.Epoch, Time: p.Last.Time, Boot: p.Last.Boot})
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
