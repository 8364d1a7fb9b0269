package config

import (
	"cmp"
	"fmt"
	"regexp"
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
	slices.SortStableFunc(s.problems, func(a, b Problem) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column, int(a.Severity)-int(b.Severity))
	})
	if more := max(s.faults-MaxProblems, 0) + max(s.warnings-MaxProblems, 0); more > 0 {
		p := Problem{Severity: Warning, File: s.name, Message: fmt.Sprintf("%d more problems are not shown", more)}
		s.problems = append(s.problems, p)
	}
	return s.problems
}

func (s *source) problem(sev Severity, at pos, hint, message string) Problem {
	p := Problem{Severity: sev, File: s.name, Line: at.line, Column: at.column, Message: message, Hint: hint}
	if i := at.line - 1; i >= 0 && i < len(s.lines) {
		p.Excerpt = strings.TrimRight(s.lines[i], "\r")
	}
	return p
}

// secretKey finds a key whose value must not be shown. A file name is no secret.
var secretKey = regexp.MustCompile(`(?i)(?:^|[\s,{"'-])[\w-]*(?:pass|passphrase|password|passwd|secret|token)["']?\s*:`)

// mask replaces the values of secret keys by stars, so that no excerpt gives
// them away. It works on lines and not on the parsed file, because a file that
// does not parse has to be shown too; in doubt it masks too much.
func mask(lines []string) []string {
	inside := -1 // the indent of the secret key whose value goes on below
	for i, line := range lines {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if inside >= 0 {
			if strings.TrimSpace(line) == "" || indent > inside {
				lines[i] = stars(line, 0)
				continue
			}
			inside = -1
		}
		if m := secretKey.FindStringIndex(line); m != nil {
			lines[i] = stars(line, m[1])
			inside = len(line) - len(strings.TrimLeft(line, " -"))
		}
	}
	return lines
}

// stars replaces each character from the byte offset on, but keeps spaces at
// its beginning: columns stay true.
func stars(line string, from int) string {
	rest := line[from:]
	value := strings.TrimLeft(rest, " \t")
	lead := rest[:len(rest)-len(value)]
	return line[:from] + lead + strings.Repeat("*", len([]rune(strings.TrimRight(value, " \r"))))
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
