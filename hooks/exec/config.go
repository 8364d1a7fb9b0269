package exec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
)

func init() { hooks.Register("exec", New) }

// DefaultPriority stands for the priority of style keepalived where none is
// configured: CARP has none. It is keepalived's own default.
const DefaultPriority = 100

const (
	tryAgain    = 75 // EX_TEMPFAIL of sysexits.h
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

// Config is the configuration of one program.
type Config struct {
	Command  []string `yaml:"command"`  // absolute path, then arguments; required
	Style    Style    `yaml:"style"`    // default carpd
	XParam   string   `yaml:"xparam"`   // style ucarp only: the last argument, left out if empty
	Priority int      `yaml:"priority"` // style keepalived only: the last argument, default DefaultPriority
	User     string   `yaml:"user"`     // whom to run it as, by name or number; default the daemon's user
}

// New returns a hook that runs the program. It checks all that can be checked
// without running it, and reports all faults at once.
func New(c Config) (hooks.Hook, error) {
	h := &hook{Config: c}
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
	if c.User != "" {
		var err error
		if h.credential, err = lookup(c.User); err != nil {
			faults = append(faults, err)
		}
	}
	faults = append(faults, h.checkCommand())
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return h, nil
}

// hook is one program. It holds no state between runs.
type hook struct {
	Config
	credential *syscall.Credential // nil: as the daemon
}

func (h *hook) checkCommand() error {
	switch {
	case len(h.Command) == 0:
		return errors.New("command: required: write [/path/to/program, argument, ...]")
	case !filepath.IsAbs(h.Command[0]):
		return fmt.Errorf("command: %q is no absolute path: there is no search path and no shell", h.Command[0])
	case slices.ContainsFunc(h.Command, func(s string) bool { return strings.ContainsRune(s, 0) }):
		return errors.New("command: an argument contains a zero byte")
	case h.credential != nil:
		return command.CheckPath(h.Command[0], h.credential.Uid)
	}
	return command.CheckPath(h.Command[0])
}

// lookup finds the user and all groups it belongs to.
func lookup(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("user %q: no such user on this node", name)
		}
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("user %q: look up groups: %w", name, err)
	}
	ids := make([]uint32, 0, len(groups)+2)
	for _, s := range append([]string{u.Uid, u.Gid}, groups...) {
		id, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("user %q: bad id %q: %w", name, s, err)
		}
		ids = append(ids, uint32(id))
	}
	return &syscall.Credential{Uid: ids[0], Gid: ids[1], Groups: ids[2:]}, nil
}

// Run runs the program, and again as long as it asks for that. It implements
// hooks.Hook.
func (h *hook) Run(ctx context.Context, ev hooks.Event) error {
	input, err := json.Marshal(ev)
	if err != nil {
		return fmt.Errorf("exec: run %s: encode event: %w", h.Command[0], err)
	}
	c := command.Command{
		Path: h.Command[0], Args: h.arguments(ev), Env: Environment(ev), Stdin: append(input, '\n'), User: h.credential,
	}
	for n, pause := 1, firstPause; ; n, pause = n+1, min(2*pause, longPause) {
		_, err := command.Run(ctx, c)
		var exit *command.ExitError
		if !errors.As(err, &exit) || exit.Code != tryAgain {
			return err
		}
		if n == maxAttempts {
			return fmt.Errorf("tried %d times: %w", n, err)
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%w after %d tries: %w", ctx.Err(), n, err)
		}
	}
}
