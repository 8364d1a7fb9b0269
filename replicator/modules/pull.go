package modules

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// pull asks for a content with this stamp: who pushed it, or one of those who hold it.
func (c *Core) pull(m *module, now time.Time, s Stamp) {
	var from []uint8
	for id, p := range c.peers {
		if e := p.entries[m.spec.Name]; e.Stamp == s && e.sound() && !now.Before(p.retry) {
			from = append(from, id)
		}
	}
	if len(from) == 0 {
		m.reason = "nobody who can be reached holds what is newest"
		m.retry = now.Add(5 * c.cfg.Interval)
		// The holder may not have heard of it, and is the one who can go on without it.
		if h := c.claim.Node; c.holding == 0 && c.peers[h] != nil && c.peers[h].entries[m.spec.Name].Stamp.Compare(s) < 0 {
			c.send(h, Report{Told, c.claim, []Entry{{Module: m.spec.Name, Stamp: s}}})
		}
		return
	}
	slices.Sort(from) // the order of a map is not that of a seed
	id := from[c.cfg.Rand.IntN(len(from))]
	if slices.Contains(from, m.want.from) && m.fails == 0 {
		id = m.want.from
	}
	// A large content on a slow line is given more time when it is asked for again.
	patience := min(time.Duration(m.fails+1)*2*c.cfg.Interval, fetchTimeout)
	m.task = task{kind: fetching, peer: id, stamp: s, until: now.Add(patience)}
	have := m.look.Sum
	if m.broken {
		have = Sum{}
	}
	c.send(id, Get{m.spec.Name, s, have})
}

// hearGet lets a content be read for a peer.
func (c *Core) hearGet(from uint8, msg Get) {
	m := c.find(msg.Module)
	switch {
	case m == nil:
		c.send(from, Gone{msg.Module, msg.Stamp, "no such module here"})
	case m.Stamp != msg.Stamp || !m.sound():
		c.send(from, Gone{msg.Module, msg.Stamp, "not here any more"})
	case m.Stamp.Sum == msg.Have:
		c.send(from, Data{Module: msg.Module, Meta: m.Meta})
	default:
		c.out.Serve = append(c.out.Serve, Serve{from, msg.Module, m.Meta})
	}
}

// hearData judges a content that came.
func (c *Core) hearData(now time.Time, from uint8, m *module, msg Data) {
	asked := m.task.kind == fetching && m.task.stamp == msg.Meta.Stamp
	late := (m.task.kind == fetching || m.task.kind == idle) && m.want.stamp == msg.Meta.Stamp && msg.Meta.Stamp.Compare(m.Stamp) > 0
	if m.look == nil || !asked && !late {
		return
	}
	m.task = task{}
	s := *m.look
	if len(msg.Content) > 0 {
		var err error
		if s, err = Summarize(msg.Content); err != nil {
			s = Summary{}
		}
	}
	if s.Sum != msg.Meta.Stamp.Sum && len(msg.Content) == 0 {
		m.giveUp(now, c.cfg.Interval, "it was changed here while it was asked for")
		return
	}
	if s.Sum != msg.Meta.Stamp.Sum {
		c.event(Event{Kind: Mismatch, Module: m.spec.Name, Node: from, Stamp: msg.Meta.Stamp, Text: fmt.Sprintf("what came from node %d has another checksum: not taken", from)})
		m.giveUp(now, c.cfg.Interval, "what came from node %d has another checksum", from)
		return
	}
	if empty := emptied(m.spec.Guarded, m.hadRows(), s.Filled, msg.Meta.Allowed); len(empty) > 0 && !m.allow {
		c.refuse(m, s.Sum, msg.Meta.Stamp, from, empty)
		return
	}
	keep := c.compare(m, from, msg.Meta, s.Sum)
	if len(msg.Content) == 0 {
		c.adopt(now, m, msg.Meta, s, from)
		return
	}
	m.task = task{kind: installing, peer: from, stamp: msg.Meta.Stamp, meta: msg.Meta, keep: keep, until: now.Add(installTimeout)}
	c.out.Install = append(c.out.Install, Install{m.spec.Name, msg.Meta, msg.Content, keep})
}

// hadRows returns the tables that must not become empty: those of the state that this
// node had, or what it found.
func (m *module) hadRows() []string {
	if m.fresh() {
		return m.look.Filled
	}
	return m.Filled
}

// compare tells of a state that is lost, and reports whether what the database holds is
// to be kept aside: it is what no node of the cluster has a stamp for, or a state that did
// not go into the new one.
func (c *Core) compare(m *module, from uint8, meta Meta, sum Sum) (keep bool) {
	dirty := m.look.Sum != m.Stamp.Sum && m.look.Sum != sum
	e := Event{Kind: Conflict, Module: m.spec.Name, Node: from, Stamp: meta.Stamp}
	switch {
	case !meta.follows(m.Stamp):
		e.Lost = m.Stamp
		e.Text = fmt.Sprintf("the state of node %d did not go into that of node %d, which is newer", m.Stamp.Node, meta.Stamp.Node)
	case m.fresh() && (!dirty || len(m.look.Filled) == 0):
		return false
	case m.fresh():
		e.Text = "this node was fresh, and its content is replaced"
	case dirty && meta.Stamp == m.Stamp && m.look.Found:
		e.Kind, e.Text = Reverted, "its program was started with another content than it had: the cluster's is put back"
	case dirty && meta.Stamp == m.Stamp:
		e.Kind, e.Text = Reverted, "a change at this node, which is not the holder, is put back"
	case dirty:
		e.Text = "a change at this node without a stamp is replaced by a newer state"
	default:
		return false
	}
	c.event(e)
	return true
}

