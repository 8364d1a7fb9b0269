package carp

import (
	"net/netip"
	"slices"
)

// A group may send its adverts over several paths, and hear-by-any is the rule: a
// master that is heard over one of them lives. The first path is the client side,
// where the addresses are; only its link decides whether the node can serve.

const (
	// MaxPaths bounds Config.Paths.
	MaxPaths = 4
	// OwnerTrack is the owner of the demotion while the probe of the client side
	// fails, and trackDemote its amount.
	OwnerTrack  = "track"
	trackDemote = 240
	// tieRounds is how many adverts of an equal master this node outlasts on a further
	// path before it yields all the same: the other may be deciding on a path where
	// it does not hear this node, by addresses in another order.
	tieRounds = 3
	// silentIntervals is how long a path may carry nothing of a master that is heard
	// elsewhere.
	silentIntervals = 3
)

// Path is a way for adverts beside the primary one, which is the speaker's first
// link with Config.Peers.
type Path struct {
	Link  uint8        // the speaker's link: 0 is that of the client side; at most MaxPaths
	Peers []netip.Addr // unicast peers; none: multicast
}

// PathStatus is what an engine knows of one path. Its Up says nothing of whether
// adverts get through: Silent does.
type PathStatus struct {
	Path
	LinkKnown, Up bool
	Local         Local
	Heard         Instant // the last authentic advert over it; 0 if none
	Silent        bool    // a master is heard over another path, and not over this one for three intervals
	Sent, Failed  uint64  // frames
}

// pathState is what an engine keeps of one path.
type pathState struct {
	heard        Instant
	sent, failed uint64
}

// linkState is what is known of a link beside that of the client side.
type linkState struct {
	known, up bool
	upAt      Instant
	local     Local
}

// neighbour is another node, as far as it is known to be one: each of its paths has
// a source address of its own. There is one a family.
type neighbour struct {
	name    netip.Addr // its address on the lowest path, by which it is known
	since   Instant    // when it was first heard
	sources [MaxPaths + 1]source
	lastAt  Instant          // when its latest advert came
	rounds  [keptRounds]told // its latest rounds, in a ring
	next    int
}

// told is what a neighbour said in one round, as it was heard first.
type told struct {
	counter uint64
	bid     bid
	leaves  bool
	at      Instant // when it came; 0: nothing
	via     source
}

// keptRounds is how many rounds of a neighbour are remembered: a copy may come over a
// slow path when another round, such as a bow-out, has overtaken it on a quick one.
const keptRounds = 8

type source struct {
	addr netip.Addr
	path uint8
	at   Instant // when the engine last heard it
}

// paths lists all, the primary one first.
func (c *Config) paths() []Path { return append([]Path{{Peers: c.Peers}}, c.Paths...) }

func (c *Config) validatePaths(fault func(string, ...any)) {
	if len(c.Paths) > MaxPaths {
		fault("%d further paths: at most %d", len(c.Paths), MaxPaths)
	}
	if len(c.Paths) > 0 && c.Compat == CompatBSD {
		fault("further paths with compat bsd: no BSD takes two adverts of a round for one")
	}
	all := c.paths()
	for i, p := range all[1:] {
		if p.Link > MaxPaths {
			fault("path %d: link %d: at most %d", i+1, p.Link, MaxPaths)
		}
		if len(p.Peers) > MaxPeers {
			fault("path %d: %d peers: at most %d", i+1, len(p.Peers), MaxPeers)
		}
		for _, other := range all[:i+1] {
			if other.Link == p.Link && (len(other.Peers) > 0) == (len(p.Peers) > 0) {
				fault("path %d: the same link and the same form as another path", i+1)
			}
		}
		for _, peer := range p.Peers {
			if !peer.IsValid() || peer.IsUnspecified() || peer.IsMulticast() {
				fault("path %d: peer %v: not a unicast address", i+1, peer)
			} else if c.Protocol.VRRP() && len(c.Addresses) > 0 && FamilyOf(peer) != c.Family() {
				fault("path %d: peer %v: not %v, the family of the addresses", i+1, peer, c.Family())
			}
		}
	}
}

