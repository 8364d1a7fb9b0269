package systemd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
)

// programs are what starts and stops a service where no systemd runs. An action that has
// none cannot be done.
type programs struct {
	name   string
	argv   map[Action][]string
	status []string // 0: it runs; 3 or 7: it does not
}

// ofService are those of the script /etc/init.d/NAME.
func ofService(service, name string) programs {
	p := programs{name: name, argv: make(map[Action][]string), status: []string{service, name, "status"}}
	for _, a := range []Action{Start, Stop, Restart, Reload} {
		p.argv[a] = []string{service, name, string(a)}
	}
	return p
}

// check looks at the programs where they lie now.
func (p programs) check() error {
	var faults []error
	one := func(key string, argv []string) {
		switch {
		case len(argv) == 0:
		case !filepath.IsAbs(argv[0]):
			faults = append(faults, fmt.Errorf("commands: %s: %q is no absolute path: there is no search path and no shell", key, argv[0]))
		default:
			if err := command.CheckPath(argv[0]); err != nil {
				faults = append(faults, fmt.Errorf("commands: %s: %w", key, err))
			}
		}
	}
	one("status", p.status)
	for _, a := range actions() {
		one(string(a), p.argv[a])
	}
	return errors.Join(faults...)
}

// The exits of a status script as the Linux Standard Base has them, and OCF's of one that
// does not run.
const (
	lsbRunning = 0
	lsbDead    = 1 // and its process file is there
	lsbLocked  = 2 // likewise, its lock file
	lsbStopped = 3
	ocfStopped = 7
)

// state implements manager.
func (p programs) state(ctx context.Context) (state, error) {
	_, err := command.Run(ctx, command.Command{Path: p.status[0], Args: p.status[1:], Quiet: true})
	code := 0
	if exit, ok := errors.AsType[*command.ExitError](err); ok {
		code = exit.Code
	} else if err != nil {
		return state{}, err
	}
	switch code {
	case lsbRunning:
		return state{active: "active"}, nil
	case lsbStopped, ocfStopped:
		return state{active: "inactive"}, nil
	case lsbDead, lsbLocked:
		return state{active: "failed", result: fmt.Sprintf("it died (status %d)", code)}, nil
	}
	return state{}, err
}

// steps returns what is run for an action. Those that init scripts do not all have are
// made of those they have.
func (p programs) steps(a Action, now state) ([][]string, error) {
	has := func(a Action) bool { return len(p.argv[a]) > 0 }
	switch {
	case a == TryRestart && !now.running():
		return nil, nil
	case a == ReloadOrRestart && has(Reload) && now.running():
		a = Reload
	case (a == TryRestart || a == ReloadOrRestart) && !has(a):
		a = Restart
	}
	if a == Restart && !has(Restart) && has(Stop) && has(Start) {
		return [][]string{p.argv[Stop], p.argv[Start]}, nil
	}
	if !has(a) {
		return nil, fmt.Errorf("systemd: %s %s: there is no program for that", a, p.name)
	}
	return [][]string{p.argv[a]}, nil
}

// do implements manager. What a program starts stays.
func (p programs) do(ctx context.Context, a Action) error {
	now := state{}
	if a == TryRestart || a == ReloadOrRestart {
		var err error
		if now, err = p.state(ctx); err != nil {
			return err
		}
	}
	steps, err := p.steps(a, now)
	if err != nil {
		return err
	}
	for _, argv := range steps {
		if _, err := command.Run(ctx, command.Command{Path: argv[0], Args: slices.Clone(argv[1:]), Daemon: a != Stop}); err != nil {
			if exit, ok := errors.AsType[*command.ExitError](err); ok && exit.Code == 5 {
				return hooks.Refuse(fmt.Errorf("%w: the program is not installed", err)) // LSB
			}
			return err
		}
	}
	return nil
}
