package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"
)

// mutant is one fault.
type mutant struct {
	name  string // unique and stable: explanations are filed under it
	what  string // one line for the table
	edits []edit
	made  bool // mechanical
}

// edit replaces old by new in file: at the offset at, or, if that is negative, at
// the one place where old is found.
type edit struct {
	file     string // relative to the root
	old, new string
	at       int
}

// replace makes an edit of text that must be found exactly once.
func replace(file, old, new string) edit { return edit{file, old, new, -1} }

// apply returns the changed files.
func (m *mutant) apply(tree string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, e := range m.edits {
		text, ok := files[e.file]
		if !ok {
			var err error
			if text, err = os.ReadFile(filepath.Join(tree, e.file)); err != nil {
				return nil, fmt.Errorf("mutant %s: %w", m.name, err)
			}
		}
		at := e.at
		if at < 0 {
			if n := bytes.Count(text, []byte(e.old)); n != 1 {
				return nil, fmt.Errorf("mutant %s: its text is %d times in %s, not once; change test/mutants/hand.go to what the code is now: %s",
					m.name, n, e.file, short(e.old))
			}
			at = bytes.Index(text, []byte(e.old))
		}
		files[e.file] = bytes.Join([][]byte{text[:at], text[at+len(e.old):]}, []byte(e.new))
	}
	return files, nil
}

// write puts the changed files into a copy of the tree.
func (m *mutant) write(dir string) error {
	files, err := m.apply(dir)
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o666); err != nil {
			return fmt.Errorf("mutant %s: %w", m.name, err)
		}
	}
	return nil
}

// of reports whether the mutant is in a directory, not below it.
func (m *mutant) of(dir string) bool { return filepath.Dir(m.edits[0].file) == dir }

// squeeze makes each run of white space one space.
func squeeze(s string) string {
	var b strings.Builder
	space := false
	for _, r := range s {
		if unicode.IsSpace(r) {
			r = ' '
			if space {
				continue
			}
		}
		space = r == ' '
		b.WriteRune(r)
	}
	return b.String()
}

// short is text on one line of bounded length.
func short(s string) string {
	s = strings.TrimSpace(squeeze(s))
	if r := []rune(s); len(r) > 100 {
		return string(r[:97]) + "..."
	}
	return s
}
