package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carpd/carpd/hooks"
)

// OnMonitor is what Hook.On says of a monitor.
const OnMonitor = "monitor"

// phases lists the words for on.
func phases() (words []string) {
	for p := hooks.BeforeUp; p <= hooks.AfterDown; p++ {
		words = append(words, p.String())
	}
	return words
}

// class is what the entry of a hook is of, by its key on.
func class(on string) hooks.Class {
	switch on {
	case "":
		return hooks.ResourceClass
	case OnMonitor:
		return hooks.MonitorClass
	}
	return hooks.Notification
}

// policies lists the words for if_it_fails after what on says, its default first;
// none if there is no such phase.
func policies(on string) []string {
	switch class(on) {
	case hooks.ResourceClass:
		return []string{hooks.Retreat.String()}
	case hooks.MonitorClass:
		return wordsOf(hooks.MonitorPolicies())
	}
	p, err := hooks.ParsePhase(on)
	if err != nil {
		return nil
	}
	return wordsOf(p.Policies())
}

func wordsOf(policies []hooks.Policy) (words []string) {
	for _, p := range policies {
		words = append(words, p.String())
	}
	return words
}

// plannedKinds are those of a later version, and what they are for. Constant.
var plannedKinds = func() map[string]string {
	kinds := make(map[string]string)
	for k := range strings.FieldsSeq("devd") {
		kinds[k] = "a kind of hook"
	}
	return kinds
}()

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
	var kind, policy *node
	before := r.faults
	span := func(into *time.Duration) func(*node) {
		return func(n *node) { r.duration(n, time.Millisecond, time.Hour, into) }
	}
	count := func(high int, into *uint8) func(*node) { return func(n *node) { r.number(n, 1, high, into) } }
	at := r.fields(n, hookKeys, setters{
		"kind":            func(n *node) { kind = n },
		"name":            func(n *node) { r.word(n, 64, &h.Name) },
		"on":              func(n *node) { r.choice(n, &h.On, append(phases(), OnMonitor), nil) },
		"timeout":         span(&h.Timeout),
		"if_it_fails":     func(n *node) { policy = n },
		"with":            func(n *node) { h.with = r.with(n) },
		"release_timeout": span(&h.Release),
		"if_it_stays":     func(n *node) { r.choice(n, &h.IfItStays, wordsOf(hooks.StuckPolicies()), nil) },
		"interval":        span(&h.Interval),
		"look_timeout":    span(&h.LookTimeout),
		"rise":            count(100, &h.Rise),
		"fall":            count(100, &h.Fall),
		"weight":          count(254, &h.Weight),
		"grace":           span(&h.Grace),
	})
	if n.kind != mapping {
		return h
	}
	if kind == nil {
		r.fault(n.at, "", "hook: kind is missing")
	} else {
		r.kind(kind, &h, at)
	}
	r.place(&h, at)
	r.policy(policy, &h)
	if r.faults == before {
		r.check(h)
	}
	return h
}

// kind reads the kind of an entry. One without on is a resource.
func (r *reader) kind(n *node, h *Hook, at map[string]pos) {
	if r.options.Kinds == nil {
		r.word(n, 32, &h.Kind)
		return
	}
	_, placed := at["on"]
	if placed && h.On == "" {
		return // a fault already
	}
	known := r.options.Kinds(class(h.On))
	if n.kind == scalar && !slices.Contains(known, n.text) {
		if does, looks := whatLooks(n.text); class(h.On) == hooks.MonitorClass && slices.Contains(known, looks) {
			r.fault(n.at, "use kind: "+looks+", "+does, "kind: %s is no %v", n.text, class(h.On))
			return
		}
		for _, other := range []struct {
			class hooks.Class
			hint  string
		}{
			{hooks.Notification, "say when it runs: on: " + oneOf(phases())},
			{hooks.ResourceClass, "remove on: it is promoted and demoted with the role"},
			{hooks.MonitorClass, "write on: monitor"},
		} {
			if slices.Contains(r.options.Kinds(other.class), n.text) {
				r.fault(n.at, other.hint, "kind: %s is no %v", n.text, class(h.On))
				return
			}
		}
	}
	r.choice(n, &h.Kind, known, plannedKinds)
}

// whatLooks names the monitor that does for looking what a kind does for acting.
func whatLooks(kind string) (does, looks string) {
	switch kind {
	case "exec":
		return "which looks by a program", "script"
	case "systemd":
		return "which looks at a unit", "process"
	case "webhook":
		return "which asks a web server", "http"
	}
	return "", ""
}

// place checks that each key belongs to what the entry is.
func (r *reader) place(h *Hook, at map[string]pos) {
	for _, only := range []struct {
		key string
		of  []hooks.Class
	}{
		{"release_timeout", []hooks.Class{hooks.ResourceClass}},
		{"if_it_stays", []hooks.Class{hooks.ResourceClass}},
		{"grace", []hooks.Class{hooks.ResourceClass}},
		{"interval", []hooks.Class{hooks.ResourceClass, hooks.MonitorClass}},
		{"look_timeout", []hooks.Class{hooks.ResourceClass, hooks.MonitorClass}},
		{"rise", []hooks.Class{hooks.ResourceClass, hooks.MonitorClass}},
		{"fall", []hooks.Class{hooks.ResourceClass, hooks.MonitorClass}},
		{"weight", []hooks.Class{hooks.ResourceClass, hooks.MonitorClass}},
		{"timeout", []hooks.Class{hooks.ResourceClass, hooks.Notification}},
	} {
		if p, given := at[only.key]; given && !slices.Contains(only.of, class(h.On)) {
			r.fault(p, "remove the key", "%s: a %v has none", only.key, class(h.On))
		}
	}
	if class(h.On) == hooks.ResourceClass {
		if _, given := at["release_timeout"]; !given {
			h.Release = h.Timeout
		}
		if h.IfItStays == "" {
			h.IfItStays = hooks.Alarm.String()
		}
	}
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
		r.fault(n.at, "use "+oneOf(allowed), "if_it_fails: %s cannot follow from %s", n.text, h.what())
		return
	}
	r.choice(n, &h.IfItFails, allowed, nil)
}

// what names the entry in a message.
func (h *Hook) what() string {
	if h.On == "" {
		return "a resource"
	}
	return "a hook on " + h.On
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
		plain := strings.TrimSuffix(h.Kind+"-"+h.On, "-")
		h.Name = plain
		for n := 2; slices.Contains(names, h.Name); n++ {
			h.Name = fmt.Sprintf("%s-%d", plain, n)
		}
		names = append(names, h.Name)
	}
	return names
}
