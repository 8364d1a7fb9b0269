package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/carpd/carpd/carp"
)

// defaultName does not depend on what else is in the file, so that adding or
// removing one instance renames no other. A pair of VRRP instances, one a family,
// needs no names.
func defaultName(i Instance) string {
	name := fmt.Sprintf("%d@%s", i.VHID, i.Interface)
	if i.Kind() == VRRP6 {
		name += "." + VRRP6.String()
	}
	return name
}

// instance reads one entry of instances.
func (r *reader) instance(n *node) *draft {
	d := &draft{begin: n.at, Instance: Instance{
		PreemptGrace: DefaultPreemptGrace, AnnounceRefresh: DefaultAnnounceRefresh, OnConflict: "defend", OnContest: "regate", MAC: "interface", Fence: "auto", Line: n.at.line, Column: n.at.column,
	}}
	var inline, file, interval, checksum *node
	d.at = r.fields(n, instanceKeys, setters{
		"name":               func(n *node) { r.word(n, 64, &d.Name) },
		"protocol":           func(n *node) { r.choice(n, &d.Protocol, protocols(), nil) },
		"vhid":               func(n *node) { r.number(n, 1, 255, &d.VHID) },
		"interface":          func(n *node) { r.link(n, &d.Interface) },
		"source_mac":         func(n *node) { r.choice(n, &d.SourceMAC, []string{"virtual", "interface"}, nil) },
		"passphrase":         func(n *node) { inline = n },
		"passphrase_file":    func(n *node) { file = n },
		"advbase":            func(n *node) { d.AdvBase = DefaultAdvBase; r.number(n, 0, 255, &d.AdvBase) },
		"advskew":            func(n *node) { r.number(n, 0, 254, &d.AdvSkew) },
		"priority":           func(n *node) { r.number(n, 1, 255, &d.Priority) },
		"interval":           func(n *node) { interval = n },
		"checksum":           func(n *node) { checksum = n },
		"preempt":            func(n *node) { d.preempt = new(bool); r.yes(n, d.preempt) },
		"preempt_delay":      func(n *node) { r.duration(n, 0, time.Hour, &d.PreemptDelay) },
		"preempt_grace":      func(n *node) { r.duration(n, 0, 10*time.Second, &d.PreemptGrace) },
		"startup_delay":      func(n *node) { r.duration(n, 0, time.Hour, &d.StartupDelay) },
		"addresses":          func(n *node) { d.addresses = r.addresses(n, carp.MaxAddresses) },
		"addresses_excluded": func(n *node) { d.excluded = r.addresses(n, MaxAddresses) },
		"announce_refresh":   func(n *node) { r.refresh(n, &d.AnnounceRefresh) },
		"on_conflict":        func(n *node) { r.choice(n, &d.OnConflict, []string{"defend", "alarm"}, nil) },
		"peers":              func(n *node) { r.peers(n, d) },
		"paths":              func(n *node) { r.paths(n, d) },
		"track":              func(n *node) { r.tracks(n, d) },
		"mac":                func(n *node) { r.choice(n, &d.MAC, []string{"interface", "virtual"}, nil) },
		"lease":              func(n *node) { r.lease(n, &d.Lease) },
		"fence":              func(n *node) { r.choice(n, &d.Fence, []string{"auto", "on", "off"}, nil) },
		"replay":             func(n *node) { r.choice(n, &d.Replay, []string{"sealed", "window", "off"}, nil) },
		"window":             func(n *node) { r.duration(n, carp.MinWindow, carp.MaxWindow, &d.Window) },
		"compat":             func(n *node) { r.choice(n, &d.Compat, []string{"none", "bsd"}, nil) },
		"families":           func(n *node) { r.choice(n, &d.Families, []string{"shared", "each"}, nil) },
		"roll":               func(n *node) { r.duration(n, time.Second, 24*time.Hour, &d.Roll) },
		"groups":             func(n *node) { r.memberships(n, d) },
		"hooks":              func(n *node) { d.Hooks = r.hooks(n) },
		"on_contest":         func(n *node) { r.choice(n, &d.OnContest, []string{"regate", "yield", "keep"}, nil) },
		"release_budget":     func(n *node) { r.duration(n, time.Second, time.Hour, &d.ReleaseBudget) },
	})
	if n.kind != mapping {
		return d
	}
	for _, key := range []string{"vhid", "addresses"} {
		if _, given := d.at[key]; !given {
			r.fault(n.at, "", "%s is missing", key)
		}
	}
	r.addressesFit(d)
	if _, given := d.at["preempt_grace"]; !given {
		d.PreemptGrace = graceFor(len(d.Held()))
	}
	r.peersFit(d)
	r.tracksFit(d)
	r.protocol(d, interval, checksum)
	r.secret(d, inline, file)
	return d
}

