package haproxy

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
)

func init() {
	hooks.Register("haproxy", New)
	hooks.RegisterResource("haproxy", NewResource)
	hooks.RegisterMonitor("haproxy", NewMonitor)
}

// Standby says what HAProxy does on a node that has not the role.
type Standby string

// What it does there. The empty string is Running.
const (
	Running Standby = "running" // the same as on the other node: only the address moves
	Closed  Standby = "closed"  // it runs and checks its servers; its frontends are disabled
	Stopped Standby = "stopped" // it does not run
)

// Mode says how the processes are made.
type Mode string

// The modes. The empty string is MasterWorker.
const (
	MasterWorker Mode = "master-worker" // -W or -Ws, as Debian's unit has it
	Classic      Mode = "classic"       // one process, replaced by a new one with -sf
)

// Action is what a notification does at its phase.
type Action string

// The actions. The empty string is Reload.
const (
	Reload Action = "reload" // the candidate, if one is named; it is started if it does not run
	Start  Action = "start"
	Stop   Action = "stop"
)

// Defaults of Config.
const (
	DefaultProgram    = "/usr/sbin/haproxy"
	DefaultConfig     = "/etc/haproxy/haproxy.cfg"
	DefaultSystemctl  = "/usr/bin/systemctl"
	DefaultReloadTime = 10 * time.Second
	DefaultStopTime   = 5 * time.Second
)

// Config is the configuration of an HAProxy. Socket is required, and one of Unit and
// PIDFile wherever it is started, stopped or reloaded.
type Config struct {
	Socket string `yaml:"socket"` // runtime API, level admin: a path, or HOST:PORT
	Master string `yaml:"master"` // the master's own socket (-S), a path or HOST:PORT; default: SIGUSR2, or systemctl reload

	Unit      string `yaml:"unit"`      // systemd runs it, under this name
	Systemctl string `yaml:"systemctl"` // default DefaultSystemctl

	PIDFile string `yaml:"pid_file"` // carpd runs it, and finds it by this file (-p)
	Program string `yaml:"program"`  // default DefaultProgram
	Config  string `yaml:"config"`   // default DefaultConfig
	Mode    Mode   `yaml:"mode"`     // default MasterWorker

	// A notification only.
	Action    Action `yaml:"action"`    // default Reload
	Candidate string `yaml:"candidate"` // a new configuration to load, in the directory of Config

	// A resource only.
	Standby   Standby  `yaml:"standby"`   // default Running
	Frontends []string `yaml:"frontends"` // that standby: closed disables

	Backends   []string `yaml:"backends"`    // each of which needs a server; default: all that have servers
	MinServers int      `yaml:"min_servers"` // with fewer up a backend is degraded; default 1

	ReloadTime time.Duration `yaml:"reload_time"` // until a start or reload has not worked; default DefaultReloadTime
	StopTime   time.Duration `yaml:"stop_time"`   // from SIGTERM to SIGKILL; default DefaultStopTime
}

