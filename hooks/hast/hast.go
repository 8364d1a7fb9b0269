package hast

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/hooks/command"
	"github.com/carpd/carpd/hooks/volume"
)

func init() { hooks.RegisterResource("hast", New) }

// Defaults of Config.
const (
	DefaultHastctl = "/sbin/hastctl"
	DefaultState   = "/var/lib/carpd/hast-" // and the name of the resource, and .json
	DefaultDevice  = "/dev/hast/"           // and the name of the resource
	// DefaultWorkerTimeout is above the 20 s after which the worker of a secondary notices
	// that the primary is silent.
	DefaultWorkerTimeout = 25 * time.Second
	// DefaultRoleTimeout is above the 20 s for which a new primary asks another one that
	// says it is primary.
	DefaultRoleTimeout  = 25 * time.Second
	DefaultDrainTimeout = 10 * time.Second
	DefaultPeerTimeout  = 5 * time.Second
	DefaultAlone        = 30 * time.Second
)

// cleanMoment is how long a handover waits for a moment in which nothing is dirty.
const cleanMoment = 2 * time.Second

// Config is the configuration of one resource of HAST.
type Config struct {
	Resource      string           `yaml:"resource"`       // as in hast.conf; required
	Hastctl       string           `yaml:"hastctl"`        // the program
	Conf          string           `yaml:"conf"`           // hast.conf, if it is elsewhere
	Device        string           `yaml:"device"`         // that a primary has
	State         string           `yaml:"state"`          // file with the record of the copy
	Peer          []string         `yaml:"peer"`           // command that prints hastctl list (and dump) of the other node
	PeerTimeout   time.Duration    `yaml:"peer_timeout"`   // of that command
	Force         bool             `yaml:"force"`          // promote a copy of which nothing is known
	Alone         time.Duration    `yaml:"alone"`          // see record.fit
	WorkerTimeout time.Duration    `yaml:"worker_timeout"` // for the secondary's worker to end
	RoleTimeout   time.Duration    `yaml:"role_timeout"`   // for a change of role to be seen
	DrainTimeout  time.Duration    `yaml:"drain_timeout"`  // of an orderly release, for dirty to be 0
	Volume        volume.Config    `yaml:"volume"`         // what is on the device
	Services      []volume.Service `yaml:"services"`       // what runs on it, in the order of starting
}

// resource implements hooks.Resource.
type resource struct {
	c Config
	v *volume.Volume
}

