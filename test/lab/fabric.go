package lab

import (
	"container/heap"
	"fmt"
	"time"
)

// hwaddr is a MAC address as a key.
type hwaddr [6]byte

// multicast reports the group bit; broadcast has it too.
func (a hwaddr) multicast() bool { return a[0]&1 != 0 }

// wire is the switch's end of a cable.
type wire interface {
	// send gives one frame to the host; an error says that it will not get it.
	send(data []byte) error
}

// fabric is the switch without threads and sockets: where each frame goes, when,
// and what harm it takes. Time is counted from any instant and comes with each
// call. One goroutine at a time may use it.
type fabric struct {
	seed    uint64
	ports   []*port // in the order of attachment, never removed
	table   map[hwaddr][]learned
	queue   parcels
	pushed  uint64
	watched []*Capture
}

// port is one socket of the switch.
type port struct {
	name     string
	slot     int
	wire     wire    // nil while nothing is plugged in
	paths    []*path // to each port, this one too
	isolated bool
	deaf     bool // refused the last frame
}

// path is the way from one port to another.
type path struct {
	from, to *port
	key      uint64
	faults   faults
	cut      bool
	apart    bool // by a partition
	clogged  bool
	held     []parcel
	waiting  int           // in held or in the queue
	last     time.Duration // arrival of the last frame that kept the order
	n        uint64        // frames that were counted, lost ones too
	stats    Stats
}

// learned is where one port knows an address to be. Each port has a view of its
// own, since faults may divide the switch: what a port does not hear, it does not
// learn from.
type learned struct {
	at    *port
	since time.Duration
}

// aging and maxAddresses are those of a Linux bridge, or so.
const (
	aging        = 300 * time.Second
	maxAddresses = 4096
)

// parcel is a frame on its way.
type parcel struct {
	due  time.Duration
	seq  uint64 // of those that are due together, the first sent arrives first
	path *path
	data []byte
}

// parcels is a heap of what is due next.
type parcels []parcel

func (q parcels) Len() int { return len(q) }
func (q parcels) Less(i, j int) bool {
	return q[i].due < q[j].due || q[i].due == q[j].due && q[i].seq < q[j].seq
}
func (q parcels) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *parcels) Push(x any) { *q = append(*q, x.(parcel)) }

// Pop implements heap.Interface.
func (q *parcels) Pop() any {
	last := len(*q) - 1
	p := (*q)[last]
	(*q)[last] = parcel{}
	*q = (*q)[:last]
	return p
}

func newFabric(seed uint64) *fabric {
	return &fabric{seed: seed, table: map[hwaddr][]learned{}}
}

// port returns the port of a name, made if need be.
func (f *fabric) port(name string) *port {
	for _, p := range f.ports {
		if p.name == name {
			return p
		}
	}
	p := &port{name: name, slot: len(f.ports)}
	f.ports = append(f.ports, p)
	for _, q := range f.ports {
		if q != p {
			q.paths = append(q.paths, f.newPath(q, p))
		}
		p.paths = append(p.paths, f.newPath(p, q))
	}
	return p
}

func (f *fabric) newPath(from, to *port) *path {
	return &path{from: from, to: to, key: pathKey(f.seed, from.name, to.name), faults: faults{limit: defaultLimit}}
}

// open reports whether the path leads anywhere now.
func (p *path) open() bool {
	return !p.cut && !p.apart && !p.from.isolated && !p.to.isolated
}

// receive takes a frame from a port. The data is the caller's again afterwards.
func (f *fabric) receive(in *port, fr Frame, now time.Duration) {
	f.release(now) // what is due comes before what is only now sent
	if len(fr.Data) < ethernetHeader {
		return
	}
	dst, src := hwaddr(fr.Data[:6]), hwaddr(fr.Data[6:12])
	fr.Host, in.deaf = in.name, false
	owned := false
	if len(f.watched) > 0 {
		fr.Data, owned = append([]byte(nil), fr.Data...), true
		for _, c := range f.watched {
			c.add(fr)
		}
	}
	f.learn(src, in, now)
	if !dst.multicast() {
		if to := f.lookup(dst, in, now); to != nil {
			if to != in {
				f.offer(in.paths[to.slot], fr, owned, now)
			}
			return
		}
	}
	for _, p := range in.paths {
		if p.to == in {
			f.echo(p, fr, owned, dst, now)
			continue
		}
		f.offer(p, fr, owned, now)
	}
}

// learn notes, for each port that hears it, where an address is.
func (f *fabric) learn(addr hwaddr, in *port, now time.Duration) {
	if addr.multicast() {
		return
	}
	views, known := f.table[addr]
	if !known && len(f.table) >= maxAddresses {
		return
	}
	for len(views) < len(f.ports) {
		views = append(views, learned{})
		known = false
	}
	for _, p := range in.paths {
		if p.to == in || p.open() {
			views[p.to.slot] = learned{in, now}
		}
	}
	if !known {
		f.table[addr] = views
	}
}

