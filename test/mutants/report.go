package main

import (
	"fmt"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// report is the outcome of a run.
type report struct {
	results []result
	levels  []level
	took    time.Duration
	sim     bool // only the harness ran
	command string
}

// verdict is one result in a few words.
func (r *result) verdict() string {
	switch {
	case r.err != nil:
		return "ERROR: " + r.err.Error()
	case r.caught != nil:
		return r.caught.level + " " + r.caught.String()
	case explained[r.name] != "":
		return "survives: " + explained[r.name]
	}
	return "SURVIVES"
}

func (c *catch) String() string {
	if c.detail == "" {
		return c.test
	}
	return c.test + " (" + c.detail + ")"
}

// alone says what the harness noticed by itself.
func (r *result) alone() string {
	switch {
	case r.harness != nil && r.harness.detail != "":
		return r.harness.level + ": " + r.harness.detail
	case r.harness != nil:
		return r.harness.level + ": " + r.harness.test
	case r.asked:
		return "no"
	}
	return "-"
}

// columns returns the cells of one row.
func (r *result) columns() []string {
	level, test, took := "none", "survives", ""
	switch {
	case r.err != nil:
		level, test = "error", short(r.err.Error())
	case r.caught != nil:
		level, test, took = r.caught.level, r.caught.String(), seconds(r.caught.took)
	case explained[r.name] != "":
		level, test = "none", "explained: "+explained[r.name]
	}
	alone := r.alone()
	aloneTook := ""
	if r.harness != nil {
		aloneTook = seconds(r.harness.took)
	}
	return []string{test, level, took, alone, aloneTook}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()) }

// text is the table for a terminal.
func (r *report) text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "MUTANT\tCAUGHT BY\tLEVEL\tSECONDS\tSIMULATOR ALONE\tSECONDS")
	for i := range r.results {
		c := r.results[i].columns()
		fmt.Fprintln(w, r.results[i].name+"\t"+strings.Join(c, "\t"))
	}
	w.Flush()
	fmt.Fprintln(&b, r.summary())
	return b.String()
}

// page is docs/mutants.md.
func (r *report) page() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Mutants\n\n%s\n\nMade by `%s` with %s. %s\n\n", introduction, strings.TrimSpace(r.command), runtime.Version(), r.summary())
	for _, part := range []struct {
		title string
		made  bool
	}{{"By hand", false}, {"By machine", true}} {
		fmt.Fprintf(&b, "## %s\n\n| mutant | caught by | level | seconds | simulator alone | seconds |\n|---|---|---|---|---|---|\n", part.title)
		for i := range r.results {
			m := &r.results[i]
			if m.made != part.made {
				continue
			}
			name := "**" + m.name + "**: " + m.what
			if m.made {
				name = m.name
			}
			fmt.Fprintf(&b, "| %s |", escape(name))
			for _, c := range m.columns() {
				fmt.Fprintf(&b, " %s |", escape(c))
			}
			b.WriteByte('\n')
		}
		b.WriteByte('\n')
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

const introduction = "`make mutants` breaks carpd on purpose, one fault at a time, and tells which tests notice. A mutant by hand\n" +
	"is a mistake that somebody could make; one by machine is an operator, a constant or a statement of the\n" +
	"engine and the codec, drawn by lot. The levels of tests are tried cheapest first: unit, speaker (a bubble\n" +
	"of testing/synctest), simulator (soak) and exploration, and lab (the real daemon in namespaces); for the addresses\n" +
	"vip and kernel, for the sockets link and wire, both in namespaces where they need the kernel; for the wiring daemon and guardian,\n" +
	"for the file config. The last two columns say what the simulator and the exploration notice by\n" +
	"themselves. They cannot notice what all nodes do alike, such as another digest, nor what only happens in\n" +
	"configurations that they do not draw.\n\n" +
	"A survivor is a missing test, or is explained in `test/mutants/explained.go`. How to repeat one:\n" +
	"`go run ./test/mutants -only 'NAME'`; every mechanical mutant: `go run ./test/mutants -all`."

// escape makes text fit into a cell of a Markdown table.
func escape(s string) string { return strings.NewReplacer("|", "\\|", "\n", " ").Replace(s) }

func (r *report) summary() string {
	caught, alone, asked, known := 0, 0, 0, 0
	for i := range r.results {
		m := &r.results[i]
		switch {
		case m.caught != nil:
			caught++
		case explained[m.name] != "":
			known++
		}
		if m.asked {
			asked++
		}
		if m.harness != nil {
			alone++
		}
	}
	return fmt.Sprintf("%d mutants, %d caught, %d explained, %d survived; the simulator alone caught %d of %d; %.0f s.",
		len(r.results), caught, known, len(r.results)-caught-known, alone, asked, r.took.Seconds())
}

// faults lists what makes the run fail.
func (r *report) faults() []string {
	var faults []string
	for i := range r.results {
		m := &r.results[i]
		why := explained[m.name]
		switch {
		case m.err != nil:
			faults = append(faults, fmt.Sprintf("%s: %v", m.name, m.err))
		case m.caught == nil && why == "":
			faults = append(faults, fmt.Sprintf("%s survives: write the test that is missing, or explain it in test/mutants/explained.go", m.name))
		case m.caught != nil && why != "":
			faults = append(faults, fmt.Sprintf("%s is explained, and caught by %s: take the explanation out", m.name, m.caught.String()))
		}
	}
	return faults
}