// graceEach is what one address may take the old master to take off, four times what
// it takes an idle machine.
const graceEach = 200 * time.Microsecond

// graceFor is how long a preempting node leaves the old master to take so many
// addresses off, unless the file says so. A master that says farewell ends it.
func graceFor(addresses int) time.Duration {
	return max(DefaultPreemptGrace, time.Duration(addresses)*graceEach)
}

// warnings says what is allowed and yet probably not meant.
func (r *reader) warnings(d *draft) {
	if d.AdvSkew > 240 {
		r.warn(d.at["advskew"], "use 240", "advskew: more than 240 is sent as 240, like a demoted node's")
	}
	for _, key := range []string{"preempt_delay", "preempt_grace"} {
		// An owner of VRRP preempts whatever preempt says.
		if at, given := d.at[key]; given && !d.Preempt && d.Priority != carp.OwnerPriority {
			r.warn(at, "set preempt: true as well", "%s has no effect without preempt", key)
		}
	}
	if at, given := d.at["source_mac"]; given && d.SourceMAC == "virtual" && len(d.Peers) > 0 {
		r.warn(at, "remove the key", "source_mac: virtual has no effect with peers: adverts to them come from the interface's own MAC")
	}
	if at, given := d.at["window"]; given && !d.VRRP() && d.Replay != "" && d.Replay != carp.ReplaySealed.String() {
		r.warn(at, "set replay: sealed as well, or remove the key", "window has no effect with replay: %s", d.Replay)
	}
	switch at, given := d.at["families"]; {
	case d.VRRP():
	case given && d.Families == "shared" && d.Compat == "bsd":
		r.warn(at, "", "families: shared has no effect: compat: bsd means each")
	case given && d.Families == "each" && !d.hasBothFamilies():
		r.warn(at, "", "families: each has no effect: all addresses are of one family")
	}
}

func (d *draft) hasBothFamilies() bool {
	is4 := func(p netip.Prefix) bool { return p.Addr().Is4() }
	return slices.ContainsFunc(d.Addresses, is4) && slices.ContainsFunc(d.Addresses, func(p netip.Prefix) bool { return !is4(p) })
}

// linkNameMax is IFNAMSIZ without the zero at its end.
const linkNameMax = 15

// link reads the name of an interface by the kernel's rule (dev_valid_name).
// The interface need not exist: it may come later.
func (r *reader) link(n *node, into *string) {
	text, ok := r.str(n, "the name of an interface")
	if !ok {
		return
	}
	bad := func(c rune) bool { return c == '/' || c == ':' || unicode.IsSpace(c) || !unicode.IsPrint(c) }
	switch {
	case len(text) > linkNameMax:
		r.fault(n.at, "", "interface: %q is longer than %d bytes, which no interface's name is", text, linkNameMax)
	case text == "." || text == ".." || strings.ContainsFunc(text, bad):
		r.fault(n.at, "see ip link for the names", "interface: %q is not the name of an interface", text)
	case text == "lo":
		r.fault(n.at, "name the interface that the other nodes are reached by", "interface: adverts on lo reach no other node")
	default:
		*into = text
	}
}

// refresh reads a duration, of which 0 is none.
func (r *reader) refresh(n *node, into *time.Duration) {
	d, ok := r.anyDuration(n)
	switch {
	case !ok:
	case d == 0:
		*into = 0
	case d < time.Second || d > time.Hour:
		r.fault(n.at, "write 0 for none", "%s: %s is out of range: want 0, or 1s to 1h", n.key, n.text)
	default:
		*into = d
	}
}

func (r *reader) memberships(n *node, d *draft) {
	for _, item := range r.list(n, "names", MaxGroups) {
		var name string
		r.group(item, &name)
		if slices.Contains(d.Groups, name) {
			r.fault(item.at, "keep one of them", "groups: %s is given twice", name)
		} else if name != "" {
			d.Groups = append(d.Groups, name)
			d.groups = append(d.groups, placed[string]{name, item.at})
		}
	}
}

func (r *reader) lease(n *node, into *LeaseSetting) {
	text, ok := r.str(n, "on, off or whole seconds")
	if !ok {
		return
	}
	if on, ok := truth(text); ok {
		*into = LeaseSetting{Off: !on}
		return
	}
	v, err := parseDuration(text)
	switch {
	case err != nil:
		r.fault(n.at, "write on, off, or whole seconds like 2s", "lease: %q is not a lease", text)
	case v%time.Second != 0:
		r.fault(n.at, "write whole seconds like 2s", "lease: %s has a fraction: the kernel counts lifetimes in whole seconds", text)
	case v < time.Second || v > time.Hour:
		r.fault(n.at, "", "lease: %s is out of range: want 1s to 1h", text)
	default:
		*into = LeaseSetting{Valid: v}
	}
}
