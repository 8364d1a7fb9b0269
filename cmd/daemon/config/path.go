package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
)

// Path is a further way for the adverts of an instance.
type Path struct {
	Interface string       // never empty: the instance's unless given
	Peers     []netip.Addr // unicast; empty for multicast
}

func (p Path) String() string {
	if len(p.Peers) == 0 {
		return p.Interface
	}
	return p.Interface + " to " + strings.Join(texts(p.Peers), ",")
}

func (p Path) equal(q Path) bool { return p.Interface == q.Interface && slices.Equal(p.Peers, q.Peers) }

// Gateway is a host beyond the client side which must answer there.
type Gateway struct {
	Address  netip.Addr
	Interval time.Duration // between rounds
	Deadline time.Duration // for the answer; at most Interval
	Fall     uint8         // misses in a row until the probe fails
	Rise     uint8         // answers in a row until it is good again
}

func (g Gateway) String() string {
	return fmt.Sprintf("%v (interval %s, deadline %s, fall %d, rise %d)", g.Address, brief(g.Interval), brief(g.Deadline), g.Fall, g.Rise)
}

// The bounds and defaults of paths and track.
const (
	MaxPaths             = carp.MaxPaths
	MaxTracks            = 4 // of one instance
	DefaultTrackInterval = 200 * time.Millisecond
	DefaultFall          = 3
	DefaultRise          = 2
	maxRow               = 20 // of fall and rise
)

func (r *reader) paths(n *node, d *draft) {
	items := r.list(n, "paths like \"- interface: eth1\"", MaxPaths)
	if n.kind == list && len(n.items) == 0 {
		r.fault(n.at, "remove the key", "paths is empty: the interface alone is one path")
	}
	for _, item := range items {
		r.path(item, d)
	}
}

// path reads one of paths. Its peers are checked as those of the instance are, with
// the same words, by a draft of their own.
func (r *reader) path(n *node, d *draft) {
	var p Path
	var own draft
	at := r.fields(n, pathKeys, setters{
		"interface": func(n *node) { r.link(n, &p.Interface) },
		"peers":     func(n *node) { r.peers(n, &own) },
	})
	if n.kind != mapping {
		return
	}
	for _, b := range own.bounds {
		r.fault(b.at, "write the address alone", "paths: %s is for the peers of the instance only", b.value)
	}
	_, link := at["interface"]
	_, peers := at["peers"]
	switch unknown := len(n.entries) > 0 && len(at) == 0; {
	case unknown || link && p.Interface == "" || peers && len(own.Peers) == 0:
		return // that is said already
	case !link && !peers:
		r.fault(n.at, "write interface: eth1, or peers: [10.0.0.2], or both", "paths: a path is another interface, or other peers")
		return
	}
	p.Peers = own.Peers
	d.further = append(d.further, placed[Path]{p, n.at})
	d.peers = append(d.peers, own.peers...) // for the checks against the addresses
}

// pathsFit fills in the interface of paths that name none, and looks for two that
// are one. It is called when the interface of the instance is known.
func (r *reader) pathsFit(d *draft) {
	all, kept := []Path{{d.Interface, d.Peers}}, d.further[:0:0]
	for _, p := range d.further {
		if p.value.Interface == "" {
			p.value.Interface = d.Interface
		}
		same := func(q Path) bool {
			return q.Interface == p.value.Interface && (len(q.Peers) == 0) == (len(p.value.Peers) == 0)
		}
		if slices.ContainsFunc(all, same) {
			what := "multicast"
			if len(p.value.Peers) > 0 {
				what = "unicast"
			}
			r.fault(p.at, "name another interface, or put all peers into one list", "paths: %s on %s is a path already", what, p.value.Interface)
			continue
		}
		all, kept = append(all, p.value), append(kept, p)
	}
	d.Paths, d.further = all[1:], kept
	at, given := d.at["paths"]
	if given && d.Compat == "bsd" {
		r.fault(at, "remove one of the two", "paths: no BSD takes two adverts of a round for one, and compat: bsd decides as they do")
	}
	if _, tracked := d.at["track"]; given && !tracked {
		r.fault(at, "add track: [{gateway: ADDRESS}] with a host on the client side that always answers, such as the router",
			"paths without track: with the client side cut silently the master would be heard over the other path for ever, and serve nobody")
	}
}

func (r *reader) tracks(n *node, d *draft) {
	items := r.list(n, "gateways like \"- gateway: 192.0.2.1\"", MaxTracks)
	if n.kind == list && len(n.items) == 0 {
		r.fault(n.at, "write - gateway: 192.0.2.1, or remove the key", "track is empty: there is nothing to ask")
	}
	for _, item := range items {
		r.track(item, d)
	}
}

func (r *reader) track(n *node, d *draft) {
	g := Gateway{Interval: DefaultTrackInterval, Fall: DefaultFall, Rise: DefaultRise}
	var gateway *node
	at := r.fields(n, trackKeys, setters{
		"gateway":  func(n *node) { gateway = n },
		"interval": func(n *node) { r.duration(n, 50*time.Millisecond, 10*time.Second, &g.Interval) },
		"deadline": func(n *node) { r.duration(n, 10*time.Millisecond, 10*time.Second, &g.Deadline) },
		"fall":     func(n *node) { r.number(n, 1, maxRow, &g.Fall) },
		"rise":     func(n *node) { r.number(n, 1, maxRow, &g.Rise) },
	})
	if n.kind != mapping {
		return
	}
	if gateway == nil {
		r.fault(n.at, "write gateway: 192.0.2.1", "track: gateway is missing, and is all that can be tracked in this version")
		return
	}
	if g.Deadline > g.Interval {
		r.fault(at["deadline"], "", "track: the deadline of %s is longer than the interval of %s", brief(g.Deadline), brief(g.Interval))
	}
	if g.Deadline == 0 {
		g.Deadline = g.Interval
	}
	var ok bool
	if g.Address, ok = r.gateway(gateway, d); ok {
		d.Track = append(d.Track, g)
		d.gateways = append(d.gateways, placed[netip.Addr]{g.Address, gateway.at})
	}
}

func (r *reader) gateway(n *node, d *draft) (a netip.Addr, ok bool) {
	text, ok := r.str(n, "the address of a host")
	if !ok {
		return a, false
	}
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		r.fault(n.at, "write an address without a prefix length; names are not looked up", "gateway: %q is not an address", text)
	case a.Zone() != "":
		r.fault(n.at, "leave out the part from % on: the interface is known", "gateway: %q has a zone", text)
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Is4In6() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		r.fault(n.at, "write the address of a router or of another host on the client side", "gateway: %s is not the address of another host", text)
	case slices.ContainsFunc(d.gateways, func(g placed[netip.Addr]) bool { return g.value == a }):
		r.fault(n.at, "keep one of them", "gateway: %v is given twice", a)
	default:
		return a, true
	}
	return a, false
}

// tracksFit checks the gateways against the addresses, whichever came first.
func (r *reader) tracksFit(d *draft) {
	held := d.Held()
	for _, g := range d.gateways {
		if slices.ContainsFunc(held, func(p netip.Prefix) bool { return p.Addr() == g.value }) {
			r.fault(g.at, "write the address of a router or of another host on the client side",
				"gateway: %v is one of the virtual addresses: the node would ask itself", g.value)
		}
	}
}
