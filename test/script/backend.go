package script

import (
	"fmt"
	"strings"
	"time"
)

// Backend is a world in which a scenario is played. It is used by one goroutine,
// and made for one file.
type Backend interface {
	// Do carries out a command that is neither run nor a question.
	Do(c Command) error
	// Run lets time pass until the scenario's clock shows to.
	Run(to time.Duration) error
	// Ask answers a question.
	Ask(c Command) (string, error)
	// Holders names who has the address now, sorted as the nodes are.
	Holders() ([]string, error)
	// State returns a node's state as status tells it.
	State(node string) (string, error)
	// Outage is how long a client got no answer since Mark.
	Outage(client string) (time.Duration, error)
	// Mark begins Outage anew.
	Mark(client string)
	// Overlap is the longest time with two holders so far.
	Overlap() time.Duration
	// Events returns what happened since the last call, oldest first.
	Events() ([]Event, error)
}

// Event is one line of a transcript.
type Event struct {
	At   time.Duration // since the beginning
	Node string
	Text string
}

// columnWidth is the indentation of the next node's column.
const columnWidth = 30

// line writes an event in its node's column.
func (f *File) line(e Event) string {
	indent := strings.Repeat(" ", max(f.index(e.Node), 0)*columnWidth)
	return fmt.Sprintf("%7.3f  %s%s %s", e.At.Seconds(), indent, e.Node, e.Text)
}

// parseLine reads a line of a transcript; ok is false for an answer.
func (f *File) parseLine(s string) (e Event, ok bool) {
	words := strings.Fields(s)
	if len(words) < 3 || !f.hasNode(words[1]) {
		return e, false
	}
	var sec float64
	if n, err := fmt.Sscanf(words[0], "%f", &sec); n != 1 || err != nil || !strings.Contains(words[0], ".") {
		return e, false
	}
	return Event{At: time.Duration(sec * float64(time.Second)).Round(time.Millisecond), Node: words[1], Text: strings.Join(words[2:], " ")}, true
}

// change is the text of a transition. with is the other node, if there is one.
func change(from, to, reason, with string) string {
	if with != "" {
		reason += ", " + with
	}
	return fmt.Sprintf("%s -> %s (%s)", from, to, reason)
}

// names joins what holders and answers print.
func names(all []string) string {
	if len(all) == 0 {
		return "nobody"
	}
	return strings.Join(all, " ")
}

// seconds is how a measured time is printed.
func seconds(d time.Duration) string { return fmt.Sprintf("%.3fs", d.Seconds()) }

// standing is the answer to status: what a node stands for election with.
type standing struct {
	state           string
	vrrp            bool
	base            uint8 // CARP
	skew, effective uint8 // VRRP: the priority
	demotion        int
	hears, refused  string // another master; why it is incompatible
}

func (s standing) String() string {
	text := fmt.Sprintf("%s base %d skew %d", s.state, s.base, s.skew)
	if s.vrrp {
		text = fmt.Sprintf("%s priority %d", s.state, s.skew)
	}
	if s.effective != s.skew {
		text += fmt.Sprintf(" (as %d)", s.effective)
	}
	if s.demotion != 0 {
		text += fmt.Sprintf(" demotion %d", s.demotion)
	}
	if s.hears != "" {
		text += " hears " + s.hears
	}
	if s.refused != "" {
		text += ", refuses its " + s.refused
	}
	return text
}
