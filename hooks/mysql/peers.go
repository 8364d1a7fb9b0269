package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/carpd/carpd/hooks"
)

// view is what was seen of another server: a state, or why there is none.
type view struct {
	*server
	state *state
	err   error
}

// role is that of the server, unknown if it could not be asked.
func (v view) role() hooks.Role {
	if v.state == nil {
		return hooks.RoleUnknown
	}
	return v.state.role()
}

// ask looks at all peers, at the same time.
func (db *DB) ask(ctx context.Context) []view { return db.askBut(ctx, nil) }

// silence is how long a peer that did not answer need not be asked again by who only looks:
// the look that follows a promotion must not wait for the dead a second time.
const silence = 5 * time.Second

// glanceAt is ask without those that have just not answered.
func (db *DB) glanceAt(ctx context.Context) []view {
	var dead []view
	if time.Since(db.asked) < silence {
		for _, v := range db.last {
			if absent(v.err) {
				dead = append(dead, v)
			}
		}
	}
	return db.askBut(ctx, dead)
}

// askBut looks at all peers but those that were seen already.
func (db *DB) askBut(ctx context.Context, seen []view) []view {
	views := make([]view, len(db.peers))
	var all sync.WaitGroup
	for i, p := range db.peers {
		if at := slices.IndexFunc(seen, func(v view) bool { return v.server == p }); at >= 0 {
			views[i] = seen[at]
			continue
		}
		all.Go(func() {
			within, cancel := context.WithTimeout(ctx, 2*db.PeerTimeout)
			defer cancel()
			views[i] = view{server: p}
			e, err := p.connect(within)
			if err != nil {
				views[i].err = err
				return
			}
			defer e.close()
			views[i].state, views[i].err = e.look(within)
		})
	}
	all.Wait()
	if slices.ContainsFunc(views, func(v view) bool { return v.role() == hooks.RolePromoted }) {
		db.gave = ""
	}
	if len(seen) == 0 {
		db.last, db.asked = views, time.Now()
	}
	return views
}

// muster is who answers.
type muster struct {
	absent []view // nobody answers
	here   []view
}

// sort tells those who answer from those who do not. One that lives and cannot be looked
// at is an error: nobody knows whether it is written to.
func sort(views []view) (m muster, err error) {
	for _, v := range views {
		switch {
		case v.state != nil:
			m.here = append(m.here, v)
		case absent(v.err):
			m.absent = append(m.absent, v)
		default:
			err = errors.Join(err, fmt.Errorf("%s lives and cannot be asked whether it is written to: %w", v.name, v.err))
		}
	}
	return m, err
}

// find returns the first one who answers and is what is looked for.
func (m muster) find(is func(view) bool) (view, bool) {
	for _, v := range m.here {
		if is(v) {
			return v, true
		}
	}
	return view{}, false
}

// primary is the peer that is written to. Two are an error.
func primary(views []view) (one view, found bool, err error) {
	for _, v := range views {
		if v.role() != hooks.RolePromoted {
			continue
		}
		if found {
			return one, false, fmt.Errorf("%s and %s can both be written to: set read_only on the one that is wrong", one.name, v.name)
		}
		one, found = v, true
	}
	return one, found, nil
}

// fencePeers makes all peers that can be written to read-only, and looks at them again.
func (db *DB) fencePeers(ctx context.Context, m *muster) error {
	var open []int
	for i, v := range m.here {
		if v.role() != hooks.RoleDemoted {
			open = append(open, i)
		}
	}
	if len(open) == 0 {
		return nil
	}
	if err := hooks.MarkNoReturn(ctx, "fence-peers"); err != nil {
		return err
	}
	for _, i := range open {
		v := &m.here[i]
		hooks.Logger(ctx).Info("the old primary lives and is made read-only", "server", v.name)
		e, err := v.connect(ctx)
		if err == nil {
			err = e.fence(ctx)
			if err == nil {
				v.state, err = e.look(ctx)
			}
			e.close()
		}
		if err != nil {
			return hooks.TryAgain(fmt.Errorf("%s lives and cannot be made read-only: %w", v.name, err))
		}
	}
	return nil
}
