package sim

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"github.com/carpd/carpd/carp"
)

// Mismatch is a setting in which one host of a VRRP group differs from the others.
// It must not make two masters: see docs/vrrp.md.
type Mismatch uint8

// The mismatches.
const (
	NoMismatch      Mismatch = iota
	OtherVersion             // VRRP version 3 among 2, or the reverse
	OtherList                // one address more
	OtherInterval            // an interval that is refused
	OtherPassword            // version 2
	LearnedInterval          // no mismatch, but an interval that the others learn: version 3
)

// drawProtocol makes some of the worlds VRRP's, and some of all unicast. It has a
// source of its own, so that the rest of the climate, and the seeds that stay CARP,
// are what they were before there was VRRP.
func (o *Options) drawProtocol(seed uint64) {
	rng := newSource(seed, "speech")
	o.Unicast = rng.IntN(6) == 0
	if rng.IntN(5) < 3 {
		return
	}
	o.Protocol, o.Interval = carp.VRRP3, time.Second
	switch rng.IntN(8) {
	case 0, 1:
		o.Protocol, o.Interval = carp.VRRP2, time.Duration(o.AdvBase)*time.Second
	case 2, 3, 4:
		o.Interval = 100 * time.Millisecond
	case 5:
		o.Interval = 10 * time.Millisecond
	}
	o.PriorityStep = uint8([]int{0, 1, 10, 60}[rng.IntN(4)])
	o.IPv6 = o.Protocol == carp.VRRP3 && (rng.IntN(3) == 0)
	o.IPv4 = !o.IPv6
	if rng.IntN(4) == 0 {
		o.Owners = 1 + rng.IntN(2)
	}
	if rng.IntN(3) == 0 {
		o.Mismatch = o.drawMismatch(rng)
	}
	o.quicken()
}

func (o *Options) drawMismatch(rng source) Mismatch {
	all := []Mismatch{OtherList, OtherInterval}
	switch {
	case o.Protocol == carp.VRRP2:
		all = append(all, OtherVersion, OtherPassword)
	case o.IPv4:
		all = append(all, OtherVersion, LearnedInterval)
	default:
		all = append(all, LearnedInterval)
	}
	return all[rng.IntN(len(all))]
}

// quicken fits hosts and network to intervals below a second. The margin of a permit
// is a tenth of the time that it lasts; nobody sets such intervals where taking an
// address off, or a packet's way, takes longer than that.
func (o *Options) quicken() {
	slower := time.Second / o.Interval
	if slower <= 1 {
		return
	}
	for _, r := range []*Range{&o.Latency, &o.LoopLate, &o.ReorderTime} {
		r.Min, r.Max = r.Min/slower, r.Max/slower
	}
	for _, r := range []*Range{&o.AddTime, &o.OffTime} {
		r.Min, r.Max = r.Min/slower/4, r.Max/slower/4
	}
	o.BreakTime /= slower // about as many adverts as in other worlds
	o.FaultEvery /= min(slower, 20)
	o.FaultTime.Max = max(o.FaultTime.Max/min(slower, 20), time.Second)
}

// vrrp turns the configuration of host i into one of VRRP.
func (o *Options) vrrp(c *carp.Config, i int, odd bool) {
	c.Protocol, c.Interval = o.Protocol, o.Interval
	c.AdvBase, c.AdvSkew, c.Passphrase = 0, 0, nil
	c.Priority = uint8(max(200-i*int(o.PriorityStep), 1))
	if i < o.Owners {
		c.Priority = carp.OwnerPriority
	}
	if o.IPv6 {
		c.Addresses = []netip.Addr{groupLinkLocal, groupIPv6}
	}
	if o.Mismatch == OtherPassword {
		c.Passphrase = []byte("s3cret")
	}
	if odd {
		o.Mismatch.differ(c)
	}
}

// differ makes one host another one.
func (m Mismatch) differ(c *carp.Config) {
	switch m {
	case OtherVersion:
		if c.Protocol == carp.VRRP2 {
			c.Protocol = carp.VRRP3
			break
		}
		c.Protocol, c.Interval = carp.VRRP2, max(c.Interval, time.Second)
	case OtherList:
		c.Addresses = append(slices.Clone(c.Addresses), c.Addresses[len(c.Addresses)-1].Next())
	case OtherInterval:
		if c.Protocol == carp.VRRP2 {
			c.Interval += time.Second
			break
		}
		_, ceiling := believed(c.Interval)
		c.Interval = ceiling + time.Second
	case OtherPassword:
		c.Passphrase = []byte("another")
	case LearnedInterval:
		c.Interval *= 3
	}
}

// believed are the bounds of an interval of version 3 that is learned (docs/vrrp.md).
func believed(own time.Duration) (floor, ceiling time.Duration) {
	return max(own/10, carp.MinInterval), max(10*own, 4*time.Second)
}

// understands reports whether h takes what other says, as one of its own group.
func (h *Host) understands(other *Host) bool {
	a, b := &h.Config, &other.Config
	if !a.Protocol.VRRP() {
		return true
	}
	floor, ceiling := believed(a.AdvertInterval())
	every := b.AdvertInterval()
	if a.Protocol == carp.VRRP2 {
		floor, ceiling = a.AdvertInterval(), a.AdvertInterval()
	}
	return a.Protocol == b.Protocol && bytes.Equal(a.Passphrase, b.Passphrase) && len(a.Addresses) == len(b.Addresses) &&
		every >= floor && every <= ceiling
}

// better reports whether h would win against other if both were master and not
// demoted, addresses aside.
func (h *Host) better(other *Host) bool {
	if h.Config.Protocol.VRRP() {
		return h.priority() > other.priority()
	}
	return h.speed() < other.speed()
}

func (h *Host) priority() uint8 {
	if h.Config.Priority == 0 {
		return carp.DefaultPriority
	}
	return h.Config.Priority
}

// preempts reports whether the host takes over from a worse master that it
// understands. The owner of the addresses always does (RFC 9568, 6.1).
func (h *Host) preempts() bool {
	return h.Config.Preempt || h.Config.Protocol.VRRP() && h.Config.Priority == carp.OwnerPriority
}

// leaves reports whether a payload of this host is a bow-out.
func (h *Host) leaves(payload []byte) bool {
	if h.Config.Protocol.VRRP() {
		return payload[2] == 0
	}
	return payload[2] == 255 && payload[5] == 255
}

// heard reports whether an engine took a packet for a sign of life of its sender.
func (h *Host) heard(drop carp.Drop) bool {
	switch drop {
	case carp.Accepted, carp.DropBowOut, carp.DropStalled, carp.DropDuplicate:
		return true
	case carp.DropVersion, carp.DropAuth, carp.DropInterval, carp.DropAddresses: // alive, but incompatible
		return h.Config.Protocol.VRRP()
	}
	return false
}
