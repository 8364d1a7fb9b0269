package modules

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/carpd/carpd/carp"
)

// Sum is the checksum of a module's content: the first half of the SHA-256 of its
// canonical bytes.
type Sum [16]byte

// String returns hexadecimal digits.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// MarshalText implements encoding.TextMarshaler.
func (s Sum) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Sum) UnmarshalText(b []byte) error {
	if hex.DecodedLen(len(b)) != len(s) {
		return fmt.Errorf("modules: checksum %q: want %d hexadecimal digits", b, 2*len(s))
	}
	_, err := hex.Decode(s[:], b)
	return err
}

// Stamp names one state of a module. The zero value is that of a fresh node, older than
// all others.
type Stamp struct {
	Epoch   uint64     `json:"epoch"`    // logical clock, begun from milliseconds since 1970
	Term    carp.Epoch `json:"term"`     // mastership of its maker, or the latest that went into it: of two the later holder wins, whatever the clocks
	Node    uint8      `json:"node_id"`  // its maker
	Version uint64     `json:"version"`  // changes so far, from 1 on: for people
	Sum     Sum        `json:"checksum"` // of the content
}

// maxEpoch is what clocks, masterships and numbers in a message are less than. What says
// so is damaged.
const maxEpoch = 1 << 62

// century is how far ahead of a node's clock another's is believed. Clocks may be years
// ahead; what is beyond that is no clock, and would leave no greater one for later
// changes, on disk and so for ever. The limit moves with time: of what is just below it
// there is always a later one.
const century = 100 * 365 * 24 * 3600 * 1000 // milliseconds

// believable reports whether a clock or a mastership, which is begun from one, can be.
func believable[T ~uint64](now time.Time, n T) bool {
	return uint64(n) <= uint64(max(now.UnixMilli(), 0))+century
}

// IsZero reports whether this is the stamp of a fresh node.
func (s Stamp) IsZero() bool { return s == Stamp{} }

// Compare returns -1, 0 or 1 as s is older than, equal to or newer than o: by mastership
// first, as snapshots are ordered, then by clock. Different
// stamps are never equal, so that no two nodes wait for each other for ever.
func (s Stamp) Compare(o Stamp) int {
	return cmp.Or(cmp.Compare(s.Term, o.Term), cmp.Compare(s.Epoch, o.Epoch), cmp.Compare(s.Node, o.Node),
		cmp.Compare(s.Version, o.Version), bytes.Compare(s.Sum[:], o.Sum[:]))
}

// String returns clock, node, number and the begin of the checksum.
func (s Stamp) String() string {
	if s.IsZero() {
		return "fresh"
	}
	return fmt.Sprintf("%d/%d v%d %.8s", s.Epoch, s.Node, s.Version, s.Sum)
}

// mark returns what ancestors are known by.
func (s Stamp) mark() Mark { return Mark{s.Epoch, s.Node} }

// Mark names a stamp in a history.
type Mark struct {
	Epoch uint64 `json:"epoch"`
	Node  uint8  `json:"node_id"`
}

// MaxHistory is how many ancestors of a stamp are known.
const MaxHistory = 32

// Meta is what travels with a content.
type Meta struct {
	Stamp   Stamp    `json:"stamp"`
	History []Mark   `json:"history,omitempty"` // its ancestors, oldest first, the last MaxHistory
	Allowed []string `json:"allowed,omitempty"` // guarded tables that an operator let be empty
}

// follows reports whether the content of old went into this one. A stamp that is older
// than all ancestors that are known did, as far as anybody knows.
func (m Meta) follows(old Stamp) bool {
	if old.IsZero() || old == m.Stamp {
		return true
	}
	for _, a := range m.History {
		if a == old.mark() {
			return true
		}
	}
	return len(m.History) >= MaxHistory && old.Epoch < m.History[0].Epoch
}

// next returns the description of a content that follows this one.
func (m Meta) next(s Stamp, allowed []string) Meta {
	n := Meta{Stamp: s, Allowed: allowed}
	if !m.Stamp.IsZero() {
		n.History = append(append(n.History, m.History...), m.Stamp.mark())
		n.History = n.History[max(0, len(n.History)-MaxHistory):]
	}
	return n
}

// Claim says who holds the address. The greater one is the later.
type Claim struct {
	Term carp.Epoch `json:"term"`
	Node uint8      `json:"node_id"` // 0: nobody is known
}

// Compare returns -1, 0 or 1 as c is earlier than, equal to or later than o.
func (c Claim) Compare(o Claim) int {
	return cmp.Or(cmp.Compare(c.Term, o.Term), cmp.Compare(c.Node, o.Node))
}
