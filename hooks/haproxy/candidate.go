package haproxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/carpd/carpd/hooks"
)

// What is appended to the names of files: of the configuration before, as long as the one
// after has not proved itself, and of a candidate that failed.
const (
	keptSuffix    = ".carpd-before"
	refusedSuffix = ".refused"
)

// reconfigure takes over a candidate: it is checked, takes the place of the
// configuration and is loaded. If it does not work, the one before is put back and loaded,
// and the candidate is renamed.
//
// It can be cut off anywhere: the kept file stands until the configuration in place has
// been loaded, and the next call goes on from there.
func (p *proxy) reconfigure(ctx context.Context) error {
	path, kept := p.Config.Config, p.Config.Config+keptSuffix
	unproved, err := exists(kept)
	if err != nil {
		return err
	}
	if unproved {
		if err := p.prove(ctx, path, kept); err != nil {
			return err
		}
	}
	fresh, err := exists(p.Candidate)
	if err != nil || !fresh {
		return err
	}
	if err := p.check(ctx, p.Candidate); err != nil {
		if ctx.Err() != nil {
			return err // it was not judged
		}
		return errors.Join(err, move(p.Candidate, p.Candidate+refusedSuffix))
	}
	if err := os.Link(path, kept); err != nil {
		return fmt.Errorf("haproxy: keep %s: %w", path, err)
	}
	if err := move(p.Candidate, path); err != nil {
		return err
	}
	return p.prove(ctx, path, kept)
}

// prove loads the configuration in place, or puts the kept one back.
func (p *proxy) prove(ctx context.Context, path, kept string) error {
	bad := p.check(ctx, path)
	if bad == nil {
		bad = p.load(ctx)
	}
	switch {
	case bad == nil:
		return remove(kept)
	case ctx.Err() != nil:
		return bad // the next call finds it unproved
	}
	hooks.Logger(ctx).Warn("the new configuration of HAProxy does not work: the one before is put back", "err", bad)
	if err := p.restore(path, kept); err != nil {
		return errors.Join(bad, err)
	}
	if err := p.load(ctx); err != nil {
		return fmt.Errorf("%w; nor does the one before: %w", bad, err)
	}
	return fmt.Errorf("%w; the one before is back", bad)
}

// restore puts the kept configuration in place. At no time there is none.
func (p *proxy) restore(path, kept string) error {
	refused := p.Candidate + refusedSuffix
	if err := os.Remove(refused); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("haproxy: %w", err)
	}
	if err := os.Link(path, refused); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("haproxy: %w", err)
	}
	if err := move(kept, path); err != nil {
		return err
	}
	// Two names of one file are not renamed to each other: that is so after a crash
	// before the candidate took its place.
	if err := os.Remove(kept); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("haproxy: %w", err)
	}
	return nil
}

// load reloads it, or starts it if it does not run.
func (p *proxy) load(ctx context.Context) error {
	v, err := p.look(ctx)
	switch {
	case err != nil:
		return err
	case v.up():
		return p.reload(ctx)
	}
	return p.start(ctx)
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// move renames within a directory, durably.
func move(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("haproxy: %w", err)
	}
	return syncDir(to)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("haproxy: %w", err)
	}
	return syncDir(path)
}

func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// exposes reports whether a configuration has HAProxy hand out its listening sockets.
func exposes(path string) (bool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("haproxy: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Join(strings.Fields(line), " ")
		if strings.HasPrefix(words, "stats socket ") && strings.Contains(words, " expose-fd listeners") {
			return true, nil
		}
	}
	return false, nil
}
