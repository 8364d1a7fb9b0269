package glb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/carpd/carpd/hooks"
)

func init() {
	hooks.Register("glb", New)
	hooks.RegisterResource("glb", NewResource)
	hooks.RegisterMonitor("glb", NewMonitor)
}

// Limits and defaults of Config.
const (
	DefaultDrainTime = 10 * time.Second
	MaxDestinations  = 64 // of which getinfo, in its buffer of 8 KiB, certainly tells all
)

// Config is the configuration of a GLB. Control is required, and so are Destinations but
// for a monitor.
type Config struct {
	Control      string        `yaml:"control"`      // HOST:PORT of glbd's option -c
	Destinations []Destination `yaml:"destinations"` // of a resource: while it is promoted; of a notification: from its phase on
	Standby      []Destination `yaml:"standby"`      // while a resource is demoted; what only one of the lists has is drained in the other role
	DrainTime    time.Duration `yaml:"drain_time"`   // how long connections may take to end; default DefaultDrainTime
	Statistics   bool          `yaml:"statistics"`   // of a monitor: also ask getstat, which sets the counters to 0 for everybody
	MinServed    int           `yaml:"min_served"`   // with fewer destinations of positive weight it is unfit; default 1
}

// New returns a notification: it sets Destinations at its phase.
func New(c Config) (hooks.Hook, error) {
	b, faults := open(c)
	faults = append(faults, c.checkDestinations())
	if len(c.Standby) > 0 || c.MinServed != 0 || c.Statistics {
		faults = append(faults, errors.New("standby, min_served, statistics: a notification has none: remove on, or the keys"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return hook{b}, nil
}

// NewResource returns a resource: GLB sends connections to Destinations while it is
// promoted.
func NewResource(c Config) (hooks.Resource, error) {
	b, faults := open(c)
	faults = append(faults, c.checkDestinations())
	if c.Statistics {
		faults = append(faults, errors.New("statistics: only a monitor asks for them: remove the key"))
	}
	b.Destinations, b.Standby = drainRest(c.Destinations, c.Standby), drainRest(c.Standby, c.Destinations)
	if same(b.Destinations, b.Standby) {
		faults = append(faults, errors.New("destinations, standby: they are the same, so nothing tells which role it is in"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return &resource{balancer: b}, nil
}

// NewMonitor returns a monitor: whether GLB has somewhere to send connections to.
func NewMonitor(c Config) (hooks.Monitor, error) {
	b, faults := open(c)
	if len(c.Destinations) > 0 || len(c.Standby) > 0 || c.DrainTime != 0 {
		faults = append(faults, errors.New("destinations, standby, drain_time: a monitor changes nothing: remove them"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return monitor{b}, nil
}

func open(c Config) (*balancer, []error) {
	var faults []error
	if c.Control == "" {
		faults = append(faults, errors.New("control: required: HOST:PORT of glbd's option -c"))
	} else if host, port, err := net.SplitHostPort(c.Control); err != nil || host == "" || port == "" {
		faults = append(faults, fmt.Errorf("control: %q is not HOST:PORT", c.Control))
	}
	if c.DrainTime < 0 {
		faults = append(faults, errors.New("drain_time: use more than 0"))
	}
	if c.MinServed < 0 {
		faults = append(faults, errors.New("min_served: use 1 or more"))
	}
	for key, list := range map[string][]Destination{"destinations": c.Destinations, "standby": c.Standby} {
		if len(list) > MaxDestinations {
			faults = append(faults, fmt.Errorf("%s: %d are too many: at most %d", key, len(list), MaxDestinations))
		}
		seen := make(map[string]bool)
		for _, d := range list {
			if seen[d.Addr.String()] {
				faults = append(faults, fmt.Errorf("%s: %v is given twice", key, d.Addr))
			}
			seen[d.Addr.String()] = true
		}
	}
	if c.DrainTime == 0 {
		c.DrainTime = DefaultDrainTime
	}
	c.MinServed = max(c.MinServed, 1)
	return &balancer{c}, faults
}

func (c Config) checkDestinations() error {
	if len(c.Destinations) == 0 {
		return errors.New("destinations: required: a list of IP:PORT[:WEIGHT]")
	}
	return nil
}

// drainRest adds to a list the addresses that only the other one has, drained: so each
// list says of each address what is wished, and a table fits one of them at most.
func drainRest(list, other []Destination) []Destination {
	all := slices.Clone(list)
	for _, d := range other {
		if !slices.ContainsFunc(list, func(e Destination) bool { return e.Addr == d.Addr }) {
			all = append(all, Destination{Addr: d.Addr})
		}
	}
	return all
}

// same reports whether two lists ask for the same of the same addresses.
func same(a, b []Destination) bool {
	byAddr := make(map[string]float64)
	for _, d := range b {
		byAddr[d.Addr.String()] = d.Weight
	}
	for _, d := range a {
		w, there := byAddr[d.Addr.String()]
		if !there || w != d.Weight && !(w < 0 && d.Weight < 0) {
			return false
		}
	}
	return len(a) == len(b)
}

// balancer is one glbd.
type balancer struct{ Config }

func (b *balancer) look(ctx context.Context) (table, error) {
	c, err := b.dial(ctx)
	if err != nil {
		return table{}, err
	}
	defer c.close()
	return c.info()
}

// fit says whether clients would be served.
func (b *balancer) fit(t table) (hooks.Health, string) {
	text := fmt.Sprintf("%d of %d destinations get connections, %d are open", t.served(), len(t.rows), t.conns)
	switch {
	case t.served() < b.MinServed:
		return hooks.Unfit, text
	case t.most > 0 && t.conns >= t.most:
		return hooks.Degraded, text + ", which is its maximum"
	}
	return hooks.Healthy, text
}

// hook is the notification.
type hook struct{ *balancer }

// Run sets the destinations. It implements hooks.Hook.
func (h hook) Run(ctx context.Context, _ hooks.Event) error {
	return h.apply(ctx, h.Destinations, hooks.Mark)
}

// monitor is what only watches.
type monitor struct{ *balancer }

// Monitor says whether clients would be served. It implements hooks.Monitor.
func (m monitor) Monitor(ctx context.Context) (r hooks.Report, err error) {
	c, err := m.dial(ctx)
	if errors.Is(err, errDown) {
		return hooks.Report{Health: hooks.Unfit, Text: err.Error()}, nil
	}
	if err != nil {
		return r, err
	}
	defer c.close()
	t, err := c.info()
	if err != nil {
		return r, err
	}
	r.Health, r.Text = m.fit(t)
	if m.Statistics {
		s, err := c.stat()
		if err != nil {
			return r, err
		}
		r.Text += "; " + s.String()
	}
	return r, nil
}

// resource is a GLB that takes part.
type resource struct {
	*balancer
	told atomic.Pointer[[]Destination] // what was brought about last, nil: nothing yet
}

// Promote has it send connections to Destinations. It implements hooks.Resource.
func (r *resource) Promote(ctx context.Context, _ hooks.Event) error {
	return r.become(ctx, r.Destinations, hooks.MarkNoReturn)
}

// Demote has it send connections to Standby. It implements hooks.Resource.
func (r *resource) Demote(ctx context.Context, _ hooks.Event) error {
	err := r.become(ctx, r.Standby, hooks.Mark)
	if errors.Is(err, errDown) {
		return nil // what does not run sends nothing anywhere
	}
	return err
}

func (r *resource) become(ctx context.Context, wished []Destination, mark markFunc) error {
	r.told.Store(nil)
	if err := r.apply(ctx, wished, mark); err != nil {
		return err
	}
	r.told.Store(&wished)
	return nil
}

// Monitor says in which role it is, and whether it could serve. A glbd that has forgotten
// what it was told is told again. It implements hooks.Resource.
func (r *resource) Monitor(ctx context.Context) (hooks.Report, error) {
	t, err := r.look(ctx)
	if errors.Is(err, errDown) {
		return hooks.Report{Role: hooks.RoleDemoted, Health: hooks.Unfit, Text: err.Error()}, nil
	}
	if err != nil {
		return hooks.Report{}, err
	}
	if told := r.told.Load(); told != nil && len(t.wrong(*told)) > 0 {
		return r.remind(ctx, *told)
	}
	return r.report(t), nil
}

// remind sets the destinations again, without waiting for connections to end.
func (r *resource) remind(ctx context.Context, told []Destination) (hooks.Report, error) {
	c, err := r.dial(ctx)
	if err != nil {
		return hooks.Report{}, err
	}
	defer c.close()
	if err := c.remove(ctx, told); err != nil {
		return hooks.Report{}, err
	}
	t, err := c.info()
	if err != nil {
		return hooks.Report{}, err
	}
	report := r.report(t)
	report.Health = max(report.Health, hooks.Degraded)
	report.Text = "glbd had other destinations than it was told, as after a restart: it was told again"
	hooks.Logger(ctx).Warn(report.Text)
	return report, nil
}

// report tells the role from the table.
func (r *resource) report(t table) (report hooks.Report) {
	report.Health, report.Text = r.fit(t)
	switch {
	case len(t.wrong(r.Destinations)) == 0:
		report.Role = hooks.RolePromoted
	case len(t.wrong(r.Standby)) > 0:
		report.Text = "its destinations are those of neither role: " + report.Text
	case t.busy(r.Standby) > 0:
		report.Text = fmt.Sprintf("%d connections are being drained", t.busy(r.Standby))
	default:
		report.Role, report.Health = hooks.RoleDemoted, hooks.Healthy
	}
	return report
}
