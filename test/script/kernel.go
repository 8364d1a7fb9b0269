package script

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/test/lab"
)

// KernelOptions say how a scenario is played on the kernel.
type KernelOptions struct {
	Carpd string            // the daemon's program
	Pcap  string            // directory for packets and last logs of a failed scenario; "": they are not kept
	Log   func(line string) // of package lab; nil is silent
}

// probeEvery is how often a client asks.
const probeEvery = 10 * time.Millisecond

// client is a machine that asks the first address.
type client struct {
	host  *lab.Host
	probe *lab.Prober
	mark  time.Time
}

// onKernel plays a scenario in network namespaces with the real daemon.
type onKernel struct {
	ctx     context.Context // of the one play that this is made for
	f       *File
	o       KernelOptions
	t       lab.TB
	lan     *lab.LAN
	wire    *lab.Capture
	nodes   map[string]*machine
	clients map[string]*client
	forger  *lab.Host
	names   map[netip.Addr]string // of everybody
	began   time.Time             // zero until the first start
	watch   *watch
}

// OnKernel plays a scenario in network namespaces. It needs what package lab
// needs, and takes as long as the scenario says, or until ctx ends. Many may be
// played at once. One that fails while the machine is too busy to keep time is
// played again, three times in all.
func OnKernel(ctx context.Context, f *File, o KernelOptions) Result {
	r := Result{File: f.Name, Backend: "kernel"}
	if f.Only == "sim" {
		r.Skipped = "only sim"
		return r
	}
	start := time.Now()
	for range maxPlays {
		p := newPulse()
		r = once(ctx, f, o)
		r.Late = p.stop()
		if r.OK() || r.Skipped != "" || r.Late < tooLate || ctx.Err() != nil {
			break
		}
	}
	r.Took = time.Since(start)
	return r
}

// once plays a scenario in namespaces of its own.
func once(ctx context.Context, f *File, o KernelOptions) Result {
	r := Result{File: f.Name, Backend: "kernel"}
	err := lab.Run(f.Name, o.Log, func(t lab.TB) {
		k := newKernel(ctx, t, f, o)
		played := play(f, k, true)
		played.Backend, played.Rewrites = r.Backend, f.Only == "kernel"
		r = played
		k.keep(&r)
	})
	switch {
	case errors.Is(err, lab.ErrSkipped):
		r.Skipped, r.Denied = err.Error(), true
	case err != nil && r.Err == nil:
		r.Err = err
	}
	return r
}

func newKernel(ctx context.Context, t lab.TB, f *File, o KernelOptions) *onKernel {
	k := &onKernel{
		ctx: ctx, f: f, o: o, t: t, nodes: map[string]*machine{}, clients: map[string]*client{},
		names: map[netip.Addr]string{}, watch: newWatch(f.Nodes[0].Addresses[0]),
	}
	if k.needsSwitch() {
		k.lan = lab.New(t, lab.Switched(f.Seed))
	} else {
		k.lan = lab.New(t)
	}
	k.wire = k.lan.Capture()
	for i, n := range f.Nodes {
		var prefixes []string
		if !n.Bare {
			prefixes = hostPrefixes(1 + i)
		}
		m := &machine{Host: k.lan.Host(n.Name, prefixes...), node: n, index: i, dir: t.TempDir()}
		m.open()
		t.Cleanup(m.client.CloseIdleConnections)
		k.nodes[n.Name] = m
		k.name(i, n.Name)
		k.watch.follow(m.Host)
	}
	if f.uses("inject") {
		k.forger = k.lan.Host(stranger, hostPrefixes(1+len(f.Nodes))...)
		k.name(len(f.Nodes), stranger)
	}
	for i, name := range f.Clients {
		h := k.lan.Host(name, hostPrefixes(200+i)...)
		k.clients[name] = &client{h, h.ProbeEvery(f.asked(name), probeEvery), time.Now()}
	}
	return k
}

