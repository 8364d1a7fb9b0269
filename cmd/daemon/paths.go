package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/cmd/daemon/api"
)

// wire is one interface that an instance speaks on: the first is the client side.
type wire struct {
	name string
	port link.PortConfig
}

// attached is the same, opened.
type attached struct {
	on   *link.Interface
	port carp.Link
}

// planPaths turns paths into links and ways: paths on one interface share a port.
func (p *plan) planPaths() {
	p.wires = []wire{{p.Interface, p.port}}
	for _, path := range p.Paths {
		n := slices.IndexFunc(p.wires, func(w wire) bool { return w.name == path.Interface })
		if n < 0 {
			port := p.port
			port.Peers, port.IPv4, port.IPv6 = nil, false, false
			n, p.wires = len(p.wires), append(p.wires, wire{path.Interface, port})
		}
		port := &p.wires[n].port
		if len(path.Peers) == 0 {
			port.IPv4, port.IPv6 = true, true
		}
		port.Peers = append(slices.Clip(port.Peers), path.Peers...)
		p.carp.Paths = append(p.carp.Paths, carp.Path{Link: uint8(n), Peers: path.Peers})
	}
	p.port = p.wires[0].port
}

// speaksOn reports whether adverts of the plan go over an interface.
func (p *plan) speaksOn(name string) bool {
	return p.Interface == name || slices.ContainsFunc(p.wires, func(w wire) bool { return w.name == name })
}

// attach claims the id of a plan on all of its interfaces. Like all that uses links,
// it is called under reloading.
func (d *Daemon) attach(p plan) (all []attached, err error) {
	for _, w := range p.wires {
		l := d.links[w.name]
		if l == nil {
			if l, err = link.Open(w.name, link.Options{Log: d.log, Waiter: d.speakers.waiter}); err != nil {
				return nil, errors.Join(err, closePorts(all))
			}
			d.links[w.name] = l
		}
		port, err := l.Attach(w.port)
		if err != nil {
			return nil, errors.Join(err, closePorts(all))
		}
		all = append(all, attached{l, port})
	}
	return all, nil
}

func closePorts(all []attached) (err error) {
	for _, a := range all {
		err = errors.Join(err, a.port.Close())
	}
	return err
}

// portOf returns the port that a frame goes out of.
func (i *instance) portOf(f carp.Frame) carp.Link {
	n := uint8(0)
	if f.Path > 0 {
		n = i.plan.Load().carp.Paths[f.Path-1].Link
	}
	return i.links[n].port
}

// avoid keeps adverts from being sent from shared addresses, as the plan has them.
func (i *instance) avoid(addresses []netip.Addr) {
	for _, a := range i.links {
		a.on.SetAvoid(a.port, addresses)
	}
}

// way names a path for an operator.
func (p *plan) way(n int, st carp.PathStatus) string {
	name := p.Interface
	if n > 0 {
		name = p.Paths[n-1].Interface
	}
	if len(st.Peers) > 0 {
		to := make([]string, len(st.Peers))
		for k, peer := range st.Peers {
			to[k] = peer.String()
		}
		name += " to " + strings.Join(to, ",")
	}
	return name
}

// pathStates lists the paths as carpctl status shows them.
func pathStates(p *plan, st carp.Status, now carp.Instant) []api.Path {
	var all []api.Path
	for n, s := range st.Paths {
		path := api.Path{Interface: p.Interface, Peers: []string{}, Up: s.Up, Silent: s.Silent, Sent: s.Sent, Failed: s.Failed}
		if n > 0 {
			path.Interface = p.Paths[n-1].Interface
		}
		for _, peer := range s.Peers {
			path.Peers = append(path.Peers, peer.String())
		}
		if s.Heard != 0 {
			ms := now.Sub(s.Heard).Milliseconds()
			path.LastHeardMS = &ms
		}
		all = append(all, path)
	}
	return all
}

// pathTrouble says what is wrong with paths other than that of the client side being
// down, which is an alarm of its own.
func pathTrouble(p *plan, st carp.Status) string {
	var all []string
	for n, s := range st.Paths {
		switch {
		case n > 0 && s.Link > 0 && s.LinkKnown && !s.Up:
			all = append(all, fmt.Sprintf("the interface of the path %s is down or missing", p.way(n, s)))
		case s.Silent:
			all = append(all, fmt.Sprintf("nothing of the master %v comes over the path %s, and it is heard over another", st.Master.Address, p.way(n, s)))
		}
	}
	if len(all) == 0 {
		return ""
	}
	return strings.Join(all, "; ") + ". With one more path lost there may be two masters: mend it."
}

// explainPaths says how each path does.
func explainPaths(say sayer, p *plan, st carp.Status, now carp.Instant) {
	for n, s := range st.Paths {
		state := "is up"
		switch {
		case !s.Up:
			state = "is down"
		case s.Silent:
			state = "is up, but silent"
		}
		heard := "nothing was heard over it yet"
		if s.Heard != 0 {
			heard = fmt.Sprintf("the last advert over it was heard %v ago", now.Sub(s.Heard).Round(1e6))
		}
		say("Path %s %s; %s; %d frames went out over it, %d could not.", p.way(n, s), state, heard, s.Sent, s.Failed)
	}
}
