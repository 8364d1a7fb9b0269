package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/hooks"
)

// phases lists the words for on.
func phases() (words []string) {
	for p := hooks.BeforeUp; p <= hooks.AfterDown; p++ {
		words = append(words, p.String())
	}
	return words
}

// policies lists the words for if_it_fails after a phase, its default first;
// none if there is no such phase.
func policies(phase string) (words []string) {
	p, err := hooks.ParsePhase(phase)
	if err != nil {
		return nil
	}
	for _, policy := range p.Policies() {
		words = append(words, policy.String())
	}
	return words
}

// What a later version will have, and what it is for. Constant.
var (
	plannedPhases   = map[string]string{"monitor": "watching a resource all the time"}
	plannedPolicies = map[string]string{
		"reboot":        "restarting a node that cannot let go",
		"stop-watchdog": "letting the watchdog restart a node that cannot let go",
	}
	plannedKinds = func() map[string]string {
		kinds := make(map[string]string)
		for k := range strings.FieldsSeq("devd fifo syslog webhook systemd proxysql mysql hast drbd haproxy galera glb tcp http script process file") {
			kinds[k] = "a kind of hook"
		}
		return kinds
	}()
)

// hooks reads a list of hooks.
func (r *reader) hooks(n *node) []Hook {
	if n.kind != list {
		r.fault(n.at, "begin each hook with \"- \"", "hooks: want a list, %s", n.found())
		return nil
	}
	var all []Hook
	for _, item := range r.list(n, "hooks", MaxHooks) {
		all = append(all, r.hook(item))
	}
	return all
}

func (r *reader) hook(n *node) Hook {
	h := Hook{Timeout: DefaultHookTimeout, Line: n.at.line, Column: n.at.column, src: r.source}
	var policy *node
	before := r.faults
	at := r.fields(n, hookKeys, setters{
		"kind":        func(n *node) { r.kind(n, &h.Kind) },
		"name":        func(n *node) { r.word(n, 64, &h.Name) },
		"on":          func(n *node) { r.choice(n, &h.On, phases(), plannedPhases) },
		"timeout":     func(n *node) { r.duration(n, time.Millisecond, time.Hour, &h.Timeout) },
		"if_it_fails": func(n *node) { policy = n },
		"with":        func(n *node) { h.with = r.with(n) },
	})
	if n.kind != mapping {
		return h
	}
	for _, key := range []string{"kind", "on"} {
		if _, given := at[key]; !given {
			r.fault(n.at, "", "hook: %s is missing", key)
		}
	}
	r.policy(policy, &h)
	if r.faults == before {
		r.check(h)
	}
	return h
}

func (r *reader) kind(n *node, into *string) {
	if r.options.Kinds == nil {
		r.word(n, 32, into)
		return
	}
	planned := make(map[string]string)
	for k, purpose := range plannedKinds {
		if !slices.Contains(r.options.Kinds, k) {
			planned[k] = purpose
		}
	}
	r.choice(n, into, r.options.Kinds, planned)
}

func (r *reader) with(n *node) *node {
	if n.kind != mapping && n.kind != empty {
		r.fault(n.at, "write with: {key: value}", "with: want a mapping, %s", n.found())
		return nil
	}
	return n
}

// policy sets IfItFails. Without a sound phase nobody can say what is allowed.
func (r *reader) policy(n *node, h *Hook) {
	allowed := policies(h.On)
	if allowed == nil {
		return
	}
	h.IfItFails = allowed[0]
	if n == nil {
		return
	}
	elsewhere := func(phase string) bool { return slices.Contains(policies(phase), n.text) }
	if n.kind == scalar && slices.ContainsFunc(phases(), elsewhere) && !slices.Contains(allowed, n.text) {
		r.fault(n.at, "use "+oneOf(allowed), "if_it_fails: %s cannot follow from a hook on %s", n.text, h.On)
		return
	}
	planned := plannedPolicies
	if h.On != hooks.AfterDown.String() {
		planned = nil
	}
	r.choice(n, &h.IfItFails, allowed, planned)
}

// named gives the hooks without a name one that is not in taken, and returns
// the names of all. A name that is given twice is a fault.
func (r *reader) named(all []Hook, taken []string) []string {
	names := slices.Clone(taken)
	for _, h := range all {
		if h.Name == "" {
			continue
		}
		if slices.Contains(names, h.Name) {
			r.fault(pos{h.Line, h.Column}, "choose another name", "hook: the name %s is taken", h.Name)
		}
		names = append(names, h.Name)
	}
	for i := range all {
		h := &all[i]
		if h.Name != "" {
			continue
		}
		h.Name = h.Kind + "-" + h.On
		for n := 2; slices.Contains(names, h.Name); n++ {
			h.Name = fmt.Sprintf("%s-%s-%d", h.Kind, h.On, n)
		}
		names = append(names, h.Name)
	}
	return names
}