// New returns the resource, or all faults of its configuration. It touches nothing.
func New(c Config) (hooks.Resource, error) {
	var faults []error
	fault := func(format string, a ...any) { faults = append(faults, fmt.Errorf("hast: "+format, a...)) }
	if c.Resource == "" || strings.ContainsAny(c.Resource, " \t\n/:") || strings.HasPrefix(c.Resource, "-") || c.Resource == "all" {
		fault("resource %q: write the name of one resource of hast.conf", c.Resource)
	}
	c.Hastctl = cmp.Or(c.Hastctl, DefaultHastctl)
	c.Device = cmp.Or(c.Device, DefaultDevice+c.Resource)
	c.State = cmp.Or(c.State, DefaultState+c.Resource+".json")
	for key, path := range map[string]string{"conf": c.Conf, "device": c.Device, "state": c.State} {
		if path != "" && !filepath.IsAbs(path) {
			fault("%s %q: write an absolute path", key, path)
		}
	}
	if err := command.CheckPath(c.Hastctl); err != nil {
		fault("hastctl: %w", err)
	}
	switch {
	case len(c.Peer) > 0:
		if err := command.CheckPath(c.Peer[0]); err != nil {
			fault("peer: %w", err)
		}
	case !c.Force:
		fault("peer is required: a command that prints hastctl list of the other node. A secondary cannot say whether its copy is whole; force: true promotes it all the same")
	}
	for _, err := range []error{
		hooks.FillTimeout("peer_timeout", &c.PeerTimeout, DefaultPeerTimeout),
		hooks.FillTimeout("alone", &c.Alone, DefaultAlone),
		hooks.FillTimeout("worker_timeout", &c.WorkerTimeout, DefaultWorkerTimeout),
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

// Promote makes this node primary, and the file system and its services usable. It
// implements hooks.Resource.
func (h *resource) Promote(ctx context.Context, _ hooks.Event) error {
	if err := hooks.Mark(ctx, "gate"); err != nil {
		return err
	}
	now, err := h.list(ctx)
	if err != nil {
		return hooks.TryAgain(err)
	}
	if err := h.gate(ctx, now); err != nil {
		return err
	}
	if now.Role != Primary || !volume.IsDevice(h.c.Device) {
		if err := h.becomePrimary(ctx); err != nil {
			return err
		}
	}
	return h.v.Up(ctx, h.c.Device)
}

// gate returns nil if this copy may be used and the other node does not use its own.
func (h *resource) gate(ctx context.Context, now Status) error {
	peer := h.ask(ctx)
	if peer != nil && peer.Role == Primary {
		return hooks.TryAgain(fmt.Errorf("hast: promote %s: it is primary on the other node, which answers", h.c.Resource))
	}
	if now.Role == Primary {
		return nil // by this plan, begun before, or by the hand of an operator
	}
	r, err := h.load()
	if err != nil {
		return err
	}
	r = r.next(time.Now(), now, peer, h.wasSplit(ctx, peer)).wanted(time.Now())
	if err := h.save(r); err != nil {
		return err
	}
	if err := r.fit(h.c.Alone); err != nil {
		if !h.trusted() {
			return hooks.Refuse(fmt.Errorf("hast: promote %s: the copy of this node is not known to be whole: %w. If it is the right one, make the file %s",
				h.c.Resource, err, h.trustFile()))
		}
		hooks.Logger(ctx).Warn("a copy that is not known to be whole is promoted, as told", "resource", h.c.Resource, "because", err)
	}
	return nil
}

// becomePrimary waits for the last words of the other node, and changes the role.
func (h *resource) becomePrimary(ctx context.Context) error {
	if err := hooks.Mark(ctx, "wait for the secondary's worker"); err != nil {
		return err
	}
	if err := h.workerGone(ctx); err != nil {
		return err
	}
	if err := hooks.MarkNoReturn(ctx, "primary"); err != nil {
		return err
	}
	if _, err := h.hastctl(ctx, "role", Primary, h.c.Resource); err != nil {
		return err
	}
	if err := h.await(ctx, Primary, func() bool { return volume.IsDevice(h.c.Device) }); err != nil {
		return err
	}
	if err := os.Remove(h.trustFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("hast: promote %s: %w", h.c.Resource, err)
	}
	return nil
}

// workerGone waits until nothing of the other node can arrive any more: the worker of a
// secondary lives as long as its connection.
func (h *resource) workerGone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.c.WorkerTimeout)
	defer cancel()
	late := fmt.Sprintf("hast: promote %s: the worker of the secondary still runs after %v: the other node is connected", h.c.Resource, h.c.WorkerTimeout)
	return volume.Await(ctx, late, func() (bool, error) {
		now, err := h.list(ctx)
		return err == nil && (now.Role != Secondary || now.Worker == 0), stop(ctx, err)
	})
}

// stop returns an error only while there is time: the end of the time has words of its own.
func stop(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// await waits until the role is seen, and what belongs to it. A role of init is a worker
// that has failed.
func (h *resource) await(ctx context.Context, role string, also func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, h.c.RoleTimeout)
	defer cancel()
	late := fmt.Sprintf("hast: %s %s: not seen after %v, though hastctl has said yes", role, h.c.Resource, h.c.RoleTimeout)
	return volume.Await(ctx, late, func() (bool, error) {
		now, err := h.list(ctx)
		if err != nil {
			return false, stop(ctx, err)
		}
		if now.Role == Init {
			return false, fmt.Errorf("hast: %s %s: the role went back to init: the worker has failed, see the log of hastd", role, h.c.Resource)
		}
		return now.Role == role && also(), nil
	})
}

// Demote stops what runs on the device, unmounts it and makes this node secondary. It
// implements hooks.Resource.
func (h *resource) Demote(ctx context.Context, ev hooks.Event) error {
	if err := h.v.Down(ctx, h.c.Device); err != nil {
		return err // the role is kept: to change it now would take the device away under the file system
	}
	now, err := h.list(ctx)
	if err != nil {
		return hooks.TryAgain(err)
	}
	if now.Role == Secondary {
		return nil
	}
	if now.Role == Primary {
		if err := h.leave(ctx, ev); err != nil {
			return err
		}
	}
	if err := hooks.Mark(ctx, "secondary"); err != nil {
		return err
	}
	if _, err := h.hastctl(ctx, "role", Secondary, h.c.Resource); err != nil {
		return err
	}
	return h.await(ctx, Secondary, func() bool { return !volume.IsDevice(h.c.Device) })
}

