package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// pos is a place in the file, both numbers from 1; the zero value is the file
// as a whole.
type pos struct{ line, column int }

// source is the text of one file and the problems found in it so far.
type source struct {
	name             string
	lines            []string // with secrets masked: they are only ever shown
	problems         Problems
	faults, warnings int // how many were found; only MaxProblems of each are kept
}

func newSource(name string, data []byte) *source {
	return &source{name: name, lines: mask(strings.Split(string(data), "\n"))}
}

func (s *source) fault(at pos, hint, format string, args ...any) {
	if s.full() {
		s.faults++
		return
	}
	s.add(Fault, at, hint, fmt.Sprintf(format, args...))
}

func (s *source) warn(at pos, hint, format string, args ...any) {
	s.add(Warning, at, hint, fmt.Sprintf(format, args...))
}

func (s *source) add(sev Severity, at pos, hint, message string) {
	s.note(s.problem(sev, at, hint, message))
}

// note keeps a problem, or counts it when there are too many already: a file of
// a mebibyte can hold a hundred thousand.
func (s *source) note(p Problem) {
	count := &s.faults
	if p.Severity == Warning {
		count = &s.warnings
	}
	if *count++; *count <= MaxProblems {
		s.problems = append(s.problems, p)
	}
}

// full reports whether further faults are only counted.
func (s *source) full() bool { return s.faults >= MaxProblems }

// all returns the problems in the order of the file, faults before warnings at
// the same place.
func (s *source) all() Problems {
	for i := range s.problems {
		if p := &s.problems[i]; p.File == s.name {
			p.Excerpt = s.excerpt(p.Line) // more may have been hidden since
		}
	}
	slices.SortStableFunc(s.problems, func(a, b Problem) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column, int(a.Severity)-int(b.Severity))
	})
	if more := max(s.faults-MaxProblems, 0) + max(s.warnings-MaxProblems, 0); more > 0 {
		p := Problem{Severity: Warning, File: s.name, Message: fmt.Sprintf("%d more problems are not shown", more)}
		s.problems = append(s.problems, p)
	}
	return s.problems
}

func (s *source) excerpt(line int) string {
	if line < 1 || line > len(s.lines) {
		return ""
	}
	return strings.TrimRight(s.lines[line-1], "\r")
}

func (s *source) problem(sev Severity, at pos, hint, message string) Problem {
	p := Problem{Severity: sev, File: s.name, Line: at.line, Column: at.column, Message: message, Hint: hint}
	p.Excerpt = s.excerpt(at.line)
	return p
}

func printable(r rune) bool { return unicode.IsPrint(r) }

// shellQuote writes a file name so that a command of a hint can be copied.
func shellQuote(s string) string {
	safe := func(c rune) bool { return wordRune(c) || c == '/' }
	if s != "" && !strings.ContainsFunc(s, func(c rune) bool { return !safe(c) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
