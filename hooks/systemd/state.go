package systemd

import (
	"context"
	"fmt"

	"github.com/carpd/carpd/hooks"
)

// Action is what is done to a unit.
type Action string

// The actions.
const (
	Start           Action = "start"
	Stop            Action = "stop"
	Restart         Action = "restart" // starts one that is stopped, too
	Reload          Action = "reload"  // fails if it is not running
	ReloadOrRestart Action = "reload-or-restart"
	TryRestart      Action = "try-restart" // leaves one that is stopped
)

func actions() []Action {
	return []Action{Start, Stop, Restart, Reload, ReloadOrRestart, TryRestart}
}

// manager is who runs services on this machine.
type manager interface {
	// do does something and returns when the manager says that it is done.
	do(ctx context.Context, a Action) error
	// state says how the service is.
	state(ctx context.Context) (state, error)
}

// state is that of a unit, in systemd's words. Managers that know less leave out.
type state struct {
	load   string // loaded, not-found, masked, ...; "" is loaded
	active string // active, reloading, inactive, failed, activating, deactivating, ...
	sub    string // such as running, exited, auto-restart
	result string // of the last run, such as exit-code; "" or success if it is well
	file   string // whether it is started at boot: enabled, disabled, static, ...
}

// there reports whether the service can be started at all.
func (s state) there() bool { return s.load == "" || s.load == "loaded" }

func (s state) running() bool {
	return s.active == "active" || s.active == "reloading" || s.active == "refreshing"
}

// stopped reports whether nothing of it runs.
func (s state) stopped() bool { return s.active == "inactive" || s.active == "failed" }

// String is for operators.
func (s state) String() string {
	if !s.there() {
		return s.load
	}
	text := s.active
	if s.sub != "" && s.sub != s.active {
		text += " (" + s.sub + ")"
	}
	if s.result != "" && s.result != "success" {
		text += ", result " + s.result
	}
	return text
}

// report says what a state means for a resource. wished is whether it was promoted last:
// one that runs no more then cannot serve, while one that failed before could.
func (s state) report(wished bool) hooks.Report {
	r := hooks.Report{Text: s.String()}
	switch {
	case !s.there():
		r.Role, r.Health = hooks.RoleDemoted, hooks.Unfit
	case s.running():
		r.Role = hooks.RolePromoted
	case s.stopped():
		r.Role = hooks.RoleDemoted
		if s.active == "failed" {
			r.Health = hooks.Degraded
		}
		if wished {
			r.Health = hooks.Unfit
		}
	case s.active == "activating" && s.sub != "auto-restart", s.active == "deactivating":
		r.Health = hooks.Degraded
	default:
		r.Health = hooks.Unfit
	}
	if s.file == "enabled" {
		r.Text += ", and started at boot whoever has the role: systemctl disable it"
	}
	return r
}

// verdict turns the result of a job into that of an action.
func verdict(unit string, a Action, result string) error {
	hint := fmt.Sprintf("look at systemctl status %s and journalctl -u %s", unit, unit)
	switch result {
	case "done":
		return nil
	case "skipped":
		if a == TryRestart || a == Stop {
			return nil
		}
		return fmt.Errorf("systemd: %s %s: skipped: it is not in a state for that, or a condition does not hold: %s", a, unit, hint)
	case "canceled":
		return hooks.TryAgain(fmt.Errorf("systemd: %s %s: another job took its place", a, unit))
	}
	return fmt.Errorf("systemd: %s %s: job %s: %s", a, unit, result, hint)
}
