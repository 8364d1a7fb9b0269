package config

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Change is one difference between two files. Its String is one line for an
// operator and holds no passphrase.
type Change struct {
	What     What
	Instance string // name in the new file, in the old one if removed; empty for the file's own keys
	Label    string // of the instance, see Instance.Label
	Key      string // that changed; empty if the whole instance was added or removed
	Text     string // what happened to it: "0 -> 100"
	Restart  bool   // takes effect when the daemon starts only
}

// What says what a Change is about.
type What uint8

// The kinds of changes.
const (
	Changed What = iota // one key of the file or of an instance
	Added               // an instance
	Removed             // an instance
)

func (w What) String() string { return [...]string{"changed", "added", "removed"}[w] }

func (c Change) String() string {
	s := strings.TrimSpace(c.Key + " " + c.Text)
	if c.Label != "" {
		s = c.Label + ": " + s
	}
	if c.Restart {
		s += " (needs a restart)"
	}
	return s
}

// setting is one key as a text that is equal if and only if the values are.
type setting struct{ key, text string }

// Diff lists what changes from f to the new file: keys of the file first, then
// instances in the order of the old file, then added ones. Pair says which
// instances are the same. Equal files, however written, give nothing.
func (f *File) Diff(new *File) []Change {
	changes := f.diffTop(new)
	at := Pair(f.Instances, new.Instances)
	for n, old := range f.Instances {
		if at[n] < 0 {
			changes = append(changes, old.change(Removed, "", "removed"))
			continue
		}
		changes = append(changes, old.diff(new.Instances[at[n]])...)
	}
	for n, added := range new.Instances {
		if !slices.Contains(at, n) {
			changes = append(changes, added.change(Added, "", "added with "+joinSome(texts(added.Held()))))
		}
	}
	return changes
}

// Pair returns, for each of old, which of new is the same instance, or -1: the one
// with its id, interface and kind. Where there is none, it is the one with its id,
// interface and name, which then has changed its protocol or family.
func Pair(old, new []Instance) []int {
	at, taken := make([]int, len(old)), make([]bool, len(new))
	for n := range at {
		at[n] = -1
	}
	for _, same := range []func(a, b Instance) bool{
		func(a, b Instance) bool { return a.Kind() == b.Kind() },
		func(a, b Instance) bool { return a.Name == b.Name },
	} {
		for n, o := range old {
			for m, i := range new {
				if at[n] < 0 && !taken[m] && o.VHID == i.VHID && o.Interface == i.Interface && same(o, i) {
					at[n], taken[m] = m, true
				}
			}
		}
	}
	return at
}

func (i Instance) change(what What, key, text string) Change {
	return Change{What: what, Instance: i.Name, Label: i.Label(), Key: key, Text: text}
}

func (f *File) diffTop(new *File) []Change {
	var changes []Change
	was, is := f.settings(), new.settings()
	for n, w := range was {
		if w != is[n] {
			changes = append(changes, Change{Key: w.key, Text: w.text + " -> " + is[n].text, Restart: true})
		}
	}
	if f.Listen != new.Listen {
		changes = append(changes, Change{Key: "listen", Text: none(f.Listen) + " -> " + none(new.Listen)})
	}
	if text := listDiff(f.Groups, new.Groups); text != "" {
		changes = append(changes, Change{Key: "groups", Text: text})
	}
	for _, name := range f.Groups {
		was, is := f.together(name), new.together(name)
		if text := hooksDiff(was.Hooks, is.Hooks); text != "" || was.Name != is.Name {
			changes = append(changes, Change{Key: "group " + name, Text: "its instances and what moves with them", Restart: true})
		}
	}
	if text := hooksDiff(f.Hooks, new.Hooks); text != "" {
		changes = append(changes, Change{Key: "hooks", Text: text})
	}
	if text := replicationDiff(f.Replication, new.Replication); text != "" {
		changes = append(changes, Change{Key: "replication", Text: text})
	}
	return changes
}

// settings are the keys that only a start reads.
func (f *File) settings() []setting {
	id := "none"
	if f.NodeID != 0 {
		id = fmt.Sprint(f.NodeID)
	}
	return []setting{{"node", f.Node}, {"node_id", id}, {"state_dir", f.StateDir}, {"control", f.Control}, {"guardian", onOff(f.Guardian)}}
}

// none is what a missing text is called.
func none(text string) string { return cmp.Or(text, "none") }

// onOff is a truth as it is written in a file.
func onOff(v bool) string {
	if v {
		return "on"
	}
	return "off"
}

// diff lists the changed keys of one instance.
func (i Instance) diff(new Instance) []Change {
	var changes []Change
	frozen := i.Frozen(new)
	add := func(key, text string) {
		if text != "" {
			c := new.change(Changed, key, text)
			c.Restart = slices.Contains(frozen, key)
			changes = append(changes, c)
		}
	}
	is := new.settings()
	for _, w := range i.settings() {
		n := slices.IndexFunc(is, func(s setting) bool { return s.key == w.key })
		if n >= 0 && w.text != is[n].text { // the other protocol may not have the key
			add(w.key, w.text+" -> "+is[n].text)
		}
	}
	if !bytes.Equal(i.Passphrase, new.Passphrase) {
		add("passphrase", passphraseChange(i.Passphrase, new.Passphrase))
	}
	add("addresses", listDiff(texts(i.Addresses), texts(new.Addresses)))
	add("addresses_excluded", listDiff(texts(i.Excluded), texts(new.Excluded)))
	add("peers", peersDiff(i, new))
	add("paths", listDiff(texts(i.Paths), texts(new.Paths)))
	add("track", listDiff(texts(i.Track), texts(new.Track)))
	add("groups", listDiff(i.Groups, new.Groups))
	add("hooks", hooksDiff(i.Hooks, new.Hooks))
	return changes
}

