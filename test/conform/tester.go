package conform

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"
)

// reactionLimit bounds what is waited for a speaker's answer. ucarp reads what
// arrived once a second.
const reactionLimit = 1500 * time.Millisecond

// bench is what a run of any protocol rests on. It belongs to one goroutine, but
// for log and wire.
type bench struct {
	ctx      context.Context
	wire     *wire
	log      *record
	rand     *rand.Rand
	rules    []rule
	as       Verdict // on what is the standard's
	rows     map[string]Row
	progress func(Row)
	notes    []string
}

func newBench(ctx context.Context, w *wire, rules []rule, as Verdict, progress func(Row)) bench {
	return bench{
		ctx: ctx, wire: w, rand: rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano()))),
		rules: rules, as: as, rows: map[string]Row{}, progress: progress,
	}
}

// tester is one run with a speaker of CARP.
type tester struct {
	bench
	cfg Config

	speaker  netip.Addr       // source of its adverts
	mac      net.HardwareAddr // of its interface; nil if it does not answer
	peer     netip.Addr       // the tester's usual source
	above    netip.Addr       // the addresses next to the speaker's
	below    netip.Addr
	reaction time.Duration // how long an answer may take
	interval time.Duration // between its adverts, as measured

	backup bool       // it is known to be BACKUP
	quiet  int        // mark: no advert was heard after it, while it was BACKUP
	last   netip.Addr // the source of the last advert that made it yield
}

func newTester(ctx context.Context, c Config, w *wire) *tester {
	c.Addresses = slices.Clone(c.Addresses)
	for i, a := range c.Addresses {
		c.Addresses[i] = a.Unmap().WithZone("")
	}
	t := &tester{
		bench: newBench(ctx, w, rules(), AsFreeBSD, c.Progress), cfg: c,
		reaction: reactionLimit, interval: c.interval(),
	}
	t.log = &record{key: c.Key, addrs: c.Addresses, vhid: c.VHID, tester: w.mac, more: make(chan struct{})}
	return t
}

// find waits for the speaker and learns who it is.
func (t *tester) find() error {
	limit := now().Add(t.cfg.down() + t.cfg.interval() + 2*time.Second)
	s := t.log.await(t.ctx, 0, limit, func(s *sighting) bool { return s.kind == advert && s.src.Is4() })
	switch {
	case t.ctx.Err() != nil:
		return fmt.Errorf("conform: %w", context.Cause(t.ctx))
	case s == nil && len(t.log.since(0, func(s *sighting) bool { return s.kind == forged })) > 0:
		return fmt.Errorf("%w: give the same passphrase and all of its addresses", ErrHash)
	case s == nil:
		return fmt.Errorf("%w: vhid %d on %s, for %v: is the speaker running, and on this segment?", ErrSilent, t.cfg.VHID, t.cfg.Interface, t.cfg.down())
	}
	t.speaker = s.src
	around := s.src.As4()
	around[3]++
	t.above = netip.AddrFrom4(around)
	around[3] -= 2
	t.below = netip.AddrFrom4(around)
	if t.peer = t.wire.own; !t.peer.IsValid() || t.peer == t.speaker {
		t.peer = t.above
	}
	return nil
}

// ours reports whether a sighting is an advert of the speaker over IPv4.
func (t *tester) ours(s *sighting) bool { return s.kind == advert && s.src == t.speaker }

// pause waits.
func (t *bench) pause(d time.Duration) {
	t.await(t.log.len(), d, func(*sighting) bool { return false })
}

func (t *bench) await(mark int, d time.Duration, want func(*sighting) bool) *sighting {
	return t.log.await(t.ctx, mark, now().Add(d), want)
}

// transmit sends frames and returns the instant before the first.
func (t *bench) transmit(frames ...[]byte) time.Time {
	at := now()
	for _, f := range frames {
		if err := t.wire.send(f); err != nil && t.ctx.Err() == nil {
			t.note("a packet could not be sent: " + err.Error())
		}
	}
	return at
}

// maxNotes bounds the notes of a report.
const maxNotes = 10

func (t *bench) note(text string) {
	if len(t.notes) < maxNotes && !slices.Contains(t.notes, text) {
		t.notes = append(t.notes, text)
	}
}

// say sends a good advert, over both families if the group has both, and returns
// its frame over IPv4 and when it was sent.
func (t *tester) say(src netip.Addr, base, skew uint8) ([]byte, time.Time) {
	p := t.advert(src, base, skew)
	frames := [][]byte{t.frame(p)}
	if t.cfg.has6() {
		frames = append(frames, t.frame6(p))
	}
	return frames[0], t.transmit(frames...)
}

