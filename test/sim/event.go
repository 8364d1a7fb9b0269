package sim

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/carpd/carpd/carp"
)

// Kind is the kind of an Event.
type Kind uint8

// The kinds. Those from KindTransition on are written in the trace.
const (
	KindSent    Kind = iota // a round of adverts went out
	KindUnsent              // a round failed: nothing went out
	KindHeard               // the engine took a packet: see Drop, Peer, Copy
	KindPermit              // the engine gave a permit
	KindHarm                // an advert from Peer to Host was lost, altered or held back
	KindRenewed             // the kernel was told to keep the address for another lifetime

	KindTransition // Change
	KindAddrOn     // the kernel answers for the address from now on
	KindAddrOff    // and no more
	KindHookStart  // Text is the phase
	KindHookEnd
	KindPrimary   // a resource is past its step without return
	KindSecondary // and no more
	KindFault     // Text says what breaks; Host may be nil
	KindMend      // Text says what is whole again
	numKinds
)

// Event is one thing that happened in a World. Checkers see all of them in order.
type Event struct {
	At     time.Duration // true time since the start of the world
	Kind   Kind
	Host   *Host // whose; nil for the whole world
	Peer   *Host // KindHeard, KindHarm: the sender
	Change carp.Transition
	Permit carp.Permit
	Drop   carp.Drop
	Own    bool // KindHeard: the host's own packet came back
	Copy   bool // KindHeard: the same packet was heard just before; Change says what this one did
	Bad    bool // KindHeard: altered on its way
	BowOut bool // KindHeard: a bow-out
	Sent   time.Duration
	Late   bool // KindAddrOn, KindRenewed, KindPrimary: the daemon stood still between asking for the permit and this
	Text   string

	packet *packet // KindHeard
}

func (e *Event) String() string {
	switch e.Kind {
	case KindTransition:
		return e.Change.String()
	case KindAddrOn:
		return "address on"
	case KindAddrOff:
		return strings.TrimSpace("address off " + e.Text)
	case KindHookStart:
		return "hook " + e.Text
	case KindHookEnd:
		return "hook " + e.Text + " ends"
	case KindPrimary:
		return "primary"
	case KindSecondary:
		return "no primary any more"
	}
	return e.Text
}

// maxLog bounds what a world remembers for its trace; the oldest go first.
const maxLog = 1 << 15

// record keeps what the trace shows. Everything goes into the hash.
func (w *World) record(e *Event) {
	w.mix(uint64(e.At))
	w.mix(uint64(e.Kind) | uint64(e.Drop)<<8 | uint64(e.Change.To)<<16 | uint64(e.Change.Reason)<<24 | uint64(e.Permit.Until)<<32)
	if e.Host != nil {
		w.mix(uint64(e.Host.index) + 1)
	}
	if e.Kind < KindTransition {
		return
	}
	if len(w.log) >= 2*maxLog {
		w.log = append(w.log[:0], w.log[len(w.log)-maxLog:]...)
		w.forgotten = true
	}
	w.log = append(w.log, *e)
}

func (w *World) mix(x uint64) {
	w.hash ^= x
	w.hash *= 0x9e3779b97f4a7c15
	w.hash ^= w.hash >> 29
}

// Hash returns a digest of all that has happened. Two runs of one seed have the
// same.
func (w *World) Hash() uint64 { return w.hash }

// Events returns a copy of the trace: transitions, addresses, hooks and faults,
// in order. Of a long run only the last are kept (at least 32 768).
func (w *World) Events() []Event { return append([]Event(nil), w.log...) }

// columnWidth is room for the longest common transition.
const columnWidth = 52

// Trace writes the trace, one column a host. What concerns the whole world stands
// in the first column.
func (w *World) Trace(out io.Writer) error { return w.TraceSince(out, 0) }

// TraceSince writes the trace from the given time on.
func (w *World) TraceSince(out io.Writer, since time.Duration) error {
	if w.forgotten {
		if _, err := fmt.Fprintln(out, "(the beginning is forgotten)"); err != nil {
			return err
		}
	}
	for i := range w.log {
		if w.log[i].At < since {
			continue
		}
		if _, err := fmt.Fprintln(out, w.log[i].Line()); err != nil {
			return err
		}
	}
	return nil
}

// Line returns the event as a line of the trace.
func (e *Event) Line() string {
	column, who := 0, "-- "
	if e.Host != nil {
		column, who = e.Host.index, e.Host.Name+" "
	}
	return fmt.Sprintf("%9.3f  %s%s%s", e.At.Seconds(), strings.Repeat(" ", column*columnWidth), who, e)
}
