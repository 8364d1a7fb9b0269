package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	buildLimit  = 5 * time.Minute
	leastLimit  = 20 * time.Second // a test run that takes longer hangs
	limitFactor = 5                // or that takes so many times as long as without a mutant
	memoryLimit = 8 << 30          // bytes of address space: a mutant may eat without end
	outputLimit = 1 << 20          // bytes of output that are looked at
)

// bench runs mutants. Its directory holds the snapshot and a copy for each
// mutant that is being tried.
type bench struct {
	dir, tree string
	procs     int
}

func newBench(ctx context.Context, root, dir string) (*bench, error) {
	b := &bench{dir: dir, tree: filepath.Join(dir, "tree"), procs: 1}
	return b, snapshot(ctx, root, b.tree)
}

// catch says which test noticed, and after how long.
type catch struct {
	level, test, detail string
	took                time.Duration
}

// result is what became of a mutant.
type result struct {
	mutant
	caught  *catch // by the cheapest level that noticed; nil: it survived
	harness *catch // by the simulator or the exploration
	asked   bool   // a level of the harness was tried
	took    time.Duration
	err     error // it could not be tried
}

// meant returns the mutants that one of the levels is for.
func meant(levels []level, mutants []mutant) []mutant {
	return slices.DeleteFunc(mutants, func(m mutant) bool {
		return !slices.ContainsFunc(levels, func(l level) bool { return l.meant(&m) })
	})
}

// baseline runs every level that a mutant needs once, without a mutant. It returns
// those that there are, with the time that each may take.
func (b *bench) baseline(ctx context.Context, levels []level, mutants []mutant) ([]level, error) {
	var kept []level
	t, err := b.copy("baseline")
	if err != nil {
		return nil, err
	}
	defer t.remove()
	for _, l := range levels {
		needed := false
		for i := range mutants {
			needed = needed || l.meant(&mutants[i])
		}
		switch {
		case !needed:
			continue
		case !l.exists(b.tree):
			fmt.Fprintf(os.Stderr, "mutants: level %s left out: no tests in %s\n", l.name, l.pkg)
			continue
		}
		l.limit = 10 * time.Minute
		c, err := t.try(ctx, &l)
		if err != nil {
			return nil, err
		}
		if c != nil {
			return nil, fmt.Errorf("level %s fails without a mutant: %s %s: mend that first, or choose another -level", l.name, c.test, c.detail)
		}
		took := t.ran
		l.limit = max(leastLimit, limitFactor*took)
		fmt.Fprintf(os.Stderr, "mutants: level %-8s passes without a mutant in %.1f s\n", l.name, took.Seconds())
		kept = append(kept, l)
	}
	return kept, nil
}