func equalPaths(a, b []Path) bool {
	return slices.EqualFunc(a, b, func(a, b Path) bool { return a.Link == b.Link && slices.Equal(a.Peers, b.Peers) })
}

// pathOf returns the number of the path that a packet came over, and its peers: of
// the paths of its link the one with its form, unicast or multicast, else any.
func (e *Engine) pathOf(p *Packet) (number uint8, peers []netip.Addr) {
	if len(e.cfg.Paths) == 0 {
		return 0, e.cfg.Peers
	}
	unicast, found := !p.Broadcast && !p.Dst.IsMulticast(), false
	if p.Link == 0 {
		number, peers, found = 0, e.cfg.Peers, true
	}
	for i := range e.cfg.Paths {
		if path := &e.cfg.Paths[i]; path.Link == p.Link && (!found || (len(path.Peers) > 0) == unicast) {
			number, peers, found = uint8(i+1), path.Peers, true
		}
	}
	return number, peers
}

// linkUp reports whether adverts can go out over a link.
func (e *Engine) linkUp(link uint8) bool {
	if link == 0 {
		return e.up || len(e.cfg.Paths) == 0
	}
	return e.beside[link].up
}

// besideUp reports whether a link other than the client side's is up.
func (e *Engine) besideUp() bool {
	return slices.ContainsFunc(e.beside[:], func(l linkState) bool { return l.up })
}

// localOn is this node's own side of a link.
func (e *Engine) localOn(link uint8) Local {
	if link == 0 || int(link) >= len(e.beside) {
		return e.local
	}
	return e.beside[link].local
}

// PathUp tells that a link beside that of the client side, 1 to MaxPaths, carries
// adverts, and from which addresses; it is called again when these change. Nothing
// else comes of it: the next advert goes over it too.
func (e *Engine) PathUp(now Instant, link uint8, local Local) Effects {
	e.begin(now)
	if l := &e.beside[link]; link > 0 {
		if !l.up {
			l.upAt = now
		}
		l.known, l.up, l.local = true, true, local
	}
	return e.finish()
}

// PathDown tells that a link beside that of the client side is down or gone. That
// is no reason to leave a role; but a node whose client side is down too has nobody
// left to say anything to, and is in INIT at once.
func (e *Engine) PathDown(now Instant, link uint8) Effects {
	e.begin(now)
	if link > 0 {
		e.beside[link] = linkState{known: true}
	}
	if e.state == Releasing && !e.up && !e.besideUp() {
		e.toInit(now, ReasonLinkDown)
	}
	return e.finish()
}

// linkLost leaves the role because the client side is down. Where another path is
// up, a master lets go and says so there, so that a backup need not wait until it
// is silent. After a stall it does not: another may be master.
func (e *Engine) linkLost(now Instant) {
	switch {
	case e.state == Init:
	case e.Stalled(now) || !e.besideUp():
		e.toInit(now, ReasonLinkDown)
	case e.state == Master:
		e.release(now, Init, ReasonLinkDown)
	case e.state == Releasing:
		e.target, e.handing = Init, false
	default:
		e.toInit(now, ReasonLinkDown)
	}
}

// ClientSide tells what the probe of the client side says, when that changes; a
// node without a probe, or whose probe never succeeded, is good. Hear-by-any needs
// it: with the client side cut where no link goes down, a master would be heard
// over another path for ever and serve nobody. So a master whose probe fails lets
// go, with a bow-out, and is demoted by 240 until the probe succeeds again. It does
// so once: when what failed is the probed host, all nodes see it, and whoever is
// master then stays. If nobody takes the role within two intervals, the node takes it
// back. While its probe fails a node does not preempt.
func (e *Engine) ClientSide(now Instant, good bool) Effects {
	stalled, amount := e.begin(now), 0
	if good == !e.cutOff {
		return e.finish()
	}
	if e.cutOff = !good; e.cutOff {
		amount = trackDemote
	}
	if e.cutOff && !stalled && e.state == Master {
		e.release(now, Backup, ReasonClientSide)
		e.handing = true
	}
	e.setDemotion(now, OwnerTrack, amount)
	return e.finish()
}

