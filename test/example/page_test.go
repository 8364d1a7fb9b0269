package example

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/carpd/carpd/test/lab"
)

const page = "../../docs/harness.md"

// block is one fenced block of the page; file is set if the line above names one.
type block struct {
	line             int
	file, kind, text string
}

var fileLine = regexp.MustCompile("^`([a-z_./]+)`:$")

func blocks(t *testing.T) (all []block) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var open *block
	above := ""
	for i, line := range strings.SplitAfter(string(text), "\n") {
		trimmed := strings.TrimSuffix(line, "\n")
		switch fence := strings.HasPrefix(trimmed, "```"); {
		case open != nil && fence:
			all, open = append(all, *open), nil
		case open != nil:
			open.text += line
		case fence:
			open = &block{line: i + 1, kind: strings.TrimPrefix(trimmed, "```")}
			if m := fileLine.FindStringSubmatch(above); m != nil {
				open.file = m[1]
			}
		}
		if trimmed != "" {
			above = trimmed
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block has no end", page, open.line)
	}
	return all
}

func TestPageShowsEveryFileAsItIs(t *testing.T) {
	shown := map[string]bool{"page_test.go": true} // no part of the example
	for _, b := range blocks(t) {
		if b.file == "" {
			continue
		}
		shown[b.file] = true
		if text, err := os.ReadFile(b.file); err != nil || string(text) != b.text {
			t.Errorf("%s:%d: %s is not as shown (%v)", page, b.line, b.file, err)
		}
	}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !shown[path] {
			t.Errorf("%s is not on the page", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// The page is put together in an empty directory, as a project of somebody else,
// and its commands are run there from top to bottom.
func TestLabPageDoesWhatItSays(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	lab.New(t) // skips where the page cannot do all that it shows
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bin, dir := t.TempDir(), t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, root+"/cmd/carpd", root+"/cmd/carplab").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	commands := 0
	for _, b := range blocks(t) {
		if b.file == "" {
			continue
		}
		path := filepath.Join(dir, b.file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(b.text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range blocks(t) {
		if b.kind != "console" {
			continue
		}
		for _, step := range strings.Split("\n"+b.text, "\n$ ")[1:] {
			commands++
			command, want, _ := strings.Cut(step, "\n")
			cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "CARPD="+root, "PATH="+bin+":"+os.Getenv("PATH"))
			out, err := cmd.Output() // what go says of its downloads is on stderr
			if !matches(want, string(out)) || err != nil {
				t.Fatalf("%s:%d: %s: %s", page, b.line, command, explain(want, string(out), err))
			}
		}
	}
	if commands < 10 {
		t.Errorf("only %d commands were found", commands)
	}
}

// matches compares output with what the page shows of it: "..." there is anything
// within a line.
func matches(want, got string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(want)), `\.\.\.`, ".*")
	return regexp.MustCompile("^" + pattern + "$").MatchString(strings.TrimSpace(got))
}

func explain(want, got string, err error) string {
	var exit *exec.ExitError
	stderr := ""
	if errors.As(err, &exit) {
		stderr = string(exit.Stderr)
	}
	return fmt.Sprintf("%v\nthe page says:\n%s\nand it was:\n%s%s", err, want, got, stderr)
}

func TestOutputIsComparedLineByLine(t *testing.T) {
	for _, tc := range []struct {
		want, got string
		same      bool
	}{
		{"a\nb", "a\nb\n", true},
		{"a ... c", "a b c\n", true},
		{"a ... c", "a\nb c\n", false},
		{"a.c", "abc", false},
		{"", "a", false},
		{"a", "", false},
	} {
		if matches(tc.want, tc.got) != tc.same {
			t.Errorf("%q and %q: the same: %v", tc.want, tc.got, !tc.same)
		}
	}
}