// Frozen lists the keys that differ in new and that cannot change while the
// instance runs: its link or its device would have to be made anew, and it would
// lose its role.
func (i Instance) Frozen(new Instance) []string {
	var keys []string
	for _, k := range []struct {
		key  string
		same bool
	}{
		{"name", i.Name == new.Name},
		{"protocol", i.Protocol == new.Protocol},
		{"source_mac", i.SourceMAC == new.SourceMAC},
		{"mac", i.MAC == new.MAC},
		{"peers", slices.Equal(i.Peers, new.Peers)},
		{"paths", slices.EqualFunc(i.Paths, new.Paths, Path.equal)},
		{"addresses", i.Kind() == new.Kind() || i.Protocol != new.Protocol}, // to the other family
	} {
		if !k.same {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// settings are the keys with a single value that may be shown, those of the
// protocol among them.
func (i Instance) settings() []setting {
	own := []setting{
		{"advbase", fmt.Sprint(i.AdvBase)}, {"advskew", fmt.Sprint(i.AdvSkew)}, {"replay", i.Replay}, {"window", brief(i.Window)},
		{"compat", i.Compat},
		{"families", i.Families}, {"roll", brief(i.Roll)},
	}
	if i.VRRP() {
		own = []setting{{"priority", fmt.Sprint(i.Priority)}, {"interval", brief(i.Interval)}}
	}
	if i.Checksum != "" {
		own = append(own, setting{"checksum", i.Checksum})
	}
	return slices.Concat([]setting{{"name", i.Name}, {"protocol", i.Protocol}, {"source_mac", i.SourceMAC}, {"mac", i.MAC}}, own, []setting{
		{"preempt", fmt.Sprint(i.Preempt)}, {"preempt_delay", brief(i.PreemptDelay)},
		{"preempt_grace", brief(i.PreemptGrace)}, {"startup_delay", brief(i.StartupDelay)}, {"lease", i.Lease.String()}, {"fence", i.Fence},
		{"announce_refresh", brief(i.AnnounceRefresh)}, {"on_conflict", i.OnConflict},
		{"on_contest", i.OnContest}, {"release_budget", brief(i.ReleaseBudget)},
	})
}

// peersDiff says which peers are new, gone, or have other bounds of their TTL.
func peersDiff(was, is Instance) string {
	text := listDiff(texts(was.Peers), texts(is.Peers))
	for _, p := range is.Peers {
		if old, new := was.bounds(p), is.bounds(p); old != new && slices.Contains(was.Peers, p) {
			if text != "" {
				text += ", "
			}
			text += fmt.Sprintf("TTL of %v %s -> %s", p, old, new)
		}
	}
	return text
}

// bounds are those of a peer's TTL, for an operator.
func (i Instance) bounds(peer netip.Addr) string {
	b, bounded := i.PeerTTL[peer]
	if !bounded || b.Min == 0 && b.Max == 255 {
		return "any"
	}
	return fmt.Sprintf("%d to %d", b.Min, b.Max)
}

func passphraseChange(was, is []byte) string {
	switch {
	case was == nil:
		return "set"
	case is == nil:
		return "removed"
	}
	return "changed"
}

func texts[T fmt.Stringer](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = v.String()
	}
	return out
}

// listDiff says what was added to a list and removed from it, or nothing.
func listDiff(was, is []string) string {
	if slices.Equal(was, is) {
		return ""
	}
	var parts []string
	if added := without(is, was); len(added) > 0 {
		parts = append(parts, "added "+joinSome(added))
	}
	if removed := without(was, is); len(removed) > 0 {
		parts = append(parts, "removed "+joinSome(removed))
	}
	if parts == nil {
		return "in another order"
	}
	return strings.Join(parts, ", ")
}

func without(list, other []string) []string {
	known := make(map[string]bool, len(other))
	for _, s := range other {
		known[s] = true
	}
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return known[s] })
}

// joinSome joins a list that may have a thousand entries for one line.
func joinSome(list []string) string {
	const most = 8
	if len(list) <= most {
		return strings.Join(list, " ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], " "), len(list)-most)
}

// together returns a group that moves as one; the zero value where it does not.
func (f *File) together(name string) Together {
	for _, g := range f.Together {
		if g.Name == name {
			return g
		}
	}
	return Together{}
}

// hooksDiff says by name which hooks are new, gone or different. What is in
// `with` is compared and not shown: it may hold a secret.
func hooksDiff(was, is []Hook) string {
	names := func(hooks []Hook) []string {
		out := make([]string, len(hooks))
		for i, h := range hooks {
			out[i] = h.Name
		}
		return out
	}
	parts := listDiff(names(was), names(is))
	var changed []string
	for _, h := range was {
		i := slices.IndexFunc(is, func(o Hook) bool { return o.Name == h.Name })
		if i >= 0 && !h.Equal(is[i]) {
			changed = append(changed, h.Name)
		}
	}
	if changed == nil {
		return parts
	}
	text := "changed " + joinSome(changed)
	if parts != "" {
		text = parts + ", " + text
	}
	return text
}

// Equal reports whether two entries say the same, wherever they stand in a file.
func (h Hook) Equal(o Hook) bool {
	return h.Kind == o.Kind && h.On == o.On && h.Timeout == o.Timeout && h.IfItFails == o.IfItFails && h.Release == o.Release &&
		h.IfItStays == o.IfItStays && h.Interval == o.Interval && h.LookTimeout == o.LookTimeout && h.Grace == o.Grace &&
		h.Rise == o.Rise && h.Fall == o.Fall && h.Weight == o.Weight && sameValue(h.with, o.with)
}
