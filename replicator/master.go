package replicator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/carpd/carpd/carp"
)

// Peer is another node.
type Peer struct {
	Name   string // for people
	Target Target // the Master's own from its start to the return of Run, which closes it
}

// MasterConfig is what a Master works with. Nothing of it is used by others meanwhile,
// the store excepted.
type MasterConfig struct {
	Source Source
	Store  Store // the node's own
	Peers  []Peer
	// Scratch is a directory for the snapshot that is being taken, for this Master
	// alone. It is made if it is not there, of mode 0700.
	Scratch string

	Epoch carp.Epoch // of this mastership
	Node  uint8      // id of this node, 1 to 255
	Name  string     // of this node

	Keep    Keep          // of the own store
	Settle  time.Duration // how long a change waits for others; 0: DefaultSettle
	Latest  time.Duration // how long at most; 0: DefaultLatest
	Look    time.Duration // how often to look without a sign of a change; 0: DefaultLook
	Recheck time.Duration // how often to ask a peer what it has; 0: DefaultRecheck

	TakeTimeout time.Duration // for taking and publishing a snapshot; 0: DefaultTakeTimeout
	ShipTimeout time.Duration // for one try to ship one; 0: DefaultShipTimeout

	Log *slog.Logger // nil: none
}

// Master copies a database into the node's own store whenever it changes, and ships
// what is newest there to each peer, as long as Run runs: one mastership, after the
// node's own resources are promoted and while its addresses are on. Make one with
// NewMaster.
//
// Each peer is served by itself: one that hangs keeps no other waiting. A peer misses
// what came and went while it was behind: it gets the newest only.
type Master struct {
	MasterConfig
	log   *slog.Logger
	peers []*peer
	again chan struct{} // a snapshot is wanted, changed or not; holds one
	hurry chan struct{} // whatever changed is wanted now; holds one

	// Of the goroutine of Run.
	last     Version // the greatest number that was given out or seen
	waited   time.Duration
	takenAt  time.Time     // when the last snapshot was finished
	took     time.Duration // what that cost
	failures int
	keeper   keeper

	mu     sync.Mutex
	status MasterStatus // without Store and Peers
	begun  Version      // what the first snapshot of this mastership was to be called
	found  Version      // the newest of the own store at the beginning
	copies uint64       // begun so far
	stored uint64       // of these, the last that is in the own store
	wanted uint64       // of these, one that Flush waits for
}

// NewMaster checks the configuration. It does nothing else.
func NewMaster(c MasterConfig) (*Master, error) {
	switch {
	case c.Source == nil || c.Store == nil:
		return nil, errors.New("replicator: master: a source and a store are needed")
	case c.Node == 0:
		return nil, errors.New("replicator: master: the node id is 1 to 255")
	case c.Scratch == "":
		return nil, errors.New("replicator: master: a directory for the snapshot being taken is needed")
	}
	c.Settle, c.Latest = cmp.Or(c.Settle, DefaultSettle), cmp.Or(c.Latest, DefaultLatest)
	c.Look, c.Recheck = cmp.Or(c.Look, DefaultLook), cmp.Or(c.Recheck, DefaultRecheck)
	c.TakeTimeout, c.ShipTimeout = cmp.Or(c.TakeTimeout, DefaultTakeTimeout), cmp.Or(c.ShipTimeout, DefaultShipTimeout)
	m := &Master{MasterConfig: c, log: c.Log, again: make(chan struct{}, 1), hurry: make(chan struct{}, 1), keeper: keeper{store: c.Store, keep: c.Keep}}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	for _, p := range c.Peers {
		if p.Target == nil {
			return nil, fmt.Errorf("replicator: master: peer %q has no target", p.Name)
		}
		m.peers = append(m.peers, newPeer(m, p))
	}
	return m, nil
}

// Run replicates until ctx ends, and then returns nil once everything is at rest: no
// snapshot is taken or shipped any more. What goes wrong is tried again and is seen in
// Status; the error is that of a scratch directory which cannot be used. It is called
// once.
func (m *Master) Run(ctx context.Context) error {
	if err := m.prepare(); err != nil {
		return err
	}
	defer os.Remove(m.scratch())
	m.mu.Lock()
	m.status.Since = time.Now()
	m.mu.Unlock()
	var serving sync.WaitGroup
	defer serving.Wait()
	if !m.begin(ctx) {
		return nil
	}
	for _, p := range m.peers {
		serving.Go(func() { p.run(ctx) })
	}
	m.lead(ctx)
	return nil
}

// Status returns what is known now. It may be called at any time, by anybody.
func (m *Master) Status() MasterStatus {
	m.mu.Lock()
	s := m.status
	m.mu.Unlock()
	s.Store = m.keeper.get()
	s.Peers = make([]PeerStatus, 0, len(m.peers))
	for _, p := range m.peers {
		s.Peers = append(s.Peers, p.get())
	}
	return s
}

// scratch is where a snapshot is taken. There is one at a time.
func (m *Master) scratch() string { return filepath.Join(m.Scratch, "taking.db") }

