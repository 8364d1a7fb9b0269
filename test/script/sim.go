package script

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/sim"
)

// simLatency is that of the simulated segment unless latency says otherwise.
const simLatency = time.Millisecond

// simulator plays a scenario in package sim.
type simulator struct {
	f       *File
	w       *sim.World
	lan     *sim.Segment
	hosts   map[string]*sim.Host
	clients map[string]*sim.Client
	nodes   map[string]Node // as configured now
	forger  *sim.Host
	marks   map[string]time.Duration // outage so far at the last mark
	log     simLog
}

// simLog is a checker that only takes notes.
type simLog struct {
	f        *File
	peers    map[netip.Addr]string
	events   []Event
	leaving  map[*sim.Host]bool // asked to stop
	on       map[*sim.Host]bool
	together time.Duration // since when there are two holders; -1
	overlap  time.Duration
}

// Simulate plays a scenario in the simulator. It uses no goroutine, socket or file;
// the same file gives the same result, but for the time it took.
func Simulate(f *File) Result {
	if f.Only == "kernel" {
		return Result{File: f.Name, Backend: "sim", Skipped: "only kernel"}
	}
	start := time.Now()
	r := play(f, newSimulator(f), false)
	r.Backend, r.Rewrites, r.Took = "sim", true, time.Since(start)
	return r
}

func newSimulator(f *File) *simulator {
	s := &simulator{
		f: f, w: sim.New(f.Seed, sim.Options{Latency: sim.Range{Min: simLatency, Max: simLatency}}),
		hosts: map[string]*sim.Host{}, clients: map[string]*sim.Client{}, nodes: map[string]Node{}, marks: map[string]time.Duration{},
	}
	s.log = simLog{f: f, peers: map[netip.Addr]string{}, leaving: map[*sim.Host]bool{}, on: map[*sim.Host]bool{}, together: -1}
	s.w.Require(&s.log)
	if !f.Unchecked {
		s.w.Require(sim.Standard()...)
	}
	// Addresses are known when all hosts are made: peers are given after that.
	var ports []sim.Port
	for _, n := range f.Nodes {
		h := s.w.Host(n.Name, n.config(nil), sim.HostOptions{Off: true, NoLease: n.NoLease})
		s.hosts[n.Name], s.nodes[n.Name] = h, n
		s.log.peers[h.Local().IPv4], s.log.peers[h.Local().IPv6] = n.Name, n.Name
		ports = append(ports, h)
	}
	for _, n := range f.Nodes {
		s.hosts[n.Name].Config.Peers = n.config(s.address).Peers
	}
	s.forger = s.w.Host(stranger, f.Nodes[0].config(nil), sim.HostOptions{Off: true})
	s.log.peers[s.forger.Local().IPv4], s.log.peers[s.forger.Local().IPv6] = stranger, stranger
	ports = append(ports, s.forger)
	for _, name := range f.Clients {
		s.clients[name] = s.w.Client(name)
		ports = append(ports, s.clients[name])
	}
	s.lan = s.w.Segment("lan", ports...)
	return s
}

// address finds a peer's address. A simulated host has one of each family.
func (s *simulator) address(p Peer) netip.Addr {
	if p.Kind == "" {
		return s.hosts[p.Name].Local().IPv4
	}
	return s.hosts[p.Name].Local().IPv6
}

// Do implements Backend.
func (s *simulator) Do(c Command) error {
	var h *sim.Host
	if len(c.Names) > 0 {
		h = s.hosts[c.Names[0]]
	}
	switch c.Verb {
	case "start", "restart":
		for _, name := range c.Names {
			delete(s.log.leaving, s.hosts[name])
			s.hosts[name].Start()
		}
	case "kill":
		h.Kill(false)
	case "halt":
		h.PowerOff()
	case "stop":
		s.log.leaving[h] = true
		h.Resign(carp.Init, carp.ReasonStopping)
	case "freeze":
		h.Freeze()
	case "thaw":
		h.Resume()
	case "link":
		if c.Word == "up" || c.Word == "plug" {
			h.Plug()
		} else {
			h.Unplug()
		}
	case "demote", "undemote":
		h.Demote(c.Word, c.Amount)
	case "state":
		to, err := carp.ParseState(c.Word)
		h.SetState(to)
		return err
	case "handover":
		h.Resign(carp.Backup, carp.ReasonHandover)
	case "resume":
		h.Demote(carp.OwnerHandover, 0)
	case "reload":
		s.nodes[c.Names[0]] = *c.Node
		return h.Reconfigure(c.Node.config(s.address))
	default:
		return s.network(c)
	}
	return nil
}

// network carries out what concerns the segment.
func (s *simulator) network(c Command) error {
	switch c.Verb {
	case "cut":
		s.lan.Cut(s.port(c.Names[0]), s.port(c.Names[1]))
	case "join":
		s.lan.Join(s.port(c.Names[0]), s.port(c.Names[1]))
	case "partition":
		var sides [][]sim.Port
		for _, group := range c.Groups {
			var side []sim.Port
			for _, name := range group {
				side = append(side, s.port(name))
			}
			sides = append(sides, side)
		}
		s.lan.Partition(sides...)
	case "heal":
		s.lan.Heal()
	case "latency":
		s.lan.Latency = sim.Range{Min: c.For, Max: c.For}
	case "loss":
		s.lan.Loss = float64(c.Amount) / 100
	case "echo":
		s.lan.Echo = float64(c.Amount) / 100
	case "inject":
		s.inject(c.Advert)
	default:
		return fmt.Errorf("the simulator does not know this command: say: only kernel")
	}
	return nil
}

