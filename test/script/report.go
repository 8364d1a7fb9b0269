package script

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// verdict is one word for a result.
func (r *Result) verdict() string {
	switch {
	case r.Skipped != "":
		return "skip"
	case r.OK():
		return "pass"
	}
	return "fail"
}

// WriteJSON writes the results as one object with a list of scenarios.
func WriteJSON(w io.Writer, results []Result) error {
	type scenario struct {
		File      string  `json:"file"`
		Backend   string  `json:"backend"`
		Result    string  `json:"result"` // pass, fail, skip
		Skipped   string  `json:"skipped,omitempty"`
		Seconds   float64 `json:"seconds"`
		Simulated float64 `json:"scenario_seconds"`
		Report    string  `json:"report,omitempty"`
		Capture   string  `json:"capture,omitempty"`
		Repeat    string  `json:"repeat"`
	}
	all := struct {
		Counts    map[string]int `json:"counts"`
		Scenarios []scenario     `json:"scenarios"`
	}{map[string]int{"pass": 0, "fail": 0, "skip": 0}, []scenario{}}
	for i := range results {
		r := &results[i]
		all.Counts[r.verdict()]++
		all.Scenarios = append(all.Scenarios, scenario{
			r.File, r.Backend, r.verdict(), r.Skipped, round(r.Took), round(r.Simulated), r.Report(), r.Capture, r.Repeat,
		})
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(all)
}

func round(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }

// WriteJUnit writes the results in the form of JUnit, as CI systems read it.
func WriteJUnit(w io.Writer, results []Result) error {
	type message struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
	type testcase struct {
		Class   string   `xml:"classname,attr"`
		Name    string   `xml:"name,attr"`
		Time    string   `xml:"time,attr"`
		Failure *message `xml:"failure,omitempty"`
		Skipped *message `xml:"skipped,omitempty"`
	}
	suite := struct {
		XMLName  xml.Name   `xml:"testsuite"`
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Skipped  int        `xml:"skipped,attr"`
		Time     string     `xml:"time,attr"`
		Cases    []testcase `xml:"testcase"`
	}{Name: "carplab", Tests: len(results)}
	var total time.Duration
	for i := range results {
		r := &results[i]
		total += r.Took
		c := testcase{Class: "carplab." + r.Backend, Name: r.File, Time: fmt.Sprintf("%.3f", r.Took.Seconds())}
		switch r.verdict() {
		case "skip":
			suite.Skipped++
			c.Skipped = &message{Message: r.Skipped}
		case "fail":
			suite.Failures++
			first, _, _ := strings.Cut(r.Report(), "\n")
			c.Failure = &message{first, r.Report()}
		}
		suite.Cases = append(suite.Cases, c)
	}
	suite.Time = fmt.Sprintf("%.3f", total.Seconds())
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(suite); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// WriteTAP writes the results in the form of the Test Anything Protocol, version
// 13.
func WriteTAP(w io.Writer, results []Result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "TAP version 13\n1..%d\n", len(results))
	for i := range results {
		r := &results[i]
		switch r.verdict() {
		case "skip":
			fmt.Fprintf(&b, "ok %d - %s # SKIP %s\n", i+1, r.File, r.Skipped)
		case "pass":
			fmt.Fprintf(&b, "ok %d - %s\n", i+1, r.File)
		default:
			fmt.Fprintf(&b, "not ok %d - %s\n", i+1, r.File)
			for line := range strings.Lines(r.Report()) {
				fmt.Fprintf(&b, "# %s\n", strings.TrimRight(line, "\n"))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