// lookup returns the port where viewer knows an address to be; nil if it does not.
func (f *fabric) lookup(addr hwaddr, viewer *port, now time.Duration) *port {
	views := f.table[addr]
	if viewer.slot >= len(views) || now-views[viewer.slot].since > aging {
		return nil
	}
	return views[viewer.slot].at
}

// forget is what a switch does when a port loses its carrier.
func (f *fabric) forget(gone *port) {
	for _, views := range f.table {
		for i := range views {
			if views[i].at == gone {
				views[i] = learned{}
			}
		}
	}
}

// count returns what happens to a frame on a path, and its number there.
func (p *path) count(fr Frame) fate {
	if only := p.faults.only; only != nil && !only(fr) {
		return fate{delay: p.faults.delay}
	}
	p.n++
	return p.faults.decide(p.key, p.n, len(fr.Data))
}

// echo gives a frame back to its sender, as a loop in the network does.
func (f *fabric) echo(p *path, fr Frame, owned bool, dst hwaddr, now time.Duration) {
	if !dst.multicast() {
		return
	}
	p.n++
	if throw(p.key, p.n).chance(drawEcho, p.faults.echo) && p.open() {
		p.stats.Offered++
		f.launch(p, fr.Data, owned, fate{delay: p.faults.delay}, now)
	}
}

// offer puts a frame on a path. If it is not owned, the data may change later.
func (f *fabric) offer(p *path, fr Frame, owned bool, now time.Duration) {
	p.stats.Offered++
	v := p.count(fr)
	switch {
	case !p.open():
		p.stats.Cut++
		f.note(p, fr, "dropped", "cut off")
	case v.lost:
		p.stats.Lost++
		f.note(p, fr, "dropped", "lost")
	case v.corrupt:
		p.stats.Corrupted++
		fr.Data = append([]byte(nil), fr.Data...)
		fr.Data[v.at] ^= v.flip
		f.note(p, fr, "corrupted", "corrupted")
		f.launch(p, fr.Data, true, v, now)
	default:
		f.launch(p, fr.Data, owned, v, now)
	}
}

// note tells captures what was done to a frame.
func (f *fabric) note(p *path, fr Frame, kind, what string) {
	if len(f.watched) == 0 {
		return
	}
	text := fmt.Sprintf("%s on the way to %s, number %d of this link", what, p.to.name, p.n)
	for _, c := range f.watched {
		c.addHarm(harm{Frame: fr, kind: kind, text: text})
	}
}

// launch sends a frame that is to arrive, now or later.
func (f *fabric) launch(p *path, data []byte, owned bool, v fate, now time.Duration) {
	due := now + v.delay
	if v.late {
		p.stats.Reordered++
	} else {
		due = max(due, p.last)
		p.last = due
	}
	f.carry(p, data, &owned, due, now)
	if v.again {
		p.stats.Duplicated++
		f.carry(p, data, &owned, due+v.gap, now)
	}
}

// carry delivers at once or keeps the frame until it is due.
func (f *fabric) carry(p *path, data []byte, owned *bool, due, now time.Duration) {
	if due <= now && !p.clogged {
		f.deliver(p, data)
		return
	}
	if p.waiting >= p.faults.limit {
		p.stats.Overflow++
		f.note(p, Frame{Time: time.Now().Round(0), Host: p.from.name, Data: append([]byte(nil), data...)}, "dropped", "queue full")
		return
	}
	if !*owned {
		data, *owned = append([]byte(nil), data...), true
	}
	p.waiting++
	f.pushed++
	one := parcel{due, f.pushed, p, data}
	if p.clogged {
		p.held = append(p.held, one)
		return
	}
	heap.Push(&f.queue, one)
}

// deliver gives a frame to the host. A port that refuses is taken as one without
// a carrier.
func (f *fabric) deliver(p *path, data []byte) {
	if p.to.wire == nil || p.to.wire.send(data) != nil {
		p.stats.Refused++
		if !p.to.deaf {
			p.to.deaf = true
			f.forget(p.to)
		}
		return
	}
	p.to.deaf = false
	p.stats.Delivered++
}

// release delivers what is due and returns when the next frame is; ok is false if
// there is none.
func (f *fabric) release(now time.Duration) (next time.Duration, ok bool) {
	for len(f.queue) > 0 {
		if f.queue[0].due > now {
			return f.queue[0].due, true
		}
		one := heap.Pop(&f.queue).(parcel)
		one.path.waiting--
		f.deliver(one.path, one.data)
	}
	return 0, false
}

// unclog lets what was held go on: at once if its own delay is over, in order.
func (f *fabric) unclog(p *path, now time.Duration) {
	p.clogged = false
	for _, one := range p.held {
		one.due = max(one.due, now)
		heap.Push(&f.queue, one)
	}
	p.held = nil
	p.last = max(p.last, now)
}
