package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/carpd/carpd/hooks"
)

// Volume is a file system on a device that comes and goes, and the services on it. Its
// methods are not called at the same time. It holds nothing that needs closing.
type Volume struct {
	c        Config
	services []Service
}

// New returns a Volume, or all faults of its configuration. It touches nothing.
func New(c Config, services []Service) (*Volume, error) {
	faults := c.fill()
	services = slices.Clone(services)
	if len(services) > MaxServices {
		faults = append(faults, fmt.Errorf("services: %d of them, at most %d", len(services), MaxServices))
	}
	for i := range services {
		faults = append(faults, services[i].fill()...)
		for _, other := range services[:i] {
			if other.Name == services[i].Name {
				faults = append(faults, fmt.Errorf("service %q: the name is taken: give it another name", other.Name))
			}
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return &Volume{c, services}, nil
}

// Mount returns the directory on which it is mounted.
func (v *Volume) Mount() string { return v.c.Mount }

// Up checks and mounts the device and starts the services, as the package says.
func (v *Volume) Up(ctx context.Context, device string) error {
	bare, err := v.bare()
	if err != nil {
		return err
	}
	if bare {
		if err := v.stopBare(ctx); err != nil {
			return err
		}
		if err := v.check(ctx, device); err != nil {
			return err
		}
		if err := v.mount(ctx, device); err != nil {
			return err
		}
	} else if err := v.mounted(device); err != nil {
		return err
	}
	for _, s := range v.services {
		if err := v.start(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// Down stops the services and unmounts, as the package says. When it returns nil nobody
// has the device, and its role may be changed.
func (v *Volume) Down(ctx context.Context, device string) error {
	for _, s := range slices.Backward(v.services) {
		if err := hooks.Mark(ctx, "stop "+s.Name); err != nil {
			return err
		}
		// A service that cannot be stopped holds the file system: the next step says so.
		if err := v.stop(ctx, s); err != nil {
			return err
		}
	}
	if err := hooks.Mark(ctx, "unmount"); err != nil {
		return err
	}
	if err := v.unmount(ctx); err != nil {
		return err
	}
	return v.free(ctx, device)
}

// Seen is what Look has found.
type Seen struct {
	Mounted bool     // something is mounted on the directory
	Fault   string   // of the mount: "mounted read-only"; "" if it is sound, or none
	Silent  []string // what the services that do not answer say
	Running []string // the services of which something runs
	Stopped int      // how many others there are
}

// Look says how it is, and changes nothing.
func (v *Volume) Look(ctx context.Context, device string) (s Seen, err error) {
	bare, err := v.bare()
	if err != nil {
		return s, err
	}
	s.Mounted = !bare
	if s.Mounted {
		if err := v.mounted(device); err != nil {
			s.Fault = err.Error()
		}
	}
	for _, one := range v.services {
		if err := v.serves(ctx, one); err == nil {
			s.Running = append(s.Running, one.Name)
			continue
		} else if s.Mounted {
			s.Silent = append(s.Silent, err.Error())
		}
		running, err := v.runs(ctx, one)
		if err != nil {
			return s, err
		}
		if running {
			s.Running = append(s.Running, one.Name)
		} else {
			s.Stopped++
		}
	}
	return s, nil
}

// Words is what was seen, for an operator.
func (s Seen) Words() string {
	switch {
	case s.Fault != "":
		return s.Fault
	case len(s.Silent) > 0:
		return strings.Join(s.Silent, "; ")
	case s.Mounted:
		return "mounted"
	case len(s.Running) > 0:
		return strings.Join(s.Running, ", ") + " runs on the bare directory"
	}
	return "not mounted"
}

// bare reports whether nothing is mounted on the directory.
func (v *Volume) bare() (bool, error) {
	all, err := readMounts()
	return len(at(all, v.c.Mount)) == 0, err
}

// stopBare stops services that run on the bare directory: they would write there, out of
// sight of everybody.
func (v *Volume) stopBare(ctx context.Context) error {
	for _, s := range slices.Backward(v.services) {
		running, err := v.runs(ctx, s)
		if err != nil {
			return err
		}
		if !running {
			continue
		}
		if err := hooks.Mark(ctx, "stop "+s.Name); err != nil {
			return err
		}
		hooks.Logger(ctx).Warn("service runs while its file system is not mounted: it is stopped first", "service", s.Name)
		if err := v.stop(ctx, s); err != nil {
			return err
		}
	}
	return nil
}
