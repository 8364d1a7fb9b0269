package drbd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
	"github.com/carpd/carpd/hooks/volume"
)

func init() { hooks.RegisterResource("drbd", New) }

// Defaults of Config.
const (
	DefaultDrbdadm      = "/usr/sbin/drbdadm"
	DefaultDrbdsetup    = "/usr/sbin/drbdsetup"
	DefaultRoleTimeout  = 30 * time.Second
	DefaultDrainTimeout = 10 * time.Second
)

const (
	answerTime  = 10 * time.Second // of drbdsetup
	maxAnswer   = 1 << 20
	cleanMoment = 2 * time.Second // that a handover waits for a moment in which nothing is out of sync
)

// Exit codes of drbdadm that say what to do.
const (
	exitRefused = 11 // state change refused: another Primary, or held open
	exitNoData  = 17 // needs access to UpToDate data
)

// Config is the configuration of one resource of DRBD.
type Config struct {
	Resource     string           `yaml:"resource"`      // as in drbd.conf; required
	Device       string           `yaml:"device"`        // default /dev/drbd/by-res/RESOURCE/0
	Drbdadm      string           `yaml:"drbdadm"`       // the program
	Drbdsetup    string           `yaml:"drbdsetup"`     // likewise
	RoleTimeout  time.Duration    `yaml:"role_timeout"`  // for a change of role, and for it to be seen
	DrainTimeout time.Duration    `yaml:"drain_timeout"` // of an orderly release, for another node to have all
	Volume       volume.Config    `yaml:"volume"`        // what is on the device
	Services     []volume.Service `yaml:"services"`      // what runs on it, in the order of starting
}

// resource implements hooks.Resource.
type resource struct {
	c Config
	v *volume.Volume
}

// New returns the resource, or all faults of its configuration. It touches nothing.
func New(c Config) (hooks.Resource, error) {
	var faults []error
	fault := func(format string, a ...any) { faults = append(faults, fmt.Errorf("drbd: "+format, a...)) }
	if c.Resource == "" || strings.ContainsAny(c.Resource, " \t\n/") || strings.HasPrefix(c.Resource, "-") || c.Resource == "all" {
		fault("resource %q: write the name of one resource of drbd.conf", c.Resource)
	}
	c.Device = cmp.Or(c.Device, "/dev/drbd/by-res/"+c.Resource+"/0")
	c.Drbdadm = cmp.Or(c.Drbdadm, DefaultDrbdadm)
	c.Drbdsetup = cmp.Or(c.Drbdsetup, DefaultDrbdsetup)
	if !filepath.IsAbs(c.Device) {
		fault("device %q: write an absolute path", c.Device)
	}
	for _, path := range []string{c.Drbdadm, c.Drbdsetup} {
		if err := command.CheckPath(path); err != nil {
			fault("%w: install drbd-utils, or set drbdadm and drbdsetup", err)
		}
	}
	for _, err := range []error{
		hooks.FillTimeout("role_timeout", &c.RoleTimeout, DefaultRoleTimeout),
		hooks.FillTimeout("drain_timeout", &c.DrainTimeout, DefaultDrainTimeout),
	} {
		if err != nil {
			fault("%w", err)
		}
	}
	v, err := volume.New(c.Volume, c.Services)
	if err := errors.Join(append(faults, err)...); err != nil {
		return nil, err
	}
	return &resource{c, v}, nil
}

// status asks DRBD.
func (r *resource) status(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	out, err := command.Run(ctx, command.Command{Path: r.c.Drbdsetup, Args: []string{"status", r.c.Resource, "--json"}, Keep: maxAnswer, Quiet: true})
	if err != nil {
		return Status{}, fmt.Errorf("drbd: status: %w", err)
	}
	return ParseStatus(out, r.c.Resource)
}

// Promote makes this node Primary, and the file system and its services usable. It
// implements hooks.Resource.
func (r *resource) Promote(ctx context.Context, _ hooks.Event) error {
	if err := hooks.Mark(ctx, "gate"); err != nil {
		return err
	}
	now, err := r.status(ctx)
	if err != nil {
		return hooks.TryAgain(err)
	}
	if err := gate(now); err != nil {
		return err
	}
	if now.Role != primary || !volume.IsDevice(r.c.Device) {
		if err := hooks.MarkNoReturn(ctx, "primary"); err != nil {
			return err
		}
		if err := r.change(ctx, "primary"); err != nil {
			return err
		}
		if err := r.await(ctx, primary, func() bool { return volume.IsDevice(r.c.Device) }); err != nil {
			return err
		}
	}
	return r.v.Up(ctx, r.c.Device)
}

// gate returns nil if this node may become Primary, or go on as it.
func gate(now Status) error {
	if node := now.primaryElsewhere(); node != "" {
		return hooks.TryAgain(fmt.Errorf("drbd: promote %s: it is Primary on %s", now.Name, node))
	}
	if err := now.quorum(); err != nil {
		return hooks.TryAgain(fmt.Errorf("drbd: promote %s: %w", now.Name, err))
	}
	if now.Role == primary {
		return nil // DRBD has decided that already
	}
	if err := now.unfit(); err != nil {
		return hooks.Refuse(fmt.Errorf("drbd: promote %s: the copy of this node may not be used: %w", now.Name, err))
	}
	return nil
}