// prepare makes room to take a snapshot in, and removes what a killed process left.
func (m *Master) prepare() error {
	err := os.MkdirAll(m.Scratch, 0o700)
	for _, suffix := range []string{"", "-journal", "-wal", "-shm"} {
		if err == nil {
			err = os.RemoveAll(m.scratch() + suffix)
		}
	}
	if err != nil {
		return fmt.Errorf("replicator: master: prepare %s: %w", m.Scratch, err)
	}
	return nil
}

// begin finds out which number comes first. It reports whether it did before ctx ended.
func (m *Master) begin(ctx context.Context) bool {
	for n := 1; ; n++ {
		newest, last, err := greatest(ctx, m.Store)
		if err == nil {
			first := First(last, m.Epoch, m.Node)
			m.last = first
			m.last.Sequence--
			m.mu.Lock()
			m.status.Newest, m.begun, m.found = newest, first, newest.Version
			m.mu.Unlock()
			m.log.Info("replication begins", "first", first, "newest", newest.Version)
			return true
		}
		m.fail(fmt.Errorf("replicator: master: read the own store: %w", err))
		if !rest(ctx, backoff(takeRetry, takeRetryMax, n)) {
			return false
		}
	}
}

// greatest returns the newest snapshot in service and the greatest version that the
// store knows of: one in quarantine may be with a peer under its number.
func greatest(ctx context.Context, s Store) (newest Manifest, last Version, err error) {
	all, err := s.List(ctx)
	if err != nil {
		return Manifest{}, Version{}, err
	}
	away, err := s.Quarantined(ctx)
	if err != nil {
		return Manifest{}, Version{}, err
	}
	if len(all) > 0 {
		newest, last = all[0], all[0].Version
	}
	if len(away) > 0 && away[0].Version.Compare(last) > 0 {
		last = away[0].Version
	}
	return newest, last, nil
}

// lead takes snapshots until ctx ends.
func (m *Master) lead(ctx context.Context) {
	force := true // the first says under this mastership what is there
	for ctx.Err() == nil && !m.superseded(ctx) {
		if m.failures == 0 && !force {
			changed, forced := m.watch(ctx)
			if changed && !m.hurried() {
				m.waited = settle(m.Settle, m.Latest, m.took, m.waited, time.Since(m.takenAt))
				m.rest(ctx, m.waited)
			}
			force = forced
		}
		if ctx.Err() != nil {
			return
		}
		empty, err := m.snapshot(ctx, force)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			m.failures, force = 0, false
			m.keeper.tend(ctx)
			continue
		}
		m.failures++
		m.fail(err)
		pause := backoff(takeRetry, takeRetryMax, m.failures)
		if empty {
			pause = halfSaved(m.failures)
		}
		m.rest(ctx, pause)
	}
	m.tend(ctx)
}

// watch waits until there is a reason to take a snapshot: a change, a peer that
// cannot be given what the store has (force), or a long time without.
func (m *Master) watch(ctx context.Context) (changed, force bool) {
	wait, cancel := context.WithTimeout(ctx, max(m.Look, lookShare*m.took))
	defer cancel()
	asked := make(chan bool, 1)
	go func() {
		select {
		case <-m.again:
			cancel()
			asked <- true
		case <-m.hurry:
			cancel()
			asked <- false
		case <-wait.Done():
			asked <- false
		}
	}()
	err := m.Source.Changed(wait)
	ended := wait.Err() != nil
	cancel()
	force = <-asked
	if ctx.Err() != nil {
		return false, false
	}
	if err != nil && !ended {
		m.sight(fmt.Errorf("replicator: master: watch the database: %w", err))
		m.rest(ctx, blindEvery) // blind, but not idle: a copy tells more than no sign
		return false, force
	}
	m.sight(nil)
	if err != nil {
		return false, force
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.status.Pending.IsZero() {
		m.status.Pending = time.Now()
	}
	return true, force
}

// snapshot takes one and publishes it, if it is another than the newest or force says
// so. empty reports that a table was empty which should not be.
func (m *Master) snapshot(ctx context.Context, force bool) (empty bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.TakeTimeout)
	defer cancel()
	newest := m.newest()
	began := time.Now()
	m.mu.Lock()
	m.copies++
	m.mu.Unlock()
	taken, err := m.Source.Take(ctx, m.scratch(), newest.Rows)
	if err == nil {
		defer os.Remove(m.scratch())
		if !taken.Verdict.Sound() {
			err = fmt.Errorf("replicator: master: %w: %v", ErrUnsound, taken.Verdict)
		}
	}
	if err != nil {
		m.refuse(taken.Verdict)
		return taken.Verdict.Has(Emptied), err
	}
	m.takenAt = time.Now()
	m.took = m.takenAt.Sub(began)
	if !force && taken.Manifest.SHA256 == newest.SHA256 {
		m.succeed(taken.Verdict.Notes, nil)
		return false, nil
	}
	m.last.Sequence++ // never given out twice, also when publishing fails half way
	manifest := taken.Manifest
	manifest.Version, manifest.Source, manifest.Time = m.last, m.Name, began
	if err := m.publish(ctx, manifest); err != nil {
		return false, err
	}
	m.succeed(taken.Verdict.Notes, &manifest)
	for _, p := range m.peers {
		p.behind()
	}
	return false, nil
}

