package modules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/carpd/carpd/carp"
)

// Limits of a message.
const (
	MaxModules = 64                // in one cluster
	MaxMessage = MaxContent + 4096 // bytes
	maxReason  = 300               // bytes of the text of a refusal
)

// Message is what nodes say to each other.
type Message interface {
	kind() byte
	append(b []byte) []byte
}

// Digest stands for all that a node could report: the one thing that is polled.
type Digest [8]byte

// Poll asks whether the receiver has something else. It is answered by Same or Report.
type Poll struct{ Digest Digest }

// Same says that the digest of the poll is that of the answering node, too.
type Same struct{}

// Report says what a node has.
type Report struct {
	Why     Why
	Claim   Claim
	Entries []Entry // all modules in an answer, otherwise those that are new
}

// Why says what made a node report.
type Why uint8

// The reasons of reports.
const (
	Answered Why = iota // a poll
	Pushed              // it has just got a newer stamp: it counts at once
	Told                // the receiver's answer to a poll lacked it: it counts as one observation
)

// Entry is what a node has of one module.
type Entry struct {
	Module string `json:"module"`
	Stamp  Stamp  `json:"stamp"`
	Holds  Sum    `json:"holds"` // checksum of what its database holds; zero: not known, or about to change
	Rows   bool   `json:"rows"`  // it holds rows
}

// sound reports whether the content of the stamp can be fetched there.
func (e Entry) sound() bool { return !e.Stamp.IsZero() && e.Holds == e.Stamp.Sum }

// Get asks for a content; of one with the checksum that is here only the description.
type Get struct {
	Module string
	Stamp  Stamp
	Have   Sum
}

// Data is a content. Content is empty if the asking node has those bytes.
type Data struct {
	Module  string
	Meta    Meta
	Content []byte
}

// Gone says that what was asked for is not there, or not any more.
type Gone struct {
	Module string
	Stamp  Stamp
	Reason string
}

// Offer carries a change that was made at another node than the holder.
type Offer struct {
	Module  string
	Base    Stamp // what was changed
	Content []byte
}

// Answer says what became of an offer.
type Answer struct {
	Module string
	Base   Stamp
	Taken  bool
	Reason string
}

func (Poll) kind() byte   { return 1 }
func (Same) kind() byte   { return 2 }
func (Report) kind() byte { return 3 }
func (Get) kind() byte    { return 4 }
func (Data) kind() byte   { return 5 }
func (Gone) kind() byte   { return 6 }
func (Offer) kind() byte  { return 7 }
func (Answer) kind() byte { return 8 }

func (m Poll) append(b []byte) []byte { return append(b, m.Digest[:]...) }
func (Same) append(b []byte) []byte   { return b }

func (m Report) append(b []byte) []byte {
	b = append(b, byte(m.Why))
	b = binary.AppendUvarint(b, uint64(m.Claim.Term))
	b = append(b, m.Claim.Node)
	b = binary.AppendUvarint(b, uint64(len(m.Entries)))
	for _, e := range m.Entries {
		b = append(e.Stamp.append(appendText(b, e.Module)), e.Holds[:]...)
		b = appendBool(b, e.Rows)
	}
	return b
}

func (m Get) append(b []byte) []byte {
	return append(m.Stamp.append(appendText(b, m.Module)), m.Have[:]...)
}

func (m Data) append(b []byte) []byte {
	b = m.Meta.Stamp.append(appendText(b, m.Module))
	b = binary.AppendUvarint(b, uint64(len(m.Meta.History)))
	for _, a := range m.Meta.History {
		b = append(binary.AppendUvarint(b, a.Epoch), a.Node)
	}
	b = binary.AppendUvarint(b, uint64(len(m.Meta.Allowed)))
	for _, t := range m.Meta.Allowed {
		b = appendText(b, t)
	}
	return appendText(b, m.Content)
}

func (m Gone) append(b []byte) []byte {
	return appendText(m.Stamp.append(appendText(b, m.Module)), cut(m.Reason))
}

func (m Offer) append(b []byte) []byte {
	return appendText(m.Base.append(appendText(b, m.Module)), m.Content)
}

func (m Answer) append(b []byte) []byte {
	return appendText(appendBool(m.Base.append(appendText(b, m.Module)), m.Taken), cut(m.Reason))
}

