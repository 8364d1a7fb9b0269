package daemon

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/carpd/carpd/carp"
)

const (
	// clockReserve is how far ahead the group clock of each instance is saved, and
	// clockLeft how much of that is left when it is saved again. What this node sends,
	// and what is sent in its name when it is dead, is below what was saved.
	clockReserve = 60 * time.Second
	clockLeft    = 30 * time.Second
	// clockPatience is how long a write may take before that is an alarm.
	clockPatience = 2 * time.Second
	maxClockFile  = 1 << 20 // bytes
	clockBits     = 40
)

// clocks keeps what was reserved of the group clocks in state_dir/clock: a line for
// each instance, milliseconds since 2020-01-01 and the name. It survives crashes, so
// that a restarted node neither sends a clock twice nor accepts one twice.
type clocks struct {
	dir string

	mu       sync.Mutex // guards what follows; never held while the disk is waited for
	reserved map[string]uint64
	writing  time.Time // since when a write is under way; zero if none is
	failed   error     // of the last write
}

func (c *clocks) file() string { return filepath.Join(c.dir, "clock") }

// readClocks returns what earlier runs have reserved. What cannot be read is as if
// nothing had been saved; err says what it is.
func readClocks(dir string) (*clocks, error) {
	c := &clocks{dir: dir, reserved: map[string]uint64{}}
	f, err := os.OpenFile(c.file(), os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe is not waited for
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	defer f.Close()
	var bad []string
	lines := bufio.NewScanner(io.LimitReader(f, maxClockFile))
	for lines.Scan() {
		number, name, ok := strings.Cut(lines.Text(), " ")
		n, err := strconv.ParseUint(number, 10, clockBits)
		if !ok || name == "" || err != nil {
			bad = append(bad, strconv.Quote(lines.Text()))
			continue
		}
		c.reserved[name] = n
	}
	err = lines.Err()
	if bad != nil {
		err = errors.Join(err, fmt.Errorf("not a clock and a name: %s", strings.Join(bad[:min(len(bad), 3)], ", ")))
	}
	return c, err
}

// of returns up to where the clock of an instance is reserved, 0 if it is not.
func (c *clocks) of(name string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reserved[name]
}

// forget lets an instance be as if nothing had been saved of it.
func (c *clocks) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.reserved, name)
}

// keep reserves more where less than clockLeft is left of what was: in a goroutine,
// since a disk may hang. now are the clocks of the instances that run. done is
// closed when the write has ended, or is nil if none was begun.
func (c *clocks) keep(now map[string]uint64) (done <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := false
	for name, clock := range now {
		due = due || c.reserved[name] < clock+uint64(clockLeft/time.Millisecond)
	}
	if !due || !c.writing.IsZero() {
		return nil
	}
	next := make(map[string]uint64, len(c.reserved)+len(now))
	for name, clock := range c.reserved {
		next[name] = clock // also of what does not run: it may come back
	}
	for name, clock := range now {
		next[name] = max(next[name], clock+uint64(clockReserve/time.Millisecond))
	}
	c.writing = time.Now()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := writeFile(c.file(), formatClocks(next))
		c.mu.Lock()
		defer c.mu.Unlock()
		c.writing, c.failed = time.Time{}, err
		if err == nil {
			c.reserved = next
		}
	}()
	return ended
}

func formatClocks(reserved map[string]uint64) []byte {
	names := make([]string, 0, len(reserved))
	for name := range reserved {
		names = append(names, name)
	}
	slices.Sort(names)
	var b bytes.Buffer
	for _, name := range names {
		fmt.Fprintf(&b, "%d %s\n", reserved[name], name)
	}
	return b.Bytes()
}

// trouble says why clocks are not saved, or nothing.
func (c *clocks) trouble() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.writing.IsZero() && time.Since(c.writing) > clockPatience {
		return fmt.Errorf("the disk of %s has not answered for %v", c.dir, time.Since(c.writing).Round(time.Second))
	}
	return c.failed
}

// writeFile publishes a file atomically and durably: temporary file, fsync, rename,
// fsync of the directory. One goroutine at a time writes one path.
func writeFile(path string, content []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// firstClocks reserves before anything is sent, and waits for the disk no longer
// than clockPatience: a disk that is full or hangs must not keep a node down.
func (d *Daemon) firstClocks(made []*instance) {
	done := d.clocks.keep(clocksOf(made, (*instance).firstClock))
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-time.After(clockPatience):
	}
	d.clockAlarm()
}

// keepClocks saves what is due, and says so if it cannot.
func (d *Daemon) keepClocks() {
	d.clocks.keep(clocksOf(d.all(), (*instance).clock))
	d.clockAlarm()
}

func (d *Daemon) clockAlarm() {
	err := d.clocks.trouble()
	d.book.set(err != nil, "", "clock-not-saved", fmt.Sprintf(
		"the group clocks cannot be saved in %s: %v. This node goes on; if it ends now and starts again with a wrong wall clock, old adverts may pass for new ones.", d.stateDir, err))
}

// clocksOf reads the group clocks of the instances that speak CARP.
func clocksOf(all []*instance, read func(*instance) uint64) map[string]uint64 {
	now := map[string]uint64{}
	for _, i := range all {
		p := i.plan.Load()
		if p.VRRP() || p.carp.Compat != carp.CompatNone {
			continue
		}
		if clock := read(i); clock != 0 {
			now[i.name] = clock
		}
	}
	return now
}
