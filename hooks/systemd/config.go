package systemd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/carpd/carpd/hooks"
)

func init() {
	hooks.Register("systemd", New)
	hooks.RegisterResource("systemd", NewResource)
}

// Manager says who runs services.
type Manager string

// The managers. The empty string is Auto.
const (
	Auto     Manager = "auto"     // systemd if the machine was booted with it, else SysV, else Commands
	Systemd  Manager = "systemd"  // by D-Bus
	SysV     Manager = "sysv"     // service NAME start
	Commands Manager = "commands" // those that the configuration gives
)

// Programs are the programs of Commands: each its absolute path, then arguments. Status
// exits with 0 if it runs and with 3 or 7 if not.
type Programs struct {
	Start   []string `yaml:"start"`
	Stop    []string `yaml:"stop"`
	Status  []string `yaml:"status"` // required
	Restart []string `yaml:"restart"`
	Reload  []string `yaml:"reload"`
}

// Config is the configuration of something that is done to a unit.
type Config struct {
	Unit     string   `yaml:"unit"`     // NAME.service, or NAME; required
	Do       Action   `yaml:"do"`       // required
	Manager  Manager  `yaml:"manager"`  // default auto
	Commands Programs `yaml:"commands"` // of manager commands
}

// ResourceConfig is the configuration of a unit that runs where the role is.
type ResourceConfig struct {
	Unit     string   `yaml:"unit"`
	Manager  Manager  `yaml:"manager"`
	Commands Programs `yaml:"commands"`
}

// New returns a hook. It reports all faults at once.
func New(c Config) (hooks.Hook, error) {
	var faults []error
	if !slices.Contains(actions(), c.Do) {
		faults = append(faults, fmt.Errorf("do %q: use one of %v", c.Do, actions()))
	}
	m, err := here().choose(c.Unit, c.Manager, c.Commands, c.Do)
	if err := errors.Join(append(faults, err)...); err != nil {
		return nil, err
	}
	return hook{m, c.Do}, nil
}

// NewResource returns a resource. It reports all faults at once.
func NewResource(c ResourceConfig) (hooks.Resource, error) {
	m, err := here().choose(c.Unit, c.Manager, c.Commands, Start, Stop)
	if err != nil {
		return nil, err
	}
	return &resource{manager: m, unit: c.Unit}, nil
}

// machine is what the choice of a manager depends on.
type machine struct {
	booted  bool                   // with systemd: sd_booted(3)
	script  func(name string) bool // whether there is one in /etc/init.d
	service string                 // the program of this name, "" if there is none
	address string                 // of the bus of systemd; "" is the usual one
}

func here() machine {
	exists := func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}
	m := machine{booted: exists("/run/systemd/system"), script: func(name string) bool { return exists("/etc/init.d/" + name) }}
	for _, path := range []string{"/usr/sbin/service", "/sbin/service"} {
		if m.service == "" && exists(path) {
			m.service = path
		}
	}
	return m
}

// choose returns the manager of a unit, if it can do the actions.
func (m machine) choose(unit string, which Manager, given Programs, needed ...Action) (manager, error) {
	if err := checkUnit(unit); err != nil {
		return nil, err
	}
	service := strings.TrimSuffix(unit, ".service")
	if which == "" || which == Auto {
		switch {
		case m.booted:
			which = Systemd
		case m.service != "" && m.script(service):
			which = SysV
		case len(given.Status) > 0:
			which = Commands
		default:
			return nil, fmt.Errorf("unit %s: this machine was not booted with systemd, and has no /etc/init.d/%s: give commands, or manager: systemd", unit, service)
		}
	}
	switch which {
	case Systemd:
		if !strings.Contains(unit, ".") {
			unit += ".service"
		}
		return bus{unit: unit, address: m.address}, nil
	case SysV:
		if m.service == "" {
			return nil, errors.New("manager sysv: there is no program service: install sysvinit-utils or init-system-helpers")
		}
		return ofService(m.service, service), nil
	case Commands:
		p := given.programs(service)
		return p, errors.Join(p.check(), given.lacks(needed))
	}
	return nil, fmt.Errorf("manager %q: unknown: use %s, %s, %s or %s", which, Auto, Systemd, SysV, Commands)
}

func (given Programs) programs(name string) programs {
	return programs{name: name, status: given.Status, argv: map[Action][]string{
		Start: given.Start, Stop: given.Stop, Restart: given.Restart, Reload: given.Reload,
	}}
}

// lacks is an error for what the actions need and is not given.
func (given Programs) lacks(needed []Action) error {
	var faults []error
	if len(given.Status) == 0 {
		faults = append(faults, errors.New("commands: status is missing"))
	}
	for _, a := range needed {
		if _, err := given.programs("").steps(a, state{active: "active"}); err != nil {
			faults = append(faults, fmt.Errorf("commands: none for %s", a))
		}
	}
	return errors.Join(faults...)
}

// checkUnit refuses what is no name of a unit, systemd.unit(5).
func checkUnit(unit string) error {
	switch {
	case unit == "":
		return errors.New("unit: required: write NAME.service")
	case len(unit) > 255, strings.HasPrefix(unit, "-"), filepath.Base(unit) != unit,
		strings.ContainsFunc(unit, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(`:-_.\@`, r)
		}):
		return fmt.Errorf("unit %q: this is no name of a unit", unit)
	}
	return nil
}
