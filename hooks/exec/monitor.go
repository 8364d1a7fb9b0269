package exec

import (
	"context"
	"errors"
	"fmt"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
)

// Codes says what the exit codes of a program mean that is asked for a state.
type Codes string

// The codes of a resource and of a monitor; the empty string is the first of each.
const (
	Promotable Codes = "promotable" // of a resource: OCF's, where 0 is demoted and 8 promoted
	Service    Codes = "service"    // of a resource: 0 is promoted, 3 or 7 demoted, as of "service NAME status"

	Plain  Codes = "plain"  // of a monitor: 0 is ok, 190 degraded, others unfit
	Nagios Codes = "nagios" // of a monitor: 0 is ok, 1 degraded, 2 unfit, 3 unknown
)

// MonitorConfig is the configuration of a program that is asked all the time how fit the
// node is.
type MonitorConfig struct {
	Command []string `yaml:"command"` // absolute path, then arguments; required
	Codes   Codes    `yaml:"codes"`   // default plain
	User    string   `yaml:"user"`    // whom to run it as, by name or number; default the daemon's user
}

// NewMonitor returns a monitor that runs the program. It reports all faults at once.
func NewMonitor(c MonitorConfig) (hooks.Monitor, error) {
	var unknown error
	if c.Codes != "" && c.Codes != Plain && c.Codes != Nagios {
		unknown = fmt.Errorf("codes %q: unknown: use %s or %s", c.Codes, Plain, Nagios)
	}
	credential, nobody := lookup(c.User)
	p, err := newProgram("command", c.Command, credential)
	if err := errors.Join(unknown, nobody, err); err != nil {
		return nil, err
	}
	return monitor{p, c.Codes}, nil
}

type monitor struct {
	program program
	codes   Codes
}

// Monitor implements hooks.Monitor.
func (m monitor) Monitor(ctx context.Context) (hooks.Report, error) {
	line, err := m.program.ask(ctx, environmentOf("monitor"))
	return report(line, err, m.health)
}

func (m monitor) health(code int) (r hooks.Report, known bool) {
	switch {
	case code == 0:
		r.Health = hooks.Healthy
	case m.codes == Nagios && code == 1, m.codes != Nagios && code == degraded:
		r.Health = hooks.Degraded
	case m.codes == Nagios:
		r.Health, known = hooks.Unfit, code == 2
		return r, known
	default:
		r.Health = hooks.Unfit
	}
	return r, true
}

// environmentOf is that of a program which is asked for a state: there is no event.
func environmentOf(action string) []string {
	return []string{"PATH=" + command.SearchPath, "CARP_ACTION=" + action}
}

// report makes a report of the answer of a program. A program that could not be run, or
// that a signal or its deadline has ended, has not answered.
func report(line string, err error, meaning func(code int) (hooks.Report, bool)) (hooks.Report, error) {
	code, ended := exitCode(err)
	if !ended || code < 0 || code == forbidden || code == timedOut || code == wasKilled {
		return hooks.Report{Health: hooks.Unfit}, explained(err)
	}
	r, known := meaning(code)
	if !known {
		return hooks.Report{Health: hooks.Unfit}, err
	}
	if r.Text = line; line != "" || err == nil {
		return r, nil
	}
	if exit, ok := errors.AsType[*command.ExitError](err); ok {
		r.Text = exit.How + ", " + exit.Tail
	}
	return r, nil
}