// hostPrefixes are the addresses of a machine; those of the simulator's hosts are
// the same for IPv4.
func hostPrefixes(number int) []string {
	return []string{fmt.Sprintf("192.0.2.%d/24", number), fmt.Sprintf("2001:db8::%x/64", number)}
}

// place is where the host of an index sends from. The lab numbers MACs from 1.
func place(index int) carp.Local {
	n := byte(index + 1)
	return carp.Local{
		IPv4: netip.AddrFrom4([4]byte{192, 0, 2, n}),
		IPv6: netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 11: 0xff, 12: 0xfe, 15: n}),
		MAC:  carp.MAC{2, 0, 0, 0, 0, n},
	}
}

func globalIPv6(index int) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 15: byte(index + 1)})
}

func (k *onKernel) name(index int, name string) {
	l := place(index)
	k.names[l.IPv4], k.names[l.IPv6], k.names[globalIPv6(index)] = name, name, name
}

// address finds a peer's address.
func (k *onKernel) address(p Peer) netip.Addr {
	i := k.f.index(p.Name)
	switch p.Kind {
	case "6":
		return globalIPv6(i)
	case "ll":
		return place(i).IPv6
	}
	return place(i).IPv4
}

// uses reports whether one of these commands occurs.
func (f *File) uses(verbs ...string) bool {
	return slices.ContainsFunc(f.Blocks, func(b Block) bool {
		return slices.ContainsFunc(b.Commands, func(c Command) bool { return slices.Contains(verbs, c.Verb) })
	})
}

// needsSwitch reports whether links must be changed one by one; else a bridge of
// the kernel will do.
func (k *onKernel) needsSwitch() bool {
	return k.f.uses("cut", "join", "partition", "heal", "latency", "loss", "echo")
}

// keep saves what a failed scenario leaves behind.
func (k *onKernel) keep(r *Result) {
	if r.OK() || k.o.Pcap == "" {
		return
	}
	base := strings.TrimSuffix(filepath.Base(k.f.Name), filepath.Ext(k.f.Name))
	path := filepath.Join(k.o.Pcap, base+".pcapng")
	if err := k.wire.Write(path); err != nil {
		r.Err = errors.Join(r.Err, err)
		return
	}
	r.Capture = path
	for _, m := range k.nodes {
		if m.proc == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(k.o.Pcap, base+"-"+m.Name+".log"), []byte(m.proc.Output()), 0o644); err != nil {
			r.Err = errors.Join(r.Err, err)
		}
	}
}

// Do implements Backend.
func (k *onKernel) Do(c Command) error {
	var m *machine
	if len(c.Names) > 0 {
		m = k.nodes[c.Names[0]]
	}
	switch c.Verb {
	case "start", "restart":
		return k.start(c.Names)
	case "kill":
		m.KillAll() // its guardian with it: a node that dies says nothing
	case "halt":
		m.KillAll() // first: it must not notice
		m.Unplug()
		k.watch.halt(m.Host)
	case "stop":
		m.terminate()
	case "freeze":
		m.freeze()
	case "thaw":
		m.thaw()
	case "link":
		switch c.Word {
		case "up", "down":
			m.SetLink(c.Word == "up")
		case "plug":
			m.Plug()
		default:
			m.Unplug()
		}
	case "demote", "undemote":
		return m.post("/v1/demote", map[string]any{"owner": c.Word, "amount": c.Amount})
	case "state":
		return m.post("/v1/state", map[string]any{"state": c.Word})
	case "resume":
		return m.post("/v1/resume", map[string]any{})
	case "handover":
		// It answers when somebody has taken over, or nobody: the transcript tells.
		go func() { _ = m.post("/v1/handover", map[string]any{}) }()
	case "reload":
		m.node = *c.Node
		if err := m.configure(k.address); err != nil {
			return err
		}
		return m.post("/v1/reload", map[string]any{})
	default:
		return k.network(c)
	}
	return nil
}

