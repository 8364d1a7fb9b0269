package replicator_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/dir"
)

// source is a database of one text.
type source struct {
	mu    sync.Mutex
	text  string
	taken string
	wake  chan struct{}
	empty bool // half saved
	blind error
	fail  error
	takes int
}

func newSource(text string) *source { return &source{text: text, wake: make(chan struct{}, 1)} }

// write changes the database.
func (s *source) write(text string) {
	s.mu.Lock()
	s.text = text
	s.mu.Unlock()
	s.signal()
}

func (s *source) set(change func(*source)) {
	s.mu.Lock()
	change(s)
	s.mu.Unlock()
	s.signal()
}

func (s *source) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *source) Changed(ctx context.Context) error {
	for {
		s.mu.Lock()
		changed, blind := s.text != s.taken, s.blind
		s.mu.Unlock()
		if blind != nil {
			return blind
		}
		if changed {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		}
	}
}

func (s *source) Take(_ context.Context, path string, _ map[string]int64) (replicator.Taken, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takes++
	if s.fail != nil {
		return replicator.Taken{}, s.fail
	}
	if s.empty {
		return replicator.Taken{Verdict: replicator.Refused(replicator.Emptied, "table t is empty")}, replicator.ErrUnsound
	}
	s.taken = s.text
	data := strings.Repeat(s.text+"\n", 512)[:512]
	sum := sha256.Sum256([]byte(data))
	m := replicator.Manifest{Kind: "sqlite", Size: 512, PageSize: 512, Pages: 1, SHA256: hex.EncodeToString(sum[:])}
	return replicator.Taken{Manifest: m}, os.WriteFile(path, []byte(data), 0o600)
}

// remote is another node's store, reached over a line that can be cut.
type remote struct {
	mu     sync.Mutex
	store  replicator.Store
	cut    error
	hang   bool
	ships  int
	closed bool
}

func (r *remote) set(change func(*remote)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

func (r *remote) line(ctx context.Context) (replicator.Store, error) {
	r.mu.Lock()
	store, cut, hang := r.store, r.cut, r.hang
	r.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return store, cut
}

func (r *remote) Newest(ctx context.Context) (replicator.Manifest, error) {
	s, err := r.line(ctx)
	if err != nil {
		return replicator.Manifest{}, err
	}
	all, err := s.List(ctx)
	if err == nil && len(all) == 0 {
		err = replicator.ErrNotFound
	}
	if err != nil {
		return replicator.Manifest{}, err
	}
	return all[0], nil
}

func (r *remote) Ship(ctx context.Context, m replicator.Manifest, from replicator.Store) (int64, error) {
	r.set(func(r *remote) { r.ships++ })
	s, err := r.line(ctx)
	if err != nil {
		return 0, err
	}
	data, err := from.Open(ctx, m.Version)
	if err != nil {
		return 0, err
	}
	defer data.Close()
	return m.Size, s.Publish(ctx, m, data)
}

func (r *remote) Close() error {
	r.set(func(r *remote) { r.closed = true })
	return nil
}

// node is a node with its store; where is where that lies.
type node struct {
	replicator.Store
	where string
	id    uint8
}

func newNode(t *testing.T, id uint8) *node {
	t.Helper()
	where := filepath.Join(memory(t), "store")
	s, err := dir.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	return &node{s, where, id}
}

// memory makes a directory where fsync costs nothing, if there is such a place.
func memory(t *testing.T) string {
	t.Helper()
	where, err := os.MkdirTemp("/dev/shm", "replicator")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(where) })
	return where
}

// lose deletes the node's state directory.
func (n *node) lose(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(n.where); err != nil {
		t.Fatal(err)
	}
}

// text returns the newest content of a store, and its version.
func text(t *testing.T, s replicator.Store) (string, replicator.Version) {
	t.Helper()
	all, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		return "", replicator.Version{}
	}
	return read(t, s, all[0].Version), all[0].Version
}

func read(t *testing.T, s replicator.Store, v replicator.Version) string {
	t.Helper()
	r, err := s.Open(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// lead runs a mastership of n until stop is called.
func lead(t *testing.T, n *node, epoch carp.Epoch, s replicator.Source, set func(*replicator.MasterConfig), peers ...replicator.Peer) (m *replicator.Master, stop func()) {
	t.Helper()
	c := replicator.MasterConfig{Source: s, Store: n, Peers: peers, Scratch: filepath.Join(filepath.Dir(n.where), "scratch"), Epoch: epoch, Node: n.id, Name: fmt.Sprintf("node%d", n.id)}
	if set != nil {
		set(&c)
	}
	m, err := replicator.NewMaster(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return m, stop
}

// pass lets time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func versions(t *testing.T, s replicator.Store) (all []replicator.Version) {
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		all = append(all, m.Version)
	}
	return all
}

// small is a store with room for so many snapshots.
type small struct {
	replicator.Store
	mu   sync.Mutex
	room int
}

func (s *small) set(room int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room = room
}

func (s *small) Publish(ctx context.Context, m replicator.Manifest, data io.Reader) error {
	s.mu.Lock()
	room := s.room
	s.mu.Unlock()
	all, err := s.List(ctx)
	if err == nil && len(all) >= room {
		err = syscall.ENOSPC
	}
	if err != nil {
		return err
	}
	return s.Store.Publish(ctx, m, data)
}
