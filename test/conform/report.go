package conform

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// Verdict is how what was seen compares with the rule of a row.
type Verdict string

// The verdicts; a speaker that does as the standard and as ours does is "as
// FreeBSD" (CARP) or "as RFC" (VRRP).
const (
	AsFreeBSD Verdict = "as FreeBSD"
	AsRFC     Verdict = "as RFC"
	AsOurs    Verdict = "as ours"
	Differs   Verdict = "differs"
	NotTested Verdict = "not tested"
)

// Row is one thing that was tried.
type Row struct {
	ID       string  `json:"id"`       // stable: "R-TTL"
	Done     string  `json:"done"`     // what was done or looked at
	Seen     string  `json:"seen"`     // what the speaker did; of NotTested, why not
	Rule     string  `json:"rule"`     // what it is compared with, and where that is written
	Verdict  Verdict `json:"verdict"`  //
	Must     bool    `json:"must"`     // a speaker has to do one of the things allowed
	Contrary bool    `json:"contrary"` // it did none of them
}

// Report is what a run found out.
type Report struct {
	Interface string        `json:"interface"`
	Protocol  string        `json:"protocol"` // "carp", "vrrp2", "vrrp3"
	VHID      uint8         `json:"vhid"`     // VRRP: the vrid
	Addresses []string      `json:"addresses"`
	AdvBase   uint8         `json:"advbase"`               // CARP
	AdvSkew   uint8         `json:"advskew"`               // CARP
	Priority  uint8         `json:"priority,omitempty"`    // VRRP
	Interval  time.Duration `json:"interval_ns,omitempty"` // VRRP
	Speaker   string        `json:"speaker"`               // source address of its adverts
	MAC       string        `json:"mac"`                   // of the interface that has this address; "" if it did not answer
	Reaction  time.Duration `json:"reaction_ns"`           // CARP
	Took      time.Duration `json:"took_ns"`
	Notes     []string      `json:"notes"`
	Rows      []Row         `json:"rows"` // in the order of rules
}

// Contrary lists the rows that are contrary to what a speaker must do; none is
// the pass of a test.
func (r *Report) Contrary() (ids []string) {
	for _, row := range r.Rows {
		if row.Contrary {
			ids = append(ids, row.ID)
		}
	}
	return ids
}

// Row returns the row with this ID, the zero value if there is none.
func (r *Report) Row(id string) Row {
	for _, row := range r.Rows {
		if row.ID == id {
			return row
		}
	}
	return Row{}
}

func (r *Report) count(v Verdict) (n int) {
	for _, row := range r.Rows {
		if row.Verdict == v {
			n++
		}
	}
	return n
}

func (r *Report) standard() Verdict {
	if r.Protocol == "carp" {
		return AsFreeBSD
	}
	return AsRFC
}

// Summary is the report in one line.
func (r *Report) Summary() string {
	standard := r.standard()
	s := fmt.Sprintf("%d rows: %d %s, %d as ours, %d differ, %d not tested; ",
		len(r.Rows), r.count(standard), standard, r.count(AsOurs), r.count(Differs), r.count(NotTested))
	if ids := r.Contrary(); len(ids) > 0 {
		return s + "contrary to a must: " + strings.Join(ids, ", ")
	}
	return s + "none is contrary to a must"
}

// Table is the report as text of at most 100 columns.
func (r *Report) Table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "speaker %s", r.Speaker)
	if r.MAC != "" {
		fmt.Fprintf(&b, " (%s)", r.MAC)
	}
	if r.Protocol == "carp" {
		fmt.Fprintf(&b, " on %s: %s vhid %d, advbase %d, advskew %d, addresses %s\n", r.Interface, r.Protocol, r.VHID,
			r.AdvBase, r.AdvSkew, strings.Join(r.Addresses, " "))
		fmt.Fprintf(&b, "%s\ntook %v; the speaker answers within %v\n", r.Summary(), r.Took.Round(time.Second), r.Reaction.Round(time.Millisecond))
	} else {
		fmt.Fprintf(&b, " on %s: %s vrid %d, priority %d, interval %v, addresses %s\n", r.Interface, r.Protocol, r.VHID,
			r.Priority, r.Interval, strings.Join(r.Addresses, " "))
		fmt.Fprintf(&b, "%s\ntook %v\n", r.Summary(), r.Took.Round(time.Second))
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	for _, row := range r.Rows {
		mark := ""
		switch {
		case row.Contrary:
			mark = "  CONTRARY TO A MUST"
		case row.Must:
			mark = "  (must)"
		}
		fmt.Fprintf(&b, "\n%-18s %s%s\n", row.ID, row.Verdict, mark)
		for _, part := range []struct{ name, text string }{{"done", row.Done}, {"seen", row.Seen}, {"rule", row.Rule}} {
			fmt.Fprintf(&b, "    %s: %s\n", part.name, wrap(part.text, 90, "\n          "))
		}
	}
	return b.String()
}

// wrap breaks a text into lines of at most n columns where it has blanks.
func wrap(text string, n int, glue string) string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > n:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return strings.Join(append(lines, line), glue)
}

// WriteJSON writes the report as one JSON object.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("conform: write JSON: %w", err)
	}
	return nil
}

// The elements of a JUnit file that its readers agree on.
type (
	junitSuite struct {
		XMLName  xml.Name    `xml:"testsuite"`
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Failure *junitMessage `xml:"failure,omitempty"`
		Skipped *junitMessage `xml:"skipped,omitempty"`
		Out     string        `xml:"system-out,omitempty"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
	}
)

// WriteJUnit writes the report as a JUnit test suite: a row is a test, one that
// is contrary to a must has failed, one that was not tested is skipped.
func (r *Report) WriteJUnit(w io.Writer) error {
	suite := junitSuite{
		Name: "conform." + r.Protocol, Tests: len(r.Rows), Failures: len(r.Contrary()), Skipped: r.count(NotTested),
		Time: fmt.Sprintf("%.3f", r.Took.Seconds()),
	}
	for _, row := range r.Rows {
		c := junitCase{Class: suite.Name, Name: row.ID + " " + row.Done, Out: fmt.Sprintf("%s\nseen: %s\nrule: %s", row.Verdict, row.Seen, row.Rule)}
		switch {
		case row.Contrary:
			c.Failure = &junitMessage{row.Seen}
		case row.Verdict == NotTested:
			c.Skipped = &junitMessage{row.Seen}
		}
		suite.Cases = append(suite.Cases, c)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return fmt.Errorf("conform: write JUnit: %w", err)
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(suite); err != nil {
		return fmt.Errorf("conform: write JUnit: %w", err)
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return fmt.Errorf("conform: write JUnit: %w", err)
	}
	return nil
}