// network carries out what concerns the segment.
func (k *onKernel) network(c Command) error {
	switch c.Verb {
	case "cut":
		k.lan.Link(k.host(c.Names[0]), k.host(c.Names[1])).Cut()
	case "join":
		k.lan.Link(k.host(c.Names[0]), k.host(c.Names[1])).Join()
	case "partition":
		var sides [][]*lab.Host
		for _, group := range c.Groups {
			var side []*lab.Host
			for _, name := range group {
				side = append(side, k.host(name))
			}
			sides = append(sides, side)
		}
		k.lan.Split(sides...)
	case "heal":
		k.lan.Heal()
	case "latency":
		k.lan.All().Delay(c.For, 0)
	case "loss":
		k.lan.All().Loss(float64(c.Amount) / 100)
	case "echo":
		for _, m := range k.nodes {
			k.lan.Link(m.Host, m.Host).Echo(float64(c.Amount) / 100)
		}
	case "inject":
		return k.inject(c.Advert)
	default:
		return fmt.Errorf("the kernel does not know this command: say: only sim")
	}
	return nil
}

func (k *onKernel) host(name string) *lab.Host {
	if m := k.nodes[name]; m != nil {
		return m.Host
	}
	return k.clients[name].host
}

// start starts daemons and waits until they run. Their cables are plugged in when
// all of them do, so that they begin together, however long each took to start.
// The first event of all begins the scenario's time.
func (k *onKernel) start(names []string) error {
	first := k.began.IsZero()
	if first {
		k.began = time.Now().Round(0)
	}
	for _, name := range names {
		m := k.nodes[name]
		m.Unplug()
		if err := m.start(k.o.Carpd, k.address); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := k.nodes[name].ready(); err != nil {
			return err
		}
	}
	for _, name := range names {
		k.nodes[name].Plug()
	}
	if !first {
		return nil
	}
	if err := k.settle(names); err != nil {
		return err
	}
	earliest := time.Time{}
	for _, name := range names {
		for _, t := range k.nodes[name].peek() {
			if at := t.Time; earliest.IsZero() || at.Before(earliest) {
				earliest = at
			}
		}
	}
	if !earliest.IsZero() {
		k.began = earliest.Round(0)
	}
	return nil
}

// settle waits for the first event of each node that has no startup delay.
func (k *onKernel) settle(names []string) error {
	deadline := time.NewTimer(startLimit)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for _, name := range names {
		for m := k.nodes[name]; m.node.Startup == 0 && len(m.peek()) == 0; {
			select {
			case <-tick.C:
			case <-deadline.C:
				return fmt.Errorf("script: carpd on %s does not see its link after %v:\n%s", name, startLimit, m.proc.Output())
			}
		}
	}
	return nil
}

// Run implements Backend.
func (k *onKernel) Run(to time.Duration) error {
	if k.began.IsZero() {
		k.began = time.Now().Round(0)
	}
	timer := time.NewTimer(time.Until(k.began.Add(to)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-k.ctx.Done():
		return k.ctx.Err()
	}
}

// Events implements Backend.
func (k *onKernel) Events() ([]Event, error) {
	var all []Event
	for _, n := range k.f.Nodes {
		for _, t := range k.nodes[n.Name].take() {
			all = append(all, Event{t.Time.Sub(k.began), n.Name, change(t.From, t.To, t.Reason, k.peer(t.Peer))})
		}
	}
	for _, e := range k.watch.take() {
		if k.f.Settings.Addresses {
			text := "address off"
			if e.on {
				text = "address on"
			}
			all = append(all, Event{e.at.Sub(k.began), e.host, text})
		}
	}
	slices.SortStableFunc(all, func(a, b Event) int { return int(a.At - b.At) })
	return all, nil
}

// peer names the machine that has an address; the zone is taken off.
func (k *onKernel) peer(addr string) string {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return ""
	}
	if name := k.names[a.WithZone("")]; name != "" {
		return name
	}
	return addr
}
