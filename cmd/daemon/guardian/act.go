package guardian

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/vip"
)

// deed is what was done in one go.
type deed struct {
	names             []string // of the instances
	killed            bool     // the hooks
	addresses, bowOut int
	sessions          int // that were ended
	took              time.Duration
	failed            error
}

// words says it in one sentence, "" if nothing was done and nothing failed.
func (d *deed) words(why string) string {
	if len(d.names) == 0 && d.failed == nil {
		return ""
	}
	if len(d.names) == 0 {
		return d.failed.Error()
	}
	const most = 8
	names := strings.Join(d.names[:min(most, len(d.names))], " ")
	if len(d.names) > most {
		names += fmt.Sprintf(" and %d more", len(d.names)-most)
	}
	hooks := ""
	if d.killed {
		hooks = "hooks killed, "
	}
	text := fmt.Sprintf("%s: %s%d addresses off and %d bow-outs sent for %s within %v, %d sessions ended",
		why, hooks, d.addresses, d.bowOut, names, d.took.Round(10*time.Microsecond), d.sessions)
	if d.failed != nil {
		text += ", not without trouble: " + d.failed.Error()
	}
	return text
}

const (
	// severFirst is how long the addresses stay on, so that clients can still be told
	// that their sessions are over; severRest what may follow when they are off.
	severFirst = 5 * time.Millisecond
	severRest  = 200 * time.Millisecond
)

// sever ends sessions with addresses that go. That it cannot be done, or not in time,
// keeps nothing else from being done.
func (g *guardian) sever(most time.Duration, all []vip.Removal) int {
	if len(all) == 0 {
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	n, _ := g.remover.Sever(ctx, all...)
	return n
}

// act does what is due at now. A permit that is renewed in this moment is left alone;
// from the others on no renewal counts.
func (g *guardian) act(now carp.Instant, gone bool, slots []int, sights []sight) (d deed) {
	turned := carp.Instant(g.page.word(wordTurn).Load())
	var removals []vip.Removal
	var bowOuts []farewell
	hooks := gone // of a dead daemon all are orphans, also those of a backup
	for n, s := range sights {
		v := judge(now, gone, turned, s)
		hooks = hooks || v.hooks
		if !v.clear {
			continue
		}
		if s.until != taken && !g.page.until(slots[n]).CompareAndSwap(int64(s.until), int64(taken)) {
			continue // renewed, or withdrawn
		}
		w := g.wards[slots[n]]
		d.names = append(d.names, w.about.Name)
		removals = append(removals, w.removal)
		d.addresses += w.removal.Len()
		if v.bow {
			bowOuts = append(bowOuts, farewell{w.about.BowOuts, s.until.Add(s.margin)})
		}
	}
	switch {
	case hooks && gone:
		d.killed = g.hooks.kill()
	case hooks:
		d.killed = g.hooks.end()
	}
	d.sessions = g.sever(severFirst, removals)
	if d.failed = g.remover.Remove(removals...); d.failed == nil {
		g.bow(bowOuts, &d)
	}
	d.took = link.Now().Sub(now)
	d.sessions += g.sever(severRest, removals)
	return d
}

// farewell is the bow-outs of one instance, and until when they may be sent.
type farewell struct {
	parcels []link.Parcel
	until   carp.Instant
}

// bow sends bow-outs. Those who hear one take over at once: so it is called when the
// addresses are known to be gone, and what has become too late meanwhile is not sent.
func (g *guardian) bow(all []farewell, d *deed) {
	for _, f := range all {
		if link.Now() >= f.until {
			continue
		}
		for _, p := range f.parcels {
			if err := g.outlet.Send(p); err != nil {
				d.failed = errors.Join(d.failed, fmt.Errorf("guardian: send a bow-out: %w", err))
				continue
			}
			d.bowOut++
		}
	}
}
