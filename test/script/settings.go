package script

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
)

// Node is a member of the group and its configuration.
type Node struct {
	Name         string
	Line         int
	Protocol     carp.Protocol
	Skew, Base   uint8         // CARP
	Priority     uint8         // VRRP; 0: the default
	Interval     time.Duration // VRRP; 0: the default
	Checksum     carp.Checksum // VRRP3 over IPv4
	Preempt      bool
	Pass         string // "": CARP's default, and none for VRRP
	Addresses    []netip.Addr
	Excluded     []netip.Addr // VRRP: they move along without being in the advert; kernel only
	Peers        []Peer
	BSD          bool // compat bsd
	Each         bool // families each
	Replay       carp.Replay
	ID           uint8 // node id; 0: none
	NoLease      bool
	Startup      time.Duration
	PreemptDelay time.Duration
	Roll         time.Duration // 0: the daemon's default
	Bare         bool          // the interface has no address of its own
	MAC          string        // where adverts come from: interface or virtual; "": the daemon's default
}

// Peer names a node by one of its addresses.
type Peer struct {
	Name string
	Kind string // "": IPv4; "6": IPv6; "ll": link-local
}

// The group of all scenarios.
const (
	vhid        = 9
	defaultPass = "secret"
)

// sharedIPv4 is the address of a group that names none.
func sharedIPv4() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, 100}) }

func parseNode(p *parser, c *Command, args []string) error {
	if len(args) == 0 || !validName(args[0]) {
		return fmt.Errorf("give a name of up to 8 small letters and digits")
	}
	if p.file.hasNode(args[0]) || slices.Contains(p.file.Clients, args[0]) {
		return fmt.Errorf("%q: given twice", args[0])
	}
	if len(p.file.Nodes) == maxNodes {
		return fmt.Errorf("more than %d nodes", maxNodes)
	}
	n := Node{Name: args[0], Line: c.Line, Base: 1, Addresses: []netip.Addr{sharedIPv4()}}
	if err := n.options(args[1:]); err != nil {
		return err
	}
	p.file.Nodes = append(p.file.Nodes, n)
	return nil
}

// validName keeps names short enough for interfaces and apart from other words.
func validName(s string) bool {
	ok := len(s) > 0 && len(s) <= 8 && s != stranger && s != "nobody"
	for _, r := range s {
		ok = ok && (r >= 'a' && r <= 'z' || r >= '0' && r <= '9')
	}
	return ok
}

func parseReload(p *parser, c *Command, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("give a node and what changes")
	}
	i := p.file.index(args[0])
	if i < 0 {
		return fmt.Errorf("%q: no such node", args[0])
	}
	c.Names = args[:1]
	n, reloaded := p.latest[args[0]]
	if !reloaded {
		n = p.file.Nodes[i]
	}
	if err := n.options(args[1:]); err != nil {
		return err
	}
	if err := n.validate(); err != nil {
		return err
	}
	p.latest[args[0]], c.Node = n, &n
	return nil
}

// optionValue finds what follows an option: nothing, for some.
func optionValue(key string, rest []string) (value string, taken int, err error) {
	if key == "preempt" {
		if len(rest) > 0 && (rest[0] == "on" || rest[0] == "off") {
			return rest[0], 2, nil
		}
		return "on", 1, nil
	}
	if key == "bare" {
		return "", 1, nil
	}
	if len(rest) == 0 {
		return "", 0, fmt.Errorf("%s: a value is missing", key)
	}
	return rest[0], 2, nil
}

func (n *Node) options(words []string) error {
	for len(words) > 0 {
		value, taken, err := optionValue(words[0], words[1:])
		if err == nil {
			err = n.option(words[0], value)
		}
		if err != nil {
			return err
		}
		words = words[taken:]
	}
	return nil
}

func (n *Node) option(key, value string) (err error) {
	var number8 = func(most int) (uint8, error) {
		v, err := number(value, 0, most)
		return uint8(v), err
	}
	switch key {
	case "protocol":
		n.Protocol, err = carp.ParseProtocol(value)
	case "priority":
		n.Priority, err = number8(carp.OwnerPriority)
		if err == nil && n.Priority == 0 {
			err = fmt.Errorf("0: give a number from 1 to 255")
		}
	case "interval":
		n.Interval, err = duration(value)
	case "checksum":
		n.Checksum = carp.ChecksumRFC9568
		_, err = oneOf(key, value, carp.ChecksumRFC9568.String())
	case "skew":
		n.Skew, err = number8(carp.MaxAdvSkew)
	case "base":
		n.Base, err = number8(carp.MaxAdvBase)
	case "preempt":
		n.Preempt = value == "on"
	case "pass":
		n.Pass = value
	case "addr":
		n.Addresses, err = addresses(value)
	case "excluded":
		n.Excluded, err = addresses(value)
	case "peers":
		n.Peers, err = peers(value)
	case "compat":
		n.BSD, err = oneOf(key, value, "bsd")
	case "replay":
		n.Replay, err = carp.ParseReplay(value)
	case "id":
		n.ID, err = number8(255)
	case "families":
		n.Each, err = oneOf(key, value, "each")
	case "lease":
		n.NoLease, err = oneOf(key, value, "off")
	case "mac":
		if n.MAC = value; value != "interface" && value != "virtual" {
			err = fmt.Errorf("%q: give interface or virtual", value)
		}
	case "bare":
		n.Bare = true
	case "startup":
		n.Startup, err = duration(value)
	case "preempt-delay":
		n.PreemptDelay, err = duration(value)
	case "roll":
		n.Roll, err = duration(value)
	default:
		return fmt.Errorf("unknown option %q: there are protocol, priority, interval, checksum, skew, base, preempt, pass, addr, excluded, peers, compat, replay, id, families, lease, startup, preempt-delay, roll, mac, bare", key)
	}
	if err != nil {
		return fmt.Errorf("%s %w", key, err)
	}
	return nil
}

