package mysql

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/carpd/carpd/hooks"
)

// watched is what Monitor remembers of the source of this node's server.
type watched struct {
	position gtids     // what the source had
	at       time.Time // when
	caught   time.Time // the latest moment whose position is all here; zero: none yet
}

// note takes in a look at the source, after one at the replica: what the source had at the
// look before is here now, or not.
func (w *watched) note(now time.Time, source, replica gtids) {
	if !w.at.IsZero() && w.position.minus(replica).count() == 0 {
		w.caught = w.at
	}
	if source.minus(replica).count() == 0 {
		w.caught = now
	}
	w.position, w.at = source, now
}

// behind is how far the replica was behind when the source was last seen.
func (w *watched) behind() time.Duration {
	if w.at.IsZero() || w.caught.IsZero() {
		return 0
	}
	return w.at.Sub(w.caught)
}

// Monitor looks at this node's server and at its peers. It implements hooks.Monitor.
func (db *DB) Monitor(ctx context.Context) (hooks.Report, error) {
	e, err := db.self.connect(ctx)
	if stopped(err) {
		return hooks.Report{Role: hooks.RoleDemoted, Health: hooks.Unfit, Text: "the server does not run"}, nil
	}
	if err != nil {
		return hooks.Report{}, err
	}
	defer e.close()
	s, err := e.look(ctx)
	if err != nil {
		return hooks.Report{}, err
	}
	if s.lacks, err = e.grants(ctx, db.Config); err != nil {
		return hooks.Report{}, err
	}
	views := db.glanceAt(ctx)
	for _, v := range views {
		switch r := s.source(); {
		case v.state == nil:
		case r != nil && r.at(v.server):
			db.seen.note(time.Now(), v.state.executed, s.executed)
		case r == nil && extra(v.state.executed, s.executed).count() > 0:
			db.gave = ""
		}
	}
	return judge(s, views, db.Config, db.seen.behind()), nil
}

// findings are the faults of a look.
type findings struct {
	health hooks.Health
	texts  []string
}

func (f *findings) add(h hooks.Health, format string, args ...any) {
	f.health = max(f.health, h)
	f.texts = append(f.texts, fmt.Sprintf(format, args...))
}

// judge says what a look means. behind is how far the replica was behind its source when
// that was last seen.
func judge(s *state, views []view, c Config, behind time.Duration) hooks.Report {
	var f findings
	f.settings(s, views, c)
	what := ""
	switch role := s.role(); role {
	case hooks.RolePromoted:
		what = "primary"
		for _, v := range views {
			if v.role() == hooks.RolePromoted {
				f.add(hooks.Degraded, "%s can be written to, too", v.name)
			}
		}
	case hooks.RoleUnknown:
		what = "neither primary nor replica"
		if s.half {
			f.add(hooks.Degraded, "read_only and super_read_only differ")
		} else {
			f.add(hooks.Degraded, "it can be written to and has a source")
		}
	default:
		what = "read-only"
		f.replica(s, views, c, behind)
		if r := s.source(); r != nil {
			what = fmt.Sprintf("replica of %v", r)
			if r.behind >= 0 {
				what += fmt.Sprintf(", %v behind", r.behind)
			}
		}
	}
	return hooks.Report{Role: s.role(), Health: f.health, Text: strings.Join(append([]string{what}, f.texts...), "; ")}
}

// settings finds what is wrong with the configuration of the server.
func (f *findings) settings(s *state, views []view, c Config) {
	if err := candidate(s, len(views) > 0); err != nil {
		f.add(hooks.Unfit, "%v", err)
	}
	if len(views) > 0 && !s.strict {
		f.add(hooks.Degraded, "gtid_strict_mode is off: a server that diverged would go on unnoticed")
	}
	if s.origin == "COMPILE-TIME" || s.origin == "COMPILED" {
		f.add(hooks.Degraded, "read_only is not in its configuration file: it would be writable after a restart")
	}
	if len(s.lacks) > 0 {
		f.add(hooks.Degraded, "its account lacks %s", strings.Join(s.lacks, ", "))
	}
	for _, v := range views {
		if v.state != nil && v.state.server == s.server {
			f.add(hooks.Unfit, "server_id %d is that of %s too", s.server, v.name)
		}
	}
	if c.Events && s.events && s.role() == hooks.RoleDemoted {
		f.add(hooks.Degraded, "the event scheduler runs on a replica")
	}
}

// replica finds what is wrong with a server that is to take over.
func (f *findings) replica(s *state, views []view, c Config, behind time.Duration) {
	r := s.source()
	if r == nil {
		f.lone(s, views)
		return
	}
	known := false
	for _, v := range views {
		if !r.at(v.server) {
			continue
		}
		known = true
		if v.state == nil {
			continue
		}
		if more := extra(s.executed, v.state.executed); more.count() > 0 {
			f.add(hooks.Unfit, "errant: %d transactions that its source has not: %v", more.count(), more)
		}
	}
	if !known && len(views) > 0 {
		f.add(hooks.Degraded, "its source is none of the peers")
	}
	switch {
	case r.io == "No" && r.sql != "Yes" && r.fault() == "":
		f.add(hooks.Degraded, "both of its threads are stopped")
	case r.io != "Yes":
		f.add(hooks.Degraded, "it does not receive (%s) %s", r.io, r.ioErr)
	case r.sql != "Yes" && r.sqlErr == "":
		f.add(hooks.Degraded, "it does not apply what it receives")
	}
	if late := max(behind, r.behind); late > c.LagLimit {
		f.add(hooks.Degraded, "%v behind, more than %v", late.Round(time.Second), c.LagLimit)
	}
}

// lone judges a read-only server without a source.
func (f *findings) lone(s *state, views []view) {
	for _, v := range views {
		switch {
		case v.state == nil:
			f.add(hooks.Degraded, "%s cannot be asked whether it has more", v.name)
		case v.role() == hooks.RolePromoted:
			if more := extra(s.executed, v.state.executed); more.count() > 0 {
				f.add(hooks.Unfit, "%v", diverged(s, v.name, more))
			} else {
				f.add(hooks.Unfit, "no replica of %s", v.name)
			}
		default:
			if more := extra(v.state.executed, s.executed); more.count() > 0 {
				f.add(hooks.Unfit, "%s has %d transactions that are not here, and it is no replica", v.name, more.count())
			}
		}
	}
}
