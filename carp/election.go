package carp

import (
	"bytes"
	"net/netip"
	"time"
)

// timing is a pair of advbase and advskew in wire units: the interval that an
// advert promises, and by which masters are compared.
type timing struct{ base, skew uint8 }

// units is the interval in 1/256 seconds, in which all comparisons are exact.
func (t timing) units() int { return int(t.base)*256 + int(t.skew) }

// unit is 1/256 second.
const unit = time.Second / 256

// interval is how far apart adverts are sent. 0/0 is 1/256 s (OpenBSD
// carp_send_ad).
func (t timing) interval() time.Duration { return time.Duration(max(t.units(), 1)) * unit }

// effectiveSkew is the advskew that is advertised and compared: demotion counts
// on top, and the sum stays within 0 and 240, even without demotion (FreeBSD
// DEMOTE_ADVSKEW; without the lower bound a negative demotion made two masters).
func effectiveSkew(advskew uint8, demotion int) uint8 {
	return uint8(min(max(int(advskew)+demotion, 0), MaxDemotedSkew))
}

// masterDown is how long a backup waits for an advert: 3 x advbase + advskew, with
// the configured advskew, not the demoted one (FreeBSD carp_setrun). With advbase
// 0 it is 3 x the longer of the own and the last heard interval, + advskew.
func masterDown(own, heard timing) time.Duration {
	if own.base > 0 {
		return 3*time.Duration(own.base)*time.Second + time.Duration(own.skew)*unit
	}
	longest := own
	if heard.base == 0 && heard.units() > own.units() {
		longest = heard
	}
	return 3*longest.interval() + time.Duration(own.skew)*unit
}

// fastestDown is the shortest master-down time that a backup of this group can
// have: one with advskew 0. With advbase 0 it waits for three of our intervals.
func fastestDown(own timing) time.Duration {
	if own.base > 0 {
		return 3 * time.Duration(own.base) * time.Second
	}
	return 3 * own.interval()
}

// PermitTime is how long after a successful send a node may act as master, if the
// fastest backup takes over after down: a tenth of a second less, or a tenth of the
// time if that is less. See Permit.
func PermitTime(down time.Duration) time.Duration { return down - min(permitMargin, down/10) }

// patience is how long a master may be without a successful send and still go on:
// the fastest backup's master-down time less an interval, but never so little
// that an advert which is just due counts as late. With VRRP's intervals of down to
// 10 ms an interval would be less than what machines are late by; there it lasts as
// long as the permit.
func patience(protocol Protocol, down, each time.Duration) time.Duration {
	if protocol.VRRP() {
		return PermitTime(down)
	}
	return max(down-each, (down+each)/2)
}

// MayBeLate is how late the loop of a master with this configuration may be with an
// advert before the master counts as stalled and yields. Adverts that are lost on
// their way take off nothing of it.
func (c *Config) MayBeLate() time.Duration {
	return patience(c.Protocol, c.FastestDown(), c.AdvertInterval()) - c.AdvertInterval()
}

// FastestDown is the shortest time after a master's last advert at which a
// backup of this configuration's group may take over: what a lease or a fence
// must stay below. advskew is that of the master itself.
func FastestDown(advbase, advskew uint8) time.Duration {
	return fastestDown(timing{advbase, advskew})
}

// FastestDown is the same for any protocol: VRRP's fastest backup waits three
// intervals and next to nothing, since others round their skew down.
func (c *Config) FastestDown() time.Duration {
	if c.Protocol.VRRP() {
		return 3 * c.AdvertInterval()
	}
	return FastestDown(c.AdvBase, c.AdvSkew)
}

// AdvertInterval is how far apart a master of this configuration sends adverts when
// it is not demoted.
func (c *Config) AdvertInterval() time.Duration {
	switch {
	case c.Protocol.VRRP() && c.Interval == 0:
		return DefaultInterval
	case c.Protocol.VRRP():
		return c.Interval
	case c.Leased && c.AdvBase > 0:
		return min(Interval(c.AdvBase, c.AdvSkew), time.Duration(c.AdvBase)*time.Second)
	}
	return Interval(c.AdvBase, c.AdvSkew)
}

// Interval is how far apart a master sends adverts, without a lease.
func Interval(advbase, advskew uint8) time.Duration { return timing{advbase, advskew}.interval() }

// verdict is what a node decides about an advert.
type verdict uint8

const (
	stay    verdict = iota // MASTER: stays, the other should yield
	yield                  // MASTER: the other is better
	tie                    // MASTER: equal intervals
	follow                 // BACKUP: the master lives
	preempt                // BACKUP: takes over from a slower master
	expire                 // BACKUP: takes over, the master's interval is longer than the master-down time
	outlast                // BACKUP: ignores a worse master, and takes over when the timer fires
)

// asBackup judges an advert heard by a backup: own is the effective timing, raw
// the configured one.
func asBackup(own, raw, theirs timing, preempting bool) verdict {
	switch {
	case preempting && own.units() < theirs.units():
		return preempt
	case raw.base > 0 && 3*256*int(raw.base)+int(raw.skew) < theirs.units():
		return expire
	}
	return follow
}

// lower reports whether a is lower than b as ucarp compares: the bytes as a
// little-endian number, so that the last one weighs most (packethandler compares
// the raw words of a little-endian machine). ok is false if that does not decide.
func lower(a, b netip.Addr) (is, ok bool) {
	if !usable(a) || !usable(b) || a == b {
		return false, false
	}
	x, y := a.As16(), b.As16()
	for i := len(x) - 1; i >= 0; i-- {
		if x[i] != y[i] {
			return x[i] < y[i], true
		}
	}
	return false, false
}

func usable(a netip.Addr) bool { return a.IsValid() && !a.IsUnspecified() }

// winsTie reports whether this node stays master against an equal one: the lower
// source address stays; without usable addresses the lower MAC does. ok is false
// if nothing tells the two apart.
func winsTie(local Local, p *Packet) (wins, ok bool) {
	if wins, ok = lower(ownAddress(local, p), p.Src); ok {
		return wins, true
	}
	if p.SrcMAC == (MAC{}) || virtual(p.SrcMAC) {
		return false, false
	}
	order := bytes.Compare(local.MAC[:], p.SrcMAC[:])
	return order < 0, order != 0
}

// virtual reports whether m belongs to a group and not to a host: 00:00:5e:00:01
// of the BSDs and VRRP, 00:00:5e:00:02 of VRRP over IPv6, 00:00:5e:00:00 of ucarp.
func virtual(m MAC) bool { return m[0] == 0 && m[1] == 0 && m[2] == 0x5e && m[3] == 0 && m[4] <= 2 }
