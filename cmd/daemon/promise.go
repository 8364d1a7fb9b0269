package daemon

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/carpd/carpd/cmd/daemon/api"
)

// writePromise writes, for carpd check, what holds for the addresses of a node that is
// dead, hung or frozen, and what that asks of a living one.
func writePromise(w io.Writer, p *plan) {
	l := p.lease
	if l.Valid == 0 {
		fmt.Fprintf(w, "  lease: none. A daemon that is dead, hung or frozen leaves its addresses up.\n")
	} else {
		fmt.Fprintf(w, "  lease: %v, renewed each %v. %s\n", l.Valid, l.Renew, upper(l.Note))
	}
	text := p.fenceText()
	if p.fenced {
		text = "on, where the kernel has nf_tables" + strings.TrimPrefix(text, "on")
	}
	fmt.Fprintf(w, "  fence: %s\n", text)
	if l.Valid == 0 && !p.fenced {
		return
	}
	fmt.Fprintf(w, "  reckoned against: %s\n", p.reckonedAgainst())
	fmt.Fprintf(w, "  late: the daemon may be late by %v before it loses its own addresses\n", round(p.mayBeLate()))
}

// mayBeLate is how late the loop may be before this node, as master, loses its
// addresses: to the kernel, or because it yields.
func (p *plan) mayBeLate() time.Duration {
	late := p.carp.MayBeLate()
	if p.lease.Valid > 0 {
		late = min(late, p.lease.Slack())
	}
	return late
}

// reckonedAgainst says which backup takes over first, and what this node sends until
// then, whatever it weighs.
func (p *plan) reckonedAgainst() string {
	down, interval := p.carp.FastestDown(), p.carp.AdvertInterval()
	switch {
	case p.VRRP():
		return fmt.Sprintf("%v, the master-down time of the fastest backup (priority 254); this node advertises each %v, whatever its priority", down, interval)
	case p.AdvBase == 0:
		return fmt.Sprintf("%v, the master-down time of the fastest backup (advskew 1): three of our intervals of %v; demoted this node is slower, and so is the backup",
			round(down), round(interval))
	}
	return fmt.Sprintf("%v, the master-down time of the fastest backup (advbase %d, advskew 0); this node advertises each %v, whatever its advskew and demotion",
		down, p.AdvBase, interval)
}

// leaseStatus is what status says of the same.
func (p *plan) leaseStatus() *api.Lease {
	l := p.lease
	note := l.Note
	if p.fenced {
		note = p.fencePromise().Note // the lease is not what keeps the promise
	}
	return &api.Lease{
		ValidMS: l.Valid.Milliseconds(), RenewMS: l.Renew.Milliseconds(), Promised: p.promised(), Note: note,
		GoneMS: l.Gone.Milliseconds(), MasterDownMS: p.carp.FastestDown().Milliseconds(), SlackMS: p.mayBeLate().Milliseconds(),
	}
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// upper makes a sentence of a clause.
func upper(s string) string { return string(s[0]-'a'+'A') + s[1:] + "." }
