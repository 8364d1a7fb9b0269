package script

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"strings"
	"testing"
	"time"
)

func someResults() []Result {
	return []Result{
		{File: "good.txt", Backend: "sim", Simulated: 10 * time.Second, Took: 3 * time.Millisecond, Repeat: "carplab run good.txt"},
		{File: "bad.txt", Backend: "sim", Faults: []Fault{{Line: 3, Want: []string{"a & <b>"}, Got: []string{"b"}}}, Repeat: "carplab run bad.txt"},
		{File: "ugly.txt", Backend: "sim", Err: errors.New("ugly.txt:9: no")},
		{File: "other.txt", Backend: "sim", Skipped: "only kernel"},
	}
}

func TestReportsSayTheSameInEachForm(t *testing.T) {
	var j, x, p bytes.Buffer
	if err := errors.Join(WriteJSON(&j, someResults()), WriteJUnit(&x, someResults()), WriteTAP(&p, someResults())); err != nil {
		t.Fatal(err)
	}
	var asJSON struct {
		Counts    map[string]int
		Scenarios []struct{ File, Result, Report, Repeat string }
	}
	if err := json.Unmarshal(j.Bytes(), &asJSON); err != nil {
		t.Fatal(err)
	}
	if c := asJSON.Counts; c["pass"] != 1 || c["fail"] != 2 || c["skip"] != 1 || len(asJSON.Scenarios) != 4 {
		t.Errorf("%+v", asJSON)
	}
	if s := asJSON.Scenarios[1]; s.Result != "fail" || !strings.Contains(s.Report, "-a & <b>") || s.Repeat != "carplab run bad.txt" {
		t.Errorf("%+v", s)
	}
	var asXML struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Skipped  int `xml:"skipped,attr"`
		Cases    []struct {
			Name    string  `xml:"name,attr"`
			Failure *string `xml:"failure"`
			Skipped *string `xml:"skipped"`
		} `xml:"testcase"`
	}
	if err := xml.Unmarshal(x.Bytes(), &asXML); err != nil {
		t.Fatal(err)
	}
	if asXML.Tests != 4 || asXML.Failures != 2 || asXML.Skipped != 1 || asXML.Cases[1].Failure == nil || asXML.Cases[0].Failure != nil || asXML.Cases[3].Skipped == nil {
		t.Errorf("%s", x.String())
	}
	want := "TAP version 13\n1..4\nok 1 - good.txt\nnot ok 2 - bad.txt\n# bad.txt:3: not as written\n#   -a & <b>\n#   +b\n" +
		"# repeat: carplab run bad.txt\nnot ok 3 - ugly.txt\n# ugly.txt:9: no\n# repeat: \nok 4 - other.txt # SKIP only kernel\n"
	if p.String() != want {
		t.Errorf("got\n%swant\n%s", p.String(), want)
	}
}
