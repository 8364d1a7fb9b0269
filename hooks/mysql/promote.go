package mysql

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/carpd/carpd/hooks"
)

// The keys of what a promotion keeps in the journal.
const (
	keySource  = "source"  // where the data came from, as IP:PORT: the reset forgets it
	keyDrained = "drained" // digest of what the server had when it was cut from its source; "" when it is promoted
)

// Promote makes this node's server the one that is written to. It implements
// hooks.Resource; the steps are in the comment of the package.
func (db *DB) Promote(ctx context.Context, ev hooks.Event) error {
	e, s, err := db.open(ctx)
	if err != nil {
		return err
	}
	defer e.close()
	if s.role() == hooks.RolePromoted {
		return db.switches(ctx, e, true)
	}
	if err := candidate(s, len(db.peers) > 0); err != nil {
		return hooks.Refuse(err)
	}
	if s.role() != hooks.RoleDemoted { // writable, with a source: somebody else's doing
		if err := hooks.Mark(ctx, "read-only"); err != nil {
			return err
		}
		if err := e.fence(ctx); err != nil {
			return err
		}
	}
	if err := hooks.Mark(ctx, "ask-peers"); err != nil {
		return err
	}
	m, err := sort(db.ask(ctx))
	if err != nil {
		return hooks.TryAgain(err)
	}
	if err := db.fencePeers(ctx, &m); err != nil {
		return err
	}
	if err := db.unfenced(ctx, m); err != nil {
		return err
	}
	if s.source() != nil {
		err = db.drain(ctx, e, m)
	} else {
		err = db.alone(ctx, s, m)
	}
	if err != nil {
		return err
	}
	return db.use(ctx, e)
}

// open connects to this node's server and looks at it. One that does not answer may be
// starting.
func (db *DB) open(ctx context.Context) (*session, *state, error) {
	e, err := db.self.connect(ctx)
	if err != nil {
		if absent(err) || passing(err) {
			return nil, nil, hooks.TryAgain(err)
		}
		return nil, nil, hooks.Refuse(err)
	}
	s, err := e.look(ctx)
	if err != nil {
		e.close()
		return nil, nil, err
	}
	return e, s, nil
}

// candidate says why a server cannot be promoted, whatever its peers do.
func candidate(s *state, shared bool) error {
	switch {
	case len(s.sources) > 1 || len(s.sources) == 1 && s.sources[0].channel != "":
		return errors.New("it has named or several sources: only the one without a name can be left to this")
	case shared && !s.logs:
		return errors.New("log_bin is off: nobody could replicate from it")
	case shared && !s.passesOn:
		return errors.New("it does not log what it applies (log_slave_updates): nobody could replicate from it")
	case shared && !s.byGTID:
		return errors.New("gtid_mode is off: nobody could tell what it lacks")
	}
	r := s.source()
	switch {
	case r == nil:
		return nil
	case !r.byGTID:
		return fmt.Errorf("it replicates from %v without GTID: nobody could tell what it lacks", r)
	case r.sqlErr != "":
		return errors.New(r.fault())
	}
	if local := s.local(); local.count() > 0 {
		return fmt.Errorf("errant: it wrote %d transactions that did not come from %v: save and remove them, or make it anew from a backup", local.count(), r)
	}
	return nil
}

// unfenced decides about peers that do not answer: they may live.
func (db *DB) unfenced(ctx context.Context, m muster) error {
	for _, v := range m.absent {
		if db.RequireFence {
			return hooks.Refuse(fmt.Errorf("%s does not answer, so nobody knows that it is not written to (require_fence): %w", v.name, v.err))
		}
		hooks.Logger(ctx).Warn("not fenced: a peer does not answer", "server", v.name, "err", v.err)
	}
	return nil
}

// alone decides about a server that has no source: the last primary, or one that was never
// set up. It must have all that can be known of.
func (db *DB) alone(ctx context.Context, s *state, m muster) error {
	for _, v := range m.here {
		if more := extra(v.state.executed, s.executed); more.count() > 0 {
			db.gave = ""
			return hooks.Refuse(fmt.Errorf("%s has %d transactions that are not here, and this is no replica of it: %v: make it one, or promote that one",
				v.name, more.count(), more))
		}
	}
	// It was cut from its source by a promotion that came no further, or let go itself and
	// nobody took over.
	as := digest(s.executed)
	if len(m.absent) == 0 || db.WithoutSource == Promote || hooks.Recall(ctx, keyDrained) == as || db.gave == as {
		return nil
	}
	return hooks.Refuse(fmt.Errorf("it is no replica, and %s cannot be asked whether it has more: start that one, or set without_source: promote",
		m.absent[0].name))
}

// digest is a short name of what a server has.
func digest(g gtids) string {
	whole := make([]byte, 0, 64)
	for _, key := range g.keys() {
		whole = fmt.Append(whole, key, g[key], ";")
	}
	sum := sha256.Sum256(whole)
	return hex.EncodeToString(sum[:])
}

// use is the part of the plan that makes a server writable that has all it can get.
func (db *DB) use(ctx context.Context, e *session) error {
	s, err := e.look(ctx)
	if err != nil {
		return err
	}
	if r := s.source(); r != nil {
		if err := db.detach(ctx, e, s, r); err != nil {
			return err
		}
	}
	if err := hooks.MarkNoReturn(ctx, "switches"); err != nil {
		return err
	}
	if first := e.d.privileged(); first != "" {
		if err := e.exec(ctx, first); err != nil {
			return err
		}
	}
	if err := db.switches(ctx, e, true); err != nil {
		return err
	}
	if err := hooks.MarkNoReturn(ctx, "writable"); err != nil {
		return err
	}
	if err := e.exec(ctx, "SET GLOBAL read_only = 0"); err != nil {
		return err
	}
	s, err = e.look(ctx)
	if err == nil && s.role() != hooks.RolePromoted {
		err = fmt.Errorf("%s: it said that it can be written to, and it cannot, or has a source again", e.name)
	}
	if err != nil {
		return err
	}
	if err := hooks.Remember(ctx, keyDrained, ""); err != nil { // it counts for an unfinished promotion alone
		hooks.Logger(ctx).Warn("the journal is not written", "err", err)
	}
	return nil
}

// detach cuts a drained server from its source. What is lost by it was said before.
func (db *DB) detach(ctx context.Context, e *session, s *state, r *replication) error {
	if err := hooks.Remember(ctx, keySource, r.String()); err != nil {
		return err
	}
	if err := hooks.Remember(ctx, keyDrained, digest(s.executed)); err != nil {
		return err
	}
	if err := hooks.MarkNoReturn(ctx, "detach"); err != nil {
		return err
	}
	if err := e.exec(ctx, e.d.stopBoth); err != nil {
		return err
	}
	return e.exec(ctx, e.d.reset)
}

// limit is how long the server may take to get what is missing: the setting, and less
// where the context leaves less with what follows.
func (db *DB) limit(ctx context.Context) time.Duration {
	const rest = 2 * time.Second
	d := db.ApplyTimeout
	if end, bounded := ctx.Deadline(); bounded {
		d = min(d, max(time.Until(end)-rest, 0))
	}
	return d
}