func (s *simulator) port(name string) sim.Port {
	if h := s.hosts[name]; h != nil {
		return h
	}
	return s.clients[name]
}

func (s *simulator) inject(a *Advert) {
	src, to := s.forger.Local(), carp.Local{}
	if a.From != "" {
		mac := src.MAC
		src = s.hosts[a.From].Local()
		src.MAC = mac
	}
	if a.To != "" {
		to = s.hosts[a.To].Local()
	}
	for i := range a.Times {
		s.forger.Inject(a.packet(i, src, to))
	}
}

// Run implements Backend.
func (s *simulator) Run(to time.Duration) error { return s.w.Run(to - s.w.Now()) }

// Events implements Backend.
func (s *simulator) Events() ([]Event, error) {
	all := s.log.events
	s.log.events = nil
	return all, s.w.Err()
}

// Holders implements Backend.
func (s *simulator) Holders() ([]string, error) {
	var all []string
	for _, n := range s.f.Nodes {
		if s.hosts[n.Name].Answers() {
			all = append(all, n.Name)
		}
	}
	return all, nil
}

// State implements Backend.
func (s *simulator) State(node string) (string, error) { return s.hosts[node].State().String(), nil }

// Outage implements Backend.
func (s *simulator) Outage(client string) (time.Duration, error) {
	return s.clients[client].Outage().Total - s.marks[client], nil
}

// Mark implements Backend.
func (s *simulator) Mark(client string) { s.marks[client] = s.clients[client].Outage().Total }

// Overlap implements Backend.
func (s *simulator) Overlap() time.Duration {
	if s.log.together >= 0 {
		return max(s.log.overlap, s.w.Now()-s.log.together)
	}
	return s.log.overlap
}

// Ask implements Backend.
func (s *simulator) Ask(c Command) (string, error) {
	name := c.Names[0]
	switch c.Verb {
	case "answers":
		if h := s.clients[name].Server(); h != nil {
			return h.Name, nil
		}
		return "nobody", nil
	case "status":
		st := s.hosts[name].Status()
		said := standing{
			state: st.State.String(), vrrp: st.Protocol.VRRP(), base: st.AdvBase, skew: st.AdvSkew, effective: st.EffectiveAdvSkew,
			demotion: st.Demotion, hears: s.log.peers[st.Master.Address],
		}
		if said.vrrp {
			said.skew, said.effective = st.Priority, st.EffectivePriority
		}
		if st.Master.Refused != carp.Accepted {
			said.refused = st.Master.Refused.String()
		}
		return name + " " + said.String(), nil
	case "drops":
		var all []string
		for d, n := range s.hosts[name].Status().Drops {
			all = append(all, fmt.Sprintf("%v %d", d, n))
		}
		return dropsLine(name, all), nil
	}
	return "", fmt.Errorf("the simulator cannot answer this: say: only kernel")
}

func dropsLine(node string, all []string) string {
	if len(all) == 0 {
		return node + " refused nothing"
	}
	slices.Sort(all)
	return node + " refused " + strings.Join(all, ", ")
}

// Name implements sim.Checker.
func (*simLog) Name() string { return "transcript" }

// Look implements sim.Checker.
func (*simLog) Look(*sim.World) {}

// Observe implements sim.Checker.
func (l *simLog) Observe(w *sim.World, e *sim.Event) {
	switch e.Kind {
	case sim.KindTransition:
		t := e.Change
		l.events = append(l.events, Event{w.Now(), e.Host.Name, change(t.From.String(), t.To.String(), t.Reason.String(), l.peers[t.Peer])})
		if h := e.Host; t.To == carp.Init && l.leaving[h] {
			delete(l.leaving, h)
			w.After(time.Millisecond, func() { h.Kill(false) }) // it has said all and exits
		}
	case sim.KindAddrOn, sim.KindAddrOff:
		l.holds(w, e.Host, e.Kind == sim.KindAddrOn)
		if l.f.Settings.Addresses {
			text := "address off"
			if e.Kind == sim.KindAddrOn {
				text = "address on"
			}
			l.events = append(l.events, Event{w.Now(), e.Host.Name, strings.TrimSpace(text + " " + e.Text)})
		}
	}
}

// holds keeps count of holders.
func (l *simLog) holds(w *sim.World, h *sim.Host, on bool) {
	if on {
		l.on[h] = true
	} else {
		delete(l.on, h)
	}
	switch {
	case len(l.on) > 1 && l.together < 0:
		l.together = w.Now()
	case len(l.on) < 2 && l.together >= 0:
		l.overlap = max(l.overlap, w.Now()-l.together)
		l.together = -1
	}
}
