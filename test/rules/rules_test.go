package rules

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// repository reads the repository once for all rules.
var repository = sync.OnceValues(func() (tree, error) {
	dir, err := root()
	if err != nil {
		return tree{}, err
	}
	t := tree{dir: dir}
	if t.packages, err = list(dir); err != nil {
		return t, err
	}
	t.sources, err = sources(dir)
	return t, err
})

type tree struct {
	dir      string
	packages []pkg
	sources  []source
}

func load(t *testing.T) tree {
	t.Helper()
	r, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	if len(r.packages) == 0 || len(r.sources) == 0 {
		t.Fatal("the repository looks empty: the rules would hold for nothing")
	}
	return r
}

// files reads the sources of a package without its tests.
func (r tree) files(t *testing.T, p pkg) []source {
	t.Helper()
	var all []source
	for _, name := range append(p.GoFiles, p.CgoFiles...) {
		path := filepath.Join(p.Dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(r.dir, path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, source{filepath.ToSlash(rel), string(text)})
	}
	return all
}

func report(t *testing.T, faults []string) {
	t.Helper()
	for _, f := range faults {
		t.Error(f)
	}
}

func TestPackagesImportOnlyWhatTheirPlaceAllows(t *testing.T) {
	for _, p := range load(t).packages {
		report(t, importFaults(p))
	}
}

func TestLibrariesStayWhereTheyBelong(t *testing.T) {
	for _, f := range load(t).sources {
		if f.isGo() {
			report(t, libraryFaults(f, homes()))
		}
	}
}

func TestPackagesKeepNoStateOfTheirOwn(t *testing.T) {
	r := load(t)
	for _, p := range r.packages {
		report(t, stateFaults(p.path(), r.files(t, p)))
	}
}

func TestEverythingExportedIsDocumented(t *testing.T) {
	r := load(t)
	for _, p := range r.packages {
		if files := r.files(t, p); len(files) > 0 {
			report(t, docFaults(p.path(), files))
		}
	}
}

func TestGoFilesAreFormattedAndShort(t *testing.T) {
	for _, f := range load(t).sources {
		if f.isGo() {
			report(t, formatFaults(f))
			report(t, lengthFaults(f))
		}
	}
}

func TestNothingThatWasBuiltIsUnderVersionControl(t *testing.T) {
	r := load(t)
	names, err := tracked(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		report(t, trackedFaults(r.dir, name))
	}
}

func TestNothingIsMarkedAsUnfinished(t *testing.T) {
	for _, f := range load(t).sources {
		report(t, markerFaults(f))
	}
}

func TestNoTestSleeps(t *testing.T) {
	for _, f := range load(t).sources {
		// The harness and the suites are tests too, though not by their names.
		harness := strings.HasPrefix(f.path, "test/") || strings.Contains(f.path, "test/")
		if f.isGoTest() || f.isGo() && harness {
			report(t, sleepFaults(f))
		}
	}
}
