package carp

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// Compat chooses whose rules are followed where implementations differ.
type Compat uint8

const (
	// CompatNone is our own choice of rules, listed in docs/protocol.md. It works
	// in one group with every other implementation.
	CompatNone Compat = iota
	// CompatBSD decides exactly as FreeBSD and NetBSD do, their weaknesses
	// included: two equal masters both yield, nothing is said when yielding, a bow-out
	// of anybody is obeyed at once, one master-down timer a family. On a planned
	// stop it bows out, as NetBSD does.
	CompatBSD
)

// Families says whether the two address families of a group share a fate.
type Families uint8

const (
	// FamiliesShared keeps one master-down time: hearing the master on either
	// family is hearing it.
	FamiliesShared Families = iota
	// FamiliesEach keeps one for each family, as the BSDs do.
	FamiliesEach
)

// Limits and defaults. Those of the protocol are FreeBSD's (ip_carp.c).
const (
	MaxAdvBase       = 255
	MaxAdvSkew       = 254
	MaxDemotedSkew   = 240 // an effective advskew is never advertised as more (carp_prepare_ad)
	MaxPassphrase    = 20  // bytes; the BSDs' ifconfig uses the first 19 of them
	MaxAddresses     = 4096
	MaxPeers         = 64
	MaxRolling       = 3 // digests of earlier configurations that are still in use
	DefaultGrace     = 100 * time.Millisecond
	DefaultRoll      = 10 * time.Minute
	sendErrorLimit   = 3   // FreeBSD carp_send_ad_error, CARP_SENDAD_MAX_ERRORS
	sendErrorDemote  = 240 // net.inet.carp.senderr_demotion_factor
	sendErrorHeal    = 30 * time.Second
	failureHold      = 10 * time.Second // first hold after a failed takeover; doubles
	failureHoldLimit = 10 * time.Minute
	failureDemote    = 240
	handoverDemote   = 240
	announcePace     = 200 * time.Millisecond // between two announcements because of another master; a quarter of long intervals
	contestLeast     = time.Second            // a contest lasts as long after the last advert of the other master
	slowRounds       = 3                      // VRRP: adverts that carry a longer interval before this node keeps to it
	permitMargin     = 100 * time.Millisecond // for taking the addresses off; a tenth of short times

	// DefaultReleaseBudget is how long letting go may take: what a planned stop
	// costs at most.
	DefaultReleaseBudget = 900 * time.Millisecond
)

// Config describes one virtual router. The zero value of each field is its
// default, but VHID and Addresses are required.
type Config struct {
	Protocol   Protocol
	VHID       uint8        // 1 to 255; VRRP calls it VRID
	AdvBase    uint8        // CARP: seconds; 0 needs AdvSkew > 0 (OpenBSD)
	AdvSkew    uint8        // CARP: 1/256 seconds, 0 to 254; above 240 it is sent as 240
	Passphrase []byte       // CARP: HMAC-SHA1 key, at most 20 bytes; empty is a key of zeroes. VRRP2: text password, at most 8 bytes; empty is none
	Addresses  []netip.Addr // CARP: the shared addresses of both families, in any order. VRRP: those in the advert, of one family
	Peers      []netip.Addr // unicast peers; none: multicast
	// Paths are further ways for the same adverts. Packets over any of them count, and
	// those of one round count once. Not with CompatBSD.
	Paths []Path
	// PeerTTL bounds the TTL of what single peers send. What has no entry is not
	// bounded, since a peer may be routed. VRRP only.
	PeerTTL map[netip.Addr]TTLBounds

	Priority uint8         // VRRP: 1 to 254, 255 for the owner of the addresses; 0: DefaultPriority
	Interval time.Duration // VRRP: between adverts; whole seconds for version 2, centiseconds for version 3; 0: DefaultInterval
	Checksum Checksum      // VRRP3 over IPv4: the form that is sent

	Preempt      bool          // take over from a slower master
	PreemptDelay time.Duration // not within this time after the link came up
	// PreemptGrace is how long the addresses stay down after preempting, for the
	// old master to let go. It ends at the old master's farewell. 0: DefaultGrace;
	// negative: none.
	PreemptGrace time.Duration
	StartupDelay time.Duration // hold INIT for this time after the engine's first link up
	StartGate    bool          // hold INIT until Ready, too: what the last run left is not settled yet

	// Resources is how many resources move with the role, of which the members of a
	// sealed group are told.
	Resources uint8
	// ReleaseBudget bounds RELEASING; when it is over the node leaves without a
	// bow-out. 0: DefaultReleaseBudget.
	ReleaseBudget time.Duration

	Compat   Compat
	Families Families      // CompatBSD implies FamiliesEach
	Roll     time.Duration // how long an old digest stays in use after a change; 0: DefaultRoll; negative: not at all
	// Leased says that the addresses carry a kernel lifetime: the interval between
	// adverts is then never longer than AdvBase, so that the lease can be renewed
	// in time. The advertised values are unchanged.
	Leased  bool
	Guarded bool // Effects.Ask before the first permit of an epoch

	NodeID uint8 // 1 to 255, 0 if none was given: part of the counter
	// ClockOffset is what has to be added to an Instant to get the time since
	// 2020-01-01 00:00 UTC: the group clock of which counters and epochs are made.
	ClockOffset time.Duration
	// SavedClock is up to where earlier runs have reserved the group clock: this one
	// begins there, and refuses what is not later. 0 means that nothing was saved.
	// Like ClockOffset it counts at the start only.
	SavedClock uint64
	Replay     Replay        // CARP: which adverts may be recordings; CompatBSD has none
	Window     time.Duration // ReplaySealed: how far behind the group clock an advert may be; 0: DefaultWindow

	MinEpoch Epoch         // the highest epoch known from earlier runs
	Rand     func() uint64 // nil: math/rand/v2
}

