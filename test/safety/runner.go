package safety

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/carpd/carpd/test/lab"
)

// Run is what one run of a row found. Times are in milliseconds and begin with the
// fault.
type Run struct {
	Daemon string  `json:"daemon"`
	Row    string  `json:"row"`
	Number int     `json:"number"`
	Nodes  int     `json:"nodes"`
	Phase  float64 `json:"phase"` // of the fault, in intervals after an advert

	Two        float64 `json:"two_holders_ms"`
	TwoOpen    bool    `json:"two_holders_open,omitempty"` // there still were at the end
	None       float64 `json:"no_holder_ms"`
	NoneOpen   bool    `json:"no_holder_open,omitempty"`
	Outage     float64 `json:"outage_ms"`
	OutageOpen bool    `json:"outage_open,omitempty"`
	Healed     float64 `json:"outage_after_heal_ms"` // of it, what came after the fault was mended; -1: it was not
	Takeovers  int     `json:"takeovers"`            // all of them
	False      int     `json:"false_takeovers"`

	Sent    int     `json:"flood_packets,omitzero"`
	Watched float64 `json:"watched_ms"`      // from the fault to the end
	Gap     float64 `json:"gap_ms"`          // the longest time between two questions
	Again   int     `json:"again,omitzero"`  // how often it was made before in vain
	Late    bool    `json:"late,omitempty"`  // the gap says that the machine was busy
	Error   string  `json:"error,omitempty"` // the rest says nothing
}

// runner makes one run.
type runner struct {
	ctx     context.Context
	site    *site
	daemon  Daemon
	row     Row
	setting Setting

	fault  int64
	mended int64 // 0: not
	harms  []harm
	sent   int // by a flood
}

// tries is how often a run is made that does not come to rest before its fault, or in
// which the observer was late: the machine was busy, and nothing can be said of anybody.
const tries = 3

// tolerable is the longest gap between two questions that is no reason to make a run
// again.
func tolerable(interval time.Duration) time.Duration { return max(interval/8, 40*time.Millisecond) }

// try makes one run on a LAN of its own.
func (p *Plan) try(ctx context.Context, d Daemon, row Row, number int) Run {
	random := rand.New(rand.NewPCG(p.Seed, hash(row.Name)+uint64(number)))
	run := Run{Daemon: d.Name, Row: row.Name, Number: number, Nodes: 2 + number%2, Phase: random.Float64(), Healed: -1}
	for ; run.Again < tries; run.Again++ {
		run.Error = ""
		r := &runner{ctx: ctx, daemon: d, row: row, setting: newSetting(d.Interval, run.Nodes, row.shared())}
		var failed error
		err := lab.Run("safety", nil, func(t lab.TB) { failed = r.run(t, p, &run) })
		if failed == nil {
			failed = err
		}
		if failed != nil {
			run.Error = failed.Error()
		}
		run.Late = run.Gap > ms(tolerable(d.Interval))
		if failed == nil && !run.Late || ctx.Err() != nil {
			break
		}
	}
	run.Again = min(run.Again, tries-1)
	return run
}

// hash makes a number of a name, so that rows have phases of their own.
func hash(name string) (h uint64) {
	for _, c := range []byte(name) {
		h = h*131 + uint64(c)
	}
	return h << 16
}

// run makes the LAN, the fault and the figures.
func (r *runner) run(t lab.TB, p *Plan, run *Run) error {
	r.site = newSite(r.ctx, t, r.setting, r.row, r.daemon.Paths, p.Seed)
	rested, err := r.site.settle(r.daemon)
	if err == nil && !rested {
		err = fmt.Errorf("safety: %s did not come to rest", r.daemon.Name)
	}
	if err != nil {
		return err
	}
	if r.row.alone {
		p.floods.Lock()
		defer p.floods.Unlock()
		if rested, err := r.site.rest(patience); err != nil || !rested {
			return errors.Join(fmt.Errorf("safety: %s did not come to rest again", r.daemon.Name), err)
		}
	}
	if err = r.inflict(run.Phase); err == nil {
		err = r.linger()
	}
	if err != nil {
		return err
	}
	r.tell(run, stamp())
	return nil
}

// inflict waits for the phase of the interval and lets the row do its work.
func (r *runner) inflict(phase float64) error {
	interval := int64(r.setting.Interval)
	at := r.site.observer.lastAdvert(0) + int64(phase*float64(interval))
	for soon := stamp() + int64(5*time.Millisecond); at < soon; {
		at += interval
	}
	sleepUntil(at)
	r.fault = stamp()
	return r.row.play(r)
}

// during harms the master for a while.
func (r *runner) during(d time.Duration, begin, end func()) error {
	r.harm(0)
	begin()
	if err := r.pass(d); err != nil {
		return err
	}
	r.mended = stamp()
	for i := range r.harms {
		r.harms[i].to = r.mended
	}
	end()
	return nil
}

// harm notes that something is done to a node from now on.
func (r *runner) harm(node int) { r.harms = append(r.harms, harm{node: node, from: stamp()}) }

func (r *runner) pass(d time.Duration) error { return lab.Pass(r.ctx, d) }

// stuckLimit is how long a client that got no answer is waited for: an entry of the
// kernel's neighbour table lives for up to 45 s, and then some questions.
const stuckLimit = 60 * time.Second

// linger watches for a while after all was done: until the slowest node must have
// noticed, and then until the client is answered, stuckLimit at most.
func (r *runner) linger() error {
	enough := r.setting.down()
	if r.mended == 0 { // long enough to tell what ends from what does not
		enough += 2 * r.setting.Interval
	}
	if r.row.alone { // the silence that it may make ends an interval after it
		enough = 3 * r.setting.Interval / 2
	}
	if err := r.pass(enough + 500*time.Millisecond); err != nil {
		return err
	}
	if r.site.client.answered(stamp() - int64(openOutage)) {
		return nil
	}
	if _, err := await(r.ctx, stuckLimit, func() bool { return r.site.client.answered(stamp() - int64(openOutage)) }); err != nil {
		return err
	}
	return r.pass(2 * openOutage) // so that the end of it is seen
}

// tell makes the figures of a run that ended at an instant. The last answers may be
// on their way.
func (r *runner) tell(run *Run, end int64) {
	end -= int64(settle)
	samples, adverts := r.site.observer.heardSince(r.fault - int64(10*r.setting.Interval))
	var all []held
	for _, s := range samples {
		all = append(all, hold(s, r.fault, end))
	}
	h := worst(all)
	run.Two, run.TwoOpen, run.None, run.NoneOpen, run.Gap = ms(h.two), h.stillTwo, ms(h.none), h.stillNo, ms(h.gap)
	answers := r.site.client.taken()
	out, open := outage(answers, r.fault, end)
	run.Outage, run.OutageOpen, run.Watched, run.Sent = ms(out), open, ms(time.Duration(end-r.fault)), r.sent
	if r.mended != 0 {
		after, _ := outage(answers, r.mended, end)
		run.Healed = ms(after)
	}
	for _, t := range takeovers(adverts, r.harms, r.setting.down()) {
		if t.at <= r.fault {
			continue
		}
		run.Takeovers++
		if t.wrong {
			run.False++
		}
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
