package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/carp/link"
	"github.com/carpd/carpd/cmd/daemon/config"
	"github.com/carpd/carpd/hooks"
	"github.com/carpd/carpd/vip"
)

// plan is one instance of the configuration as values for the parts: the step
// between a file and a running speaker. Making one touches nothing.
type plan struct {
	config.Instance
	node      string
	carp      carp.Config
	port      link.PortConfig
	addresses vip.Config    // without what connects it to a running instance
	renewal   time.Duration // what it takes to renew all addresses of carpd on the interface
	leased    vip.Lease     // without a fence
	lease     vip.Lease     // as it is
	fenced    bool          // there is a fence
	wires     []wire        // what it speaks on; the first has port
	steps     []hooks.Step
	shared    []config.Hook // the file's own hooks, which are among steps
	entries   []config.Hook // what steps are made of, and the resources of its group
	with      string        // the group that it moves with; empty: none
}

// groupEpoch is where the group clock begins: 2020-01-01 00:00 UTC.
var groupEpoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// load reads the configuration and plans every instance. All faults come at once.
func load(path string) (*config.File, []plan, error) {
	file, err := config.Options{Kinds: hooks.Kinds, CheckHook: checkHook, CheckReplication: checkReplication}.Load(path)
	if err != nil {
		return nil, nil, err
	}
	var plans []plan
	var faults []error
	for _, i := range file.Instances {
		p, err := newPlan(file, i)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s:%d:%d: %s: %w", file.Path, i.Line, i.Column, i.Name, err))
		}
		plans = append(plans, p)
	}
	crowd(plans)
	return file, plans, errors.Join(faults...)
}

// movesInOrder refuses what would take a resource from a node that still holds it: a
// better node that takes the role by its advert leaves the other no time to let go. Only
// members of a sealed group can ask for it.
func (p *plan) movesInOrder() error {
	resources := slices.ContainsFunc(p.entries, func(h config.Hook) bool { return h.On == "" })
	switch {
	case resources && p.Compat == "bsd":
		return errors.New("compat: bsd leaves the role as the kernels do, before anything is let go: say compat: none, which speaks to them as well")
	case !resources || p.carp.Replay == carp.ReplaySealed && !p.VRRP():
		return nil
	case p.Priority == carp.OwnerPriority:
		return errors.New("priority 255 takes the role at once, and leaves a node that holds resources no time to let go: use at most 254 and preempt: false")
	case p.Preempt:
		return errors.New("preempt takes the role by an advert, and leaves a node that holds resources no time to let go: " +
			"say preempt: false and move the role by carpctl handover, or replay: sealed, whose members ask for it")
	}
	return nil
}

// crowd has each plan know what all addresses on its interface cost, and decide again.
func crowd(plans []plan) {
	on := map[string][]netip.Prefix{}
	for n := range plans {
		on[plans[n].device()] = append(on[plans[n].device()], plans[n].Held()...)
	}
	for n := range plans {
		plans[n].renewal = vip.RenewalCost(on[plans[n].device()])
		plans[n].settle(true, true)
	}
}

// device is the interface that has the addresses.
func (p *plan) device() string { return cmp.Or(p.Device, p.Interface) }

func checkHook(h config.Hook) error {
	_, err := openHook(h)
	return err
}

// openHook makes the hook, resource or monitor of an entry.
func openHook(h config.Hook) (s hooks.Step, err error) {
	switch {
	case h.On == "":
		s.Resource, err = hooks.OpenResource(h.Kind, h.Decode)
	case h.On == config.OnMonitor:
		s.Monitor, err = hooks.OpenMonitor(h.Kind, h.Decode)
	default:
		s.Hook, err = hooks.Open(h.Kind, h.Decode)
	}
	return s, err
}

