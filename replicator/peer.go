package replicator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// peer brings the newest snapshot to one target.
type peer struct {
	Peer
	of   *Master
	wake chan struct{} // there is a newer one; holds one

	// Of the goroutine of run.
	asked   bool      // there is what the target said, or got since
	there   Manifest  // the newest there
	given   Version   // the last that it took
	lost    int       // how often it took that one and did not have it later
	retryAt time.Time // when that one is offered again

	mu     sync.Mutex
	status PeerStatus
}

func newPeer(of *Master, p Peer) *peer {
	return &peer{Peer: p, of: of, wake: make(chan struct{}, 1), status: PeerStatus{Name: p.Name, State: PeerUnknown}}
}

var errNotKept = errors.New("it took this snapshot and does not have it any more; look into its quarantine")

// run serves the target until ctx ends.
func (p *peer) run(ctx context.Context) {
	defer p.Target.Close()
	for ctx.Err() == nil {
		want := p.of.newest()
		if want.Version.IsZero() {
			p.wait(ctx, p.of.Recheck)
			continue
		}
		pause, err := p.serve(ctx, want)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrOlder):
			p.refused(err)
			<-ctx.Done()
		case err != nil:
			p.asked = false
			rest(ctx, backoff(shipRetry, shipRetryMax, p.failed(err)))
		default:
			p.wait(ctx, pause)
		}
	}
}

// wait waits for a newer snapshot, or for the time to ask the target again.
func (p *peer) wait(ctx context.Context, pause time.Duration) {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-p.wake:
	case <-t.C:
		p.asked = false
	}
}

// serve sees to it that the target has a snapshot, and returns when to look again. The
// error is ErrOlder if it has a greater one, or another one under the same number.
func (p *peer) serve(ctx context.Context, want Manifest) (pause time.Duration, err error) {
	if !p.asked {
		if err := p.ask(ctx); err != nil {
			return 0, err
		}
	}
	first := p.of.first()
	switch c := want.Version.Compare(p.there.Version); {
	case c <= 0 && want.Version.Compare(first) < 0 && p.there.Version.Compare(first) < 0:
		// What an earlier mastership left there was never shipped; what is taken in this
		// one will be greater.
		p.awaits()
		return p.of.Recheck, nil
	case c < 0 || c == 0 && want.SHA256 != p.there.SHA256:
		return 0, fmt.Errorf("%w: %v of %s is there, and ours is %v", ErrOlder, p.there.Version, p.there.Source, want.Version)
	case c == 0:
		p.current(0, 0, 0)
		return p.of.Recheck, nil
	case want.Version == p.given && time.Now().Before(p.retryAt):
		p.failed(errNotKept)
		return time.Until(p.retryAt), nil
	}
	if err := p.ship(ctx, want); err != nil {
		return 0, err
	}
	return p.of.Recheck, nil
}

// ask asks the target what it has.
func (p *peer) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("no answer within %v", askTimeout))
	defer cancel()
	there, err := p.Target.Newest(ctx)
	if errors.Is(err, ErrNotFound) {
		there, err = Manifest{}, nil
	}
	if err != nil {
		return fmt.Errorf("replicator: ask %s what it has: %w", p.Name, withCause(ctx, err))
	}
	p.asked, p.there = true, there
	switch {
	case there.Version.Compare(p.given) >= 0:
		p.lost = 0
	case p.lost == 0: // somebody deleted it: at once
		p.lost, p.retryAt = 1, time.Time{}
	case !time.Now().Before(p.retryAt):
		p.lost++
		p.retryAt = time.Now().Add(backoff(p.of.Recheck, lostRetryMax, p.lost-1))
	}
	missing := p.of.missing(there.Version)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.There = there.Version
	if missing {
		p.status.Lost = there.Version
	}
	return nil
}

// ship ships a snapshot that is newer than what is there.
func (p *peer) ship(ctx context.Context, want Manifest) error {
	p.mu.Lock()
	if p.status.State != PeerFailing {
		p.status.State = PeerBehind
	}
	if p.status.Behind.IsZero() {
		p.status.Behind = time.Now()
	}
	p.mu.Unlock()
	limit := p.of.ShipTimeout
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %v", limit))
	defer cancel()
	began := time.Now()
	sent, err := p.Target.Ship(limited, want, p.of.Store)
	switch {
	case err == nil:
		p.there, p.given = want, want.Version
		p.current(sent, time.Since(began), 1)
		return nil
	case errors.Is(err, ErrOlder) && p.ask(ctx) == nil && p.there.Version.Compare(want.Version) < 0:
		err = fmt.Errorf("it says that it has a newer one, and has %v", p.there.Version) // not ErrOlder: tried again
	case errors.Is(err, ErrDamaged) || errors.Is(err, ErrNotFound):
		if p.get().Failures > 0 {
			p.of.refresh() // not the wire alone: our own copy
		}
	}
	p.mu.Lock()
	p.status.Bytes += sent
	p.mu.Unlock()
	return fmt.Errorf("replicator: ship %v to %s: %w", want.Version, p.Name, withCause(limited, err))
}

// withCause adds to an error that a context made what ended the context.
func withCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// behind notes that there is a newer snapshot, and wakes run.
func (p *peer) behind() {
	p.mu.Lock()
	if p.status.Behind.IsZero() {
		p.status.Behind = time.Now()
	}
	if p.status.State == PeerCurrent {
		p.status.State = PeerBehind
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// awaits notes that the target is to get what is not taken yet.
func (p *peer) awaits() {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.status
	s.State, s.There, s.Failures, s.LastError = PeerBehind, p.there.Version, 0, ""
	if s.Behind.IsZero() {
		s.Behind = time.Now()
	}
}

// current notes that the target has what run wanted, which may be the newest no more.
func (p *peer) current(sent int64, took time.Duration, shipped uint64) {
	newest := p.of.newest().Version
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.status
	if s.State == PeerFailing {
		p.of.log.Info("peer is served again", "peer", p.Name, "version", p.there.Version)
	}
	s.There, s.Failures, s.LastError, s.Shipped = p.there.Version, 0, "", s.Shipped+shipped
	if shipped > 0 {
		s.Bytes, s.LastBytes, s.LastTook = s.Bytes+sent, sent, took
	}
	if p.there.Version == newest {
		s.State, s.Behind, s.LastSuccess = PeerCurrent, time.Time{}, now
		return
	}
	s.State, s.Behind = PeerBehind, now.Add(-took)
}

// failed notes an error, and returns how many there were in a row. The first is logged.
func (p *peer) failed(err error) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.status
	if s.Failures == 0 {
		p.of.log.Warn("peer cannot be served; trying again", "peer", p.Name, "error", err)
	}
	s.State, s.LastError, s.ErrorAt = PeerFailing, err.Error(), time.Now()
	s.Failures++
	if s.Behind.IsZero() && s.There != p.of.newest().Version {
		s.Behind = time.Now()
	}
	return s.Failures
}

// refused notes that the target has what is newer than ours.
func (p *peer) refused(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.status
	s.State, s.LastError, s.ErrorAt = PeerOlder, err.Error(), time.Now()
	s.There = p.there.Version
	s.Failures++
	p.of.log.Error("peer has a newer snapshot: nothing is shipped to it in this mastership", "peer", p.Name, "error", err)
}

func (p *peer) get() PeerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}