// leave keeps the record of a node that was primary, and waits, where the role is given
// away in order, until the other node has all that was written.
func (h *resource) leave(ctx context.Context, ev hooks.Event) error {
	peer := h.ask(ctx)
	r, err := h.load()
	if err != nil {
		return err
	}
	r = r.next(time.Now(), Status{Role: Primary}, peer, h.wasSplit(ctx, peer))
	if peer != nil && peer.Role == Primary {
		r.Whole, r.Why = false, "both nodes were primary"
	}
	if err := h.save(r); err != nil {
		hooks.Logger(ctx).Warn("the record of this copy is not kept: an operator will be asked for", "err", err)
	}
	if !inOrder(ev.Reason) {
		return nil
	}
	if err := hooks.Mark(ctx, "drain"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, h.c.DrainTimeout)
	defer cancel()
	if err := h.drain(ctx, "hast: release "+h.c.Resource); err != nil {
		return fmt.Errorf("%w: it is unmounted, stays primary here, and is not given to a copy that lacks something", err)
	}
	return nil
}

// drained returns why the other node does not have all that was written here.
func drained(now Status) error {
	switch {
	case now.Status != complete:
		return fmt.Errorf("the status is %q: the other node is not connected", now.Status)
	case !now.Counted:
		return errors.New("hastctl does not say how much is dirty")
	case now.Dirty > 0:
		return fmt.Errorf("%d bytes are dirty", now.Dirty)
	}
	return nil
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

// MayLeave refuses a handover that would be to a copy that lacks something. While there
// are writes something is dirty for moments: one without is enough. It implements
// hooks.Leaver.
func (h *resource) MayLeave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cleanMoment)
	defer cancel()
	return h.drain(ctx, "hast: hand "+h.c.Resource+" over")
}

// drain waits until the other node has all that was written here.
func (h *resource) drain(ctx context.Context, what string) error {
	var lacks error
	err := volume.Await(ctx, what, func() (bool, error) {
		now, err := h.list(ctx)
		if err != nil {
			return false, stop(ctx, err)
		}
		lacks = drained(now)
		return lacks == nil, nil
	})
	if err != nil && lacks != nil {
		return fmt.Errorf("%s: %w", what, lacks)
	}
	return err
}

// Monitor implements hooks.Resource.
func (h *resource) Monitor(ctx context.Context) (hooks.Report, error) {
	now, err := h.list(ctx)
	if err != nil {
		return hooks.Report{}, err
	}
	seen, err := h.v.Look(ctx, h.c.Device)
	if err != nil {
		return hooks.Report{}, err
	}
	peer := h.ask(ctx)
	bothWrote := h.wasSplit(ctx, peer)
	r, err := h.load()
	if err != nil {
		return hooks.Report{}, err
	}
	r = r.next(time.Now(), now, peer, bothWrote)
	if err := h.save(r); err != nil {
		return hooks.Report{}, err
	}
	if err = r.fit(h.c.Alone); err != nil && h.trusted() {
		err = nil
	}
	return report(now, seen, volume.IsDevice(h.c.Device), bothWrote, err), nil
}

// report judges what was seen. unfit is why this copy must not be promoted.
func report(now Status, seen volume.Seen, device, bothWrote bool, unfit error) hooks.Report {
	r := hooks.Report{Text: fmt.Sprintf("%s, %s", now.Role, seen.Words())}
	switch {
	case now.Role == Primary && device && seen.Mounted && seen.Fault == "":
		if seen.Stopped == 0 { // else it is in between
			r.Role = hooks.RolePromoted
		}
		switch {
		case len(seen.Silent) > 0:
			r.Health = hooks.Unfit
		case bothWrote:
			r.Health, r.Text = hooks.Degraded, r.Text+"; split brain: the other node has written alone too, and takes nothing"
		case now.Status != complete:
			r.Text += fmt.Sprintf("; not connected, %d bytes dirty: there is no other copy", now.Dirty)
		case now.Dirty > 0:
			r.Text += fmt.Sprintf("; %d bytes dirty", now.Dirty)
		}
	case now.Role == Secondary && !seen.Mounted && len(seen.Running) == 0:
		r.Role = hooks.RoleDemoted
		if unfit != nil {
			r.Health, r.Text = hooks.Unfit, "secondary: "+unfit.Error()
		}
	case seen.Mounted:
		r.Health = hooks.Unfit
		if now.Role != Primary || !device {
			r.Text = fmt.Sprintf("mounted without its device: the role is %s", now.Role)
		}
	}
	return r
}
