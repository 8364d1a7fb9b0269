package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// module is the path of the module that the rules are about.
const module = "github.com/carpd/carpd"

// pkg is one package as `go list` sees it.
type pkg struct {
	ImportPath   string
	Dir          string
	Standard     bool
	GoFiles      []string
	CgoFiles     []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	TestImports  []string // of tests inside of the package
	XTestImports []string // of external tests
	Deps         []string // all packages below, without those of tests
}

// path returns the import path relative to the module: "carp/link", or "" for
// the root.
func (p pkg) path() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

// root returns the directory of the module.
func root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("rules: find go.mod: none above the working directory")
		}
		dir = up
	}
}

// list returns the packages of the module.
func list(dir string) ([]pkg, error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Standard,GoFiles,CgoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports,Deps", "./...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("rules: go list: %w: %s", err, stderr.String())
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("rules: read what go list says: %w", err)
		}
		all = append(all, p)
	}
}

// source is one file of the repository.
type source struct {
	path string // relative to the root, with slashes
	text string
}

func (s source) isGo() bool     { return strings.HasSuffix(s.path, ".go") }
func (s source) isGoTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// sources returns the text files that people write: all but hidden directories
// (other than .ci), bin and test data.
func sources(dir string) ([]source, error) {
	var all []source
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			hidden := strings.HasPrefix(d.Name(), ".") && rel != "." && rel != ".ci"
			if hidden || rel == "bin" || d.Name() == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.IndexByte(text, 0) < 0 {
			all = append(all, source{filepath.ToSlash(rel), string(text)})
		}
		return nil
	})
	return all, err
}
