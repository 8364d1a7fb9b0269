// Package keepalived says in keepalived's words what an event is, for the kinds that
// speak to programs that were written for it: the arguments of its notify scripts and the
// lines of its notify_fifo.
package keepalived

import (
	"strconv"

	"github.com/carpd/carpd/carp"
	"github.com/carpd/carpd/hooks"
)

// DefaultPriority stands for the priority where none is configured: CARP has none. It is
// keepalived's own default.
const DefaultPriority = 100

// State is the state of an event in keepalived's words, which has FAULT for an interface
// that is down and STOP for a daemon that ends.
func State(ev hooks.Event) string {
	switch {
	case ev.Reason == carp.ReasonStopping:
		return "STOP"
	case ev.To == carp.Master:
		return "MASTER"
	case ev.To == carp.Init:
		return "FAULT"
	}
	return "BACKUP"
}

// Arguments returns what a notify script gets. A priority of 0 means DefaultPriority.
func Arguments(name string, ev hooks.Event, priority int) []string {
	if priority == 0 {
		priority = DefaultPriority
	}
	return []string{"INSTANCE", name, State(ev), strconv.Itoa(priority)}
}

// Line returns the line that keepalived writes to its notify_fifo, with the newline at its
// end. A priority of 0 means DefaultPriority.
func Line(name string, ev hooks.Event, priority int) string {
	a := Arguments(name, ev, priority)
	return a[0] + ` "` + a[1] + `" ` + a[2] + " " + a[3] + "\n"
}