// New returns a notification: it carries out Action at its phase.
func New(c Config) (hooks.Hook, error) {
	p, faults := open(c)
	faults = append(faults, c.checkRunning()...)
	switch c.Action {
	case "", Reload, Start, Stop:
	default:
		faults = append(faults, fmt.Errorf("action %q: unknown: use %s, %s or %s", c.Action, Reload, Start, Stop))
	}
	if c.Candidate != "" && c.Action != "" && c.Action != Reload {
		faults = append(faults, fmt.Errorf("candidate: action %s loads none: remove one of them", c.Action))
	}
	if c.Standby != "" || len(c.Frontends) > 0 {
		faults = append(faults, errors.New("standby, frontends: only a resource has them: remove on, or the keys"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return hook{p}, nil
}

// NewResource returns a resource: this node's HAProxy, which is ready when the address
// comes and treated as Standby says when it has gone.
func NewResource(c Config) (hooks.Resource, error) {
	p, faults := open(c)
	faults = append(faults, c.checkRunning()...)
	switch c.Standby {
	case "", Running, Stopped:
		if len(c.Frontends) > 0 {
			faults = append(faults, errors.New("frontends: only standby: closed disables them: remove the key, or write standby: closed"))
		}
	case Closed:
		if len(c.Frontends) == 0 {
			faults = append(faults, errors.New("frontends: standby: closed needs those that clients of the address use"))
		}
	default:
		faults = append(faults, fmt.Errorf("standby %q: unknown: use %s, %s or %s", c.Standby, Running, Closed, Stopped))
	}
	if c.Action != "" || c.Candidate != "" {
		faults = append(faults, errors.New("action, candidate: a resource has none: remove them, or say when it runs with on"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return &resource{proxy: p}, nil
}

// NewMonitor returns a monitor: whether this HAProxy could serve.
func NewMonitor(c Config) (hooks.Monitor, error) {
	p, faults := open(c)
	for key, given := range map[string]bool{
		"standby": c.Standby != "", "frontends": len(c.Frontends) > 0, "action": c.Action != "", "candidate": c.Candidate != "",
	} {
		if given {
			faults = append(faults, fmt.Errorf("%s: a monitor changes nothing: remove the key", key))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return monitor{p}, nil
}

// open fills in the defaults and checks what all classes share.
func open(c Config) (*proxy, []error) {
	var faults []error
	if c.Socket == "" {
		faults = append(faults, errors.New(`socket: required: the path after "stats socket" in haproxy.cfg`))
	}
	for key, at := range map[string]string{"socket": c.Socket, "master": c.Master} {
		if err := checkAddress(at); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", key, err))
		}
	}
	switch c.Mode {
	case "", MasterWorker:
	case Classic:
		if c.Master != "" {
			faults = append(faults, errors.New("master: mode classic has no master: remove one of them"))
		}
	default:
		faults = append(faults, fmt.Errorf("mode %q: unknown: use %s or %s", c.Mode, MasterWorker, Classic))
	}
	if c.MinServers < 0 {
		faults = append(faults, fmt.Errorf("min_servers %d: use 1 or more", c.MinServers))
	}
	if c.ReloadTime < 0 || c.StopTime < 0 {
		faults = append(faults, errors.New("reload_time, stop_time: use more than 0"))
	}
	for _, name := range slices.Concat(c.Frontends, c.Backends) {
		if !isName(name) {
			faults = append(faults, fmt.Errorf("%q is no name of a frontend or backend: letters, digits, '-', '_', '.' and ':'", name))
		}
	}
	c.Program = cmp.Or(c.Program, DefaultProgram)
	c.Config = cmp.Or(c.Config, DefaultConfig)
	c.Systemctl = cmp.Or(c.Systemctl, DefaultSystemctl)
	c.Standby = cmp.Or(c.Standby, Running)
	c.Action = cmp.Or(c.Action, Reload)
	c.Mode = cmp.Or(c.Mode, MasterWorker)
	c.MinServers = cmp.Or(c.MinServers, 1)
	c.ReloadTime = cmp.Or(c.ReloadTime, DefaultReloadTime)
	c.StopTime = cmp.Or(c.StopTime, DefaultStopTime)
	return &proxy{c}, faults
}

// checkRunning checks what is needed to start, stop and reload it.
func (c Config) checkRunning() (faults []error) {
	c.Program = cmp.Or(c.Program, DefaultProgram)
	c.Config = cmp.Or(c.Config, DefaultConfig)
	c.Systemctl = cmp.Or(c.Systemctl, DefaultSystemctl)
	fault := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	switch {
	case c.Unit == "" && c.PIDFile == "":
		fault(errors.New("unit: required where systemd runs HAProxy (haproxy.service), else pid_file"))
	case c.Unit != "" && c.PIDFile != "":
		fault(errors.New("unit and pid_file: either systemd runs it or carpd: remove one of them"))
	case c.Unit != "":
		fault(command.CheckPath(c.Systemctl))
		if strings.HasPrefix(c.Unit, "-") {
			fault(fmt.Errorf("unit %q: no name of a unit", c.Unit))
		}
	}
	fault(command.CheckPath(c.Program))
	for _, file := range []struct{ key, path string }{{"pid_file", c.PIDFile}, {"config", c.Config}, {"candidate", c.Candidate}} {
		if file.path != "" && !filepath.IsAbs(file.path) {
			fault(fmt.Errorf("%s: %q is no absolute path", file.key, file.path))
		}
	}
	if c.Candidate != "" && (filepath.Dir(c.Candidate) != filepath.Dir(c.Config) || c.Candidate == c.Config) {
		fault(fmt.Errorf("candidate: it takes the place of %s by being renamed: name another file in %s", c.Config, filepath.Dir(c.Config)))
	}
	return faults
}

// checkAddress refuses what is neither a path nor HOST:PORT. Empty is for others to judge.
func checkAddress(at string) error {
	if at == "" || filepath.IsAbs(at) {
		return nil
	}
	if host, port, err := net.SplitHostPort(at); err != nil || host == "" || port == "" {
		return fmt.Errorf("%q is neither an absolute path nor HOST:PORT", at)
	}
	return nil
}

// isName reports whether HAProxy would take it as the name of a proxy. Names are put into
// commands of the runtime API, where a blank or a semicolon would mean something.
func isName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.:", r))
	})
}
