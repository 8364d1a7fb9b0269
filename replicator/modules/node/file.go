package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/replicator/modules"
)

// Limits of files.
const (
	maxState = 8 << 20 // bytes
	maxAside = 16      // contents that are kept aside
)

// StateFile keeps a node's stamps.
type StateFile struct{ Path string }

// Load reads the state; without a file it is that of a fresh node. A file that cannot be
// read is an error: a node that forgets its stamps by mistake is fresh.
func (f *StateFile) Load() (modules.State, error) {
	var s modules.State
	file, err := os.Open(f.Path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("node: read state: %w", err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxState))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return s, fmt.Errorf("node: read state %s: %w: delete it, and this node takes all from the others", f.Path, err)
	}
	return s, nil
}

// Save writes the state: whole and durable, or not at all.
func (f *StateFile) Save(s modules.State) error {
	b, err := json.MarshalIndent(s, "", " ")
	if err == nil {
		err = replace(f.Path, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("node: save state: %w", err)
	}
	return nil
}

// replace writes a file whole. A name of its own for each process would leave files
// behind; there is one writer.
func replace(path string, b []byte) error {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Aside is a directory with the latest contents that were replaced by something that did
// not come from them, for people to look at: JSON, mode 0600, since there are passwords
// in them.
type Aside struct{ Dir string }

// Keep writes a content there, and deletes the oldest of too many.
func (a *Aside) Keep(module string, content []byte) error {
	c, err := modules.DecodeContent(content)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(c, "", " ")
	if err == nil {
		err = os.MkdirAll(a.Dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("node: keep aside: %w", err)
	}
	name := time.Now().UTC().Format("20060102T150405.000000000Z") + "-" + plain(module) + ".json"
	if err := replace(filepath.Join(a.Dir, name), append(b, '\n')); err != nil {
		return fmt.Errorf("node: keep aside: %w", err)
	}
	return a.prune()
}

// prune deletes the oldest of too many.
func (a *Aside) prune() error {
	all, err := filepath.Glob(filepath.Join(a.Dir, "*.json"))
	if err != nil {
		return err
	}
	slices.Sort(all)
	for len(all) > maxAside {
		if err := os.Remove(all[0]); err != nil {
			return err
		}
		all = all[1:]
	}
	return nil
}

// plain makes a module's name one of a file.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, name)
}
