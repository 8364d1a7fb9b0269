package sqlite

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
	"github.com/carpd/carpd/hooks/database"
	"github.com/carpd/carpd/replicator"
	"github.com/carpd/carpd/replicator/sqlite"
)

func init() { hooks.RegisterResource("sqlite", New) }

const (
	probeTime = 5 * time.Second        // what one question may take
	pause     = 100 * time.Millisecond // between two of a start
)

// Config is the configuration of one application.
type Config struct {
	database.Config

	Check    []string `yaml:"check"`     // exits with 0 when it serves
	TCP      string   `yaml:"tcp"`       // ADDRESS:PORT that takes a connection when it serves
	NotEmpty []string `yaml:"not_empty"` // tables without rows are refused
	Local    []Rows   `yaml:"local"`     // rows of which each node has its own
}

// Rows names rows of a table; without a column, all of them.
type Rows struct {
	Table  string   `yaml:"table"`
	Column string   `yaml:"column"`
	Values []string `yaml:"values"` // patterns of GLOB
}

// resource implements hooks.Resource.
type resource struct {
	c Config
	d *database.Database
}

// New returns the resource, or all faults of its configuration. It touches nothing.
func New(c Config) (hooks.Resource, error) {
	var faults []error
	fault := func(format string, a ...any) { faults = append(faults, fmt.Errorf(format, a...)) }
	if len(c.Check) == 0 && c.TCP == "" {
		fault("write check (a command that exits with 0 when it serves) or tcp: that a process was started says nothing")
	}
	if len(c.Check) > 0 {
		if err := command.CheckPath(c.Check[0]); err != nil {
			fault("check: %w", err)
		}
	}
	if c.TCP != "" {
		if _, err := netip.ParseAddrPort(c.TCP); err != nil {
			fault("tcp %q: write ADDRESS:PORT, such as 127.0.0.1:8080", c.TCP)
		}
	}
	var local []sqlite.Rows
	for i, r := range c.Local {
		if r.Table == "" || (r.Column == "") != (len(r.Values) == 0) {
			fault("local: entry %d: write table, and column with values if they are not all of its rows", i+1)
		}
		local = append(local, sqlite.Rows(r))
	}
	r := &resource{c: c}
	d, err := database.New(c.Config, database.Program{
		Rules: replicator.Rules{Kind: "sqlite", NotEmpty: c.NotEmpty}, Local: local, Ready: r.ready, Serves: r.serves,
	})
	if err := errors.Join(append(faults, err)...); err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	r.d = d
	return r, nil
}

// Promote implements hooks.Resource.
func (r *resource) Promote(ctx context.Context, ev hooks.Event) error {
	if err := r.d.Up(ctx, ev); err != nil {
		return fmt.Errorf("sqlite: promote %s: %w", r.c.Database, err)
	}
	return nil
}

// Demote implements hooks.Resource.
func (r *resource) Demote(ctx context.Context, _ hooks.Event) error {
	if err := r.d.Down(ctx); err != nil {
		return fmt.Errorf("sqlite: demote %s: %w", r.c.Database, err)
	}
	return nil
}

// Monitor implements hooks.Resource.
func (r *resource) Monitor(ctx context.Context) (hooks.Report, error) {
	report, err := r.d.Look(ctx)
	if err != nil {
		err = fmt.Errorf("sqlite: look at %s: %w", r.c.Database, err)
	}
	return report, err
}

// ready asks until the application serves.
func (r *resource) ready(ctx context.Context, _ database.Begun) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		err := r.serves(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// serves asks once.
func (r *resource) serves(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if len(r.c.Check) > 0 {
		if _, err := command.Run(ctx, command.Command{Path: r.c.Check[0], Args: slices.Clone(r.c.Check[1:]), Quiet: true}); err != nil {
			return fmt.Errorf("it does not serve: %w", err)
		}
	}
	if r.c.TCP == "" {
		return nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.c.TCP)
	if err != nil {
		return fmt.Errorf("it does not serve: %w", err)
	}
	return conn.Close()
}
