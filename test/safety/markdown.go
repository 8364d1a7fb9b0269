package safety

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Markdown is the table of a report.
func (r *Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; %d CPUs, Linux %s, %s; seed %d, %d LANs at the same time, %v.\n\n",
		r.Began.UTC().Format("2 January 2006"), r.Machine.CPUs, r.Machine.Kernel, r.Machine.Go, r.Seed, r.Parallel, r.Took)
	for _, d := range r.Daemons {
		fmt.Fprintf(&b, "- %s (`%s`), %v: %s\n", d.Title, d.Name, d.Interval, d.Version)
	}
	b.WriteString("\n| fault | daemon | runs | two holders | no holder | client outage | after the heal | false takeovers | gap |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, name := range r.Rows {
		row, _ := rowOf(name)
		title := row.Title
		for _, d := range r.Daemons {
			if d.Only != nil && !slices.Contains(d.Only, name) {
				continue
			}
			fmt.Fprintf(&b, "| %s | %s, %v | %s |\n", title, d.Title, d.Interval, r.cells(name, d))
			title = ""
		}
	}
	return b.String()
}

// cells are the figures of a row and a daemon.
func (r *Report) cells(row string, d Named) string {
	if why := d.Cannot[row]; why != "" {
		return "n/a: " + why + " | | | | | |"
	}
	c := r.Cell(row, d.Name)
	if c.Runs == 0 {
		return fmt.Sprintf("0 (%d failed) | | | | | |", c.Failed)
	}
	runs := fmt.Sprint(c.Runs)
	if c.Failed > 0 {
		runs += fmt.Sprintf(" (%d failed)", c.Failed)
	}
	if c.Late > 0 {
		runs += fmt.Sprintf(" (%d late)", c.Late)
	}
	healed := ""
	if c.Mends {
		healed = c.Healed.String()
	}
	return strings.Join([]string{
		runs, endless(c.Two.String(), c.TwoOpen), c.None.String(), endless(c.Outage.String(), c.OutageOpen), healed, fmt.Sprint(c.False), short(c.Gap.Max),
	}, " | ")
}

// endless adds in how many runs the end of it was not seen.
func endless(text string, open int) string {
	if open == 0 {
		return text
	}
	return fmt.Sprintf("%s (%d without end)", text, open)
}

// The markers between which a page has the table.
const (
	beginMark = "<!-- carplab bench safety: begin -->\n"
	endMark   = "<!-- carplab bench safety: end -->\n"
)

// Marked is a text between the markers.
func Marked(text string) string { return beginMark + "\n" + text + "\n" + endMark }

// errMarkers says that a page has no place for the table.
var errMarkers = errors.New("want each of these lines once, in this order: " + strings.TrimSpace(beginMark) + " and " + strings.TrimSpace(endMark))

// Replace puts a text between the markers of a page, in place of what is there.
func Replace(page, text string) (string, error) {
	before, rest, begins := strings.Cut(page, beginMark)
	_, after, ends := strings.Cut(rest, endMark)
	if !begins || !ends || strings.Contains(after, beginMark) {
		return "", fmt.Errorf("safety: replace table: %w", errMarkers)
	}
	return before + Marked(text) + after, nil
}
