package carp

import (
	"cmp"
	"fmt"
	"slices"
)

// CheckReconfigure returns the error that Reconfigure would return.
func (e *Engine) CheckReconfigure(now Instant, c Config) error {
	_, err := e.prepare(now, &c)
	return err
}

// Reconfigure changes everything but Protocol, VHID and NodeID of a running engine. The
// state stays. After a change of passphrase or addresses the earlier digest stays
// in use for Config.Roll beside the new one: a master sends each advert under
// both, and either is accepted. On an error nothing is changed.
func (e *Engine) Reconfigure(now Instant, c Config) (Effects, error) {
	rolling, err := e.prepare(now, &c)
	if err != nil {
		return Effects{}, err
	}
	stalled := e.begin(now)
	pace := e.interval()
	changed := c.timing() != e.cfg.timing() || c.Priority != e.cfg.Priority || c.Interval != e.cfg.Interval ||
		c.Protocol.VRRP() && !slices.Equal(c.Addresses, e.cfg.Addresses)
	familiesChanged := c.Families != e.cfg.Families || c.has(IPv4) != e.cfg.has(IPv4) || c.has(IPv6) != e.cfg.has(IPv6)
	rolled := len(rolling) != len(e.rolling)
	if e.slowing = 0; e.state == Master && c.Interval > pace {
		e.faster, e.slowing = pace, slowRounds
	}
	e.cfg, e.secret, e.router, e.rolling = c, newSecret(&c), newRouter(&c), rolling
	e.armRoll()
	e.guard.adopt(&c)
	switch {
	case stalled:
	case e.state == Backup && familiesChanged:
		e.armDown(now.Add(e.masterDown(bid{})))
	case e.state == Backup:
		e.hasten(now)
	case e.state == Master && (changed || familiesChanged || rolled):
		e.advertise(now)
	}
	return e.finish(), nil
}

// prepare completes c and returns the earlier digests that stay in use beside
// that of c, or why c cannot be taken.
func (e *Engine) prepare(now Instant, c *Config) ([]secret, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Protocol != e.cfg.Protocol || c.VHID != e.cfg.VHID || c.NodeID != e.cfg.NodeID {
		return nil, fmt.Errorf("%w: protocol, vhid or node id of a running instance changed: remove it and add it anew", ErrConfig)
	}
	if c.Protocol.VRRP() && c.Family() != e.cfg.Family() {
		return nil, fmt.Errorf("%w: family of a running VRRP instance changed: remove it and add it anew", ErrConfig)
	}
	if !equalPaths(c.Paths, e.cfg.Paths) {
		return nil, fmt.Errorf("%w: paths of a running instance changed: remove it and add it anew", ErrConfig)
	}
	c.complete()
	if c.Protocol.VRRP() {
		return nil, nil // no digest
	}
	next := newSecret(c)
	mark := next.send.Sum(0)
	var kept []secret
	for _, s := range append(slices.Clone(e.rolling), e.secret) {
		if s.until == 0 {
			s.until = now.Add(c.roll())
		}
		if s.until > now && s.send.Sum(0) != mark {
			kept = append(kept, s)
		}
	}
	if len(kept) > MaxRolling {
		return nil, fmt.Errorf("%w: addresses or passphrase changed more than %d times within the roll of %v: wait for its end",
			ErrConfig, MaxRolling, c.roll())
	}
	slices.SortFunc(kept, func(a, b secret) int { return cmp.Compare(a.until, b.until) })
	return kept, nil
}

func (e *Engine) armRoll() {
	e.disarm(timerRoll)
	if len(e.rolling) > 0 {
		e.arm(timerRoll, e.rolling[0].until)
	}
}