// ErrConfig is wrapped by every error that Validate finds.
var ErrConfig = errors.New("carp: bad configuration")

// Validate reports all faults at once, joined, each wrapping ErrConfig.
func (c *Config) Validate() error {
	var faults []error
	fault := func(format string, a ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, a...)...))
	}
	if c.VHID == 0 {
		fault("vhid 0: use 1 to 255, the same on all nodes of the group")
	}
	switch c.Protocol {
	case CARP:
		c.validateCARP(fault)
	case VRRP2, VRRP3:
		c.validateVRRP(fault)
	default:
		fault("%v: use CARP, VRRP2 or VRRP3", c.Protocol)
	}
	if len(c.Addresses) == 0 {
		fault("no addresses: a group needs at least one")
	}
	if len(c.Addresses) > MaxAddresses {
		fault("%d addresses: at most %d", len(c.Addresses), MaxAddresses)
	}
	if len(c.Peers) > MaxPeers {
		fault("%d peers: at most %d", len(c.Peers), MaxPeers)
	}
	c.validatePaths(fault)
	for i, a := range c.Addresses {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
			fault("address %v: not an address that a host can have", a)
		}
		if slices.Contains(c.Addresses[:i], a) {
			fault("address %v: given twice", a)
		}
	}
	for _, p := range c.Peers {
		if !p.IsValid() || p.IsUnspecified() || p.IsMulticast() {
			fault("peer %v: not a unicast address", p)
		}
	}
	return errors.Join(faults...)
}

// validateCARP reports what is wrong with the settings that only CARP has.
func (c *Config) validateCARP(fault func(string, ...any)) {
	if c.AdvSkew > MaxAdvSkew {
		fault("advskew %d: use 0 to %d", c.AdvSkew, MaxAdvSkew)
	}
	if c.AdvBase == 0 && c.AdvSkew == 0 {
		fault("advbase 0 with advskew 0: give an advskew, or an advbase of 1 or more")
	}
	if len(c.Passphrase) > MaxPassphrase {
		fault("passphrase of %d bytes: at most %d are used by any implementation", len(c.Passphrase), MaxPassphrase)
	}
	if c.Replay > ReplayOff {
		fault("%v: use ReplayWindow, ReplaySealed or ReplayOff", c.Replay)
	}
	if c.Replay == ReplaySealed && c.NodeID == 0 {
		fault("replay sealed without a node id: give each node one of its own, 1 to 255")
	}
	if c.Replay == ReplaySealed && c.Compat == CompatBSD {
		fault("replay sealed with compat bsd: the kernels' counters carry no clock")
	}
	if c.Window != 0 && (c.Window < MinWindow || c.Window > MaxWindow) {
		fault("window %v: use %v to %v", c.Window, MinWindow, MaxWindow)
	}
	if c.Priority != 0 || c.Interval != 0 || c.Checksum != 0 || len(c.PeerTTL) > 0 {
		fault("priority, interval, checksum or TTL of peers: these are VRRP's")
	}
}

