package config

import (
	"fmt"
	"strings"
)

// Severity says whether a problem keeps the file from being used.
type Severity uint8

// The severities.
const (
	Fault   Severity = iota // the file is not used
	Warning                 // the file is used, but its author should know
)

func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// Problem is one thing that is wrong in a file, and where. Line and Column
// count from 1, Column in characters; both are 0 if the problem is with the
// file as a whole. No field ever holds a passphrase.
type Problem struct {
	Severity     Severity
	File         string
	Line, Column int
	Message      string // what is wrong, a clause
	Hint         string // what to do about it, a clause; may be empty
	Excerpt      string // the line, secrets masked
	Cause        error  // of the operating system, if there is one
}

// Error returns the problem on one line, as compilers do.
func (p Problem) Error() string {
	s := p.position() + ": " + p.Severity.String() + ": " + p.Message
	if p.Hint != "" {
		s += ": " + p.Hint
	}
	return s
}

// String returns the problem with the offending line and a caret below it.
func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v: %s\n", p.position(), p.Severity, p.Message)
	if p.Line > 0 {
		line, column := clip(p.Excerpt, p.Column)
		number := fmt.Sprint(p.Line)
		fmt.Fprintf(&b, "  %s | %s\n", number, line)
		fmt.Fprintf(&b, "  %s | %s^\n", strings.Repeat(" ", len(number)), strings.Repeat(" ", max(column-1, 0)))
	}
	if p.Hint != "" {
		fmt.Fprintf(&b, "  hint: %s\n", p.Hint)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Unwrap returns the cause, so that errors.Is finds fs.ErrNotExist and its like.
func (p Problem) Unwrap() error { return p.Cause }

func (p Problem) position() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// excerptWidth bounds what is shown of a line: enough for a hand-written one.
const excerptWidth = 100

// clip cuts a long line to a window around the column and makes it safe for a
// terminal: whatever does not print, tabs included, becomes one space or dot.
func clip(line string, column int) (string, int) {
	runes := []rune(line)
	for i, r := range runes {
		switch {
		case r == '\t':
			runes[i] = ' '
		case !printable(r):
			runes[i] = '.'
		}
	}
	if len(runes) <= excerptWidth {
		return string(runes), column
	}
	from := min(max(column-1-excerptWidth/2, 0), len(runes)-excerptWidth)
	return string(runes[from : from+excerptWidth]), column - from
}

// Problems is a list of problems, in the order of the file. As an error it has
// at least one Fault.
type Problems []Problem

// Error returns all problems, each with its excerpt, and an empty line between.
func (ps Problems) Error() string {
	all := make([]string, len(ps))
	for i, p := range ps {
		all[i] = p.String()
	}
	return strings.Join(all, "\n\n")
}

// Unwrap returns the single problems, for errors.Is and errors.As.
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

// Faults counts the problems that keep the file from being used.
func (ps Problems) Faults() int {
	n := 0
	for _, p := range ps {
		if p.Severity == Fault {
			n++
		}
	}
	return n
}