func newPlan(file *config.File, i config.Instance) (plan, error) {
	p := plan{Instance: i, node: file.Node, shared: file.Hooks, entries: file.HooksOf(i)}
	var err error
	if p.carp, err = engineConfig(file, i); err != nil {
		return p, err
	}
	p.leased = planLease(i.Lease, &p.carp)
	p.settle(true, true)
	multicast := len(i.Peers) == 0 // both groups, so that a reload may add a family
	p.port = link.PortConfig{
		Protocol: p.carp.Protocol, Family: p.carp.Family(), VHID: i.VHID, Peers: i.Peers,
		IPv4: multicast, IPv6: multicast, SourceMAC: link.Virtual, Avoid: addresses(i.Held()),
	}
	if i.SourceMAC == "interface" {
		p.port.SourceMAC = link.InterfaceMAC
	}
	p.planPaths()
	p.addresses = vip.Config{
		Interface: i.Interface, VHID: i.VHID, Addresses: i.Held(), Lease: p.lease, Device: i.Device,
		Announce: vip.Announce{Refresh: i.AnnounceRefresh},
	}
	if i.Device != "" {
		p.addresses.VirtualMAC = carp.VirtualMACOf(p.carp.Protocol, p.carp.Family(), i.VHID)
	}
	err = p.carp.Validate()
	if i.Name == globalTarget || strings.HasPrefix(i.Name, groupTarget("")) {
		err = errors.Join(err, fmt.Errorf("the name %q stands for a target of demotions: choose another", i.Name))
	}
	for _, h := range p.entries {
		step, fault := newStep(h)
		err = errors.Join(err, fault)
		p.steps = append(p.steps, step)
		if step.Place() == hooks.BeforeDown.String() {
			p.carp.ReleaseBudget += h.Timeout
		}
		if step.Resource != nil {
			p.carp.Resources++
			p.carp.ReleaseBudget += h.Release
		}
		p.carp.StartGate = p.carp.StartGate || step.Hook == nil
	}
	if t := file.MovesWith(i); t != nil {
		p.with = t.Name
		p.carp.ReleaseBudget += bandLeave
		for _, h := range t.Hooks {
			if h.On == "" {
				p.entries = append(p.entries, h) // to be judged with its own
				p.carp.ReleaseBudget += h.Release
				p.carp.Resources++
			}
			p.carp.StartGate = p.carp.StartGate || h.On == "" || h.On == config.OnMonitor
		}
	}
	if p.carp.Resources > 0 && slices.ContainsFunc(file.Replication, func(r config.Replication) bool { return r.Instance == i.Name }) {
		p.carp.ReleaseBudget += replicaRest
	}
	if p.carp.Resources > 0 {
		p.carp.ReleaseBudget += hooks.CancelGrace // of the promotion or the look that is under way
	}
	if i.ReleaseBudget > 0 {
		p.carp.ReleaseBudget = i.ReleaseBudget
	}
	return p, errors.Join(err, p.movesInOrder())
}

// engineConfig is an instance as its engine reads it. Only addresses in the advert
// concern the engine.
func engineConfig(file *config.File, i config.Instance) (carp.Config, error) {
	c := carp.Config{
		VHID: i.VHID, AdvBase: i.AdvBase, AdvSkew: i.AdvSkew, Passphrase: i.Passphrase, Peers: i.Peers, PeerTTL: i.PeerTTL,
		Priority: i.Priority, Interval: i.Interval, Addresses: addresses(i.Addresses),
		Preempt: i.Preempt, PreemptDelay: i.PreemptDelay, PreemptGrace: i.PreemptGrace, StartupDelay: i.StartupDelay,
		Roll: i.Roll, Leased: !i.Lease.Off, NodeID: file.NodeID, ReleaseBudget: releaseBudget(len(i.Held())),
	}
	var err error
	if c.Protocol, err = carp.ParseProtocol(i.Protocol); err != nil {
		return c, err
	}
	if i.Checksum == carp.ChecksumRFC9568.String() {
		c.Checksum = carp.ChecksumRFC9568
	}
	if i.PreemptGrace == 0 {
		c.PreemptGrace = -1
	}
	if i.Compat == "bsd" {
		c.Compat = carp.CompatBSD
	}
	if !i.VRRP() {
		if c.Replay, err = carp.ParseReplay(i.Replay); err != nil {
			return c, err
		}
		c.Window = i.Window
	}
	if i.Families == "each" {
		c.Families = carp.FamiliesEach
	}
	return c, nil
}

