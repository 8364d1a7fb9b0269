package replicator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// StandbyConfig is what a Standby works with.
type StandbyConfig struct {
	Store Store // the node's own
	// Verify looks into a snapshot of the store. before is Rules.Before, the rows of the
	// one before it; nil: unknown.
	Verify func(ctx context.Context, m Manifest, before map[string]int64) Verdict
	// Arrived returns when something may have arrived in the store since it was called
	// last; its error says why that cannot be told. nil: the store is looked at each Poll.
	Arrived func(ctx context.Context) error

	Keep    Keep
	Poll    time.Duration // 0: DefaultPoll
	Timeout time.Duration // for verifying one snapshot; 0: DefaultTakeTimeout
	Log     *slog.Logger  // nil: none
}

// Standby verifies what arrives in the node's own store, takes what is not sound out
// of service, and prunes, as long as Run runs: whenever this node is not the master.
// Make one with NewStandby.
type Standby struct {
	StandbyConfig
	log    *slog.Logger
	keeper keeper
	// Of the goroutine of Run.
	verified map[Version]string  // sha256 of what was found sound
	unclear  map[Version]attempt // what could not be verified

	mu     sync.Mutex
	status StandbyStatus // without Store
}

// attempt is how often a snapshot could not be verified, and when it is tried again.
type attempt struct {
	failures int
	next     time.Time
	err      error
}

// NewStandby checks the configuration. It does nothing else.
func NewStandby(c StandbyConfig) (*Standby, error) {
	if c.Store == nil || c.Verify == nil {
		return nil, errors.New("replicator: standby: a store and a way to verify are needed")
	}
	c.Poll, c.Timeout = cmp.Or(c.Poll, DefaultPoll), cmp.Or(c.Timeout, DefaultTakeTimeout)
	s := &Standby{StandbyConfig: c, log: c.Log, keeper: keeper{store: c.Store, keep: c.Keep}, verified: make(map[Version]string), unclear: make(map[Version]attempt)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// Run verifies and prunes until ctx ends, and then returns nil once everything is at
// rest. What goes wrong is tried again and is seen in Status. It may be called again
// after that: what was verified is not verified once more.
func (s *Standby) Run(ctx context.Context) error {
	s.mu.Lock()
	s.status.Since = time.Now()
	s.mu.Unlock()
	failures := 0
	for ctx.Err() == nil {
		more, err := s.pass(ctx)
		if err == nil && !more {
			s.wait(ctx)
		}
		if ctx.Err() != nil {
			break
		}
		s.note(cmp.Or(err, s.trouble()))
		if err == nil {
			failures = 0
		} else {
			failures++
			rest(ctx, backoff(takeRetry, takeRetryMax, failures))
		}
	}
	return nil
}

// Status returns what is known now. It may be called at any time, by anybody.
func (s *Standby) Status() StandbyStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	status.Store = s.keeper.get()
	return status
}

// pass verifies the newest snapshot that is to be verified now; more reports that there
// was one. It prunes when there is none.
func (s *Standby) pass(ctx context.Context) (more bool, err error) {
	all, err := s.keeper.look(ctx)
	if err != nil {
		return false, fmt.Errorf("replicator: standby: read the store: %w", err)
	}
	s.forget(all)
	s.keeper.tend(ctx)
	at, waiting, now := -1, 0, time.Now()
	for i, m := range all {
		if s.verified[m.Version] == m.SHA256 {
			continue
		}
		if waiting++; at < 0 && !now.Before(s.unclear[m.Version].next) {
			at = i
		}
	}
	s.update(all, waiting)
	if at < 0 {
		return false, nil
	}
	var before map[string]int64
	if at+1 < len(all) {
		before = all[at+1].Rows
	}
	if err := s.judge(ctx, all[at], before); err != nil && ctx.Err() == nil {
		a := s.unclear[all[at].Version]
		a.failures, a.err = a.failures+1, err
		a.next = time.Now().Add(backoff(takeRetry, takeRetryMax, a.failures))
		s.unclear[all[at].Version] = a
	}
	return true, nil
}

// trouble returns why the newest of those is not verified that could not be, or nil.
func (s *Standby) trouble() error {
	var newest Version
	for v := range s.unclear {
		if v.Compare(newest) > 0 {
			newest = v
		}
	}
	return s.unclear[newest].err
}

// judge verifies one snapshot. What cannot be told now is an error, and no reason to
// take it out of service.
func (s *Standby) judge(ctx context.Context, m Manifest, before map[string]int64) error {
	limited, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	v := s.Verify(limited, m, before)
	if v.Sound() {
		s.verified[m.Version] = m.SHA256
		delete(s.unclear, m.Version)
		s.mu.Lock()
		s.status.Verified++
		s.mu.Unlock()
		return nil
	}
	if passing(v) {
		return fmt.Errorf("replicator: standby: verify %v: %v", m.Version, v)
	}
	s.log.Error("a snapshot is not sound: it goes to quarantine", "version", m.Version, "source", m.Source, "verdict", v.String())
	if err := s.Store.Quarantine(ctx, m.Version, v.Faults[0]); err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("replicator: standby: quarantine %v: %w", m.Version, err)
	}
	s.mu.Lock()
	s.status.Refused++
	s.mu.Unlock()
	return nil
}

// passing reports whether a verdict says only that nothing could be seen.
func passing(v Verdict) bool {
	return !slices.ContainsFunc(v.Faults, func(f Fault) bool {
		return !slices.Contains([]Reason{Missing, Unreadable, Changed, Timeout}, f.Reason)
	})
}

// forget drops what is known of snapshots that are not there any more.
func (s *Standby) forget(all []Manifest) {
	gone := func(v Version) bool {
		return !slices.ContainsFunc(all, func(m Manifest) bool { return m.Version == v })
	}
	maps.DeleteFunc(s.verified, func(v Version, _ string) bool { return gone(v) })
	maps.DeleteFunc(s.unclear, func(v Version, _ attempt) bool { return gone(v) })
}

// update writes down what is there.
func (s *Standby) update(all []Manifest, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Waiting = waiting
	i := slices.IndexFunc(all, func(m Manifest) bool { return s.verified[m.Version] == m.SHA256 })
	switch {
	case i < 0:
		s.status.Newest, s.status.Arrived = Manifest{}, time.Time{}
	case s.status.Newest.Version != all[i].Version || s.status.Newest.SHA256 != all[i].SHA256:
		s.status.Newest, s.status.Arrived = all[i], time.Now()
	}
}

// wait waits until something may have arrived.
func (s *Standby) wait(ctx context.Context) {
	if s.Arrived == nil {
		rest(ctx, s.Poll)
		return
	}
	limited, cancel := context.WithTimeout(ctx, pruneSpacing)
	defer cancel()
	err := s.Arrived(limited)
	if limited.Err() != nil {
		err = nil
	}
	s.mu.Lock()
	blind := s.status.WatchError != ""
	s.status.WatchError = ""
	if err != nil {
		s.status.WatchError = err.Error()
	}
	s.mu.Unlock()
	if err == nil {
		return
	}
	if !blind {
		s.log.Warn("arriving snapshots cannot be seen; looking now and then", "every", s.Poll, "error", err)
	}
	rest(ctx, s.Poll)
}

// note writes down how it went. The first error of a row is logged.
func (s *Standby) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.status.LastError = ""
		return
	}
	if s.status.LastError == "" {
		s.log.Warn("snapshots cannot be verified; trying again", "error", err)
	}
	s.status.LastError, s.status.ErrorAt = err.Error(), time.Now()
}
