package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FuzzParse promises that no file stops the daemon, that an error says where,
// and that a sound file equals itself.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/good/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	for _, s := range []string{"", "-", "?", ":", "{", "[", "'", "\"", "|", ">", "&a", "*a", "!!", "%", "a: |+2\n", "{a: [b:c:d, ::, :]}", "[[:a]]", "{? a: b}", "a:\n- b\nc"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o := lan()
		one, err := Parse("fuzz.yaml", data, o)
		if err == nil {
			two, err := Parse("fuzz.yaml", data, o)
			if err != nil || len(one.Diff(two)) != 0 || len(one.Instances) == 0 {
				t.Fatalf("read twice: %v, %v", err, one.Diff(two))
			}
			return
		}
		var problems Problems
		if one != nil || !errors.As(err, &problems) || problems.Faults() == 0 {
			t.Fatalf("got %v, %v", one, err)
		}
		lines := strings.Count(string(data), "\n") + 1
		for _, p := range problems {
			if p.Line < 0 || p.Line > lines+1 || p.Column < 0 || p.Message == "" {
				t.Fatalf("bad problem: %+v", p)
			}
			_ = p.String()
		}
	})
}

// Each of these is a quarter of a mebibyte of one thing. Those that the parser
// would spend minutes on, of a whole one, are refused before it sees them.
func TestHostileFilesAreReadInBoundedTime(t *testing.T) {
	for _, c := range []struct{ head, unit string }{
		{"", "["}, {"", "{a: "}, {"", "- "}, {"a: [", "? "}, {"", ": "}, {"", "a: b\n"}, {"", "a: b, "}, {"{", "a: b, "}, {"", "a:\n- b\n"},
		{"a: |\n ", "\n"}, {"a: >-  # text\n ", "\r\n"}, {"", "--- a\n"}, {"a: [", "--- a\n"}, {"instances:\n", "- a: b\n  c: d\n"}, {"a: [", "::,"}, {"", "&a "},
	} {
		start := time.Now()
		_, err := Parse("x", []byte(c.head+strings.Repeat(c.unit, (MaxFile/4)/len(c.unit))), lan())
		if took := time.Since(start); took > 10*time.Second || err == nil {
			t.Errorf("%q after %q took %v: %v", c.unit, c.head, took, err)
		}
	}
}