// releaseEach is what one address may take to be taken off, eight times what it takes
// an idle machine: a node that is not done in time leaves without a bow-out, and its
// clients wait for the master-down time.
const releaseEach = 400 * time.Microsecond

// releaseBudget bounds how long so many addresses may take to be taken off.
func releaseBudget(addresses int) time.Duration {
	return max(carp.DefaultReleaseBudget, time.Duration(addresses)*releaseEach)
}

func addresses(prefixes []netip.Prefix) []netip.Addr {
	list := make([]netip.Addr, len(prefixes))
	for n, p := range prefixes {
		list[n] = p.Addr()
	}
	return list
}

// planLease chooses the lease that dies before the fastest backup takes over. A
// length from the configuration is taken as it is, with what it can promise.
func planLease(want config.LeaseSetting, c *carp.Config) vip.Lease {
	if want.Off {
		return vip.Lease{Note: "no lease: a daemon that is dead or frozen leaves the addresses up"}
	}
	down, interval := c.FastestDown(), c.AdvertInterval()
	l := vip.PlanLease(down, interval)
	if want.Valid > 0 && want.Valid != l.Valid {
		chosen := l.Valid
		l = vip.LeaseOf(want.Valid, down, interval)
		l.Note = fmt.Sprintf("lease of %v as configured; %v would be chosen: %s", want.Valid, chosen, l.Note)
	}
	return l
}

func newStep(h config.Hook) (hooks.Step, error) {
	s, err := openHook(h)
	if err != nil {
		return s, err
	}
	s.Name, s.Kind, s.Timeout, s.Release = h.Name, h.Kind, h.Timeout, h.Release
	s.Watch = hooks.Watch{
		Interval: h.Interval, Timeout: h.LookTimeout, Grace: h.Grace, Rise: int(h.Rise), Fall: int(h.Fall), Weight: int(h.Weight),
	}
	var unknown, bad, stuck error
	if s.Hook != nil {
		s.Phase, unknown = hooks.ParsePhase(h.On)
	}
	s.OnFailure, bad = hooks.ParsePolicy(h.IfItFails)
	s.OnStuck, stuck = hooks.ParsePolicy(h.IfItStays)
	if err = errors.Join(unknown, bad, stuck); err != nil {
		return s, fmt.Errorf("hook %s: %w", h.Name, err)
	}
	return s, nil
}

// gated reports whether a hook or a resource, also of its group, stands between the election
// and the addresses.
func (p *plan) gated() bool {
	return p.carp.Resources > 0 || slices.ContainsFunc(p.steps, func(s hooks.Step) bool { return s.Place() == hooks.BeforeUp.String() })
}

// frozen lists the keys that differ from q and that cannot change while the
// instance runs: its link would have to be opened anew, and it would lose its role.
func (p *plan) frozen(q *plan) string {
	keys := p.Frozen(q.Instance)
	if a, b := p.with, q.with; a != b {
		keys = append(keys, "groups: the one that it moves with")
	}
	if frozenHooks(p, q) {
		keys = append(keys, "hooks: the resources among them")
	}
	if p.carp.NodeID != q.carp.NodeID {
		keys = append(keys, "node_id")
	}
	return strings.Join(keys, ", ")
}

// keepDevice goes on with the device of the running plan: in the new file the name
// may have gone to another instance.
func (p *plan) keepDevice(old *plan) { p.Device, p.addresses.Device = old.Device, old.Device }

// weight says what the node stands for election with.
func (p *plan) weight() string {
	if p.VRRP() {
		return fmt.Sprintf("%s, priority %d, interval %v", p.Protocol, p.Priority, p.Interval)
	}
	return fmt.Sprintf("advbase %d, advskew %d", p.AdvBase, p.AdvSkew)
}