// all tries the mutants, several at a time, and returns the results in order.
func (b *bench) all(ctx context.Context, levels []level, mutants []mutant, parallel int) []result {
	b.procs = max(runtime.NumCPU()/parallel, 1)
	results := make([]result, len(mutants))
	next := make(chan int)
	var workers sync.WaitGroup
	var one sync.Mutex
	done := 0
	for range parallel {
		workers.Go(func() {
			for i := range next {
				r := b.one(ctx, levels, &mutants[i], fmt.Sprint(i))
				results[i] = r
				one.Lock()
				done++
				fmt.Fprintf(os.Stderr, "mutants: %3d/%d %6.1f s  %s: %s\n", done, len(mutants), r.took.Seconds(), r.name, r.verdict())
				one.Unlock()
			}
		})
	}
	for i := range mutants {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
	return results
}

// one tries a mutant on the levels that are meant for it.
func (b *bench) one(ctx context.Context, levels []level, m *mutant, name string) (r result) {
	began := time.Now()
	r = result{mutant: *m}
	defer func() { r.took = time.Since(began) }()
	t, err := b.copy(name)
	if err != nil {
		r.err = err
		return r
	}
	defer t.remove()
	if r.err = m.write(t.tree); r.err != nil {
		return r
	}
	for i := range levels {
		l := &levels[i]
		wanted := r.caught == nil || l.harness && r.harness == nil
		if !wanted || !l.meant(m) {
			continue
		}
		r.asked = r.asked || l.harness
		c, err := t.try(ctx, l)
		if err != nil {
			r.err = err
			return r
		}
		if c != nil && r.caught == nil {
			r.caught = c
		}
		if c != nil && l.harness {
			r.harness = c
		}
	}
	return r
}

// trial is a copy of the tree in which tests run.
type trial struct {
	dir, tree string
	procs     int
	built     map[string]bool // packages whose test binary is there
	ran       time.Duration   // of the last binary
}

func (b *bench) copy(name string) (*trial, error) {
	t := &trial{dir: filepath.Join(b.dir, name), procs: b.procs, built: map[string]bool{}}
	t.tree = filepath.Join(t.dir, "t")
	if err := os.MkdirAll(filepath.Join(t.dir, "tmp"), 0o777); err != nil {
		return nil, err
	}
	return t, os.CopyFS(t.tree, os.DirFS(b.tree))
}

func (t *trial) remove() { os.RemoveAll(t.dir) }

// try runs the tests of one level. It returns nil if all pass; the error says that
// they could not be run.
func (t *trial) try(ctx context.Context, l *level) (*catch, error) {
	pattern, err := l.pattern(t.tree)
	if err != nil {
		return nil, err
	}
	for range 3 {
		c, err := t.once(ctx, l, pattern)
		if err != nil || c == nil || !l.clock {
			return c, err
		}
		only := pattern
		if c.test != died {
			only = "^" + c.test + "$"
		}
		again, err := t.once(ctx, l, only)
		if err != nil || again != nil {
			return c, err
		}
	}
	return nil, fmt.Errorf("level %s: a test fails now and then: the machine is too busy for it", l.name)
}

// once runs the tests that a pattern matches.
func (t *trial) once(ctx context.Context, l *level, pattern string) (*catch, error) {
	binary, err := t.build(ctx, l.pkg)
	if err != nil {
		return nil, err
	}
	args := append([]string{"-test.failfast", "-test.run=" + pattern, "-test.timeout=" + l.limit.String()}, l.args...)
	within, stop := context.WithTimeout(ctx, l.limit+5*time.Second)
	defer stop()
	cmd := t.command(within, filepath.Join(t.tree, l.pkg), binary, args...)
	began := time.Now()
	out, err := runLimited(cmd)
	t.ran = time.Since(began)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err == nil {
		return nil, nil
	}
	if _, exited := errors.AsType[*exec.ExitError](err); !exited && within.Err() == nil {
		return nil, fmt.Errorf("level %s: %w", l.name, err)
	}
	c := &catch{level: l.name, took: t.ran}
	c.test, c.detail = noticed(out)
	return c, nil
}

// build makes the test binary of a package, once a trial.
func (t *trial) build(ctx context.Context, pkg string) (string, error) {
	binary := filepath.Join(t.dir, strings.ReplaceAll(pkg, "/", "-")+".test")
	if t.built[pkg] {
		return binary, nil
	}
	ctx, stop := context.WithTimeout(ctx, buildLimit)
	defer stop()
	// Trimmed paths make the build cache serve every copy of what did not change.
	cmd := t.command(ctx, t.tree, "go", "test", "-c", "-trimpath", "-vet=off", "-buildvcs=false", "-o", binary, "./"+pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("does not compile: %w: %s", err, bytes.TrimSpace(out))
	}
	t.built[pkg] = true
	return binary, nil
}

// command runs in a process group of its own, which is killed when ctx ends.
func (t *trial) command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Join(t.dir, "tmp"), "CARPD_LAB=required",
		fmt.Sprint("GOMAXPROCS=", t.procs), "GOTRACEBACK=single")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// head keeps the beginning of what is written to it.
type head struct{ bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	h.Buffer.Write(p[:min(len(p), outputLimit-h.Len())])
	return len(p), nil
}

// runLimited runs a command with bounded memory and returns the beginning of its
// output.
func runLimited(cmd *exec.Cmd) ([]byte, error) {
	var out head
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	limit := unix.Rlimit{Cur: memoryLimit, Max: memoryLimit}
	limited := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_AS, &limit, nil)
	if err := cmd.Wait(); err != nil {
		return out.Bytes(), err
	}
	if limited != nil && !errors.Is(limited, unix.ESRCH) {
		return nil, fmt.Errorf("limit memory: %w", limited)
	}
	return out.Bytes(), nil
}

var (
	failed    = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)
	hung      = regexp.MustCompile(`panic: test timed out after \S+\s+running tests:\s+(\S+)`)
	violation = regexp.MustCompile(`(?m)(seed \d+): sim: at [\d.]+ s: ([\w-]+):`)
)

// died stands for a test that did not end by itself.
const died = "the test binary died"

// noticed finds in the output of tests that failed which one it was, and for the
// simulator the seed and the checker.
func noticed(out []byte) (test, detail string) {
	switch m := failed.FindSubmatch(out); {
	case m != nil:
		test = string(m[1])
	default:
		test = died
	}
	if m := hung.FindSubmatch(out); m != nil {
		test, detail = string(m[1]), "hung"
	} else if bytes.Contains(out, []byte("\npanic: ")) {
		detail = "panic"
	}
	if m := violation.FindSubmatch(out); m != nil {
		detail = fmt.Sprintf("%s, %s", m[2], m[1])
	}
	if test == died && len(out) == 0 {
		detail = "killed"
	}
	return test, detail
}