// sentOver counts a frame, by what became of it.
func (e *Engine) sentOver(path uint8, err error) {
	switch {
	case int(path) >= len(e.path):
	case err == nil:
		e.path[path].sent++
	default:
		e.path[path].failed++
	}
}

// isCopy learns who sent an authentic advert, and puts the name of the node in the
// place of the source address: the same master has another one on each path, and
// must not count twice. It reports whether the advert is one that was heard over
// another path already, which decides nothing: CARP knows it by the counter, which
// is one for a round; VRRP, which has none, by the same claim less than a quarter
// of an interval ago.
func (e *Engine) isCopy(now Instant, h *hearing, p *Packet) bool {
	if len(e.cfg.Paths) == 0 {
		return false
	}
	e.path[h.path].heard = now
	n, again := e.neighbour(now, h, p)
	n.sources[h.path] = source{p.Src, h.path, now}
	if !again {
		n.lastAt = arrival(now, p)
		n.rounds[n.next%keptRounds] = told{h.counter, h.bid, h.leaves, n.lastAt, n.sources[h.path]}
		n.next++
	}
	e.rename(n)
	p.sender, p.Src = p.Src, n.name
	return again
}

// neighbour finds who sent an advert, or makes room for somebody new in the place of
// the one that was silent for longest.
func (e *Engine) neighbour(now Instant, h *hearing, p *Packet) (n *neighbour, again bool) {
	var known *neighbour
	oldest := &e.near[0]
	for i := range e.near {
		n := &e.near[i]
		if n.lastAt != 0 && arrival(now, p).Sub(n.lastAt) > e.masterDown(n.lastBid()) {
			*n = neighbour{} // else it would be there twice when it comes back
		}
		if n.lastAt < oldest.lastAt {
			oldest = n
		}
		if n.lastAt == 0 || FamilyOf(n.name) != FamilyOf(p.Src) {
			continue
		}
		if n.sameRound(h, p, arrival(now, p)) {
			e.leave(n, h, p) // until now it may have been two
			return n, true
		}
		if n.sources[h.path].addr == p.Src && known == nil {
			known = n
		}
	}
	if known != nil {
		return known, false
	}
	*oldest = neighbour{name: p.Src, since: now}
	return oldest, false
}

// leave takes the source of p away from every neighbour but n.
func (e *Engine) leave(n *neighbour, h *hearing, p *Packet) {
	for i := range e.near {
		other := &e.near[i]
		if other == n || other.sources[h.path].addr != p.Src {
			continue
		}
		other.sources[h.path] = source{}
		if other.sources == [MaxPaths + 1]source{} {
			e.forget(other)
		}
	}
}

// forget drops a neighbour that has turned out to be another one.
func (e *Engine) forget(n *neighbour) {
	if s := e.sighting(n.name); s != nil {
		*s = sighting{}
	}
	*n = neighbour{}
}

// lastBid is the claim of its latest advert that is known.
func (n *neighbour) lastBid() bid { return n.rounds[(n.next+keptRounds-1)%keptRounds].bid }

// sameRound reports whether an advert is one of the node's latest rounds, over
// another way.
func (n *neighbour) sameRound(h *hearing, p *Packet, at Instant) bool {
	return slices.ContainsFunc(n.rounds[:], func(r told) bool {
		switch {
		case r.at == 0, r.via.path == h.path && r.via.addr == p.Src:
			return false
		case r.counter != 0 || h.counter != 0:
			return r.counter == h.counter
		}
		since := at.Sub(r.at)
		return r.via.path != h.path && r.bid == h.bid && r.leaves == h.leaves && max(since, -since) < h.bid.every/4
	})
}

// rename gives a neighbour the address of its lowest path, wherever its old name
// stands.
func (e *Engine) rename(n *neighbour) {
	i := slices.IndexFunc(n.sources[:], func(s source) bool { return s.at != 0 })
	name := n.sources[i].addr
	if name == n.name {
		return
	}
	for i := range e.heard {
		if e.heard[i].src == name {
			e.heard[i] = sighting{}
		}
	}
	for i := range e.heard {
		if e.heard[i].src == n.name && e.heard[i].at != 0 {
			e.heard[i].src = name
		}
	}
	if e.old == n.name {
		e.old = name
	}
	n.name = name
}

