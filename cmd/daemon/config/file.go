package config

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// draft is an instance that is being read, with what the checks across
// instances need.
type draft struct {
	Instance
	at        map[string]pos // where its keys are
	begin     pos
	preempt   *bool
	addresses []placedPrefix
	excluded  []placedPrefix
	peers     []placed[netip.Addr]
	bounds    []placed[string] // the keys of PeerTTL
	groups    []placed[string]
	further   []placed[Path]
	gateways  []placed[netip.Addr]
}

// placed is a value and where it stands.
type placed[T any] struct {
	value T
	at    pos
}

type placedPrefix = placed[netip.Prefix]

// file reads the whole document.
func (r *reader) file(doc *node) *File {
	if doc.kind == list {
		r.fault(doc.at, "begin the file with the line instances:", "the file is a mapping: found a list")
		return nil
	}
	f := &File{StateDir: DefaultStateDir, Control: DefaultControl, Guardian: true}
	var drafts []*draft
	var replications []pos
	at := r.fields(doc, fileKeys, setters{
		"node":      func(n *node) { r.word(n, 64, &f.Node) },
		"node_id":   func(n *node) { r.number(n, 1, 255, &f.NodeID) },
		"state_dir": func(n *node) { r.absolute(n, &f.StateDir) },
		"control":   func(n *node) { r.socket(n, &f.Control) },
		"listen":    func(n *node) { r.listen(n, &f.Listen) },
		"guardian":  func(n *node) { r.yes(n, &f.Guardian) },
		"preempt":   func(n *node) { r.yes(n, &f.Preempt) },
		"groups":    func(n *node) { r.declared(n, f) },
		"hooks":     func(n *node) { f.Hooks = r.hooks(n) },
		"instances": func(n *node) { drafts = r.instances(n, f) },

		"replication": func(n *node) { replications = r.replications(n, f) },
	})
	if _, ok := at["instances"]; !ok && doc.kind == mapping {
		r.fault(pos{}, "see carpd.yaml(5) for an example of six lines", "no instances: there is nothing to do")
	}
	if _, ok := at["node"]; !ok {
		r.hostname(f)
	}
	r.together(f, drafts)
	r.replicationFits(f, drafts, replications)
	for _, d := range drafts {
		f.Instances = append(f.Instances, d.Instance)
	}
	return f
}

func (r *reader) hostname(f *File) {
	name, err := r.options.Hostname()
	if err != nil || name == "" {
		r.fault(pos{}, "give the key node", "node: the system has no host name")
		return
	}
	f.Node = name
}

// socketPathMax is what sockaddr_un holds, without the zero at its end.
const socketPathMax = 107

func (r *reader) socket(n *node, into *string) {
	r.absolute(n, into)
	if len(*into) > socketPathMax {
		r.fault(n.at, "choose a shorter directory", "control: longer than %d bytes, which no unix socket can have", socketPathMax)
	}
}

// listen reads where metrics are served.
func (r *reader) listen(n *node, into *string) {
	const hint = "write ADDRESS:PORT, like 127.0.0.1:9550 or [::1]:9550, or :PORT for all addresses"
	text, ok := r.str(n, "an address and port")
	if !ok {
		return
	}
	whole := text
	if strings.HasPrefix(text, ":") {
		whole = "0.0.0.0" + text
	}
	a, err := netip.ParseAddrPort(whole)
	switch {
	case err != nil:
		r.fault(n.at, hint, "%s: %q is not an address and port", n.key, text)
	case a.Port() == 0:
		r.fault(n.at, hint, "%s: port 0 would be another one at each start", n.key)
	default:
		*into = text
	}
}

func (r *reader) instances(n *node, f *File) []*draft {
	if n.kind != list {
		r.fault(n.at, "begin each instance with \"- \"", "instances: want a list, %s", n.found())
		return nil
	}
	if len(n.items) == 0 {
		r.fault(n.at, "see carpd.yaml(5) for an example of six lines", "instances is empty: there is nothing to do")
	}
	var drafts []*draft
	for _, item := range r.list(n, "instances", MaxInstances) {
		drafts = append(drafts, r.instance(item))
	}
	return drafts
}

// together fills in what depends on the rest of the file, and checks what
// instances must not share.
func (r *reader) together(f *File, drafts []*draft) {
	for _, d := range drafts {
		d.Preempt = f.Preempt
		if d.preempt != nil {
			d.Preempt = *d.preempt
		}
		r.interfaceOf(d)
		r.pathsFit(d)
		if d.Name == "" && d.VHID != 0 && d.Interface != "" {
			d.Name = defaultName(d.Instance)
		}
		r.warnings(d)
		for _, g := range d.groups {
			if !slices.Contains(f.Groups, g.value) {
				r.fault(g.at, undeclared(g.value, f.Groups), "groups: %s is not declared", g.value)
			}
		}
	}
	r.unique(drafts)
	r.groupsFit(f, drafts)
	r.sealedNodes(f, drafts)
	r.virtualMACs(drafts)
	r.hookNames(f, drafts)
}

func undeclared(name string, groups []string) string {
	if c := nearest(name, groups); c != "" {
		return didYouMean(name, []string{c})
	}
	return "declare it at the top level: groups: [" + name + "]"
}

// interfaceOf finds the interface of an instance that names none.
func (r *reader) interfaceOf(d *draft) {
	if _, given := d.at["interface"]; given || len(d.addresses) == 0 {
		return
	}
	first := d.addresses[0]
	names, err := r.options.Interfaces(first.value.Addr())
	switch {
	case err != nil:
		r.fault(first.at, "give the key interface", "cannot list the interfaces: %v", err)
	case len(names) == 0:
		r.fault(first.at, "give the key interface", "no interface has an address in the subnet of %v", first.value.Addr())
	case len(names) > 1:
		r.fault(first.at, "give the key interface", "several interfaces have an address in the subnet of %v: %s",
			first.value.Addr(), strings.Join(names, ", "))
	default:
		d.Interface = names[0]
	}
}

// hookNames gives hooks without a name one, and checks those given. It looks at
// the hooks of the file, of one instance and of its group together, as they run: alarms
// and demotions have their names.
func (r *reader) hookNames(f *File, drafts []*draft) {
	taken := r.named(f.Hooks, nil)
	for n := range f.Together {
		r.named(f.Together[n].Hooks, taken)
	}
	for _, d := range drafts {
		names := slices.Clone(taken)
		if g := f.MovesWith(d.Instance); g != nil {
			for _, h := range g.Hooks {
				names = append(names, h.Name)
			}
		}
		r.named(d.Hooks, names)
	}
}

// check asks the daemon about a hook.
func (r *reader) check(h Hook) {
	if r.options.CheckHook == nil {
		return
	}
	err := r.options.CheckHook(h)
	var ps Problems
	switch {
	case err == nil:
	case errors.As(err, &ps):
		for _, p := range ps {
			r.note(p)
		}
	default:
		p := h.Problem(err)
		p.Message = strings.ReplaceAll(p.Message, "\n", "; ") // errors.Join puts each on a line
		r.note(p)
	}
}
