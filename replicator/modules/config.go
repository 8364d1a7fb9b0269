package modules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/carpd/carpd/carp"
)

// Defaults of Config.
const (
	DefaultInterval = time.Second
	DefaultFanout   = 3
	DefaultDiffs    = 3
	DefaultSettle   = 2
)

// MaxNodes is how many nodes a cluster has at most: node ids are one byte, 1 to 255.
const MaxNodes = 255

// Policy says what becomes of a change that was made at another node than the holder.
type Policy uint8

// The policies.
const (
	Refuse  Policy = iota // the content of the cluster is put back
	Forward               // it is offered to the holder, and put back if that does not take it
)

// String returns the word of the configuration file.
func (p Policy) String() string {
	if p == Forward {
		return "forward"
	}
	return "refuse"
}

// Module is a group of tables that change together.
type Module struct {
	Name    string
	Guarded []string // tables that are not emptied unless that is allowed
	// Diffs is how many equal observations of a newer stamp in polls come before a pull,
	// and for how many intervals a change that is to be put back is left alone. 0: this
	// module is shown and never pulled.
	Diffs int
}

// Config is what a Core is made of.
type Config struct {
	Self     uint8         // node id, 1 to 255
	Peers    []uint8       // node ids of all others
	Modules  []Module      // the same names on all nodes
	Interval time.Duration // between polls; 0: DefaultInterval
	Fanout   int           // how many neighbours are polled; 0: DefaultFanout
	Settle   int           // in how many equal looks a change of the holder must be seen; 0: DefaultSettle
	Policy   Policy
	Rand     *rand.Rand // for jitter and the choice among equals; nil: seeded by the system
}

// Validate finds what no cluster can be.
func (c Config) Validate() error {
	names := map[string]bool{}
	for _, m := range c.Modules {
		if m.Name == "" || len(m.Name) > maxName || names[m.Name] {
			return fmt.Errorf("modules: module %q: want names of 1 to %d bytes, each once", m.Name, maxName)
		}
		names[m.Name] = true
	}
	ids := append(slices.Clone(c.Peers), c.Self)
	slices.Sort(ids)
	switch {
	case ids[0] == 0:
		return fmt.Errorf("modules: node id 0: they are 1 to %d", MaxNodes)
	case len(slices.Compact(slices.Clone(ids))) != len(ids):
		return fmt.Errorf("modules: two nodes with one id: give each node its own node_id")
	case len(c.Modules) == 0 || len(c.Modules) > MaxModules:
		return fmt.Errorf("modules: %d modules: want 1 to %d", len(c.Modules), MaxModules)
	case c.Interval < 0 || c.Fanout < 0 || c.Settle < 0:
		return fmt.Errorf("modules: negative interval, fanout or settle")
	}
	return nil
}

// Limits of waiting.
const (
	fetchTimeout   = time.Minute      // from Get to Data, after several tries
	offerTimeout   = 30 * time.Second // from Offer to Answer
	installTimeout = 2 * time.Minute  // from Effects.Install to Installed
	maxBackOff     = 30 * time.Second // after failures in a row
	unheldTime     = 10 * time.Second // a holder waits so long for a state that no node which can be reached holds
	burst          = 5 * time.Second  // a change that never settles is stamped after so long
	pollPatience   = 3                // intervals without an answer are a failure
)

// Effects is what is to be done, in this order. The zero value asks for nothing.
type Effects struct {
	Save    bool // State has changed: durable before all else here
	Events  []Event
	Send    []Send
	Serve   []Serve
	Offer   []Serve // as Serve, but as an Offer of the content that is based on the stamp
	Install []Install
}

// Send is a message to a node.
type Send struct {
	To      uint8
	Message Message
}

// Serve asks to read a module's content and to send it as Data, if it has the checksum
// of the stamp, and Gone otherwise.
type Serve struct {
	To     uint8
	Module string
	Meta   Meta
}

// Install asks to replace a module's content, to keep aside what is lost, to save it to
// disk, to read it back and to report it by Installed.
type Install struct {
	Module  string
	Meta    Meta
	Content []byte
	Keep    bool // what is there now came from elsewhere: keep it aside for people
}

// EventKind says what happened. The words are part of the interface.
type EventKind string

// The kinds of events.
const (
	Stamped    EventKind = "stamped"     // a change of the holder has a stamp now
	Installed  EventKind = "installed"   // what came from a peer is in the database
	Conflict   EventKind = "conflict"    // two states that do not follow from each other; the greater stamp wins
	Reverted   EventKind = "reverted"    // a change at another node than the holder was put back
	Refused    EventKind = "refused"     // a change or what came would empty a table
	Forwarded  EventKind = "forwarded"   // a change was offered to the holder
	NotTaken   EventKind = "not-taken"   // the holder did not take it
	Failed     EventKind = "failed"      // the database could not be read or written, or holds something else than was written
	Mismatch   EventKind = "mismatch"    // what came is not what its checksum says
	Absurd     EventKind = "absurd"      // a clock or mastership that cannot be: not believed
	TwoHolders EventKind = "two-holders" // another node says that it holds the address, too
)

// Event is something to tell people.
type Event struct {
	Kind   EventKind `json:"kind"`
	Module string    `json:"module,omitempty"`
	Node   uint8     `json:"node_id,omitempty"` // the peer
	Stamp  Stamp     `json:"stamp"`             // that stands now, or is refused
	Lost   Stamp     `json:"lost"`              // that it replaces, where that is not an ancestor
	Text   string    `json:"text"`
}

// State is what survives a restart. It is saved whenever Effects.Save says so; without
// it a node is fresh.
type State struct {
	Format  int              `json:"format"`
	Seen    uint64           `json:"seen"` // greatest clock that was ever seen
	Term    carp.Epoch       `json:"term"` // greatest mastership that was ever seen
	Modules map[string]Saved `json:"modules"`
}

// Saved is what survives of a module.
type Saved struct {
	Meta
	Filled []string `json:"filled"` // tables with rows
}

// StateFormat is that of State; a state of another one is not read.
const StateFormat = 1