// nameOf returns the name of the neighbour that has an address, or the address.
func (e *Engine) nameOf(addr netip.Addr) netip.Addr {
	for i := range e.near {
		for _, s := range e.near[i].sources {
			if s.at != 0 && s.addr == addr {
				return e.near[i].name
			}
		}
	}
	return addr
}

// known finds a neighbour by its name, or nil.
func (e *Engine) known(name netip.Addr) *neighbour {
	for i := range e.near {
		if n := &e.near[i]; n.lastAt != 0 && n.name == name {
			return n
		}
	}
	return nil
}

// primaryDecides reports whether a tie with the sender of a packet is to be decided
// on the primary path: it was lately heard there, or has just been met and may be
// heard there in a moment. On each path the addresses may be in another order.
func (e *Engine) primaryDecides(now Instant, p *Packet) bool {
	n := e.known(p.Src)
	if n == nil {
		return false
	}
	heard := n.sources[0].at
	return heard != 0 && now.Sub(heard) < e.masterDown(bid{}) || now.Sub(n.since) < e.interval()/2
}

// settleCopy decides a tie by the copy that comes over the primary path, where a
// quicker path has brought the round first.
func (e *Engine) settleCopy(now Instant, h *hearing, p *Packet) {
	if h.path == 0 && e.state == Master && !h.leaves && e.asMaster(e.bid(), h.bid) == tie {
		e.settle(now, h, p, false)
	}
}

// overstays counts the ties that this node has won on a further path in a row, and
// reports whether these are too many.
func (e *Engine) overstays(now Instant) bool {
	if now >= e.contested {
		e.ties = 0
	}
	e.ties++
	return e.ties > tieRounds
}

// pathStatus reports on all paths; nil if there is only the primary one.
func (e *Engine) pathStatus(now Instant) []PathStatus {
	if len(e.cfg.Paths) == 0 {
		return nil
	}
	var all []PathStatus
	master := e.bestSighting(now)
	for i, p := range e.cfg.paths() {
		st := PathStatus{
			Path: p, LinkKnown: e.knows, Up: e.up, Local: e.local,
			Heard: e.path[i].heard, Sent: e.path[i].sent, Failed: e.path[i].failed,
		}
		since := e.upAt
		if p.Link > 0 {
			l := &e.beside[p.Link]
			st.LinkKnown, st.Up, st.Local, since = l.known, l.up, l.local, l.upAt
		}
		st.Peers = slices.Clone(p.Peers)
		if st.Up && master != nil {
			st.Silent = e.silent(now, i, since, master)
		}
		all = append(all, st)
	}
	return all
}

// silent reports whether a path that is up since then has carried nothing of a
// master for three of its intervals.
func (e *Engine) silent(now Instant, path int, since Instant, master *sighting) bool {
	n := e.known(master.src)
	if n == nil {
		return false
	}
	each := master.bid.every
	if !e.cfg.Protocol.VRRP() {
		each = master.bid.interval()
	}
	last := max(n.sources[path].at, since, n.since)
	return now.Sub(last) > silentIntervals*each
}

// appendPaths is AppendState for what only several paths have.
func (e *Engine) appendPaths(now Instant, address func(netip.Addr), number func(int64), flag func(bool)) {
	for _, l := range e.beside[1:] {
		flag(l.up)
	}
	for i := range e.near {
		n := &e.near[i]
		if n.lastAt == 0 || now.Sub(n.lastAt) > e.masterDown(n.lastBid()) {
			continue
		}
		address(n.name)
		for _, s := range n.sources {
			flag(s.at != 0)
			if s.at != 0 {
				address(s.addr)
				number(int64(now.Sub(s.at)))
			}
		}
		for i := range n.rounds {
			if r := &n.rounds[(n.next+i)%keptRounds]; r.at != 0 {
				address(r.via.addr)
				number(int64(now.Sub(r.at)))
			}
		}
	}
}
