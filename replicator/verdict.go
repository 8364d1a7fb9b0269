package replicator

import (
	"slices"
	"strings"
)

// Reason says why a snapshot is refused. The words are part of the interface: they
// stand in output, manifests and the manual.
type Reason string

// The reasons, in the order in which they are looked for.
const (
	Missing      Reason = "missing"        // there is no such file
	NotAFile     Reason = "not-a-file"     // a directory, pipe, socket or device
	Unreadable   Reason = "unreadable"     // it cannot be opened or read
	TooLarge     Reason = "too-large"      // larger than the limit
	WAL          Reason = "wal-beside"     // a write-ahead log that would be applied is beside it
	Journal      Reason = "journal-beside" // a rollback journal that would be applied is beside it
	Empty        Reason = "empty"          // no bytes at all: SQLite takes it for a database without tables
	NotADatabase Reason = "not-a-database" // too short for a header, or not SQLite's first bytes
	BadHeader    Reason = "header"         // a field of the header has a value that no SQLite writes
	FileFormat   Reason = "file-format"    // made by a newer SQLite for newer ones only
	WALMode      Reason = "wal-mode"       // not in rollback-journal mode: the newest data may be in another file
	BadSize      Reason = "size"           // page size x page count is not the size of the file
	Digest       Reason = "digest"         // not the bytes that its maker wrote
	Changed      Reason = "changed"        // it was written to while it was verified
	Timeout      Reason = "timeout"        // it could not be verified in time
	Integrity    Reason = "integrity"      // SQLite finds it damaged
	TableMissing Reason = "table-missing"  // a required table is not there
	CreateText   Reason = "create-text"    // a table was made by another CREATE statement than its program makes it by
	RowMissing   Reason = "row-missing"    // a row without which its program runs with built-in defaults is not there
	TooFewRows   Reason = "rows"           // a table has fewer rows than it must have
	Emptied      Reason = "emptied"        // a table that holds the configuration is empty
)

// Reasons lists all reasons.
func Reasons() []Reason {
	return []Reason{Missing, NotAFile, Unreadable, TooLarge, WAL, Journal, Empty, NotADatabase, BadHeader, FileFormat, WALMode, BadSize,
		Digest, Changed, Timeout, Integrity, TableMissing, CreateText, RowMissing, TooFewRows, Emptied}
}

// Fault is one thing for which a snapshot is refused.
type Fault struct {
	Reason Reason `json:"reason"`
	Text   string `json:"text"` // for people: what was found, and a hint. It holds no values of rows
}

// Verdict is what is said of a snapshot. The zero value is that of a sound one.
type Verdict struct {
	Faults []Fault  `json:"faults,omitempty"` // empty: sound
	Notes  []string `json:"notes,omitempty"`  // what is unusual and harmless
}

// Sound reports whether the snapshot may be used.
func (v Verdict) Sound() bool { return len(v.Faults) == 0 }

// Reason returns the first reason for which the snapshot is refused, "" if it is sound.
func (v Verdict) Reason() Reason {
	if v.Sound() {
		return ""
	}
	return v.Faults[0].Reason
}

// Has reports whether the snapshot is refused for this reason, among others.
func (v Verdict) Has(r Reason) bool {
	return slices.ContainsFunc(v.Faults, func(f Fault) bool { return f.Reason == r })
}

// String returns "sound", or "refused: " with reason and text of each fault.
func (v Verdict) String() string {
	if v.Sound() {
		return "sound"
	}
	var texts []string
	for _, f := range v.Faults {
		texts = append(texts, string(f.Reason)+": "+f.Text)
	}
	return "refused: " + strings.Join(texts, "; ")
}

// Refused returns the verdict of a single fault.
func Refused(r Reason, text string) Verdict { return Verdict{Faults: []Fault{{r, text}}} }

// Refuse adds a fault.
func (v *Verdict) Refuse(r Reason, text string) { v.Faults = append(v.Faults, Fault{r, text}) }

// Note adds a remark.
func (v *Verdict) Note(text string) { v.Notes = append(v.Notes, text) }
