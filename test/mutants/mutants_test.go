package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The list must not rot, and its explanations neither.
func TestEveryMutantByHandFitsTheCodeAsItIs(t *testing.T) {
	const root = "../.."
	names := map[string]bool{}
	hand := handMutants()
	for _, m := range hand {
		if names[m.name] {
			t.Errorf("two mutants are named %s", m.name)
		}
		names[m.name] = true
		files, err := m.apply(root)
		if err != nil {
			t.Error(err)
		}
		for name, text := range files {
			before, err := os.ReadFile(filepath.Join(root, name))
			if err != nil || string(before) == string(text) {
				t.Errorf("%s changes nothing (%v)", m.name, err)
			}
		}
	}
	mechanical, err := generate(root, engineFiles())
	if err != nil {
		t.Fatal(err)
	}
	c := newChecker(root)
	for i := range hand {
		m := &hand[i]
		if m.of("carp") { // the others import what cannot be checked so fast
			if ok, err := c.compiles(m); err == nil && !ok {
				t.Errorf("%s does not compile; change test/mutants/hand.go to what the code is now", m.name)
			}
		}
	}
	if len(hand) < 12 || len(mechanical) < 500 {
		t.Errorf("%d mutants by hand, %d by machine", len(hand), len(mechanical))
	}
	if err := stale(hand, mechanical); err != nil {
		t.Error(err)
	}
}

const sample = `package sample

func Max(a, b int) int {
	if a > b && a != 7 {
		return a
	}
	b += 0
	return b
}
`

func TestOperatorsMakeTheseMutants(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "sample.go", sample)
	all, err := generate(dir, []string{"sample.go"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, m := range all {
		got[m.what] = true
	}
	for _, want := range []string{
		"`a > b && a != 7` becomes `!(a > b && a != 7)`",
		"`a > b && a != 7` becomes `a > b || a != 7`",
		"`a > b` becomes `a >= b`",
		"`a != 7` becomes `a == 7`",
		"`if a > b && a != 7 {` becomes `if a > b && a != 8 {`",
		"`if a > b && a != 7 {` becomes `if a > b && a != 6 {`",
		"`return a` is dropped",
		"`b += 0` is dropped",
		"`b += 0` becomes `b += 1`",
		"`b += 0` becomes `b += (-1)`",
		"`return b` is dropped",
	} {
		if !got[want] {
			t.Errorf("missing: %s", want)
		}
		delete(got, want)
	}
	for what := range got {
		t.Errorf("not expected: %s", what)
	}
	some, err := compiling(dir, all, len(all))
	if err != nil {
		t.Fatal(err)
	}
	if len(some) != len(all)-1 { // without its last return the function has no end
		t.Errorf("%d of %d compile", len(some), len(all))
	}
}

func TestDrawIsTheSameWhenOtherLinesChange(t *testing.T) {
	dir := t.TempDir()
	first := func(text string) string {
		write(t, dir, "sample.go", text)
		all, err := generate(dir, []string{"sample.go"})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, m := range draw(all, 1) {
			if !strings.Contains(m.name, "Other") {
				names = append(names, m.name)
			}
		}
		return strings.Join(names, "\n")
	}
	one := first(sample)
	if two := first("package sample\n\nfunc Other() int { return 1 }\n" + strings.TrimPrefix(sample, "package sample\n")); one != two {
		t.Errorf("drawn\n%s\nand then\n%s", one, two)
	}
}

// A repository of one package with one test, which cannot see everything.
func TestBenchTellsWhoNoticedWhoHungAndWhoSurvived(t *testing.T) {
	root := t.TempDir()
	write(t, root, "go.mod", "module sample\n\ngo 1.26\n")
	write(t, root, "carp/sample.go", sample)
	write(t, root, "carp/sample_test.go", `package sample

import "testing"

func TestMax(t *testing.T) {
	for Max(2, 1) == 1 {
	}
	if Max(3, 4) != 4 {
		t.Error("not the greater one")
	}
}
`)
	for _, args := range [][]string{{"init", "-q"}, {"add", "go.mod"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("git: %v: %s", err, out)
		}
	}
	ctx := t.Context()
	b, err := newBench(ctx, root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(old, new string) mutant {
		return mutant{name: old + new, edits: []edit{replace("carp/sample.go", old, new)}}
	}
	mutants := []mutant{at("return b", "return a"), at("a > b", "a < b"), at("7", "8"), at("return b", "return c"), at("missing", "")}
	levels, err := b.baseline(ctx, []level{{name: "unit", pkg: "carp", dirs: []string{"carp"}}}, mutants)
	if err != nil || len(levels) != 1 {
		t.Fatal(levels, err)
	}
	levels[0].limit = 2 * time.Second
	got := b.all(ctx, levels, mutants, 2)
	for i, want := range []string{
		"unit TestMax", "unit TestMax (hung)", "SURVIVES", "ERROR: does not compile", "ERROR: mutant missing: its text is 0 times",
	} {
		if v := got[i].verdict(); !strings.HasPrefix(v, want) {
			t.Errorf("%s: %s, want %s", got[i].name, v, want)
		}
	}
	r := report{results: got, levels: levels}
	if n := len(r.faults()); n != 3 {
		t.Errorf("%d faults, want the survivor and two errors: %v", n, r.faults())
	}
	if text, err := os.ReadFile(filepath.Join(root, "carp/sample.go")); err != nil || string(text) != sample {
		t.Error("the working tree was changed")
	}
	ended, stop := context.WithCancel(ctx)
	stop()
	if c, err := (&trial{dir: t.TempDir(), tree: b.tree}).try(ended, &levels[0]); err == nil {
		t.Errorf("an interrupted run says %v", c)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}