func (s Stamp) append(b []byte) []byte {
	b = binary.AppendUvarint(b, s.Epoch)
	b = binary.AppendUvarint(b, uint64(s.Term))
	b = binary.AppendUvarint(append(b, s.Node), s.Version)
	return append(b, s.Sum[:]...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func cut(s string) string { return s[:min(len(s), maxReason)] }

// Append adds the bytes of a message.
func Append(b []byte, m Message) []byte { return m.append(append(b, m.kind())) }

// Decode reads one message. It keeps no reference to b but for the content of Data and
// Offer.
func Decode(b []byte) (Message, error) {
	if len(b) > MaxMessage {
		return nil, errors.New("modules: read message: too long")
	}
	r := reader{b: b}
	kind := r.byte()
	m := r.message(kind)
	if m == nil {
		return nil, fmt.Errorf("modules: read message: kind %d is not known", kind)
	}
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("modules: read message: damaged one of kind %d", kind)
	}
	return m, nil
}

func (r *reader) message(kind byte) Message {
	switch kind {
	case Poll{}.kind():
		var m Poll
		copy(m.Digest[:], r.take(len(m.Digest)))
		return m
	case Same{}.kind():
		return Same{}
	case Report{}.kind():
		return r.report()
	case Get{}.kind():
		m := Get{Module: r.name(), Stamp: r.stamp()}
		copy(m.Have[:], r.take(len(m.Have)))
		return m
	case Data{}.kind():
		return r.data()
	case Gone{}.kind():
		return Gone{r.name(), r.stamp(), string(r.text(maxReason))}
	case Offer{}.kind():
		return Offer{r.name(), r.stamp(), r.text(MaxContent)}
	case Answer{}.kind():
		return Answer{r.name(), r.stamp(), r.bool(), string(r.text(maxReason))}
	}
	return nil
}

func (r *reader) report() Report {
	m := Report{Why: Why(r.byte()), Claim: Claim{carp.Epoch(r.uvarint()), r.byte()}}
	r.bad = r.bad || m.Why > Told || m.Claim.Term >= maxEpoch
	for range r.count(MaxModules) {
		e := Entry{Module: r.name(), Stamp: r.stamp()}
		copy(e.Holds[:], r.take(len(e.Holds)))
		e.Rows = r.bool()
		m.Entries = append(m.Entries, e)
	}
	return m
}

func (r *reader) data() Data {
	m := Data{Module: r.name(), Meta: Meta{Stamp: r.stamp()}}
	for range r.count(MaxHistory) {
		m.Meta.History = append(m.Meta.History, Mark{r.uvarint(), r.byte()})
	}
	for range r.count(MaxTables) {
		m.Meta.Allowed = append(m.Meta.Allowed, string(r.text(maxName)))
	}
	m.Content = r.text(MaxContent)
	return m
}

func (r *reader) stamp() (s Stamp) {
	s.Epoch = r.uvarint()
	s.Term = carp.Epoch(r.uvarint())
	s.Node = r.byte()
	s.Version = r.uvarint()
	copy(s.Sum[:], r.take(len(s.Sum)))
	if s.Epoch >= maxEpoch || s.Term >= maxEpoch || s.Version >= maxEpoch {
		r.bad = true
	}
	return s
}

// reader takes fields off bytes. Once bad it gives zero values.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	t := r.b[:n]
	r.b = r.b[n:]
	return t
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) bool() bool {
	v := r.byte()
	r.bad = r.bad || v > 1
	return v == 1
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.take(n)
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.take(n)
	return v
}

// count reads how many there are. Each is a byte at least, so that a short message
// cannot ask for much memory.
func (r *reader) count(limit int) int {
	n := r.uvarint()
	if r.bad || n > uint64(limit) || n > uint64(len(r.b)) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) text(limit int) []byte { return r.take(min(r.count(limit), limit)) }

func (r *reader) name() string { return string(r.text(maxName)) }

// digestOf stands for a claim and entries.
func digestOf(c Claim, entries []Entry) Digest {
	sum := sumOf(Report{Claim: c, Entries: slices.Clone(entries)}.append(nil))
	return Digest(sum[:8])
}
