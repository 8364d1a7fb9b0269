package exec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
)

func init() {
	hooks.Register("exec", New)
	hooks.RegisterResource("exec", NewResource)
	hooks.RegisterMonitor("script", NewMonitor)
}

const (
	maxAttempts = 50
	firstPause  = 250 * time.Millisecond
	longPause   = 5 * time.Second
)

// Style says which arguments follow those of the configuration.
type Style string

// The styles. The empty string is Carpd.
const (
	Carpd      Style = "carpd"      // none
	UCARP      Style = "ucarp"      // interface, first address, xparam
	Keepalived Style = "keepalived" // INSTANCE, name, state, priority
)

// Config is the configuration of one program that is told of a phase.
type Config struct {
	Command  []string `yaml:"command"`  // absolute path, then arguments; required
	Style    Style    `yaml:"style"`    // default carpd
	XParam   string   `yaml:"xparam"`   // style ucarp only: the last argument, left out if empty
	Priority int      `yaml:"priority"` // style keepalived only: the last argument, default keepalived.DefaultPriority
	User     string   `yaml:"user"`     // whom to run it as, by name or number; default the daemon's user
}

// New returns a hook that runs the program. It checks all that can be checked
// without running it, and reports all faults at once.
func New(c Config) (hooks.Hook, error) {
	var faults []error
	switch c.Style {
	case "", Carpd, UCARP, Keepalived:
	default:
		faults = append(faults, fmt.Errorf("style %q: unknown: use %s, %s or %s", c.Style, Carpd, UCARP, Keepalived))
	}
	if c.XParam != "" && c.Style != UCARP {
		faults = append(faults, errors.New("xparam: only style ucarp has it: add it to command instead"))
	}
	if c.Priority != 0 && c.Style != Keepalived {
		faults = append(faults, errors.New("priority: only style keepalived has it: add it to command instead"))
	}
	if c.Priority < 0 || c.Priority > 255 {
		faults = append(faults, fmt.Errorf("priority %d: use 0 to 255", c.Priority))
	}
	credential, unknown := lookup(c.User)
	p, err := newProgram("command", c.Command, credential)
	if err := errors.Join(append(faults, unknown, err)...); err != nil {
		return nil, err
	}
	return &hook{Config: c, program: p}, nil
}

// hook is one program. It holds no state between runs.
type hook struct {
	Config
	program program
}

// Run runs the program, and again as long as it asks for that. It implements
// hooks.Hook.
func (h *hook) Run(ctx context.Context, ev hooks.Event) error {
	c, err := h.program.toldOf(ev, Environment(ev), h.arguments(ev)...)
	if err != nil {
		return err
	}
	var before error // why it is tried again
	for n, pause := 1, firstPause; ; n, pause = n+1, min(2*pause, longPause) {
		_, err := command.Run(ctx, c)
		switch code, _ := exitCode(err); {
		case err != nil && ctx.Err() != nil && before != nil:
			return fmt.Errorf("%w in try %d: %w", ctx.Err(), n, before)
		case code == refuses:
			return hooks.Refuse(err)
		case code != tryAgain:
			return explained(err)
		case n == maxAttempts:
			return fmt.Errorf("tried %d times: %w", n, err)
		}
		before = err
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%w after %d tries: %w", ctx.Err(), n, err)
		}
	}
}

// toldOf returns the command that runs the program with an event on standard input.
func (p program) toldOf(ev hooks.Event, env []string, args ...string) (command.Command, error) {
	c := p.with(env, args...)
	input, err := json.Marshal(ev)
	if err != nil {
		return c, fmt.Errorf("exec: run %s: encode event: %w", c.Path, err)
	}
	c.Stdin = append(input, '\n')
	return c, nil
}
