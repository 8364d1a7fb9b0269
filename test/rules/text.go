package rules

import (
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxLines is how long a Go file may be: a reader holds no more in mind.
const maxLines = 600

// formatFaults checks for gofmt's form.
func formatFaults(f source) []string {
	formatted, err := format.Source([]byte(f.text))
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", f.path, err)}
	}
	if string(formatted) != f.text {
		return []string{fmt.Sprintf("%s: not in gofmt's form: run gofmt -w %s", f.path, f.path)}
	}
	return nil
}

// lengthFaults checks the number of lines.
func lengthFaults(f source) []string {
	if n := strings.Count(f.text, "\n"); n > maxLines {
		return []string{fmt.Sprintf("%s: %d lines, at most %d: split it by what it is about", f.path, n, maxLines)}
	}
	return nil
}

// marker matches the words that mean unfinished work.
var marker = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)

// markerFaults checks for words that mean unfinished work: what is not done is
// in the tracker, not in the tree.
func markerFaults(f source) []string {
	var faults []string
	for i, line := range strings.Split(f.text, "\n") {
		if m := marker.FindString(line); m != "" {
			faults = append(faults, fmt.Sprintf("%s:%d: %s: do it, or say in plain words what is missing", f.path, i+1, m))
		}
	}
	return faults
}

// sleepFaults checks a test for time.Sleep: on a loaded machine it is too short,
// on a fast one too long. In a bubble of testing/synctest it is neither, so a
// file of bubbles may sleep: one that imports synctest, and nothing that makes
// a test of the real world.
func sleepFaults(f source) []string {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, f.path, f.text, 0)
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", f.path, err)}
	}
	if imported(file, "testing/synctest") != "" && imported(file, "os/exec") == "" && imported(file, module+"/test/lab") == "" {
		return nil
	}
	name := imported(file, "time")
	var faults []string
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Sleep" {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == name {
				faults = append(faults, fmt.Sprintf("%s: time.Sleep in a test: wait for what happens, with a deadline, or use testing/synctest", fset.Position(n.Pos())))
			}
		}
		return true
	})
	return faults
}

// imported returns the name under which a file imports a package, or "".
func imported(file *ast.File, imp string) string {
	i := slices.IndexFunc(file.Imports, func(s *ast.ImportSpec) bool { return s.Path.Value == strconv.Quote(imp) })
	switch {
	case i < 0:
		return ""
	case file.Imports[i].Name != nil:
		return file.Imports[i].Name.Name
	}
	return path.Base(imp)
}
