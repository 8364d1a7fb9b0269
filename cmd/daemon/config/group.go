package config

import (
	"fmt"
	"slices"
	"time"
)

// Together is a group whose instances have one role on each node: they move as one, with
// the resources of the group.
type Together struct {
	Name  string
	Hooks []Hook // resources and monitors

	Line, Column int // where it begins in the file
}

// Equal reports whether two groups say the same, wherever they stand in a file.
func (t Together) Equal(o Together) bool {
	return t.Name == o.Name && slices.EqualFunc(t.Hooks, o.Hooks, func(a, b Hook) bool { return a.Name == b.Name && a.Equal(b) })
}

// MovesWith returns the group that an instance moves with, or nil.
func (f *File) MovesWith(i Instance) *Together {
	for n := range f.Together {
		if slices.Contains(i.Groups, f.Together[n].Name) {
			return &f.Together[n]
		}
	}
	return nil
}

// declared reads the groups: a list of names, or a mapping of names to settings, which
// may be empty.
func (r *reader) declared(n *node, f *File) {
	add := func(n *node) (name string) {
		r.group(n, &name)
		if slices.Contains(f.Groups, name) {
			r.fault(n.at, "keep one of them", "groups: %s is declared twice", name)
		} else if name != "" {
			f.Groups = append(f.Groups, name)
		}
		return name
	}
	if n.kind != mapping {
		for _, item := range r.list(n, "names", MaxGroups) {
			add(item)
		}
		return
	}
	for _, e := range n.entries {
		name := add(&node{at: e.at, key: n.key, kind: scalar, text: e.key})
		if v := e.value; v.kind != empty && (v.kind != mapping || len(v.entries) > 0) {
			r.settings(v, name, f)
		}
	}
	if len(f.Groups) > MaxGroups {
		r.fault(n.at, "", "groups: more than %d", MaxGroups)
	}
}

// settings reads what a group is more than a name.
func (r *reader) settings(n *node, name string, f *File) {
	g := Together{Name: name, Line: n.at.line, Column: n.at.column}
	together := false
	at := r.fields(n, groupKeys, setters{
		"together": func(n *node) { r.yes(n, &together) },
		"hooks":    func(n *node) { g.Hooks = r.hooks(n) },
	})
	if p, given := at["hooks"]; given && !together {
		r.fault(p, "say together: true as well", "hooks of group %s: its instances do not move together", name)
	}
	for _, h := range g.Hooks {
		if h.On != "" && h.On != OnMonitor {
			r.fault(pos{h.Line, h.Column}, "give it to the instances", "hooks of group %s: a group has resources and monitors only", name)
		}
	}
	if together {
		f.Together = append(f.Together, g)
	}
}

func (r *reader) group(n *node, into *string) { r.word(n, 32, into) }

// groupsFit checks the instances that move together, and what is shared.
func (r *reader) groupsFit(f *File, drafts []*draft) {
	for n := range f.Together {
		g := &f.Together[n]
		var first *draft
		for _, d := range drafts {
			if !slices.Contains(d.Groups, g.Name) {
				continue
			}
			if other := f.MovesWith(d.Instance); other != g {
				r.fault(d.begin, "keep one of them", "%s would move with group %s and with group %s", d.Name, other.Name, g.Name)
			}
			if first == nil {
				first = d
				continue
			}
			if a, b := first.standing(), d.standing(); a != b {
				r.fault(d.begin, "give all instances of the group the same", "%s and %s move together, and stand for election differently: %s and %s",
					first.Name, d.Name, a, b)
			}
		}
		if first == nil {
			r.warn(pos{g.Line, g.Column}, "say groups: ["+g.Name+"] in those that are to", "no instance is in group %s", g.Name)
		}
	}
	for _, d := range drafts {
		r.budgetFits(f, d)
	}
	if len(drafts) < 2 {
		return
	}
	for _, h := range f.Hooks {
		if h.On == "" {
			r.fault(pos{h.Line, h.Column}, "give it to the one instance that it moves with, or to a group with together: true",
				"hooks of the file: %s is a resource, and every instance would move it", h.Kind)
		}
	}
}

// budgetFits warns of a release budget that ends while resources may still be let go of.
func (r *reader) budgetFits(f *File, d *draft) {
	all := f.HooksOf(d.Instance)
	if g := f.MovesWith(d.Instance); g != nil {
		all = append(all, g.Hooks...)
	}
	needed := time.Duration(0)
	for _, h := range all {
		if h.On == "" {
			needed += h.Release
		}
	}
	if d.ReleaseBudget > 0 && d.ReleaseBudget < needed {
		r.warn(d.at["release_budget"], fmt.Sprintf("give %v or more, or leave it out", needed),
			"release_budget: its resources may take %v to be demoted, and the next master does not wait longer than this", needed)
	}
}

// standing says what an instance stands for election with.
func (d *draft) standing() string {
	if d.VRRP() {
		return fmt.Sprintf("%s, priority %d, interval %v, preempt %t", d.Protocol, d.Priority, d.Interval, d.Preempt)
	}
	return fmt.Sprintf("advbase %d, advskew %d, replay %s, preempt %t", d.AdvBase, d.AdvSkew, d.Replay, d.Preempt)
}
