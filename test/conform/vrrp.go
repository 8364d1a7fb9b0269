package conform

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// MaxVRRPDuration bounds a run with a speaker of VRRP.
const MaxVRRPDuration = 12 * time.Minute

// VRRPConfig is the virtual router that the speaker under test is in. It must be
// alone in it, and may be in any state when RunVRRP begins.
type VRRPConfig struct {
	Interface string        // where the speaker is heard
	Version   uint8         // 2 or 3
	VRID      uint8         // 1 to 255
	Priority  uint8         // the speaker's, MinPriority to MaxPriority
	Interval  time.Duration // between its adverts: whole seconds for version 2, centiseconds for version 3, MinInterval to MaxInterval
	Addresses []netip.Addr  // those of its adverts, in their order; of one family, IPv4 for version 2
	Password  string        // version 2: at most 8 bytes; empty is none

	// Restart, if not nil, ends the speaker if it runs and starts it with another
	// priority, all else as configured. Stop, if not nil, ends it in order. Without
	// them the rows that need them are not tested. The speaker runs with Priority
	// again at the end if there is no Stop. They are called by one goroutine, and
	// an error ends the run.
	Restart func(ctx context.Context, priority uint8) error
	Stop    func(ctx context.Context) error

	// Quick watches for shorter times and leaves out what takes long.
	Quick bool
	// Progress, if not nil, is given each row as it is done, by one goroutine.
	Progress func(Row)
}

// What can be tested: of priorities there must be better and worse ones, and an
// interval must be longer than what a moment's standstill costs, or a run takes
// too long.
const (
	MinPriority = 3
	MaxPriority = 252
	MinInterval = 50 * time.Millisecond
	MaxInterval = 3 * time.Second
)

func (c *VRRPConfig) validate() error {
	var faults []error
	fault := func(format string, a ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, a...)...))
	}
	unit := 10 * time.Millisecond
	switch c.Version {
	case 2:
		unit = time.Second
	case 3:
	default:
		fault("VRRP version %d: use 2 or 3", c.Version)
	}
	if c.Interface == "" {
		fault("no interface")
	}
	if c.VRID == 0 {
		fault("vrid 0: use 1 to 255")
	}
	if c.Priority < MinPriority || c.Priority > MaxPriority {
		fault("priority %d: give the speaker one from %d to %d, so that there are better and worse ones", c.Priority, MinPriority, MaxPriority)
	}
	if c.Interval < MinInterval || c.Interval > MaxInterval || c.Interval%unit != 0 {
		fault("interval %v: use %v to %v, a multiple of %v", c.Interval, max(MinInterval, unit), MaxInterval, unit)
	}
	if len(c.Password) > 8 || c.Password != "" && c.Version != 2 {
		fault("a password of %d bytes: version 2 has at most 8, version 3 none", len(c.Password))
	}
	return errors.Join(append(faults, c.validateAddresses())...)
}

func (c *VRRPConfig) validateAddresses() error {
	if len(c.Addresses) == 0 {
		return fmt.Errorf("%w: no addresses: give those of the speaker's adverts, in their order", ErrConfig)
	}
	var faults []error
	for _, a := range c.Addresses {
		switch {
		case !a.IsValid() || a.IsUnspecified() || a.IsMulticast():
			faults = append(faults, fmt.Errorf("%w: address %v: not an address that a host can have", ErrConfig, a))
		case a.Unmap().Is6() != c.Addresses[0].Unmap().Is6():
			faults = append(faults, fmt.Errorf("%w: address %v: a virtual router has one family", ErrConfig, a))
		case a.Unmap().Is6() && c.Version == 2:
			faults = append(faults, fmt.Errorf("%w: address %v: version 2 is for IPv4", ErrConfig, a))
		}
	}
	return errors.Join(faults...)
}

// skew and down are the speaker's times for a master's interval (RFC 9568 section
// 6.1; RFC 3768 section 6.1, where the skew has nothing to do with it).
func (c *VRRPConfig) skew(interval time.Duration) time.Duration {
	if c.Version == 2 {
		interval = time.Second
	}
	return time.Duration(256-int(c.Priority)) * interval / 256
}

func (c *VRRPConfig) down(interval time.Duration) time.Duration { return 3*interval + c.skew(interval) }

// RunVRRP tests a speaker of VRRP and returns what it did. What is said of Run
// holds for it too, but that it takes a minute with an interval of 100 ms and six
// with one of a second.
func RunVRRP(ctx context.Context, c VRRPConfig) (Report, error) {
	if err := c.validate(); err != nil {
		return Report{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, MaxVRRPDuration, fmt.Errorf("conform: not done after %v", MaxVRRPDuration))
	defer cancel()
	c.Addresses = slices.Clone(c.Addresses)
	for i, a := range c.Addresses {
		c.Addresses[i] = a.Unmap().WithZone("")
	}
	w, err := open(c.Interface)
	if err != nil {
		return Report{}, err
	}
	t := newVRRPTester(ctx, c, w)
	defer w.listen(t.log.add)()
	begin := time.Now()
	if err := t.find(); err != nil {
		return Report{}, err
	}
	err = t.run()
	if ctx.Err() != nil {
		return Report{}, fmt.Errorf("conform: %w", context.Cause(ctx))
	}
	return t.finish(begin), err
}

// VRRPRows lists what RunVRRP tries with a version of VRRP over IPv4 or IPv6, in
// the order of the report, with the rules and without a result.
func VRRPRows(version uint8, ipv6 bool) (all []Row) {
	for _, r := range vrrpRules(version, ipv6) {
		all = append(all, r.empty())
	}
	return all
}
