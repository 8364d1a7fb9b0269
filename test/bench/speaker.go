package bench

import (
	"context"
	"net/netip"
	"syscall"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// priorities of the nodes; the first is to be master.
var priorities = [nodes]uint8{200, 100} // never changed

// Group is what all members have in common. Instance n, from 1 on, has the id n and
// the address VIP(n).
type Group struct {
	Interval  time.Duration // of adverts
	Instances int           // 1 to 255
}

// Member is one node's part of a Group.
type Member struct {
	Group
	Host     *lab.Host // its interface is eth0
	Address  netip.Addr
	Priority uint8  // of VRRP, 200 or 100
	Dir      string // for its files; gone after the run
	// Excluded are further addresses of instance 1, which are not in the adverts.
	Excluded []netip.Prefix
}

// Skew is the advskew of a CARP speaker: 0 for priority 200, and 100 for 100.
func (m Member) Skew() uint8 { return 200 - m.Priority }

// Running is a Speaker that runs on a node.
type Running interface {
	// Stop asks it to leave in order. It may wait until it has left.
	Stop()
	// Signal sends a signal to the process that was started, not to those that it has
	// started itself.
	Signal(syscall.Signal)
}

// Speaker is an implementation that can be measured. It is not changed by a
// Measure, and may be used by several.
type Speaker struct {
	Name    string // as in --speakers
	Version string // for the report

	// Start starts it on a node and returns when it listens, as far as that can be
	// known.
	Start func(ctx context.Context, t lab.TB, m Member) (Running, error)
	// Silence is the theory: from a dead master's last advert to the new master's
	// first.
	Silence func(interval time.Duration) time.Duration
	// Farewell is the same for a master that said that it leaves. A negative time
	// says that it does not say so.
	Farewell func(interval time.Duration) time.Duration
	// Relieved says that another process says farewell for one that has died alone, and
	// for one that hangs before the silence is over.
	Relieved bool
	// Refuses says why it cannot be run so, or is "". Nil: it can always.
	Refuses func(g Group) string
}

// refuses says why the speaker cannot be run so, or is "".
func (s Speaker) refuses(g Group) string {
	if s.Refuses == nil {
		return ""
	}
	return s.Refuses(g)
}

// theory is what a fault is to cost, or negative.
func (s Speaker) theory(f Fault, interval time.Duration) time.Duration {
	if f == Stop || (f == Crash || f == Freeze) && s.Relieved {
		return s.Farewell(interval)
	}
	return s.Silence(interval)
}

// vrrpSilence is 3 x interval + skew of the backup (RFC 9568, 6.1).
func vrrpSilence(interval time.Duration) time.Duration { return 3*interval + vrrpSkew(interval) }

// vrrpSkew is what a backup waits after priority 0 (RFC 9568, 6.4.2).
func vrrpSkew(interval time.Duration) time.Duration {
	return interval * (256 - time.Duration(priorities[1])) / 256
}

// carpSilence is 3 x advbase + advskew/256 s of the backup (carp_setrun of the BSDs).
func carpSilence(interval time.Duration) time.Duration { return 3*interval + carpSkew }

// ucarpSilence is ucarp's: 3 x (advbase + advskew/256 s).
func ucarpSilence(interval time.Duration) time.Duration { return 3 * (interval + carpSkew) }

// carpSkew is advskew 100.
const carpSkew = 100 * time.Second / 256

// none is the farewell of those that have none.
func none(time.Duration) time.Duration { return -time.Millisecond }

// carpFarewell is what ours waits after a bow-out: advskew/10 ms.
func carpFarewell(time.Duration) time.Duration { return 10 * time.Millisecond }

// secondsOnly refuses what CARP cannot say on the wire.
func secondsOnly(g Group) string {
	if g.Interval < time.Second || g.Interval%time.Second != 0 {
		return "whole seconds only"
	}
	return ""
}