// makeBackup sees to it that the speaker is BACKUP and has just heard 1/0 from
// the tester's usual source, whose frame it returns. It reports false if the
// speaker goes on to advertise.
func (t *tester) makeBackup() ([]byte, bool) {
	if t.backup && len(t.log.since(t.quiet, t.ours)) == 0 {
		frame, _ := t.say(t.peer, 1, 0)
		t.quiet = t.log.len()
		return frame, true
	}
	t.backup = false
	for range 5 {
		mark := t.log.len()
		frame, _ := t.say(t.peer, 1, 0)
		t.last = t.peer
		t.pause(t.reaction)
		if len(t.log.since(mark, t.ours)) == 0 && t.ctx.Err() == nil {
			t.backup, t.quiet = true, t.log.len()
			return frame, true
		}
	}
	return nil, false
}

// makeMaster sees to it that the speaker is MASTER and returns its last advert,
// which was sent a moment ago.
func (t *tester) makeMaster() (*sighting, bool) {
	mark := t.log.len()
	if t.backup {
		t.say(t.last, 4, 0)
		t.backup = false
		if t.await(mark, t.reaction+200*time.Millisecond, t.ours) == nil {
			t.await(mark, t.cfg.down()+2*reactionLimit, t.ours)
		}
		mark = t.log.len()
	}
	// Not the first one: after a takeover things may be under way.
	if s := t.await(mark, t.interval+reactionLimit, t.ours); s != nil {
		return s, true
	}
	s := t.await(mark, t.cfg.down()+2*reactionLimit, t.ours)
	if s == nil {
		return nil, false
	}
	s = t.await(t.log.len(), t.interval+reactionLimit, t.ours)
	return s, s != nil
}

// threshold is how long after a packet an advert is a regular one and no
// answer.
func (t *tester) threshold() time.Duration {
	return min(max(t.reaction, t.interval/2), t.interval-100*time.Millisecond)
}

// hears reports what a master does about a packet that was sent at an instant,
// right after an advert: whether it goes on to advertise.
func (t *tester) hears(mark int, sent time.Time, src netip.Addr) string {
	regular := func(s *sighting) bool { return t.ours(s) && s.at.Sub(sent) > t.threshold() }
	if t.log.await(t.ctx, mark, sent.Add(t.interval+600*time.Millisecond), regular) != nil {
		return stays
	}
	t.backup, t.quiet, t.last = true, t.log.len(), src
	return yields
}

// row writes down an outcome.
func (t *bench) row(id, outcome, seen string, args ...any) {
	for _, r := range t.rules {
		if r.id != id {
			continue
		}
		row := r.judge(t.as, outcome, fmt.Sprintf(seen, args...))
		t.rows[id] = row
		if t.progress != nil {
			t.progress(row)
		}
		return
	}
	panic("conform: no rule has the id " + id) // cannot happen: a test names them all
}

// skip writes down that rows were not tested. Those that this run does not have,
// being of another version or family, are passed over.
func (t *bench) skip(why string, ids ...string) {
	for _, id := range ids {
		if slices.ContainsFunc(t.rules, func(r rule) bool { return r.id == id }) {
			t.row(id, "", "%s", why)
		}
	}
}

// foretold reports whether the standard or ours has this outcome.
func (t *bench) foretold(id, outcome string) bool {
	return slices.ContainsFunc(t.rules, func(r rule) bool { return r.id == id && (r.standard == outcome || r.ours == outcome) })
}

// results lists the rows in the order of the rules.
func (t *bench) results() (all []Row) {
	for _, rule := range t.rules {
		row, ok := t.rows[rule.id]
		if !ok {
			row = rule.empty()
		}
		all = append(all, row)
	}
	return all
}

// Why a row was not tested: the speaker could not be brought into the state that
// the row is about.
const (
	noBackup = "the speaker could not be made BACKUP"
	noMaster = "the speaker could not be made MASTER"
)

// finish evaluates all adverts and makes the report.
func (t *tester) finish(begin time.Time) Report {
	t.adverts()
	foreign := t.log.since(0, func(s *sighting) bool { return s.kind == advert && s.src.Is4() && s.src != t.speaker })
	if len(foreign) > 0 {
		t.note(fmt.Sprintf("%d adverts of the group came from another source (%v): rows may be wrong", len(foreign), foreign[0].src))
	}
	if t.log.lost > 0 {
		t.note(fmt.Sprintf("%d packets were not remembered: rows may be wrong", t.log.lost))
	}
	r := Report{
		Interface: t.cfg.Interface, Protocol: "carp", VHID: t.cfg.VHID, AdvBase: 1, AdvSkew: t.cfg.AdvSkew,
		Speaker: t.speaker.String(), Reaction: t.reaction, Took: time.Since(begin), Notes: t.notes,
	}
	if t.mac != nil {
		r.MAC = t.mac.String()
	}
	for _, a := range t.cfg.Addresses {
		r.Addresses = append(r.Addresses, a.String())
	}
	r.Rows = t.results()
	return r
}