// Installed tells what the database holds after an install.
func (c *Core) Installed(now time.Time, name string, s Summary, err error) Effects {
	m := c.find(name)
	if m == nil || m.task.kind != installing {
		return c.finish()
	}
	t := m.task
	m.task = task{}
	if err == nil {
		m.look = &s
		if s.Sum != t.meta.Stamp.Sum {
			err = fmt.Errorf("the database does not hold what was written to it")
		}
	}
	if err != nil {
		m.broken = true
		m.giveUp(now, c.cfg.Interval, "%v", err)
		c.event(Event{Kind: Failed, Module: name, Node: t.peer, Stamp: t.meta.Stamp, Text: cut(err.Error())})
		if t.offer != 0 {
			c.send(t.offer, Answer{Module: name, Base: t.stamp, Reason: "it could not be installed at the holder"})
		}
		return c.finish()
	}
	c.adopt(now, m, t.meta, s, cmp.Or(t.offer, t.peer))
	if t.offer != 0 {
		c.send(t.offer, Answer{Module: name, Base: t.stamp, Taken: true})
	}
	return c.finish()
}

// adopt makes a content that is in the database this node's state.
func (c *Core) adopt(now time.Time, m *module, meta Meta, s Summary, from uint8) {
	known := meta.Stamp == m.Stamp
	m.Saved = Saved{meta, s.Filled}
	if m.allow {
		m.Allowed = allowedNow(m.spec.Guarded, s.Filled, slices.Concat(m.Allowed, m.spec.Guarded))
	}
	c.seen = max(c.seen, meta.Stamp.Epoch)
	c.out.Save = true
	m.done()
	if !known {
		c.event(Event{Kind: Installed, Module: m.spec.Name, Node: from, Stamp: meta.Stamp, Text: fmt.Sprintf("from node %d", from)})
		c.push(now, m, 0)
	}
}

// forward offers a change to the holder.
func (c *Core) forward(now time.Time, m *module) {
	m.task = task{kind: offering, peer: c.claim.Node, stamp: m.Stamp, until: now.Add(offerTimeout)}
	meta := m.Meta
	c.event(Event{Kind: Forwarded, Module: m.spec.Name, Node: c.claim.Node, Stamp: m.Stamp, Text: fmt.Sprintf("a change at this node is offered to node %d, the holder", c.claim.Node)})
	c.out.Offer = append(c.out.Offer, Serve{c.claim.Node, m.spec.Name, meta})
}

// hearOffer judges a change of another node.
func (c *Core) hearOffer(now time.Time, from uint8, msg Offer) {
	m := c.find(msg.Module)
	no := func(reason string) { c.send(from, Answer{Module: msg.Module, Base: msg.Base, Reason: reason}) }
	switch {
	case m == nil:
		no("no such module at this node")
		return
	case !c.mayStamp():
		no("this node does not hold the address, or has not heard its neighbours yet")
		return
	case msg.Base != m.Stamp || m.want.stamp.Compare(m.Stamp) > 0:
		no("it is based on another state than the holder's")
		return
	case !m.sound() || m.task.kind != idle:
		no("the holder has a change of its own")
		return
	}
	s, err := Summarize(msg.Content)
	if err != nil {
		no("damaged")
		return
	}
	if empty := emptied(m.spec.Guarded, m.Filled, s.Filled, m.Allowed); len(empty) > 0 {
		no(fmt.Sprintf("%v would become empty", empty))
		return
	}
	meta := m.Meta.next(c.nextStamp(now, m, s.Sum), allowedNow(m.spec.Guarded, s.Filled, m.Allowed))
	m.task = task{kind: installing, peer: from, stamp: msg.Base, meta: meta, offer: from, until: now.Add(installTimeout)}
	c.out.Install = append(c.out.Install, Install{msg.Module, meta, msg.Content, false})
}

// hearAnswer takes the holder's word for a change that was offered to it.
func (c *Core) hearAnswer(now time.Time, from uint8, msg Answer) {
	m := c.find(msg.Module)
	if m == nil || m.task.kind != offering || m.task.peer != from || m.task.stamp != msg.Base {
		return
	}
	m.task = task{}
	if msg.Taken {
		m.retry = now.Add(2 * c.cfg.Interval) // its push is on its way
		return
	}
	m.revert = true
	c.event(Event{Kind: NotTaken, Module: m.spec.Name, Node: from, Stamp: m.Stamp, Text: cut(msg.Reason)})
	c.consider(now, m)
}