// publish puts what was taken into the own store. Where there is no room, what Keep
// does not keep makes some, and then all but the last ones: a new snapshot is worth
// more than many old ones.
func (m *Master) publish(ctx context.Context, manifest Manifest) error {
	err := m.copyIn(ctx, manifest)
	if err != nil && !errors.Is(err, ErrOlder) && m.keeper.prune(ctx) > 0 {
		err = m.copyIn(ctx, manifest)
	}
	if full(err) && m.keeper.pruneTo(ctx, Keep{Count: max(m.Keep.Least, 1) + 1, Least: m.Keep.Least}) > 0 {
		m.log.Warn("no room for a new snapshot: all but the last ones are deleted", "store", err)
		err = m.copyIn(ctx, manifest)
	}
	if err != nil {
		return fmt.Errorf("replicator: master: publish %v: %w", manifest.Version, err)
	}
	return nil
}

// full reports whether an error says that there is no room.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

func (m *Master) copyIn(ctx context.Context, manifest Manifest) error {
	f, err := os.Open(m.scratch())
	if err != nil {
		return err
	}
	defer f.Close()
	return m.Store.Publish(ctx, manifest, f)
}

// superseded looks into the own store, and reports whether another node's greater
// mastership is there. What this one would still take could never be newer.
func (m *Master) superseded(ctx context.Context) bool {
	all, err := m.keeper.look(ctx)
	if err != nil || len(all) == 0 || all[0].Version.Compare(m.last) <= 0 {
		return false
	}
	m.mu.Lock()
	m.status.Superseded = all[0].Version
	m.mu.Unlock()
	m.log.Error("a greater mastership has published here: no more snapshots in this one", "own", m.last, "newest", all[0].Version, "source", all[0].Source)
	return true
}

// succeed notes that the database is in the own store: as this manifest says, or as
// the newest did before (nil).
func (m *Master) succeed(notes []string, published *Manifest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.status
	if s.LastError != "" {
		m.log.Info("snapshots are taken again")
	}
	s.LastSuccess, s.Pending, s.Refusing, s.Fault, s.LastError = time.Now(), time.Time{}, time.Time{}, Fault{}, ""
	s.Notes, m.stored = notes, m.copies
	if published == nil {
		s.Same++
		return
	}
	s.Taken++
	s.Newest = *published
}

// refuse counts a snapshot that is none.
func (m *Master) refuse(v Verdict) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v.Sound() {
		return
	}
	m.status.Refused++
	m.status.Fault = v.Faults[0]
	if m.status.Refusing.IsZero() {
		m.status.Refusing = time.Now()
	}
}

// fail notes what went wrong. The first of a row is logged.
func (m *Master) fail(err error) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	first := m.status.LastError == ""
	m.status.LastError, m.status.ErrorAt = err.Error(), now
	m.status.Failed++
	if m.status.Pending.IsZero() {
		m.status.Pending = now
	}
	if first {
		m.log.Warn("no snapshot; trying again", "error", err)
	}
}

// sight notes whether changes can be seen. Losing and gaining sight is logged.
func (m *Master) sight(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	blind := m.status.WatchError != ""
	switch {
	case err == nil && blind:
		m.log.Info("changes are seen again")
	case err != nil && !blind:
		m.log.Warn("changes cannot be seen; looking each second", "error", err)
	}
	m.status.WatchError = ""
	if err != nil {
		m.status.WatchError = err.Error()
	}
}

// tend prunes until ctx ends.
func (m *Master) tend(ctx context.Context) {
	for rest(ctx, pruneSpacing) {
		if _, err := m.keeper.look(ctx); err == nil {
			m.keeper.tend(ctx)
		}
	}
}

// refresh asks for a snapshot under a new number.
func (m *Master) refresh() {
	select {
	case m.again <- struct{}{}:
	default:
	}
}

// newest returns the newest manifest of the own store that this Master knows of.
func (m *Master) newest() Manifest {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status.Newest
}

// missing reports whether a version is of another mastership and was not in the own store
// when this one began: it may hold changes that were never seen here.
func (m *Master) missing(v Version) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v.Compare(m.found) <= 0 || v.Epoch == m.begun.Epoch && v.Node == m.begun.Node {
		return false
	}
	if v.Compare(m.status.Lost) > 0 {
		m.status.Lost = v
		m.log.Error("a peer has a snapshot of another mastership that was not here when this one began: its changes may be missing", "version", v, "newest", m.found)
	}
	return true
}

// first is the least version of this mastership.
func (m *Master) first() Version {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.begun
}

// hurried reports whether Flush waits for a copy that was not begun yet.
func (m *Master) hurried() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.copies < m.wanted
}

// rest waits, at most until Flush is in a hurry.
func (m *Master) rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-m.hurry:
	}
}

// rest waits, and reports whether the time passed before ctx ended.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
