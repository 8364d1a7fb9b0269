package modules

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
)

// Core decides for one node. It has no clock, does no I/O, and is not safe for concurrent
// use. The times it is given never go back, but their wall clocks may be anything.
type Core struct {
	cfg     Config
	seen    uint64
	term    carp.Epoch
	claim   Claim // the latest holder that is known
	holding carp.Epoch
	unasked map[uint8]bool // neighbours that have not answered since this node holds the address
	modules []*module      // by name
	peers   map[uint8]*peer
	next    time.Time // of the next polls
	sweep   int       // how far a fresh holder has asked around
	out     Effects
}

// New returns the Core of a node with what State of it was saved, or the zero State.
func New(cfg Config, saved State) (*Core, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if saved.Format != StateFormat && saved.Format != 0 {
		return nil, fmt.Errorf("modules: state of format %d, known is %d", saved.Format, StateFormat)
	}
	cfg.Interval = cmp.Or(cfg.Interval, DefaultInterval)
	cfg.Fanout = cmp.Or(cfg.Fanout, DefaultFanout)
	cfg.Settle = cmp.Or(cfg.Settle, DefaultSettle)
	if cfg.Rand == nil {
		cfg.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	c := &Core{cfg: cfg, seen: saved.Seen, term: saved.Term, peers: map[uint8]*peer{}}
	for _, spec := range slices.SortedFunc(slices.Values(cfg.Modules), func(a, b Module) int { return cmp.Compare(a.Name, b.Name) }) {
		m := &module{spec: spec, Saved: saved.Modules[spec.Name]}
		c.seen = max(c.seen, m.Stamp.Epoch)
		c.modules = append(c.modules, m)
	}
	for _, id := range cfg.Peers {
		c.peers[id] = &peer{entries: map[string]Entry{}}
	}
	return c, nil
}

// finish hands the effects over.
func (c *Core) finish() Effects {
	out := c.out
	c.out = Effects{}
	return out
}

func (c *Core) event(e Event) { c.out.Events = append(c.out.Events, e) }

func (c *Core) send(to uint8, m Message) { c.out.Send = append(c.out.Send, Send{to, m}) }

func (c *Core) find(name string) *module {
	i := slices.IndexFunc(c.modules, func(m *module) bool { return m.spec.Name == name })
	if i < 0 {
		return nil
	}
	return c.modules[i]
}

// Next returns when Tick is due.
func (c *Core) Next() time.Time { return c.next }

// Tick polls and looks at what waits. Early calls are harmless.
func (c *Core) Tick(now time.Time) Effects {
	if now.Before(c.next) {
		return c.finish()
	}
	// A quarter of jitter, so that nodes that were started together do not stay in step.
	c.next = now.Add(c.cfg.Interval - time.Duration(c.cfg.Rand.Int64N(int64(c.cfg.Interval)/4+1)))
	for _, p := range c.peers {
		if !p.asked.IsZero() && now.Sub(p.asked) > pollPatience*c.cfg.Interval {
			p.failed(now, c.cfg.Interval)
		}
	}
	near := c.neighbours(now)
	c.stillUnasked(near)
	near = append(near, c.others(now, near)...)
	d := digestOf(c.claim, c.entries())
	for _, id := range near {
		if p := c.peers[id]; p.asked.IsZero() {
			p.asked = now
			c.send(id, Poll{d})
		}
	}
	c.considerAll(now)
	return c.finish()
}

// Hold tells that this node is the holder from now on: its addresses are on, and what is
// promoted before them is promoted. epoch is that of its mastership.
func (c *Core) Hold(now time.Time, epoch carp.Epoch) Effects {
	if !believable(now, epoch) {
		epoch = 0 // nobody would believe it
	}
	c.term = max(epoch, c.term+1)
	c.holding = c.term
	c.claim = Claim{c.term, c.cfg.Self}
	c.out.Save = true
	// It may have been away: what others have comes first.
	c.next = now
	c.unasked = map[uint8]bool{}
	for _, p := range c.peers {
		p.retry = time.Time{} // who was away may be back
	}
	for _, id := range c.neighbours(now) {
		c.unasked[id] = true
		c.peers[id].asked = time.Time{}
	}
	for _, m := range c.modules {
		m.change = change{}
	}
	return c.finish()
}

// Release tells that this node is not the holder any more.
func (c *Core) Release(now time.Time) Effects {
	c.holding = 0
	for _, m := range c.modules {
		m.change = change{}
		m.seed = false
	}
	c.considerAll(now)
	return c.finish()
}

// stillUnasked forgets those who are no neighbours any more.
func (c *Core) stillUnasked(near []uint8) {
	for id := range c.unasked {
		if !slices.Contains(near, id) {
			delete(c.unasked, id)
		}
	}
}

// mayStamp reports whether this node makes stamps: it is the holder and knows what its
// neighbours have, as far as they can be reached.
func (c *Core) mayStamp() bool { return c.holding != 0 && len(c.unasked) == 0 }

// Looked tells what the database holds. On an error nothing is known of it any more.
func (c *Core) Looked(now time.Time, name string, s Summary, err error) Effects {
	m := c.find(name)
	if m == nil {
		return c.finish()
	}
	m.looked(now, s, err)
	c.consider(now, m)
	return c.finish()
}

// Allow lets the guarded tables of a module be emptied: by the change of the holder or by
// the content that waits, once.
func (c *Core) Allow(now time.Time, name string) Effects {
	if m := c.find(name); m != nil {
		m.allow = true
		m.refused = refusal{}
		m.retry = time.Time{}
		c.consider(now, m)
	}
	return c.finish()
}

// Seed makes the content of this node's database that of the cluster, whatever others
// have. Only the holder can.
func (c *Core) Seed(now time.Time, name string) (Effects, error) {
	m := c.find(name)
	switch {
	case m == nil:
		return c.finish(), fmt.Errorf("modules: seed %s: no such module", name)
	case c.holding == 0:
		return c.finish(), fmt.Errorf("modules: seed %s: this node does not hold the address: ask the one that does", name)
	}
	m.seed = true
	c.consider(now, m)
	return c.finish(), nil
}

// Hear takes a message of a peer. What is not of a node of the cluster, or of a module
// that is not here, is left out.
func (c *Core) Hear(now time.Time, from uint8, msg Message) Effects {
	p := c.peers[from]
	if p == nil {
		return c.finish()
	}
	p.heard(now)
	switch msg := msg.(type) {
	case Poll:
		p.polled = now
		c.answer(from, msg)
	case Same:
		c.answered(p, from)
		p.entries = map[string]Entry{}
		for _, e := range c.entries() {
			p.entries[e.Module] = e
		}
		c.observe(now, from, c.entries(), Answered)
	case Report:
		if msg.Why == Answered {
			c.answered(p, from)
		}
		c.hearReport(now, from, p, c.believe(now, from, p, msg))
	case Get:
		c.hearGet(from, msg)
	case Data:
		if m := c.find(msg.Module); m != nil {
			c.hearData(now, from, m, msg)
		}
	case Gone:
		if m := c.find(msg.Module); m != nil && m.task.kind == fetching && m.task.peer == from && m.task.stamp == msg.Stamp {
			m.giveUp(now, c.cfg.Interval, "node %d: %s", from, msg.Reason)
		}
	case Offer:
		c.hearOffer(now, from, msg)
	case Answer:
		c.hearAnswer(now, from, msg)
	}
	return c.finish()
}

func (c *Core) answered(p *peer, from uint8) {
	p.asked = time.Time{}
	delete(c.unasked, from)
}

// Failed tells that a peer cannot be reached, or that a connection to it has ended.
func (c *Core) Failed(now time.Time, id uint8) Effects {
	if p := c.peers[id]; p != nil {
		p.failed(now, c.cfg.Interval)
		delete(c.unasked, id)
		for _, m := range c.modules {
			if m.task.peer == id && (m.task.kind == fetching || m.task.kind == offering) {
				m.giveUp(now, c.cfg.Interval, "node %d cannot be reached", id)
			}
		}
	}
	return c.finish()
}

// answer answers a poll.
func (c *Core) answer(to uint8, msg Poll) {
	entries := c.entries()
	if digestOf(c.claim, entries) == msg.Digest {
		c.send(to, Same{})
		return
	}
	c.send(to, Report{Claim: c.claim, Entries: entries})
}

// entries is what this node has.
func (c *Core) entries() []Entry {
	all := make([]Entry, 0, len(c.modules))
	for _, m := range c.modules {
		all = append(all, m.entry())
	}
	return all
}

// hearReport takes what a peer has, and tells it what it lacks.
func (c *Core) hearReport(now time.Time, from uint8, p *peer, msg Report) {
	c.hearClaim(from, msg.Claim)
	if msg.Why == Answered {
		p.entries = map[string]Entry{}
	}
	var lacks []Entry
	for _, e := range msg.Entries {
		m := c.find(e.Module)
		if m == nil {
			continue
		}
		p.entries[e.Module] = e
		if e.Stamp.Epoch > c.seen {
			c.seen = e.Stamp.Epoch
			c.out.Save = true
		}
		if msg.Why == Answered && e.Stamp.Compare(m.Stamp) < 0 && m.sound() {
			lacks = append(lacks, m.entry())
		}
	}
	if len(lacks) > 0 {
		c.send(from, Report{Told, c.claim, lacks})
	}
	c.observe(now, from, msg.Entries, msg.Why)
}

// believe leaves out of a report what cannot be, and tells of it once.
func (c *Core) believe(now time.Time, from uint8, p *peer, msg Report) Report {
	var what []string
	if !believable(now, msg.Claim.Term) {
		what = append(what, fmt.Sprintf("mastership %d", msg.Claim.Term))
		msg.Claim = Claim{}
	}
	sound := make([]Entry, 0, len(msg.Entries))
	for _, e := range msg.Entries {
		if believable(now, e.Stamp.Epoch) && believable(now, e.Stamp.Term) {
			sound = append(sound, e)
		} else {
			what = append(what, fmt.Sprintf("%s: clock %d, mastership %d", e.Module, e.Stamp.Epoch, e.Stamp.Term))
		}
	}
	msg.Entries = sound
	if len(what) > 0 && !p.absurd {
		c.event(Event{Kind: Absurd, Node: from, Text: cut(fmt.Sprintf("node %d says what no clock can: not believed: look at the clocks, and delete the state of the modules there: %s", from, strings.Join(what, ", ")))})
	}
	if len(what) > 0 || msg.Why == Answered {
		p.absurd = len(what) > 0
	}
	return msg
}

// hearClaim takes over who the holder is.
func (c *Core) hearClaim(from uint8, claim Claim) {
	if claim.Compare(c.claim) <= 0 {
		return
	}
	c.claim = claim
	if claim.Term > c.term {
		c.term = claim.Term
		c.out.Save = true
	}
	if c.holding != 0 && claim.Node != c.cfg.Self {
		c.event(Event{Kind: TwoHolders, Node: claim.Node, Text: fmt.Sprintf("node %d says that it holds the address (heard from node %d)", claim.Node, from)})
	}
}

// State returns what is to be saved.
func (c *Core) State() State {
	s := State{Format: StateFormat, Seen: c.seen, Term: c.term, Modules: map[string]Saved{}}
	for _, m := range c.modules {
		s.Modules[m.spec.Name] = m.Saved
	}
	return s
}

// Holder returns who holds the address, as far as is known here.
func (c *Core) Holder() Claim { return c.claim }