// validateVRRP does the same for VRRP.
func (c *Config) validateVRRP(fault func(string, ...any)) {
	if c.Replay != ReplayWindow || c.Window != 0 {
		fault("replay or window: these are CARP's; VRRP has nothing against recordings")
	}
	if c.AdvBase != 0 || c.AdvSkew != 0 || c.Compat != CompatNone || c.Families != FamiliesShared {
		fault("advbase, advskew, compat or families: these are CARP's; use priority and interval")
	}
	family, most := c.Family(), MaxAdvertIPv4
	if family == IPv6 {
		most = MaxAdvertIPv6
	}
	if len(c.Addresses) > most {
		fault("%d addresses in an advert: at most %d fit", len(c.Addresses), most)
	}
	for _, a := range c.Addresses {
		if FamilyOf(a) != family {
			fault("address %v: VRRP has one family in an instance, and the first address is %v", a, family)
		}
	}
	for _, p := range c.Peers {
		if FamilyOf(p) != family {
			fault("peer %v: not %v, the family of the addresses", p, family)
		}
	}
	switch every := c.AdvertInterval(); c.Protocol {
	case VRRP2:
		if family == IPv6 {
			fault("IPv6 with VRRP version 2: use version 3")
		}
		if every < time.Second || every > MaxInterval2 || every%time.Second != 0 {
			fault("interval %v: version 2 has whole seconds, 1 s to %v; version 3 has fractions", every, MaxInterval2)
		}
		if len(c.Passphrase) > MaxPassword {
			fault("passphrase of %d bytes: a text password has at most %d", len(c.Passphrase), MaxPassword)
		}
	case VRRP3:
		if every < MinInterval || every > MaxInterval3 || every%centisecond != 0 {
			fault("interval %v: use %v to %v in steps of %v", every, MinInterval, MaxInterval3, centisecond)
		}
		if len(c.Passphrase) > 0 {
			fault("passphrase: VRRP version 3 has no authentication")
		}
		if c.Checksum != ChecksumPseudo && c.Checksum != ChecksumRFC9568 {
			fault("checksum %v: %v and %v can be sent", c.Checksum, ChecksumPseudo, ChecksumRFC9568)
		}
	}
}

// complete fills in the defaults that the engine computes with.
func (c *Config) complete() {
	if c.Compat == CompatBSD {
		c.Families = FamiliesEach
	}
	if c.Protocol.VRRP() {
		c.Interval = c.AdvertInterval()
		if c.Priority == 0 {
			c.Priority = DefaultPriority
		}
	}
}

func (c *Config) grace() time.Duration {
	switch {
	case c.Compat == CompatBSD || c.PreemptGrace < 0:
		return 0
	case c.PreemptGrace == 0:
		return DefaultGrace
	}
	return c.PreemptGrace
}

func (c *Config) roll() time.Duration {
	switch {
	case c.Roll < 0:
		return 0
	case c.Roll == 0:
		return DefaultRoll
	}
	return c.Roll
}

func (c *Config) releaseBudget() time.Duration {
	if c.ReleaseBudget <= 0 {
		return DefaultReleaseBudget
	}
	return c.ReleaseBudget
}

func (c *Config) random() uint64 {
	if c.Rand != nil {
		return c.Rand()
	}
	return rand.Uint64()
}

// has reports whether the group has an address of family f.
func (c *Config) has(f Family) bool {
	return slices.ContainsFunc(c.Addresses, func(a netip.Addr) bool { return FamilyOf(a) == f })
}

// timing is what the configuration alone would advertise.
func (c *Config) timing() timing { return timing{c.AdvBase, c.AdvSkew} }
