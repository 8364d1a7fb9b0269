package config

import (
	"regexp"
	"slices"
	"strings"
)

// mask replaces what may be a passphrase by stars, so that no excerpt gives it
// away. It works on lines and not on the parsed file, because a file that does
// not parse has to be shown too; in doubt it masks too much.
func mask(lines []string) []string {
	known := Keys()
	inside := -1     // the indent of the secret key whose value goes on below
	missing := false // its value is still to come
	for i, line := range lines {
		text := strings.TrimSpace(line)
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if inside >= 0 {
			if text == "" {
				continue
			}
			if indent > inside || missing && !strings.Contains(line, ":") {
				lines[i], missing = stars(line, 0), false
				continue
			}
			inside, missing = -1, false
		}
		if from, found := secretFrom(line, known); found {
			lines[i] = stars(line, from)
			if !strings.HasPrefix(text, "#") {
				inside = len(line) - len(strings.TrimLeft(line, " -"))
				missing = strings.TrimSpace(line[from:]) == ""
			}
		}
	}
	return lines
}

// hide masks the value of a key that is not known: it may be a passphrase under
// any name.
func (s *source) hide(e entry) {
	if i := e.at.line - 1; i >= 0 && i < len(s.lines) {
		line := s.lines[i]
		from := byteOffset(line, e.at.column)
		rest := strings.TrimLeft(line[from:], `"'`)
		if strings.HasPrefix(rest, e.key) { // else it is written with escapes
			from = afterKey(line, len(line)-len(rest)+len(e.key))
		}
		s.lines[i] = stars(line, from)
	}
	if at := e.value.at; at.line > e.at.line && at.line <= len(s.lines) {
		line := s.lines[at.line-1]
		s.lines[at.line-1] = stars(line, byteOffset(line, at.column))
	}
}

// byteOffset returns where the character of a column begins.
func byteOffset(line string, column int) int {
	for i := range line {
		if column--; column <= 0 {
			return i
		}
	}
	return len(line)
}

// shown is what messages show of a key: a colon may have been forgotten.
func shown(key string) string {
	if from, found := secretFrom(key, Keys()); found {
		return stars(key, from)
	}
	return key
}

// word finds what may be a key, or part of one.
var word = regexp.MustCompile(`[\pL\pN_][\pL\pN_-]*`)

// secretFrom returns where the value of a secret key begins in a line: a word
// like "passphrase" that stands where a key does, whatever comes between it and
// its value, or anywhere with a colon or equals sign behind it.
func secretFrom(line string, known []string) (from int, found bool) {
	for _, at := range word.FindAllStringIndex(line, -1) {
		after := afterKey(line, at[1])
		separated := strings.ContainsAny(line[at[1]:after], ":=")
		if (separated || beginsKey(line[:at[0]])) && secretWord(line[at[0]:at[1]], known) {
			return after, true
		}
	}
	return 0, false
}

// afterKey skips the quote and separator behind a key that ends at a byte offset.
func afterKey(line string, end int) int {
	rest := strings.TrimLeft(line[end:], `"'`)
	if value := strings.TrimLeft(rest, " \t"); value != "" && (value[0] == ':' || value[0] == '=') {
		rest = value[1:]
	}
	return len(line) - len(rest)
}

// beginsKey reports whether a key may stand behind this beginning of a line.
func beginsKey(lead string) bool {
	lead = strings.TrimRight(lead, " \t\"'")
	return strings.Trim(lead, " \t-?#") == "" || strings.HasSuffix(lead, "{") || strings.HasSuffix(lead, ",")
}

// secretWord reports whether a key of this name, or of the name that was meant
// by it, may hold a secret. A file name is none.
func secretWord(key string, known []string) bool {
	p := plain(key)
	if strings.HasSuffix(p, "file") {
		return false
	}
	for _, part := range []string{"pass", "phrase", "pw", "secret", "token", "psk", "key", "auth", "cred"} {
		if strings.Contains(p, part) {
			return true
		}
	}
	if len(p) < 4 || slices.Contains(known, key) {
		return false
	}
	return nearest(p, []string{"passphrase", "password", "passwd", "secret", "token"}) != ""
}

// stars replaces each character from the byte offset on, but keeps spaces at
// its beginning: columns stay true.
func stars(line string, from int) string {
	rest := line[from:]
	value := strings.TrimLeft(rest, " \t")
	lead := rest[:len(rest)-len(value)]
	return line[:from] + lead + strings.Repeat("*", len([]rune(strings.TrimRight(value, " \r"))))
}
