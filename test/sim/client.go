package sim

import (
	"time"
)

// Client is a machine on a segment that uses the address: it has an ARP entry,
// follows announcements, and asks again when it gets no answer.
type Client struct {
	plug
	Name string
	// Retry is how long a client goes without an answer before it asks who has the
	// address. 0: 1 s.
	Retry time.Duration

	w      *World
	cache  *Host // who the client believes has the address
	served bool
	since  time.Duration // of the present state
	asking bool
	stats  Outage
}

// Outage is how long a client got no answer.
type Outage struct {
	Total, Longest time.Duration
	Times          int
}

// Client makes a client. It has no answer until a host announces itself or
// answers its question.
func (w *World) Client(name string) *Client {
	c := &Client{Name: name, w: w, since: w.now}
	c.title = name
	w.clients = append(w.clients, c)
	w.After(0, c.look)
	return c
}

// Server returns the host that answers the client now, or nil.
func (c *Client) Server() *Host {
	if h := c.cache; h != nil && c.reaches(h) {
		return h
	}
	return nil
}

// Outage returns the time without an answer so far.
func (c *Client) Outage() Outage {
	o := c.stats
	if !c.served {
		o.add(c.w.now - c.since)
	}
	return o
}

func (o *Outage) add(d time.Duration) {
	if d > 0 {
		o.Total, o.Longest, o.Times = o.Total+d, max(o.Longest, d), o.Times+1
	}
}

func (c *Client) reaches(h *Host) bool {
	return h.Answers() && c.on != nil && h.seg == c.on && c.on.Whole(c, h)
}

// look compares what is with what was, and asks if there is no answer.
func (c *Client) look() {
	now := c.w.now
	if served := c.Server() != nil; served != c.served {
		if served {
			c.stats.add(now - c.since)
		}
		c.served, c.since = served, now
	}
	if c.served || c.asking {
		return
	}
	c.asking = true
	retry := c.Retry
	if retry <= 0 {
		retry = time.Second
	}
	c.w.After(retry, func() {
		c.asking = false
		if !c.served {
			c.ask()
			c.look()
		}
	})
}

// ask is an ARP request: of all that answer, the first answer is believed.
func (c *Client) ask() {
	if c.on == nil {
		return
	}
	var first *Host
	var soonest time.Duration
	for _, h := range c.on.hosts {
		if !c.reaches(h) || c.w.network.chance(c.on.Loss) {
			continue
		}
		if d := c.w.network.in(c.on.Latency); first == nil || d < soonest {
			first, soonest = h, d
		}
	}
	if first != nil {
		c.learn(first, 2*soonest)
	}
}

// learn points the entry at h after d.
func (c *Client) learn(h *Host, d time.Duration) {
	c.w.After(d, func() {
		c.cache = h
		c.look()
	})
}

// announce sends gratuitous ARP and NA.
func (h *Host) announce() {
	if h.seg == nil || !h.listens() {
		return
	}
	for _, c := range h.w.clients {
		if c.on != h.seg || h.seg.path(h, c).cut > 0 || h.w.network.chance(h.seg.Loss) {
			continue
		}
		c.learn(h, h.w.network.in(h.seg.Latency))
	}
}

// clientsLook lets all clients see whether they are answered.
func (w *World) clientsLook() {
	for _, c := range w.clients {
		c.look()
	}
}