// change asks for a role. What is refused for now may be granted later: another node is
// not taken for dead yet.
func (r *resource) change(ctx context.Context, role string) error {
	ctx, cancel := context.WithTimeout(ctx, r.c.RoleTimeout)
	defer cancel()
	_, err := command.Run(ctx, command.Command{Path: r.c.Drbdadm, Args: []string{role, r.c.Resource}})
	if err == nil {
		return nil
	}
	err = fmt.Errorf("drbd: %s %s: %w", role, r.c.Resource, err)
	exit, ok := errors.AsType[*command.ExitError](err)
	switch {
	case ok && exit.Code == exitNoData:
		return hooks.Refuse(err)
	case ok && exit.Code == exitRefused:
		return hooks.TryAgain(err)
	}
	return err
}

// await waits until a role is seen, and what belongs to it.
func (r *resource) await(ctx context.Context, role string, also func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, r.c.RoleTimeout)
	defer cancel()
	late := fmt.Sprintf("drbd: %s %s: not seen after %v, though drbdadm has said yes", role, r.c.Resource, r.c.RoleTimeout)
	return volume.Await(ctx, late, func() (bool, error) {
		now, err := r.status(ctx)
		if err != nil && ctx.Err() == nil {
			return false, err
		}
		return err == nil && now.Role == role && also(), nil
	})
}

// Demote stops what runs on the device, unmounts it and makes this node Secondary. It
// implements hooks.Resource.
func (r *resource) Demote(ctx context.Context, ev hooks.Event) error {
	if err := r.v.Down(ctx, r.c.Device); err != nil {
		return err // the role is kept as long as somebody holds the device
	}
	now, err := r.status(ctx)
	if err != nil {
		return hooks.TryAgain(err)
	}
	if now.Role == secondary {
		return nil
	}
	if inOrder(ev.Reason) {
		if err := hooks.Mark(ctx, "drain"); err != nil {
			return err
		}
		if err := r.drain(ctx, r.c.DrainTimeout, "drbd: release "+r.c.Resource); err != nil {
			return fmt.Errorf("%w: it is unmounted, stays Primary here, and is not given to a copy that lacks something", err)
		}
	}
	if err := hooks.Mark(ctx, "secondary"); err != nil {
		return err
	}
	if err := r.change(ctx, "secondary"); err != nil {
		return err
	}
	return r.await(ctx, secondary, func() bool { return true })
}

// inOrder reports whether a release was asked for: there is no other master yet, and there
// need not be one.
func inOrder(r carp.Reason) bool {
	switch r {
	case carp.ReasonHandover, carp.ReasonOperator, carp.ReasonRequested, carp.ReasonStopping:
		return true
	}
	return false
}

// drain waits until another node has all that was written here.
func (r *resource) drain(ctx context.Context, most time.Duration, what string) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	var lacks error
	err := volume.Await(ctx, what, func() (bool, error) {
		now, err := r.status(ctx)
		if err != nil && ctx.Err() == nil {
			return false, err
		}
		if err == nil {
			lacks = now.drained()
		}
		return err == nil && lacks == nil, nil
	})
	if err != nil && lacks != nil {
		return fmt.Errorf("%s: %w", what, lacks)
	}
	return err
}

// MayLeave refuses a handover to a copy that lacks something. It implements hooks.Leaver.
func (r *resource) MayLeave(ctx context.Context) error {
	return r.drain(ctx, cleanMoment, "drbd: hand "+r.c.Resource+" over")
}

// Monitor implements hooks.Resource.
func (r *resource) Monitor(ctx context.Context) (hooks.Report, error) {
	now, err := r.status(ctx)
	if err != nil {
		return hooks.Report{}, err
	}
	seen, err := r.v.Look(ctx, r.c.Device)
	if err != nil {
		return hooks.Report{}, err
	}
	return report(now, seen), nil
}

// report judges what was seen.
func report(now Status, seen volume.Seen) hooks.Report {
	r := hooks.Report{Text: fmt.Sprintf("%s, %s", now.Role, seen.Words())}
	worse := func(h hooks.Health, why error) {
		if why != nil {
			r.Health, r.Text = max(r.Health, h), r.Text+"; "+why.Error()
		}
	}
	switch {
	case now.Role == primary && seen.Mounted && seen.Fault == "":
		if seen.Stopped == 0 {
			r.Role = hooks.RolePromoted
		}
		if len(seen.Silent) > 0 || now.Suspended {
			r.Health = hooks.Unfit
		}
		worse(hooks.Unfit, now.quorum())
		worse(hooks.Degraded, now.unfit()) // it goes on with the disk of another node, or alone
		worse(hooks.Healthy, now.drained())
	case now.Role == secondary && !seen.Mounted && len(seen.Running) == 0:
		r.Role = hooks.RoleDemoted
		worse(hooks.Unfit, now.unfit())
	case seen.Mounted:
		r.Health = hooks.Unfit
	}
	return r
}
