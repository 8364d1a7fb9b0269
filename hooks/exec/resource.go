package exec

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
)

// Exit codes of a program that is asked for the state of a resource: those of Pacemaker's
// resource agents.
const (
	running          = 0
	stopped          = 7
	promoted         = 8
	failedPromoted   = 9
	degraded         = 190
	degradedPromoted = 191
	stoppedByService = 3 // of "service NAME status"
)

// ResourceConfig is the configuration of a resource that programs promote, demote and
// look at.
type ResourceConfig struct {
	Promote []string `yaml:"promote"` // absolute path, then arguments; required, as the other two
	Demote  []string `yaml:"demote"`
	Monitor []string `yaml:"monitor"`
	Codes   Codes    `yaml:"codes"` // what Monitor's exit means; default promotable
	User    string   `yaml:"user"`  // whom to run all of them as, by name or number; default the daemon's user
}

// NewResource returns a resource of three programs. It reports all faults at once.
func NewResource(c ResourceConfig) (hooks.Resource, error) {
	var unknown error
	if c.Codes != "" && c.Codes != Promotable && c.Codes != Service {
		unknown = fmt.Errorf("codes %q: unknown: use %s or %s", c.Codes, Promotable, Service)
	}
	credential, nobody := lookup(c.User)
	up, err1 := newProgram("promote", c.Promote, credential)
	down, err2 := newProgram("demote", c.Demote, credential)
	look, err3 := newProgram("monitor", c.Monitor, credential)
	if err := errors.Join(unknown, nobody, err1, err2, err3); err != nil {
		return nil, err
	}
	return &resource{up: up, down: down, look: look, codes: c.Codes}, nil
}

// resource is what three programs act on. It holds no state.
type resource struct {
	up, down, look program
	codes          Codes
}

// Promote runs the program that promotes, unless that is done already, and waits until
// the one that looks says so. It implements hooks.Resource.
func (r *resource) Promote(ctx context.Context, ev hooks.Event) error {
	if err := hooks.Mark(ctx, "look"); err != nil {
		return err
	}
	if report, err := r.Monitor(ctx); err == nil && report.Role == hooks.RolePromoted && report.Health == hooks.Healthy {
		return nil
	}
	if err := hooks.MarkNoReturn(ctx, "promote"); err != nil {
		return err
	}
	return r.act(ctx, ev, r.up, "promote", hooks.RolePromoted)
}

// Demote runs the program that demotes, always: what a promotion left that was cut off
// may look demoted. It implements hooks.Resource.
func (r *resource) Demote(ctx context.Context, ev hooks.Event) error {
	if err := hooks.Mark(ctx, "demote"); err != nil {
		return err
	}
	return r.act(ctx, ev, r.down, "demote", hooks.RoleDemoted)
}

func (r *resource) act(ctx context.Context, ev hooks.Event, p program, action string, want hooks.Role) error {
	c, err := p.toldOf(ev, append(Environment(ev), "CARP_ACTION="+action))
	if err != nil {
		return err
	}
	_, err = command.Run(ctx, c)
	switch code, _ := exitCode(err); {
	case code == tryAgain:
		return hooks.TryAgain(err)
	case code == refuses:
		return hooks.Refuse(err)
	case err != nil:
		return explained(err)
	}
	return r.await(ctx, p, want)
}

// await looks until the resource is in a role: what a program has begun may take longer
// than the program.
func (r *resource) await(ctx context.Context, p program, want hooks.Role) error {
	said := "it could not be looked at"
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		report, err := r.Monitor(ctx)
		switch {
		case err == nil && report.Role == want:
			return nil
		case err == nil:
			said = fmt.Sprintf("%s says %v, not %v: %s", r.look.argv[0], report.Role, want, report.Text)
		case ctx.Err() == nil:
			said = err.Error()
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("exec: %s says that it is done, and %s: %w", p.argv[0], said, ctx.Err())
		}
	}
}

// Monitor implements hooks.Resource.
func (r *resource) Monitor(ctx context.Context) (hooks.Report, error) {
	line, err := r.look.ask(ctx, environmentOf("monitor"))
	return report(line, err, r.meaning)
}

// meaning of the exit code of the program that looks. What has none is in between.
func (r *resource) meaning(code int) (hooks.Report, bool) {
	up := hooks.RoleDemoted
	if r.codes == Service {
		up = hooks.RolePromoted
	}
	switch {
	case code == running:
		return hooks.Report{Role: up}, true
	case code == degraded:
		return hooks.Report{Role: up, Health: hooks.Degraded}, true
	case code == stopped, code == stoppedByService && r.codes == Service:
		return hooks.Report{Role: hooks.RoleDemoted}, true
	case r.codes == Service:
	case code == promoted:
		return hooks.Report{Role: hooks.RolePromoted}, true
	case code == degradedPromoted:
		return hooks.Report{Role: hooks.RolePromoted, Health: hooks.Degraded}, true
	case code == failedPromoted:
		return hooks.Report{Role: hooks.RolePromoted, Health: hooks.Unfit}, true
	}
	if code == tryAgain {
		return hooks.Report{Health: hooks.Degraded}, true
	}
	return hooks.Report{Health: hooks.Unfit}, true
}
