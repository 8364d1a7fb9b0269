package haproxy

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/carpd/carpd/hooks"
)

// hook is the notification.
type hook struct{ *proxy }

// Run carries out the action. It implements hooks.Hook.
func (h hook) Run(ctx context.Context, _ hooks.Event) error {
	switch h.Action {
	case Start:
		return h.start(ctx)
	case Stop:
		return h.stop(ctx)
	}
	if h.Candidate != "" {
		return h.reconfigure(ctx)
	}
	return h.load(ctx)
}

// monitor is what only watches.
type monitor struct{ *proxy }

// Monitor says whether clients would be served. It implements hooks.Monitor.
func (m monitor) Monitor(ctx context.Context) (hooks.Report, error) {
	v, err := m.look(ctx)
	if err != nil {
		return hooks.Report{}, err
	}
	var r hooks.Report
	r.Health, r.Text = m.fit(v)
	return r, nil
}

// resource is an HAProxy that takes part.
type resource struct {
	*proxy
	// told is the last role that it was brought into: where HAProxy runs on both nodes
	// alike nothing else tells. Before that it is the demoted one, which asks nothing.
	told atomic.Bool
}

// Promote makes it ready to serve: running, with its frontends open and with servers. It
// implements hooks.Resource.
func (r *resource) Promote(ctx context.Context, _ hooks.Event) error {
	v, err := r.look(ctx)
	if err == nil && !v.up() {
		v, err = r.begin(ctx)
	}
	if err != nil {
		return err
	}
	if health, why := r.fit(v); health == hooks.Unfit {
		// Servers may be found up by the next check.
		return hooks.TryAgain(fmt.Errorf("haproxy: no client could be served: %s", why))
	}
	switch r.Standby {
	case Closed:
		err = r.open(ctx, v)
	case Running:
		err = hooks.MarkNoReturn(ctx, "serve")
	}
	if err == nil {
		r.told.Store(true)
	}
	return err
}

// begin starts it. Where it runs on both nodes that changes nothing for anybody else;
// otherwise what was started is in use.
func (r *resource) begin(ctx context.Context) (view, error) {
	mark := hooks.MarkNoReturn
	if r.Standby == Running {
		mark = hooks.Mark
	}
	if err := mark(ctx, "start"); err != nil {
		return view{}, err
	}
	if err := r.start(ctx); err != nil {
		return view{}, err
	}
	return r.look(ctx)
}

// open enables the frontends that are not.
func (r *resource) open(ctx context.Context, v view) error {
	if open, _ := v.opened(r.Frontends); open == len(r.Frontends) {
		return nil
	}
	if err := hooks.MarkNoReturn(ctx, "open"); err != nil {
		return err
	}
	for _, name := range r.Frontends {
		if open, _ := v.opened([]string{name}); open == 1 {
			continue
		}
		if err := tell(ctx, r.Socket, "enable frontend "+name); err != nil {
			return err
		}
	}
	_, err := r.await(ctx, "its frontends to open", func(v view) bool {
		open, _ := v.opened(r.Frontends)
		return open == len(r.Frontends)
	})
	return err
}

// Demote does what Standby asks for. It implements hooks.Resource.
func (r *resource) Demote(ctx context.Context, _ hooks.Event) error {
	var err error
	switch r.Standby {
	case Closed:
		err = r.close(ctx)
	case Stopped:
		if err = hooks.Mark(ctx, "stop"); err == nil {
			err = r.stop(ctx)
		}
	}
	if err == nil {
		r.told.Store(false)
	}
	return err
}

// close disables the frontends and cuts what came through them. It is not enough that
// nobody new comes: a session that is open keeps its transaction and its locks.
func (r *resource) close(ctx context.Context) error {
	v, err := r.look(ctx)
	if err != nil || !v.up() {
		return err // nothing is open in what does not run
	}
	if err := hooks.Mark(ctx, "close"); err != nil {
		return err
	}
	for _, name := range r.Frontends {
		if open, _ := v.opened([]string{name}); open == 0 {
			continue // to disable it twice is an error
		}
		if err := tell(ctx, r.Socket, "disable frontend "+name); err != nil {
			return err
		}
	}
	if err := hooks.Mark(ctx, "cut"); err != nil {
		return err
	}
	_, err = r.await(ctx, "its sessions to end", func(v view) bool {
		if open, _ := v.opened(r.Frontends); open > 0 {
			return false
		}
		return r.cut(ctx, v) == 0
	})
	return err
}

// cut ends the sessions of the servers, and returns how many the frontends still had.
func (r *resource) cut(ctx context.Context, v view) (left int) {
	for _, name := range r.Frontends {
		if f, there := v.frontend(name); there {
			left += f.sessions
		}
	}
	if left == 0 {
		return 0
	}
	for _, s := range v.rows {
		if s.kind == server && s.sessions > 0 {
			// It may have ended meanwhile; the next look says.
			_ = tell(ctx, r.Socket, "shutdown sessions server "+s.proxy+"/"+s.name)
		}
	}
	return left
}

// Monitor says in which role it is, and whether it could serve. It implements
// hooks.Resource.
func (r *resource) Monitor(ctx context.Context) (hooks.Report, error) {
	v, err := r.look(ctx)
	if err != nil {
		return hooks.Report{}, err
	}
	report := hooks.Report{}
	report.Role, report.Text = r.role(v)
	if r.Standby == Running {
		report.Role = hooks.RoleDemoted
		if r.told.Load() && v.up() {
			report.Role = hooks.RolePromoted
		}
	}
	if report.Role == hooks.RoleDemoted && r.Standby == Stopped {
		return report, nil // not running is how it should be; whether it could serve nobody knows
	}
	health, why := r.fit(v)
	if report.Health = health; health != hooks.Healthy {
		report.Text = why
	}
	return report, nil
}