// pass is what the node has for a passphrase. VRRP has none unless one is asked for.
func (n *Node) pass() string {
	if n.Pass == "" && !n.Protocol.VRRP() {
		return defaultPass
	}
	return n.Pass
}

// config is the node's configuration; peers are left out if address is nil.
func (n *Node) config(address func(Peer) netip.Addr) carp.Config {
	c := carp.Config{
		VHID: vhid, Protocol: n.Protocol, AdvBase: n.Base, AdvSkew: n.Skew, Priority: n.Priority, Interval: n.Interval,
		Checksum: n.Checksum, Passphrase: []byte(n.pass()), Addresses: n.Addresses,
		Preempt: n.Preempt, PreemptDelay: n.PreemptDelay, StartupDelay: n.Startup, Roll: n.Roll,
	}
	if n.Protocol.VRRP() && n.Base == 1 {
		c.AdvBase = 0 // nobody has asked for it
	}
	if !n.Protocol.VRRP() {
		c.Replay, c.NodeID = n.Replay, n.ID
	}
	if n.BSD {
		c.Compat = carp.CompatBSD
	}
	if n.Each {
		c.Families = carp.FamiliesEach
	}
	if address != nil {
		for _, p := range n.Peers {
			c.Peers = append(c.Peers, address(p))
		}
	}
	return c
}

// validate returns the first thing that package carp refuses, wherever the peers are.
func (n *Node) validate() error {
	c := n.config(func(p Peer) netip.Addr {
		if p.Kind == "" {
			return place(0).IPv4
		}
		return place(0).IPv6
	})
	if err := c.Validate(); err != nil {
		text, _, _ := strings.Cut(err.Error(), "\n")
		return fmt.Errorf("%s", strings.TrimPrefix(text, carp.ErrConfig.Error()+": "))
	}
	return nil
}

func oneOf(key, value, want string) (bool, error) {
	if value != want {
		return false, fmt.Errorf("%q: the only value is %s", value, want)
	}
	return true, nil
}

func addresses(list string) ([]netip.Addr, error) {
	var all []netip.Addr
	for word := range strings.SplitSeq(list, ",") {
		a, err := netip.ParseAddr(word)
		if err != nil {
			return nil, fmt.Errorf("%q: not an address", word)
		}
		all = append(all, a)
	}
	return all, nil
}

func peers(list string) ([]Peer, error) {
	var all []Peer
	for word := range strings.SplitSeq(list, ",") {
		name, kind, _ := strings.Cut(word, ".")
		if kind != "" && kind != "6" && kind != "ll" {
			return nil, fmt.Errorf("%q: give NAME, NAME.6 or NAME.ll", word)
		}
		all = append(all, Peer{name, kind})
	}
	return all, nil
}

func parseClient(p *parser, _ *Command, args []string) error {
	if len(args) == 2 {
		asked, err := netip.ParseAddr(args[1])
		if err != nil {
			return fmt.Errorf("%q: not an address", args[1])
		}
		p.file.Asked[args[0]], args = asked, args[:1]
	}
	if len(args) != 1 || !validName(args[0]) || p.file.hasNode(args[0]) || slices.Contains(p.file.Clients, args[0]) {
		return fmt.Errorf("give a name that nobody has yet, of up to 8 small letters and digits")
	}
	p.file.Clients = append(p.file.Clients, args[0])
	return nil
}

func parseOnly(p *parser, _ *Command, args []string) error {
	if len(args) != 1 || args[0] != "sim" && args[0] != "kernel" {
		return fmt.Errorf("give sim or kernel")
	}
	p.file.Only = args[0]
	return nil
}

func parseCompare(p *parser, _ *Command, args []string) error {
	p.file.Loose = true
	if len(args) != 1 || args[0] != "answers" {
		return fmt.Errorf("the only form is: compare answers")
	}
	return nil
}

func parseTolerance(p *parser, c *Command, args []string) error {
	err := parseDuration(p, c, args)
	p.file.Tolerance = c.For
	return err
}

func parseShow(p *parser, _ *Command, args []string) error {
	p.file.Settings.Addresses = true
	if len(args) != 1 || args[0] != "addresses" {
		return fmt.Errorf("the only form is: show addresses")
	}
	return nil
}

func parseSeed(p *parser, _ *Command, args []string) (err error) {
	if len(args) != 1 {
		return fmt.Errorf("give one number")
	}
	p.file.Seed, err = strconv.ParseUint(args[0], 10, 64)
	return err
}

func parseUnchecked(p *parser, c *Command, args []string) error {
	p.file.Unchecked = true
	return parseNone(p, c, args)
}
